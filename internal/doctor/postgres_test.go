package doctor

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/config"
	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// hba has lines for one user each; users tells which password they have.
const hba = `local all postgres trust
host all postgres 127.0.0.1/32 trust
%s all trusty %s trust
%s all mdfive,scrammd %s md5
%s all clear %s password
%s all nobody %s reject
%s all all %s scram-sha-256
`

const roles = `
CREATE ROLE trusty LOGIN; CREATE ROLE nobody LOGIN PASSWORD 'hush';
CREATE ROLE scrammy LOGIN PASSWORD 'hush'; CREATE ROLE scrammd LOGIN PASSWORD 'hush'; CREATE ROLE clear LOGIN PASSWORD 'hush';
SET password_encryption = md5;
CREATE ROLE mdfive LOGIN PASSWORD 'hush'; CREATE ROLE mdscram LOGIN PASSWORD 'hush';
`

// userOf returns the role that logs in by a line with a password of that kind.
func userOf(l *Login) string {
	switch l.Method + " " + l.Verifier {
	case "trust ":
		return "trusty"
	case "md5 md5":
		return "mdfive"
	case "md5 scram":
		return "scrammd"
	case "password ":
		return "clear"
	case "reject ":
		return "nobody"
	case "scram-sha-256 md5":
		return "mdscram"
	}
	return "scrammy"
}

func start(t *testing.T, kind, at string) *pgserver.Server {
	t.Helper()
	lines := fmt.Sprintf(hba, kind, at, kind, at, kind, at, kind, at, kind, at)
	pg := pgtest.Start(t, pgserver.Options{TLS: true, HBA: lines})
	if _, err := pg.Psql(t.Context(), "postgres", roles); err != nil {
		t.Fatal(err)
	}
	return pg
}

func otherCertificate(t *testing.T) (cert, key string) {
	t.Helper()
	_, c, k, err := pgserver.MakeCertificate()
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(t.TempDir(), "crt"), filepath.Join(t.TempDir(), "key")
	for path, data := range map[string][]byte{cert: c, key: k} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// TestLogins tries every login that a report speaks of, by libpq through a relay, and holds
// the report to what happens.
func TestLogins(t *testing.T) {
	host, local := start(t, "host", "127.0.0.1/32"), start(t, "local", "")
	otherCert, otherKey := otherCertificate(t)
	tried := 0
	for _, leg := range []Leg{Plain, TLS, Unix} {
		for _, shown := range []string{"no certificate", "another certificate", "the server's certificate"} {
			t.Run(string(leg)+" "+shown, func(t *testing.T) {
				pg, c := host, config.Default()
				c.Upstream = pg.Addr()
				switch leg {
				case TLS:
					c.UpstreamTLS, c.UpstreamCA = config.TLSVerifyFull, pg.CAFile
				case Unix:
					pg = local
					c.Upstream = filepath.Join(pg.SocketDir, ".s.PGSQL."+strconv.Itoa(pg.Port))
				}
				switch shown {
				case "another certificate":
					c.TLSCert, c.TLSKey = otherCert, otherKey
				case "the server's certificate":
					c.TLSCert, c.TLSKey = pg.CertFile, pg.KeyFile
				}
				f, err := Examine(t.Context(), &c, "user=postgres dbname=postgres sslmode=disable")
				if err != nil {
					t.Fatal(err)
				}
				if f.Blind != nil || f.Unreachable != "" || f.BadCertificate != "" || f.ServerLeg != leg || f.Major < 13 || f.sameCert() != (shown == "the server's certificate" && leg != Unix) {
					t.Fatalf("facts: %+v", f)
				}
				if f.Roles == nil || f.Roles.MD5 != 2 || f.Roles.SCRAM != 4 {
					t.Errorf("roles: %+v", f.Roles)
				}
				relay := newRelay(t, &c)
				for _, l := range Diagnose(f).Logins {
					if slices.Equal(l.Users, []string{"postgres"}) || l.Result == Depends || l.Client == Plain && shown != "no certificate" {
						continue // the last: a client without TLS sees no certificate
					}
					tried++
					err := login(t.Context(), pg, relay, userOf(&l), l.Client, l.Binding)
					if (err == nil) != (l.Result == Works) {
						t.Errorf("line %d, %s %s, client %s, channel_binding=%s: the report says %s (%s), psql: %v", l.Line, l.Method, l.Verifier, l.Client, l.Binding, l.Result, l.Why, err)
					}
				}
			})
		}
	}
	t.Logf("%d logins tried", tried)
	if tried < 180 {
		t.Errorf("only %d logins were tried", tried)
	}
}

// login runs psql through a relay.
func login(ctx context.Context, pg *pgserver.Server, relay net.Addr, user string, client Leg, b Binding) error {
	psql, err := pg.Tool("psql")
	if err != nil {
		return err
	}
	host, port, _ := net.SplitHostPort(relay.String())
	mode := "disable"
	if client == TLS {
		mode = "require"
	}
	dsn := fmt.Sprintf("host=%s port=%s user=%s password=hush dbname=postgres sslmode=%s channel_binding=%s gssencmode=disable connect_timeout=10", host, port, user, mode, b)
	cmd := exec.CommandContext(ctx, psql, "-XAtq", "-d", dsn, "-c", "SELECT current_user")
	out, err := cmd.CombinedOutput()
	if text := strings.TrimSpace(string(out)); err != nil || text != user {
		return fmt.Errorf("%w: %s", err, text)
	}
	return nil
}

// newRelay starts a proxy that passes everything through: what a report is about.
func newRelay(t *testing.T, c *config.Config) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go pass(conn, c)
		}
	}()
	return l.Addr()
}

func pass(client net.Conn, c *config.Config) {
	defer client.Close()
	first := make([]byte, 8)
	if _, err := io.ReadFull(client, first); err != nil {
		return
	}
	if string(first) == sslRequest {
		first = nil
		if c.TLSCert == "" {
			io.WriteString(client, "N")
		} else {
			io.WriteString(client, "S")
			pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
			if err != nil {
				return
			}
			client = tls.Server(client, &tls.Config{Certificates: []tls.Certificate{pair}})
		}
	}
	network := "tcp"
	if strings.HasPrefix(c.Upstream, "/") {
		network = "unix"
	}
	server, err := net.Dial(network, c.Upstream)
	if err != nil {
		return
	}
	defer server.Close()
	secure, err := c.UpstreamTLSConfig()
	if err != nil {
		return
	}
	if secure != nil {
		if ok, err := offersTLS(server, time.Now().Add(time.Minute)); !ok || err != nil {
			return
		}
		server = tls.Client(server, secure)
	}
	if _, err := server.Write(first); err != nil {
		return
	}
	go func() {
		io.Copy(server, client)
		server.Close()
	}()
	io.Copy(client, server)
}

// TestExamine holds what a report says of servers that are not as they should be.
func TestExamine(t *testing.T) {
	pg := pgtest.Start(t, pgserver.Options{TLS: true})
	clear := pgtest.Server(t)
	if _, err := pg.Psql(t.Context(), "postgres", "CREATE ROLE small LOGIN"); err != nil {
		t.Fatal(err)
	}
	_, ca, _, err := pgserver.MakeCertificate()
	if err != nil {
		t.Fatal(err)
	}
	strange := filepath.Join(t.TempDir(), "ca")
	if err := os.WriteFile(strange, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, upstream, mode, ca, admin string
		want                            string // in the text
	}{
		{"no server", "127.0.0.1:1", "disable", "", "", "error: the proxy cannot reach the server: dial tcp 127.0.0.1:1: connect: connection refused"},
		{"no socket", "/nowhere/.s.PGSQL.5432", "disable", "", "", "error: the proxy cannot reach the server: dial unix"},
		{"no credentials", pg.Addr(), "disable", "", "", "warning: pg_hba.conf was not read: no credentials were given"},
		{"not a connection string", pg.Addr(), "disable", "", "password='x", "warning: pg_hba.conf was not read: --admin-dsn is not a connection string"},
		{"unknown role", pg.Addr(), "disable", "", "user=mallory dbname=postgres", "warning: pg_hba.conf was not read: connect as mallory"},
		{"small role", pg.Addr(), "disable", "", "user=small dbname=postgres", "read settings and pg_hba.conf: ERROR: permission denied for view pg_hba_file_rules"},
		{"no TLS on the server", clear.Addr(), "require", "", "", "it does not offer TLS, and upstream-tls asks for it"},
		{"unknown authority", pg.Addr(), "verify-full", strange, "", "error: the proxy does not accept the server's certificate: x509: certificate signed by unknown authority"},
		{"known authority", pg.Addr(), "verify-full", pg.CAFile, "", "certificate CN=localhost, ECDSA-SHA256, until "},
		{"another name", strings.Replace(pg.Addr(), "127.0.0.1", "127.0.0.2", 1), "verify-ca", strange, "", "error: the proxy cannot reach"},
		{"trust", pg.Addr(), "require", "", "user=postgres dbname=postgres", "whoever reaches the proxy can log in as anyone the line"},
		{"URI", pg.Addr(), "require", "", pg.URL("postgres"), "proxy   connects with TLS, seen there as 127.0.0.1"},
	} {
		c := config.Default()
		c.Upstream, c.UpstreamTLS, c.UpstreamCA = row.upstream, row.mode, row.ca
		f, err := Examine(t.Context(), &c, row.admin)
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		var b strings.Builder
		r := Diagnose(f)
		if err := r.Print(&b); err != nil || !strings.Contains(b.String(), row.want) {
			t.Errorf("%s: got\n%s\nwant in it %q", row.name, &b, row.want)
		}
		if text, err := json.Marshal(r); err != nil || !json.Valid(text) {
			t.Errorf("%s: JSON %s, %v", row.name, text, err)
		}
		if row.name == "trust" && r.OK {
			t.Error("trust for everybody is fine, says the report")
		}
	}
	c := config.Default()
	c.TLSCert, c.TLSKey = "/nowhere", "/nowhere"
	if _, err := Examine(t.Context(), &c, ""); err == nil {
		t.Error("Examine without the certificate's file succeeds")
	}
}

// TestLinesHelp puts the lines that a report recommends into pg_hba.conf and holds that the
// next report has nothing to complain about, and that a login works.
func TestLinesHelp(t *testing.T) {
	pg := pgtest.Start(t, pgserver.Options{TLS: true, HBA: "local all postgres trust\nhost all all all trust\nhost replication all all md5", Settings: map[string]string{"listen_addresses": "127.0.0.1,127.0.0.2"}})
	if _, err := pg.Psql(t.Context(), "postgres", "CREATE ROLE scrammy LOGIN PASSWORD 'hush'"); err != nil {
		t.Fatal(err)
	}
	c := config.Default()
	c.Upstream, c.UpstreamTLS, c.UpstreamCA, c.TLSCert, c.TLSKey = pg.Addr(), config.TLSVerifyFull, pg.CAFile, pg.CertFile, pg.KeyFile
	admin := fmt.Sprintf("host=%s user=postgres dbname=postgres", pg.SocketDir)
	diagnose := func() *Report {
		t.Helper()
		f, err := Examine(t.Context(), &c, admin)
		if err != nil || f.Blind != nil {
			t.Fatalf("facts: %+v, %v", f, err)
		}
		f.Listen = "*" // as it would be
		return Diagnose(f)
	}
	before := diagnose()
	if before.OK || len(before.Add) != 4 {
		t.Fatalf("before: %+v", before)
	}
	file := filepath.Join(pg.DataDir, "pg_hba.conf")
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Join(before.Add, "\n")+"\n"+string(old)), 0o600); err != nil {
		t.Fatal(err)
	}
	if after := diagnose(); !after.OK || len(after.Add) > 0 {
		var b strings.Builder
		after.Print(&b)
		t.Errorf("with these lines the report is\n%s", &b)
	}
	proc, err := os.FindProcess(pg.Pid())
	if err != nil {
		t.Fatal(err)
	}
	if err := proc.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	relay := newRelay(t, &c)
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		in := login(t.Context(), pg, relay, "scrammy", TLS, Require)
		around := exec.CommandContext(t.Context(), pg.Bin+"/psql", "-XAtq", "-d", fmt.Sprintf("host=127.0.0.1 port=%d user=trusty dbname=postgres sslmode=disable", pg.Port), "-c", "SELECT 1").Run()
		if in == nil && around != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("through the proxy: %v; around it: %v", in, around)
		}
	}
}

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }
