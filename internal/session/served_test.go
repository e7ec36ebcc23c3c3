package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
	"github.com/pgnotary/pgnotary/internal/wire"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// A pump passes connections on to a server through a Session each.
type pump struct {
	t        *testing.T
	listener net.Listener
	to       string
	wg       sync.WaitGroup
	mu       sync.Mutex
	sessions []*watched
}

func startPump(t *testing.T, s *pgserver.Server) *pump {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &pump{t: t, listener: l, to: s.Addr()}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Add(1)
			go func() {
				defer p.wg.Done()
				if err := p.serve(c); err != nil {
					t.Error(err)
				}
			}()
		}
	}()
	return p
}

// serve passes one connection on until either side closes it.
func (p *pump) serve(c net.Conn) error {
	defer c.Close()
	packet, err := firstPacket(c)
	if err != nil || packet == nil {
		return err
	}
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		return err
	}
	defer server.Close()
	w := &watched{dialogue: newDialogue(p.t), quick: true}
	p.mu.Lock()
	p.sessions = append(p.sessions, w)
	p.mu.Unlock()
	if _, err := server.Write(w.start(packet)); err != nil {
		return err
	}
	var mu sync.Mutex
	flow := func(from, to net.Conn, fromClient bool) {
		defer from.Close()
		defer to.Close()
		side := 1
		if fromClient {
			side = 0
		}
		buf := make([]byte, 16<<10)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			mu.Lock()
			before := len(w.out[side])
			w.feed(fromClient, buf[:n])
			fwd := w.out[side][before:]
			mu.Unlock()
			if _, err := to.Write(fwd); err != nil {
				return
			}
		}
	}
	done := make(chan struct{})
	go func() { flow(c, server, true); close(done) }()
	flow(server, c, false)
	<-done
	return nil
}

// firstPacket answers requests for encryption and returns the StartupMessage.
func firstPacket(c net.Conn) ([]byte, error) {
	for {
		head := make([]byte, 4)
		if _, err := io.ReadFull(c, head); err != nil {
			return nil, nil // a probe
		}
		n, err := wire.FirstLen(head)
		if err != nil {
			return nil, err
		}
		packet := append(head, make([]byte, n-4)...)
		if _, err := io.ReadFull(c, packet[4:]); err != nil {
			return nil, err
		}
		switch r, _, err := wire.First(packet); {
		case err != nil:
			return nil, err
		case r == wire.StartupMessage:
			return packet, nil
		case r == wire.CancelRequest:
			return nil, nil
		}
		if _, err := c.Write([]byte("N")); err != nil {
			return nil, err
		}
	}
}

func (p *pump) url() string {
	return "postgres://postgres@" + p.listener.Addr().String() + "/postgres?sslmode=disable"
}

// finish waits for the connections to end and checks each session. It returns
// the statements of all that committed or not as the entries say.
func (p *pump) finish() {
	p.t.Helper()
	if err := p.listener.Close(); err != nil {
		p.t.Error(err)
	}
	p.wg.Wait()
	for _, w := range p.sessions {
		if w.ended && !w.s.Done() {
			p.t.Errorf("the session was broken off\n%s", w.log.text(0))
		}
		w.finish()
	}
}

// claims returns what the entries say became of the texts that hold a mark:
// how many are committed, rolled back and not told.
func (p *pump) claims(mark string) (committed, undone, open int) {
	for _, w := range p.sessions {
		claim := w.claims()
		for i, e := range w.log.entries {
			text := string(e.value)
			if at, ok := event.Index(e.Parse); ok {
				text += string(w.log.entries[at].value)
			}
			if e.Kind != event.KindQuery && e.Kind != event.KindExecute || !strings.Contains(text, mark) {
				continue
			}
			switch claim[i] {
			case 1:
				committed++
			case -1:
				undone++
			default:
				open++
			}
		}
	}
	return committed, undone, open
}

func TestPgx(t *testing.T) {
	db := pgtest.Server(t)
	p := startPump(t, db)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	c, err := pgx.Connect(ctx, p.url())
	if err != nil {
		t.Fatal(err)
	}
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.Exec(ctx, "create temp table t (a int primary key, b text, c int references pg_temp.t deferrable initially deferred)"))
	for i := range 20 {
		must(c.Exec(ctx, "insert /*kept*/ into t values ($1, $2)", i, "text"))
	}
	batch := &pgx.Batch{}
	for i := range 10 {
		batch.Queue("insert /*kept*/ into t values ($1, 'b')", 100+i)
	}
	must(nil, c.SendBatch(ctx, batch).Close())
	batch = &pgx.Batch{}
	for i := range 10 {
		batch.Queue("insert /*lost*/ into t values ($1, 'c')", 191+i%9)
	}
	if err := c.SendBatch(ctx, batch).Close(); err == nil {
		t.Fatal("a batch with a repeated key did not fail")
	}
	if _, err := c.Exec(ctx, "insert /*lost*/ into t values ($1, 'd', -1)", 300); err == nil {
		t.Fatal("a deferred constraint did not fail")
	}
	rows := make([][]any, 5000)
	for i := range rows {
		rows[i] = []any{1000 + i, strings.Repeat("x", i%100)}
	}
	must(c.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"a", "b"}, pgx.CopyFromRows(rows)))
	if _, err := c.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"a", "b"}, pgx.CopyFromRows(rows)); err == nil {
		t.Fatal("a COPY of repeated keys did not fail")
	}
	tx, err := c.Begin(ctx)
	must(nil, err)
	must(tx.Exec(ctx, "insert /*lost*/ into t values (400)"))
	must(tx.Exec(ctx, "declare k cursor for select generate_series(1,100)"))
	must(tx.Exec(ctx, "fetch 10 from k"))
	must(nil, tx.Rollback(ctx))
	must(c.Exec(ctx, "insert /*kept*/ into t values ($1, $2)", 500, strings.Repeat("x", 600<<10)))
	must(c.Exec(ctx, "listen ch"))
	must(c.Exec(ctx, "notify ch, 'hello'"))
	must(c.WaitForNotification(ctx))
	must(c.Exec(ctx, "begin; insert /*first*/ into t values (600); commit; select 1"))
	if _, err := c.Exec(ctx, "insert /*lost*/ into t values (700); select 1/0", pgx.QueryExecModeSimpleProtocol); err == nil {
		t.Fatal("no error")
	}
	var lasted int
	must(nil, c.QueryRow(ctx, "select count(*) from t where a < 1000").Scan(&lasted))
	must(nil, c.Close(ctx))
	p.finish()
	if lasted != 32 {
		t.Errorf("%d rows lasted, want 32", lasted)
	}
	if n, undone, open := p.claims("/*kept*/"); n != 31 || undone+open != 0 {
		t.Errorf("kept: %d committed, %d rolled back, %d open; want 31, 0, 0", n, undone, open)
	}
	if n, undone, open := p.claims("/*lost*/"); n != 0 || undone != 13 || open != 0 {
		t.Errorf("lost: %d committed, %d rolled back, %d open; want 0, 13, 0", n, undone, open)
	}
}

func TestPsql(t *testing.T) {
	db := pgtest.Server(t)
	p := startPump(t, db)
	psql, err := db.Tool("psql")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), psql, "-X", "-q", p.url())
	cmd.Stdin = strings.NewReader(`
create temp table t (a int);
insert /*kept*/ into t values (1)\; insert into t values (2)\; select 3;
insert /*lost*/ into t values (4)\; select 1/0;
begin;
insert /*lost*/ into t values (5);
select 1/0;
commit;
begin;
insert /*kept*/ into t values (6);
commit;
copy t from stdin;
7
8
\.
copy t from stdin;
x
\.
copy t to stdout;
do $$ begin perform 1; end $$;
begin;
savepoint s;
insert /*lost*/ into t values (9);
rollback to s;
insert /*kept*/ into t values (10);
commit and chain;
insert /*lost*/ into t values (11);
rollback and chain;
insert /*kept*/ into t values (12);
commit;
begin;
insert /*lost*/ into t values (13);
rollback\; insert /*kept*/ into t values (14);
vacuum;
begin;
insert /*lost*/ into t values (15);
`)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
	p.finish()
	for mark, want := range map[string][3]int{"/*kept*/": {5, 0, 0}, "/*lost*/": {0, 6, 0}} {
		if n, undone, open := p.claims(mark); [3]int{n, undone, open} != want {
			t.Errorf("%s: %v, want %v", mark, [3]int{n, undone, open}, want)
		}
	}
}

func TestPgbench(t *testing.T) {
	db := pgtest.Server(t)
	pgbench, err := db.Tool("pgbench")
	if err != nil {
		t.Fatal(err)
	}
	p := startPump(t, db)
	script := t.TempDir() + "/pipeline.sql"
	if err := os.WriteFile(script, []byte("\\startpipeline\nbegin;\nupdate /*kept*/ pgbench_branches set bbalance = 1;\nselect 1;\ncommit;\n"+
		"update /*kept*/ pgbench_branches set bbalance = 2;\n\\endpipeline\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), pgbench, append(args, p.url())...).CombinedOutput(); err != nil {
			t.Fatalf("pgbench %v: %v\n%s", args, err, out)
		}
	}
	run("-i", "-q")
	for _, mode := range []string{"simple", "extended", "prepared"} {
		run("-n", "-c", "2", "-t", "50", "-M", mode)
	}
	run("-n", "-c", "2", "-t", "50", "-M", "extended", "-f", script)
	run("-n", "-c", "2", "-t", "50", "-M", "prepared", "-f", script)
	p.finish()
	if n, undone, open := p.claims("/*kept*/"); n != 400 || undone+open != 0 {
		t.Errorf("%d committed, %d rolled back, %d open; want 400, 0, 0", n, undone, open)
	}
	total, err := db.Psql(t.Context(), "postgres", "select count(*) from pgbench_history")
	if err != nil {
		t.Fatal(err)
	}
	if n, undone, open := p.claims("INSERT INTO pgbench_history"); fmt.Sprint(n) != strings.TrimSpace(total) || undone+open != 0 {
		t.Errorf("history: %d committed, %d rolled back, %d open; the database has %s", n, undone, open, total)
	}
}

// TestServedTransactions holds random sessions with PostgreSQL and asks it afterwards which rows lasted.
func TestServedTransactions(t *testing.T) {
	db := pgtest.Server(t)
	if _, err := db.Psql(t.Context(), "postgres", "create table if not exists lasting (id int); truncate lasting"); err != nil {
		t.Fatal(err)
	}
	p := startPump(t, db)
	rnd := rand.New(rand.NewPCG(1, 2))
	id := 0
	pick := func() string {
		c := commands[rnd.IntN(len(commands))]
		switch c {
		case "insert", "copy":
			id++
			return fmt.Sprintf("insert into lasting values (%d)", id)
		case "bad":
			return "select 1/0"
		}
		return c
	}
	for range 150 {
		c, err := pgx.Connect(t.Context(), p.url())
		if err != nil {
			t.Fatal(err)
		}
		for range 15 {
			if rnd.IntN(3) == 0 { // several statements up to one Sync
				pipeline := c.PgConn().StartPipeline(t.Context())
				for range 1 + rnd.IntN(4) {
					pipeline.SendQueryParams(pick(), nil, nil, nil, nil)
				}
				_ = pipeline.Sync()
				_ = pipeline.Close() // errors are part of it
				continue
			}
			texts := []string{pick()}
			for rnd.IntN(3) == 0 {
				texts = append(texts, pick())
			}
			_ = c.PgConn().Exec(t.Context(), strings.Join(texts, "; ")).Close()
		}
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	p.finish()
	out, err := db.Psql(t.Context(), "postgres", "select id from lasting")
	if err != nil {
		t.Fatal(err)
	}
	lasting := map[string]bool{}
	for _, id := range strings.Fields(out) {
		lasting[id] = true
	}
	ids := regexp.MustCompile(`values \((\d+)\)`)
	told, open := 0, 0
	for _, w := range p.sessions {
		claim := w.claims()
		ran := map[int64]bool{}
		for _, e := range w.log.entries {
			if at, ok := event.Index(e.Of); ok && e.Kind == event.KindOutcome && e.End == "" && e.SQLState == "" {
				ran[at] = true
			}
		}
		for i, e := range w.log.entries {
			if e.Kind != event.KindQuery && e.Kind != event.KindExecute {
				continue
			}
			for _, m := range ids.FindAllSubmatch(e.value, -1) {
				lasts := lasting[string(m[1])]
				if claim[i] > 0 && ran[int64(i)] && !lasts || claim[i] < 0 && lasts {
					t.Fatalf("entry %d is told as committed %d, its row %s lasts: %v\n%s", i, claim[i], m[1], lasts, w.log.text(0))
				}
				if claim[i] == 0 && ran[int64(i)] {
					open++
				} else {
					told++
				}
			}
		}
	}
	t.Logf("%d rows lasted; what became of a statement is told of %d, not of %d", len(lasting), told, open)
	if told < 20*open {
		t.Error("want it told of 20 in 21")
	}
}

// The claims of what PostgreSQL itself commits in the middle of a pipeline.
func TestPipelineCommits(t *testing.T) {
	db := pgtest.Server(t)
	p := startPump(t, db)
	ctx := t.Context()
	c, err := pgx.Connect(ctx, p.url())
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"create table if not exists kept_in_pipeline (a int)", "truncate kept_in_pipeline",
		"create or replace procedure commits() language plpgsql as $$ begin insert into kept_in_pipeline values (1); commit; end $$",
	} {
		if _, err := c.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	for _, first := range []string{"call /*open*/ commits()", "create database /*open*/ made_in_pipeline"} {
		pipeline := c.PgConn().StartPipeline(ctx)
		for _, sql := range []string{first, "select 1/0 /*lost*/"} {
			pipeline.SendQueryParams(sql, nil, nil, nil, nil)
		}
		if err := pipeline.Sync(); err != nil {
			t.Fatal(err)
		}
		if err := pipeline.Close(); err == nil {
			t.Fatal("no error")
		}
	}
	var n, databases int
	err = errors.Join(c.QueryRow(ctx, "select count(*) from kept_in_pipeline").Scan(&n),
		c.QueryRow(ctx, "select count(*) from pg_database where datname = 'made_in_pipeline'").Scan(&databases), c.Close(ctx))
	if err != nil {
		t.Fatal(err)
	}
	p.finish()
	// Newer servers commit the first at once, older ones undo it at the error:
	// the entries must not say either.
	if committed, undone, open := p.claims("/*open*/"); committed+undone != 0 || open != 2 {
		t.Errorf("%d committed, %d rolled back, %d open; %d rows, %d databases lasted", committed, undone, open, n, databases)
	}
	t.Logf("%d rows, %d databases lasted", n, databases)
	if committed, undone, open := p.claims("/*lost*/"); committed+open != 0 || undone != 2 {
		t.Errorf("lost: %d committed, %d rolled back, %d open; want 0, 2, 0", committed, undone, open)
	}
}
