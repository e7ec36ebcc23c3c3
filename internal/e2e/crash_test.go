package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgraw"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// lossWindow is how much earlier than the kill the oldest lost statement may have run. The bound
// stated is 10 ms and one commit; the rest is what a busy machine may take to wake a thread. On one that
// is slower than that it is wider: see pace.
const lossWindow = 500 * time.Millisecond

// pace measures until ctx ends how long it takes to wake up and to write a line durably into dir, at most.
func pace(ctx context.Context, dir string) (slowest func() time.Duration) {
	var worst atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		name := filepath.Join(dir, "pace")
		for ctx.Err() == nil {
			began := time.Now()
			time.Sleep(time.Millisecond)
			if f, err := os.Create(name); err == nil {
				_, _ = f.WriteString("a line\n")
				_ = f.Sync()
				_ = f.Close()
			}
			worst.Store(max(worst.Load(), int64(time.Since(began))))
		}
	}()
	return func() time.Duration { <-done; return time.Duration(worst.Load()) }
}

// TestKill kills pgnotary under load, again and again on the same data directory. After each
// kill the log must verify and go on, and the server's rows are compared with it:
//
//   - before-forward: every row has its record;
//   - before-reply: every row whose COMMIT was acknowledged to its client has its record;
//   - async: rows without a record are younger than the loss window.
func TestKill(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"before-forward", "before-reply", "async"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := pgtest.Start(t, pgserver.Options{})
			if _, err := s.Psql(t.Context(), "postgres", "CREATE TABLE crash (id bigint PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())"); err != nil {
				t.Fatal(err)
			}
			n := start(t, s.Addr(), "--durability", mode, "--segment-size", "128KiB", "--immutable=false")
			k := &killer{mode: mode, server: s, notary: n, recorded: map[int64]bool{}}
			for round := range *kills {
				k.round(t, round)
				if t.Failed() {
					return
				}
			}
			t.Logf("%s: %d kills, %d rows committed, %d acknowledged, %d without a record (of these acknowledged: %d), the oldest %v before the kill",
				mode, *kills, k.committed, k.ackedTotal, k.lost, k.lostAcked, k.oldest)
		})
	}
}

// leastRows are answered before a kill.
const leastRows = 100

// A killer counts over the rounds of a mode.
type killer struct {
	mode   string
	server *pgserver.Server
	notary *notary
	next   atomic.Int64 // id of the next row
	// committing counts the answers of a round.
	committing atomic.Int64
	window     time.Duration // of the round
	recorded   map[int64]bool
	from       int64 // entries below were searched

	committed, ackedTotal, lost, lostAcked int
	oldest                                 time.Duration
}

func (k *killer) round(t *testing.T, round int) {
	t.Helper()
	const writers = 6
	first := k.next.Load()
	ctx, cancel := context.WithCancel(t.Context())
	acked := make(chan []int64, writers)
	k.committing.Store(0)
	slowest := pace(ctx, filepath.Dir(k.notary.data))
	for w := range writers {
		go func() { acked <- k.write(ctx, w) }()
	}
	for deadline := time.Now().Add(patience); k.committing.Load() < leastRows; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is written")
		}
	}
	time.Sleep(rand.N(300 * time.Millisecond)) // anywhere
	killed := time.Now()
	k.notary.kill(t)
	cancel()
	k.window = lossWindow + 4*slowest()
	got := map[int64]bool{}
	for range writers {
		for _, id := range <-acked {
			got[id] = true
		}
	}
	k.ackedTotal += len(got)
	// A statement that reached the server runs even though its proxy is dead.
	k.waitForServer(t)
	rows, err := k.server.Psql(t.Context(), "postgres", fmt.Sprintf("SELECT id, extract(epoch FROM at) FROM crash WHERE id >= %d", first))
	if err != nil {
		t.Fatal(err)
	}
	// The log goes on: start again, stop in peace, verify.
	k.notary.launch(t)
	k.notary.stop(t)
	k.notary.verify(t)
	k.search(t)
	k.judge(t, round, rows, killed, got)
	k.notary.launch(t)
}

// waitForServer waits until the sessions of the dead proxy have ended.
func (k *killer) waitForServer(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		out, err := k.server.Psql(t.Context(), "postgres", "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'writer'")
		if err != nil {
			t.Fatal(err)
		}
		if out == "0\n" {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("the server still has sessions of the killed proxy")
}

// write commits rows until the connection breaks, in one of four ways, and returns the ids
// whose commit was acknowledged.
func (k *killer) write(ctx context.Context, writer int) (acked []int64) {
	c, err := pgraw.Login(k.notary.addr, "postgres", "postgres", "")
	if err != nil {
		return nil
	}
	defer c.Conn.Close()
	if _, err := c.Query("SET application_name = 'writer'"); err != nil {
		return nil
	}
	for ctx.Err() == nil {
		ids := []int64{k.next.Add(1) - 1}
		var packet []byte
		replies := 1
		switch writer % 4 {
		case 0:
			packet = query(fmt.Sprintf("INSERT INTO crash VALUES (%d)", ids[0]))
		case 1:
			packet = join(parse("", "INSERT INTO crash VALUES ($1)"), bindText("", "", fmt.Sprint(ids[0])), execute("", 0), sync())
		case 2: // a transaction of several messages
			packet = join(query("BEGIN"), query(fmt.Sprintf("INSERT INTO crash VALUES (%d)", ids[0])), query("COMMIT"))
			replies = 3
		case 3: // a pipeline of several transactions
			for range 4 {
				id := k.next.Add(1) - 1
				ids = append(ids, id)
			}
			replies = len(ids)
			for _, id := range ids {
				packet = append(packet, join(parse("", "INSERT INTO crash VALUES ($1)"), bindText("", "", fmt.Sprint(id)), execute("", 0), sync())...)
			}
		}
		if err := c.Send(packet); err != nil {
			return acked
		}
		for i := range replies {
			if _, err := c.SkipTo('Z'); err != nil {
				return acked
			}
			k.committing.Add(1)
			switch {
			case len(ids) > 1:
				acked = append(acked, ids[i])
			case i == replies-1:
				acked = append(acked, ids[0])
			}
		}
	}
	return acked
}

func join(packets ...[]byte) []byte { return say("", packets...).send }

// search adds what was recorded since the last time.
func (k *killer) search(t *testing.T) {
	t.Helper()
	for _, r := range k.notary.search(t, "--from", strconv.FormatInt(k.from, 10), "--text", "INSERT INTO crash") {
		k.from = max(k.from, r.Index)
		text := strings.TrimSuffix(strings.TrimPrefix(r.Statement, "INSERT INTO crash VALUES ("), ")")
		if len(r.Params) == 1 {
			text = r.Params[0].String()
		}
		id, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			t.Fatalf("a statement nobody sent: %v", r)
		}
		k.recorded[id] = true
	}
}

// judge compares the rows of the server with the records.
func (k *killer) judge(t *testing.T, round int, rows string, killed time.Time, acked map[int64]bool) {
	t.Helper()
	n := 0
	for line := range strings.Lines(rows) {
		idText, at, _ := strings.Cut(strings.TrimSpace(line), "|")
		id, err := strconv.ParseInt(idText, 10, 64)
		seconds, err2 := strconv.ParseFloat(at, 64)
		if err != nil || err2 != nil {
			t.Fatalf("row %q", line)
		}
		n++
		if k.recorded[id] {
			continue
		}
		k.lost++
		age := killed.Sub(time.UnixMicro(int64(seconds * 1e6)))
		k.oldest = max(k.oldest, age)
		if acked[id] {
			k.lostAcked++
		}
		switch {
		case k.mode == "before-forward":
			t.Errorf("round %d: row %d was committed without a record", round, id)
		case k.mode == "before-reply" && acked[id]:
			t.Errorf("round %d: row %d was acknowledged without a record", round, id)
		case age > k.window:
			t.Errorf("round %d: row %d was written %v before the kill and has no record", round, id, age)
		}
	}
	k.committed += n
	if n < leastRows/3 { // BEGIN and COMMIT are answered too
		t.Errorf("round %d: only %d rows were written: the test is worth nothing", round, n)
	}
}
