package e2e

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgraw"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// auditedServer starts a server that logs every statement by itself, and has what replication needs.
// bin is the directory of its programs, "" for the usual one.
func auditedServer(t *testing.T, bin string) *pgserver.Server {
	t.Helper()
	return pgtest.Start(t, pgserver.Options{Bin: bin, Settings: map[string]string{
		"log_statement": "all", "log_destination": "csvlog", "logging_collector": "on", "log_directory": "log", "log_filename": "server",
		"log_parameter_max_length": "-1", "log_min_messages": "log", "TimeZone": "UTC", "log_replication_commands": "on",
		"log_rotation_age": "0", "log_rotation_size": "0", "wal_level": "logical", "max_prepared_transactions": "10",
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

// marks numbers the marks that serverSaw leaves.
var marks atomic.Int64

// serverSaw reads a server's log up to now. Another process writes it, so a statement run now marks its end.
func serverSaw(t *testing.T, s *pgserver.Server) seen {
	t.Helper()
	mark := fmt.Sprintf("SELECT 'end of the log %d'", marks.Add(1))
	c, err := pgraw.Login(s.Addr(), "postgres", "postgres", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Query(mark); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(s.DataDir, "log", "server.csv")
	var text []byte
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if text, err = os.ReadFile(name); err == nil && bytes.Contains(text, []byte(mark)) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server does not write its log: %v", err)
		}
	}
	text = text[:bytes.LastIndexByte(text, '\n')+1]
	const session, severity, message, detail = 5, 11, 13, 14
	all := seen{}
	for r := csv.NewReader(bytes.NewReader(text)); ; {
		l, err := r.Read()
		if err == io.EOF {
			return all
		}
		if errors.Is(err, csv.ErrQuote) || errors.Is(err, csv.ErrBareQuote) {
			return all // behind the mark, while it is being written
		}
		if err != nil || len(l) <= detail {
			t.Fatalf("server log: %v", err)
		}
		if l[severity] != "LOG" {
			continue
		}
		if a, ok := actionOf(l[message], l[detail]); ok && !strings.Contains(a.text, "SELECT 'end of the log") {
			all[l[session]] = append(all[l[session]], a)
		}
	}
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

// An oracle is a server that logs by itself, behind a tap, behind pgnotary.
type oracle struct {
	server *pgserver.Server
	tap    *tap
	notary *notary
	direct seen // what was not sent through pgnotary
	major  int
}

// startOracle prepares a server for the dialogues and puts a tap and pgnotary in front of it. What
// before sends, which may be nil, does not pass them.
func startOracle(t *testing.T, bin string, before func(s *pgserver.Server), args ...string) *oracle {
	t.Helper()
	o := &oracle{server: auditedServer(t, bin)}
	if _, err := o.server.Psql(t.Context(), "postgres", dialogueSchema); err != nil {
		t.Fatal(err)
	}
	if before != nil {
		before(o.server)
	}
	o.major = majorOf(t, o.server.Addr())
	o.direct = serverSaw(t, o.server)
	o.tap = startTap(t, o.server.Addr())
	o.notary = start(t, o.tap.addr, args...)
	return o
}

// compare ends pgnotary and holds its log against what the server and the wire tell: whatever the server saw is
// recorded, with its parameters and in its order; whatever is recorded as run was seen by the server; each message
// on the server's connections is recorded, and no other. It returns the number of the server's actions.
func (o *oracle) compare(t *testing.T) int {
	t.Helper()
	saw := serverSaw(t, o.server)
	o.tap.finish(t)
	o.notary.stop(t)
	o.notary.launch(t) // with a checkpoint over all of it
	leaves := o.notary.leaves(t)
	binds := o.notary.search(t, "--kind", "bind")
	all := o.notary.finish(t)
	for id := range o.direct {
		delete(saw, id)
	}
	total := compareSessions(t, saw, all)
	onWire, counts := o.tap.decode(t)
	cancels := len(onWire)
	onWire = slices.DeleteFunc(onWire, func(s *stream) bool { return s.frontend == "x" })
	if cancels -= len(onWire); cancels != len(ofKind(all, "cancel")) {
		t.Errorf("%d cancel requests on the wire, %d recorded", cancels, len(ofKind(all, "cancel")))
	}
	delete(counts[0], 'x')
	streams, inLog := recordedStreams(t, leaves, append(all, binds...))
	for _, letter := range []byte(compareStreams(t, onWire, streams)) {
		inLog[0][letter]--
	}
	compareCounts(t, counts, inLog)
	t.Logf("messages by client:\n%s", byClient(streams))
	return total
}

// TestServerOracle runs every client there is.
func TestServerOracle(t *testing.T) {
	t.Parallel()
	o := startOracle(t, "", nil)
	for _, client := range []struct {
		name string
		run  func(t *testing.T, o *oracle)
	}{{"tools", oracleTools}, {"replication", oracleReplication}, {"drivers", oracleDrivers}, {"dialogues", oracleDialogues}, {"pgx", oraclePgx}} {
		t.Run(client.name, func(t *testing.T) { client.run(t, o) })
	}
	if total := o.compare(t); total < 1000 {
		t.Errorf("the server saw %d actions, too few for the comparison to be worth something", total)
	}
}

func oracleTools(t *testing.T, o *oracle) {
	s, url := o.server, o.notary.url("postgres")
	tool(t, s, "SELECT 'a''b';\nBEGIN; INSERT INTO missing VALUES (1); COMMIT;\nSELECT 1\\; SELECT 2;\nSELECT 'ü' \\gdesc\n", "psql", "-Xq", "-d", url)
	base := []string{"-h", "127.0.0.1", "-p", port(o.notary.addr), "-U", "postgres"}
	tool(t, s, "", "pgbench", slices.Concat([]string{"-i", "-q"}, base, []string{"postgres"})...)
	pipeline := filepath.Join(t.TempDir(), "pipeline.sql")
	if err := os.WriteFile(pipeline, []byte(pipelineScript), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"simple", "extended", "prepared"} {
		tool(t, s, "", "pgbench", slices.Concat([]string{"-n", "-M", mode, "-c", "3", "-t", "30"}, base, []string{"postgres"})...)
		if mode != "simple" {
			tool(t, s, "", "pgbench", slices.Concat([]string{"-n", "-M", mode, "-c", "3", "-t", "20", "-f", pipeline}, base, []string{"postgres"})...)
		}
	}
	dump := filepath.Join(t.TempDir(), "dump")
	tool(t, s, "", "pg_dump", "-Fd", "-j", "2", "-f", dump, "-d", url)
	tool(t, s, "CREATE DATABASE restored", "psql", "-Xq", "-d", url)
	tool(t, s, "", "pg_restore", "-j", "2", "-d", o.notary.url("restored"), dump)
}

func oracleDrivers(t *testing.T, o *oracle) {
	for _, name := range slices.Sorted(maps.Keys(drivers())) {
		runDriver(t, o.notary, name, "postgres")
	}
}

// differentText is true of dialogues in another encoding, where the server logs another text than it was sent.
func differentText(d dialogue) bool {
	return d.name == "parameter status" || d.name == "text that is not UTF-8"
}

func oracleDialogues(t *testing.T, o *oracle) {
	for _, d := range dialogues(o.major) {
		if !differentText(d) {
			hold(t, o.notary.addr, d, deliveries()[2])
		}
	}
}

func oraclePgx(t *testing.T, o *oracle) {
	n := o.notary
	c := connect(t, n.url("postgres")+"&application_name=pgx")
	for i := range 50 {
		if _, err := c.Exec(t.Context(), "SELECT $1::int, $2::text, $3::bytea, $4::bool, $5::float8, $6::int8[], $7::uuid, $8::numeric",
			i, fmt.Sprintf("it's %d", i), []byte{0, byte(i)}, i%2 == 0, float64(i)/4, []int64{int64(i), 1}, [16]byte{15: byte(i)}, strconv.Itoa(i)+".50"); err != nil {
			t.Fatal(err)
		}
	}
	for _, run := range []func(t *testing.T, c *pgx.Conn){pgxBatch, pgxCopy, pgxRowLimit, pgxListen, pgxCancel, pgxSimple, pgxLargeObject, pgxLarge} {
		run(t, c)
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
func compareSessions(t *testing.T, server seen, all []record) int {
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
	return total
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
