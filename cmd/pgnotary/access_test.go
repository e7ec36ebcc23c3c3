package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// fetch asks p for a path with a token.
func (p *process) fetch(path, token string) (code int, body string) {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), "GET", "http://"+p.http+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// TestReadOverHTTP runs a statement, finds it with the token that serve made,
// and finds the search in the log, which still verifies.
func TestReadOverHTTP(t *testing.T) {
	pg := pgtest.Server(t)
	dir := filepath.Join(t.TempDir(), "data")
	p := startServe(t, nil, "--upstream", pg.Addr(), "--data", dir)
	conn := p.mustConnect()
	if _, err := conn.Exec(t.Context(), "SELECT 'needle'"); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "token")
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("token file: %v, %v", info, err)
	}
	secret, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if code, body := p.get("/api/v1/search"); code != 401 || strings.Contains(body, "needle") {
		t.Errorf("search without a token = %d %s", code, body)
	}
	code, body := p.fetch("/api/v1/search?text=needle", strings.TrimSpace(string(secret)))
	if code != 200 || !strings.Contains(body, `"statement":"SELECT 'needle'"`) {
		t.Errorf("search = %d %s", code, body)
	}
	// What a search prints is the same, wherever it reads.
	for _, args := range [][]string{{}, {"--json"}, {"--kind", "query,connect"}, {"--all", "--since", "1h"}} {
		args = append([]string{"search"}, args...)
		code, onDisk, errs := pgnotary(t, append(args, "--data", dir)...)
		if code != 0 || !strings.Contains(onDisk, "needle") {
			t.Fatalf("%v = %d\n%s%s", args, code, onDisk, errs)
		}
		if code, out, errs := pgnotary(t, append(args, "--url", "http://"+p.http, "--token-file", name)...); code != 0 || out != onDisk {
			t.Errorf("%v --url = %d %s\n%s\nwant\n%s", args, code, errs, out, onDisk)
		}
	}
	for _, follow := range [][]string{{"--data", dir}, {"--url", "http://" + p.http, "--token-file", name}} {
		args := append([]string{"tail", "--from", "0", "--limit", "1", "--text", "needle", "--json"}, follow...)
		if code, out, errs := pgnotary(t, args...); code != 0 || !strings.Contains(out, `"statement":"SELECT 'needle'"`) {
			t.Errorf("%v = %d %s\n%s", args, code, errs, out)
		}
	}
	p.signal(syscall.SIGTERM)
	if code := p.code(); code != 0 {
		t.Errorf("serve ended with code %d\n%s", code, p.stderr())
	}
	_, out, _ := pgnotary(t, "search", "--data", dir, "--kind", "notice", "--json")
	if !strings.Contains(out, `"facts":{"read":"search","reader":"owner","role":"investigator"},"request":"/api/v1/search?text=needle"`) {
		t.Errorf("the search is not in the log:\n%s", out)
	}
	if code, out, errs := pgnotary(t, "verify", "--data", dir); code != 0 {
		t.Errorf("verify = %d\n%s%s", code, out, errs)
	}
}

// TestTokensReload holds that SIGHUP takes a token back.
func TestTokensReload(t *testing.T) {
	tmp := t.TempDir()
	file := filepath.Join(tmp, "tokens")
	_, out, _ := pgnotary(t, "token", "--name", "alice", "--role", "auditor", "--file", file)
	alice := strings.TrimSpace(out)
	_, out, _ = pgnotary(t, "token", "--name", "bob", "--role", "operator", "--file", file)
	bob := strings.TrimSpace(out)
	dir := filepath.Join(tmp, "data")
	p := startServe(t, nil, "--data", dir, "--http-tokens", file)
	if code, body := p.fetch("/api/v1/me", alice); code != 200 || body != `{"name":"alice","role":"auditor"}`+"\n" {
		t.Errorf("GET /me = %d %s", code, body)
	}
	lines, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, bobs, _ := strings.Cut(string(lines), "\n")
	// As many names as there is no room for in one entry.
	bobs = strings.Replace(bobs, "operator", "auditor", 1)
	for i := range 20 {
		bobs += fmt.Sprintf("reader-with-a-rather-long-name-%d auditor %064x\n", i, i)
	}
	if err := os.WriteFile(file, []byte(bobs), 0o600); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	p.wait("configuration reloaded")
	if code, _ := p.fetch("/api/v1/me", alice); code != 401 {
		t.Errorf("GET /me after the token was taken back = %d, want 401", code)
	}
	if _, err := os.Stat(filepath.Join(tmp, "data", "token")); err == nil {
		t.Error("a token was made although a token file is named")
	}
	// A file that others may write to lets in anybody.
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	line := p.wait("configuration not reloaded")
	if text, _ := line["error"].(string); !strings.Contains(text, "can be written to by others") {
		t.Errorf("reload says %v", line)
	}
	p.signal(syscall.SIGTERM)
	if code := p.code(); code != 0 {
		t.Errorf("serve ended with code %d", code)
	}
	// Who may read is in the log, with nothing that could tell a token.
	_, told, _ := pgnotary(t, "search", "--data", dir, "--kind", "config", "--json")
	for _, want := range []string{
		`{"reason":"tokens","tokens":"alice:auditor bob:operator"}`, `{"reason":"tokens","tokens_removed":"alice:auditor"}`,
		`{"reason":"tokens","tokens_changed":"bob:operator>auditor"}`, `"reader-with-a-rather-long-name-0:auditor `, `name-19:auditor"}`,
	} {
		if !strings.Contains(told, strings.TrimPrefix(want, `"`)) {
			t.Errorf("the log does not tell %s:\n%s", want, told)
		}
	}
	for _, secret := range []string{alice, bob, strings.Fields(bobs)[2]} {
		if strings.Contains(told, secret) {
			t.Errorf("the log tells %s", secret)
		}
	}
	if code, out, errs := pgnotary(t, "verify", "--data", dir); code != 0 {
		t.Errorf("verify = %d\n%s%s", code, out, errs)
	}
}

// TestTailStopsWithServe holds that an open stream does not hold up the end.
func TestTailStopsWithServe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	p := startServe(t, nil, "--data", dir)
	secret, err := os.ReadFile(filepath.Join(dir, "token"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+p.http+"/api/v1/tail", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(secret)))
	resp, err := http.DefaultClient.Do(r)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("tail = %v, %v", resp, err)
	}
	defer resp.Body.Close()
	p.signal(syscall.SIGTERM)
	if code := p.code(); code != 0 {
		t.Errorf("serve ended with code %d\n%s", code, p.stderr())
	}
}

// TestReadOverTLS reads over TLS: a search, and a stream, which HTTP/2 carries there.
func TestReadOverTLS(t *testing.T) {
	tmp := t.TempDir()
	ca, err := pgserver.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.Server()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"ca.pem": ca.PEM(), "cert.pem": cert, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(tmp, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(tmp, "data")
	p := startServe(t, nil, "--data", dir, "--http-tls-cert", filepath.Join(tmp, "cert.pem"), "--http-tls-key", filepath.Join(tmp, "key.pem"))
	t.Setenv("SSL_CERT_FILE", filepath.Join(tmp, "ca.pem"))
	for _, args := range [][]string{{"search", "--kind", "start"}, {"tail", "--from", "0", "--limit", "1", "--kind", "start"}, {"export", "--kind", "start"}} {
		args = append(args, "--url", "https://"+p.http, "--token-file", filepath.Join(dir, "token"))
		if code, out, errs := pgnotary(t, args...); code != 0 || !strings.Contains(out, "start") {
			t.Errorf("%v = %d %s\n%s", args, code, errs, out)
		}
	}
	t.Setenv("SSL_CERT_FILE", os.DevNull)
	if code, _, errs := pgnotary(t, "search", "--url", "https://"+p.http, "--token-file", filepath.Join(dir, "token")); code != 2 || !strings.Contains(errs, "certificate") {
		t.Errorf("a server nobody vouches for: %d %s", code, errs)
	}
}
