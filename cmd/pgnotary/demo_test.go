package main

import (
	"os"
	"strings"
	"testing"
)

// TestDemo runs the demonstration to its end and looks for what it shows and
// for what it leaves behind.
func TestDemo(t *testing.T) {
	tmp := t.TempDir()
	// PostgreSQL runs as another user, who must be able to reach its directory.
	for dir := tmp; strings.HasPrefix(dir, os.TempDir()+"/"); dir = dir[:strings.LastIndex(dir, "/")] {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("TMPDIR", tmp)
	code, out, errs := pgnotary(t, "demo", "--once", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
	if code != 0 || errs != "" {
		t.Fatalf("demo ended with code %d:\n%s%s", code, out, errs)
	}
	recorded := between(t, out, "== What was recorded", "== Verifying")
	for _, want := range []string{
		"CREATE ROLE alice LOGIN; CREATE TABLE accounts",
		"CREATE SCHEMA AUTHORIZATION alice", // where pgbench -i can make its tables
		`copy "accounts"`,
		"SELECT owner, balance::float8 FROM accounts WHERE id = $1  [$1=1]",
		"SELECT owner, balance::float8 FROM accounts WHERE id = $1  [$1=2]",
		"UPDATE 1 undone",
		"[$1=1000000, $2='alice']",
		"ERROR 42501",
		"DELETE FROM accounts",
		"disconnect",
	} {
		if !strings.Contains(recorded, want) {
			t.Errorf("what was recorded does not show %q", want)
		}
	}
	if !strings.Contains(out, "\n    ok: pgnotary/") {
		t.Error("the log was not verified")
	}
	if t.Failed() {
		t.Log(out)
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("the demonstration left %v behind, %v", left, err)
	}
}

func TestDemoWithoutPostgres(t *testing.T) {
	t.Setenv("PGNOTARY_PG_BIN", t.TempDir())
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	code, _, errs := pgnotary(t, "demo", "--once")
	if code != 2 || !strings.HasPrefix(errs, "pgnotary: ") || strings.Count(errs, "\n") > 2 {
		t.Errorf("demo without PostgreSQL: code %d, %q, want 2 and one line", code, errs)
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("the demonstration left %v behind, %v", left, err)
	}
}

func between(t *testing.T, s, from, to string) string {
	t.Helper()
	_, s, ok := strings.Cut(s, from)
	if !ok {
		t.Fatalf("no %q in the output", from)
	}
	s, _, _ = strings.Cut(s, to)
	return s
}
