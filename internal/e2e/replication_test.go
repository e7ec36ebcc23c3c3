package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// oracleReplication copies a server by its physical and its logical protocol.
func oracleReplication(t *testing.T, o *oracle) {
	s, dir := o.server, t.TempDir()
	base := []string{"-h", "127.0.0.1", "-p", port(o.notary.addr), "-U", "postgres"}
	run := func(name string, args ...string) {
		t.Helper()
		tool(t, s, "", name, append(base[:len(base):len(base)], args...)...)
	}
	sql := func(text string) string {
		t.Helper()
		return strings.TrimSpace(tool(t, s, text, "psql", "-XAtq", "-d", o.notary.url("postgres")))
	}
	run("pg_basebackup", "-X", "stream", "-D", filepath.Join(dir, "base"), "-c", "fast")
	if _, err := os.Stat(filepath.Join(dir, "base", "PG_VERSION")); err != nil {
		t.Error(err)
	}
	wal := filepath.Join(dir, "wal")
	if err := os.Mkdir(wal, 0o700); err != nil {
		t.Fatal(err)
	}
	end := sql("CREATE TABLE streamed (i int); INSERT INTO streamed SELECT generate_series(1, 1000); SELECT pg_current_wal_lsn(); SELECT pg_switch_wal()")
	run("pg_receivewal", "-D", wal, "--endpos", strings.Fields(end)[0], "-n")
	changes := filepath.Join(dir, "changes")
	run("pg_recvlogical", "-d", "postgres", "--slot", "e2e", "--create-slot", "-P", "test_decoding")
	end = sql("INSERT INTO streamed VALUES (4711); SELECT pg_current_wal_lsn()")
	run("pg_recvlogical", "-d", "postgres", "--slot", "e2e", "--start", "-f", changes, "--endpos", end)
	for deadline := time.Now().Add(patience); sql("SELECT active FROM pg_replication_slots WHERE slot_name = 'e2e'") != "f"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) { // before 17 pg_recvlogical does not wait for the server to let go of it
			t.Fatal("the replication slot is still in use")
		}
	}
	run("pg_recvlogical", "-d", "postgres", "--slot", "e2e", "--drop-slot")
	if text, err := os.ReadFile(changes); err != nil || !strings.Contains(string(text), "4711") {
		t.Errorf("pg_recvlogical wrote %q, %v", text, err)
	}
	subscribe(t, o)
}

// subscribe lets another server subscribe to a table by way of pgnotary.
func subscribe(t *testing.T, o *oracle) {
	t.Helper()
	other := pgtest.Server(t)
	sql := func(text string) string {
		t.Helper()
		out, err := other.Psql(t.Context(), "postgres", text)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	publisher := func(text string) {
		t.Helper()
		tool(t, o.server, text, "psql", "-XAtq", "-d", o.notary.url("postgres"))
	}
	publisher("CREATE PUBLICATION e2e FOR TABLE streamed")
	sql("CREATE TABLE streamed (i int)")
	sql("CREATE SUBSCRIPTION e2e CONNECTION 'host=127.0.0.1 port=" + port(o.notary.addr) + " user=postgres dbname=postgres' PUBLICATION e2e")
	deadline := time.Now().Add(patience)
	for sql("SELECT count(*) FROM streamed") != "1001" {
		if time.Now().After(deadline) {
			t.Fatal("the subscription copied nothing")
		}
		time.Sleep(50 * time.Millisecond)
	}
	publisher("INSERT INTO streamed VALUES (4712)")
	for sql("SELECT count(*) FROM streamed WHERE i = 4712") != "1" {
		if time.Now().After(deadline) {
			t.Fatal("the subscription streamed nothing")
		}
		time.Sleep(50 * time.Millisecond)
	}
	sql("DROP SUBSCRIPTION e2e")
	sql("DROP TABLE streamed")
}
