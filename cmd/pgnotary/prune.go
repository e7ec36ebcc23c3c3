package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/query"
	"github.com/pgnotary/pgnotary/internal/segment"
)

func newPruneCmd() *cobra.Command {
	var (
		dir, before, reason string
		until               int64
		values, dryRun      bool
	)
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Let the oldest entries, or their values, go",
		Long: `Prune removes whole segments from the beginning of a log, or only their values (texts,
parameters), as far as no hold stops it. An entry says so, with the root of what was
there, and a signed checkpoint covers that entry before anything is removed. All proofs and
the rest of the log stay valid. Statement texts that open sessions may still go back to are kept.

Only sealed segments can go, and never the newest one. To have this done all the
time, see retain and retain-values of serve.

The log may be in use: then the process that writes it does it.

Exit codes: 0 done; 1 a hold stopped all of it; 2 could not do it.`,
		Example: `  pgnotary prune --data ./pgnotary-data --before 365d --dry-run
  pgnotary prune --data ./pgnotary-data --before 90d --values --reason 'policy 7'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (before == "") == (until == 0) {
				return withHint(errors.New("give either --before or --until"), "see %s --help", cmd.CommandPath())
			}
			o := &ledger.Order{Kind: "prune", What: "leaves", Until: until, Reason: reason}
			if values {
				o.What = "values"
			}
			limit := time.Unix(0, 1<<62)
			if before != "" {
				var err error
				if limit, err = query.ParseTime(before, false, time.Now()); err != nil {
					return fmt.Errorf("--before: %w", err)
				}
				o.Until = 1 << 60
			}
			n, size, end, err := prunable(dir, limit, o.Until, values)
			if err != nil {
				return err
			}
			o.Until = end
			if n == 0 || dryRun {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d segments, %d bytes of %s, entries before %d: as far as no hold stops it\n", n, size, o.What, end)
				return err
			}
			return printAnswer(cmd, dir, o)
		},
	}
	addDataFlag(cmd, &dir)
	f := cmd.Flags()
	f.StringVar(&before, "before", "", "segments that were complete before this `TIME` (RFC 3339, a date, or a duration back from now)")
	f.Int64Var(&until, "until", 0, "segments that end before the entry of this `INDEX`")
	f.BoolVar(&values, "values", false, "only values: who did what when stays")
	f.StringVar(&reason, "reason", "", "`TEXT` for the entry that says so")
	f.BoolVar(&dryRun, "dry-run", false, "only say what would go")
	return cmd
}

// prunable says what of a log is old enough, holds aside.
func prunable(dir string, limit time.Time, until int64, values bool) (n int, size, end int64, err error) {
	segs, err := segment.List(durable.OS, dir)
	if err != nil {
		return 0, 0, 0, err
	}
	for i, first := range segs {
		h, err := segment.ReadHeader(durable.OS, dir, first)
		if err != nil {
			return 0, 0, 0, err
		}
		if i == len(segs)-1 || h.Ended > limit.UnixNano() || h.End() > until {
			break
		}
		leaves, vals, err := segment.Size(durable.OS, dir, first)
		if err != nil {
			return 0, 0, 0, err
		}
		if end = h.End(); values {
			leaves = 0
		}
		if leaves+vals > 0 {
			n, size = n+1, size+leaves+vals
		}
	}
	return n, size, end, nil
}

// printAnswer gives an order and prints what became of it.
func printAnswer(cmd *cobra.Command, dir string, o *ledger.Order) error {
	a, err := order(cmd.Context(), dir, o)
	if err != nil {
		return err
	}
	if !a.OK {
		return no("%s", a.Text)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), a.Text)
	return err
}
