package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/segment"
)

// TestEraseAgainIsDurable: an order that is carried out again finds nothing
// more to change, but must not say so before that would outlast a power failure.
func TestEraseAgainIsDurable(t *testing.T) {
	s := faultfs.New()
	l := mustOpen(t, steady(quiet(s, "/d")))
	_, secret, _, err := rich(l)
	if err != nil {
		t.Fatal(err)
	}
	broken := false
	s.Inject(func(op faultfs.Op, name string) faultfs.Fault {
		if op == faultfs.SyncDir && name == "/d/segment" && !broken {
			broken = true
			return faultfs.Fault{Err: syscall.EIO}
		}
		return faultfs.Fault{}
	})
	if _, err := l.Do(t.Context(), &Order{Kind: "erase", Entries: []int64{secret}}); !errors.Is(err, syscall.EIO) {
		t.Fatalf("erase = %v, want EIO", err)
	}
	mustDo(t, l, Order{Kind: "erase", Entries: []int64{secret}})
	s.Stop()
	_ = l.Close()
	for seed := range uint64(20) {
		if bytes.Contains(everywhere(t, s.Crash(rnd(seed)), "/d"), []byte("a secret of bob")) {
			t.Fatalf("seed %d: the log said that it was gone, and after a crash it is there again", seed)
		}
	}
}

// TestIndexGoes: what was computed from values goes with them, before the log says so.
func TestIndexGoes(t *testing.T) {
	for _, o := range []Order{{Kind: "erase"}, {Kind: "prune", What: "values", Until: 256}, {Kind: "prune", What: "leaves", Until: 256}} {
		s := faultfs.New()
		l := mustOpen(t, steady(quiet(s, "/d")))
		_, secret, _, err := rich(l)
		if err != nil {
			t.Fatal(err)
		}
		name := "/d/index/00000000000000000000.idx"
		if err := errors.Join(durable.MkdirAll(s, "/d/index", 0o700), durable.WriteFile(s, name, []byte("terms"), 0o600)); err != nil {
			t.Fatal(err)
		}
		if o.Kind == "erase" {
			o.Entries = []int64{secret}
		}
		mustDo(t, l, o)
		mustClose(t, l)
		if _, err := durable.ReadFile(s.Crash(rnd(1)), name, 100); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s %s: its index: %v, want it gone", o.Kind, o.What, err)
		}
	}
}

// TestJournalFileStaysGone: a sealed journal file whose removal could not be
// made durable does not come back beside later segments.
func TestJournalFileStaysGone(t *testing.T) {
	s := faultfs.New()
	l := mustOpen(t, steady(quiet(s, "/d")))
	for range 2 {
		if err := errors.Join(l.Rotate(), l.await(t.Context(), l.next-1)); err != nil {
			t.Fatal(err)
		}
	}
	s.Inject(func(op faultfs.Op, name string) faultfs.Fault {
		if op == faultfs.SyncDir && name == "/d/journal" {
			return faultfs.Fault{Err: syscall.EIO}
		}
		return faultfs.Fault{}
	})
	if err := l.SealNow(t.Context()); !errors.Is(err, syscall.EIO) {
		t.Fatalf("seal = %v, want EIO", err)
	}
	s.Inject(nil)
	mustClose(t, l)
	l = mustOpen(t, steady(quiet(s, "/d")))
	s.Inject(func(op faultfs.Op, name string) faultfs.Fault {
		if op == faultfs.Remove && name == "/d/journal/00000000000000000256.journal" {
			return faultfs.Fault{Err: syscall.EIO}
		}
		return faultfs.Fault{}
	})
	if err := l.SealNow(t.Context()); !errors.Is(err, syscall.EIO) {
		t.Fatalf("seal = %v, want EIO", err)
	}
	s.Stop()
	_ = l.Close()
	for seed := range uint64(20) {
		again, err := Open(steady(quiet(s.Crash(rnd(seed)), "/d")))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		mustClose(t, again)
	}
}

// TestSealAgain: whichever step of sealing fails once, before or after it took
// effect, a later try in the same process finishes it, and a crash then loses nothing.
func TestSealAgain(t *testing.T) {
	for n := 1; ; n++ {
		for _, after := range []bool{false, true} {
			s := faultfs.New()
			l := mustOpen(t, steady(quiet(s, "/d")))
			for range 2 {
				if err := errors.Join(l.Rotate(), l.await(t.Context(), l.next-1), l.sign()); err != nil {
					t.Fatal(err)
				}
			}
			count, failed := 0, ""
			s.Inject(func(op faultfs.Op, name string) faultfs.Fault {
				if changes(op) {
					if count++; count == n {
						failed = fmt.Sprint(op, " ", name)
						return faultfs.Fault{Err: syscall.EIO, After: after}
					}
				}
				return faultfs.Fault{}
			})
			err := l.sealer.sealAll(t.Context())
			s.Inject(nil)
			told := err != nil // what one step cannot do, another may
			if failed == "" {
				if n < 20 || err != nil {
					t.Errorf("%d steps, %v", n-1, err)
				}
				mustClose(t, l)
				return
			}
			if err := l.sealer.sealAll(t.Context()); err != nil {
				t.Errorf("step %d, %s, after %v: the next try: %v", n, failed, after, err)
			}
			files, err := journal.Files(s, "/d/journal")
			if err != nil || len(files) != 1 {
				t.Errorf("step %d, %s, after %v: journal files %v, %v, want one", n, failed, after, files, err)
			}
			if n := l.SealFailures(); (n == 1) != told {
				t.Errorf("step %d, %s, after %v: %d failures are counted, told: %v", n, failed, after, n, told)
			}
			size := l.Durable()
			s.Stop()
			_ = l.Close()
			again := mustOpen(t, steady(quiet(s.Crash(rnd(uint64(n))), "/d")))
			if again.Durable() < size {
				t.Errorf("step %d, %s, after %v: %d entries after a crash, want %d", n, failed, after, again.Durable(), size)
			}
			mustClose(t, again)
		}
	}
}

// TestCopiesAreDurable: the copies of what open sessions go back to are on the disk before the first file goes.
func TestCopiesAreDurable(t *testing.T) {
	s := faultfs.New()
	l := mustOpen(t, steady(quiet(s, "/d")))
	add := func(seq uint64, kind event.Kind, parse int64, value string) int64 {
		t.Helper()
		leaf := event.Leaf{Time: l.cfg.Now(), Session: 3, Seq: seq, Kind: kind, Parse: parse, Who: &event.Who{User: "carol", Database: "app"}}
		index, err := l.Emit(&leaf, []byte(value))
		if err != nil {
			t.Fatal(err)
		}
		return index
	}
	add(1, event.KindConnect, 0, "start-up")
	text := add(2, event.KindParse, 0, "what is used much later")
	if _, _, _, err := rich(l); err != nil {
		t.Fatal(err)
	}
	add(3, event.KindExecute, event.Ref(text), "run") // not sealed
	segs, err := segment.List(s, "/d")
	if err != nil {
		t.Fatal(err)
	}
	newest := segs[len(segs)-1]
	before, _, err := segment.Copies(s, "/d", newest)
	if err != nil {
		t.Fatal(err)
	}
	s.Inject(func(op faultfs.Op, name string) faultfs.Fault {
		if op == faultfs.Remove && filepath.Dir(name) == "/d/segment" && !strings.HasSuffix(name, ".tmp") {
			return faultfs.Fault{Err: syscall.EIO}
		}
		return faultfs.Fault{}
	})
	if _, err := l.Do(t.Context(), &Order{Kind: "prune", What: "leaves", Until: 1 << 40}); !errors.Is(err, syscall.EIO) {
		t.Fatalf("prune = %v, want EIO", err)
	}
	want, _, err := segment.Copies(s, "/d", newest)
	if err != nil || len(want) <= len(before) {
		t.Fatalf("%d copies, %d before, %v, want more", len(want), len(before), err)
	}
	s.Stop()
	_ = l.Close()
	for seed := range uint64(20) {
		if got, _, err := segment.Copies(s.Crash(rnd(seed)), "/d", newest); err != nil || len(got) != len(want) {
			t.Fatalf("seed %d: a file was about to go, and after a crash there are %d copies, %v, want %d", seed, len(got), err, len(want))
		}
	}
}

// TestPrunedIsDurable: what an order said is gone does not come back by a crash.
func TestPrunedIsDurable(t *testing.T) {
	for _, what := range []string{"values", "leaves"} {
		s := faultfs.New()
		l := mustOpen(t, steady(quiet(s, "/d")))
		if _, _, _, err := rich(l); err != nil {
			t.Fatal(err)
		}
		sealAll(t, l)
		until := mustDo(t, l, Order{Kind: "prune", What: what, Until: 1 << 40}).Pruned
		s.Stop()
		_ = l.Close()
		for seed := range uint64(20) {
			disk := s.Crash(rnd(seed))
			segs, err := segment.List(disk, "/d")
			if err != nil || len(segs) == 0 || until == 0 {
				t.Fatalf("segments %v, %v; pruned until %d", segs, err, until)
			}
			if what == "leaves" && segs[0] < until {
				t.Fatalf("seed %d: after a crash the segment of entry %d is there again, pruned until %d", seed, segs[0], until)
			}
			for _, first := range segs {
				if _, n, err := segment.Size(disk, "/d", first); err != nil || n > 0 && first < until {
					t.Fatalf("seed %d: after a crash the segment of entry %d has %d bytes of values again, %v", seed, first, n, err)
				}
			}
		}
	}
}

// TestIndexGoesFirst: no crash leaves an index that tells of values which are gone; a later try would pass over them.
func TestIndexGoesFirst(t *testing.T) {
	s := faultfs.New()
	l := mustOpen(t, steady(quiet(s, "/d")))
	if _, _, _, err := rich(l); err != nil {
		t.Fatal(err)
	}
	name := "/d/index/00000000000000000000.idx"
	if err := errors.Join(durable.MkdirAll(s, "/d/index", 0o700), durable.WriteFile(s, name, []byte("terms"), 0o600)); err != nil {
		t.Fatal(err)
	}
	s.Inject(func(op faultfs.Op, name string) faultfs.Fault {
		if op == faultfs.Remove && name == segment.ValueFile("/d", 0) {
			return faultfs.Fault{Err: syscall.EIO}
		}
		return faultfs.Fault{}
	})
	if _, err := l.Do(t.Context(), &Order{Kind: "prune", What: "values", Until: 256}); !errors.Is(err, syscall.EIO) {
		t.Fatalf("prune = %v, want EIO", err)
	}
	s.Stop()
	_ = l.Close()
	for seed := range uint64(20) {
		if _, err := durable.ReadFile(s.Crash(rnd(seed)), name, 100); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("seed %d: values were about to go, and after a crash their index is there (%v)", seed, err)
		}
	}
}
