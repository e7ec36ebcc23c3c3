package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgraw"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// TestDiskFull lets the log's disk run full under load. Nothing unrecorded may reach the server
// (before-forward) or its client (before-reply), clients are told why, the process ends with an
// error, and with more space it goes on.
func TestDiskFull(t *testing.T) {
	s := pgtest.Server(t)
	for _, mode := range []string{"before-forward", "before-reply", "async"} {
		t.Run(mode, func(t *testing.T) {
			table := "full_" + strings.ReplaceAll(mode, "-", "_")
			if _, err := s.Psql(t.Context(), "postgres", "CREATE TABLE "+table+" (id bigint PRIMARY KEY)"); err != nil {
				t.Fatal(err)
			}
			disk := smallDisk(t, "20m")
			n := startIn(t, filepath.Join(disk, "data"), s.Addr(), "--durability", mode)
			acked, refusal := fill(t, n.addr, table)
			if code := pgraw.Field(refusal, 'C'); code != "53100" || pgraw.Field(refusal, 'V') != "FATAL" || pgraw.Field(refusal, 'H') == "" {
				t.Errorf("refusal: %q, want FATAL 53100 with a hint", refusal)
			}
			select {
			case <-n.done:
				if code := n.cmd.ProcessState.ExitCode(); code != 2 {
					t.Errorf("pgnotary ended with %v, want exit code 2", n.cmd.ProcessState)
				}
			case <-time.After(patience):
				t.Error("pgnotary still runs")
				n.kill(t)
			}
			if text := n.stderr(); !strings.Contains(text, "level=ERROR") || !strings.Contains(text, "no space left on device") {
				t.Errorf("standard error does not say what happened:\n%s", text)
			}
			if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=200m"); err != nil {
				t.Fatal(err)
			}
			n.launch(t)
			if c, err := pgraw.Login(n.addr, "postgres", "postgres", ""); err != nil {
				t.Errorf("after more space: %v", err)
			} else if _, err := c.Query("SELECT 'goes on'"); err != nil {
				t.Errorf("after more space: %v", err)
			} else {
				c.Close()
			}
			all := n.finish(t)
			find(t, all, "goes on")
			checkRows(t, s, mode, table, all, acked)
		})
	}
}

// smallDisk mounts a file system in memory that has so little space.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mount a small file system (this test needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill commits rows with padded statements until the connection ends. It returns the ids that
// were acknowledged and the last ErrorResponse.
func fill(t *testing.T, addr, table string) (acked map[int64]bool, refusal []byte) {
	t.Helper()
	c, err := pgraw.Login(addr, "postgres", "postgres", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Conn.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	acked = map[int64]bool{}
	padding := strings.Repeat("padding ", 10000)
	for id := int64(1); ; id++ {
		if err := c.Send(query(fmt.Sprintf("INSERT INTO %s VALUES (%d) -- %s", table, id, padding))); err != nil {
			t.Logf("send: %v", err)
		}
		ms, err := c.Until('Z')
		for _, m := range ms {
			if m.Type == 'E' {
				refusal = m.Body
			}
		}
		if err != nil {
			return acked, refusal
		}
		if refusal != nil {
			t.Fatalf("row %d: %s", id, pgraw.Field(refusal, 'M'))
		}
		acked[id] = true
	}
}

// checkRows compares a table with the records of its inserts.
func checkRows(t *testing.T, s *pgserver.Server, mode, table string, all []record, acked map[int64]bool) {
	t.Helper()
	out, err := s.Psql(t.Context(), "postgres", "SELECT id FROM "+table)
	if err != nil {
		t.Fatal(err)
	}
	recorded := map[int64]bool{}
	prefix := "INSERT INTO " + table + " VALUES ("
	for _, r := range statements(all) {
		if rest, ok := strings.CutPrefix(r.Statement, prefix); ok {
			text, _, _ := strings.Cut(rest, ")")
			id, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			recorded[id] = true
		}
	}
	rows, lost := 0, 0
	for line := range strings.Lines(out) {
		id, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		rows++
		if recorded[id] {
			continue
		}
		lost++
		if mode == "before-forward" || mode == "before-reply" && acked[id] {
			t.Errorf("row %d (acknowledged: %v) has no record", id, acked[id])
		}
	}
	t.Logf("%s: %d rows, %d acknowledged, %d recorded, %d rows without a record", mode, rows, len(acked), len(recorded), lost)
	if rows == 0 {
		t.Error("no row was written")
	}
}

// TestStartRefused checks that a log that is in use, or cannot be made, is said so at start.
func TestStartRefused(t *testing.T) {
	s := pgtest.Server(t)
	n := start(t, s.Addr())
	for _, tt := range []struct {
		name, data, want string
	}{
		{"in use", n.data, "use"},
		{"a file", func() string {
			name := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(name, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			return name
		}(), "not a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, code := runProgram(t, "serve", "--listen", pgtest.FreeAddr(t), "--upstream", s.Addr(), "--data", tt.data, "--http", pgtest.FreeAddr(t))
			if code != 2 || !strings.Contains(out, tt.want) || strings.Contains(out, "goroutine") {
				t.Errorf("serve exited %d with\n%s\nwant 2 and %q", code, out, tt.want)
			}
		})
	}
}
