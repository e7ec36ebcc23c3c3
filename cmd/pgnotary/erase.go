package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/query"
)

func newEraseCmd() *cobra.Command {
	var (
		dir, reason string
		text        string
		filters     filterFlags
		dryRun      bool
	)
	cmd := &cobra.Command{
		Use:   "erase [INDEX...]",
		Short: "Erase values, as of one person, for good",
		Long: `Erase removes the values (text, parameters, error message) of the entries named, of all
statements that match the filters, or, with --bytes, of all entries whose value has these bytes: from every file of the log, with all that could
confirm a guess of them. Leaves, the tree and every proof stay as they are; entries say
what was to be erased, and that it is done.

Of a statement that matches, its own value goes, that of the Bind it ran, and the error message
it ended with; with --text or --regex also the text it was prepared with, although others may
go back to that; with --text or --param alone also the requests over HTTP that ask for it. --bytes finds
parameters too, and messages of the server, as they were sent: in the client's encoding, and in text format; and
requests over HTTP that ask for them. Nothing under a hold is erased. There is no way back.

Copies elsewhere (backups, exports, proofs that were given out with --value) are not reached, nor is
what a disk keeps of files that were removed.

The log may be in use: then the process that writes it does it.`,
		Example: `  pgnotary erase 4711 --data ./pgnotary-data --reason 'request 12'
  pgnotary erase --data ./pgnotary-data --bytes alice@example.com --dry-run
  pgnotary erase --data ./pgnotary-data --bytes alice@example.com --reason 'request 13'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ways := 0
			for _, way := range []bool{len(args) > 0, len(filters.words) > 0, text != ""} {
				if way {
					ways++
				}
			}
			if ways != 1 {
				return withHint(errors.New("name entries, give filters, or --bytes"), "see %s --help", cmd.CommandPath())
			}
			l, err := query.Open(dir)
			if err != nil {
				return err
			}
			if err := l.CatchUp(cmd.Context()); err != nil {
				return err
			}
			entries, err := named(args)
			switch {
			case text != "":
				entries, err = containing(cmd.Context(), l, text)
			case len(args) == 0:
				entries, err = matching(cmd.Context(), l, &filters)
			}
			if err != nil {
				return err
			}
			kept := entries[:0]
			for _, index := range entries {
				e, err := l.Entry(index)
				if errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("there is no entry %d: it was pruned, or has not been recorded yet", index)
				} else if err != nil {
					return err
				}
				if !e.HasValue {
					if len(args) > 0 {
						return fmt.Errorf("entry %d has no value", index)
					}
					continue
				}
				kept = append(kept, index)
				if dryRun {
					if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%d %s\n", index, e.Leaf); err != nil {
						return err
					}
				}
			}
			if len(kept) == 0 {
				return no("no value is to be erased")
			}
			if dryRun {
				_, err := fmt.Fprintf(cmd.ErrOrStderr(), "the values of these %d entries would be erased\n", len(kept))
				return err
			}
			return printAnswer(cmd, dir, &ledger.Order{Kind: "erase", Entries: kept, Reason: reason})
		},
	}
	addDataFlag(cmd, &dir)
	filters.register(cmd)
	cmd.Flags().StringVar(&text, "bytes", "", "all values that have this `TEXT` somewhere, as it was sent")
	cmd.Flags().StringVar(&reason, "reason", "", "`TEXT` for the entries that say so")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only list the entries whose values would go")
	return cmd
}

// named returns the indexes in args, ascending.
func named(args []string) ([]int64, error) {
	var out []int64
	for _, a := range args {
		i, err := strconv.ParseInt(a, 10, 64)
		if err != nil || i < 0 {
			return nil, fmt.Errorf("%q is not the index of an entry", a)
		}
		out = append(out, i)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// containing returns the entries whose value has the text somewhere.
func containing(ctx context.Context, l *query.Log, text string) ([]int64, error) {
	var out []int64
	size, err := l.Size()
	if err != nil {
		return nil, err
	}
	for e, err := range l.Entries(l.First(), size) {
		if err != nil {
			return nil, err
		}
		value := e.Value
		if e.Blob != nil {
			if value, err = l.Blob(e.Blob); err != nil {
				return nil, err
			}
		}
		if bytes.Contains(value, []byte(text)) || asksFor(value, func(s string) bool { return strings.Contains(s, text) }) {
			out = append(out, e.Index)
		}
		if e.Index%4096 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return out, nil
}

// asksFor reports whether a value is what somebody asked the HTTP API, with a part that meets
// the condition: there it stands with %40 for @.
func asksFor(value []byte, meets func(part string) bool) bool {
	if !bytes.HasPrefix(value, []byte("/api/v1/")) {
		return false
	}
	for _, part := range strings.FieldsFunc(string(value), func(r rune) bool { return strings.ContainsRune("?&=", r) }) {
		if asked, err := url.QueryUnescape(part); err == nil && meets(asked) {
			return true
		}
	}
	return false
}

// matching returns the entries that hold what statements that match consist of, and all that speak
// of one of these: errors, notices, data of COPYs, rows. It reads the whole log, since an index that
// leaves something out must not keep it from going.
func matching(ctx context.Context, l *query.Log, filters *filterFlags) ([]int64, error) {
	f, err := filters.filter(time.Now())
	if err != nil {
		return nil, err
	}
	f.All = true
	texts := filters.given("text") || filters.given("regex")
	found := map[int64]bool{}
	if err := l.Search(ctx, f, func(s *query.Statement) error {
		found[s.Index] = true
		if s.Outcome != nil {
			found[s.Outcome.Index] = true
		}
		e, err := l.Entry(s.Index)
		if err != nil {
			return err
		}
		parse, bind := event.References(e.Leaf)
		if i, ok := event.Index(bind); ok {
			found[i] = true
		}
		if i, ok := event.Index(parse); ok && texts {
			found[i] = true
		}
		return nil
	}); err != nil {
		return nil, err
	}
	size, err := l.Size()
	if err != nil {
		return nil, err
	}
	asked := func([]byte) bool { return false }
	if word := filters.words.Get("text"); word != "" && len(filters.words) == 1 {
		asked = func(value []byte) bool {
			return asksFor(value, func(s string) bool { return strings.Contains(s, word) })
		}
	} else if word := filters.words.Get("param"); word != "" && len(filters.words) == 1 {
		asked = func(value []byte) bool { return asksFor(value, func(s string) bool { return s == word }) }
	}
	var leaf event.Leaf
	for e, err := range l.Entries(l.First(), size) {
		if err != nil {
			return nil, err
		}
		if err := event.Skim(e.Leaf, &leaf); err != nil {
			return nil, fmt.Errorf("entry %d: %w", e.Index, err)
		}
		if of, ok := event.Index(leaf.Of); ok && found[of] || leaf.Kind == event.KindNotice && asked(e.Value) {
			found[e.Index] = true
		}
		if e.Index%4096 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}
