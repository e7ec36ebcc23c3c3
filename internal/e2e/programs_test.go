package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

func TestPsql(t *testing.T) {
	s := pgtest.Server(t)
	createDatabase(t, s, "e2e_psql")
	n := start(t, s.Addr())
	const script = `
CREATE TABLE t (a int PRIMARY KEY, b text);
INSERT INTO t VALUES (1, 'eins'), (2, 'zwei');
SELECT 'INSERT INTO t VALUES (' || g || ', ''gexec'')' FROM generate_series(10, 12) g \gexec
BEGIN;
INSERT INTO t VALUES (99, 'rolled back');
ROLLBACK;
SELECT 1/0;
SELECT 1\; SELECT 2\; SELECT 3;
COPY t FROM STDIN;
20	copied
21	copied too
\.
COPY t TO STDOUT;
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT broken;
INSERT INTO t VALUES (30, 'after the error');
COMMIT;
SELECT count(*) FROM t;
`
	out := tool(t, s, script, "psql", "-XAtq", "-d", n.url("e2e_psql"))
	if !strings.HasSuffix(out, "\n8\n") {
		t.Errorf("psql printed\n%s", out)
	}
	all := n.finish(t)
	for _, tt := range []struct {
		text, tag string
		rows      int64
		sqlstate  string
		committed any
	}{
		{"CREATE TABLE t", "CREATE TABLE", 0, "", true},
		{"VALUES (1, 'eins')", "INSERT 0 2", 0, "", true},
		{"VALUES (11, 'gexec')", "INSERT 0 1", 0, "", true},
		{"rolled back", "INSERT 0 1", 0, "", false},
		{"SELECT 1/0", "", 0, "22012", nil},
		{"COPY t FROM STDIN", "COPY 2", 0, "", true},
		{"COPY t TO STDOUT", "COPY 7", 0, "", true},
		{"SELECT broken", "", 0, "42703", nil},
		{"after the error", "INSERT 0 1", 0, "", true},
		{"SELECT count(*)", "SELECT 1", 1, "", true},
	} {
		r := find(t, all, tt.text)
		o := r.Outcome
		if o == nil {
			t.Errorf("no outcome: %v", r)
			continue
		}
		sqlstate := ""
		if o.Error != nil {
			sqlstate = o.Error.SQLState
		}
		if o.Tag != tt.tag || o.Rows != tt.rows || sqlstate != tt.sqlstate {
			t.Errorf("%v: want tag %q, %d rows, SQLSTATE %q", r, tt.tag, tt.rows, tt.sqlstate)
		}
		if tt.committed != nil && (o.Committed == nil || *o.Committed != tt.committed) {
			t.Errorf("%v: want committed %v", r, tt.committed)
		}
		if r.User != "postgres" || r.Database != "e2e_psql" || r.Application != "psql" || !strings.HasPrefix(r.Client, "127.0.0.1:") {
			t.Errorf("%v: user %q database %q application %q client %q", r, r.User, r.Database, r.Application, r.Client)
		}
	}
	multi := find(t, all, "SELECT 1; SELECT 2; SELECT 3")
	if multi.Outcome == nil || !slices.Equal(multi.Outcome.Tags, []string{"SELECT 1", "SELECT 1", "SELECT 1"}) {
		t.Errorf("several statements in a query: %v, %+v", multi, multi.Outcome)
	}
	if got := len(ofKind(all, "connect")); got != 1 {
		t.Errorf("%d connect entries, want 1", got)
	}
	if got := len(ofKind(all, "copy")); got == 0 {
		t.Error("no copy entry")
	}
}

const pipelineScript = `\set aid random(1, 100000)
\startpipeline
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
END;
\endpipeline
`

func TestPgbench(t *testing.T) {
	s := pgtest.Server(t)
	createDatabase(t, s, "e2e_pgbench")
	pipeline := filepath.Join(t.TempDir(), "pipeline.sql")
	if err := os.WriteFile(pipeline, []byte(pipelineScript), 0o644); err != nil {
		t.Fatal(err)
	}
	n := start(t, s.Addr())
	pgbench := func(args ...string) string {
		t.Helper()
		base := []string{"-h", "127.0.0.1", "-p", port(n.addr), "-U", "postgres", "e2e_pgbench"}
		return tool(t, s, "", "pgbench", slices.Concat(args, base)...)
	}
	pgbench("-i", "-q", "-s", "1")
	const clients, each = 4, 50
	want := map[string]int{}
	for _, mode := range []string{"simple", "extended", "prepared"} {
		out := pgbench("-n", "-M", mode, "-c", fmt.Sprint(clients), "-t", fmt.Sprint(each), "-b", "tpcb-like")
		if !strings.Contains(out, fmt.Sprintf("processed: %d/%d", clients*each, clients*each)) {
			t.Errorf("%s: %s", mode, out)
		}
		want["UPDATE pgbench_tellers"] += clients * each
		want["UPDATE pgbench_accounts"] += clients * each
		want["INSERT INTO pgbench_history"] += clients * each
		if mode == "simple" {
			continue
		}
		out = pgbench("-n", "-M", mode, "-c", fmt.Sprint(clients), "-t", fmt.Sprint(each), "-f", pipeline)
		if !strings.Contains(out, fmt.Sprintf("processed: %d/%d", clients*each, clients*each)) {
			t.Errorf("%s pipeline: %s", mode, out)
		}
		want["UPDATE pgbench_accounts"] += clients * each
	}
	got := map[string]int{}
	for _, r := range statements(n.finish(t)) {
		for text := range want {
			if strings.HasPrefix(r.Statement, text) {
				got[text]++
				if r.Outcome == nil || r.Outcome.Tag == "" || r.Outcome.Committed == nil || !*r.Outcome.Committed {
					t.Fatalf("not a finished, committed statement: %v", r)
				}
				if r.Kind == "execute" && len(r.Params) == 0 {
					t.Fatalf("no parameters: %v", r)
				}
			}
		}
	}
	for text, n := range want {
		if got[text] != n {
			t.Errorf("%s: %d recorded, want %d", text, got[text], n)
		}
	}
}

func TestDumpRestore(t *testing.T) {
	s := pgtest.Server(t)
	createDatabase(t, s, "e2e_dump")
	createDatabase(t, s, "e2e_restored")
	const schema = `
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE parent (id bigint PRIMARY KEY, m mood, j jsonb, b bytea, n numeric, ts timestamptz, a text[]);
CREATE TABLE child (id serial PRIMARY KEY, parent bigint REFERENCES parent, t text);
CREATE INDEX ON child (parent);
INSERT INTO parent SELECT g, (ARRAY['sad','happy'])[1 + g % 2]::mood, jsonb_build_object('g', g, 'ü', E'line\nfeed'),
	decode(md5(g::text), 'hex'), g / 7.0, timestamptz '2026-01-01Z' + g * interval '1s', ARRAY['a', NULL, g::text] FROM generate_series(1, 5000) g;
INSERT INTO child (parent, t) SELECT g, repeat(chr(64 + g % 26), g % 300) FROM generate_series(1, 5000) g;
CREATE VIEW happy AS SELECT * FROM parent WHERE m = 'happy';
CREATE FUNCTION twice(i int) RETURNS int LANGUAGE sql AS 'SELECT 2 * i';
SELECT lo_from_bytea(0, decode(repeat('00ff', 50000), 'hex'));
`
	if _, err := s.Psql(t.Context(), "e2e_dump", schema); err != nil {
		t.Fatal(err)
	}
	n := start(t, s.Addr())
	dir := filepath.Join(t.TempDir(), "dump")
	tool(t, s, "", "pg_dump", "-Fd", "-j", "2", "-f", dir, "-d", n.url("e2e_dump"))
	tool(t, s, "", "pg_restore", "-j", "2", "-d", n.url("e2e_restored"), dir)
	// Newer versions of pg_dump write a random word into it.
	random := regexp.MustCompile(`(?m)^\\(un)?restrict .*$`)
	want := random.ReplaceAllString(tool(t, s, "", "pg_dump", "-d", s.URL("e2e_dump")), "")
	got := random.ReplaceAllString(tool(t, s, "", "pg_dump", "-d", s.URL("e2e_restored")), "")
	if got != want {
		t.Errorf("the restored database differs: %d bytes, want %d", len(got), len(want))
	}
	all := n.finish(t)
	for _, text := range []string{"COPY public.parent (id, m, j, b, n, ts, a) TO stdout", "COPY public.child (id, parent, t) FROM stdin", "CREATE VIEW public.happy"} {
		find(t, all, text)
	}
	if len(ofKind(all, "function_call")) == 0 {
		t.Error("no function_call entry, though a large object was restored")
	}
}
