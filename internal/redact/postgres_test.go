package redact

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

const fixtures = `
CREATE EXTENSION dblink; CREATE EXTENSION postgres_fdw;
CREATE ROLE bob; CREATE ROLE alice; CREATE ROLE "b''ob";
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;
CREATE USER MAPPING FOR alice SERVER far OPTIONS (user 'alice', password 'x');
CREATE FOREIGN DATA WRAPPER free; CREATE SERVER wide FOREIGN DATA WRAPPER free;
`

// TestPostgreSQL runs every sample, and what is left of it, on a real server: both are good, or
// the server refuses the sample for its syntax.
func TestPostgreSQL(t *testing.T) {
	pg := pgtest.Server(t)
	ctx := t.Context()
	if _, err := pg.Psql(ctx, "postgres", fixtures); err != nil {
		t.Fatal(err)
	}
	conn, err := pgconn.Connect(ctx, pg.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, s := range samples() {
		for _, sql := range []string{s.sql, replaced(s.sql, s.options())} {
			err := run(ctx, conn, s, sql)
			var refusal *pgconn.PgError
			switch {
			case s.refused && sql == s.sql && (!errors.As(err, &refusal) || refusal.Code != "42601"):
				t.Errorf("%s: %q: the server says %v, want a syntax error", s.name, sql, err)
			case !s.refused && err != nil:
				t.Errorf("%s: %q: %v", s.name, sql, err)
			}
		}
	}
}

// run runs SQL in a transaction that is rolled back, with the settings of a sample.
func run(ctx context.Context, conn *pgconn.PgConn, s sample, sql string) error {
	on := "on"
	if s.off {
		on = "off"
	}
	encoding := s.encoding
	if encoding == "" {
		encoding = "UTF8"
	}
	for _, before := range []string{"SET standard_conforming_strings = " + on, "SET escape_string_warning = off", "SET backslash_quote = on", "SET client_encoding = '" + encoding + "'", "BEGIN"} {
		if _, err := conn.Exec(ctx, before).ReadAll(); err != nil {
			return err
		}
	}
	_, err := conn.Exec(ctx, sql).ReadAll()
	if _, err := conn.Exec(ctx, "ROLLBACK; DEALLOCATE ALL").ReadAll(); err != nil {
		return err
	}
	return err
}
