package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
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

// An action is one thing that a server says it ran, or that was recorded.
type action struct {
	kind   string // query, execute, call
	text   string // for a call the function's OID
	values string // parameters as the server prints them
	// unknown: the record cannot name the text, which SQL made (PREPARE, DECLARE), or the value of
	// a binary parameter, whose type nobody told.
	unknownText, unknownValues bool
}

func (a action) equal(b action) bool {
	return a.kind == b.kind && (a.text == b.text || a.unknownText || b.unknownText) &&
		(a.values == b.values || a.unknownValues || b.unknownValues)
}

func (a action) String() string { return fmt.Sprintf("%s %.200q %.200q", a.kind, a.text, a.values) }

// seen is what a server says it ran, by session.
type seen map[string][]action

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
		if a, ok := actionOf(l.Message, l.Detail); ok {
			all[l.Session] = append(all[l.Session], a)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// actionOf reads a message of the server's log.
func actionOf(message, detail string) (action, bool) {
	if text, ok := strings.CutPrefix(message, "statement: "); ok {
		return action{kind: "query", text: text}, true
	}
	if text, ok := strings.CutPrefix(message, "received replication command: "); ok {
		return action{kind: "query", text: text}, true
	}
	if text, ok := strings.CutPrefix(message, "fastpath function call: "); ok {
		_, oid, _ := strings.Cut(text, "(OID ")
		return action{kind: "call", text: strings.TrimSuffix(oid, ")")}, true
	}
	if rest, ok := strings.CutPrefix(message, "execute "); ok {
		// "execute <unnamed>: SELECT …", "execute fetch from name/portal: SELECT …"
		_, text, _ := strings.Cut(rest, ": ")
		_, values, _ := strings.Cut(detail, "arameters: ") // "Parameters" since 16
		return action{kind: "execute", text: text, values: values}, true
	}
	return action{}, false
}

// recordedAction says what a record claims to have run.
func recordedAction(r record) action {
	switch r.Kind {
	case "query":
		return action{kind: "query", text: r.Statement}
	case "function_call":
		return action{kind: "call", text: fmt.Sprint(r.Function.OID)}
	}
	a := action{kind: "execute", text: r.Statement, unknownText: r.Statement == ""}
	values := make([]string, len(r.Params))
	for i, p := range r.Params {
		if p.Value == nil {
			values[i] = fmt.Sprintf("$%d = NULL", i+1)
			continue
		}
		values[i] = fmt.Sprintf("$%d = '%s'", i+1, strings.ReplaceAll(*p.Value, "'", "''"))
		a.unknownValues = a.unknownValues || p.Type == "" && p.Format == "binary"
	}
	a.values = strings.Join(values, ", ")
	return a
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
		// In another encoding the server logs another text than it was sent.
		if d.name != "parameter status" && d.name != "text that is not UTF-8" {
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
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A lane is a recorded session.
type lane struct {
	all  []action // whatever may have run
	done []action // what has run for certain
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
		a := recordedAction(r)
		l.all = append(l.all, a)
		// The server does not log empty statements, nor what fails in its parser.
		if o := r.Outcome; o != nil && o.Error == nil && (o.Tag != "" || a.kind == "call") {
			l.done = append(l.done, a)
		}
	}
	return order
}

// compareSessions finds for each session of the server a recorded one of its own that has all
// of its actions, and for each recorded session one of the server that has all it claims to have
// done. There is no name that both know a session by. If both can be had, then also at once
// (Mendelsohn and Dulmage), so each is looked for by itself.
func compareSessions(t *testing.T, server seen, all []record) {
	t.Helper()
	order := lanes(all)
	sessions := slices.Collect(maps.Values(server))
	total := 0
	fits := make([][]bool, len(sessions))
	for i, actions := range sessions {
		total += len(actions)
		fits[i] = make([]bool, len(order))
		for j, l := range order {
			fits[i][j] = len(missingFrom(l.all, actions)) == 0 && len(missingFrom(actions, l.done)) == 0
		}
	}
	for _, i := range unmatched(len(sessions), len(order), func(i, j int) bool { return fits[i][j] }) {
		closest := sessions[i]
		for _, l := range order {
			if m := missingFrom(l.all, sessions[i]); len(m) < len(closest) {
				closest = m
			}
		}
		t.Errorf("a session of the server with %d actions has no recorded equal; the closest one lacks %v; all: %.2000v", len(sessions[i]), closest, sessions[i])
	}
	var claims []int // those that claim to have done something
	for j, l := range order {
		if len(l.done) > 0 {
			claims = append(claims, j)
		}
	}
	for _, k := range unmatched(len(claims), len(sessions), func(k, i int) bool { return fits[i][claims[k]] }) {
		t.Errorf("a recorded session was not seen by the server: %v", order[claims[k]].done)
	}
	t.Logf("the server saw %d actions in %d sessions", total, len(server))
	if total < 1000 {
		t.Error("too few for the comparison to be worth something")
	}
}

// unmatched pairs each of n with one of m that fits, each of m at most once, and
// returns those of n for which that is impossible.
func unmatched(n, m int, fits func(i, j int) bool) (alone []int) {
	owner := make([]int, m)
	for j := range owner {
		owner[j] = -1
	}
	// take finds a partner for i, asking others to look for another one.
	var take func(i int, asked []bool) bool
	take = func(i int, asked []bool) bool {
		for j := range m {
			if !fits(i, j) || asked[j] {
				continue
			}
			asked[j] = true
			if owner[j] < 0 || take(owner[j], asked) {
				owner[j] = i
				return true
			}
		}
		return false
	}
	for i := range n {
		if !take(i, make([]bool, m)) {
			alone = append(alone, i)
		}
	}
	return alone
}

// missingFrom returns the actions that are not in all, in the same order.
func missingFrom(all, actions []action) []action {
	var missing []action
	i := 0
	for _, a := range actions {
		j := i
		for j < len(all) && !all[j].equal(a) {
			j++
		}
		if j == len(all) {
			missing = append(missing, a)
			continue
		}
		i = j + 1
	}
	return missing
}
