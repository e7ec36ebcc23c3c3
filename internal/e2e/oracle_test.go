package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// auditedServer starts a server that logs every statement by itself, as JSON.
func auditedServer(t *testing.T) *pgserver.Server {
	t.Helper()
	return pgtest.Start(t, pgserver.Options{Settings: map[string]string{
		"log_statement": "all", "log_destination": "jsonlog", "logging_collector": "on", "log_directory": "log", "log_filename": "server",
		"log_parameter_max_length": "-1", "log_min_messages": "log", "TimeZone": "UTC", "log_replication_commands": "on",
	}})
}

// seen is what a server says it ran, by session, each statement in one line: the
// protocol's kind, the text, and the parameters as the server prints them.
type seen map[string][]string

// serverSaw reads a server's JSON log.
func serverSaw(t *testing.T, s *pgserver.Server) seen {
	t.Helper()
	f, err := os.Open(filepath.Join(s.DataDir, "log", "server.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := seen{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var l struct {
			Session  string `json:"session_id"`
			Severity string `json:"error_severity"`
			Message  string
			Detail   string
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatalf("server log: %v", err)
		}
		if l.Severity != "LOG" {
			continue
		}
		if text, ok := strings.CutPrefix(l.Message, "statement: "); ok {
			all[l.Session] = append(all[l.Session], "query: "+text)
		} else if text, ok := strings.CutPrefix(l.Message, "fastpath function call: "); ok {
			_, oid, _ := strings.Cut(text, "(OID ")
			all[l.Session] = append(all[l.Session], "function call: "+strings.TrimSuffix(oid, ")"))
		} else if rest, ok := strings.CutPrefix(l.Message, "execute "); ok {
			// "execute <unnamed>: SELECT …", "execute fetch from name/portal: SELECT …"
			_, text, _ := strings.Cut(rest, ": ")
			_, values, _ := strings.Cut(l.Detail, "arameters: ") // Parameters since 16
			all[l.Session] = append(all[l.Session], strings.TrimSuffix("execute: "+text+" -- "+values, " -- "))
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// recordedAs prints a statement as serverSaw does.
func recordedAs(r record) string {
	if r.Kind == "query" {
		return "query: " + r.Statement
	}
	if r.Kind == "function_call" {
		oid := regexp.MustCompile(`\d+`).FindString(r.Statement)
		return "function call: " + oid
	}
	s := "execute: " + r.Statement
	for i, p := range r.Params {
		sep := map[bool]string{true: " -- ", false: ", "}[i == 0]
		if p.Value == nil {
			s += fmt.Sprintf("%s$%d = NULL", sep, i+1)
		} else {
			s += fmt.Sprintf("%s$%d = '%s'", sep, i+1, strings.ReplaceAll(*p.Value, "'", "''"))
		}
	}
	return s
}

// TestServerOracle runs every client there is against a server that logs by itself, and
// compares: whatever the server saw is recorded, with its parameters and in its order, and
// whatever is recorded as run was seen by the server.
func TestServerOracle(t *testing.T) {
	s := auditedServer(t)
	if _, err := s.Psql(t.Context(), "postgres", dialogueSchema); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // the server's log is written by a process of its own
	direct := serverSaw(t, s)
	n := start(t, s.Addr())
	for _, client := range []func(t *testing.T, n *notary, s *pgserver.Server){oracleTools, oracleDrivers, oracleDialogues, oraclePgx} {
		client(t, n, s)
	}
	all := n.finish(t)
	time.Sleep(300 * time.Millisecond)
	saw := serverSaw(t, s)
	for id := range direct {
		delete(saw, id)
	}
	compareSessions(t, saw, all)
}

func oracleTools(t *testing.T, n *notary, s *pgserver.Server) {
	url := n.url("postgres")
	tool(t, s, "SELECT 'a''b';\nBEGIN; INSERT INTO missing VALUES (1); COMMIT;\nSELECT 1\\; SELECT 2;\nSELECT 'ü' \\gdesc\n", "psql", "-Xq", "-d", url)
	base := []string{"-h", "127.0.0.1", "-p", port(n.addr), "-U", "postgres"}
	tool(t, s, "", "pgbench", slices.Concat([]string{"-i", "-q"}, base, []string{"postgres"})...)
	for _, mode := range []string{"simple", "extended", "prepared"} {
		tool(t, s, "", "pgbench", slices.Concat([]string{"-n", "-M", mode, "-c", "3", "-t", "40"}, base, []string{"postgres"})...)
	}
	tool(t, s, "", "pg_dump", "-f", os.DevNull, "-d", url)
}

func oracleDrivers(t *testing.T, n *notary, _ *pgserver.Server) {
	for _, name := range []string{"psycopg", "node", "jdbc"} {
		runDriver(t, n, name, "postgres")
	}
}

func oracleDialogues(t *testing.T, n *notary, _ *pgserver.Server) {
	for _, d := range dialogues() {
		if !strings.Contains(d.name, "SJIS") && !strings.Contains(d.name, "UTF-8") { // the server converts texts
			hold(t, n.addr, d, deliveries()[2])
		}
	}
}

func oraclePgx(t *testing.T, n *notary, _ *pgserver.Server) {
	c := connect(t, n.url("postgres"))
	for i := range 50 {
		if _, err := c.Exec(t.Context(), "SELECT $1::int, $2::text, $3::bytea, $4::bool, $5::float8, $6::int8[], $7::uuid, $8::numeric",
			i, fmt.Sprintf("it's %d", i), []byte{0, byte(i)}, i%2 == 0, float64(i)/4, []int64{int64(i), 1}, [16]byte{15: byte(i)}, strconv.Itoa(i)+".50"); err != nil {
			t.Fatal(err)
		}
	}
}

// A lane is a recorded session.
type lane struct {
	all  []string // whatever may have run
	done []string // what has run for certain
	used bool
}

// lanes sorts records by session.
func lanes(all []record) []*lane {
	byID := map[string]*lane{}
	var order []*lane
	for _, r := range statements(all) {
		if r.Outcome != nil && r.Outcome.Skipped {
			continue
		}
		l := byID[r.Session]
		if l == nil {
			l = &lane{}
			byID[r.Session] = l
			order = append(order, l)
		}
		line := recordedAs(r)
		l.all = append(l.all, line)
		// The server does not log empty statements, nor what fails in its parser.
		if o := r.Outcome; o != nil && o.Error == nil && o.Tag != "" {
			l.done = append(l.done, line)
		}
	}
	return order
}

// compareSessions finds for each session of the server the recorded one. There is no name that
// both know a session by, so the statements themselves decide.
func compareSessions(t *testing.T, server seen, all []record) {
	t.Helper()
	order := lanes(all)
	total := 0
	for id, lines := range server {
		total += len(lines)
		var found *lane
		missing := lines
		for _, l := range order {
			if l.used {
				continue
			}
			m := missingFrom(l.all, lines)
			if len(m) == 0 && len(missingFrom(lines, l.done)) == 0 {
				found = l
				break
			}
			if len(m) < len(missing) {
				missing = m
			}
		}
		if found == nil {
			t.Errorf("server session %s with %d statements has no recorded equal; the closest one lacks %.2000q", id, len(lines), missing)
			continue
		}
		found.used = true
	}
	for _, l := range order {
		if !l.used && len(l.done) > 0 {
			t.Errorf("a recorded session was not seen by the server: %.2000q", l.done)
		}
	}
	t.Logf("the server saw %d statements in %d sessions", total, len(server))
	if total < 1000 {
		t.Error("too few statements for the comparison to be worth something")
	}
}

// missingFrom returns the lines that are not in all, in the same order.
func missingFrom(all, lines []string) []string {
	var missing []string
	i := 0
	for _, line := range lines {
		j := i
		for j < len(all) && all[j] != line {
			j++
		}
		if j == len(all) {
			missing = append(missing, line)
			continue
		}
		i = j + 1
	}
	return missing
}
