// Package verify checks a log without believing anything that is in it. It is
// what an auditor reads: it has its own reader of every file and shares none
// with the parts that write and search the log; only what a leaf is comes
// from package event, and the mathematics of proofs from golang.org/x/mod.
//
//	log.json ───────── hash ──────────┐ is a fact in entry 0
//	segments ─▶ bundles ──────┐
//	journal ─▶ batches ─▶ entries ─▶ leaves ─▶ leaf hashes ─▶ tree ─▶ root = signed checkpoint
//	 headers, CRCs, chain, roots    │    └─ order in the session, what refers to what
//	                                └─▶ values, blobs ─▶ commitment in the leaf
//	tile/ ─── the same hashes as the tree computed here
//	any other file is a finding
//
// Dir checks a data directory, in use or at rest, and URL what a log serves
// over HTTP. Neither ever writes. A log is read once, front to back, in
// bounded memory: one goroutine reads (segment.go, journal.go), several hash
// (entry.go), one puts all in order again (order.go). What is not there must have
// an entry that explains it (gap.go).
//
// A finding is something that an honest log never shows. A note is something
// worth knowing that proves nothing: leftovers of a crash, entries that no
// checkpoint covers yet.
package verify

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
)

// Options says what else to check, and how. The zero value is valid.
type Options struct {
	// Checkpoints are signed checkpoints from elsewhere; the log must be a
	// continuation of each of them.
	Checkpoints []File
	// VKeys are keys of logs that are trusted, for URL: without any, the log is
	// asked for its own.
	VKeys []string
	// Trust, if set, is asked whether a signed checkpoint satisfies a policy, and
	// at what time enough witnesses said that they knew no larger one; zero
	// if it asks for none. An error that wraps ErrUnwitnessed means that only
	// cosignatures are missing.
	Trust func(signed []byte) (witnessed time.Time, err error)
	// Fresh, if set, is how long ago that time may be.
	Fresh time.Duration
	// Now is the present, for Fresh; nil means time.Now.
	Now func() time.Time
	// Progress, if set, is called now and then with bytes read and bytes in all.
	Progress func(done, total int64)
	// Trusted, if set, is a signed checkpoint known to be that of this log: what
	// it covers is not read again, but for the rest of the file, for URL the bundle, it ends in.
	Trusted *File
	// Workers is the number of goroutines that hash; 0 means one for each CPU.
	Workers int
}

// ErrUnwitnessed says that a checkpoint is signed by its log, but not
// cosigned by enough witnesses.
var ErrUnwitnessed = errors.New("too few witnesses cosigned it")

// A File is a small file that was read before.
type File struct {
	Name string
	Data []byte
}

// A Result is what a check found.
type Result struct {
	OK       bool      `json:"ok"`       // no finding
	Origin   string    `json:"origin"`   // name of the log
	Size     int64     `json:"size"`     // entries that the checkpoint covers
	Root     string    `json:"root"`     // root of the tree of that size, base64
	Entries  int64     `json:"entries"`  // entries read and found in order
	Values   int64     `json:"values"`   // entries among them that have a value
	Erased   int64     `json:"erased"`   // values that were erased, and an entry says so
	Pruned   int64     `json:"pruned"`   // entries that were pruned, and an entry says so
	Findings []Finding `json:"findings"` // what an honest log never shows
	Notes    []string  `json:"notes"`    // what is worth knowing besides
}

// A Finding says what is wrong, and where.
type Finding struct {
	Index *int64 `json:"index,omitempty"` // entry, if it is about one
	What  string `json:"what"`            // a file or a part of an entry
	Why   string `json:"why"`
}

// maxFindings bounds the findings kept; one flaw can spoil all that follows.
const maxFindings = 100

// check is one run over a data directory.
type check struct {
	Result
	dir  string
	opt  Options
	more int // findings beyond maxFindings

	log     logFile
	signed  signedNote // DIR/checkpoint; size -1 if it is missing or bad
	trusted int64      // size of the trusted checkpoint, 0 if there is none
	wanted  []wanted   // roots to compare on the way
	tree    frontier
	skim    event.Skimmer // for URL
	keys    *keyring
	bounds  []bound // of the times of entries
	order   *order
	files   *listing
	gap     gaps
	late    []entry  // entries that explain something, behind the checkpoint
	ends    []wanted // roots of batches from there on

	lastTile struct { // read last; see rowAt
		name string
		row  []hash
	}
}

// wanted is a root someone signed, to be compared when the tree has its size.
type wanted struct {
	name string
	size int64
	root hash
}

// Dir checks the data directory dir. An error means that it could not be
// checked; what is wrong with the log is in the result. If files go while a log
// in use is read, it begins anew.
func Dir(ctx context.Context, dir string, opt Options) (*Result, error) {
	if opt.Workers <= 0 {
		opt.Workers = runtime.GOMAXPROCS(0)
	}
	for try := 1; ; try++ {
		c := &check{dir: dir, opt: opt, gap: newGaps()}
		c.Findings, c.Notes = []Finding{}, []string{}
		err := c.run(ctx)
		if (err != nil || len(c.Findings) > 0) && try < maxTries && c.wentMeanwhile() {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("verify %s: %w", dir, err)
		}
		return c.result(), nil
	}
}

// maxTries bounds how often a log in use is verified because its writer
// removed files meanwhile.
const maxTries = 5

// wentMeanwhile reports whether a writer holds the log and something that was
// listed is gone: sealed, pruned or erased. What reading it led to then
// means nothing, and the next try sees what explains that it is gone.
func (c *check) wentMeanwhile() bool {
	if c.files == nil || !locked(filepath.Join(c.dir, "LOCK")) {
		return false
	}
	now, err := list(c.dir)
	return err == nil && !c.files.within(now)
}

// run is the whole check. The order matters for a log in use: the checkpoint is
// read before the entries, so that whatever it covers is there to be read.
func (c *check) run(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(c.dir, "journal")); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(c.dir, "log.json")); err != nil {
			return errors.New("not a data directory: neither log.json nor journal is there")
		}
	}
	// Nothing could be said of what it would have to read through these.
	if files, err := list(c.dir); err != nil || len(files.special) > 0 {
		for _, name := range files.special {
			c.find(name, "it is not a plain file; the log was not read")
		}
		return err
	}
	if err := c.readLogFile(); err != nil {
		return err
	}
	if err := c.readKeys(); err != nil {
		return err
	}
	signed, err := readSmall(filepath.Join(c.dir, "checkpoint"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	witnessed, err := readSmall(filepath.Join(c.dir, "witnessed"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	files, err := list(c.dir)
	if err != nil {
		return err
	}
	c.files = files
	c.checkpoints("checkpoint", signed, witnessed)
	c.evidence()
	c.order = newOrder(c)
	c.tree.full = c.checkTile
	if err := c.readEntries(ctx); err != nil {
		return err
	}
	c.compareSizes()
	c.behindStop(signed)
	c.explain()
	c.checkFiles()
	return nil
}

// behindStop finds what was added to a log that had stopped in order. A stop is the last
// entry of all, and a start signs what it records before there is anything else: so if the checkpoint
// is still the one that was read, no writer made the entry.
func (c *check) behindStop(signed []byte) {
	if c.order.added == 0 {
		return
	}
	if now, err := readSmall(filepath.Join(c.dir, "checkpoint")); err == nil && bytes.Equal(now, signed) {
		c.findAt(c.order.added, "order", "somebody added it: the log had stopped in order, and was signed, before entry %d", c.signed.size)
	}
}

// result completes the result.
func (c *check) result() *Result {
	if c.more > 0 {
		c.Findings = append(c.Findings, Finding{What: "log", Why: fmt.Sprintf("%d more findings", c.more)})
	}
	c.OK = len(c.Findings) == 0
	return &c.Result
}

// find records a finding about a file or the log.
func (c *check) find(what, format string, args ...any) {
	c.add(Finding{What: what, Why: fmt.Sprintf(format, args...)})
}

// findAt records a finding about an entry.
func (c *check) findAt(index int64, what, format string, args ...any) {
	c.add(Finding{Index: &index, What: what, Why: fmt.Sprintf(format, args...)})
}

func (c *check) add(f Finding) {
	if len(c.Findings) >= maxFindings {
		c.more++
		return
	}
	c.Findings = append(c.Findings, f)
}

func (c *check) note(format string, args ...any) {
	if len(c.Notes) < maxFindings {
		c.Notes = append(c.Notes, fmt.Sprintf(format, args...))
	}
}

// readLogFile reads log.json. Its hash is compared when entry 0 comes.
func (c *check) readLogFile() error {
	b, err := readSmall(filepath.Join(c.dir, "log.json"))
	if errors.Is(err, fs.ErrNotExist) {
		c.find("log.json", "is missing")
		return nil
	}
	if err != nil {
		return err
	}
	if c.log, err = parseLogFile(b); err != nil {
		c.find("log.json", "%v", err)
	}
	sum := sha256.Sum256(b)
	c.log.hash = hex.EncodeToString(sum[:])
	c.Origin = c.log.origin
	return nil
}

// checkpoints opens the log's signed checkpoint and the latest one that
// witnesses cosigned, nil if there is none, and those given by the user, and
// puts their roots on the list of roots to compare.
func (c *check) checkpoints(name string, signed, witnessed []byte) {
	c.signed.size = -1
	if signed == nil {
		c.find(name, "is missing: no signature vouches for the entries")
	} else if n, ok := c.openCheckpoint(name, signed); ok {
		c.signed = n
		c.Size, c.Root = n.size, base64.StdEncoding.EncodeToString(n.root[:])
	}
	older := signedNote{size: -1}
	if witnessed != nil {
		n, ok := c.openCheckpoint("witnessed", witnessed)
		if ok && n.size > c.signed.size {
			c.find("witnessed", "is of size %d, but the log's own checkpoint only of %d: the log was put back to an earlier state", n.size, c.signed.size)
		}
		if ok {
			older = n
		}
	}
	if c.opt.Trust != nil && signed != nil {
		c.trust(name, signed, witnessed, older)
	}
	list := c.opt.Checkpoints
	if c.opt.Trusted != nil {
		list = append(list[:len(list):len(list)], *c.opt.Trusted)
	}
	for i, f := range list {
		n, ok := c.openCheckpoint(f.Name, f.Data)
		if ok && i == len(c.opt.Checkpoints) {
			c.trusted = n.size
		}
		if ok && c.opt.Trust != nil {
			if at, err := c.opt.Trust(f.Data); err == nil {
				c.bound(f.Name, n.size, at)
			}
		}
		if ok && c.signed.size >= 0 && n.size > c.signed.size {
			c.find(f.Name, "is of size %d, but the log's own checkpoint only of %d: entries are lost, or it was rolled back", n.size, c.signed.size)
		}
	}
	c.sortWanted()
}

func (c *check) sortWanted() {
	slices.SortStableFunc(c.wanted, func(a, b wanted) int { return cmp.Compare(a.size, b.size) })
}

// trust holds the log's checkpoint to the policy, or else the one that was
// cosigned last: new ones are without cosignatures for a moment.
func (c *check) trust(name string, signed, witnessed []byte, older signedNote) {
	at, err := c.opt.Trust(signed)
	size := c.signed.size
	if errors.Is(err, ErrUnwitnessed) && older.size >= 0 {
		if olderAt, olderErr := c.opt.Trust(witnessed); olderErr == nil {
			at, err, size = olderAt, nil, older.size
			c.note("%d entries from %d on are signed, but not yet cosigned by enough witnesses", c.signed.size-older.size, older.size)
		}
	}
	if err != nil {
		c.find(name, "does not satisfy the policy: %v", err)
		return
	}
	c.bound(name, size, at)
	if c.opt.Fresh <= 0 {
		return
	}
	now := time.Now
	if c.opt.Now != nil {
		now = c.opt.Now
	}
	if age := now().Sub(at); at.IsZero() {
		c.find(name, "nothing says how old it is: the policy asks for no witnesses")
	} else if age > c.opt.Fresh {
		c.find(name, "is stale: enough witnesses knew it as the latest %s ago, at %s, and at most %s is allowed; the log may have been put back, or cut off from its witnesses",
			age.Truncate(time.Second), at.UTC().Format(time.RFC3339), c.opt.Fresh)
	}
}

func (c *check) openCheckpoint(name string, b []byte) (signedNote, bool) {
	if c.log.vkey == "" {
		c.find(name, "cannot be checked: the log gives no key")
		return signedNote{}, false
	}
	n, err := c.openSigned(name, b)
	if err != nil {
		c.find(name, "%v", err)
		return n, false
	}
	if n.others > 0 && c.opt.Trust == nil {
		c.note("%s carries %d more signatures; without a policy they were not checked", name, n.others)
	}
	c.wanted = append(c.wanted, wanted{name, n.size, n.root})
	return n, true
}

// compareRoots is called after each append, and before the first.
func (c *check) compareRoots() {
	for len(c.wanted) > 0 && c.wanted[0].size == c.tree.size {
		w := c.wanted[0]
		c.wanted = c.wanted[1:]
		if got := c.tree.root(); got != w.root {
			c.find(w.name, "its root at size %d is %s, but the entries give %s: the log is not the one that was signed",
				w.size, base64.StdEncoding.EncodeToString(w.root[:]), base64.StdEncoding.EncodeToString(got[:]))
		}
	}
}

// compareSizes is called after the last entry: checkpoints that the log did
// not reach are left on the list.
func (c *check) compareSizes() {
	c.checkKeys()
	for _, w := range c.wanted {
		c.find(w.name, "is of size %d, but only %d entries are there or could be read", w.size, c.tree.size)
	}
	if c.signed.size >= 0 && c.tree.size > c.signed.size {
		c.note("%d entries after the checkpoint, from %d on, are not signed yet", c.tree.size-c.signed.size, c.signed.size)
	}
	if c.opt.Trust == nil {
		c.note("no policy given: the key was taken from the log itself")
	}
}
