package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// connect opens a connection of pgx that is closed when the test ends.
func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func TestPgx(t *testing.T) {
	s := pgtest.Server(t)
	createDatabase(t, s, "e2e_pgx")
	for _, tt := range []struct {
		name string
		run  func(t *testing.T, c *pgx.Conn)
		// check looks at what was recorded of this test alone.
		check func(t *testing.T, all []record)
	}{
		{"binary parameters", pgxParameters, checkParameters},
		{"batch", pgxBatch, checkBatch},
		{"copy", pgxCopy, checkCopy},
		{"row limit", pgxRowLimit, checkRowLimit},
		{"listen", pgxListen, func(t *testing.T, all []record) { find(t, all, "listen news") }},
		{"cancel", pgxCancel, checkCancel},
		{"large parameter", pgxLarge, checkLarge},
		{"simple protocol", pgxSimple, checkSimple},
		{"large object", pgxLargeObject, func(t *testing.T, all []record) { find(t, all, "select lowrite") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := start(t, s.Addr())
			c := connect(t, n.url("e2e_pgx"))
			tt.run(t, c)
			if err := c.Close(t.Context()); err != nil {
				t.Error(err)
			}
			tt.check(t, n.finish(t))
		})
	}
}

func pgxParameters(t *testing.T, c *pgx.Conn) {
	var i int64
	var s string
	when := time.Date(2026, 11, 22, 1, 2, 3, 456000, time.UTC)
	err := c.QueryRow(t.Context(), "SELECT $1::int8 + 1, $2::text || $3::bool || $4::timestamptz || $5::float8 || coalesce($6::text, 'null')",
		int64(41), "zwölf", true, when, 1.5, nil).Scan(&i, &s)
	if err != nil || i != 42 || !strings.HasPrefix(s, "zwölftrue") {
		t.Errorf("got %d, %q, %v", i, s, err)
	}
}

func checkParameters(t *testing.T, all []record) {
	r := find(t, all, "SELECT $1::int8 + 1")
	want := []struct{ typ, value string }{
		{"int8", "41"}, {"text", "zwölf"}, {"bool", ""}, {"timestamptz", ""}, {"float8", "1.5"}, {"text", "NULL"},
	}
	if len(r.Params) != len(want) {
		t.Fatalf("parameters of %v", r)
	}
	for i, w := range want {
		if r.Params[i].Type != w.typ || w.value != "" && r.Params[i].String() != w.value {
			t.Errorf("parameter %d is %q %v, want %q %q", i+1, r.Params[i].Type, r.Params[i], w.typ, w.value)
		}
	}
	if r.Params[0].Format != "binary" || r.Params[0].Raw != "AAAAAAAAACk=" {
		t.Errorf("parameter 1 = %+v, want its bytes as sent", r.Params[0])
	}
}

func pgxBatch(t *testing.T, c *pgx.Conn) {
	if _, err := c.Exec(t.Context(), "CREATE TABLE batch (i int PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	b := &pgx.Batch{}
	for i := range 100 {
		b.Queue("INSERT INTO batch VALUES ($1)", i)
	}
	if err := c.SendBatch(t.Context(), b).Close(); err != nil {
		t.Error(err)
	}
	// An error in the middle: what follows is skipped, all of it is rolled back.
	b = &pgx.Batch{}
	for i := range 20 {
		b.Queue("INSERT INTO batch VALUES ($1)", 110-i) // the twelfth is there already
	}
	var pgErr *pgconn.PgError
	if err := c.SendBatch(t.Context(), b).Close(); !errors.As(err, &pgErr) || pgErr.Code != "23505" {
		t.Errorf("batch with an error: %v", err)
	}
	var n int
	if err := c.QueryRow(t.Context(), "SELECT count(*) FROM batch").Scan(&n); err != nil || n != 100 {
		t.Errorf("count = %d, %v, want 100", n, err)
	}
}

func checkBatch(t *testing.T, all []record) {
	got := map[string]int{}
	for _, r := range statements(all) {
		if !strings.HasPrefix(r.Statement, "INSERT INTO batch") {
			continue
		}
		o := r.Outcome
		switch {
		case o == nil:
			got["none"]++
		case o.Skipped:
			got["skipped"]++
		case o.Error != nil:
			got["error "+o.Error.SQLState]++
		case o.Committed != nil && *o.Committed:
			got["committed"]++
		default:
			got["rolled back"]++
		}
	}
	want := map[string]int{"committed": 100, "rolled back": 11, "error 23505": 1, "skipped": 8}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("outcomes %v, want %v", got, want)
	}
}

func pgxCopy(t *testing.T, c *pgx.Conn) {
	if _, err := c.Exec(t.Context(), "CREATE TABLE copied (i int, t text)"); err != nil {
		t.Fatal(err)
	}
	rows := make([][]any, 10000)
	for i := range rows {
		rows[i] = []any{i, "row"}
	}
	if n, err := c.CopyFrom(t.Context(), pgx.Identifier{"copied"}, []string{"i", "t"}, pgx.CopyFromRows(rows)); n != 10000 || err != nil {
		t.Errorf("CopyFrom = %d, %v", n, err)
	}
	var b bytes.Buffer
	if _, err := c.PgConn().CopyTo(t.Context(), &b, "COPY copied TO STDOUT"); err != nil || bytes.Count(b.Bytes(), []byte("\n")) != 10000 {
		t.Errorf("CopyTo: %d bytes, %v", b.Len(), err)
	}
}

func checkCopy(t *testing.T, all []record) {
	r := find(t, all, `copy "copied"`)
	if r.Outcome == nil || r.Outcome.Tag != "COPY 10000" {
		t.Errorf("%v", r)
	}
	if got := len(ofKind(all, "copy")); got == 0 {
		t.Error("no copy entry")
	}
}

// pgxRowLimit reads a portal in pieces, which pgx itself does not do.
func pgxRowLimit(t *testing.T, c *pgx.Conn) {
	f := c.PgConn().Frontend()
	tx, err := c.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.SendParse(&pgproto3.Parse{Query: "SELECT generate_series(1, $1::int)"})
	f.SendBind(&pgproto3.Bind{DestinationPortal: "p", Parameters: [][]byte{[]byte("25")}})
	for range 3 {
		f.SendExecute(&pgproto3.Execute{Portal: "p", MaxRows: 10})
	}
	f.SendSync(&pgproto3.Sync{})
	if err := f.Flush(); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for {
		m, err := f.Receive()
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(fmt.Sprintf("%T", m), "*pgproto3.")
		counts[name]++
		if name == "ReadyForQuery" {
			break
		}
	}
	if counts["DataRow"] != 25 || counts["PortalSuspended"] != 2 || counts["CommandComplete"] != 1 {
		t.Errorf("messages %v", counts)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Error(err)
	}
}

func checkRowLimit(t *testing.T, all []record) {
	var rows []int64
	for _, r := range statements(all) {
		if strings.HasPrefix(r.Statement, "SELECT generate_series") && r.Outcome != nil {
			rows = append(rows, r.Outcome.Rows)
			if len(r.Params) != 1 || r.Params[0].String() != "25" {
				t.Errorf("parameters of %v", r)
			}
		}
	}
	if fmt.Sprint(rows) != "[10 10 5]" {
		t.Errorf("rows of the executions: %v, want [10 10 5]", rows)
	}
}

func pgxListen(t *testing.T, c *pgx.Conn) {
	if _, err := c.Exec(t.Context(), "listen news"); err != nil {
		t.Fatal(err)
	}
	other := connect(t, c.Config().ConnString())
	if _, err := other.Exec(t.Context(), "SELECT pg_notify('news', $1)", "payload"); err != nil {
		t.Fatal(err)
	}
	if err := other.Close(t.Context()); err != nil {
		t.Error(err)
	}
	n, err := c.WaitForNotification(t.Context())
	if err != nil || n.Payload != "payload" {
		t.Errorf("WaitForNotification = %v, %v", n, err)
	}
}

func pgxCancel(t *testing.T, c *pgx.Conn) {
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), "SELECT pg_sleep(60)")
		done <- err
	}()
	running(t, net.JoinHostPort(c.Config().Host, strconv.Itoa(int(c.Config().Port))), "SELECT pg_sleep(60)")
	if err := c.PgConn().CancelRequest(t.Context()); err != nil {
		t.Errorf("CancelRequest: %v", err)
	}
	var pgErr *pgconn.PgError
	if err := <-done; !errors.As(err, &pgErr) || pgErr.Code != "57014" {
		t.Errorf("cancelled statement: %v", err)
	}
	// The request must not hit what comes next.
	if _, err := c.Exec(t.Context(), "SELECT 'after the cancel'"); err != nil {
		t.Error(err)
	}
}

func checkCancel(t *testing.T, all []record) {
	r := find(t, all, "pg_sleep(60)")
	if r.Outcome == nil || r.Outcome.Error == nil || r.Outcome.Error.SQLState != "57014" {
		t.Errorf("cancelled statement: %v", r)
	}
	cancels := ofKind(all, "cancel")
	if len(cancels) != 1 || cancels[0].Client == "" {
		t.Errorf("cancel entries: %+v", cancels)
	}
}

var largeText = strings.Repeat("groß und lang ", 2<<20/15)

func pgxLarge(t *testing.T, c *pgx.Conn) {
	var n int
	for range 2 {
		if err := c.QueryRow(t.Context(), "SELECT length($1::text)", largeText).Scan(&n); err != nil || n != len([]rune(largeText)) {
			t.Errorf("length = %d, %v", n, err)
		}
	}
}

func checkLarge(t *testing.T, all []record) {
	found := 0
	for _, r := range statements(all) {
		if r.Statement != "SELECT length($1::text)" {
			continue
		}
		found++
		if len(r.Params) != 1 || r.Params[0].String() != largeText || r.Outcome == nil || r.Outcome.Tag != "SELECT 1" {
			t.Errorf("large parameter: %d parameters, %v", len(r.Params), r)
		}
	}
	if found != 2 {
		t.Errorf("%d executions recorded, want 2", found)
	}
}

func pgxSimple(t *testing.T, c *pgx.Conn) {
	var n int
	err := c.QueryRow(t.Context(), "SELECT $1::int + length($2)", pgx.QueryExecModeSimpleProtocol, 1, "it's").Scan(&n)
	if err != nil || n != 5 {
		t.Errorf("got %d, %v", n, err)
	}
}

func checkSimple(t *testing.T, all []record) {
	r := find(t, all, "::int + length( 'it''s' )")
	if r.Kind != "query" {
		t.Errorf("%v", r)
	}
}

func pgxLargeObject(t *testing.T, c *pgx.Conn) {
	tx, err := c.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	los := tx.LargeObjects()
	oid, err := los.Create(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	lo, err := los.Open(t.Context(), oid, pgx.LargeObjectModeWrite)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lo.Write(make([]byte, 100000)); err != nil {
		t.Error(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Error(err)
	}
}
