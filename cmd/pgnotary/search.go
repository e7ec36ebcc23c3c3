package main

import (
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newSearchCmd() *cobra.Command {
	var (
		what       selection
		asJSON     bool
		exitStatus bool
	)
	cmd := &cobra.Command{
		Use:   "search",
		Short: "List recorded statements",
		Long: `Search prints the statements and events of a log that match all given filters,
oldest first: one line each, or with --json one object each. The log may be in
use; search then waits, up to a second, until the newest entries are known to be
durable. Where statements are still running or their transaction is still open,
that part is left out. To go on from where an output ends, give --from the index
above its last.

With --since or --until it looks for the stretch of the log by its times. Where the clock was
set back by more than a minute, which verify notes, that can miss some: --all reads everything.

A line shows index, time (UTC), user@database, duration, result and statement.
A result in brackets means that the statement did not complete; "undone" means
that its transaction was rolled back.

With --url it asks a running pgnotary serve, which records that it was asked.
That needs a token; what its role may not see is left out.`,
		Example: `  pgnotary search --data ./pgnotary-data --user alice --since 15m
  pgnotary search --data ./pgnotary-data --sqlstate 42501 --json
  pgnotary search --data ./pgnotary-data --regex '(?i)^drop ' --exit-status
  pgnotary search --url https://audit.internal:6433 --token-file ~/.pgnotary-token --text accounts`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// What finds little is over before there is much to collect: this saves an eighth
			// of its CPU, and costs what reads everything 15 MB.
			if os.Getenv("GOGC") == "" {
				debug.SetGCPercent(200)
			}
			out := newPrinter(cmd.OutOrStdout(), asJSON, false)
			err := what.run(cmd, false, out)
			if failed := out.w.Flush(); err == nil { // else it may be the same again
				err = failed
			}
			if err == nil && exitStatus && !out.found {
				return no("")
			}
			return err
		},
	}
	what.register(cmd)
	what.registerAll(cmd)
	addJSONFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&exitStatus, "exit-status", false, "end with code 1 if nothing was found")
	return cmd
}
