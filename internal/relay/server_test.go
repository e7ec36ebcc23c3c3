package relay

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// These tests run against a real PostgreSQL.

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func TestQueries(t *testing.T) {
	pg := pgtest.Server(t)
	for _, mode := range []Mode{BeforeForward, BeforeReply, Async} {
		log := newMemLog(time.Millisecond)
		g := start(t, Config{Upstream: pg.Addr(), Mode: mode}, log)
		conn := connect(t, g.url("sslmode=disable"))
		for i := range 20 {
			var n int
			if err := conn.QueryRow(t.Context(), "select $1::int + 1", i).Scan(&n); err != nil || n != i+1 {
				t.Fatalf("mode %d: got %d, %v", mode, n, err)
			}
		}
		rows, err := conn.Query(t.Context(), "select repeat('x', 1000) from generate_series(1, 20000)", pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for rows.Next() {
			n++
		}
		if rows.Err() != nil || n != 20000 {
			t.Errorf("mode %d: got %d rows, %v", mode, n, rows.Err())
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
		waitFor(t, "session ended", func() bool { return g.Metrics().SessionsOpen.Load() == 0 })
		if n := g.Metrics().Statements.Load(); n < 21 {
			t.Errorf("mode %d: counted %d statements, want at least 21", mode, n)
		}
		if _, err := log.entries(); err != nil {
			t.Errorf("mode %d: %v", mode, err)
		}
	}
}

func TestCopy(t *testing.T) {
	pg := pgtest.Server(t)
	for _, mode := range []Mode{BeforeForward, BeforeReply} {
		g := start(t, Config{Upstream: pg.Addr(), Mode: mode}, newMemLog(time.Millisecond))
		conn := connect(t, g.url("sslmode=disable"))
		if _, err := conn.Exec(t.Context(), "create temp table c (n int, s text)"); err != nil {
			t.Fatal(err)
		}
		rows := make([][]any, 50000)
		for i := range rows {
			rows[i] = []any{int32(i), strings.Repeat("y", i%300)}
		}
		n, err := conn.CopyFrom(t.Context(), pgx.Identifier{"c"}, []string{"n", "s"}, pgx.CopyFromRows(rows))
		if err != nil || n != int64(len(rows)) {
			t.Fatalf("copied %d, %v", n, err)
		}
		var out bytes.Buffer
		tag, err := conn.PgConn().CopyTo(t.Context(), &out, "copy c to stdout")
		if err != nil || tag.RowsAffected() != int64(len(rows)) || bytes.Count(out.Bytes(), []byte("\n")) != len(rows) {
			t.Fatalf("copied out %v, %v", tag, err)
		}
	}
}

// TestLargeValue sends a statement that the session keeps as a blob.
func TestLargeValue(t *testing.T) {
	log := newMemLog(0)
	log.blobDelay = 20 * time.Millisecond
	g := start(t, Config{Upstream: pgtest.Server(t).Addr()}, log)
	conn := connect(t, g.url("sslmode=disable"))
	for _, size := range []int{100 << 10, 300 << 10, 3 << 20} {
		var n int
		if err := conn.QueryRow(t.Context(), "select length($1)", strings.Repeat("z", size)).Scan(&n); err != nil || n != size {
			t.Fatalf("size %d: got %d, %v", size, n, err)
		}
		sql := "select length('" + strings.Repeat("z", size) + "')"
		if err := conn.QueryRow(t.Context(), sql, pgx.QueryExecModeSimpleProtocol).Scan(&n); err != nil || n != size {
			t.Fatalf("simple, size %d: got %d, %v", size, n, err)
		}
	}
}

// running waits until the server runs a statement that begins so, in n sessions.
func running(t *testing.T, pg *pgserver.Server, n int, sql string) {
	t.Helper()
	waitFor(t, sql+" at the server", func() bool {
		out, err := pg.Psql(t.Context(), "postgres", "select count(*) from pg_stat_activity where state = 'active' and query like '"+sql+"%'")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out) == strconv.Itoa(n)
	})
}

func TestCancelRunning(t *testing.T) {
	pg := pgtest.Server(t)
	for _, options := range []string{"sslmode=disable", "sslmode=require"} {
		log := newMemLog(time.Millisecond)
		g := start(t, Config{Upstream: pg.Addr(), TLS: testCertificate(t)}, log)
		conn := connect(t, g.url(options))
		ended := make(chan error, 1)
		go func() {
			_, err := conn.Exec(t.Context(), "select pg_sleep(600)")
			ended <- err
		}()
		running(t, pg, 1, "select pg_sleep(600)")
		if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
			t.Error(err)
		}
		err := <-ended
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || pgErr.Code != "57014" {
			t.Fatalf("got %v, want 57014", err)
		}
		if _, err := conn.Exec(t.Context(), "select 1"); err != nil {
			t.Errorf("statement after the cancel: %v", err)
		}
		all, err := log.entries()
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, l := range all {
			if l.Kind == event.KindCancel {
				of, ok := event.Index(l.Of)
				found = ok && all[of].Kind == event.KindConnect && l.Facts[0].Val == sessionID(all[of].Session)
			}
		}
		if !found {
			t.Errorf("no cancel entry that names the session")
		}
	}
}

func TestClientTLS(t *testing.T) {
	log := newMemLog(0)
	g := start(t, Config{Upstream: pgtest.Server(t).Addr(), TLS: testCertificate(t)}, log)
	for _, options := range []string{"sslmode=require", "sslmode=require&sslnegotiation=direct"} {
		conn := connect(t, g.url(options))
		for i := range 50 {
			want := strings.Repeat("w", i*1000)
			var got string
			if err := conn.QueryRow(t.Context(), "select $1", want).Scan(&got); err != nil || got != want {
				t.Fatalf("%s: got %d bytes, %v", options, len(got), err)
			}
		}
		conn.Close(t.Context())
	}
	all, err := log.entries()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, l := range all {
		if l.Kind == event.KindConnect && fact(l, "tls") == "TLSv1.3" && fact(l, "tls_cipher") != "" {
			n++
		}
	}
	if n != 2 {
		t.Errorf("%d connect entries tell of TLS, want 2", n)
	}
}

func fact(l event.Leaf, key string) string {
	for _, f := range l.Facts {
		if f.Key == key {
			return f.Val
		}
	}
	return ""
}

func TestUpstreamTLS(t *testing.T) {
	pg := pgtest.Start(t, pgserver.Options{TLS: true})
	pem, err := os.ReadFile(pg.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	g := start(t, Config{Upstream: pg.Addr(), UpstreamTLS: &tls.Config{RootCAs: pool}, TLS: testCertificate(t)}, newMemLog(0))
	for _, options := range []string{"sslmode=disable", "sslmode=require&channel_binding=disable"} {
		conn := connect(t, g.url(options))
		var used bool
		if err := conn.QueryRow(t.Context(), "select ssl from pg_stat_ssl where pid = pg_backend_pid()").Scan(&used); err != nil || !used {
			t.Errorf("server leg uses TLS: %v, %v", used, err)
		}
		var n int
		if err := conn.QueryRow(t.Context(), "select length(string_agg(repeat('x', 1000), '')) from generate_series(1, 3000)").Scan(&n); err != nil || n != 3000000 {
			t.Errorf("got %d, %v", n, err)
		}
		var s string
		if err := conn.QueryRow(t.Context(), "select repeat('x', 3000000)").Scan(&s); err != nil || len(s) != 3000000 {
			t.Errorf("got %d, %v", len(s), err)
		}
	}

	wrong := start(t, Config{Upstream: pg.Addr(), UpstreamTLS: &tls.Config{RootCAs: x509.NewCertPool()}}, newMemLog(0))
	if _, err := pgx.Connect(t.Context(), wrong.url("sslmode=disable")); err == nil || !strings.Contains(err.Error(), "08006") {
		t.Errorf("connected to a server that cannot be verified: %v", err)
	}
}

// TestUpstreamTLSRefused has servers that answer SSLRequest with anything but S.
func TestUpstreamTLSRefused(t *testing.T) {
	for _, answer := range []string{"N", "E\x00\x00\x00\x10SERROR\x00\x00", "X", "Sjunk"} {
		up := fakeServerFunc(t, func(c net.Conn) {
			io.ReadFull(c, make([]byte, 8))
			io.WriteString(c, answer)
			io.Copy(io.Discard, c)
		})
		g := start(t, Config{Upstream: up, UpstreamTLS: &tls.Config{InsecureSkipVerify: true}, DialTimeout: time.Second}, newMemLog(0))
		checkReply(t, talk(t, g, packet(3<<16, startup30)), "08006")
	}
}

func TestUnixSockets(t *testing.T) {
	pg := pgtest.Server(t)
	dir := t.TempDir()
	for _, upstream := range []string{filepath.Join(pg.SocketDir, fmt.Sprintf(".s.PGSQL.%d", pg.Port))} {
		g := start(t, Config{Upstream: upstream, Listen: filepath.Join(dir, ".s.PGSQL.7777")}, newMemLog(0))
		if info, err := os.Stat(filepath.Join(dir, ".s.PGSQL.7777")); err != nil || info.Mode().Perm() != 0o777 {
			t.Errorf("the socket is %v, %v, want one that everybody may connect to", info, err)
		}
		if _, err := listen(filepath.Join(dir, ".s.PGSQL.7777")); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("listening once more: %v", err)
		}
		conn := connect(t, "host="+dir+" port=7777 user=postgres dbname=postgres")
		var n int
		if err := conn.QueryRow(t.Context(), "select 1").Scan(&n); err != nil || n != 1 {
			t.Errorf("got %d, %v", n, err)
		}
		var s string
		if err := conn.QueryRow(t.Context(), "select repeat('x', 30000000)").Scan(&s); err != nil || len(s) != 30000000 {
			t.Errorf("got %d, %v", len(s), err)
		}
		conn.Close(t.Context())
		waitFor(t, "session ended", func() bool { return g.Metrics().SessionsOpen.Load() == 0 })
	}
}

// TestServerEnds has the server end a session with a FATAL that the client must see.
func TestServerEnds(t *testing.T) {
	for _, mode := range []Mode{BeforeForward, BeforeReply} {
		g := start(t, Config{Upstream: pgtest.Server(t).Addr(), Mode: mode}, newMemLog(time.Millisecond))
		conn := connect(t, g.url("sslmode=disable"))
		_, err := conn.Exec(t.Context(), "select pg_terminate_backend(pg_backend_pid())")
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || pgErr.Code != "57P01" {
			t.Errorf("mode %d: got %v, want 57P01", mode, err)
		}
		waitFor(t, "session ended", func() bool { return g.Metrics().SessionsOpen.Load() == 0 })
	}
}

func TestShutdown(t *testing.T) {
	log, pg := newMemLog(0), pgtest.Server(t)
	g := start(t, Config{Upstream: pg.Addr()}, log)
	holder := connect(t, pg.URL("postgres"))
	lock := func(name string) {
		t.Helper()
		if _, err := holder.Exec(t.Context(), "select "+name+"(20261126)"); err != nil {
			t.Fatal(err)
		}
	}
	lock("pg_advisory_lock")
	idle := connect(t, g.url("sslmode=disable"))
	busy := connect(t, g.url("sslmode=disable"))
	busyErr, shut := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := busy.Exec(context.Background(), "select pg_advisory_xact_lock(20261126)")
		busyErr <- err
	}()
	running(t, pg, 1, "select pg_advisory_xact_lock")
	go func() { shut <- g.Shutdown(t.Context()) }()
	waitFor(t, "the idle session ended", func() bool { return g.Metrics().SessionsOpen.Load() == 1 })
	_, err := idle.Exec(t.Context(), "select 1")
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Code != "57P01" {
		t.Errorf("idle session got %v, want 57P01", err)
	}
	lock("pg_advisory_unlock")
	if err := <-busyErr; err != nil {
		t.Errorf("running statement: %v", err)
	}
	if err := <-shut; err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if err := <-g.served; err != nil {
		t.Errorf("serve: %v", err)
	}
	ends := 0
	all, err := log.entries()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		if l.Kind == event.KindDisconnect && fact(l, "reason") == "shutdown" {
			ends++
		}
	}
	if ends != 2 {
		t.Errorf("%d disconnect entries with reason shutdown, want 2", ends)
	}
}

func TestShutdownCuts(t *testing.T) {
	pg := pgtest.Server(t)
	g := start(t, Config{Upstream: pg.Addr()}, newMemLog(0))
	busy := connect(t, g.url("sslmode=disable"))
	busyErr := make(chan error, 1)
	sql := "select pg_sleep(601) -- by " + g.Addr().String() // the server goes on with it
	go func() {
		_, err := busy.Exec(context.Background(), sql)
		busyErr <- err
	}()
	running(t, pg, 1, sql)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := g.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown: %v", err)
	}
	if err := <-busyErr; err == nil {
		t.Error("statement that was cut reported success")
	}
}
