package sink

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/query"
)

// A source is a log that a test writes.
type source struct {
	t   *testing.T
	dir string
	l   *ledger.Ledger
	log *query.Log
}

func newSource(t *testing.T) *source {
	t.Helper()
	s := &source{t: t, dir: t.TempDir()}
	var err error
	if s.l, err = ledger.Open(ledger.Config{Dir: s.dir, Origin: "example.com/log", CheckpointEvery: 20 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.l.Close() })
	if s.log, err = query.Open(s.dir); err != nil {
		t.Fatal(err)
	}
	return s
}

// statement writes a query that has ended and returns its index.
func (s *source) statement(text string) int64 {
	s.t.Helper()
	b := binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(len(text)+5))
	i, err := s.l.Emit(&event.Leaf{
		Session: 1, Seq: 1, Kind: event.KindQuery, Who: &event.Who{User: "alice", Database: "app", Client: "10.0.0.1:5"},
	}, append(append(b, text...), 0))
	if err == nil {
		_, err = s.l.Emit(&event.Leaf{Session: 1, Seq: 2, Kind: event.KindOutcome, Of: event.Ref(i), Tags: []string{"SELECT 1"}, Tx: 'I', Committed: 1}, nil)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return i
}

// sink returns a sink of the log's queries. Its cursor stays from one to the next.
func (s *source) sink(target Target, change ...func(*Config)) *Sink {
	s.t.Helper()
	c := Config{
		Name: "test", Log: s.log, Target: target, Format: "jsonl", Filter: query.Filter{Kinds: []string{"query"}}, Hold: time.Hour,
		Cursor: filepath.Join(s.dir, "cursor.json"), Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&c)
	}
	k, err := New(c)
	if err != nil {
		s.t.Fatal(err)
	}
	return k
}

// run runs a sink until until returns true, and then to its end.
func run(t *testing.T, s *Sink, until func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	deadline := time.Now().Add(10 * time.Minute)
	for !until() {
		if time.Now().After(deadline) {
			cancel()
			t.Fatalf("the sink does not get there: %+v", s.Numbers())
		}
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
}

// A receiver is an HTTP server that keeps what it got.
type receiver struct {
	mu     sync.Mutex
	lines  []string
	bodies int
	answer func(body []byte) int // status; nil for 200 always
	check  func(r *http.Request, body []byte)
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.check != nil {
		r.check(req, body)
	}
	code := 200
	if r.answer != nil {
		code = r.answer(body)
	}
	if code == 200 {
		r.bodies++
		for s := bufio.NewScanner(bytes.NewReader(body)); s.Scan(); {
			r.lines = append(r.lines, s.Text())
		}
	}
	w.WriteHeader(code)
}

// indexes returns the indexes of what was received, in order of arrival.
func (r *receiver) indexes(t *testing.T) (all []int64) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, line := range r.lines {
		var o struct {
			Origin string
			Index  int64
		}
		if err := json.Unmarshal([]byte(line), &o); err != nil || o.Origin != "example.com/log" {
			t.Fatalf("received %.200s: %v", line, err)
		}
		all = append(all, o.Index)
	}
	return all
}

// sent returns whether n records were sent by s: the receiver has them, and s
// knows it. An end between the two would have them sent again.
func sent(s *Sink, n uint64) func() bool {
	return func() bool { return s.Numbers().Sent >= n }
}

// TestWebhook sends what is there and what comes, with a fault in between, a
// receiver that is away, and an end and a new beginning of the sink.
func TestWebhook(t *testing.T) {
	s := newSource(t)
	var want []int64
	for i := range 700 { // more than one batch
		want = append(want, s.statement(fmt.Sprint("SELECT ", i)))
	}
	secret := []byte("shared")
	asked := 0
	r := &receiver{
		answer: func([]byte) int {
			if asked++; asked%2 == 1 {
				return 503
			}
			return 200
		},
		check: func(req *http.Request, body []byte) {
			mac := hmac.New(sha256.New, secret)
			mac.Write(body)
			if got := req.Header.Get("Pgnotary-Signature"); got != "sha256="+hex.EncodeToString(mac.Sum(nil)) {
				t.Errorf("signature %q", got)
			}
			if req.Header.Get("Authorization") != "Bearer x" || req.Header.Get("Pgnotary-Origin") != "example.com/log" {
				t.Errorf("headers %v", req.Header)
			}
		},
	}
	srv := httptest.NewServer(r)
	defer srv.Close()
	target := func() Target {
		return NewWebhook(HTTPConfig{URL: srv.URL, Token: "x", Secret: secret, Origin: "example.com/log"})
	}
	k := s.sink(target())
	run(t, k, sent(k, 700))
	if n := k.Numbers(); n.Sent != 700 || n.Failures == 0 {
		t.Errorf("numbers %+v", n)
	}
	for i := range 5 {
		want = append(want, s.statement(fmt.Sprint("SELECT more ", i)))
	}
	k = s.sink(target())
	run(t, k, sent(k, 5))
	if got := r.indexes(t); !slices.Equal(got, want) {
		t.Errorf("received %d records, want %d, in order and once", len(got), len(want))
	}
}

// TestLateEnd holds that a slow statement is sent before its end and after it.
func TestLateEnd(t *testing.T) {
	s := newSource(t)
	i, err := s.l.Emit(&event.Leaf{Session: 2, Seq: 1, Kind: event.KindQuery, Who: &event.Who{User: "bob"}}, []byte("Q\x00\x00\x00\x06x\x00"))
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{}
	srv := httptest.NewServer(r)
	defer srv.Close()
	soon := func(c *Config) { c.Hold = 10 * time.Millisecond }
	k := s.sink(NewWebhook(HTTPConfig{URL: srv.URL}), soon)
	run(t, k, sent(k, 1))
	if _, err := s.l.Emit(&event.Leaf{Session: 2, Seq: 2, Kind: event.KindOutcome, Of: event.Ref(i), Tx: 'I', Committed: 1}, nil); err != nil {
		t.Fatal(err)
	}
	k = s.sink(NewWebhook(HTTPConfig{URL: srv.URL}), soon)
	run(t, k, sent(k, 1))
	if got := r.indexes(t); got[0] != i || got[1] != i || strings.Contains(r.lines[0], "outcome") || !strings.Contains(r.lines[1], `"committed":true`) {
		t.Errorf("received %q", r.lines)
	}
}

// TestLargeRecords holds that what is too large, for the sink or for the
// receiver, is sent shortened and stops nothing.
func TestLargeRecords(t *testing.T) {
	s := newSource(t)
	r := &receiver{answer: func(body []byte) int {
		for line := range bytes.Lines(body) {
			switch {
			case len(line) > 300_000:
				return 413
			case bytes.Contains(line, []byte("poison")) && !bytes.Contains(line, []byte("truncated")):
				return 400
			}
		}
		return 200
	}}
	srv := httptest.NewServer(r)
	defer srv.Close()
	var want []int64
	for _, text := range []string{"SELECT 1", "SELECT '" + strings.Repeat("é", 400_000) + "'", "poison", "SELECT '" + strings.Repeat("y", 350_000) + "'", "SELECT 2"} {
		want = append(want, s.statement(text))
	}
	k := s.sink(NewWebhook(HTTPConfig{URL: srv.URL}), func(c *Config) { c.MaxRecord = 500_000 })
	run(t, k, sent(k, 5))
	if got := r.indexes(t); !slices.Equal(got, want) {
		t.Errorf("received %v, want %v", got, want)
	}
	for i, short := range []bool{false, true, true, true, false} {
		if got := strings.Contains(r.lines[i], `"truncated":"true"`); got != short || !strings.Contains(r.lines[i], `"user":"alice"`) {
			t.Errorf("record %d: %.300s", i, r.lines[i])
		}
	}
	if n := k.Numbers(); n.Shortened != 3 {
		t.Errorf("%d were shortened, want 3", n.Shortened)
	}
}

// TestLargeMemory holds that a large statement is shortened without making the whole record,
// and that nothing of it stays.
func TestLargeMemory(t *testing.T) {
	s := newSource(t)
	large := strings.Repeat("x", 16<<20)
	for _, format := range []string{"jsonl", "csv", "ocsf"} {
		k := s.sink(NewWebhook(HTTPConfig{}), func(c *Config) { c.Format = format })
		for _, st := range []query.Statement{
			{Kind: event.KindQuery, HasText: true, Text: large},
			{Kind: event.KindExecute, HasText: true, Text: "SELECT $1", Params: []query.Param{{OID: 25, Raw: []byte(large)}}},
		} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r, err := k.record(&st)
			runtime.ReadMemStats(&after)
			if err != nil || !bytes.Contains(r.Body, []byte("truncated")) {
				t.Fatalf("%s: %.200s, %v", format, r.Body, err)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
				t.Errorf("%s: a statement of %d bytes took %d to shorten", format, len(large), n)
			}
			if unsafe.StringData(r.short.Text) == unsafe.StringData(st.Text) {
				t.Errorf("%s: the shortened text keeps the whole one", format)
			}
		}
	}
}

// TestContentType holds what a webhook says its body is.
func TestContentType(t *testing.T) {
	for format, want := range map[string]string{"jsonl": "application/x-ndjson", "ocsf": "application/x-ndjson", "csv": "text/csv; charset=utf-8; header=absent"} {
		r := &receiver{check: func(req *http.Request, _ []byte) {
			if got := req.Header.Get("Content-Type"); got != want {
				t.Errorf("%s is sent as %q, want %q", format, got, want)
			}
		}}
		srv := httptest.NewServer(r)
		if err := NewWebhook(HTTPConfig{URL: srv.URL, Format: format}).Send(t.Context(), []Record{{Body: []byte("x")}}); err != nil {
			t.Error(err)
		}
		srv.Close()
	}
}

func TestCursor(t *testing.T) {
	s := newSource(t)
	s.statement("SELECT 1")
	if err := s.l.Close(); err != nil { // with a checkpoint over all of it
		t.Fatal(err)
	}
	c := Config{Log: s.log, Format: "jsonl", Cursor: filepath.Join(s.dir, "c"), Logger: slog.New(slog.DiscardHandler)}
	for _, tt := range []struct{ content, want string }{
		{`{"origin":"example.com/log","next":2}`, ""},
		{`{"origin":"example.com/other","next":2}`, "is of the log example.com/other"},
		{`{"origin":"example.com/log","next":-1}`, "is damaged"},
		{`{"origin":"example.com/log","next":1000000}`, "and the log has"},
		{``, "is damaged"},
	} {
		if err := os.WriteFile(c.Cursor, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := New(c)
		switch {
		case tt.want == "" && (err != nil || k.Numbers().Next != 2):
			t.Errorf("%s: %v", tt.content, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %s", tt.content, err, tt.want)
		}
	}
	if err := os.Remove(c.Cursor); err != nil {
		t.Fatal(err)
	}
	c.FromNow = true
	if k, err := New(c); err != nil || k.Numbers().Lag != 0 {
		t.Errorf("a sink from now on begins at %+v, %v", k.Numbers(), err)
	}
}

// TestOTLP holds the request to the JSON form of OTLP, as far as it is used;
// interop has a receiver that decodes it.
func TestOTLP(t *testing.T) {
	o := &otlp{HTTPConfig: HTTPConfig{Origin: "example.com/log"}, version: "v1"}
	b, err := o.request([]Record{{Index: 7, Time: 5, Kind: "query", Body: []byte(`{"a":1}`)}, {Index: 8, Kind: "violation", Failed: true, Body: []byte("x")}}, time.Unix(0, 9))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"pgnotary"}},` +
		`{"key":"service.version","value":{"stringValue":"v1"}},{"key":"pgnotary.origin","value":{"stringValue":"example.com/log"}}]},` +
		`"scopeLogs":[{"scope":{"name":"pgnotary","version":"v1"},"logRecords":[` +
		`{"timeUnixNano":"5","observedTimeUnixNano":"9","severityNumber":9,"severityText":"INFO","eventName":"pgnotary.query","body":{"stringValue":"{\"a\":1}"},` +
		`"attributes":[{"key":"db.system.name","value":{"stringValue":"postgresql"}},{"key":"pgnotary.kind","value":{"stringValue":"query"}},{"key":"pgnotary.index","value":{"intValue":"7"}}]},` +
		`{"timeUnixNano":"0","observedTimeUnixNano":"9","severityNumber":17,"severityText":"ERROR","eventName":"pgnotary.violation","body":{"stringValue":"x"},` +
		`"attributes":[{"key":"db.system.name","value":{"stringValue":"postgresql"}},{"key":"pgnotary.kind","value":{"stringValue":"violation"}},{"key":"pgnotary.index","value":{"intValue":"8"}}]}]}]}]}`
	if string(b) != want {
		t.Errorf("request\n%s\nwant\n%s", b, want)
	}
}

func TestOTLPPartialSuccess(t *testing.T) {
	answer := ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) }))
	defer srv.Close()
	o := NewOTLP(HTTPConfig{URL: srv.URL}, "v1")
	for _, tt := range []struct {
		answer   string
		rejected bool
	}{{"{}", false}, {`{"partialSuccess":{"errorMessage":"hm"}}`, false}, {`{"partialSuccess":{"rejectedLogRecords":"1"}}`, true}, {`{"partialSuccess":{"rejectedLogRecords":2}}`, true}} {
		answer = tt.answer
		err := o.Send(t.Context(), []Record{{Body: []byte("x")}})
		if _, ok := errors.AsType[*RejectedError](err); ok != tt.rejected || !ok && err != nil {
			t.Errorf("answer %s: %v", tt.answer, err)
		}
	}
}
