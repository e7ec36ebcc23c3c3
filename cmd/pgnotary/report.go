package main

import (
	"archive/zip"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/query"
	reports "github.com/pgnotary/pgnotary/internal/report"
	"github.com/pgnotary/pgnotary/internal/tree"
	"github.com/pgnotary/pgnotary/internal/verify"
	"github.com/pgnotary/pgnotary/internal/web"
)

func newReportCmd() *cobra.Command {
	var r reporting
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Write a signed evidence bundle over a stretch of the log",
		Long: `Report writes a directory, or a zip file, for somebody who assesses: what happened by
user, database and class, logins and failures, gaps, refusals, prunes, erasures and
holds, the history of the configuration, and what of PCI DSS, HIPAA, SOC 2, ISO 27001
and GDPR that shows and what not; as HTML, Markdown and JSON. The log's checkpoint is
in it, and with --checkpoint the proof that the log only grew since that one; so is a page
that checks proofs offline. The log is verified first, every byte of it.

The bundle has a manifest signed by the log's key. pgnotary check checks it.

Where to begin and end: a time (RFC 3339), a date (2026-01-31; the end includes that day,
in UTC), a duration such as 720h for that long ago, or an index.

Exit codes: 0 done; 1 done, but the log does not verify; 2 could not do it.`,
		Example: `  pgnotary report --data ./pgnotary-data --from 2026-01-01 --to 2026-03-31 -o 2026-q1.zip
  pgnotary report --data ./pgnotary-data --from 720h --checkpoint last-month.checkpoint -o ./evidence`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return r.run(cmd) },
	}
	addDataFlag(cmd, &r.dir)
	f := cmd.Flags()
	f.StringVar(&r.from, "from", "", "begin at this `TIME` or index (default the beginning)")
	f.StringVar(&r.to, "to", "", "end at this `TIME` or index (default the end)")
	f.StringVarP(&r.out, "out", "o", "", "directory to make, or zip `FILE` to write; must not exist")
	f.StringVar(&r.checkpoint, "checkpoint", "", "signed checkpoint `FILE` from the beginning of the stretch, kept since then")
	f.StringVar(&r.policy, "policy", "", "policy `FILE` that says which logs and witnesses to trust (default the log's own key)")
	f.StringVar(&r.key, "key", "", "private `KEY` of the log: a file, or ssh-agent:SHA256:<fingerprint> (default DIR/key)")
	return cmd
}

// reporting is one run of report.
type reporting struct{ dir, from, to, out, checkpoint, policy, key string }

func (r *reporting) run(cmd *cobra.Command) error {
	if r.out == "" {
		return withHint(errors.New("-o is needed: the directory or zip file to write"), "see %s --help", cmd.CommandPath())
	}
	if _, err := os.Lstat(r.out); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s exists", r.out)
	}
	now := time.Now()
	f, err := r.filter(now)
	if err != nil {
		return err
	}
	log, err := query.Open(r.dir)
	if err != nil {
		return err
	}
	signer, err := r.signer(log)
	if err != nil {
		return err
	}
	if err := log.CatchUp(cmd.Context()); err != nil {
		return err
	}
	// Rather an older checkpoint that witnesses cosigned; nothing is told that it does not cover.
	signed, err := log.Witnessed()
	if err != nil {
		return err
	}
	under, _, err := checkpoint.Parse(signed)
	if err != nil {
		return err
	}
	if f.End == 0 || f.End > under.Size {
		f.End = under.Size
	}
	data, err := reports.Gather(cmd.Context(), log, f)
	if err != nil {
		return err
	}
	data.Last = min(data.Last, under.Size-1) // the end of a statement may be later
	data.Program, data.Made = version(), now.UTC()
	evidence, err := r.evidence(cmd.Context(), log, data, signed)
	if err != nil {
		return err
	}
	files, err := reports.Bundle(data, evidence, signer)
	if err != nil {
		return err
	}
	if err := writeBundle(r.out, files); err != nil {
		return err
	}
	about := fmt.Sprintf("entries %d to %d", data.First, data.Last)
	if data.First < 0 {
		about = "no entries: there is nothing in that stretch"
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: %d files about %s\n", r.out, len(files), about)
	if !evidence.Verified {
		return no("the log does not verify: the report says why")
	}
	return nil
}

// signer returns what signs the bundle: the key of the log, or nobody could check it.
func (r *reporting) signer(log *query.Log) (checkpoint.Signer, error) {
	_, key, err := openKey(cmp.Or(r.key, filepath.Join(r.dir, "key")))
	if r.key == "" && errors.Is(err, fs.ErrNotExist) {
		return nil, withHint(fmt.Errorf("the log's key is not in the data directory: %w", err), "say with --key where it is, as --signing-key tells serve")
	} else if err != nil {
		return nil, err
	}
	vkey, err := checkpoint.VKeyOf(log.Origin(), key)
	if err != nil {
		return nil, err
	}
	if vkey != log.VKey() {
		return nil, fmt.Errorf("the key is not that of the log, %s", log.VKey())
	}
	return checkpoint.SignerOf(log.Origin(), key)
}

// filter returns the stretch that the flags say.
func (r *reporting) filter(now time.Time) (f query.Filter, err error) {
	if f.Since, f.From, err = stretchEnd(r.from, now, false); err != nil {
		return f, fmt.Errorf("--from: %w", err)
	}
	var last int64
	if f.Until, last, err = stretchEnd(r.to, now, true); err != nil {
		return f, fmt.Errorf("--to: %w", err)
	}
	if r.to != "" && f.Until.IsZero() {
		f.End = last + 1
	}
	if !f.Until.IsZero() && f.Since.After(f.Until) || f.End > 0 && f.From >= f.End {
		return f, fmt.Errorf("--from %s is behind --to %s", r.from, r.to)
	}
	return f, nil
}

// stretchEnd reads a time, a date, a duration or an index.
func stretchEnd(s string, now time.Time, end bool) (at time.Time, index int64, err error) {
	if s == "" {
		return at, 0, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 && n < 1<<60 {
		return at, n, nil
	}
	if at, err = query.ParseTime(s, end, now); err != nil {
		return at, 0, fmt.Errorf("no index, and %w", err)
	}
	return at, 0, nil
}

// evidence collects what can be checked, under the signed checkpoint.
func (r *reporting) evidence(ctx context.Context, log *query.Log, d *reports.Data, signed []byte) (*reports.Evidence, error) {
	e := &reports.Evidence{VKey: log.VKey(), Succession: log.Succession(), Checkpoint: signed}
	var checkpoints []string
	if r.checkpoint != "" {
		checkpoints = []string{r.checkpoint}
	}
	succession, err := successionIn(r.dir)
	if err != nil {
		return nil, err
	}
	opt, _, err := verifyOptions(r.policy, checkpoints, succession)
	if err != nil {
		return nil, err
	}
	result, err := verify.Dir(ctx, r.dir, opt)
	if err != nil {
		return nil, err
	}
	e.Verified, e.Notes = result.OK, result.Notes
	for _, f := range result.Findings {
		where := f.What
		if f.Index != nil {
			where = fmt.Sprintf("entry %d, %s", *f.Index, f.What)
		}
		e.Findings = append(e.Findings, where+": "+f.Why)
	}
	e.Policy = []byte(checkpoint.FormatPolicy(log.VKey(), ""))
	if r.policy != "" {
		if e.Policy, err = readFile(r.policy, checkpoint.MaxPolicy); err != nil {
			return nil, err
		}
	}
	policy, err := checkpoint.ParsePolicy(e.Policy)
	if err != nil {
		return nil, err
	}
	if e.New, err = policy.Follow(succession).Verify(e.Checkpoint); err != nil {
		e.Verified = false
		e.Findings = append(e.Findings, "checkpoint: "+err.Error())
		if e.New.Checkpoint, _, err = checkpoint.Parse(e.Checkpoint); err != nil {
			return nil, err
		}
	}
	if e.ProofPage, _, err = web.ProofPage(); err != nil {
		return nil, err
	}
	if e.Verified && d.First >= 0 {
		newest := func() ([]byte, error) { return signed, nil }
		if e.FirstProof, err = prove(log, newest, d.First, giveNothing); err != nil {
			return nil, err
		}
		if e.LastProof, err = prove(log, newest, d.Last, giveNothing); err != nil {
			return nil, err
		}
	}
	return e, r.growth(log, d, e)
}

// growth adds the proof that the log only grew from the earlier end on.
func (r *reporting) growth(log *query.Log, d *reports.Data, e *reports.Evidence) (err error) {
	if r.checkpoint != "" {
		if e.OldSigned, err = readFile(r.checkpoint, checkpoint.MaxBytes); err != nil {
			return err
		}
		if e.Old, _, err = checkpoint.Parse(e.OldSigned); err != nil {
			return fmt.Errorf("%s: %w", r.checkpoint, err)
		}
		if !e.Verified { // the findings say what is wrong
			return nil
		}
		e.Consistency, err = proveConsistency(log, r.checkpoint)
		return err
	}
	if !e.Verified || d.First < 0 || d.First > e.New.Size {
		return nil
	}
	e.Old = checkpoint.Checkpoint{Origin: log.Origin(), Size: d.First}
	if e.Old.Root, err = tree.RootAt(log, d.First); err != nil {
		return err
	}
	if d.First > 0 && d.First < e.New.Size {
		e.Hashes, err = tree.Consistency(log, d.First, e.New.Size)
	}
	return err
}

// writeBundle writes the files into a new directory or a new zip file.
func writeBundle(out string, files []reports.File) (err error) {
	if !strings.HasSuffix(out, ".zip") {
		if err := os.Mkdir(out, 0o700); err != nil {
			return err
		}
		for _, f := range files {
			if err := writeNew(filepath.Join(out, f.Name), f.Content, 0o600); err != nil {
				return err
			}
		}
		return nil
	}
	file, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Sync(), file.Close()) }()
	z := zip.NewWriter(file)
	for _, f := range files {
		w, err := z.Create(f.Name)
		if err == nil {
			_, err = w.Write(f.Content)
		}
		if err != nil {
			return err
		}
	}
	return z.Close()
}
