package query

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"
)

// checkRead holds that what was written as JSON can be read, and is written
// again byte for byte.
func checkRead(t testing.TB, written []byte) {
	t.Helper()
	var s Statement
	if err := json.Unmarshal(written, &s); err != nil {
		t.Errorf("cannot read %s: %v", written, err)
	} else if got := s.AppendJSON(nil); string(got) != string(written) {
		t.Errorf("read and written again:\n got %s\nwant %s", got, written)
	}
}

func TestReadErrors(t *testing.T) {
	const head = `{"index":1,"time":"2026-09-21T14:13:20.003000000Z","kind":"query"`
	for _, tt := range []struct{ name, json string }{
		{"no object", `[1]`},
		{"no time", `{"index":1}`},
		{"time", `{"index":1,"time":"9999-09-21T14:13:20Z"}`},
		{"session", head + `,"session":"xyz"}`},
		{"type", head + `,"params":[{"type":"no such","format":"text","value":"1","raw":""}]}`},
		{"format", head + `,"params":[{"format":"fine","value":"1","raw":""}]}`},
		{"raw", head + `,"params":[{"format":"text","value":"1","raw":"%"}]}`},
		{"protocol", head + `,"protocol":"3"}`},
		{"facts", head + `,"facts":["a"]}`},
		{"fact", head + `,"facts":{"a":1}}`},
		{"sha256", head + `,"messages":1,"bytes":2,"sha256":"x"}`},
	} {
		var s Statement
		if err := json.Unmarshal([]byte(tt.json), &s); err == nil {
			t.Errorf("%s: %s is read as %s", tt.name, tt.json, s.AppendJSON(nil))
		}
	}
}

// FuzzRead holds that no bytes panic, and that what is read once is written
// in a form that stays.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"index":42,"time":"2026-09-21T14:13:20.003000000Z","session":"9f00000000000000","user":"alice","kind":"execute",` +
		`"statement":"SELECT $1","params":[{"type":"int4","format":"binary","value":"42","raw":"AAAAKg=="},{"format":"7","value":null}],` +
		`"protocol":"3.2","parameters":{"a":"b","a":"c"},"of":0,"facts":{"reason":"x"},"messages":1,"bytes":2,"sha256":"00","raw":"",` +
		`"notification":{"pid":1,"channel":"c","payload":""},"error":{"sqlstate":"42P01","message":"m"},` +
		`"outcome":{"index":43,"tags":["A","B"],"rows":1,"bytes":57,"duration_us":180,"tx":"I","committed":false,"suspended":true}}`))
	f.Add([]byte(`{"index":1,"time":"2026-09-21T14:13:20Z","kind":"function_call","function":{"oid":952},"outcome":{"index":2,"tag":"x"},"class":"READ"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Statement
		if json.Unmarshal(b, &s) == nil {
			checkRead(t, s.AppendJSON(nil))
		}
	})
}

// TestParseFilterTimes holds what times mean: none stands for another one, and
// what nothing can pass is an error, not an empty answer.
func TestParseFilterTimes(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	const form = time.RFC3339Nano
	for _, tt := range []struct{ query, since, until, err string }{
		{query: "since=2026-01-30&until=2026-01-30", since: "2026-01-30T00:00:00Z", until: "2026-01-30T23:59:59.999999999Z"},
		{query: "since=2026-01-30T10:00:00%2B02:00", since: "2026-01-30T08:00:00Z"},
		{query: "since=15m&until=5m", since: "2026-01-31T11:45:00Z", until: "2026-01-31T11:55:00Z"},
		{query: "since=1000000h", since: "1912-01-03T20:00:00Z"},
		{query: "since=30d&until=1d", since: "2026-01-01T12:00:00Z", until: "2026-01-30T12:00:00Z"},
		{query: "since=1970-01-01", since: "1970-01-01T00:00:00Z"},
		{query: "until=2261-12-31", until: "2261-12-31T23:59:59.999999999Z"},
		{query: "since=5m&until=15m", err: "which is earlier"},
		{query: "since=2026-01-31&until=2026-01-30", err: "which is earlier"},
		{query: "until=0001-01-01T00:00:00Z", err: "not between 1970 and 2261"},
		{query: "since=1969-12-31", err: "not between 1970 and 2261"},
		{query: "since=2262-01-01", err: "not between 1970 and 2261"},
		{query: "since=9999-12-31T23:59:59Z", err: "not between 1970 and 2261"},
		{query: "since=2026-13-01", err: "nor a date such as 2026-01-31, nor"},
		{query: "since=-5m", err: "in the future"},
		{query: "from=10&to=9"}, // as the last page of a search
		{query: "from=10&to=8", err: "nothing is from 10 on and up to 8"},
	} {
		words, err := url.ParseQuery(tt.query)
		if err != nil {
			t.Fatal(err)
		}
		f, err := ParseFilter(words, now)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v, want %q", tt.query, err, tt.err)
			}
			continue
		}
		show := func(at time.Time) string {
			if at.IsZero() {
				return ""
			}
			return at.UTC().Format(form)
		}
		if err != nil || show(f.Since) != tt.since || show(f.Until) != tt.until {
			t.Errorf("%s: since %s, until %s, %v, want %s, %s", tt.query, show(f.Since), show(f.Until), err, tt.since, tt.until)
		}
	}
}
