package report

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
)

// Evidence is what of a bundle can be checked without believing it.
type Evidence struct {
	Checkpoint  []byte              // signed, as it was issued: the later end
	New         checkpoint.Verified // what it says
	Old         checkpoint.Checkpoint
	OldSigned   []byte // the earlier end, if somebody kept its checkpoint; else only its root is known
	Consistency []byte // proof file; nil if OldSigned is
	Hashes      [][32]byte
	FirstProof  []byte // of the first and the last entry of the stretch, without values; nil if there is none
	LastProof   []byte
	Policy      []byte
	VKey        string
	Succession  []byte // how the log's keys named one another, nil if there was one
	Verified    bool   // verification found nothing
	Findings    []string
	Notes       []string
	ProofPage   []byte // checks proofs offline
}

// A File of a bundle.
type File struct {
	Name    string
	Content []byte
}

// manifestHeader begins a manifest.
const manifestHeader = "pgnotary/report@v1"

// Manifest is the name of the file that signs the others.
const Manifest = "MANIFEST"

// Succession is the name of the file by which a policy with an earlier key of the log leads to the one that signed.
const Succession = "succession"

// Bundle returns the files of a bundle, the signed manifest last.
func Bundle(d *Data, e *Evidence, signer checkpoint.Signer) ([]File, error) {
	doc := d.document(e)
	figures, err := json.MarshalIndent(d, "", " ")
	if err != nil {
		return nil, err
	}
	files := []File{
		{"report.html", []byte(doc.html())},
		{"report.md", []byte(doc.markdown())},
		{"report.json", append(figures, '\n')},
		{"checkpoint", e.Checkpoint},
		{"policy", e.Policy},
		{"verify.html", e.ProofPage},
		{"README.txt", []byte(readme(e))},
	}
	if e.FirstProof != nil {
		files = append(files, File{"first.tlog-proof", e.FirstProof}, File{"last.tlog-proof", e.LastProof})
	}
	if e.Consistency != nil {
		files = append(files, File{"growth.consistency", e.Consistency})
	}
	if e.Succession != nil {
		files = append(files, File{Succession, e.Succession})
	}
	text := manifestHeader + "\n" + d.Origin + "\n"
	for _, f := range files {
		text += fmt.Sprintf("%x  %s\n", sha256.Sum256(f.Content), f.Name)
	}
	manifest, err := checkpoint.SignText(signer, text)
	if err != nil {
		return nil, fmt.Errorf("sign manifest: %w", err)
	}
	return append(files, File{Manifest, manifest}), nil
}

// IsManifest reports whether a file says that it is the manifest of a bundle.
func IsManifest(b []byte) bool { return bytes.HasPrefix(b, []byte(manifestHeader+"\n")) }

// CheckManifest checks the signature of a manifest, by one of the keys, and
// every file that it names; read returns one. It returns the log's origin and
// the number of files.
func CheckManifest(manifest []byte, vkeys []string, read func(name string) ([]byte, error)) (origin string, files int, err error) {
	text, err := checkpoint.OpenText(manifest, vkeys)
	if err != nil {
		return "", 0, err
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 3 || lines[0] != manifestHeader {
		return "", 0, errors.New("it is no manifest of a report")
	}
	own := func(vkey string) bool { return strings.HasPrefix(vkey, lines[1]+"+") }
	if _, err := checkpoint.OpenText(manifest, slices.DeleteFunc(slices.Clone(vkeys), func(k string) bool { return !own(k) })); err != nil {
		return "", 0, fmt.Errorf("it says that it is of the log %.100q, but the key of another one signed it", lines[1])
	}
	for _, line := range lines[2:] {
		sum, name, ok := strings.Cut(line, "  ")
		if !ok || name == "" || strings.ContainsAny(name, `/\`) || strings.HasPrefix(name, ".") {
			return "", 0, fmt.Errorf("line %.80q of the manifest is malformed", line)
		}
		content, err := read(name)
		if err != nil {
			return "", 0, err
		}
		if sum != fmt.Sprintf("%x", sha256.Sum256(content)) {
			return "", 0, fmt.Errorf("%s is not the file that was signed", name)
		}
		files++
	}
	return lines[1], files, nil
}

func readme(e *Evidence) string {
	s := `An evidence bundle of pgnotary. Read report.html, or report.md. It has names, addresses and the texts of statements that
changed roles or definitions: keep it as you keep the log.

How to check it, with pgnotary and a verifier key that you got from elsewhere:

  pgnotary check --policy POLICY MANIFEST     the signature, and that no file was changed
`
	if e.Consistency != nil {
		s += "  pgnotary check --policy POLICY growth.consistency     that the log only grew between the two checkpoints\n"
	}
	if e.FirstProof != nil {
		s += "  pgnotary check --policy POLICY first.tlog-proof     that the first entry is in the log; likewise last.tlog-proof\n"
	}
	return s + `  pgnotary verify --data DIR --checkpoint checkpoint     that the log at DIR continues this checkpoint

POLICY is a file of two lines, "log KEY" and "quorum none"; the file policy in here is what
the maker of this bundle believes. MANIFEST is a signed note: lines of sha256sum, and an Ed25519
signature of the log's key. verify.html checks proofs of single entries in a browser, offline: those of the first and
last entry in here, and of any other that pgnotary prove makes.
`
}

func base64Of(root [32]byte) string { return base64.StdEncoding.EncodeToString(root[:]) }

// document writes the report.
func (d *Data) document(e *Evidence) *document {
	doc := &document{title: "Audit report of " + d.Origin}
	if e.Verified {
		doc.say("The log verified without a finding when this was made, %s. Entries %s.", stamp(d.Made), d.stretch())
	} else {
		doc.say("THE LOG DOES NOT VERIFY: see the findings under Integrity. Made %s. Entries %s.", stamp(d.Made), d.stretch())
	}
	doc.say("The figures were read from the log by pgnotary %s; what can be checked without believing them is in the section on integrity "+
		"and in the files beside this one.", d.Program)
	d.completeness(doc, e)
	d.integrity(doc, e)
	d.activity(doc)
	d.exceptions(doc)
	doc.heading("What this shows of common requirements, and what not")
	doc.say("An aid for whoever assesses, not an assessment.")
	var rows [][]string
	for _, c := range clauses() {
		rows = append(rows, []string{c.name, c.asks, c.shows, c.not})
	}
	doc.table([]string{"clause", "asks for", "shown here", "not shown"}, rows)
	return doc
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

func (d *Data) stretch() string {
	if d.First < 0 {
		return "none: there is nothing in that stretch"
	}
	return fmt.Sprintf("%d (%s) to %d (%s)", d.First, stamp(d.FirstTime), d.Last, stamp(d.LastTime))
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

// completeness says what may be missing.
func (d *Data) completeness(doc *document, e *Evidence) {
	doc.heading("Completeness")
	switch {
	case d.First < 0:
		doc.say("No entry lies in this stretch.")
	case !e.Verified:
		doc.say("The log does NOT verify, see below: nothing is said about its completeness.")
	default:
		doc.say("Entries have consecutive numbers, and all from %d to %d are leaves of the tree under the checkpoint below: none of them can be "+
			"removed, changed or put in from now on without its root being another. Whether that was done before, only others can tell: %s",
			d.First, d.Last, e.heldByOthers())
		doc.say("What the proxy did not see is not in the log: connections that bypass it, and what runs inside functions and triggers.")
	}
	if d.Size > e.New.Size {
		doc.say("When this was made, the log had %d entries behind the checkpoint; nothing is told of them.", d.Size-e.New.Size)
	}
	if d.Kept > 0 {
		doc.say("Entries before %d were pruned; see prunes.", d.Kept)
	}
	doc.table([]string{"sign of something missing", "found"}, [][]string{
		{"gaps: statements ran unrecorded", number(d.Gaps.Total)},
		{"starts without a stop before them (crash or kill)", number(d.Crashes)},
		{"recoveries that found something", number(d.Recovers.Total)},
		{"longest silence while running (a heartbeat comes every minute)", fmt.Sprintf("%s, after entry %d", d.Silence.Round(time.Second), d.SilenceAfter)},
		{"times the clock went back by a second or more", number(d.Backs)},
		{"statements whose end was not seen", number(d.Unended)},
		{"prunes, erasures, holds", fmt.Sprintf("%d, %d, %d", d.Prunes.Total, d.Erasures.Total, d.Holds.Total)},
	})
}

// heldByOthers says what shows that the log was not rewritten before this report.
func (e *Evidence) heldByOthers() string {
	cosigned, kept := len(e.New.Cosignatures) > 0, e.OldSigned != nil
	switch {
	case cosigned && kept:
		return "witnesses cosigned the checkpoint, and it continues the earlier one that was kept."
	case cosigned:
		return "witnesses cosigned the checkpoint."
	case kept:
		return "it continues the earlier checkpoint that was kept, but nobody cosigned it."
	}
	return "here nobody has. No witness cosigned the checkpoint, and none from an earlier time was given."
}

// integrity says what is signed.
func (d *Data) integrity(doc *document, e *Evidence) {
	doc.heading("Integrity")
	verdict := "every byte of the log was verified when this was made, and agrees with the checkpoint"
	if !e.Verified {
		verdict = "verification FAILED"
	}
	rows := [][]string{
		{"log", d.Origin},
		{"key", e.VKey},
		{"verification", verdict},
		{"later end", fmt.Sprintf("checkpoint over %d entries, root %s", e.New.Size, base64Of(e.New.Root))},
	}
	for _, c := range e.New.Cosignatures {
		rows = append(rows, []string{"witness", fmt.Sprintf("%s cosigned it at %s", c.Witness, stamp(time.Unix(c.Time, 0)))})
	}
	if len(e.New.Cosignatures) == 0 {
		rows = append(rows, []string{"witnesses", "none cosigned it: whoever has the log's key could have signed another history"})
	}
	switch {
	case e.Consistency != nil:
		rows = append(rows, []string{"earlier end", fmt.Sprintf("checkpoint over %d entries, root %s; growth.consistency proves that the log only grew since", e.Old.Size, base64Of(e.Old.Root))})
	case e.OldSigned != nil:
		rows = append(rows, []string{"earlier end", fmt.Sprintf("checkpoint over %d entries, root %s; that the log continues it is NOT shown", e.Old.Size, base64Of(e.Old.Root))})
	case e.Old.Origin == "": // nothing was found that it could be
		rows = append(rows, []string{"earlier end", "not looked for"})
	case d.First == 0:
		rows = append(rows, []string{"earlier end", "the beginning of the log: nothing was before entry 0"})
	default:
		rows = append(rows, []string{"earlier end", fmt.Sprintf("tree over %d entries, root %s, as recomputed now: no checkpoint from then was given (--checkpoint)", e.Old.Size, base64Of(e.Old.Root))})
	}
	doc.table([]string{"what", "value"}, rows)
	for _, f := range e.Findings {
		doc.say("FINDING: %s", f)
	}
	for _, n := range e.Notes {
		doc.say("Note: %s", n)
	}
	if e.OldSigned == nil && len(e.Hashes) > 0 {
		rows = nil
		for i, h := range e.Hashes {
			rows = append(rows, []string{number(int64(i)), base64Of(h)})
		}
		doc.say("Consistency proof (RFC 6962) between the two roots:")
		doc.table([]string{"", "hash"}, rows)
	}
}

// activity shows the counts.
func (d *Data) activity(doc *document) {
	doc.heading("Activity")
	doc.say("%d statements, of which %d were rolled back. A statement of several classes counts in each. Classes and relations are derived from texts.",
		d.Statements, d.RolledBack)
	for _, t := range []struct {
		name string
		c    []Count
	}{
		{"user", d.Users},
		{"database", d.Databases},
		{"class", d.Classes},
		{"relation, and user of it", d.Relations},
		{"client", d.Clients},
		{"SQLSTATE of failed statements", d.Errors},
		{"logins by user", d.Logins},
		{"failed logins by user and address", d.BadLogins},
		{"read the log over HTTP", d.Readers},
		{"kind of entry", d.Kinds},
	} {
		if len(t.c) == 0 {
			doc.say("%s: none.", t.name)
			continue
		}
		var rows [][]string
		for _, c := range t.c[:min(len(t.c), 100)] {
			name := c.Name
			if name == "" {
				name = "-"
			}
			rows = append(rows, []string{name, number(c.N)})
		}
		if more := len(t.c) - len(rows); more > 0 {
			rows = append(rows, []string{fmt.Sprintf("and %d more, in report.json", more), ""})
		}
		doc.table([]string{t.name, "number"}, rows)
	}
}

// exceptions lists single entries.
func (d *Data) exceptions(doc *document) {
	for _, t := range []struct {
		name string
		l    *List
	}{
		{"Failed logins", &d.Failures},
		{"Refusals and protocol violations", &d.Refusals},
		{"Roles and privileges", &d.Roles},
		{"Definitions", &d.DDL},
		{"Gaps", &d.Gaps},
		{"Recoveries", &d.Recovers},
		{"Prunes", &d.Prunes},
		{"Erasures", &d.Erasures},
		{"Holds", &d.Holds},
		{"Configuration history", &d.Configs},
		{"Stops", &d.Stops},
	} {
		doc.heading(t.name)
		if t.l.Total == 0 {
			doc.say("None.")
			continue
		}
		var rows [][]string
		for _, i := range t.l.Items {
			rows = append(rows, []string{number(i.Index), stamp(i.Time), i.Who, i.What})
		}
		doc.table([]string{"entry", "time", "who", "what"}, rows)
		if more := t.l.Total - int64(len(t.l.Items)); more > 0 {
			doc.say("And %d more: pgnotary search finds them.", more)
		}
	}
}
