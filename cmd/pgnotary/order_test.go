package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/ledger"
)

// TestOrderOfWitnessedLog: a command does not write a log that has witnesses,
// who might know a newer state of it; its writer finds the order.
func TestOrderOfWitnessedLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	l, err := ledger.Open(ledger.Config{Dir: dir, Origin: "test/order", CheckpointEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	signed, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "witnessed"), signed, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	o := &ledger.Order{Kind: "hold", Case: "trial", Hold: &ledger.Hold{}}
	if a, err := order(t.Context(), dir, o); err == nil || !strings.Contains(err.Error(), "witnesses") {
		t.Errorf("order = %+v, %v, want it left to the writer", a, err)
	}
	if now, err := os.ReadFile(filepath.Join(dir, "checkpoint")); err != nil || !bytes.Equal(now, signed) {
		t.Errorf("the log grew: %s, %v", now, err)
	}
	if names, err := filepath.Glob(filepath.Join(dir, "request", "*.json")); err != nil || len(names) != 1 {
		t.Errorf("orders %q, %v, want one", names, err)
	}
	// Without them it does it at once.
	if err := os.Remove(filepath.Join(dir, "witnessed")); err != nil {
		t.Fatal(err)
	}
	o.Case = "another"
	if a, err := order(t.Context(), dir, o); err != nil || !a.OK {
		t.Errorf("order without witnesses = %+v, %v", a, err)
	}
}

// TestServeAsRoot: root does not go on with a log that belongs to somebody else, who could not any more
// then; in a directory of somebody else's it may begin one, and is who carries out orders there.
func TestServeAsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("for root only")
	}
	const nobody = 65534
	dir := filepath.Join(t.TempDir(), "data")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	if err := refuseForeign(dir); err != nil {
		t.Errorf("a directory without a log: %v", err)
	}
	l, err := ledger.Open(ledger.Config{Dir: dir, Origin: "test/root", CheckpointEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := refuseForeign(dir); err != nil {
		t.Errorf("root's log in a directory of somebody else's: %v", err)
	}
	if got, err := asOwner(dir); got != dir || err != nil {
		t.Errorf("asOwner = %q, %v", got, err)
	}
	if err := os.Chown(filepath.Join(dir, "log.json"), nobody, nobody); err != nil {
		t.Fatal(err)
	}
	code, out, errs := pgnotary(t, "serve", "--data", dir, "--listen", "127.0.0.1:0", "--http", "off")
	if code != 2 || out != "" || !strings.Contains(errs, "belongs to user 65534") {
		t.Errorf("serve = %d, %q, %q", code, out, errs)
	}
}

// TestOrderAsRoot: what root orders of a log that belongs to somebody else is
// carried out, by its writer and without one, and all files stay that user's.
func TestOrderAsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		if dir, err := asOwner("."); dir != "." || err != nil {
			t.Errorf("asOwner of nobody special = %q, %v", dir, err)
		}
		return
	}
	const nobody = 65534
	dir := filepath.Join(t.TempDir(), "data")
	l, err := ledger.Open(ledger.Config{Dir: dir, Origin: "test/order", CheckpointEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	own := func(f func(name string, st *syscall.Stat_t) error) {
		t.Helper()
		if err := filepath.Walk(dir, func(name string, info os.FileInfo, err error) error {
			if err != nil {
				return err
			}
			return f(name, info.Sys().(*syscall.Stat_t))
		}); err != nil {
			t.Fatal(err)
		}
	}
	own(func(name string, _ *syscall.Stat_t) error { return os.Chown(name, nobody, nobody) })
	for _, args := range [][]string{{"hold", "add", "case"}, {"keygen", "--next"}, {"hold", "release", "case"}} {
		if args[0] == "keygen" {
			args = append(args, dir)
		} else {
			args = append(args, "--data", dir)
		}
		if code, out, errs := pgnotary(t, args...); code != 0 {
			t.Errorf("%q = %d, %q, %q", args, code, out, errs)
		}
	}
	own(func(name string, st *syscall.Stat_t) error {
		if st.Uid != nobody {
			t.Errorf("%s belongs to user %d", name, st.Uid)
		}
		return nil
	})
}
