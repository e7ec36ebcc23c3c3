package main

import (
	"bufio"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgnotary/pgnotary/internal/query"
)

func newSearchCmd() *cobra.Command {
	var (
		dir        string
		asJSON     bool
		exitStatus bool
		filter     filterFlags
	)
	cmd := &cobra.Command{
		Use:   "search",
		Short: "List recorded statements",
		Long: `Search prints the statements and events of a log that match all given filters,
oldest first: one line each, or with --json one object each. The log may be in
use; search then waits, up to a second, until the newest entries are known to be
durable. Where statements are still running or their transaction is still open,
that part is left out.

A line shows index, time (UTC), user@database, duration, result and statement.
A result in brackets means that the statement did not complete; "undone" means
that its transaction was rolled back.`,
		Example: `  pgnotary search --data ./pgnotary-data --user alice --since 15m
  pgnotary search --data ./pgnotary-data --sqlstate 42501 --json
  pgnotary search --data ./pgnotary-data --regex '(?i)^drop ' --exit-status`,
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
			if err := log.CatchUp(cmd.Context()); err != nil {
				return err
			}
			w := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
			lines := newLinePrinter(cmd.OutOrStdout())
			found := false
			var buf []byte
			err = log.Search(cmd.Context(), f, func(s *query.Statement) error {
				found = true
				if !asJSON {
					_, err := w.WriteString(lines.line(s))
					return err
				}
				buf = append(s.AppendJSON(buf[:0]), '\n')
				_, err := w.Write(buf)
				return err
			})
			if flushErr := w.Flush(); err == nil {
				err = flushErr
			}
			if err == nil && exitStatus && !found {
				return no("")
			}
			return err
		},
	}
	addDataFlag(cmd, &dir)
	filter.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	cmd.Flags().BoolVar(&exitStatus, "exit-status", false, "end with code 1 if nothing was found")
	return cmd
}
