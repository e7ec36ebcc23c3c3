package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
	"github.com/pgnotary/pgnotary/internal/verifiers"
)

const loginHBA = `
local all postgres trust
host all postgres all trust
local all l_md5 md5
local all all scram-sha-256
host all l_md5 all md5
host all all all scram-sha-256`

const loginRoles = `
CREATE ROLE l_scram LOGIN PASSWORD 'sesame-scram';
CREATE ROLE l_expired LOGIN PASSWORD 'sesame-scram' VALID UNTIL '2001-01-01';
CREATE ROLE l_changed LOGIN PASSWORD 'sesame-before';
CREATE ROLE l_locked NOLOGIN PASSWORD 'sesame-scram';
CREATE ROLE l_asks LOGIN PASSWORD 'sesame-asks';
SET password_encryption = 'md5'; CREATE ROLE l_md5 LOGIN PASSWORD 'sesame-md5';`

// loginServer is a server with TLS that asks everybody but postgres for a password.
func loginServer(t *testing.T, bin string) *pgserver.Server {
	t.Helper()
	s := pgtest.Start(t, pgserver.Options{Bin: bin, TLS: true, HBA: loginHBA, Settings: map[string]string{
		"password_encryption": "scram-sha-256", // which is not the default before 14
	}})
	sql := loginRoles + strings.ReplaceAll(verifiers.SetupFor("l_asks"), "CREATE ROLE", "-- CREATE ROLE")
	if _, err := s.Psql(t.Context(), "postgres", sql); err != nil {
		t.Fatal(err)
	}
	return s
}

// authFile writes the verifiers that the server has now.
func authFile(t *testing.T, s *pgserver.Server, path string) {
	t.Helper()
	out, err := s.Psql(t.Context(), "postgres", `SELECT '"' || rolname || '" "' || rolpassword || '"' FROM pg_authid WHERE rolpassword IS NOT NULL`)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
}

// logIn runs psql and returns the user it became, or its error.
func logIn(t *testing.T, s *pgserver.Server, addr, user, password, options string) string {
	t.Helper()
	dsn := "host=localhost hostaddr=127.0.0.1 dbname=postgres connect_timeout=120 user=" + user + " port=" + port(addr) + " " + options
	out, _ := tryTool(t, s, []string{"PGPASSWORD=" + password, "PGPASSFILE=/none"}, "", "psql", "-XAtqw", "-d", dsn, "-c", "SELECT current_user")
	return strings.TrimSpace(out)
}

// TestChannelBinding logs in over each pair of legs and certificates, with each channel_binding. The
// table is the one in docs/logins.md.
func TestChannelBinding(t *testing.T) {
	s := loginServer(t, "")
	_, cert, key := certificates(t)
	file := filepath.Join(t.TempDir(), "users")
	authFile(t, s, file)
	passfile := filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(passfile, []byte("*:*:*:l_asks:sesame-asks\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(s.SocketDir, ".s.PGSQL."+port(s.Addr()))
	other, own := []string{"--tls-cert", cert, "--tls-key", key}, []string{"--tls-cert", s.CertFile, "--tls-key", s.KeyFile}
	upstreamTLS := []string{"--upstream-tls", "verify-full", "--upstream-ca", s.CAFile}
	byFile, byFunction := []string{"--auth-file", file}, []string{"--auth-user", "l_asks", "--auth-passfile", passfile}
	join := func(lists ...[]string) (all []string) {
		for _, l := range lists {
			all = append(all, l...)
		}
		return all
	}
	const ok, cannot, libpq, plus = "l_scram", "channel binding cannot work here", "channel binding", "SCRAM-SHA-256-PLUS authentication over a non-SSL connection"
	for _, tt := range []struct {
		name     string
		upstream string
		args     []string
		// What psql says with TLS and channel_binding disable, prefer and require; and without TLS.
		disable, prefer, require, plain string
		mechanism                       string // towards the server, where the proxy logs in itself
	}{
		{"A: plain server leg", s.Addr(), other, ok, ok, libpq, ok, ""},
		{"A: Unix socket", socket, other, ok, ok, libpq, ok, ""},
		{"B: shared certificate", s.Addr(), join(own, upstreamTLS), ok, ok, ok, plus, ""},
		{"C: two certificates", s.Addr(), join(other, upstreamTLS), ok, cannot, cannot, plus, ""},
		{"D: file", s.Addr(), join(other, upstreamTLS, byFile), ok, ok, ok, ok, "SCRAM-SHA-256-PLUS"},
		{"D: function", s.Addr(), join(other, upstreamTLS, byFunction), ok, ok, ok, ok, "SCRAM-SHA-256-PLUS"},
		{"D: file, plain server leg", s.Addr(), join(other, byFile), ok, ok, ok, ok, "SCRAM-SHA-256"},
		{"D: function, Unix socket", socket, join(other, byFunction), ok, ok, ok, ok, "SCRAM-SHA-256"},
		{"D: before-reply", s.Addr(), join(other, upstreamTLS, byFile, []string{"--durability", "before-reply"}), ok, ok, ok, ok, "SCRAM-SHA-256-PLUS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			upstream := strings.Replace(tt.upstream, "127.0.0.1", "localhost", 1)
			n := start(t, upstream, tt.args...)
			for options, want := range map[string]string{
				"sslmode=require channel_binding=disable": tt.disable,
				"sslmode=require channel_binding=prefer":  tt.prefer,
				"sslmode=require channel_binding=require": tt.require,
				"sslmode=disable channel_binding=prefer":  tt.plain,
			} {
				got := logIn(t, s, n.addr, "l_scram", "sesame-scram", options)
				if want == ok && got != ok || want != ok && !strings.Contains(got, want) {
					t.Errorf("%s: psql says %q, want %q", options, got, want)
				}
				if want == cannot && (!strings.Contains(got, "FATAL") || !strings.Contains(got, "HINT")) {
					t.Errorf("%s: psql says %q, want FATAL with a hint", options, got)
				}
				if got := logIn(t, s, n.addr, "l_scram", "sesame-wrong", options); want == ok && !strings.Contains(got, `password authentication failed for user "l_scram"`) {
					t.Errorf("%s, wrong password: psql says %q", options, got)
				}
				// A role whose password is an MD5 hash logs in as ever.
				if got := logIn(t, s, n.addr, "l_md5", "sesame-md5", options); !strings.Contains(options, "require channel_binding=require") && got != "l_md5" {
					t.Errorf("%s, MD5: psql says %q", options, got)
				}
			}
			checkDoctor(t, n, s, map[string]string{"tls disable": tt.disable, "tls prefer": tt.prefer, "tls require": tt.require, "plain prefer": tt.plain})
			if strings.HasPrefix(tt.name, "C") != strings.Contains(n.stderr(), "channel binding will fail") {
				t.Errorf("standard error about channel binding:\n%s", n.stderr())
			}
			checkLogins(t, n.finish(t), tt.mechanism)
			noSecrets(t, n.data, "sesame", "SCRAM-SHA-256$")
			if text := n.stderr(); strings.Contains(text, "sesame") || strings.Contains(text, "SCRAM-SHA-256$") {
				t.Error("standard error has a secret")
			}
		})
	}
}

// checkDoctor holds the doctor to what psql met: by client's leg and channel_binding, the user or an error.
func checkDoctor(t *testing.T, n *notary, s *pgserver.Server, met map[string]string) {
	t.Helper()
	args := append([]string{"doctor", "--json", "--admin-dsn", "host=127.0.0.1 port=" + port(s.Addr()) + " user=postgres dbname=postgres sslmode=disable"}, n.args[1:]...)
	out, err := exec.CommandContext(t.Context(), program, args...).Output() // its exit code tells of bypasses too
	var report struct {
		Logins []struct {
			Users          []string
			Method         string
			Verifier       string
			Client         string
			ChannelBinding string `json:"channel_binding"`
			Result         string
		}
	}
	if e := json.Unmarshal(out, &report); e != nil {
		t.Fatalf("doctor: %v, %v: %s", err, e, out)
	}
	compared := 0
	for _, l := range report.Logins {
		want, ok := met[l.Client+" "+l.ChannelBinding]
		if !ok || l.Method != "scram-sha-256" || l.Verifier != "scram" || l.Users[0] != "all" {
			continue
		}
		compared++
		if (l.Result == "works") != (want == "l_scram") {
			t.Errorf("doctor says of %s %s: %s, psql met %q", l.Client, l.ChannelBinding, l.Result, want)
		}
	}
	if compared != len(met) {
		t.Errorf("doctor judged %d of %d logins:\n%s", compared, len(met), out)
	}
}

// checkLogins holds that auth entries tell the mechanism and how each leg is bound.
func checkLogins(t *testing.T, all []record, serverMechanism string) {
	t.Helper()
	results := map[string]int{}
	for _, r := range ofKind(all, "auth") {
		results[r.Facts["result"]]++
		if r.User != "l_scram" || r.Facts["mechanism"] == "" {
			continue
		}
		bound := r.Facts["channel_binding"] == "tls-server-end-point"
		if bound != (r.Facts["mechanism"] == "SCRAM-SHA-256-PLUS") || r.Facts["channel_binding"] == "" {
			t.Errorf("auth entry: %v", r.Facts)
		}
		if serverMechanism != "" && (r.Facts["server_mechanism"] != serverMechanism || r.Facts["verifier"] != "fits") {
			t.Errorf("auth entry: %v, want server_mechanism %s", r.Facts, serverMechanism)
		}
	}
	if results["ok"] == 0 || results["failed"] == 0 {
		t.Errorf("results of logins: %v", results)
	}
}

// TestVerifiersOfMajors ends logins in front of servers of other major versions.
func TestVerifiersOfMajors(t *testing.T) {
	_, cert, key := certificates(t)
	passfile := filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(passfile, []byte("*:*:*:l_asks:sesame-asks\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"13", "18"} {
		t.Run(version, func(t *testing.T) {
			bin, _ := major(t, version)
			s := loginServer(t, bin)
			n := start(t, "localhost:"+port(s.Addr()), "--tls-cert", cert, "--tls-key", key, "--upstream-tls", "verify-full", "--upstream-ca", s.CAFile, "--auth-user", "l_asks", "--auth-passfile", passfile)
			for _, options := range []string{"sslmode=require channel_binding=require", "sslmode=disable"} {
				if got := logIn(t, s, n.addr, "l_scram", "sesame-scram", options); got != "l_scram" {
					t.Errorf("%s: psql says %q", options, got)
				}
				if got := logIn(t, s, n.addr, "l_scram", "sesame-wrong", options); !strings.Contains(got, `password authentication failed for user "l_scram"`) {
					t.Errorf("%s, wrong password: psql says %q", options, got)
				}
			}
			checkLogins(t, n.finish(t), "SCRAM-SHA-256-PLUS")
		})
	}
}

// TestServerIsTheJudge has logins that are good by the verifier, and refused by the server, in its words; and
// others of which a stranger may not learn anything but what the server itself tells.
func TestServerIsTheJudge(t *testing.T) {
	s := loginServer(t, "")
	_, cert, key := certificates(t)
	file := filepath.Join(t.TempDir(), "users")
	authFile(t, s, file)
	if _, err := s.Psql(t.Context(), "postgres", "ALTER ROLE l_changed PASSWORD 'sesame-after'"); err != nil {
		t.Fatal(err)
	}
	n := start(t, "localhost:"+port(s.Addr()), "--tls-cert", cert, "--tls-key", key, "--upstream-tls", "verify-full", "--upstream-ca", s.CAFile, "--auth-file", file)
	const options = "sslmode=require channel_binding=require"
	cases := []struct{ name, user, password, options, verifier string }{
		{"password expired", "l_expired", "sesame-scram", options, "outdated"},
		{"may not log in", "l_locked", "sesame-scram", options, "fits"},
		{"no such user", "l_missing", "sesame-scram", options, "none"},
		{"old password", "l_changed", "sesame-before", options, "outdated"},
		{"new password, old verifier", "l_changed", "sesame-after", options, "outdated"},
		{"wrong password", "l_scram", "sesame-wrong", options, "fits"},
		{"no such database", "l_scram", "sesame-scram", options + " dbname=missing", "fits"},
		{"bad setting", "l_scram", "sesame-scram", options + " options='-c work_mem=many'", "fits"},
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			got := logIn(t, s, n.addr, tt.user, tt.password, tt.options)
			want := logIn(t, s, s.Addr(), tt.user, tt.password, tt.options)
			if tt.name == "new password, old verifier" {
				want = `FATAL:  password authentication failed for user "l_changed"`
			}
			mask := func(text string) string {
				return strings.NewReplacer(port(n.addr), "PORT", port(s.Addr()), "PORT").Replace(text)
			}
			if !strings.Contains(got, "FATAL") || !strings.HasSuffix(mask(got), mask(want)) {
				t.Errorf("psql says %q, directly %q", got, want)
			}
		})
	}
	auths := ofKind(n.await(t, len(cases), "--kind", "auth"), "auth")
	if len(auths) != len(cases) {
		t.Fatalf("%d auth entries, want %d", len(auths), len(cases))
	}
	for i, tt := range cases {
		if f := auths[i].Facts; f["verifier"] != tt.verifier || f["result"] != "failed" || f["server_mechanism"] != "SCRAM-SHA-256-PLUS" {
			t.Errorf("%s: auth entry %v, want verifier %s", tt.name, f, tt.verifier)
		}
	}
	// The file is read again, and a session goes on while it is.
	authFile(t, s, file)
	if err := n.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if got := logIn(t, s, n.addr, "l_changed", "sesame-after", options); got == "l_changed" {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("after a reload psql says %q", got)
		}
	}
}

// TestMutualTLS has the proxy ask clients for a certificate, and show one of its own to a server that asks.
func TestMutualTLS(t *testing.T) {
	a, err := pgserver.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	client := func(name string) (cert, key string) {
		t.Helper()
		c, k, err := a.Client(name)
		if err != nil {
			t.Fatal(err)
		}
		return file(name+".crt", c), file(name+".key", k)
	}
	ca := file("ca.crt", a.PEM())
	aliceCert, aliceKey := client("alice")
	bobCert, bobKey := client("bob")
	proxyCert, proxyKey := client("pgnotary")
	caForServer := filepath.Join("/tmp", fmt.Sprintf("pgnotary-e2e-%d.crt", os.Getpid())) // where the server's user can read it
	if err := os.WriteFile(caForServer, a.PEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(caForServer) })
	// The server takes the proxy's certificate for any user: the proxy has checked whose it is.
	s := pgtest.Start(t, pgserver.Options{
		TLS: true, HBA: "local all all trust\nhost all postgres all trust\nhostssl all all all cert map=proxy",
		Settings: map[string]string{"ssl_ca_file": caForServer},
	})
	if _, err := s.Psql(t.Context(), "postgres", "CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Psql(t.Context(), "postgres", fmt.Sprintf("COPY (SELECT 'proxy pgnotary ' || r FROM (VALUES ('alice'), ('bob')) AS v(r)) TO '%s/pg_ident.conf'; SELECT pg_reload_conf()", s.DataDir)); err != nil {
		t.Fatal(err)
	}
	_, cert, key := certificates(t)
	n := start(t, "localhost:"+port(s.Addr()), "--tls-cert", cert, "--tls-key", key, "--client-ca", ca, "--client-cert", "verify-full",
		"--upstream-tls", "verify-full", "--upstream-ca", s.CAFile, "--upstream-cert", proxyCert, "--upstream-key", proxyKey)
	with := func(cert, key string) string { return "sslmode=require sslcert=" + cert + " sslkey=" + key }
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) { // until the server has read the map
		if got := logIn(t, s, n.addr, "alice", "", with(aliceCert, aliceKey)); got == "alice" {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("psql says %q", got)
		}
	}
	for _, tt := range []struct{ name, user, options, want string }{
		{"the user's", "bob", with(bobCert, bobKey), "bob"},
		{"another user's", "alice", with(bobCert, bobKey), "FATAL:  pgnotary: the client's certificate is not one of this user"},
		{"none", "alice", "sslmode=require sslcert=/none", "FATAL:  pgnotary: connection requires a valid client certificate"},
		{"no TLS", "alice", "sslmode=disable", "FATAL:  pgnotary: connection requires a valid client certificate"},
	} {
		if got := logIn(t, s, n.addr, tt.user, "", tt.options); !strings.Contains(got, tt.want) {
			t.Errorf("%s: psql says %q, want %q", tt.name, got, tt.want)
		}
	}
	found := false
	for _, r := range ofKind(n.finish(t), "connect") {
		found = found || r.User == "bob" && r.Facts["tls_client"] == "CN=bob" && len(r.Facts["tls_client_sha256"]) == 64 && r.Facts["tls"] == "TLSv1.3" && r.Facts["tls_cipher"] != ""
	}
	if !found {
		t.Error("no connect entry tells of bob's certificate")
	}
}
