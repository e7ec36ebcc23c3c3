package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// TestPage drives the page in Chromium: ui/test/page.browser.mjs has what is
// expected. With PAGE_PICTURES=DIR it leaves the pictures of docs there.
func TestPage(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgserver.Options{}) // it gets a role of its own
	tokens := filepath.Join(t.TempDir(), "tokens")
	secret := func(name, role string) string {
		out, err := exec.CommandContext(t.Context(), program, "token", "--name", name, "--role", role, "--file", tokens).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	investigator, auditor := secret("iris", "investigator"), secret("ada", "auditor")
	n := start(t, s.Addr(), "--http-tokens", tokens)
	pageWorkload(t, n)

	// Something to see while the page is open, until the browser has ended.
	ticks := connect(t, n.url("postgres"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1) // one value
	go func() { done <- tick(ctx, ticks) }()

	cmd := exec.CommandContext(ctx, "node", "--test", "--test-reporter=spec", "test/page.browser.mjs")
	cmd.Dir = filepath.Join("..", "..", "ui")
	cmd.Env = append(os.Environ(), "PAGE_URL=http://"+n.http, "PAGE_INVESTIGATOR="+investigator, "PAGE_AUDITOR="+auditor)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v:\n%s", err, out)
	} else {
		t.Logf("%s", out)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// tick runs ten statements a second until ctx ends.
func tick(ctx context.Context, c *pgx.Conn) error {
	every := time.NewTicker(100 * time.Millisecond)
	defer every.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
		if _, err := c.PgConn().Exec(context.WithoutCancel(ctx), fmt.Sprintf("SELECT 'tick %d'", i)).ReadAll(); err != nil {
			return err
		}
	}
}

// pageWorkload leaves statements of all sorts in the log.
func pageWorkload(t *testing.T, n *notary) {
	t.Helper()
	ctx := t.Context()
	admin := connect(t, n.url("postgres")+"&application_name=admin")
	run := func(c *pgx.Conn, sql string, args ...any) {
		t.Helper()
		if _, err := c.Exec(ctx, sql, args...); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	for _, sql := range []string{
		"CREATE TABLE accounts (id int PRIMARY KEY, owner text NOT NULL, balance numeric NOT NULL)",
		"CREATE ROLE alice LOGIN", "GRANT SELECT, UPDATE ON accounts TO alice",
		"SELECT '<img src=x onerror=alert(1)>', 'Ünïcödé ✓ 漢字'", "SELECT pg_sleep(1.1)",
		"DO $$ BEGIN RAISE NOTICE 'nightly job: % accounts', 3; END $$",
	} {
		if _, err := admin.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	if _, err := admin.CopyFrom(ctx, pgx.Identifier{"accounts"}, []string{"id", "owner", "balance"},
		pgx.CopyFromRows([][]any{{1, "alice", 120.5}, {2, "bob", 75}, {3, "carol", 0}})); err != nil {
		t.Fatal(err)
	}
	alice := connect(t, strings.Replace(n.url("postgres"), "postgres@", "alice@", 1)+"&application_name=billing")
	run(alice, "SELECT owner, balance FROM accounts WHERE id = $1", 2)
	run(alice, "BEGIN")
	run(alice, "UPDATE accounts SET balance = balance - $1 WHERE owner = $2", 20, "alice")
	run(alice, "UPDATE accounts SET balance = balance + $1 WHERE owner = $2", 20, "bob")
	run(alice, "COMMIT")
	run(alice, "BEGIN")
	if _, err := alice.Exec(ctx, "UPDATE accounts SET balance = balance * $1 WHERE owner = $2", 1000000, "alice"); err != nil {
		t.Fatal(err)
	}
	run(alice, "ROLLBACK")
	_, err := alice.Exec(ctx, "DELETE FROM accounts")
	if denied, ok := errors.AsType[*pgconn.PgError](err); !ok || denied.Code != "42501" {
		t.Fatalf("delete without permission: %v", err)
	}
	if err := alice.Close(ctx); err != nil {
		t.Fatal(err)
	}
}
