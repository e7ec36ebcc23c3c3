package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// kerberos runs a KDC of its own, with a user alice and PostgreSQL's service on localhost. It returns the
// keytab of the service and a ticket cache of alice.
func kerberos(t *testing.T) (keytab, cache string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "kerberos") // the server must be able to read it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := func(name string) string { return filepath.Join(dir, name) }
	addr := pgtest.FreeAddr(t)
	for name, text := range map[string]string{
		"krb5.conf": fmt.Sprintf(`[libdefaults]
default_realm = PGNOTARY.TEST
dns_lookup_kdc = false
dns_lookup_realm = false
dns_canonicalize_hostname = false
rdns = false
udp_preference_limit = 1
[realms]
PGNOTARY.TEST = {
  kdc = %s
}
[domain_realm]
localhost = PGNOTARY.TEST
`, addr),
		"kdc.conf": fmt.Sprintf(`[realms]
PGNOTARY.TEST = {
  database_name = %s
  key_stash_file = %s
  kdc_listen = ""
  kdc_tcp_listen = %s
}
`, file("principal"), file("stash"), addr),
	} {
		if err := os.WriteFile(file(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KRB5_CONFIG", file("krb5.conf"))
	t.Setenv("KRB5_KDC_PROFILE", file("kdc.conf"))
	t.Setenv("KRB5RCACHENAME", "none:")              // else the server keeps one in TMPDIR, where its user may have no business
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin") // Debian has the KDC there
	run := func(stdin, name string, args ...string) {
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	keytab, cache = file("keytab"), file("cache")
	run("", "kdb5_util", "create", "-s", "-P", "master")
	run("addprinc -pw sesame alice\naddprinc -randkey postgres/localhost\nktadd -k "+keytab+" postgres/localhost\n", "kadmin.local")
	if err := os.Chmod(keytab, 0o644); err != nil {
		t.Fatal(err)
	}
	kdc := exec.CommandContext(t.Context(), "krb5kdc", "-n")
	if err := kdc.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kdc.Process.Kill(); kdc.Wait() })
	for { // until the KDC answers, or the test is out of time
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			break
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	run("sesame\n", "kinit", "-c", cache, "alice")
	return keytab, cache
}

// TestKerberos logs in with a ticket of a real KDC, in each way libpq has. No ticket is in the log.
func TestKerberos(t *testing.T) {
	keytab, cache := kerberos(t)
	s := pgtest.Start(t, pgserver.Options{
		Settings: map[string]string{"krb_server_keyfile": keytab},
		HBA:      "local all all trust\nhost all postgres all trust\nhost all all all gss include_realm=0",
	})
	if _, err := s.Psql(t.Context(), "postgres", "CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN"); err != nil {
		t.Fatal(err)
	}
	_, cert, key := certificates(t)
	n := start(t, s.Addr(), "--tls-cert", cert, "--tls-key", key)
	for _, tt := range []struct{ name, user, cache, options, want string }{
		{"no encryption by GSSAPI", "alice", cache, "sslmode=disable gssencmode=disable", "alice|t|alice@PGNOTARY.TEST|f"},
		{"it is asked for first", "alice", cache, "sslmode=disable gssencmode=prefer", "alice|t|alice@PGNOTARY.TEST|f"},
		{"TLS", "alice", cache, "sslmode=require gssencmode=disable", "alice|t|alice@PGNOTARY.TEST|f"},
		{"TLS when GSSAPI is refused", "alice", cache, "sslmode=require gssencmode=prefer", "alice|t|alice@PGNOTARY.TEST|f"},
		{"it is insisted on", "alice", cache, "sslmode=disable gssencmode=require", "server doesn't support GSSAPI encryption, but it was required"},
		{"another's name", "bob", cache, "sslmode=disable gssencmode=disable", `FATAL:  GSSAPI authentication failed for user "bob"`},
		{"no ticket", "alice", "/none", "sslmode=disable gssencmode=disable", "GSSAPI continuation error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dsn := "host=localhost hostaddr=127.0.0.1 dbname=postgres user=" + tt.user + " port=" + port(n.addr) + " " + tt.options
			out, _ := tryTool(t, s, []string{"KRB5CCNAME=FILE:" + tt.cache}, "", "psql", "-XAtqw", "-d", dsn, "-c",
				"SELECT current_user, gss_authenticated, principal, encrypted FROM pg_stat_gssapi WHERE pid = pg_backend_pid()")
			if !strings.Contains(out, tt.want) {
				t.Errorf("psql says %q, want %q", out, tt.want)
			}
		})
	}
	results := map[string]int{}
	for _, r := range ofKind(n.finish(t), "auth") {
		results[r.User+" "+r.Facts["method"]+" "+r.Facts["result"]]++
	}
	without := results["alice gss failed"] + results["alice gss unfinished"] // whichever came first: its end, or the server's error
	if results["alice gss ok"] != 4 || results["bob gss failed"] != 1 || without != 1 || len(results) != 3 {
		t.Errorf("logins recorded: %v", results)
	}
	noSecrets(t, n.data, "sesame", "\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02") // what each token begins with
}
