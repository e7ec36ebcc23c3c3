package verifiers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgnotary/pgnotary/internal/config"
	"github.com/pgnotary/pgnotary/internal/scram"
)

// Setup is what a superuser has to run in the database that Function.Database names, with the role
// of Function.User in the place of the two %[1]s: a function that hands out SCRAM verifiers, and nothing
// else of pg_authid, to that role alone. No MD5 hash leaves the server, with which one could log in.
const Setup = `CREATE ROLE %[1]s LOGIN;  -- then: \password %[1]s
CREATE SCHEMA pgnotary;
CREATE FUNCTION pgnotary.verifier(who text) RETURNS text
  LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $$ SELECT a.rolpassword FROM pg_catalog.pg_authid a
        WHERE a.rolname = who::pg_catalog.name AND a.rolcanlogin AND a.rolpassword LIKE 'SCRAM-SHA-256$%%' $$;
REVOKE ALL ON FUNCTION pgnotary.verifier(text) FROM PUBLIC;
GRANT USAGE ON SCHEMA pgnotary TO %[1]s;
GRANT EXECUTE ON FUNCTION pgnotary.verifier(text) TO %[1]s;`

// SetupFor returns Setup for a role.
func SetupFor(user string) string {
	return fmt.Sprintf(Setup, `"`+strings.ReplaceAll(user, `"`, `""`)+`"`)
}

// lookup names the function with its schema and its argument with its type, so that no search
// path and no other function of that name can come between.
const lookup = "SELECT pgnotary.verifier($1::pg_catalog.text)"

// A Function asks the server, on a connection of its own that knows nothing of a client's
// start-up settings. Its methods may be called concurrently; they take turns.
type Function struct {
	conf *pgconn.Config

	turn chan struct{}  // holds one value while the server is asked
	conn *pgconn.PgConn // of whoever has the turn
}

// FunctionConfig says where to ask.
type FunctionConfig struct {
	Host, Port string      // of the server; a directory is that of its socket
	TLS        *tls.Config // nil speaks in the clear
	User       string
	Database   string
	Passfile   string // as libpq's; empty means its default
}

// ConfigOf takes from a proxy's settings where to ask; secure is its TLS towards the server.
func ConfigOf(c *config.Config, secure *tls.Config) FunctionConfig {
	host, port := c.UpstreamHost()
	return FunctionConfig{Host: host, Port: port, TLS: secure, User: c.AuthUser, Database: c.AuthDatabase, Passfile: c.AuthPassfile}
}

// NewFunction connects when it is asked first.
func NewFunction(c FunctionConfig) (*Function, error) {
	dsn := ""
	for _, kv := range [][2]string{
		{"host", c.Host}, {"port", c.Port}, {"user", c.User}, {"dbname", c.Database}, {"passfile", c.Passfile}, {"sslmode", "disable"},
	} {
		if kv[1] != "" {
			dsn += kv[0] + "='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(kv[1]) + "' "
		}
	}
	conf, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return nil, errors.New("settings of the connection for verifiers cannot be used") // the text may hold a password
	}
	conf.TLSConfig, conf.Fallbacks = c.TLS, nil
	conf.RuntimeParams = map[string]string{"application_name": "pgnotary", "search_path": "pg_catalog", "statement_timeout": "5s"}
	return &Function{conf: conf, turn: make(chan struct{}, 1)}, nil
}

// Verifier asks for the verifier of a user; nil if there is none.
func (f *Function) Verifier(ctx context.Context, user string) (*scram.Verifier, error) {
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for others who ask the server for a verifier: %w", ctx.Err())
	}
	used := f.conn != nil
	text, err := f.ask(ctx, user)
	if err != nil && used && stale(err) && ctx.Err() == nil {
		text, err = f.ask(ctx, user) // the connection had ended since it was last used
	}
	if err != nil {
		return nil, fmt.Errorf("ask the server for a verifier: %w", err)
	}
	if text == nil {
		return nil, nil
	}
	defer clear(text)
	v, err := scram.ParseVerifier(string(text))
	if err != nil {
		return nil, fmt.Errorf("ask the server for a verifier: %w", err)
	}
	return v, nil
}

// stale reports an error of the connection rather than of the server.
func stale(err error) bool {
	var refused *pgconn.PgError
	return !errors.As(err, &refused) || strings.HasPrefix(refused.Code, "57P")
}

func (f *Function) ask(ctx context.Context, user string) (text []byte, err error) {
	if f.conn != nil && f.conn.IsClosed() {
		f.conn = nil
	}
	if f.conn == nil {
		if f.conn, err = pgconn.ConnectConfig(ctx, f.conf); err != nil {
			f.conn = nil
			return nil, err
		}
	}
	result := f.conn.ExecParams(ctx, lookup, [][]byte{[]byte(user)}, nil, nil, nil).Read()
	switch {
	case result.Err != nil:
		f.close()
		return nil, result.Err
	case len(result.Rows) != 1 || len(result.Rows[0]) != 1:
		return nil, errors.New("the function did not return one value")
	}
	return result.Rows[0][0], nil
}

// Close ends the connection.
func (f *Function) Close() {
	f.turn <- struct{}{}
	defer func() { <-f.turn }()
	f.close()
}

func (f *Function) close() {
	if f.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = f.conn.Close(ctx) // it ends in any case
	f.conn = nil
}
