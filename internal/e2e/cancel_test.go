package e2e

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgraw"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// cancelWithPsql interrupts a statement as Ctrl-C does.
func cancelWithPsql(t *testing.T, n *notary, s *pgserver.Server) {
	t.Helper()
	psql, err := s.Tool("psql")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd := exec.CommandContext(t.Context(), psql, "-XAtqd", n.url("postgres"), "-c", "SELECT pg_sleep(15)")
	cmd.Stdout, cmd.Stderr = &out, &out
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || !strings.Contains(out.String(), "canceling statement due to user request") {
		t.Errorf("psql after an interrupt: %v, %q", err, out.String())
	}
	if d := time.Since(begin); d > 20*time.Second {
		t.Errorf("the cancel took %v", d)
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
		if err := c.Send(query("SELECT pg_sleep(30)")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
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
