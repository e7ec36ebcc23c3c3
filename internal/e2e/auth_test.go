package e2e

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

const authHBA = `
local all all trust
host all postgres all trust
host all u_trust all trust
host all u_password all password
host all u_md5 all md5
host all u_scram all scram-sha-256
host all u_reject all reject`

const authRoles = `
CREATE ROLE u_trust LOGIN; CREATE ROLE u_reject LOGIN;
SET password_encryption = 'md5'; CREATE ROLE u_md5 LOGIN PASSWORD 'sesame-md5';
SET password_encryption = 'scram-sha-256'; CREATE ROLE u_scram LOGIN PASSWORD 'sesame-scram';
CREATE ROLE u_password LOGIN PASSWORD 'sesame-password';`

// TestAuthentication logs in by each method, rightly and wrongly, in plain text and by TLS, with
// the answers that the server itself gives. No password is anywhere in the log.
func TestAuthentication(t *testing.T) {
	s := pgtest.Start(t, pgserver.Options{HBA: authHBA})
	if _, err := s.Psql(t.Context(), "postgres", authRoles); err != nil {
		t.Fatal(err)
	}
	ca, cert, key := certificates(t)
	n := start(t, s.Addr(), "--tls-cert", cert, "--tls-key", key)
	for _, ssl := range []string{"sslmode=disable", "sslmode=require", "sslmode=verify-full sslrootcert=" + ca} {
		for _, tt := range []struct{ user, password string }{
			{"u_trust", ""},
			{"u_password", "sesame-password"},
			{"u_md5", "sesame-md5"},
			{"u_scram", "sesame-scram"},
			{"u_password", "wrong-password"},
			{"u_md5", "wrong-password"},
			{"u_scram", "wrong-password"},
			{"u_scram", ""},
			{"u_reject", "sesame-password"},
			{"missing", "sesame-password"},
		} {
			name := strings.Fields(ssl)[0] + "/" + tt.user + "/" + tt.password
			t.Run(name, func(t *testing.T) {
				login := func(port, ssl string) (string, error) {
					dsn := "host=localhost hostaddr=127.0.0.1 dbname=postgres user=" + tt.user + " port=" + port + " " + ssl
					out, err := tryTool(t, s, []string{"PGPASSWORD=" + tt.password, "PGPASSFILE=/dev/null"}, "", "psql", "-XAtqw", "-d", dsn, "-c", "SELECT current_user")
					return strings.ReplaceAll(out, port, "PORT"), err
				}
				got, err := login(port(n.addr), ssl)
				if want, wantErr := login(port(s.Addr()), "sslmode=disable"); (err == nil) != (wantErr == nil) || plain(got) != plain(want) {
					t.Errorf("psql: %q, %v\nwant  %q, %v", got, err, want, wantErr)
				}
			})
		}
	}
	all := n.finish(t)
	checkAuth(t, all)
	noSecrets(t, n.data, "sesame", "wrong-password")
	if strings.Contains(n.stderr(), "sesame") {
		t.Error("standard error has a password")
	}
}

// plain leaves out what the server says about the encryption of the leg it sees.
func plain(text string) string {
	return strings.NewReplacer(", no encryption", "", ", SSL encryption", "").Replace(text)
}

func checkAuth(t *testing.T, all []record) {
	t.Helper()
	find(t, all, "SELECT current_user")
	auths, users := ofKind(all, "auth"), map[string]int{}
	for _, r := range auths {
		users[r.User]++
	}
	for _, user := range []string{"u_trust", "u_password", "u_md5", "u_scram", "u_reject", "missing"} {
		if users[user] == 0 {
			t.Errorf("no auth entry for %s", user)
		}
	}
}

// noSecrets reads every file below dir.
func noSecrets(t *testing.T, dir string, secrets ...string) {
	t.Helper()
	files := filesBelow(t, dir)
	for path, data := range files {
		for _, secret := range secrets {
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s contains %q", path, secret)
			}
		}
	}
	if len(files) == 0 {
		t.Errorf("%s has no files", dir)
	}
}

// filesBelow returns the content of each file below dir, where a log may be
// running: it begins again when a file was renamed or removed meanwhile.
func filesBelow(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	for tries := 1; ; tries++ {
		files := map[string][]byte{}
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				files[path], err = os.ReadFile(path)
			}
			return err
		})
		if err == nil {
			return files
		}
		if !errors.Is(err, fs.ErrNotExist) || tries == 100 {
			t.Fatal(err)
		}
	}
}

// certificates writes an authority's certificate and one for localhost with its key.
func certificates(t *testing.T) (ca, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	caPEM, certPEM, keyPEM, err := pgserver.MakeCertificate()
	if err != nil {
		t.Fatal(err)
	}
	ca, cert, key = filepath.Join(dir, "ca.crt"), filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	for name, data := range map[string][]byte{ca: caPEM, cert: certPEM, key: keyPEM} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return ca, cert, key
}

// TestUpstream reaches the server by a Unix socket and by TLS.
func TestUpstream(t *testing.T) {
	s := pgtest.Start(t, pgserver.Options{TLS: true, HBA: "local all all trust\nhostssl all all all trust"})
	socket := filepath.Join(s.SocketDir, ".s.PGSQL."+port(s.Addr()))
	for _, tt := range []struct {
		name     string
		upstream string
		args     []string
		want     string // what the server says about its leg: address and TLS
	}{
		{"unix socket", socket, nil, "|f"},
		{"TLS", s.Addr(), []string{"--upstream-tls", "require"}, "127.0.0.1/32|t"},
		{"verified TLS", "localhost:" + port(s.Addr()), []string{"--upstream-tls", "verify-full", "--upstream-ca", s.CAFile}, "127.0.0.1/32|t"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := start(t, tt.upstream, tt.args...)
			const sql = "SELECT inet_client_addr(), ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
			out := tool(t, s, "", "psql", "-XAtqd", n.url("postgres"), "-c", sql)
			if strings.ReplaceAll(strings.TrimSpace(out), "127.0.0.1|", "127.0.0.1/32|") != tt.want {
				t.Errorf("psql printed %q, want %q", out, tt.want)
			}
			// More than a few reads and writes in each direction.
			out = tool(t, s, "", "psql", "-XAtqd", n.url("postgres"), "-c", "SELECT length('"+strings.Repeat("x", 100000)+"'), sum(length(repeat('y', 1000))) FROM generate_series(1, 5000)")
			if out != "100000|5000000\n" {
				t.Errorf("psql printed %q", out)
			}
			cancelWithPsql(t, n, s)
			find(t, n.finish(t), sql)
		})
	}
	t.Run("wrong authority", func(t *testing.T) {
		ca, _, _ := certificates(t)
		n := start(t, s.Addr(), "--upstream-tls", "verify-ca", "--upstream-ca", ca)
		out, err := tryTool(t, s, nil, "", "psql", "-XAtqd", n.url("postgres"), "-c", "SELECT 1")
		if err == nil || !strings.Contains(out, "FATAL") {
			t.Errorf("psql printed %q, %v", out, err)
		}
	})
}
