package relay

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// TestMany runs many sessions of all sorts at once, some of which end badly,
// and then looks whether each session's record is whole.
func TestMany(t *testing.T) {
	pg := pgtest.Start(t, pgserver.Options{TLS: true, Settings: map[string]string{"max_connections": "200"}})
	for _, tt := range []struct {
		mode   Mode
		inline bool // loops commit
	}{{BeforeForward, false}, {BeforeForward, true}, {BeforeReply, false}, {BeforeReply, true}, {Async, false}} {
		mode := tt.mode
		t.Run(fmt.Sprint(mode, tt.inline), func(t *testing.T) {
			log := newMemLog(time.Millisecond)
			log.inline = tt.inline
			log.blobDelay = time.Millisecond
			g := start(t, Config{
				Upstream: pg.Addr(), Mode: mode, Loops: 2, TLS: testCertificate(t),
				UpstreamTLS: &tls.Config{InsecureSkipVerify: true},
			}, log)
			var wg sync.WaitGroup
			for i := range 16 {
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(uint64(i), uint64(mode)))
					for range 8 {
						oneSession(t, g, rnd)
					}
				})
			}
			wg.Wait()
			waitFor(t, "all sessions ended", func() bool { return g.Metrics().SessionsOpen.Load() == 0 })
			if n := g.Metrics().Panics.Load(); n != 0 {
				t.Errorf("%d panics", n)
			}
			checkSessions(t, log)
		})
	}
}

// oneSession connects and runs a few statements.
func oneSession(t *testing.T, g *rig, rnd *rand.Rand) {
	options := []string{"sslmode=disable", "sslmode=require&channel_binding=disable"}[rnd.IntN(2)]
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, g.url(options))
	if err != nil {
		t.Error(err)
		return
	}
	defer func() {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		conn.Close(ctx)
	}()
	for range rnd.IntN(12) {
		size := rnd.IntN(1 << rnd.IntN(20))
		var n int
		switch rnd.IntN(9) {
		case 0:
			var s string
			err = conn.QueryRow(ctx, "select repeat('x', $1)", size).Scan(&s)
			n = len(s)
		case 1:
			err = conn.QueryRow(ctx, "select length($1)", strings.Repeat("é", size)).Scan(&n)
		case 2:
			err = conn.QueryRow(ctx, "select length('"+strings.Repeat("y", size)+"')", pgx.QueryExecModeSimpleProtocol).Scan(&n)
		case 3:
			b := &pgx.Batch{}
			for i := range 50 {
				b.Queue("select $1::int", i)
			}
			err, n = conn.SendBatch(ctx, b).Close(), size
		case 4:
			if _, e := conn.Exec(ctx, "select 1/0"); e == nil {
				t.Error("division by zero succeeded")
			}
			n = size
		case 5:
			rows, e := conn.Query(ctx, "select generate_series(1, $1)", size)
			for err = e; err == nil && rows.Next(); n++ {
			}
			if err == nil {
				err = rows.Err()
			}
		case 6:
			ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			conn.Exec(ctx, "select pg_sleep(1)") // pgx closes the connection
			cancel()
			return
		case 7:
			conn.PgConn().Conn().Close() // without Terminate
			return
		default:
			n = size
		}
		if err != nil || n != size {
			t.Errorf("%d of %d, %v", n, size, err)
			return
		}
	}
}

// checkSessions holds the entries of each session to their numbering, from
// connect to disconnect.
func checkSessions(t *testing.T, log *memLog) {
	t.Helper()
	all, err := log.entries()
	if err != nil {
		t.Fatal(err)
	}
	last := map[uint64]event.Leaf{}
	for i, l := range all {
		if l.Kind == event.KindViolation {
			t.Errorf("entry %d is a violation: %v", i, l.Facts)
		}
		if l.Session == 0 {
			continue
		}
		was := last[l.Session]
		if l.Kind == event.KindOutcome { // counted, and has none of its own
			if l.Seq != 0 {
				t.Errorf("entry %d, an outcome, has number %d of its session", i, l.Seq)
			}
			l.Seq = was.Seq + 1
		}
		if l.Seq != was.Seq+1 || (l.Seq == 1) != (l.Kind == event.KindConnect) || was.Kind == event.KindDisconnect || l.Time < was.Time {
			t.Fatalf("entry %d, %s number %d of its session, follows %s number %d", i, l.Kind, l.Seq, was.Kind, was.Seq)
		}
		last[l.Session] = l
	}
	for id, l := range last {
		if l.Kind != event.KindDisconnect {
			t.Errorf("session %s ends with %s", sessionID(id), l.Kind)
		}
	}
}

// TestNoise has clients and servers send random bytes, messages cut short and
// messages nobody expects. Sessions end; nothing panics, nothing stays behind.
func TestNoise(t *testing.T) {
	var seed atomic.Uint64
	noise := func(rnd *rand.Rand) []byte {
		var b []byte
		for range rnd.IntN(20) {
			switch body := make([]byte, rnd.IntN(40)); rnd.IntN(4) {
			case 0:
				for i := range body {
					body[i] = byte(rnd.Uint32())
				}
				b = append(b, body...)
			case 1:
				b = append(b, query("select 1")...)
			case 2:
				b = append(b, answer1...)
			default:
				b = append(b, message("QPBEDCHSFdcfpX1234RKSZTDCEIsGHWVvnNAt"[rnd.IntN(37)], string(body))...)
			}
		}
		return b
	}
	up := fakeServerFunc(t, func(c net.Conn) {
		rnd := rand.New(rand.NewPCG(seed.Add(1), 0))
		readStartup(c)
		if rnd.IntN(4) > 0 {
			c.Write(login)
		}
		if rnd.IntN(2) > 0 {
			c.Write(noise(rnd))
		} else {
			c.SetDeadline(time.Now().Add(20 * time.Millisecond))
			io.Copy(io.Discard, c)
		}
	})
	log := newMemLog(0)
	g := start(t, Config{Upstream: up, Loops: 2}, log)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				rnd := rand.New(rand.NewPCG(seed.Add(1), 1))
				c, err := net.Dial("tcp", g.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				if rnd.IntN(4) > 0 {
					c.Write(packet(3<<16, startup30))
				}
				c.Write(noise(rnd))
				c.SetDeadline(time.Now().Add(time.Duration(rnd.IntN(40)) * time.Millisecond))
				io.Copy(io.Discard, c)
				c.Close()
			}
		})
	}
	wg.Wait()
	waitFor(t, "all sessions ended", func() bool {
		return g.Metrics().SessionsOpen.Load() == 0 && g.Metrics().Unauthenticated.Load() == 0
	})
	if n := g.Metrics().Panics.Load(); n != 0 {
		t.Errorf("%d panics", n)
	}
	if _, err := log.entries(); err != nil {
		t.Error(err)
	}
}
