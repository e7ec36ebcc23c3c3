package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/verify"
)

func newVerifyCmd() *cobra.Command {
	var (
		dir, url, policyFile string
		trusted              string
		checkpoints          []string
		asJSON, online       bool
		fresh                time.Duration
	)
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check a log from its first byte to its last",
		Long: `Verify reads every file of a data directory, in use or at rest, and recomputes
all that can be recomputed: the form of each entry, values against their commitments, the
Merkle tree against the signed checkpoint, the order within sessions, derived files.
It never writes. Private keys, the token and the lock are not looked at.

With --url it fetches the log over HTTP as any stranger can, without values.

With --trusted, a checkpoint kept from an earlier run that found all in order, what it covers is
not read, or fetched, again: the cost is that of what is new.

With --checkpoint the log must be a continuation of a checkpoint kept from earlier; with
--policy its checkpoint must be signed by a log, and cosigned by the witnesses, of a policy
file (c2sp.org/tlog-policy). An old state that was put back is still well signed: with --fresh
enough witnesses must have cosigned the checkpoint, as the latest they knew, that short a time ago;
with --online the witnesses are asked for the latest they cosigned, which must all be prefixes of
this log, so that a log that is behind, and one that showed others another history, are found out.
Without --checkpoint and --policy, the key is taken from the log itself: then
a log that was rewritten whole, with the key at hand, is not found out.

Exit codes: 0 all is in order; 1 something is not; 2 it could not be checked.`,
		Example: `  pgnotary verify --data ./pgnotary-data
  pgnotary verify --data ./pgnotary-data --policy log.policy --checkpoint last-week.checkpoint --json
  pgnotary verify --data ./pgnotary-data --policy log.policy --fresh 5m --online
  pgnotary verify --data ./pgnotary-data --trusted yesterday.checkpoint
  pgnotary verify --url http://127.0.0.1:6433 --policy log.policy`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if url != "" && cmd.Flags().Changed("data") {
				return withHint(errors.New("give either --data or --url"), "see %s --help", cmd.CommandPath())
			}
			if fresh <= 0 && cmd.Flags().Changed("fresh") {
				return fmt.Errorf("--fresh: %s is no time that could have passed: give one such as 5m", fresh)
			}
			if (online || fresh != 0) && policyFile == "" {
				return withHint(errors.New("--online and --fresh need --policy: it says which witnesses to believe"), "see %s --help", cmd.CommandPath())
			}
			opt, policy, err := verifyOptions(policyFile, checkpoints, successionOf(cmd.Context(), dir, url))
			if err != nil {
				return err
			}
			opt.Fresh = fresh
			said := new(seen)
			if online {
				// Before the log itself is read: it may grow meanwhile, they may not be ahead.
				if said, err = askAbout(cmd.Context(), policy, dir, url); err != nil {
					return err
				}
				opt.Checkpoints = append(opt.Checkpoints, said.checkpoints...)
			}
			if trusted != "" {
				b, err := readFile(trusted, checkpoint.MaxBytes)
				if err != nil {
					return err
				}
				opt.Trusted = &verify.File{Name: trusted, Data: b}
			}
			progress := progressLine(cmd.ErrOrStderr())
			opt.Progress = progress.show
			var r *verify.Result
			if url == "" {
				r, err = verify.Dir(cmd.Context(), dir, opt)
			} else {
				r, err = verify.URL(cmd.Context(), url, opt)
			}
			progress.clear()
			if err != nil {
				return err
			}
			said.add(r)
			if err := printResult(cmd.OutOrStdout(), r, asJSON); err != nil {
				return err
			}
			if !r.OK {
				s := "s"
				if len(r.Findings) == 1 {
					s = ""
				}
				return no("the log is not in order: %d finding%s", len(r.Findings), s)
			}
			return nil
		},
	}
	addDataFlag(cmd, &dir)
	f := cmd.Flags()
	f.StringVar(&url, "url", "", "address `URL` of a running pgnotary, without /log/")
	f.StringArrayVar(&checkpoints, "checkpoint", nil, "signed checkpoint `FILE` the log must continue; may be given again")
	f.StringVar(&trusted, "trusted", "", "signed checkpoint `FILE` known to be right: check only what is new since")
	f.StringVar(&policyFile, "policy", "", "policy `FILE` that says which logs and witnesses to trust")
	f.BoolVar(&online, "online", false, "ask the witnesses of the policy for the latest checkpoint they cosigned")
	f.DurationVar(&fresh, "fresh", 0, "longest `TIME` since a quorum of witnesses cosigned the checkpoint, such as 5m")
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// askAbout asks the witnesses about the log that is to be verified.
func askAbout(ctx context.Context, policy *checkpoint.Policy, dir, url string) (*seen, error) {
	var signed []byte
	var err error
	if url == "" {
		signed, err = durable.ReadFile(durable.OS, filepath.Join(dir, "checkpoint"), checkpoint.MaxBytes)
	} else {
		signed, err = verify.Checkpoint(ctx, url)
	}
	if err != nil {
		return nil, err
	}
	return askWitnesses(ctx, policy, signed)
}

// successionOf returns how the keys of a log named one another, nil if it has one key, or if that
// cannot be read: then verify, which reads it itself, says so.
func successionOf(ctx context.Context, dir, url string) []byte {
	if url != "" {
		return verify.Succession(ctx, url)
	}
	b, err := successionIn(dir)
	if err != nil {
		return nil
	}
	return b
}

// successionIn reads how the keys of the log in a data directory or an evidence bundle named one another.
func successionIn(dir string) ([]byte, error) {
	b, err := durable.ReadFile(durable.OS, filepath.Join(dir, "succession"), checkpoint.MaxSuccession)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return b, err
}

// verifyOptions reads the files that the flags name.
func verifyOptions(policyFile string, checkpoints []string, succession []byte) (verify.Options, *checkpoint.Policy, error) {
	var opt verify.Options
	for _, name := range checkpoints {
		b, err := readFile(name, checkpoint.MaxBytes)
		if err != nil {
			return opt, nil, err
		}
		opt.Checkpoints = append(opt.Checkpoints, verify.File{Name: name, Data: b})
	}
	if policyFile == "" {
		return opt, nil, nil
	}
	p, err := readPolicy(policyFile)
	if err != nil {
		return opt, nil, err
	}
	opt.VKeys = p.VKeys()
	p = p.Follow(succession)
	opt.Trust = func(signed []byte) (time.Time, error) {
		v, err := p.Verify(signed)
		if errors.Is(err, checkpoint.ErrQuorum) {
			return time.Time{}, fmt.Errorf("%w: %w", verify.ErrUnwitnessed, err)
		}
		if at := p.WitnessedAt(&v); err == nil && at > 0 {
			return time.Unix(at, 0), nil
		}
		return time.Time{}, err
	}
	return opt, p, nil
}

// readPolicy reads a policy file.
func readPolicy(name string) (*checkpoint.Policy, error) {
	b, err := readFile(name, checkpoint.MaxPolicy)
	if err != nil {
		return nil, err
	}
	p, err := checkpoint.ParsePolicy(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// readFile reads what a user names, of at most limit bytes: a pipe, too.
func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return b, nil
}

func printResult(w io.Writer, r *verify.Result, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		return e.Encode(r)
	}
	verdict := "ok: everything agrees with the signed checkpoint"
	if !r.OK {
		verdict = "NOT OK"
	}
	_, err := fmt.Fprintf(w, "log         %s\nentries     %d, values %d\ncheckpoint  size %d, root %s\n", r.Origin, r.Entries, r.Values, r.Size, r.Root)
	if err == nil && (r.Pruned > 0 || r.Erased > 0) {
		_, err = fmt.Fprintf(w, "gone        %d entries pruned, %d values erased, as entries of the log say\n", r.Pruned, r.Erased)
	}
	for _, n := range r.Notes {
		if err == nil {
			_, err = fmt.Fprintf(w, "note        %s\n", n)
		}
	}
	for _, f := range r.Findings {
		where := f.What
		if f.Index != nil {
			where = fmt.Sprintf("entry %d, %s", *f.Index, f.What)
		}
		if err == nil {
			_, err = fmt.Fprintf(w, "finding     %s: %s\n", where, f.Why)
		}
	}
	if err == nil {
		_, err = fmt.Fprintln(w, verdict)
	}
	return err
}

// progress shows how far a long run is, on a terminal and after a second only.
type progress struct {
	w     io.Writer
	began time.Time
	next  time.Time
	shown bool
}

func progressLine(w io.Writer) *progress {
	p := &progress{began: time.Now(), next: time.Now().Add(time.Second)}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.w = w
	}
	return p
}

func (p *progress) show(done, total int64) {
	if p.w == nil || total <= 0 || time.Now().Before(p.next) {
		return
	}
	p.next = time.Now().Add(200 * time.Millisecond)
	p.shown = true
	const width = 40
	share := float64(min(done, total)) / float64(total)
	filled := int(share * width)
	left := time.Duration(0)
	if passed := time.Since(p.began); share > 0 {
		left = time.Duration(float64(passed) * (1 - share) / share).Round(time.Second)
	}
	fmt.Fprintf(p.w, "\r[%s%s] %3.0f %%, %s left \x1b[K", strings.Repeat("#", filled), strings.Repeat(".", width-filled), 100*share, left)
}

func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
