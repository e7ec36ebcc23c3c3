package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// TestSinks has serve send what it records, tell of it, and leave a log that verifies.
func TestSinks(t *testing.T) {
	var mu sync.Mutex
	var got strings.Builder
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		got.Write(b)
	}))
	defer srv.Close()
	tmp := t.TempDir()
	file, dir := filepath.Join(tmp, "sinks.toml"), filepath.Join(tmp, "data")
	text := "[[sink]]\nname = \"hook\"\nurl = \"" + srv.URL + "\"\nformat = \"ocsf\"\nfilter = \"kind=query&class=READ\"\n" +
		"[[sink]]\nname = \"away\"\nurl = \"syslog+tcp://127.0.0.1:1\"\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startServe(t, nil, "--upstream", pgtest.Server(t).Addr(), "--data", dir, "--sinks", file)
	conn := p.mustConnect()
	for _, sql := range []string{"SELECT 'needle'", "SET application_name = 'nobody asked for this'"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		mu.Lock()
		text := got.String()
		mu.Unlock()
		if strings.Contains(text, `"query_string":"SELECT 'needle'"`) {
			if strings.Contains(text, "nobody asked") {
				t.Errorf("what the filter leaves out was sent: %s", text)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing came:\n%s", p.stderr())
		}
	}
	p.wait("sink cannot send: it goes on trying")
	waitFor(t, "the sinks in the metrics", func() bool {
		_, body := p.get("/metrics")
		return strings.Contains(body, `pgnotary_sink_sent_total{sink="hook"} 1`) && strings.Contains(body, `pgnotary_sink_lag_entries{sink="away"}`)
	})
	p.signal(syscall.SIGTERM)
	if code := p.code(); code != 0 {
		t.Errorf("serve ended with code %d\n%s", code, p.stderr())
	}
	if code, out, errs := pgnotary(t, "verify", "--data", dir); code != 0 {
		t.Errorf("verify = %d\n%s%s", code, out, errs)
	}
}
