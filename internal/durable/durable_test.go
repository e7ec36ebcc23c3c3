package durable_test

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
)

// both runs a test on the real file system and on that of tests, which must
// not differ as long as nothing fails.
func both(t *testing.T, f func(t *testing.T, fsys durable.FS, dir string)) {
	t.Run("os", func(t *testing.T) { f(t, durable.OS, t.TempDir()) })
	t.Run("faultfs", func(t *testing.T) { f(t, faultfs.New(), "/") })
}

func TestFiles(t *testing.T) {
	both(t, func(t *testing.T, fsys durable.FS, dir string) {
		name := filepath.Join(dir, "a")
		f, err := fsys.Create(name, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fsys.Create(name, 0o600); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Create of an existing file = %v, want fs.ErrExist", err)
		}
		for _, step := range []struct {
			name string
			do   func() error
		}{
			{"write", func() error { _, err := f.WriteAt([]byte("hello"), 3); return err }},
			{"datasync", f.Datasync},
			{"truncate", func() error { return f.Truncate(6) }},
			{"sync", f.Sync},
			{"writeback", func() error { f.Writeback(0, 6); return nil }},
			{"close", f.Close},
			{"rename", func() error { return fsys.Rename(name, filepath.Join(dir, "b")) }},
			{"syncdir", func() error { return fsys.SyncDir(dir) }},
			{"mkdir", func() error { return fsys.Mkdir(filepath.Join(dir, "d"), 0o700) }},
		} {
			if err := step.do(); err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
		}
		got, err := durable.ReadFile(fsys, filepath.Join(dir, "b"), 10)
		if err != nil || string(got) != "\x00\x00\x00hel" {
			t.Errorf("ReadFile = %q, %v, want %q", got, err, "\x00\x00\x00hel")
		}
		if _, err := durable.ReadFile(fsys, filepath.Join(dir, "b"), 5); err == nil {
			t.Error("ReadFile of a file over the limit succeeded, want an error")
		}
		if names, err := fsys.List(dir); err != nil || cmp.Diff(names, []string{"b", "d"}) != "" {
			t.Errorf("List = %v, %v, want [b d]", names, err)
		}
		for op, err := range map[string]error{
			"Open":   second(fsys.Open(name)),
			"OpenRW": second(fsys.OpenRW(name)),
			"Remove": fsys.Remove(name),
			"List":   second(fsys.List(name)),
		} {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s of what is not there = %v, want fs.ErrNotExist", op, err)
			}
		}
		if err := fsys.Mkdir(filepath.Join(dir, "d"), 0o700); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Mkdir of what is there = %v, want fs.ErrExist", err)
		}
		r, err := fsys.Open(filepath.Join(dir, "b"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.WriteAt([]byte("x"), 0); err == nil {
			t.Error("WriteAt on a file opened for reading succeeded, want an error")
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

func second[T any](_ T, err error) error { return err }

func TestDirect(t *testing.T) {
	both(t, func(t *testing.T, fsys durable.FS, dir string) {
		name := filepath.Join(dir, "a")
		if _, err := fsys.OpenDirect(name); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, durable.ErrNoDirect) {
			t.Errorf("OpenDirect of what is not there = %v, want fs.ErrNotExist", err)
		}
		if err := durable.WriteFile(fsys, name, make([]byte, 4*durable.Block), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := fsys.OpenDirect(name)
		if errors.Is(err, durable.ErrNoDirect) {
			t.Log("not possible here")
			return
		} else if err != nil {
			t.Fatal(err)
		}
		b := durable.Aligned(2 * durable.Block)
		b[0], b[durable.Block] = 1, 2
		if n, err := f.WriteAt(b, durable.Block); err != nil || n != len(b) {
			t.Fatalf("WriteAt = %d, %v, want %d", n, err, len(b))
		}
		if _, err := f.WriteAt(b[:durable.Block], 17); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("WriteAt between blocks = %v, want EINVAL", err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if s, ok := fsys.(*faultfs.FS); ok {
			fsys = s.Crash(rand.New(rand.NewPCG(1, 1)))
		}
		got, err := durable.ReadFile(fsys, name, 1<<20)
		if err != nil || got[0] != 0 || got[durable.Block] != 1 || got[2*durable.Block] != 2 {
			t.Errorf("ReadFile: %v, or not what was written", err)
		}
	})
}

func TestMkdirAll(t *testing.T) {
	both(t, func(t *testing.T, fsys durable.FS, dir string) {
		for range 2 {
			if err := durable.MkdirAll(fsys, filepath.Join(dir, "x/y/z"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if names, err := fsys.List(filepath.Join(dir, "x/y")); err != nil || len(names) != 1 {
			t.Errorf("List = %v, %v, want [z]", names, err)
		}
	})
}

func TestLock(t *testing.T) {
	both(t, func(t *testing.T, fsys durable.FS, dir string) {
		name := filepath.Join(dir, "LOCK")
		check := func(want bool) {
			t.Helper()
			if got, err := fsys.Locked(name); got != want || err != nil {
				t.Errorf("Locked = %v, %v, want %v", got, err, want)
			}
		}
		check(false)
		l, err := fsys.Lock(name)
		if err != nil {
			t.Fatal(err)
		}
		check(true)
		if _, err := fsys.Lock(name); !errors.Is(err, durable.ErrLocked) {
			t.Errorf("second Lock = %v, want ErrLocked", err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		check(false)
		if l, err = fsys.Lock(name); err != nil {
			t.Fatalf("Lock after Close: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestLockFileReplaced: whoever removes the file, or puts another in its place, makes no room for a second process.
func TestLockFileReplaced(t *testing.T) {
	name := filepath.Join(t.TempDir(), "LOCK")
	l, err := durable.OS.Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if _, err := durable.OS.Lock(name); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("Lock of another file of that name = %v, want ErrLocked", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = durable.OS.Lock(name); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// A reader that asks for the lock must not make a writer give up.
func TestLockIsPatientWithReaders(t *testing.T) {
	name := filepath.Join(t.TempDir(), "LOCK")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	asked := make(chan error, 1)
	go func() {
		l, err := durable.OS.Lock(name)
		if err == nil {
			err = l.Close()
		}
		asked <- err
	}()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-asked; err != nil {
		t.Errorf("Lock beside a reader = %v, want nil", err)
	}
}

// TestWriteFileFaults breaks each operation of WriteFile, before and after it
// took effect, and then takes the power away.
func TestWriteFileFaults(t *testing.T) {
	for _, op := range []faultfs.Op{
		faultfs.Remove, faultfs.Create, faultfs.Write, faultfs.Sync, faultfs.Rename, faultfs.SyncDir,
	} {
		for _, after := range []bool{false, true} {
			for seed := range uint64(20) {
				s := faultfs.New()
				if err := durable.WriteFile(s, "/f", []byte("old"), 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Create("/f.tmp", 0o600); err != nil { // a leftover to remove
					t.Fatal(err)
				}
				s.Inject(func(o faultfs.Op, _ string) faultfs.Fault {
					if o == op {
						return faultfs.Fault{Err: syscall.EIO, After: after}
					}
					return faultfs.Fault{}
				})
				err := durable.WriteFile(s, "/f", []byte("new"), 0o600)
				if !errors.Is(err, syscall.EIO) {
					t.Fatalf("%s, after %v: WriteFile = %v, want EIO", op, after, err)
				}
				got, rerr := durable.ReadFile(s.Crash(rand.New(rand.NewPCG(seed, 1))), "/f", 10)
				if rerr != nil || string(got) != "old" && string(got) != "new" {
					t.Fatalf("%s, after %v: the file is %q, %v, want old or new", op, after, got, rerr)
				}
			}
		}
	}
}

func TestWriteFileIsDurable(t *testing.T) {
	for seed := range uint64(50) {
		s := faultfs.New()
		for _, content := range []string{"old", "new"} {
			if err := durable.WriteFile(s, "/f", []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, err := durable.ReadFile(s.Crash(rand.New(rand.NewPCG(seed, 1))), "/f", 10)
		if err != nil || string(got) != "new" {
			t.Fatalf("after a crash the file is %q, %v, want new", got, err)
		}
	}
}

// TestProtect: what is protected cannot be written by accident, and can be
// replaced and removed once it is not any more. Whether the immutable flag
// holds, too, depends on the file system and on who runs the test.
func TestProtect(t *testing.T) {
	for _, immutable := range []bool{false, true} {
		name := filepath.Join(t.TempDir(), "file")
		if err := durable.WriteFile(durable.OS, name, []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := durable.OS.Protect(name, immutable); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != 0o444 {
			t.Errorf("protected: mode %v, %v, want 0444", info.Mode(), err)
		}
		if immutable && os.Remove(name) != nil {
			if err := durable.WriteFile(durable.OS, name, []byte("other"), 0o600); err == nil {
				t.Error("an immutable file was replaced")
			}
		}
		if err := durable.OS.Unprotect(name); err != nil {
			t.Fatal(err)
		}
		if err := durable.WriteFile(durable.OS, name, []byte("other"), 0o600); err != nil {
			t.Errorf("replace what is not protected any more: %v", err)
		}
		if err := durable.OS.Remove(name); err != nil {
			t.Error(err)
		}
		if err := durable.OS.Unprotect(name); err != nil {
			t.Errorf("Unprotect of what is not there = %v, want nil", err)
		}
	}
}
