package pgserver_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/pgserver"
)

func TestStartStop(t *testing.T) {
	s, err := pgserver.Start(t.Context(), pgserver.Options{
		Settings: map[string]string{"work_mem": "7MB", "cluster_name": "it's"},
		TLS:      true,
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Psql(t.Context(), "postgres", "SHOW work_mem; SHOW cluster_name; SELECT current_user")
	if want := "7MB\nit's\npostgres\n"; err != nil || got != want {
		t.Errorf("Psql = %q, %v, want %q", got, err, want)
	}
	if _, err := s.Psql(t.Context(), "postgres", "SELECT 1/0"); err == nil || !strings.Contains(err.Error(), "division by zero") {
		t.Errorf("Psql of an error = %v", err)
	}
	if log, err := os.ReadFile(s.LogFile); err != nil || !strings.Contains(string(log), "division by zero") {
		t.Errorf("server log = %q, %v", log, err)
	}
	if _, err := os.Stat(filepath.Join(s.SocketDir, ".s.PGSQL."+s.Addr()[len(s.Host)+1:])); err != nil {
		t.Error(err)
	}
	handshake(t, s)

	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory after Stop: %v", err)
	}
	if _, err := net.Dial("tcp", s.Addr()); err == nil {
		t.Error("somebody still listens after Stop")
	}
	if err := s.Stop(); err != nil {
		t.Errorf("second Stop: %v", err)
	}
}

// handshake checks that the server's certificate is the one of its authority.
func handshake(t *testing.T, s *pgserver.Server) {
	t.Helper()
	ca, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}); err != nil {
		t.Fatal(err)
	}
	var answer [1]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil || answer[0] != 'S' {
		t.Fatalf("SSLRequest answered by %q, %v", answer, err)
	}
	if err := tls.Client(c, &tls.Config{RootCAs: pool, ServerName: "localhost"}).Handshake(); err != nil {
		t.Error(err)
	}
}

func TestFind(t *testing.T) {
	t.Setenv(pgserver.BinEnv, t.TempDir())
	if dir, err := pgserver.Find(t.Context()); err == nil || !strings.Contains(err.Error(), pgserver.BinEnv) {
		t.Errorf("Find in an empty directory = %q, %v", dir, err)
	}
	t.Setenv(pgserver.BinEnv, "")
	dir, err := pgserver.Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(pgserver.BinEnv, dir)
	if again, err := pgserver.Find(t.Context()); err != nil || again != dir {
		t.Errorf("Find with $%s = %q, %v, want %q", pgserver.BinEnv, again, err, dir)
	}
}

func TestStartError(t *testing.T) {
	parent := t.TempDir()
	for dir := parent; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	_, err := pgserver.Start(t.Context(), pgserver.Options{TempParent: parent, Settings: map[string]string{"work_mem": "none"}})
	if err == nil || !strings.Contains(err.Error(), "work_mem") {
		t.Errorf("Start with a bad setting = %v", err)
	}
	if left, _ := os.ReadDir(parent); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
