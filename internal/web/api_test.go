package web

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/access"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/query"
)

// A fixture is the API over a log that the test writes.
type fixture struct {
	t      *testing.T
	log    *ledger.Ledger
	config Config
	secret map[access.Role]string

	mu    sync.Mutex
	reads []Read
	fail  error // of Record
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	dir := t.TempDir()
	l, err := ledger.Open(ledger.Config{Dir: dir, Origin: "example.com/log", CheckpointEvery: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	view, err := query.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, log: l, secret: make(map[access.Role]string)}
	var file strings.Builder
	for _, role := range []access.Role{access.Operator, access.Auditor, access.Investigator} {
		secret, line, err := access.New(rand.Reader, role.String(), role)
		if err != nil {
			t.Fatal(err)
		}
		f.secret[role] = secret
		file.WriteString(line + "\n")
	}
	tokens, err := access.Parse([]byte(file.String()))
	if err != nil {
		t.Fatal(err)
	}
	f.config = testConfig(&fakeLog{size: 1})
	f.config.Entries = view
	f.config.Tokens = func() access.Tokens { return tokens }
	f.config.Record = func(_ context.Context, r Read) (int64, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.reads = append(f.reads, r)
		return 1 << 50, f.fail
	}
	f.config.Prove = func(_ context.Context, index int64, withValue bool) ([]byte, error) {
		return fmt.Appendf(nil, "proof of %d, %t", index, withValue), nil
	}
	return f
}

// took returns what was recorded since the last call.
func (f *fixture) took() []Read {
	f.mu.Lock()
	defer f.mu.Unlock()
	reads := f.reads
	f.reads = nil
	return reads
}

// statement writes a query of alice's and its end, and returns its index.
func (f *fixture) statement(text, sqlstate string) int64 {
	f.t.Helper()
	frame := func(letter byte, body string) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{letter}, uint32(len(body)+4)), body...)
	}
	i, err := f.log.Emit(&event.Leaf{
		Session: 0xa11ce, Seq: 1, Kind: event.KindQuery,
		Who: &event.Who{User: "alice", Database: "app", Client: "10.0.0.1:5"},
	}, frame('Q', text+"\x00"))
	if err != nil {
		f.t.Fatal(err)
	}
	end := event.Leaf{Session: 0xa11ce, Seq: 2, Kind: event.KindOutcome, Of: event.Ref(i), Tx: 'I', Committed: 1, Tags: []string{"SELECT 1"}}
	var value []byte
	if sqlstate != "" {
		end.Tags, end.SQLState, end.Committed = nil, sqlstate, -1
		value = frame('E', "SERROR\x00C"+sqlstate+"\x00Mmessage with a secret\x00\x00")
	}
	if _, err := f.log.Emit(&end, value); err != nil {
		f.t.Fatal(err)
	}
	return i
}

// settle waits until all that was written may be read.
func (f *fixture) settle() {
	f.t.Helper()
	for f.log.Backlog() > 0 {
		time.Sleep(time.Millisecond)
	}
	if err := f.config.Entries.CatchUp(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
}

// ask sends a request of this machine with a token.
func (f *fixture) ask(h http.Handler, target, secret string) *httptest.ResponseRecorder {
	f.t.Helper()
	r := httptest.NewRequest("GET", target, nil)
	r.RemoteAddr = "127.0.0.1:4711"
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestRoles(t *testing.T) {
	f := newFixture(t)
	i := f.statement("SELECT 'top secret'", "")
	f.settle()
	h := NewHandler(f.config)
	entry, proof := fmt.Sprintf("/api/v1/entry/%d", i), fmt.Sprintf("/api/v1/proof/%d", i)
	tests := []struct {
		target                          string
		nobody, operator, auditor, full int
	}{
		{"/api/v1/status", 401, 200, 200, 200},
		{"/api/v1/me", 401, 200, 200, 200},
		{"/api/v1/search", 401, 403, 200, 200},
		{"/api/v1/search?user=alice&sqlstate=42", 401, 403, 200, 200},
		{"/api/v1/search?text=secret", 401, 403, 403, 200},
		{"/api/v1/search?regex=s.cret", 401, 403, 403, 200},
		{"/api/v1/search?class=&class=READ", 401, 403, 403, 200},
		{"/api/v1/search?regex=(", 401, 403, 400, 400},
		{"/api/v1/search?usr=alice", 401, 403, 400, 400},
		{"/api/v1/search?kind=outcome", 401, 403, 400, 400},
		{"/api/v1/search?user=a&user=b", 401, 403, 400, 400},
		{"/api/v1/search?user=nobody;database=app", 401, 403, 400, 400}, // not without the user
		{"/api/v1/search?user=%zz", 401, 403, 400, 400},
		{"/api/v1/search?since=5m&until=15m", 401, 403, 400, 400},
		{"/api/v1/tail?user=%zz", 401, 403, 400, 400},
		{"/api/v1/tail?limit=1&from=0", 401, 403, 200, 200},
		{"/api/v1/tail?limit=1&from=0&text=x", 401, 403, 403, -1}, // it would wait
		{entry, 401, 403, 200, 200},
		{"/api/v1/entry/4711", 401, 403, 404, 404},
		{"/api/v1/entry/-1", 401, 403, 400, 400},
		{proof, 401, 403, 200, 200},
		{proof + "?value=true", 401, 403, 403, 200},
		{proof + "?value=perhaps", 401, 403, 400, 400},
		{proof + "?values=true", 401, 403, 400, 400},
		{entry + "?value=true", 401, 403, 400, 400},
		{"/api/v1/proof/4711", 401, 403, 404, 404},
		{"/api/v1/sessions", 401, 403, 200, 200},
		{"/api/v1/sessions?user=alice", 401, 403, 400, 400},
		{"/api/v1/serach", 404, 404, 404, 404},
	}
	for _, tt := range tests {
		for i, want := range []int{tt.nobody, tt.operator, tt.auditor, tt.full} {
			role := access.Role(i)
			if want < 0 {
				continue
			}
			h := NewHandler(f.config) // each with its own limits on requests
			w := f.ask(h, tt.target, f.secret[role])
			if w.Code != want {
				t.Errorf("GET %s as %s = %d %s, want %d", tt.target, role, w.Code, w.Body, want)
			}
			if want >= 400 && !strings.HasPrefix(w.Body.String(), `{"error":"`) {
				t.Errorf("GET %s as %s answers %s", tt.target, role, w.Body)
			}
			if role < access.Investigator && strings.Contains(w.Body.String(), "top secret") {
				t.Errorf("GET %s as %s shows a value: %s", tt.target, role, w.Body)
			}
		}
	}
	f.took()
	if w := f.ask(h, "/api/v1/search?user=alice", f.secret[access.Investigator]); !strings.Contains(w.Body.String(), `"statement":"SELECT 'top secret'"`) ||
		w.Header().Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("search as investigator = %s", w.Body)
	}
	want := Read{What: "search", Reader: "investigator", Role: access.Investigator, Client: "127.0.0.1:4711", Request: "/api/v1/search?user=alice"}
	if got := f.took(); len(got) != 1 || got[0] != want {
		t.Errorf("recorded %v, want %v", got, want)
	}
}

// TestNewestFirst asks page after page, as the page at / does.
func TestNewestFirst(t *testing.T) {
	f := newFixture(t)
	var want []int64
	for range 25 {
		want = append([]int64{f.statement("SELECT 1", "")}, want...)
	}
	f.settle()
	h := NewHandler(f.config)
	var got []int64
	for to, pages := int64(1<<40), 0; pages < 10; pages++ {
		w := f.ask(h, fmt.Sprintf("/api/v1/search?kind=query&order=newest&limit=10&to=%d", to), f.secret[access.Investigator])
		for line := range strings.Lines(w.Body.String()) {
			var s struct{ Index int64 }
			if err := json.Unmarshal([]byte(line), &s); err != nil {
				t.Fatal(err)
			}
			got, to = append(got, s.Index), s.Index-1
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("newest first: %v, want %v", got, want)
	}
	for _, order := range []string{"", "oldest", "newest&order=newest"} {
		if w := f.ask(h, "/api/v1/search?order="+order, f.secret[access.Investigator]); w.Code != 400 || len(f.took()) == 0 {
			t.Errorf("order=%s answers %d %s", order, w.Code, w.Body)
		}
	}
}

// TestSearchAll asks for what was recorded while the clock was set back, in both orders.
func TestSearchAll(t *testing.T) {
	f := newFixture(t)
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	emit := func(n int, kind event.Kind, back time.Duration) {
		t.Helper()
		for range n {
			if _, err := f.log.Emit(&event.Leaf{Kind: kind, Time: noon.Add(-back).UnixNano()}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	emit(10, event.KindHeartbeat, 0)
	emit(1, event.KindGap, time.Hour)
	for session, back := range map[uint64]time.Duration{7: time.Hour, 8: 90*time.Minute + time.Second} { // the latter's are earlier than asked for
		if _, err := f.log.Emit(&event.Leaf{Kind: event.KindNotice, Session: session, Seq: 1, Time: noon.Add(-back).UnixNano()}, nil); err != nil {
			t.Fatal(err)
		}
	}
	emit(100, event.KindHeartbeat, 2*time.Hour)
	f.settle()
	h := NewHandler(f.config)
	for _, order := range []string{"", "&order=newest"} {
		for all, want := range map[string]int{"": 0, "&all=false": 0, "&all=true": 1} {
			target := "/api/v1/search?since=2026-01-02T10:30:00Z&until=2026-01-02T11:30:00Z" + order + all
			w := f.ask(h, target, f.secret[access.Auditor])
			if w.Code != 200 || strings.Count(w.Body.String(), `"kind":"gap"`) != want {
				t.Errorf("GET %s = %d %s, want %d entries", target, w.Code, w.Body, want)
			}
		}
	}
	f.statement("SELECT 1", "")
	f.settle()
	for all, want := range map[string]int{"": 0, "&all=true": 1} {
		if w := f.ask(h, "/api/v1/tail?kind=gap&limit=1&until=2026-01-02T11:30:00Z&since=2026-01-02T10:30:00Z"+all, f.secret[access.Auditor]); strings.Count(w.Body.String(), `"kind":"gap"`) != want {
			t.Errorf("tail%s = %d %s, want %d entries", all, w.Code, w.Body, want)
		}
	}
	for all, want := range map[string]string{"": "false false", "&all=true": "true false"} {
		body := f.ask(h, "/api/v1/sessions?since=2026-01-02T10:30:00Z"+all, f.secret[access.Auditor]).Body.String()
		if got := fmt.Sprint(strings.Contains(body, `"0000000000000007"`), strings.Contains(body, `"0000000000000008"`)); got != want {
			t.Errorf("sessions%s: %s, want %s in %s", all, got, want, body)
		}
	}
	for _, all := range []string{"all=", "all=yes", "all=true&all=true"} {
		if w := f.ask(h, "/api/v1/search?"+all, f.secret[access.Auditor]); w.Code != 400 || !strings.Contains(w.Body.String(), "all is true or false") {
			t.Errorf("%s answers %d %s", all, w.Code, w.Body)
		}
	}
}

// TestInterruptions holds that whoever may see the status learns how often the
// record was interrupted, and that this is not counted for each who asks.
func TestInterruptions(t *testing.T) {
	f := newFixture(t)
	for _, k := range []event.Kind{event.KindStart, event.KindGap, event.KindRecover, event.KindViolation, event.KindViolation, event.KindStop} {
		if _, err := f.log.Emit(&event.Leaf{Kind: k}, nil); err != nil {
			t.Fatal(err)
		}
	}
	f.statement("SELECT 1", "")
	f.settle()
	h := NewHandler(f.config)
	ask := func() Interruptions {
		t.Helper()
		var s Status
		w := f.ask(h, "/api/v1/status", f.secret[access.Operator])
		if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil || s.Interruptions == nil {
			t.Fatalf("%v: %s", err, w.Body)
		}
		s.Interruptions.Since = time.Time{}
		return *s.Interruptions
	}
	want := ask()
	want.Starts, want.Recoveries = 1, 1 // the log's own may be there too
	if want != (Interruptions{Gaps: 1, Recoveries: 1, Violations: 2, Starts: 1, Stops: 1}) {
		t.Errorf("interruptions %+v", want)
	}
	if _, err := f.log.Emit(&event.Leaf{Kind: event.KindGap}, nil); err != nil {
		t.Fatal(err)
	}
	f.settle()
	if got := ask(); got.Gaps != 1 {
		t.Errorf("counted again at once: %+v", got)
	}
	if len(f.took()) != 0 {
		t.Error("a look at the status is recorded")
	}
}

// TestAuditorSeesNoValue looks for what only values have in all that an
// auditor gets of entries of all sorts.
func TestAuditorSeesNoValue(t *testing.T) {
	f := newFixture(t)
	f.statement("SELECT secret", "")
	f.statement("DROP TABLE secret", "42501")
	for _, l := range []event.Leaf{
		{Kind: event.KindConnect, Session: 1},
		{Kind: event.KindViolation},
		{Kind: event.KindFunctionCall, Session: 1},
		{Kind: event.KindNotice, Facts: []event.Fact{{Key: event.FactRead, Val: "search"}}},
	} {
		if _, err := f.log.Emit(&l, []byte("\x00\x00\x00\x1c\x00\x03\x00\x00secret\x00secret\x00\x00")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.log.Emit(&event.Leaf{Kind: event.KindNotice, Session: 1}, []byte("N\x00\x00\x00\x0eMsecret\x00\x00")); err != nil {
		t.Fatal(err)
	}
	loread, err := f.log.Emit(&event.Leaf{Kind: event.KindFunctionCall, Session: 1}, []byte("F\x00\x00\x00\x0e\x00\x00\x03\xba\x00\x00\x00\x00\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	answered := event.Leaf{Kind: event.KindOutcome, Session: 1, Of: event.Ref(loread)}
	if _, err := f.log.Emit(&answered, []byte("V\x00\x00\x00\x0e\x00\x00\x00\x06secret")); err != nil {
		t.Fatal(err)
	}
	f.settle()
	w := f.ask(NewHandler(f.config), "/api/v1/search", f.secret[access.Investigator])
	if !strings.Contains(w.Body.String(), `"result":{"type":"bytea","format":"text","value":"secret"`) {
		t.Errorf("what the function returned is not in\n%s", w.Body)
	}
	w = f.ask(NewHandler(f.config), "/api/v1/search", f.secret[access.Auditor])
	if body := w.Body.String(); w.Code != 200 || strings.Contains(body, "secret") || strings.Count(body, "\n") < 7 {
		t.Errorf("search as auditor = %d\n%s", w.Code, body)
	} else if !strings.Contains(body, `"error":{"sqlstate":"42501","message":""}`) {
		t.Errorf("no code of the error in\n%s", body)
	}
	for i := range loread + 2 {
		w := f.ask(NewHandler(f.config), fmt.Sprintf("/api/v1/entry/%d", i), f.secret[access.Auditor])
		if strings.Contains(w.Body.String(), "secret") || strings.Contains(w.Body.String(), `"result"`) || strings.Contains(w.Body.String(), `"salt"`) {
			t.Errorf("entry %d as auditor = %s", i, w.Body)
		}
	}
	if w := f.ask(NewHandler(f.config), "/api/v1/search?kind=notice", f.secret[access.Investigator]); !strings.Contains(w.Body.String(), `"request":`) {
		t.Errorf("the entry of a read does not show the request: %s", w.Body)
	}
}

// TestNothingUnrecorded holds that what cannot be recorded is not shown, and
// that refused tokens are recorded, but not without bound.
func TestNothingUnrecorded(t *testing.T) {
	f := newFixture(t)
	f.statement("SELECT 1", "")
	f.settle()
	h := NewHandler(f.config)
	began := time.Now()
	const many = 1000
	for range many {
		if w := f.ask(h, "/api/v1/search", "pgn_wrong"); w.Code != 401 || w.Header().Get("WWW-Authenticate") != "Bearer" {
			t.Fatalf("search with a wrong token = %d", w.Code)
		}
	}
	seconds := int(time.Since(began)/time.Second) + 2 // begun
	if got := f.took(); len(got) < 1 || len(got) > min(many-1, seconds*refusalsPerSecond) || got[0].What != "" || got[0].Client != "127.0.0.1:4711" {
		t.Errorf("%d wrong tokens in %d s: recorded %v", many, seconds, got)
	}
	f.fail = errors.New("disk full")
	if w := f.ask(h, "/api/v1/search", f.secret[access.Investigator]); w.Code != 503 || strings.Contains(w.Body.String(), "SELECT") {
		t.Errorf("search that cannot be recorded = %d %s", w.Code, w.Body)
	}
	f.fail = nil
	for end := time.Now().Add(2 * time.Minute); f.ask(h, "/api/v1/search?limit=1", f.secret[access.Auditor]).Code != 429; {
		if time.Now().After(end) { // in no second of these were there that many
			t.Fatal("requests without bound, each an entry, are answered")
		}
	}
}

func TestOnlyInPrivate(t *testing.T) {
	f := newFixture(t)
	h := NewHandler(f.config)
	for _, tt := range []struct {
		remote string
		tls    bool
		code   int
	}{{"127.0.0.1:1", false, 200}, {"[::1]:1", false, 200}, {"10.0.0.1:1", false, 403}, {"10.0.0.1:1", true, 200}, {"", false, 403}} {
		target := "/api/v1/me"
		if tt.tls {
			target = "https://audit.example" + target
		}
		r := httptest.NewRequest("GET", target, nil)
		r.RemoteAddr = tt.remote
		r.Header.Set("Authorization", "Bearer "+f.secret[access.Operator])
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != tt.code {
			t.Errorf("from %q, TLS %t = %d, want %d", tt.remote, tt.tls, w.Code, tt.code)
		}
	}
}

func TestLogin(t *testing.T) {
	f := newFixture(t)
	tokens := f.config.Tokens()
	f.config.Tokens = func() access.Tokens { return tokens }
	h := NewHandler(f.config)
	post := func(path, body, site string, cookies ...*http.Cookie) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", path, strings.NewReader(body))
		r.RemoteAddr = "127.0.0.1:4711"
		r.Header.Set("Sec-Fetch-Site", site)
		for _, c := range cookies {
			r.AddCookie(c)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	me := func(c *http.Cookie, site string) int {
		r := httptest.NewRequest("GET", "/api/v1/me", nil)
		r.RemoteAddr = "127.0.0.1:4711"
		r.Header.Set("Sec-Fetch-Site", site)
		r.AddCookie(c)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	if w := post("/api/v1/login", `{"token":"pgn_wrong"}`, "same-origin"); w.Code != 401 || len(w.Result().Cookies()) > 0 {
		t.Errorf("login with a wrong token = %d", w.Code)
	}
	if w := post("/api/v1/login", `token`, "same-origin"); w.Code != 400 {
		t.Errorf("login without JSON = %d", w.Code)
	}
	secret := f.secret[access.Auditor]
	if w := post("/api/v1/login", `{"token":"`+secret+`"}`, "cross-site"); w.Code != 403 {
		t.Errorf("login from another site = %d", w.Code)
	}
	w := post("/api/v1/login", `{"token":"`+secret+`"}`, "same-origin")
	if w.Code != 200 || w.Body.String() != `{"name":"auditor","role":"auditor"}`+"\n" || len(w.Result().Cookies()) != 1 {
		t.Fatalf("login = %d %s", w.Code, w.Body)
	}
	c := w.Result().Cookies()[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || strings.Contains(c.Value, secret) {
		t.Errorf("cookie %v", c)
	}
	if code := me(c, "same-origin"); code != 200 {
		t.Errorf("GET /me with the cookie = %d", code)
	}
	for _, site := range []string{"same-site", "cross-site"} {
		if code := me(c, site); code != 403 {
			t.Errorf("GET /me with the cookie, %s = %d, want 403", site, code)
		}
	}
	// A token that was taken back ends its logins.
	kept := tokens
	tokens = nil
	if code := me(c, "same-origin"); code != 401 {
		t.Errorf("GET /me after the token was taken back = %d", code)
	}
	tokens = kept
	if w := post("/api/v1/logout", "", "same-origin", c); w.Code != 204 {
		t.Errorf("logout = %d", w.Code)
	}
	if code := me(c, "same-origin"); code != 401 {
		t.Errorf("GET /me after logout = %d", code)
	}
}

// TestTailResumes reads a stream, breaks it off and goes on behind the last id.
func TestTailResumes(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	srv := httptest.NewUnstartedServer(NewHandler(f.config))
	srv.Start()
	defer srv.Close()
	var want, got []int64
	for range 3 {
		want = append(want, f.statement("SELECT 1", ""))
	}
	last := ""
	open := func(query string) (*http.Response, *bufio.Scanner) {
		r, err := http.NewRequestWithContext(ctx, "GET", srv.URL+"/api/v1/tail?"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+f.secret[access.Investigator])
		if last != "" {
			r.Header.Set("Last-Event-ID", last)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil || resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("tail = %v, %v", resp, err)
		}
		return resp, bufio.NewScanner(resp.Body)
	}
	read := func(lines *bufio.Scanner, n int) {
		id := ""
		for n > 0 && lines.Scan() {
			if s, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				id = s
			}
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				var s struct{ Index int64 }
				if err := json.Unmarshal([]byte(data), &s); err != nil {
					t.Fatal(err)
				}
				got = append(got, s.Index)
				last = id
				n--
			}
		}
		if n > 0 {
			t.Fatalf("the stream ended early: %v", lines.Err())
		}
	}
	resp, lines := open("kind=query&from=0")
	read(lines, 3)
	_ = resp.Body.Close()
	for range 2 {
		want = append(want, f.statement("SELECT 2", ""))
	}
	resp, lines = open("kind=query&from=0")
	defer resp.Body.Close()
	read(lines, 2)
	want = append(want, f.statement("SELECT 3", ""))
	read(lines, 1)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got statements %v, want %v", got, want)
	}
	// With a limit it says that it has ended.
	last = ""
	resp, _ = open("from=0&limit=1")
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || !strings.HasSuffix(string(body), "event: end\ndata: {}\n\n") {
		t.Errorf("tail with a limit = %q, %v", body, err)
	}
}

// TestTailTakenBack holds that a stream ends when its token is taken back.
func TestTailTakenBack(t *testing.T) {
	f := newFixture(t)
	var tokens atomic.Pointer[access.Tokens]
	all := f.config.Tokens()
	tokens.Store(&all)
	f.config.Tokens = func() access.Tokens { return *tokens.Load() }
	srv := httptest.NewServer(NewHandler(f.config))
	defer srv.Close()
	f.statement("SELECT 1", "")
	r, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/api/v1/tail?kind=query&from=0", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+f.secret[access.Investigator])
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() && !strings.Contains(lines.Text(), "SELECT 1") {
	}
	tokens.Store(new(access.Tokens))
	f.statement("SELECT 2", "")
	for lines.Scan() {
		if strings.Contains(lines.Text(), "SELECT 2") {
			t.Fatal("a stream whose token was taken back shows more")
		}
	}
	if err := lines.Err(); err != nil {
		t.Errorf("it ends with %v", err)
	}
}

// TestTailLoggedOut holds that a stream ends with the login it was opened with.
func TestTailLoggedOut(t *testing.T) {
	f := newFixture(t)
	srv := httptest.NewServer(NewHandler(f.config))
	defer srv.Close()
	f.statement("SELECT 1", "")
	send := func(method, path, body string, cookies ...*http.Cookie) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cookies {
			r.AddCookie(c)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil || resp.StatusCode >= 300 {
			t.Fatalf("%s %s = %v, %v", method, path, resp, err)
		}
		return resp
	}
	in := send("POST", "/api/v1/login", `{"token":"`+f.secret[access.Investigator]+`"}`)
	defer in.Body.Close()
	resp := send("GET", "/api/v1/tail?kind=query&from=0", "", in.Cookies()...)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() && !strings.Contains(lines.Text(), "SELECT 1") {
	}
	out := send("POST", "/api/v1/logout", "", in.Cookies()...)
	defer out.Body.Close()
	f.statement("SELECT 2", "")
	for lines.Scan() {
		if strings.Contains(lines.Text(), "SELECT 2") {
			t.Fatal("a stream whose login has ended shows more")
		}
	}
}

// TestStreamHeartbeat holds that a stream without news writes comments, and
// none after its end.
func TestStreamHeartbeat(t *testing.T) {
	w := httptest.NewRecorder()
	s := newStream(w, "text/event-stream")
	s.heartbeat(time.Millisecond)
	for {
		s.mu.Lock()
		n := strings.Count(w.Body.String(), ": \n\n")
		s.mu.Unlock()
		if n >= 2 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	s.close()
	size := w.Body.Len()
	if err := s.write([]byte("x")); err == nil {
		t.Error("write after close succeeds")
	}
	time.Sleep(5 * time.Millisecond)
	if w.Body.Len() != size {
		t.Error("something was written after close")
	}
}

// TestSearchCutShort holds that an answer that cannot be finished is not
// mistaken for a whole one.
func TestSearchCutShort(t *testing.T) {
	f := newFixture(t)
	f.statement("SELECT 1", "")
	f.settle()
	h := &handler{Config: f.config, guardian: newGuardian(&f.config)}
	h.Logger = slog.New(slog.DiscardHandler)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		out := newStream(w, "application/x-ndjson")
		defer out.close()
		_ = out.write([]byte("{}\n"))
		_ = out.flush()
		_ = h.ended(out, errors.New("entry 7 cannot be read"))
	}))
	defer srv.Close()
	resp, err := http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("the answer %q ends as if it were whole", body)
	}
}
