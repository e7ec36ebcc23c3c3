package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/segment"
	"github.com/pgnotary/pgnotary/internal/tree"
	"github.com/pgnotary/pgnotary/internal/verify"
)

// TestReplacedKey: whoever has a key that was replaced cannot sign the log,
// even if the entry about that was pruned.
func TestReplacedKey(t *testing.T) {
	s := faultfs.New()
	cfg := steady(quiet(s, "/d"))
	l := mustOpen(t, cfg)
	old := l.signer
	mustClose(t, l)
	nextKey(t, s, 10)
	l = mustOpen(t, cfg)
	if _, _, _, err := rich(l); err != nil {
		t.Fatal(err)
	}
	mustDo(t, l, Order{Kind: "prune", What: "leaves", Until: 256})
	mustClose(t, l)
	if r := mustVerify(t, s, "/d"); r.Pruned != 256 {
		t.Fatalf("%+v, want what was before 256 pruned", r)
	}
	dir := dump(t, s, "/d")
	forged, err := checkpoint.Sign(old, l.info.Origin, l.pub.size, l.pub.root)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "checkpoint"), forged, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if r, err := verify.Dir(t.Context(), dir, verify.Options{}); err != nil || r.OK || !strings.Contains(fmt.Sprint(r.Findings), "whoever has the old key") {
		t.Errorf("signed with the old key: %+v, %v, want a finding", r, err)
	}
}

// TestCopyPutBack: whoever puts an erased value back in a copy of it is found out.
func TestCopyPutBack(t *testing.T) {
	s := faultfs.New()
	l := mustOpen(t, steady(quiet(s, "/d")))
	text, _, _, err := rich(l)
	if err != nil {
		t.Fatal(err)
	}
	name := segment.ValueFile("", 256) // it has the copy
	was, err := durable.ReadFile(s, filepath.Join("/d", name), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	mustDo(t, l, Order{Kind: "erase", Entries: []int64{text}})
	mustClose(t, l)
	mustVerify(t, s, "/d")
	dir := dump(t, s, "/d")
	if err := os.WriteFile(filepath.Join(dir, name), was, 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := verify.Dir(t.Context(), dir, verify.Options{}); err != nil || r.OK || !strings.Contains(fmt.Sprint(r.Findings), "gone, but it is there") {
		t.Errorf("an erased value in a copy: %+v, %v, want a finding", r, err)
	}
}

// TestForgedBehindStop is row 28 of the tamper matrix: what somebody puts behind the last checkpoint of a log that
// stopped in order is never signed. What is left by starts that died before they signed is no such thing.
func TestForgedBehindStop(t *testing.T) {
	start, query, stop := event.KindStart, event.KindQuery, event.KindStop
	for _, tt := range []struct {
		name  string
		kinds []event.Kind // of what is put there
		crash bool         // the log did not stop
		want  string       // part of why the log is not opened
	}{
		{name: "nothing"},
		{name: "starts that died", kinds: []event.Kind{start, event.KindRecover, start}},
		{name: "a statement", kinds: []event.Kind{query}, want: "somebody added entry 3"},
		{name: "a statement behind a start", kinds: []event.Kind{start, query}, want: "somebody added entry 4"},
		{name: "another stop", kinds: []event.Kind{start, stop}, want: "somebody added entry 4"},
		{name: "a statement behind a crash", kinds: []event.Kind{query}, crash: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := faultfs.New()
			l := mustOpen(t, steady(quiet(s, "/d")))
			if _, err := l.Emit(&event.Leaf{Kind: event.KindHeartbeat}, nil); err != nil {
				t.Fatal(err)
			}
			if err := l.commitNow(); err != nil {
				t.Fatal(err)
			}
			if tt.crash {
				s = s.Crash(rand.New(rand.NewPCG(1, 2)))
			} else {
				mustClose(t, l)
			}
			addUnsigned(t, s, tt.kinds)
			if r, err := verify.Dir(t.Context(), dump(t, s, "/d"), verify.Options{}); err != nil || r.OK != (tt.want == "") ||
				!r.OK && !strings.Contains(fmt.Sprint(r.Findings), "somebody added it") {
				t.Errorf("verify: %+v, %v, want a finding: %v", r, err, tt.want != "")
			}
			l, err := Open(steady(quiet(s, "/d")))
			if tt.want == "" && err == nil {
				mustClose(t, l)
				mustVerify(t, s, "/d")
			} else if tt.want == "" || !errors.Is(err, ErrRolledBack) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Open: %v, want %q", err, tt.want)
			}
		})
	}
}

// addUnsigned writes entries behind those of the journal in /d, which takes no key.
func addUnsigned(t *testing.T, s durable.FS, kinds []event.Kind) {
	t.Helper()
	st, err := journal.Recover(journal.Options{
		FS: s, Dir: "/d/journal", LogID: sha256.Sum256([]byte("test.example/log")), SegmentSize: 64 << 20, SegmentAge: time.Hour, Room: 8 << 10,
	}, 0)
	if err != nil {
		t.Fatal(err)
	}
	w, err := st.Resume()
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range kinds {
		l := event.Leaf{Kind: kind, Time: 1_780_000_000e9}
		if kind == event.KindQuery {
			l.Session, l.Seq = 1, 1
		}
		leaf := l.Append(nil)
		st.Tree.Append(tree.LeafHash(leaf))
		root := st.Tree.Root()
		if err := w.Append(journal.AppendEntry(make([]byte, journal.BatchHeaderLen), w.Next(), leaf, nil), 1, &root, l.Time); err != nil {
			t.Fatal(err)
		}
	}
	w.Abandon()
}

// TestForgedMark is row 32 of the tamper matrix: marks in pending that say of values which are recorded that
// perhaps no entry refers to them. verify finds those that lie about the index, and no start removes a value for one.
func TestForgedMark(t *testing.T) {
	s := faultfs.New()
	l := mustOpen(t, steady(quiet(s, "/d")))
	seq := uint64(0)
	blob := func(kind event.Kind, parse int64, value string) int64 {
		seq++
		index, err := l.Emit(&event.Leaf{Session: 1, Seq: seq, Kind: kind, Parse: parse}, []byte(value))
		if err == nil {
			err = l.await(t.Context(), index)
		}
		if err != nil {
			t.Fatal(err)
		}
		return index
	}
	seal := func() {
		if err := errors.Join(l.Rotate(), waitFor(l, l.next), l.SealNow(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	large := strings.Repeat("large ", MaxInline/6+1)
	text := blob(event.KindParse, 0, "P\x00\x04\x00\x0aname\x00"+large)
	seal()
	blob(event.KindExecute, event.Ref(text), large) // in a segment, beside a copy of the one before
	seal()
	mustDo(t, l, Order{Kind: "prune", What: "leaves", Until: 256})
	blob(event.KindExecute, event.Ref(text), large) // in the journal
	recorded, err := s.List("/d/blob")
	if err != nil || len(recorded) != 3 {
		t.Fatalf("blobs %v, %v, want 3", recorded, err)
	}
	if b, err := l.NewBlob(); err != nil { // no entry refers to this one
		t.Fatal(err)
	} else if err := b.Sync(); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	_ = l.Close()

	for name, mark := range map[string]func(id [16]byte) string{
		"true index":  markOf,
		"beyond":      func(id [16]byte) string { return fmt.Sprintf("%020d-%x", 99999, id) },
		"before":      func(id [16]byte) string { return fmt.Sprintf("%020d-%x", 0, id) },
		"no integer":  func(id [16]byte) string { return fmt.Sprintf("%020d-%x", uint64(1)<<63, id) },
		"end of file": func(id [16]byte) string { return fmt.Sprintf("%020d-%x", l.next, id) },
	} {
		t.Run(name, func(t *testing.T) {
			s := s.Crash(rnd(1))
			lies := 0
			for _, file := range recorded {
				id, err := hex.DecodeString(strings.TrimSuffix(file, ".blob"))
				if err != nil {
					t.Fatal(err)
				}
				m := mark([16]byte(id))
				if m != markOf([16]byte(id)) {
					lies++
				}
				if f, err := s.Create("/d/pending/"+m, 0o600); err != nil {
					t.Fatal(err)
				} else if err := f.Close(); err != nil {
					t.Fatal(err)
				}
			}
			r, err := verify.Dir(t.Context(), dump(t, s, "/d"), verify.Options{Workers: 1})
			if err != nil || len(r.Findings) != lies {
				t.Errorf("before the start: %+v, %v, want %d findings", r, err, lies)
			}
			mustClose(t, mustOpen(t, quiet(s, "/d")))
			mustVerify(t, s, "/d")
			if left, err := s.List("/d/blob"); err != nil || !slices.Equal(left, recorded) {
				t.Errorf("the start left the blobs %v, %v, want %v", left, err, recorded)
			}
			if marks, err := s.List("/d/pending"); err != nil || len(marks) > 0 {
				t.Errorf("marks %v, %v", marks, err)
			}
			said := ""
			reader, err := segment.OpenReaderFS(s, "/d")
			if err != nil {
				t.Fatal(err)
			}
			for e, err := range reader.Leaves(reader.First(), 1<<40) {
				if err != nil {
					t.Fatal(err)
				}
				if leaf, err := event.Parse(e.Leaf); err == nil && leaf.Kind == event.KindViolation {
					said += fmt.Sprint(leaf.Facts)
				}
			}
			if want := fmt.Sprintf("{marks %d}", lies); lies > 0 && !strings.Contains(said, want) || lies == 0 && said != "" {
				t.Errorf("the log says %q, want %s", said, want)
			}
		})
	}
}

// TestJournalPutBack is row 33 of the tamper matrix: beside the newest segment lies the journal file that it was made of, again, or one like
// it. As long as there is one it counts, but the segment goes only when there is another that says the same.
func TestJournalPutBack(t *testing.T) {
	s := faultfs.New()
	l := mustOpen(t, steady(quiet(s, "/d")))
	secret, err := l.Emit(&event.Leaf{Session: 1, Seq: 1, Kind: event.KindQuery}, []byte("a secret"))
	if err := errors.Join(err, l.Rotate(), l.await(t.Context(), l.next-1), l.sign()); err != nil {
		t.Fatal(err)
	}
	name := "/d/journal/" + journal.FileName(0)
	was, err := durable.ReadFile(s, name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.SealNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	erased := s.Crash(rnd(2))
	l = mustOpen(t, steady(quiet(erased, "/d")))
	mustDo(t, l, Order{Kind: "erase", Entries: []int64{secret}})
	mustClose(t, l)

	files := func(s *faultfs.FS) (b []byte) {
		for _, name := range []string{segment.LeafFile("/d", 0), segment.ValueFile("/d", 0)} {
			one, err := durable.ReadFile(s, name, 1<<20)
			if err != nil {
				t.Error(err)
			}
			b = append(b, one...)
		}
		return b
	}
	for _, tt := range []struct {
		name string
		fs   *faultfs.FS
		edit func(b []byte)
		want string // part of the error of sealing, "" for none
	}{
		{"the same", s, func([]byte) {}, ""},
		{"damaged", s, func(b []byte) { b[bytes.Index(b, []byte("a secret"))] ^= 1 }, "seal the journal file"},
		{"with what was erased", erased, func([]byte) {}, "has other values"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := tt.fs.Crash(rnd(3))
			before := files(s)
			forged := bytes.Clone(was)
			tt.edit(forged)
			if err := durable.WriteFile(s, name, forged, 0o600); err != nil {
				t.Fatal(err)
			}
			l := mustOpen(t, steady(quiet(s, "/d")))
			if err := l.SealNow(t.Context()); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("sealing = %v, want %q", err, tt.want)
			}
			mustClose(t, l)
			if !bytes.Equal(files(s), before) {
				t.Error("the segment is not what it was")
			}
			if tt.want != "" {
				if err := s.Remove(name); err != nil {
					t.Fatal(err)
				}
			}
			mustClose(t, mustOpen(t, steady(quiet(s, "/d"))))
			mustVerify(t, s, "/d")
		})
	}
}

// TestIndexIsALink: an erasure removes the indexes, which tell of values, and nothing that a link in their place leads to.
func TestIndexIsALink(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	l := mustOpen(t, steady(quiet(durable.OS, dir)))
	_, secret, _, err := rich(l)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadDir(filepath.Join(dir, "segment"))
	if err == nil {
		err = os.Symlink("segment", filepath.Join(dir, "index"))
	}
	if err != nil {
		t.Fatal(err)
	}
	mustDo(t, l, Order{Kind: "erase", Entries: []int64{secret}})
	mustClose(t, l)
	if after, err := os.ReadDir(filepath.Join(dir, "segment")); err != nil || len(after) != len(before) || len(after) == 0 {
		t.Errorf("segments %v, %v, want %v", after, err, before)
	}
	if _, err := os.Lstat(filepath.Join(dir, "index")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the link: %v, want it gone", err)
	}
	if r, err := verify.Dir(t.Context(), dir, verify.Options{}); err != nil || !r.OK {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestLinks: no start follows a link in the place of one of the log's directories, nor are orders taken from behind one:
// log.json, say, would be one that is malformed, and go.
func TestLinks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	cfg := steady(quiet(durable.OS, dir))
	l := mustOpen(t, cfg)
	if err := os.Symlink(".", filepath.Join(dir, "request")); err != nil {
		t.Fatal(err)
	}
	l.clerk.orders()
	if _, err := os.Stat(filepath.Join(dir, "log.json")); err != nil {
		t.Error(err)
	}
	mustClose(t, l)
	for _, name := range []string{"request", "segment"} {
		if l, err := Open(cfg); err == nil || !strings.Contains(err.Error(), name+" is a link") {
			if err == nil {
				mustClose(t, l)
			}
			t.Errorf("%s: Open = %v, want it refused", name, err)
		}
		if err := errors.Join(os.Remove(filepath.Join(dir, name)), os.Rename(filepath.Join(dir, "segment"), filepath.Join(dir, "elsewhere")), os.Symlink("elsewhere", filepath.Join(dir, "segment"))); err != nil && name == "request" {
			t.Fatal(err)
		}
	}
}
