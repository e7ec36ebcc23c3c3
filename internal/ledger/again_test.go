package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
	"github.com/pgnotary/pgnotary/internal/journal"
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
