package verifiers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// TestFunction sets the function up as the documentation says, with a role that may nothing else.
func TestFunction(t *testing.T) {
	pg := pgtest.Start(t, pgserver.Options{HBA: "local all all trust\nhost all postgres all trust\nhost all all all scram-sha-256"})
	run := func(sql string) string {
		t.Helper()
		out, err := pg.Psql(t.Context(), "postgres", sql)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	role := `the "notary"`
	setup, _, _ := strings.Cut(SetupFor(role), "--")
	_, rest, _ := strings.Cut(SetupFor(role), "\n")
	run(setup + "\n" + rest + `
SET password_encryption = 'scram-sha-256'; -- not the default before 14
ALTER ROLE "the ""notary""" PASSWORD 'own secret';
CREATE ROLE alice LOGIN PASSWORD 'a'; CREATE ROLE group_role PASSWORD 'g'; CREATE ROLE nopass LOGIN;
CREATE ROLE evil LOGIN PASSWORD 'e';
SET password_encryption = 'md5'; CREATE ROLE old LOGIN PASSWORD 'o';
-- What an attacker might put in the way, if names were looked for by a search path.
CREATE SCHEMA trap; GRANT ALL ON SCHEMA trap, public TO PUBLIC;
CREATE FUNCTION trap.verifier(text) RETURNS text LANGUAGE sql AS 'SELECT ''trapped''';
CREATE FUNCTION public.eq(name, name) RETURNS bool LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = name, FUNCTION = public.eq);
CREATE FUNCTION public.verifier(text) RETURNS text LANGUAGE sql AS 'SELECT ''trapped''';
ALTER ROLE "the ""notary""" SET search_path = trap, public, pg_catalog;`)
	passfile := filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(passfile, []byte("127.0.0.1:*:*:*:own secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PGOPTIONS", "-c search_path=trap")
	f, err := NewFunction(FunctionConfig{Host: pg.Host, Port: strconv.Itoa(pg.Port), User: role, Database: "postgres", Passfile: passfile})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := strings.TrimSpace(run("SELECT rolpassword FROM pg_authid WHERE rolname = 'alice'"))
	check := func() {
		t.Helper()
		v, err := f.Verifier(t.Context(), "alice")
		if err != nil || v == nil || v.Encode() != want {
			t.Fatalf("verifier of alice: %v, is the right one: %v", err, v != nil && v.Encode() == want)
		}
	}
	check()
	for _, user := range []string{"missing", "old", "nopass", "group_role", "", "ALICE", "alice' --"} {
		if v, err := f.Verifier(t.Context(), user); v != nil || err != nil {
			t.Errorf("verifier of %q = %v, %v", user, v, err)
		}
	}

	// The connection may end at any time; the next login does not notice.
	run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgnotary'")
	check()

	// Others may not ask.
	if out := run(`SELECT has_function_privilege('evil', 'pgnotary.verifier(text)', 'EXECUTE')::text || has_schema_privilege('evil', 'pgnotary', 'USAGE')::text`); out != "falsefalse\n" {
		t.Errorf("another role may ask: %s", out)
	}
	run("REVOKE EXECUTE ON FUNCTION pgnotary.verifier(text) FROM " + `"the ""notary"""`)
	if v, err := f.Verifier(t.Context(), "alice"); err == nil || v != nil || !strings.Contains(err.Error(), "42501") {
		t.Errorf("verifier without the right to it: %v, %v", v, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if v, err := f.Verifier(ctx, "alice"); err == nil || v != nil {
		t.Errorf("verifier when the time is up: %v, %v", v, err)
	}
	// Nobody waits longer for his turn than he has time.
	f.turn <- struct{}{}
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if v, err := f.Verifier(ctx, "alice"); !errors.Is(err, context.DeadlineExceeded) || v != nil {
		t.Errorf("verifier while another one asks: %v, %v", v, err)
	}
	<-f.turn
	f.Close()
	f.Close()
}

// TestFunctionUnreachable asks a server that is not there, and settings that are none.
func TestFunctionUnreachable(t *testing.T) {
	f, err := NewFunction(FunctionConfig{Host: "127.0.0.1", Port: "1", User: "u", Database: "d"})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := f.Verifier(t.Context(), "alice"); err == nil || v != nil {
		t.Errorf("verifier from nowhere: %v, %v", v, err)
	}
	if _, err := NewFunction(FunctionConfig{Host: "127.0.0.1", Port: "port", User: "u"}); err == nil {
		t.Error("a port that is none is accepted")
	}
}
