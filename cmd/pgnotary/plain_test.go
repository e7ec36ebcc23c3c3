package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/query"
)

// TestPlainFilesOnly holds that no command waits for what somebody puts into a data directory in the place of a
// file or directory: opening a FIFO waits for who writes to it.
func TestPlainFilesOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	l, err := ledger.Open(ledger.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	emit := func(n int) {
		t.Helper()
		last := int64(0)
		for range n {
			if last, err = l.Emit(&event.Leaf{Kind: event.KindQuery, Session: 1, Seq: 1, Who: &event.Who{User: "alice"}}, frame('Q', "SELECT 1\x00")); err != nil {
				t.Fatal(err)
			}
		}
		for l.Want(last); l.Durable() <= last; {
			time.Sleep(time.Millisecond)
		}
	}
	emit(600)
	if err := l.Rotate(); err != nil {
		t.Fatal(err)
	}
	emit(600)
	if err := l.SealNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	log, err := query.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Index(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"witnessed", "held", "succession"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && path != dir {
			names = append(names, path)
		}
		return err
	})
	if err != nil || len(names) < 10 {
		t.Fatalf("files %q: %v", names, err)
	}
	for i, name := range names {
		rel, _ := filepath.Rel(dir, name)
		if err := os.Rename(name, name+"~"); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(name, 0o600); err != nil {
			t.Fatal(err)
		}
		for what, do := range map[string]func(){
			"verify": func() {
				if code, out, errs := command(t, "verify", "--data", dir); code != 1 {
					t.Errorf("verify with a FIFO as %s = %d, want 1\n%s%s", rel, code, out, errs)
				}
			},
			"search": func() { command(t, "search", "--data", dir, "--user", "bob") },
			"show":   func() { command(t, "show", "--data", dir, "3") },
			"prove":  func() { command(t, "prove", "--data", dir, "3", "-o", filepath.Join(t.TempDir(), fmt.Sprint(i))) },
		} {
			inTime(t, what+" with a FIFO as "+rel, do)
		}
		inTime(t, "a start with a FIFO as "+rel, func() {
			if l, err := ledger.Open(ledger.Config{Dir: dir}); err == nil {
				_ = l.Close()
			}
		})
		if err := errors.Join(os.RemoveAll(name), os.Rename(name+"~", name)); err != nil {
			t.Fatal(err)
		}
	}
}

// inTime runs a function that must not wait for anything that does not come.
func inTime(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Errorf("%s: it hangs", what)
	}
}

// TestOversizeIsAFinding: what verify cannot take because of what somebody put there, is not in order (1), and not
// something to try again later (2).
func TestOversizeIsAFinding(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	l, err := ledger.Open(ledger.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"succession", "witnessed", "checkpoint", "log.json"} {
		own := filepath.Join(t.TempDir(), "own")
		if err := errors.Join(os.CopyFS(own, os.DirFS(dir)), os.WriteFile(filepath.Join(own, name), make([]byte, 2<<20), 0o600)); err != nil {
			t.Fatal(err)
		}
		if code, out, errs := command(t, "verify", "--data", own); code != 1 {
			t.Errorf("verify with a %s of 2 MiB = %d, want 1\n%s%s", name, code, out, errs)
		}
	}
}
