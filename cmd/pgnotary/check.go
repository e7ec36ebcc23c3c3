package main

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
	reports "github.com/pgnotary/pgnotary/internal/report"
	"github.com/pgnotary/pgnotary/internal/tree"
	"github.com/pgnotary/pgnotary/internal/web"
	"github.com/pgnotary/pgnotary/internal/wire"
)

func newCheckCmd() *cobra.Command {
	var policyFile, pageFile string
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a proof, offline",
		Long: `Check says whether a proof made by pgnotary prove is true: that the entry in it is in the
log, under a checkpoint that a log of the policy signed and its witnesses cosigned; or
that a later checkpoint continues an earlier one; or that the files of an evidence bundle, beside
its MANIFEST, are those that the log's key signed. It needs the proof and the policy, nothing
else, and prints what the entry says and what that proves.

With --page it writes the same for those without pgnotary: one HTML file that checks proofs
of entries in a browser, without a network. A running proxy has it at /proof.

A policy is a text file (c2sp.org/tlog-policy). The least one trusts a single key:

  log <the line at /log/vkey, or that keygen printed>
  quorum none

Exit codes: 0 the proof is valid; 1 it is not; 2 it could not be checked.`,
		Example: `  pgnotary check --policy log.policy 42.tlog-proof
  pgnotary check --policy log.policy since-monday.consistency
  pgnotary check --policy log.policy ./evidence
  pgnotary check --page proof.html`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if pageFile != "" {
				if len(args) > 0 || policyFile != "" {
					return errors.New("--page writes the page and checks nothing: give it alone")
				}
				html, _, err := web.ProofPage()
				if err != nil {
					return err
				}
				return os.WriteFile(pageFile, html, 0o644)
			}
			if len(args) == 0 {
				return withHint(errors.New("the file with the proof is missing"), "see %s --help", cmd.CommandPath())
			}
			if policyFile == "" {
				return withHint(errors.New("--policy is needed: it says which keys to trust"), "see %s --help", cmd.CommandPath())
			}
			policy, err := readPolicy(policyFile)
			if err != nil {
				return err
			}
			name := args[0]
			if strings.HasSuffix(name, ".zip") {
				return withHint(fmt.Errorf("%s is a zip file", name), "unpack it and check the %s in it", reports.Manifest)
			}
			if info, err := os.Stat(name); err == nil && info.IsDir() {
				name = filepath.Join(name, reports.Manifest)
			}
			b, err := readFile(name, checkpoint.MaxProof)
			if err != nil {
				return err
			}
			checkFile := checkProof
			switch {
			case checkpoint.IsConsistency(b):
				checkFile = checkConsistency
			case reports.IsManifest(b):
				dir := filepath.Dir(name)
				checkFile = func(p *checkpoint.Policy, b []byte) (string, error) { return checkManifest(p, b, dir) }
			}
			text, err := checkFile(policy, b)
			if err != nil {
				return no("%s is not valid: %v", name, err)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), text)
			return err
		},
	}
	cmd.Flags().StringVar(&policyFile, "policy", "", "policy `FILE` that says which logs and witnesses to trust")
	cmd.Flags().StringVar(&pageFile, "page", "", "write the page that checks proofs in a browser to this HTML `FILE`")
	return cmd
}

// maxBundleFile bounds a file of an evidence bundle, in bytes.
const maxBundleFile = 256 << 20

// checkManifest verifies the files of an evidence bundle in dir.
func checkManifest(policy *checkpoint.Policy, b []byte, dir string) (string, error) {
	succession, err := successionIn(dir)
	if err != nil {
		return "", err
	}
	signed := map[string]bool{reports.Manifest: true}
	origin, n, err := reports.CheckManifest(b, policy.Follow(succession).VKeys(), func(name string) ([]byte, error) {
		signed[name] = true
		return durable.ReadFile(durable.OS, filepath.Join(dir, name), maxBundleFile)
	})
	if err != nil {
		return "", err
	}
	said := fmt.Sprintf("valid: the key of %s signed the %d files of this bundle\n", plain(origin), n)
	beside, err := os.ReadDir(dir)
	for _, f := range beside {
		if !signed[f.Name()] {
			said += fmt.Sprintf("but %s, beside them, is not signed\n", plain(f.Name()))
		}
	}
	return said, err
}

// checkProof verifies a proof and returns in plain words what it shows. An
// error says why it shows nothing.
func checkProof(policy *checkpoint.Policy, b []byte) (string, error) {
	p, err := checkpoint.ParseProof(b)
	if err != nil {
		return "", err
	}
	extra, err := checkpoint.ParseExtra(p.Extra)
	if err != nil {
		return "", err
	}
	v, err := p.Verify(policy.Follow(extra.Succession), tree.LeafHash(extra.Leaf))
	if err != nil {
		return "", err
	}
	l, err := event.Parse(extra.Leaf)
	if err != nil {
		return "", fmt.Errorf("the log has this entry, but it is not one of pgnotary's: %w", err)
	}
	if extra.HasValue && !committed(&l, &extra.Salt, extra.Value) {
		return "", errors.New("the value in it is not the one the entry commits to")
	}
	if err := extra.VerifyRelated(&v); err != nil {
		return "", err
	}
	for i := range extra.Related {
		r := &extra.Related[i]
		of, err := event.Parse(r.Leaf)
		if err != nil || !committed(&of, &r.Salt, r.Value) {
			return "", fmt.Errorf("the value of entry %d in it is not the one that entry commits to", r.Index)
		}
		if ref := event.Ref(r.Index); ref != l.Parse && ref != l.Bind {
			return "", fmt.Errorf("the entry does not go back to entry %d, which is in it", r.Index)
		}
	}
	return describeProof(p, &v, policy.VKeys(), extra, &l), nil
}

// checkConsistency is checkProof for a proof between two checkpoints.
func checkConsistency(policy *checkpoint.Policy, b []byte) (string, error) {
	c, err := checkpoint.ParseConsistency(b)
	if err != nil {
		return "", err
	}
	old, later, err := c.Verify(policy)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&out, "%-11s %s\n", name, plain(fmt.Sprintf(format, args...)))
	}
	out.WriteString("valid: the later checkpoint continues the earlier one\n")
	row("log", "%s", later.Origin)
	row("earlier", "over %d entries, root %s", old.Size, base64.StdEncoding.EncodeToString(old.Root[:]))
	if len(old.Cosignatures) > 0 {
		row("", "%s", witnessedBy(old.Cosignatures))
	}
	row("later", "over %d entries, root %s", later.Size, base64.StdEncoding.EncodeToString(later.Root[:]))
	if len(later.Cosignatures) > 0 {
		row("", "%s", witnessedBy(later.Cosignatures))
	}
	row("key", "%s", later.VKey)
	row("proves", "that of the first %d entries none was changed, removed or put in between, and %d were added behind them", old.Size, later.Size-old.Size)
	return out.String(), nil
}

// witnessedBy names the witnesses of a checkpoint.
func witnessedBy(all []checkpoint.Cosignature) string {
	s := "cosigned by"
	for i, c := range all {
		if i > 0 {
			s += ","
		}
		s += fmt.Sprintf(" %s at %s", c.Witness, time.Unix(c.Time, 0).UTC().Format(time.RFC3339))
	}
	return s
}

// whatItProves says in a sentence what a valid proof is good for.
func whatItProves(v *checkpoint.Verified) string {
	if len(v.Cosignatures) == 0 {
		return "that whoever has the key of this log signed it; the policy asks for no witness, so nobody else is known to have seen it"
	}
	at, _ := firstSeen(v)
	return fmt.Sprintf("that the log recorded this at %s at the latest, and cannot take it back or change it without its witnesses noticing",
		at.Format(time.RFC3339))
}

// maxClockSkew is how far the clocks of proxy and witnesses may be apart
// without being mentioned.
const maxClockSkew = time.Minute

// firstSeen returns the time of the earliest cosignature.
func firstSeen(v *checkpoint.Verified) (at time.Time, ok bool) {
	if len(v.Cosignatures) == 0 {
		return at, false
	}
	first := v.Cosignatures[0].Time
	for _, c := range v.Cosignatures {
		first = min(first, c.Time)
	}
	return time.Unix(first, 0).UTC(), true
}

// committed reports whether a leaf commits to a value.
func committed(l *event.Leaf, salt *[32]byte, value []byte) bool {
	return l.HasValue && l.Size == int64(len(value)) && sha256.Sum256(append(salt[:len(salt):len(salt)], value...)) == l.Commitment
}

// relatedTo returns the related entry with that index, nil if the proof has none.
func relatedTo(extra *checkpoint.Extra, index int64) *checkpoint.Related {
	for i := range extra.Related {
		if extra.Related[i].Index == index {
			return &extra.Related[i]
		}
	}
	return nil
}

func describeProof(p *checkpoint.Proof, v *checkpoint.Verified, trusted []string, extra *checkpoint.Extra, l *event.Leaf) string {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-11s %s\n", name, plain(fmt.Sprintf(format, args...)))
	}
	b.WriteString("valid: the log has this entry\n")
	if l.Who != nil {
		row("who", "user %s, database %s, application %s, client %s", listed(l.Who.User), listed(l.Who.Database),
			listed(l.Who.Application), listed(l.Who.Client))
	}
	row("when", "%s, by the clock of the proxy", event.AppendTime(nil, l.Time))
	row("what", "%s", describeKind(l))
	for _, ref := range []struct {
		name string
		at   int64
	}{{"text", l.Parse}, {"parameters", l.Bind}} {
		of, ok := event.Index(ref.at)
		if r := relatedTo(extra, of); ok && r != nil {
			row(ref.name, "proven, in entry %d:", of)
			kind := event.KindBind
			if ref.name == "text" {
				kind = event.KindParse
			}
			b.WriteString(indent(describeValue(kind, r.Value)))
		} else if ok {
			row(ref.name, "in entry %d, which needs a proof of its own", of)
		}
	}
	if l.Session != 0 {
		number := ""
		if l.Seq != 0 {
			number = fmt.Sprintf(", number %d in it", l.Seq)
		}
		row("session", "%s%s", event.AppendSession(nil, l.Session), number)
	}
	row("log", "%s", v.Origin)
	row("index", "%d", p.Index)
	row("checkpoint", "over %d entries, root %s", v.Size, base64.StdEncoding.EncodeToString(v.Root[:]))
	row("key", "%s", v.VKey)
	if !slices.Contains(trusted, v.VKey) {
		row("", "a successor of the key that the policy trusts, named by it")
	}
	for _, c := range v.Cosignatures {
		row("witness", "%s, at %s", c.Witness, time.Unix(c.Time, 0).UTC().Format(time.RFC3339))
	}
	row("proves", "%s", whatItProves(v))
	if at, ok := firstSeen(v); ok && time.Unix(0, l.Time).After(at.Add(maxClockSkew)) {
		row("but", "the proxy's clock said a later time than the witnesses' when they cosigned: one of them was wrong, or the entry was dated ahead")
	}
	row("leaf", "%s", extra.Leaf)
	switch {
	case extra.HasValue:
		row("value", "proven, %d bytes", len(extra.Value))
		b.WriteString(indent(describeValue(l.Kind, extra.Value)))
	case l.HasValue:
		row("value", "%d bytes, not in the proof: the entry has a commitment to it", l.Size)
	case l.Kind == event.KindExecute:
		row("value", "none: it executed the statement that it goes back to without parameters, with the results in text")
	}
	return b.String()
}

// listed returns a client's word for a list with commas, in quotes if it could be taken for more of it.
func listed(s string) string {
	switch {
	case s == "":
		return "-"
	case s == "-" || strings.ContainsAny(s, `",`) || strings.TrimSpace(s) != s:
		return strconv.Quote(s)
	}
	return s
}

// describeKind says what happened, from the leaf alone.
func describeKind(l *event.Leaf) string {
	s := string(l.Kind)
	if of, ok := event.Index(l.Of); ok {
		s += fmt.Sprintf(" of entry %d", of)
	}
	if len(l.Tags) > 0 {
		s += ": " + strings.Join(l.Tags, ", ")
	}
	if l.SQLState != "" {
		s += ", error " + l.SQLState
	}
	if l.End != "" {
		s += ", " + string(l.End)
	}
	switch l.Committed {
	case 1:
		s += ", committed"
	case -1:
		s += ", rolled back"
	}
	for _, f := range l.Facts {
		s += ", " + f.Key + " " + listed(f.Val)
	}
	return s
}

// describeValue shows a value: the statements in it as text, other messages by
// letter and size, anything else as escaped bytes.
func describeValue(k event.Kind, value []byte) string {
	switch k {
	case event.KindQuery, event.KindParse, event.KindBind, event.KindExecute:
	default:
		return strconv.Quote(string(value)) + "\n"
	}
	var b strings.Builder
	for len(value) > 0 {
		typ, length, ok := wire.Header(value)
		if !ok || length < 4 || length >= len(value) {
			return strconv.Quote(string(value)) + "\n"
		}
		body := value[wire.HeaderLen : 1+length]
		switch typ {
		case 'Q':
			text, _, _ := wire.CString(body)
			fmt.Fprintf(&b, "%s\n", text)
		case 'P':
			name, rest, _ := wire.CString(body)
			text, _, _ := wire.CString(rest)
			fmt.Fprintf(&b, "Parse %q: %s\n", name, text)
		default:
			fmt.Fprintf(&b, "%c, %d bytes: %q\n", typ, len(body), body)
		}
		value = value[1+length:]
	}
	return b.String()
}
