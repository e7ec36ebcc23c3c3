package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgraw"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// running waits until a server runs a statement of this text. The text is not in the question, which may be recorded.
func running(t *testing.T, addr, text string) {
	t.Helper()
	c, err := pgraw.Login(addr, "postgres", "postgres", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	half := len(text) / 2
	ask := "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query = '" + text[:half] + "' || '" + text[half:] + "'"
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		answer, err := c.Query(ask)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(answer, func(m pgraw.Message) bool { return m.Type == 'D' }) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server does not run %s", text)
		}
	}
}

// cancelWithPsql interrupts a statement as Ctrl-C does.
func cancelWithPsql(t *testing.T, n *notary, s *pgserver.Server) {
	t.Helper()
	psql, err := s.Tool("psql")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd := exec.CommandContext(t.Context(), psql, "-XAtqd", n.url("postgres"), "-c", "SELECT pg_sleep(615)")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	running(t, n.addr, "SELECT pg_sleep(615)")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || !strings.Contains(out.String(), "canceling statement due to user request") {
		t.Errorf("psql after an interrupt: %v, %q", err, out.String())
	}
}

// TestCancel cancels by hand: the connection of the request may only end when the server has
// acted, or the request hits the next statement.
func TestCancel(t *testing.T) {
	s := pgtest.Server(t)
	n := start(t, s.Addr())
	c, err := pgraw.Login(n.addr, "postgres", "postgres", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cancel := func(key []byte) {
		t.Helper()
		r, err := pgraw.Dial(n.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Conn.Close()
		if err := r.Send(pgraw.Cancel(c.Pid, key)); err != nil {
			t.Fatal(err)
		}
		if m, err := r.Receive(); err == nil {
			t.Errorf("a cancel was answered: %v", m)
		}
	}
	for i := range 20 {
		sleep := fmt.Sprintf("SELECT pg_sleep(630), %d", i)
		if err := c.Send(query(sleep)); err != nil {
			t.Fatal(err)
		}
		running(t, s.Addr(), sleep)
		if i == 0 {
			cancel([]byte{9, 9, 9, 9}) // a wrong key cancels nothing
		}
		cancel(c.Key)
		ms, err := c.Until('Z')
		if err != nil {
			t.Fatal(err)
		}
		if got := masked(ms[len(ms)-2], true); got != "E ERROR 57014" {
			t.Fatalf("round %d: cancelled statement ended with %s", i, got)
		}
		if _, err := c.Query("SELECT 1"); err != nil {
			t.Fatalf("round %d: the next statement: %v", i, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	all := n.finish(t)
	if got := len(ofKind(all, "cancel")); got != 20 {
		t.Errorf("%d cancel entries, want 20", got)
	}
	if got := len(ofKind(all, "violation")); got != 1 {
		t.Errorf("%d violations, want the cancel with a wrong key", got)
	}
}
