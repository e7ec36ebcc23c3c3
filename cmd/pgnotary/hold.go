package main

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/query"
)

func newHoldCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hold",
		Short: "Keep entries from being pruned or erased",
		Long: `A hold keeps what it selects, by index, time, user or database, from being pruned and its
values from being erased, until it is released. Holds are entries of the log and nowhere else:
who set one, and who released it, can be proved.`,
		Example: `  pgnotary hold add case-17 --data ./pgnotary-data --user mallory --since 2026-01-01T00:00:00Z
  pgnotary hold list --data ./pgnotary-data
  pgnotary hold release case-17 --data ./pgnotary-data --reason 'settled'`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newHoldAddCmd(), newHoldReleaseCmd(), newHoldListCmd())
	return cmd
}

func newHoldAddCmd() *cobra.Command {
	var (
		dir, since, until, reason string
		h                         ledger.Hold
		last                      int64
	)
	cmd := &cobra.Command{
		Use:   "add CASE",
		Short: "Set a hold",
		Long: `Add sets a hold named CASE. Conditions that are given select together. Without any,
the hold keeps everything.`,
		Example: `  pgnotary hold add case-17 --data ./pgnotary-data --from 1000 --to 2000`,
		Args:    oneArgument("the name of the hold, CASE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			words := map[string][]string{}
			for key, text := range map[string]string{"since": since, "until": until} {
				if text != "" {
					words[key] = []string{text}
				}
			}
			f, err := query.ParseFilter(words, time.Now())
			if err != nil {
				return err
			}
			if !f.Since.IsZero() {
				h.Since = f.Since.UnixNano()
			}
			if !f.Until.IsZero() {
				h.Until = f.Until.UnixNano()
			}
			if cmd.Flags().Changed("to") {
				if last < h.From || last < 0 {
					return fmt.Errorf("--to %d is before --from %d", last, h.From)
				}
				h.To = last + 1 // a hold says where it ends, search --to which is the last
			}
			return printAnswer(cmd, dir, &ledger.Order{Kind: "hold", Case: args[0], Hold: &h, Reason: reason})
		},
	}
	addDataFlag(cmd, &dir)
	f := cmd.Flags()
	f.Int64Var(&h.From, "from", 0, "entries from this `INDEX`")
	f.Int64Var(&last, "to", 0, "entries up to this `INDEX`, and that one")
	f.StringVar(&since, "since", "", "entries from this `TIME` (RFC 3339, a date, or a duration back from now)")
	f.StringVar(&until, "until", "", "entries up to this `TIME`")
	f.StringVar(&h.User, "user", "", "sessions of this `NAME`")
	f.StringVar(&h.Database, "database", "", "sessions in this database `NAME`")
	f.StringVar(&reason, "reason", "", "`TEXT` for the entry that says so")
	return cmd
}

func newHoldReleaseCmd() *cobra.Command {
	var dir, reason string
	cmd := &cobra.Command{
		Use:     "release CASE",
		Short:   "Release a hold",
		Example: `  pgnotary hold release case-17 --data ./pgnotary-data --reason 'settled'`,
		Args:    oneArgument("the name of the hold, CASE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return printAnswer(cmd, dir, &ledger.Order{Kind: "release", Case: args[0], Reason: reason})
		},
	}
	addDataFlag(cmd, &dir)
	cmd.Flags().StringVar(&reason, "reason", "", "`TEXT` for the entry that says so")
	return cmd
}

func newHoldListCmd() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the entries that set and released holds",
		Long: `List prints the leaves of all hold entries, oldest first: those that set a hold have the fact
"phase":"hold", those that released one "release".`,
		Example: `  pgnotary hold list --data ./pgnotary-data`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := query.Open(dir)
			if err != nil {
				return err
			}
			if err := l.CatchUp(cmd.Context()); err != nil {
				return err
			}
			size, err := l.Size()
			if err != nil {
				return err
			}
			mark := []byte(`"k":"hold"`)
			for e, err := range l.Entries(l.First(), size) {
				if err != nil {
					return err
				}
				if !bytes.Contains(e.Leaf, mark) {
					continue
				}
				if leaf, err := event.Parse(e.Leaf); err != nil {
					return errors.Join(fmt.Errorf("entry %d", e.Index), err)
				} else if leaf.Kind == event.KindHold {
					if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%d %s\n", e.Index, e.Leaf); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
	addDataFlag(cmd, &dir)
	return cmd
}
