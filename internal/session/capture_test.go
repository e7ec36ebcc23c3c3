package session

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
	"github.com/pgnotary/pgnotary/internal/wire"
)

// Captures are dialogues of real clients with PostgreSQL, one file in testdata/captures each: the reads of both
// sides as they came, each as a byte for the side (0 client, 1 server), its length in two bytes, and its bytes. The
// first is the start-up packet.

var record = flag.Bool("record", false, "record testdata/captures anew, with the clients installed here")

const captureDir = "testdata/captures"

// reads splits a capture. Of a mutated one every byte is used, too.
func reads(capture []byte) (all []read) {
	for len(capture) >= 3 {
		n := min(int(binary.BigEndian.Uint16(capture[1:])), len(capture)-3)
		all = append(all, read{fromClient: capture[0]&1 == 0, b: capture[3 : 3+n]})
		capture = capture[3+n:]
	}
	return all
}

type read struct {
	fromClient bool
	b          []byte
}

// replay plays a dialogue and checks all the while what must always hold. It returns nil if it does not get beyond the
// start-up packet.
func replay(tb testing.TB, all []read) *watched {
	if len(all) == 0 {
		return nil
	}
	w := &watched{dialogue: newDialogue(tb)}
	var v *Violation
	if _, err := w.s.Start(w.clock, all[0].b); errors.As(err, &v) {
		return nil
	} else if err != nil {
		tb.Fatal(err)
	}
	if w.s.login.negotiate {
		return nil // the server's bytes are then not passed on as they are
	}
	for _, r := range all[1:] {
		if len(r.b) > 0 && w.s.phase != phaseDead && !(r.fromClient && w.s.Done()) {
			w.feed(r.fromClient, r.b)
		}
	}
	w.ended = w.ended && !w.s.Done() // Terminate is an end as it should be
	w.finish()
	return w
}

func captures(tb testing.TB) map[string][]byte {
	tb.Helper()
	names, err := filepath.Glob(captureDir + "/*")
	if err != nil || len(names) < 6 {
		tb.Fatalf("captures: %v, %v", names, err)
	}
	all := map[string][]byte{}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			tb.Fatal(err)
		}
		all[filepath.Base(name)] = data
	}
	return all
}

// TestCaptures replays real dialogues: nothing in them is a violation, and everything is recorded.
func TestCaptures(t *testing.T) {
	if *record {
		recordAll(t)
	}
	kinds := map[event.Kind]int{}
	for name, data := range captures(t) {
		w := replay(t, reads(data))
		if w == nil || w.ended {
			t.Errorf("%s was broken off", name)
			continue
		}
		for i := range w.log.entries {
			kinds[w.log.entries[i].Kind]++
		}
	}
	t.Logf("entries: %v", kinds)
	for _, k := range []event.Kind{event.KindQuery, event.KindParse, event.KindExecute, event.KindCopy, event.KindFunctionCall, event.KindNotice, event.KindOutcome, event.KindSettle, event.KindReplication} {
		if kinds[k] == 0 {
			t.Errorf("no capture has a %s", k)
		}
	}
}

// TestMutatedCaptures deals with the messages of real dialogues as with cards: they are doubled, dropped, swapped, cut,
// changed and taken from one dialogue into another, and delivered in other pieces.
func TestMutatedCaptures(t *testing.T) {
	all := captures(t)
	var names []string
	for name := range all {
		names = append(names, name)
	}
	rounds := 2000
	if testing.Short() {
		rounds = 50
	}
	for seed := range rounds {
		rnd := rand.New(rand.NewPCG(uint64(seed), 1))
		pick := func() []read { return reads(all[names[rnd.IntN(len(names))]]) }
		deck := messagesOf(pick())
		for range 1 + rnd.IntN(8) {
			i, j := 1+rnd.IntN(len(deck)-1), 1+rnd.IntN(len(deck)-1)
			switch rnd.IntN(7) {
			case 0:
				deck[i], deck[j] = deck[j], deck[i]
			case 1:
				deck = append(deck[:i:i], deck[i-1:]...)
			case 2:
				if len(deck) > 2 {
					deck = append(deck[:i:i], deck[i+1:]...)
				}
			case 3:
				deck[i].b = deck[i].b[:rnd.IntN(len(deck[i].b)+1)]
			case 4:
				if n := len(deck[i].b); n > 0 {
					deck[i].b = bytes.Clone(deck[i].b)
					deck[i].b[rnd.IntN(n)] ^= 1 << rnd.IntN(8)
				}
			case 5:
				deck[i].fromClient = !deck[i].fromClient
			case 6:
				other := messagesOf(pick())
				deck[i] = other[1+rnd.IntN(len(other)-1)]
			}
		}
		replay(t, joined(deck, rnd))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// messagesOf cuts a dialogue into its messages, in the order in which they began to arrive.
func messagesOf(all []read) []read {
	out := []read{all[0]}
	var open [2][]byte
	for _, r := range all[1:] {
		side := 1
		if r.fromClient {
			side = 0
		}
		open[side] = append(open[side], r.b...)
		for {
			_, length, ok := wire.Header(open[side])
			if !ok || length+1 > len(open[side]) {
				break
			}
			out = append(out, read{r.fromClient, open[side][:length+1]})
			open[side] = open[side][length+1:]
		}
	}
	return out
}

// joined delivers messages in pieces: some in one read, some cut.
func joined(deck []read, rnd *rand.Rand) []read {
	out := []read{deck[0]}
	for _, m := range deck[1:] {
		last := &out[len(out)-1]
		switch n := len(m.b); {
		case len(out) > 1 && last.fromClient == m.fromClient && rnd.IntN(2) == 0:
			last.b = append(bytes.Clone(last.b), m.b...)
		case n > 1 && rnd.IntN(4) == 0:
			at := 1 + rnd.IntN(n-1)
			out = append(out, read{m.fromClient, m.b[:at]}, read{m.fromClient, m.b[at:]})
		default:
			out = append(out, m)
		}
	}
	return out
}

// FuzzCaptures mutates real dialogues byte by byte.
func FuzzCaptures(f *testing.F) {
	for _, data := range captures(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, capture []byte) {
		if len(capture) < 1<<16 {
			replay(t, reads(capture))
		}
	})
}

// recordAll records each client's dialogue anew.
func recordAll(t *testing.T) {
	s := pgtest.Start(t, pgserver.Options{Settings: map[string]string{"wal_level": "logical"}})
	if _, err := s.Psql(t.Context(), "postgres", "CREATE TABLE kept (i int, t text); CREATE TABLE late (i int UNIQUE DEFERRABLE INITIALLY DEFERRED)"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(file, []byte("large object"), 0o644); err != nil {
		t.Fatal(err)
	}
	pipeline := filepath.Join(t.TempDir(), "pipeline.sql")
	if err := os.WriteFile(pipeline, []byte("\\startpipeline\nSELECT 1;\nBEGIN;\nINSERT INTO kept VALUES (1, 'a');\nEND;\n\\endpipeline\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(captureDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, run := range map[string]func(port string) error{
		"psql": func(port string) error {
			return command(s, "psql", port, "-c", "SELECT 1, NULL; SELECT 'zwei'", "-c", "SELECT 1/0", "-c", "\\copy kept FROM PROGRAM 'printf \"1\\ta\\n\"'",
				"-c", "COPY kept TO STDOUT", "-c", "LISTEN c; NOTIFY c, 'p'", "-c", "BEGIN", "-c", "INSERT INTO late VALUES (1), (1)", "-c", "COMMIT",
				"-c", "DO $$ BEGIN RAISE NOTICE 'n'; END $$", "-c", "PREPARE p AS SELECT $1::int", "-c", "EXECUTE p(3)", "-c", "\\lo_import "+file)
		},
		"pgbench-prepared": func(port string) error {
			return command(s, "pgbench", port, "-n", "-M", "prepared", "-t", "2", "-f", simple(t))
		},
		"pgbench-pipeline": func(port string) error {
			return command(s, "pgbench", port, "-n", "-M", "extended", "-t", "2", "-f", pipeline)
		},
		"psycopg2": func(port string) error {
			return python(port, "import psycopg2, sys\nc = psycopg2.connect(sys.argv[1])\nk = c.cursor('named')\nk.execute('SELECT generate_series(1, 5)')\nk.fetchmany(2)\nk.close()\nc.rollback()\nk = c.cursor()\nk.execute('SELECT %s, %s', (1, 'x'))\nc.commit()\nc.close()\n")
		},
		"psycopg3": func(port string) error {
			return python(port, "import psycopg, sys\nc = psycopg.connect(sys.argv[1])\nwith c.pipeline():\n  for i in range(4):\n    c.execute('INSERT INTO kept VALUES (%s, %s)', (i, 'x'), prepare=True)\nwith c.cursor().copy('COPY kept FROM STDIN (FORMAT binary)') as k:\n  k.set_types(['int4', 'text'])\n  k.write_row((7, 'y'))\nc.commit()\ntry:\n  c.execute('SELECT %s::int', ('x',))\nexcept Exception:\n  c.rollback()\nc.close()\n")
		},
		"pgx": func(port string) error {
			conn, err := pgx.Connect(t.Context(), "postgres://postgres@127.0.0.1:"+port+"/postgres?sslmode=disable")
			if err != nil {
				return err
			}
			b := &pgx.Batch{}
			b.Queue("SELECT $1::int", 1)
			b.Queue("SELECT 1/$1::int", 0)
			b.Queue("SELECT 3")
			if err := conn.SendBatch(t.Context(), b).Close(); err == nil {
				return errors.New("division by zero succeeded")
			}
			_, err = conn.CopyFrom(t.Context(), pgx.Identifier{"kept"}, []string{"i"}, pgx.CopyFromRows([][]any{{int32(1)}, {int32(2)}}))
			return errors.Join(err, conn.Close(t.Context()))
		},
		"pg_recvlogical": func(port string) error {
			err := command(s, "pg_recvlogical", port, "--create-slot", "--start", "--slot", "rec", "-f", os.DevNull, "-P", "test_decoding", "--endpos", "FFFF/0", "--status-interval", "1", "--no-loop")
			if err != nil { // --endpos ends it with the last record written, or timeout does
				t.Log(err)
			}
			return nil
		},
	} {
		recordOne(t, s, filepath.Join(captureDir, name), run)
	}
}

func simple(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "simple.sql")
	if err := os.WriteFile(name, []byte("SELECT count(*) FROM kept;\nINSERT INTO kept VALUES (1, 'b');\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func command(s *pgserver.Server, name, port string, args ...string) error {
	path, err := s.Tool(name)
	if err != nil {
		return err
	}
	if name == "psql" {
		args = append([]string{"-XAtq"}, args...)
	}
	args = append([]string{"3", path, "-h", "127.0.0.1", "-p", port, "-U", "postgres", "-d", "postgres"}, args...)
	out, err := exec.Command("timeout", args...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && (exit.ExitCode() == 1 || exit.ExitCode() == 124) {
		return nil // an error of SQL that is part of the dialogue, or the end of the time
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

func python(port, program string) error {
	out, err := exec.Command("/usr/bin/python3", "-c", program, "host=127.0.0.1 port="+port+" user=postgres dbname=postgres sslmode=disable").CombinedOutput()
	if err != nil {
		return fmt.Errorf("python: %w: %s", err, out)
	}
	return nil
}

// recordOne passes one client's connections on and writes the longest dialogue.
func recordOne(t *testing.T, s *pgserver.Server, path string, run func(port string) error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var best []byte
	var wg sync.WaitGroup
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				tape := passOn(c, s.Addr())
				mu.Lock()
				defer mu.Unlock()
				if len(tape) > len(best) {
					best = tape
				}
			})
		}
	}()
	_, port, _ := strings.Cut(l.Addr().String(), ":")
	if err := run(port); err != nil {
		t.Error(err)
	}
	l.Close()
	wg.Wait()
	if err := os.WriteFile(path, best, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d bytes", path, len(best))
}

func passOn(c net.Conn, to string) (tape []byte) {
	defer c.Close()
	packet, err := firstPacket(c)
	if err != nil || packet == nil {
		return nil
	}
	server, err := net.Dial("tcp", to)
	if err != nil {
		return nil
	}
	defer server.Close()
	var mu sync.Mutex
	add := func(side byte, b []byte) {
		mu.Lock()
		defer mu.Unlock()
		tape = append(tape, side, byte(len(b)>>8), byte(len(b)))
		tape = append(tape, b...)
	}
	add(0, packet)
	if _, err := server.Write(packet); err != nil {
		return nil
	}
	flow := func(from, to net.Conn, side byte) {
		defer from.Close()
		defer to.Close()
		buf := make([]byte, 16<<10)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			add(side, buf[:n])
			if _, err := io.Copy(to, bytes.NewReader(buf[:n])); err != nil {
				return
			}
		}
	}
	done := make(chan struct{})
	go func() { flow(c, server, 0); close(done) }()
	flow(server, c, 1)
	<-done
	return tape
}
