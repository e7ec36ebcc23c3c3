package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pgnotary/pgnotary/internal/access"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// fakeLog answers with the name of what it was asked for.
type fakeLog struct {
	size int64
	err  error
}

func (l *fakeLog) Checkpoint() ([]byte, error) {
	if l.size < 0 {
		return nil, fmt.Errorf("open checkpoint: %w", fs.ErrNotExist)
	}
	return fmt.Appendf(nil, "origin\n%d\nroot\n\n— origin sig\n", l.size), nil
}

func (l *fakeLog) Tile(level int, n int64, width int) ([]byte, error) {
	return []byte(tree.TilePath(level, n, width)), l.err
}

func (l *fakeLog) Bundle(n int64, width int) ([]byte, error) {
	return []byte(tree.BundlePath(n, width)), l.err
}

func (l *fakeLog) VKey() string       { return "origin+1234abcd+key" }
func (l *fakeLog) Succession() []byte { return nil }
func (l *fakeLog) LogJSON() []byte    { return []byte("{}\n") }

func testConfig(l Log) Config {
	return Config{
		Log:     l,
		Ready:   func() error { return nil },
		Status:  func() Status { return Status{Origin: "origin", Entries: 7} },
		Metrics: NewMetrics("test", func() Numbers { return Numbers{} }),
		Tokens:  func() access.Tokens { return nil },
		Record:  func(context.Context, Read) (int64, error) { return 1 << 50, nil },
		Logger:  slog.New(slog.DiscardHandler),
	}
}

func get(t *testing.T, h http.Handler, target string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", target, nil))
	return w
}

func TestTiles(t *testing.T) {
	const size = 256*256 + 3*256 + 5
	const immutable = "public, max-age=31536000, immutable"
	tests := []struct {
		path  string
		code  int
		cache string
	}{
		{"checkpoint", 200, "no-cache"},
		{"vkey", 200, "no-cache"},
		{"log.json", 200, "no-cache"},
		{"tile/0/000", 200, immutable},
		{"tile/0/258", 200, immutable},
		{"tile/0/259.p/5", 200, immutable},
		{"tile/0/259.p/4", 200, immutable}, // of an earlier checkpoint
		{"tile/0/000.p/9", 200, immutable}, // of a much earlier one
		{"tile/0/259.p/6", 404, "no-store"},
		{"tile/0/259", 404, "no-store"},
		{"tile/0/260.p/1", 404, "no-store"},
		{"tile/1/000", 200, immutable},
		{"tile/1/001.p/3", 200, immutable},
		{"tile/1/001.p/4", 404, "no-store"},
		{"tile/2/000.p/1", 200, immutable},
		{"tile/2/000", 404, "no-store"},
		{"tile/3/000.p/1", 404, "no-store"},
		{"tile/7/000.p/1", 404, "no-store"},
		{"tile/63/000.p/1", 404, "no-store"},
		{"tile/64/000", 404, "no-store"},
		{"tile/entries/258", 200, immutable},
		{"tile/entries/259.p/5", 200, immutable},
		{"tile/entries/259.p/6", 404, "no-store"},
		{"tile/entries/x001/000.p/1", 404, "no-store"},
		{"tile/0/0", 404, "no-store"},
		{"tile/0/000.p/256", 404, "no-store"},
		{"tile/0/x000/001", 404, "no-store"},
		{"tile/0/x9223/372/036/854/775/807", 404, "no-store"},
		{"tile/0/x009/x223/x372/x036/x854/x775/807.p/255", 404, "no-store"},
		{"tile/", 404, "no-store"},
		{"key", 404, "no-store"},
	}
	h := NewHandler(testConfig(&fakeLog{size: size}))
	for _, tt := range tests {
		w := get(t, h, "/log/"+tt.path)
		if w.Code != tt.code || w.Header().Get("Cache-Control") != tt.cache {
			t.Errorf("GET /log/%s = %d, cache %q, want %d, %q", tt.path, w.Code, w.Header().Get("Cache-Control"), tt.code, tt.cache)
		}
		if strings.HasPrefix(tt.path, "tile") && w.Code == 200 && w.Body.String() != tt.path {
			t.Errorf("GET /log/%s answers with %s", tt.path, w.Body)
		}
	}
}

func TestNoCheckpointYet(t *testing.T) {
	h := NewHandler(testConfig(&fakeLog{size: -1}))
	for _, path := range []string{"/log/checkpoint", "/log/tile/0/000.p/1"} {
		if w := get(t, h, path); w.Code != 404 {
			t.Errorf("GET %s before the first checkpoint = %d, want 404", path, w.Code)
		}
	}
}

// TestInternalErrors holds that an answer does not say what is on the disk.
func TestInternalErrors(t *testing.T) {
	h := NewHandler(testConfig(&fakeLog{size: 300, err: errors.New("read /var/lib/secret: bad sector")}))
	w := get(t, h, "/log/tile/0/000")
	if w.Code != 500 || w.Body.String() != "internal error: read tile\n" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("GET of an unreadable tile = %d %q, cache %q", w.Code, w.Body, w.Header().Get("Cache-Control"))
	}
}

// TestPrunedTile holds that asking for what was let go is no fault of the log.
func TestPrunedTile(t *testing.T) {
	var told bytes.Buffer
	c := testConfig(&fakeLog{size: 300, err: fmt.Errorf("entry 0: %w", fs.ErrNotExist)})
	c.Logger = slog.New(slog.NewTextHandler(&told, nil))
	if w := get(t, NewHandler(c), "/log/tile/entries/000"); w.Code != 404 || told.Len() > 0 {
		t.Errorf("GET of a pruned tile = %d, diagnostics %q, want 404 and none", w.Code, &told)
	}
}

func TestReadiness(t *testing.T) {
	var ready error
	c := testConfig(&fakeLog{size: 1})
	c.Ready = func() error { return ready }
	h := NewHandler(c)
	if w := get(t, h, "/readyz"); w.Code != 200 {
		t.Errorf("GET /readyz = %d, want 200", w.Code)
	}
	ready = errors.New("the log stopped")
	if w := get(t, h, "/readyz"); w.Code != 503 || !strings.Contains(w.Body.String(), "the log stopped") {
		t.Errorf("GET /readyz = %d %q, want 503 with the reason", w.Code, w.Body)
	}
	if w := get(t, h, "/healthz"); w.Code != 200 {
		t.Errorf("GET /healthz = %d, want 200", w.Code)
	}
}

func TestOnlyReading(t *testing.T) {
	h := NewHandler(testConfig(&fakeLog{size: 1}))
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		for _, path := range []string{"/", "/api/v1/status", "/log/checkpoint"} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
			if w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s = %d, want 405", method, path, w.Code)
			}
		}
	}
}

func TestHostName(t *testing.T) {
	tests := []struct {
		host     string
		loopback bool
		code     int
	}{
		{"localhost:6433", true, 200},
		{"localhost", true, 200},
		{"127.0.0.1:6433", true, 200},
		{"[::1]:6433", true, 200},
		{"[::1]", true, 200},
		{"rebound.example:6433", true, 421},
		{"localhost.example", true, 421},
		{"audit.example", false, 200},
	}
	for _, tt := range tests {
		c := testConfig(&fakeLog{size: 1})
		c.Loopback = tt.loopback
		r := httptest.NewRequest("GET", "/healthz", nil)
		r.Host = tt.host
		w := httptest.NewRecorder()
		NewHandler(c).ServeHTTP(w, r)
		if w.Code != tt.code {
			t.Errorf("Host %q, loopback %t = %d, want %d", tt.host, tt.loopback, w.Code, tt.code)
		}
	}
}

// TestPage holds that the page asks nobody but this server, has no inline
// script or style (its policy forbids both), and that all it refers to is there.
func TestPage(t *testing.T) {
	c := testConfig(&fakeLog{size: 1})
	c.Loopback = true
	h := NewHandler(c)
	w := get(t, h, "http://localhost/")
	if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") {
		t.Fatalf("GET / = %d, %s", w.Code, w.Header().Get("Content-Type"))
	}
	if policy := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; script-src 'self';") {
		t.Errorf("policy of / is %q", policy)
	}
	body := w.Body.String()
	for _, bad := range []string{"style=", "<style", "onclick", "http://", "https://", "//", "<script>"} {
		if strings.Contains(body, bad) {
			t.Errorf("the page contains %q", bad)
		}
	}
	links := regexp.MustCompile(`(?:href|src)="([^"]+)"`).FindAllStringSubmatch(body, -1)
	if len(links) < 4 {
		t.Errorf("the page has %d links, want at least 4", len(links))
	}
	for _, m := range links {
		if w := get(t, h, "http://localhost"+m[1]); w.Code != 200 {
			t.Errorf("the page refers to %s, which answers %d", m[1], w.Code)
		}
	}
}

func TestStatus(t *testing.T) {
	c := testConfig(&fakeLog{size: 1})
	c.Loopback = true // other machines need a token: TestRoles
	w := get(t, NewHandler(c), "http://localhost/api/v1/status")
	var got Status
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Origin != "origin" || got.Entries != 7 {
		t.Errorf("GET /api/v1/status = %s, %v", w.Body, err)
	}
}

func TestServeStops(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, ln, nil, NewHandler(testConfig(&fakeLog{size: 1})), slog.New(slog.DiscardHandler))
	}()
	resp, err := http.Get("http://" + ln.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "ok\n" {
		t.Errorf("GET /healthz = %q, %v", body, err)
	}
	_ = resp.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve = %v, want nil", err)
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("the address still answers after Serve returned")
	}
}

func exampleNumbers() Numbers {
	return Numbers{
		Sessions: 3, Statements: 12, Refusals: map[string]uint64{"login_timeout": 2},
		Commit: Histogram{Bounds: []float64{0.001, 0.01}, Counts: []uint64{5, 2, 1}, Sum: 0.25},
	}
}

func TestMetrics(t *testing.T) {
	reg := newRegistry("v1.2.3", exampleNumbers)
	problems, err := testutil.GatherAndLint(reg, names(t, "pgnotary_")...)
	if err != nil || len(problems) > 0 {
		t.Errorf("metrics lint: %v, %v", problems, err)
	}
	want := `# HELP pgnotary_commit_seconds Time to write and sync a batch of entries.
# TYPE pgnotary_commit_seconds histogram
pgnotary_commit_seconds_bucket{le="0.001"} 5
pgnotary_commit_seconds_bucket{le="0.01"} 7
pgnotary_commit_seconds_bucket{le="+Inf"} 8
pgnotary_commit_seconds_sum 0.25
pgnotary_commit_seconds_count 8
# HELP pgnotary_refusals_total Sessions refused or ended by the proxy, by reason.
# TYPE pgnotary_refusals_total counter
pgnotary_refusals_total{reason="login_timeout"} 2
# HELP pgnotary_build_info Always 1; the version is in the label.
# TYPE pgnotary_build_info gauge
pgnotary_build_info{version="v1.2.3"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want),
		"pgnotary_commit_seconds", "pgnotary_refusals_total", "pgnotary_build_info"); err != nil {
		t.Error(err)
	}
	w := get(t, NewMetrics("v1.2.3", exampleNumbers), "/metrics")
	if w.Code != 200 || !strings.Contains(w.Body.String(), "pgnotary_statements_total 12") || !strings.Contains(w.Body.String(), "go_goroutines") {
		t.Errorf("GET /metrics = %d without the expected metrics", w.Code)
	}
}

// names returns the metrics of this program: those of the Go collector are not ours to lint.
func names(t *testing.T, prefix string) []string {
	t.Helper()
	families, err := newRegistry("v", exampleNumbers).Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), prefix) {
			out = append(out, f.GetName())
		}
	}
	return out
}

func TestHistogramMean(t *testing.T) {
	if got := (Histogram{}).Mean(); got != 0 {
		t.Errorf("Mean of nothing = %g, want 0", got)
	}
	if got := (Histogram{Counts: []uint64{1, 3}, Sum: 10}).Mean(); got != 2.5 {
		t.Errorf("Mean = %g, want 2.5", got)
	}
}
