package export

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/query"
)

const origin = `example.com/"log"`

// statements has one of every kind, and what tends to break formats.
func statements() []*query.Statement {
	all := []*query.Statement{}
	for i, k := range []event.Kind{
		event.KindStart, event.KindConnect, event.KindAuth, event.KindQuery, event.KindParse, event.KindBind, event.KindExecute, event.KindCopy,
		event.KindFunctionCall, event.KindCancel, event.KindReplication, event.KindViolation, event.KindNotice, event.KindGap, event.KindPrune,
		event.KindHold, event.KindErase, event.KindRecover, event.KindConfig, event.KindHeartbeat, event.KindDisconnect, event.KindStop,
	} {
		s := &query.Statement{Index: int64(i), Time: 1_700_000_000_123_456_789 + int64(i), Kind: k}
		if k != event.KindStart && k != event.KindStop && k != event.KindDisconnect {
			s.Session, s.User, s.Database, s.Application, s.Client = 0xa11ce, "alice", "app", "=HYPERLINK(1)", "10.0.0.1:50123"
		}
		if k == event.KindDisconnect {
			s.Session = 0xa11ce
		}
		all = append(all, s)
	}
	text := func(s *query.Statement, text string, params ...query.Param) *query.Statement {
		s.HasText, s.Text, s.Params = true, text, params
		return s
	}
	text(all[3], "SELECT \"a\nb\", ',;' FROM public.users").Outcome = &query.Outcome{Index: 30, Tags: []string{"SELECT 1"}, Rows: 1, Bytes: 57, Micros: 1234567, Tx: 'I', Committed: 1}
	text(all[6], "UPDATE t SET a = $1, b = $2", query.Param{OID: 23, Format: 1, Raw: []byte{0, 0, 0, 42}}, query.Param{Null: true}).Outcome = &query.Outcome{
		Index: 31, Micros: 5, Committed: -1, Error: &query.ServerMessage{SQLState: "42501", Message: "-no", Severity: "ERROR"},
	}
	text(all[4], "")
	all[2].Facts = []event.Fact{{Key: "method", Val: "sasl"}, {Key: "mechanism", Val: "SCRAM-SHA-256"}, {Key: "result", Val: "failed"}}
	all[2].Error = &query.ServerMessage{SQLState: "28P01", Message: "no"}
	all[7].Copy, all[7].Facts = &query.Copy{Messages: 1, Bytes: 2}, []event.Fact{{Key: "direction", Val: "in"}}
	all[11].Facts = []event.Fact{{Key: "reason", Val: "bad"}}
	all[11].Client = "unix"
	return all
}

// records returns the records of all statements.
func records(t *testing.T, format string) []byte {
	t.Helper()
	f, err := NewFormat(format, origin, "v1")
	if err != nil {
		t.Fatal(err)
	}
	out := bytes.Clone(f.Header())
	for _, s := range statements() {
		if out, err = f.Append(out, s); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestLines(t *testing.T) {
	all := statements()
	for i, line := range strings.Split(strings.TrimSuffix(string(records(t, "jsonl")), "\n"), "\n") {
		want := `{"origin":"example.com/\"log\"",` + string(all[i].AppendJSON(nil)[1:])
		if line != want || !json.Valid([]byte(line)) {
			t.Errorf("line %d is %s, want %s", i, line, want)
		}
	}
}

func TestTable(t *testing.T) {
	rows, err := csv.NewReader(bytes.NewReader(records(t, "csv"))).ReadAll()
	all := statements()
	if err != nil || len(rows) != len(all)+1 {
		t.Fatalf("%d rows, %v, want %d", len(rows), err, len(all)+1)
	}
	get := func(row int, column string) string { return rows[row+1][slices.Index(rows[0], column)] }
	for i, s := range all {
		if get(i, "origin") != origin || get(i, "index") != fmt.Sprint(s.Index) || get(i, "kind") != string(s.Kind) {
			t.Errorf("row %d is %q", i, rows[i+1])
		}
	}
	for _, tt := range []struct {
		row          int
		column, want string
	}{
		{3, "statement", "SELECT \"a\nb\", ',;' FROM public.users"},
		{3, "class", "READ"},
		{3, "relations", "public.users"},
		{3, "duration_us", "1234567"},
		{3, "committed", "true"},
		{3, "outcome_index", "30"},
		{3, "application", "'=HYPERLINK(1)"},
		{6, "params", `["42",null]`},
		{6, "committed", "false"},
		{6, "message", "'-no"},
		{6, "sqlstate", "42501"},
		{7, "facts", "direction=in"},
		{0, "session", ""},
		{1, "session", "00000000000a11ce"},
	} {
		if got := get(tt.row, tt.column); got != tt.want {
			t.Errorf("row %d, %s = %q, want %q", tt.row, tt.column, got, tt.want)
		}
	}
}

// A rule is what schema 1.8.0 of OCSF asks of a class or object, as far as we
// use it: the attributes it has, of which some are required and of some one.
type rule struct {
	required []string
	known    map[string]string // attribute to the name of its object's rule, "" for a plain value
	one      []string
}

func ocsfRules() map[string]rule {
	plain := func(objects map[string]string, names ...string) map[string]string {
		m := maps.Clone(objects)
		if m == nil {
			m = make(map[string]string)
		}
		for _, n := range names {
			m[n] = ""
		}
		return m
	}
	base := func(objects map[string]string, names ...string) map[string]string {
		names = append(names, "activity_id", "activity_name", "category_uid", "class_uid", "type_uid", "time", "severity_id",
			"status_id", "status_code", "status_detail", "message", "unmapped")
		m := plain(objects, names...)
		m["metadata"] = "metadata"
		return m
	}
	always := []string{"activity_id", "category_uid", "class_uid", "type_uid", "time", "severity_id", "metadata"}
	with := func(more ...string) []string { return append(slices.Clone(always), more...) }
	return map[string]rule{
		"0": {required: with(), known: base(nil)},
		"6005": {
			required: with("actor", "src_endpoint"), one: []string{"database", "databucket", "table"},
			known: base(map[string]string{"actor": "actor", "src_endpoint": "endpoint", "database": "database", "table": "entity", "query_info": "query_info"}, "type_id"),
		},
		"3002": {
			required: with("user"), one: []string{"service", "dst_endpoint"},
			known: base(map[string]string{"user": "user", "src_endpoint": "endpoint", "session": "session", "service": "entity"},
				"auth_protocol", "auth_protocol_id", "is_remote"),
		},
		"metadata": {required: []string{"product", "version"}, known: plain(map[string]string{"product": "entity"}, "version", "uid", "log_name", "original_event_uid", "event_code")},
		"actor":    {one: []string{"user", "session", "app_name"}, known: plain(map[string]string{"user": "user", "session": "session"}, "app_name")},
		"user":     {one: []string{"account", "name", "uid"}, known: plain(nil, "name")},
		"session":  {known: plain(nil, "uid")},
		"endpoint": {one: []string{"ip", "uid", "name", "hostname"}, known: plain(nil, "ip", "port", "name")},
		"database": {required: []string{"type_id"}, one: []string{"name", "uid"}, known: plain(nil, "name", "type_id")},
		// query_info is an entity with a text.
		"query_info": {required: []string{"query_string"}, one: []string{"name", "uid"}, known: plain(nil, "uid", "query_string", "bytes")},
		"entity":     {one: []string{"name", "uid"}, known: plain(nil, "name", "uid", "vendor_name", "version")},
	}
}

// check holds an object of an event to its rule.
func check(t *testing.T, where, name string, object map[string]any) {
	t.Helper()
	r, ok := ocsfRules()[name]
	if !ok {
		t.Errorf("%s: no rule %s", where, name)
	}
	for _, a := range r.required {
		if _, ok := object[a]; !ok {
			t.Errorf("%s has no %s, which is required", where, a)
		}
	}
	if len(r.one) > 0 && !slices.ContainsFunc(r.one, func(a string) bool { _, ok := object[a]; return ok }) {
		t.Errorf("%s has none of %v", where, r.one)
	}
	for a, v := range object {
		sub, ok := r.known[a]
		if !ok {
			t.Errorf("%s has %s, which the schema does not have there", where, a)
		}
		if inner, isObject := v.(map[string]any); isObject && sub != "" {
			check(t, where+"."+a, sub, inner)
		} else if isObject != (a == "unmapped") {
			t.Errorf("%s.%s is %v", where, a, v)
		}
	}
}

func TestOCSF(t *testing.T) {
	all := statements()
	want := map[event.Kind]string{
		event.KindStart: "0 99", event.KindConnect: "6005 3", event.KindAuth: "3002 1", event.KindQuery: "6005 4", event.KindExecute: "6005 2",
		event.KindCopy: "6005 5", event.KindViolation: "0 99", event.KindDisconnect: "3002 2",
	}
	for i, line := range strings.Split(strings.TrimSuffix(string(records(t, "ocsf")), "\n"), "\n") {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		class, activity := e["class_uid"].(float64), e["activity_id"].(float64)
		check(t, string(all[i].Kind), fmt.Sprint(class), e)
		if e["type_uid"] != class*100+activity || e["category_uid"] != float64(int(class)/1000) {
			t.Errorf("%s: type %v, category %v", all[i].Kind, e["type_uid"], e["category_uid"])
		}
		if w := want[all[i].Kind]; w != "" && w != fmt.Sprint(class, activity) {
			t.Errorf("%s: class and activity %v %v, want %s", all[i].Kind, class, activity, w)
		}
		unmapped, _ := e["unmapped"].(map[string]any)
		if unmapped["origin"] != origin || unmapped["index"] != float64(all[i].Index) {
			t.Errorf("%s: %v", all[i].Kind, unmapped)
		}
		if all[i].Kind == event.KindDisconnect && e["user"].(map[string]any)["name"] != "alice" {
			t.Errorf("the end of a session does not say whose: %s", line)
		}
		if all[i].Kind == event.KindAuth && (e["status_id"] != 2.0 || e["auth_protocol"] != "SCRAM-SHA-256" || e["status_code"] != "28P01") {
			t.Errorf("failed login: %s", line)
		}
	}
}

// TestOCSFLogins holds what a login's result means.
func TestOCSFLogins(t *testing.T) {
	for result, want := range map[string]string{"ok": "1 1", "failed": "2 3", "refused": "2 3", "unfinished": "0 1"} {
		s := query.Statement{Kind: event.KindAuth, Session: 1, Facts: []event.Fact{{Key: "result", Val: result}}}
		line, err := new(ocsf).Append(nil, &s)
		if err != nil {
			t.Fatal(err)
		}
		var e struct {
			Status   int `json:"status_id"`
			Severity int `json:"severity_id"`
		}
		if err := json.Unmarshal(line, &e); err != nil || fmt.Sprint(e.Status, e.Severity) != want {
			t.Errorf("%s: status and severity %d %d, want %s (%v)", result, e.Status, e.Severity, want, err)
		}
	}
}

func TestUnknownFormat(t *testing.T) {
	if _, err := NewFormat("xml", origin, ""); err == nil {
		t.Error("NewFormat accepts xml")
	}
}

// TestInert holds that no text of a client begins like a formula.
func TestInert(t *testing.T) {
	for _, s := range []string{"=1", "+1", "-1", "@a", "\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠a"} {
		if got := inert(s); got != "'"+s {
			t.Errorf("inert(%q) = %q", s, got)
		}
	}
	for _, s := range []string{"", "SELECT -1", "1=1", "é", "\xff"} {
		if got := inert(s); got != s {
			t.Errorf("inert(%q) = %q", s, got)
		}
	}
}

// TestRecordAsCSV holds rows to those of encoding/csv, with each line end inside a
// field as it is.
func TestRecordAsCSV(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		piece := rapid.SampledFrom([]string{"", "a", `"`, ",", "\r", "\n", " ", "\t", "\u2003", `\.`, "\xff", "é"})
		fields := rapid.SliceOfN(rapid.Map(rapid.SliceOfN(piece, 0, 5), func(p []string) string { return strings.Join(p, "") }), 2, 5).Draw(t, "fields")
		var want bytes.Buffer
		w := csv.NewWriter(&want)
		if err := w.Write(fields); err != nil {
			t.Fatal(err)
		}
		w.Flush()
		if got := string(appendRecord([]byte("x"), fields)); got != "x"+strings.TrimSuffix(want.String(), "\n")+"\r\n" {
			t.Errorf("appendRecord(%q) = %q, want %q and CRLF behind x", fields, got, want.String())
		}
	})
}
