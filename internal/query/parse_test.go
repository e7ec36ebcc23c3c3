package query

import (
	"encoding/json"
	"testing"
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
