package main

import "github.com/spf13/cobra"

func newTailCmd() *cobra.Command {
	var (
		what   selection
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Follow the log and print statements as they are recorded",
		Long: `Tail prints statements and events as they become durable in the log, from now on
or from where --since or --from say, until Ctrl-C. Each is printed once: when it
has ended, or in most of a second as it is then. With --sqlstate or
--min-duration it is printed when it has ended, whenever that is.

On a terminal lines are cut to its width, and what failed (red), was rolled back
(amber) or took a second or more (bold) stands out; NO_COLOR turns colours off.

With --url it follows a running pgnotary serve, and takes the stream up again
where it broke off. That needs a token; what its role may not see is left out.`,
		Example: `  pgnotary tail --data ./pgnotary-data
  pgnotary tail --data ./pgnotary-data --since 5m --min-duration 1s
  pgnotary tail --data ./pgnotary-data --json | jq -r .statement
  PGNOTARY_TOKEN=pgn_... pgnotary tail --url http://127.0.0.1:6433`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return what.run(cmd, true, newPrinter(cmd.OutOrStdout(), asJSON, true))
		},
	}
	what.register(cmd)
	what.registerAll(cmd)
	addJSONFlag(cmd, &asJSON)
	return cmd
}
