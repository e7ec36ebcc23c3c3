package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// workload runs one of each kind of statement as two users through the proxy at addr.
func (d *demo) workload(ctx context.Context, addr string) error {
	admin, err := connect(ctx, addr, "postgres")
	if err != nil {
		return err
	}
	defer admin.Close(ctx)
	d.say("simple query: four statements in one message")
	// In a schema of her own she can make tables; from PostgreSQL 15 on not in public.
	if _, err := admin.PgConn().Exec(ctx, `CREATE ROLE alice LOGIN;
		CREATE TABLE accounts (id int PRIMARY KEY, owner text NOT NULL, balance numeric NOT NULL);
		GRANT SELECT, UPDATE ON accounts TO alice;
		CREATE SCHEMA AUTHORIZATION alice`).ReadAll(); err != nil {
		return fmt.Errorf("make table: %w", err)
	}
	d.say("COPY: three rows")
	rows := [][]any{{1, "alice", 120.50}, {2, "bob", 75}, {3, "carol", 0}}
	if _, err := admin.CopyFrom(ctx, pgx.Identifier{"accounts"}, []string{"id", "owner", "balance"}, pgx.CopyFromRows(rows)); err != nil {
		return fmt.Errorf("copy rows: %w", err)
	}
	alice, err := connect(ctx, addr, "alice")
	if err != nil {
		return err
	}
	defer alice.Close(ctx)
	return d.statementsOf(ctx, alice)
}

func (d *demo) statementsOf(ctx context.Context, alice *pgx.Conn) error {
	d.say("prepared statement with a binary parameter, twice")
	if _, err := alice.Prepare(ctx, "by_id", "SELECT owner, balance::float8 FROM accounts WHERE id = $1"); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	for _, id := range []int32{1, 2} {
		var owner string
		var balance float64
		if err := alice.QueryRow(ctx, "by_id", id).Scan(&owner, &balance); err != nil {
			return fmt.Errorf("read account %d: %w", id, err)
		}
	}
	d.say("transaction that is rolled back")
	tx, err := alice.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	if _, err := tx.Exec(ctx, "UPDATE accounts SET balance = balance + $1 WHERE owner = $2", 1000000, "alice"); err != nil {
		return fmt.Errorf("update: %w", err)
	}
	if err := tx.Rollback(ctx); err != nil {
		return fmt.Errorf("roll back: %w", err)
	}
	d.say("statement that fails: permission denied")
	_, err = alice.Exec(ctx, "DELETE FROM accounts")
	if denied, ok := errors.AsType[*pgconn.PgError](err); !ok || denied.Code != "42501" {
		return fmt.Errorf("delete without permission: %w", errors.Join(errors.New("it was not refused"), err))
	}
	return nil
}

// connect opens a connection through the proxy.
func connect(ctx context.Context, addr, user string) (*pgx.Conn, error) {
	u := url.URL{
		Scheme: "postgres", User: url.User(user), Host: addr, Path: "postgres",
		RawQuery: "sslmode=disable&application_name=demo&connect_timeout=10",
	}
	conn, err := pgx.Connect(ctx, u.String())
	if err != nil {
		return nil, fmt.Errorf("connect through the proxy as %s: %w", user, err)
	}
	return conn, nil
}
