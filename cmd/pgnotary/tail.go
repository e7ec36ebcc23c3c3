package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/pgnotary/pgnotary/internal/query"
)

func newTailCmd() *cobra.Command {
	var (
		dir    string
		asJSON bool
		filter filterFlags
	)
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Follow the log and print statements as they are recorded",
		Long: `Tail prints statements and events as they become durable in the log, from now on
or from where --since or --from say, until Ctrl-C. Each is printed once: when it
has ended, or in most of a second as it is then. With --sqlstate or
--min-duration it is printed when it has ended, whenever that is.`,
		Example: `  pgnotary tail --data ./pgnotary-data
  pgnotary tail --data ./pgnotary-data --since 5m --min-duration 1s
  pgnotary tail --data ./pgnotary-data --json | jq -r .statement`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := filter.filter(time.Now())
			if err != nil {
				return err
			}
			log, err := query.Open(dir)
			if err != nil {
				return err
			}
			var from int64
			if !filter.given("since") && !filter.given("from") {
				if from, err = log.Size(); err != nil {
					return err
				}
			}
			w := cmd.OutOrStdout()
			lines := newLinePrinter(w)
			var buf []byte
			return log.Tail(cmd.Context(), from, f, func(s *query.Statement) error {
				if asJSON {
					buf = append(s.AppendJSON(buf[:0]), '\n')
				} else {
					buf = append(buf[:0], lines.line(s)...)
				}
				_, err := w.Write(buf)
				return err
			})
		},
	}
	addDataFlag(cmd, &dir)
	filter.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	return cmd
}
