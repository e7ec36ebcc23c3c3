package e2e

import (
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgraw"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// TestNewest runs the newest libpq against PostgreSQL 18: protocol 3.2 with
// its long cancel keys, and TLS without asking for it first.
func TestNewest(t *testing.T) {
	bin, lib := major(t, "18")
	s := pgtest.Start(t, pgserver.Options{Bin: bin, TLS: true})
	older := pgtest.Server(t) // its psql will use the newer library
	if _, err := older.Psql(t.Context(), "postgres", "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	psql := func(t *testing.T, dsn, script string) (string, error) {
		t.Helper()
		return tryTool(t, older, []string{"LD_LIBRARY_PATH=" + lib}, script, "psql", "-XAtqd", dsn, "-f", "-")
	}
	ca, cert, key := certificates(t)
	n := start(t, s.Addr(), "--tls-cert", cert, "--tls-key", key)
	dsn := func(more string) string {
		return "host=localhost hostaddr=127.0.0.1 dbname=postgres user=postgres port=" + port(n.addr) + " " + more
	}
	t.Run("psql", func(t *testing.T) {
		for _, more := range []string{
			"sslmode=disable max_protocol_version=3.2",
			"sslmode=disable min_protocol_version=3.2 max_protocol_version=latest",
			"sslmode=require",
			"sslmode=verify-full sslrootcert=" + ca + " min_protocol_version=3.2 max_protocol_version=3.2",
			"sslmode=require sslnegotiation=direct",
			"sslmode=verify-full sslnegotiation=direct min_protocol_version=3.2 max_protocol_version=3.2 sslrootcert=" + ca,
		} {
			out, err := psql(t, dsn(more), "SELECT 'by "+strings.Fields(more)[0]+"', length('"+strings.Repeat("x", 50000)+"');\nSELECT 1;\n")
			if err != nil || !strings.HasSuffix(out, "|50000\n1\n") {
				t.Errorf("%s: %q, %v", more, out, err)
			}
		}
	})
	t.Run("cancel with a long key", func(t *testing.T) { cancelLong(t, n, s) })
	for _, r := range ofKind(n.finish(t), "cancel") {
		if r.Client == "" {
			t.Errorf("a cancel without its client: %+v", r)
		}
	}
}

// cancelLong cancels a statement of a session that speaks 3.2.
func cancelLong(t *testing.T, n *notary, s *pgserver.Server) {
	c, err := pgraw.Dial(n.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Send(pgraw.Startup(3<<16|2, "user", "postgres"), query("SELECT pg_sleep(630)")); err != nil {
		t.Fatal(err)
	}
	var k []byte
	ms, err := c.Until('Z')
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		if m.Type == 'K' {
			k = m.Body
		}
	}
	if len(k) != 36 {
		t.Fatalf("key data of %d bytes, want 36", len(k))
	}
	running(t, s.Addr(), "SELECT pg_sleep(630)")
	r, err := pgraw.Dial(n.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Conn.Close()
	request := append([]byte{0, 0, 0, byte(8 + len(k)), 0x04, 0xd2, 0x16, 0x2e}, k...)
	if err := r.Send(request); err != nil {
		t.Fatal(err)
	}
	if ms, err = c.Until('Z'); err != nil {
		t.Fatal(err)
	}
	if got := masked(ms[len(ms)-2], true); got != "E ERROR 57014" {
		t.Errorf("cancelled statement ended with %s", got)
	}
}
