package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/query"
	"github.com/pgnotary/pgnotary/internal/tree"
)

func newProveCmd() *cobra.Command {
	var (
		dir, out, from string
		withValue, all bool
	)
	cmd := &cobra.Command{
		Use:   "prove [INDEX]",
		Short: "Write a proof that an entry is in the log, or that the log only grew",
		Long: `Prove writes a file that shows, without the log and without a network, that the entry
at an index is in the log: the entry itself, the path from it to the root of the tree,
and the signed checkpoint over that root (c2sp.org/tlog-proof). Anyone checks it with
pgnotary check and the log's public key.

Without --value the file tells who, when and what kind of statement, and not its text:
that stays hidden behind its commitment. With --value what the entry itself has of text and parameters is in it; with
--statement also what it goes back to, of a statement that was prepared before.

With --from-checkpoint, and no index, it proves to whoever kept that checkpoint that the log only
grew since: that the latest checkpoint continues it.`,
		Example: `  pgnotary prove --data ./pgnotary-data 42 -o 42.tlog-proof
  pgnotary prove --data ./pgnotary-data 42 --value -o 42.tlog-proof
  pgnotary prove --data ./pgnotary-data 42 --statement -o 42.tlog-proof
  pgnotary prove --data ./pgnotary-data --from-checkpoint monday.checkpoint -o since-monday.consistency`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (from != "") {
				return withHint(errors.New("give either the index of an entry or --from-checkpoint"), "see %s --help", cmd.CommandPath())
			}
			if out == "" {
				return withHint(errors.New("-o is needed: the file to write the proof to"), "see %s --help", cmd.CommandPath())
			}
			log, err := query.Open(dir)
			if err != nil {
				return err
			}
			var proof []byte
			if from != "" {
				proof, err = proveConsistency(log, from)
			} else {
				index, indexErr := strconv.ParseInt(args[0], 10, 64)
				if indexErr != nil || index < 0 {
					return fmt.Errorf("%q is not an index: a number from 0 on", args[0])
				}
				give := giveNothing
				if all {
					give = giveStatement
				} else if withValue {
					give = giveValue
				}
				proof, err = proveSoon(cmd.Context(), log, index, give)
			}
			if err != nil {
				return err
			}
			if out == "-" {
				_, err = cmd.OutOrStdout().Write(proof)
				return err
			}
			// A proof of what was pruned since cannot be made again.
			return writeNew(out, proof, 0o644)
		},
	}
	addDataFlag(cmd, &dir)
	cmd.Flags().StringVarP(&out, "out", "o", "", "`FILE` to write, which must not exist, by custom ending in .tlog-proof; - for standard output")
	cmd.Flags().StringVar(&from, "from-checkpoint", "", "prove that the log continues the signed checkpoint in this `FILE`")
	cmd.Flags().BoolVar(&withValue, "value", false, "put the value, such as text and parameters, into the proof")
	cmd.Flags().BoolVar(&all, "statement", false, "put in the value, and the text and parameters that it goes back to")
	return cmd
}

// proveFor bounds the wait for the checkpoint over a new entry of a log in
// use; there is one every second.
const proveFor = 3 * time.Second

// errUnsigned says that no checkpoint covers an entry yet.
var errUnsigned = errors.New("is not covered by a signed checkpoint yet")

// given says what of its content a proof gives away.
type given int

const (
	giveNothing   given = iota
	giveValue           // the entry's own value
	giveStatement       // and those of the entries that have its text and parameters
)

// proveSoon is prove, and waits for the checkpoint if one is to come.
func proveSoon(ctx context.Context, log *query.Log, index int64, give given) ([]byte, error) {
	if err := log.CatchUp(ctx); err != nil {
		return nil, err
	}
	for until := time.Now().Add(proveFor); ; {
		// Rather an older checkpoint that witnesses cosigned than one they may
		// not have seen yet; but if they are gone, that is what there is.
		proof, err := prove(log, log.Witnessed, index, give)
		if !errors.Is(err, errUnsigned) {
			return proof, err
		}
		live, liveErr := log.Live()
		if liveErr != nil || !live || time.Now().After(until) {
			return prove(log, log.Checkpoint, index, give)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// prove returns the proof of an entry against a checkpoint of the log. It is
// checked before it is handed out, so a damaged log makes no bad proofs.
func prove(log *query.Log, newest func() ([]byte, error), index int64, give given) ([]byte, error) {
	signed, err := newest()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, withHint(errors.New("the log has no signed checkpoint yet"), "it gets one as soon as pgnotary serve runs")
	} else if err != nil {
		return nil, err
	}
	c, _, err := checkpoint.OpenAny(signed, log.VKeys())
	if err != nil {
		return nil, err
	}
	if index >= c.Size {
		size, err := log.Size()
		if err != nil {
			return nil, err
		}
		if index < size {
			return nil, withHint(fmt.Errorf("entry %d %w: the latest is over %d entries", index, errUnsigned, c.Size),
				"one is signed every second while the log grows, and when pgnotary serve stops: try again")
		}
		return nil, fmt.Errorf("there is no entry %d: the log has those from %d to %d", index, log.First(), size-1)
	}
	e, err := log.Entry(index)
	if err != nil {
		return nil, err
	}
	extra := checkpoint.Extra{Leaf: e.Leaf, Succession: log.Succession()}
	if give == giveValue || give == giveStatement && e.HasValue {
		if extra.Value, err = valueOf(log, &e); err != nil {
			return nil, err
		}
		extra.HasValue, extra.Salt = true, e.Salt
	}
	if give == giveStatement {
		if extra.Related, err = related(log, &e, c.Size); err != nil {
			return nil, err
		}
		if !extra.HasValue && len(extra.Related) == 0 {
			return nil, noValue(&e)
		}
	}
	p := checkpoint.Proof{Index: index, Checkpoint: signed}
	if p.Extra, err = extra.Format(); err != nil {
		return nil, err
	}
	if p.Hashes, err = tree.Inclusion(log, index, c.Size); err != nil {
		return nil, err
	}
	if err := tree.CheckInclusion(p.Hashes, c.Size, c.Root, index, tree.LeafHash(e.Leaf)); err != nil {
		return nil, withHint(fmt.Errorf("the log does not agree with its own checkpoint: %w", err), "pgnotary verify says what is wrong")
	}
	return p.Format(), nil
}

// valueOf returns a value that is to be in a proof.
func valueOf(log *query.Log, e *query.Entry) ([]byte, error) {
	if !e.HasValue {
		return nil, noValue(e)
	}
	if e.Blob != nil && e.Blob.Size > checkpoint.MaxProofValue {
		return nil, withHint(fmt.Errorf("the value of entry %d is %d bytes, a proof carries at most %d", e.Index, e.Blob.Size, checkpoint.MaxProofValue),
			"leave out --value; pgnotary show --json gives value and salt")
	}
	return log.Value(e)
}

func noValue(e *query.Entry) error {
	hint := "leave out --value and --statement"
	if l, err := event.Parse(e.Leaf); err == nil && l.Kind == event.KindExecute {
		hint = "--statement gives the text that it goes back to"
	}
	return withHint(fmt.Errorf("entry %d has no value", e.Index), "%s", hint)
}

// related returns the entries whose values are text and parameters of a
// statement that was prepared or bound before, proven in the tree of that size.
func related(log *query.Log, e *query.Entry, size int64) (out []checkpoint.Related, err error) {
	l, err := event.Parse(e.Leaf)
	if err != nil {
		return nil, err
	}
	for _, ref := range []int64{l.Parse, l.Bind} {
		index, ok := event.Index(ref)
		if !ok {
			continue
		}
		other, err := log.Entry(index)
		if err != nil {
			return nil, withHint(fmt.Errorf("entry %d goes back to one that is gone: %w", e.Index, err), "--value gives what entry %d has itself", e.Index)
		}
		r := checkpoint.Related{Index: index, Leaf: other.Leaf, Salt: other.Salt}
		if r.Value, err = valueOf(log, &other); err != nil {
			return nil, err
		}
		if r.Hashes, err = tree.Inclusion(log, index, size); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// proveConsistency returns the proof that the log's current checkpoint
// continues the one in a file, or the reason why not.
func proveConsistency(log *query.Log, file string) ([]byte, error) {
	old, err := readFile(file, checkpoint.MaxBytes)
	if err != nil {
		return nil, err
	}
	signed, err := log.Witnessed()
	if err != nil {
		return nil, err
	}
	p := checkpoint.Consistency{Old: old, New: signed, Succession: log.Succession()}
	from, _, err := checkpoint.OpenAny(old, log.VKeys())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	to, _, err := checkpoint.OpenAny(signed, log.VKeys())
	if err != nil {
		return nil, err
	}
	if from.Size > to.Size {
		return nil, no("%s is over %d entries, the log's checkpoint only over %d: entries are lost, or it was rolled back", file, from.Size, to.Size)
	}
	if from.Size < to.Size {
		if p.Hashes, err = tree.Consistency(log, from.Size, to.Size); err != nil {
			return nil, err
		}
	}
	if err := tree.CheckConsistency(p.Hashes, to.Size, to.Root, from.Size, from.Root); err != nil {
		return nil, no("the log is not a continuation of %s: %v", file, err)
	}
	return p.Format(), nil
}
