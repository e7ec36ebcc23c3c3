package faultfs

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/pgnotary/pgnotary/internal/durable"
)

func create(t *testing.T, s *FS, name, content string) durable.File {
	t.Helper()
	f, err := s.Create(name, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(content), 0); err != nil {
		t.Fatal(err)
	}
	return f
}

// outcomes crashes s often and counts what the file holds then, "-" for none.
func outcomes(t *testing.T, s *FS, name string) map[string]int {
	t.Helper()
	got := map[string]int{}
	for seed := range uint64(400) {
		b, err := durable.ReadFile(s.Crash(rand.New(rand.NewPCG(seed, 0))), name, 1<<20)
		if err != nil {
			b = []byte("-")
		}
		got[string(bytes.ReplaceAll(b, make([]byte, 512), []byte("0")))]++
	}
	return got
}

func wantOutcomes(t *testing.T, got map[string]int, want ...string) {
	t.Helper()
	for _, w := range want {
		if got[w] == 0 {
			t.Errorf("outcome %.20q never came up in %d", w, len(got))
		}
		delete(got, w)
	}
	for g, n := range got {
		t.Errorf("outcome %.20q came up %d times, want never", g, n)
	}
}

func TestCrashLosesWhatWasNotSynced(t *testing.T) {
	t.Run("nothing synced", func(t *testing.T) {
		s := New()
		create(t, s, "/f", "abc")
		wantOutcomes(t, outcomes(t, s, "/f"), "-", "", "abc", "\x00\x00\x00")
	})
	t.Run("file synced, directory not", func(t *testing.T) {
		s := New()
		if err := create(t, s, "/f", "abc").Sync(); err != nil {
			t.Fatal(err)
		}
		wantOutcomes(t, outcomes(t, s, "/f"), "-", "abc")
	})
	t.Run("both synced", func(t *testing.T) {
		s := New()
		f := create(t, s, "/f", "abc")
		if err := errors.Join(f.Datasync(), s.SyncDir("/")); err != nil {
			t.Fatal(err)
		}
		wantOutcomes(t, outcomes(t, s, "/f"), "abc")
		if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, ErrCrashed) {
			t.Errorf("write after the crash = %v, want ErrCrashed", err)
		}
	})
	t.Run("two sectors of one write", func(t *testing.T) {
		s := New()
		f := create(t, s, "/f", string(make([]byte, 1024)))
		if err := errors.Join(f.Datasync(), s.SyncDir("/")); err != nil {
			t.Fatal(err)
		}
		a, b := string(bytes.Repeat([]byte("a"), 512)), string(bytes.Repeat([]byte("b"), 512))
		if _, err := f.WriteAt([]byte(a+b), 0); err != nil {
			t.Fatal(err)
		}
		wantOutcomes(t, outcomes(t, s, "/f"), "00", a+"0", "0"+b, a+b)
	})
	t.Run("rename", func(t *testing.T) {
		s := New()
		f, g := create(t, s, "/f", "old"), create(t, s, "/g", "new")
		if err := errors.Join(f.Sync(), g.Sync(), s.SyncDir("/"), s.Rename("/g", "/f")); err != nil {
			t.Fatal(err)
		}
		wantOutcomes(t, outcomes(t, s, "/f"), "old", "new")
	})
	t.Run("truncate", func(t *testing.T) {
		s := New()
		f := create(t, s, "/f", "abcdef")
		if err := errors.Join(f.Sync(), s.SyncDir("/"), f.Truncate(3)); err != nil {
			t.Fatal(err)
		}
		wantOutcomes(t, outcomes(t, s, "/f"), "abcdef", "abc")
	})
}

// After a failed sync the data is in the page cache, a second sync reports
// success on the handle that was told, and nothing is on the disk.
func TestFailedSyncLosesData(t *testing.T) {
	s := New()
	f := create(t, s, "/f", "")
	other, err := s.OpenRW("/f")
	if err = errors.Join(err, f.Sync(), s.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("abc"), 0); err != nil {
		t.Fatal(err)
	}
	s.Inject(func(op Op, _ string) Fault {
		if op == Datasync {
			return Fault{Err: syscall.EIO}
		}
		return Fault{}
	})
	if err := f.Datasync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("Datasync = %v, want EIO", err)
	}
	s.Inject(nil)
	if err := f.Datasync(); err != nil {
		t.Errorf("second Datasync = %v, want nil", err)
	}
	if err := other.Datasync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("Datasync on another handle = %v, want EIO", err)
	}
	if b, err := durable.ReadFile(s, "/f", 10); err != nil || string(b) != "abc" {
		t.Errorf("the page cache shows %q, %v, want abc", b, err)
	}
	wantOutcomes(t, outcomes(t, s, "/f"), "", "abc", "\x00\x00\x00")
}

func TestFaults(t *testing.T) {
	s := New()
	old, change := bytes.Repeat([]byte("o"), 1000), bytes.Repeat([]byte("n"), 1500)
	f := create(t, s, "/f", string(old))
	s.Inject(func(op Op, name string) Fault {
		if op == Write && name == "/f" {
			return Fault{Err: syscall.EIO, Short: 700}
		}
		return Fault{}
	})
	if n, err := f.WriteAt(change, 10); n != 502 || !errors.Is(err, syscall.EIO) {
		t.Errorf("WriteAt = %d, %v, want 502, EIO", n, err)
	}
	want := append(append(bytes.Clone(old[:10]), change[:502]...), old[512:]...)
	if b, err := durable.ReadFile(s, "/f", 2000); err != nil || !bytes.Equal(b, want) {
		t.Errorf("ReadFile = %q, %v, want %q", b, err, want)
	}
	s.Inject(nil)
	s.SetSpace(100)
	if n, err := f.WriteAt(change, 0); n != 1024 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("WriteAt on a full disk = %d, %v, want 1024, ENOSPC", n, err)
	}
	s.Stop()
	if err := f.Sync(); !errors.Is(err, ErrCrashed) {
		t.Errorf("Sync after Stop = %v, want ErrCrashed", err)
	}
}
