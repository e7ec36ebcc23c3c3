package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/pgserver/pgraw"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// A step sends bytes and reads what comes back.
type step struct {
	send []byte
	// until is what ends the reading: each letter is a message type to wait
	// for, in order; a dot waits for the end of the connection.
	until string
}

// A dialogue is a script of steps on one connection. Unless raw is set, a login comes first.
type dialogue struct {
	name  string
	raw   bool
	steps []step
	// loose compares only SQLSTATE and severity of errors: where pgnotary
	// refuses in its own words what the server would refuse too.
	loose bool
	// first and last are the major versions of the server that the dialogue is
	// for; 0 stands for any.
	first, last int
}

// say builds a step from packets.
func say(until string, packets ...[]byte) step {
	var all []byte
	for _, p := range packets {
		all = append(all, p...)
	}
	return step{all, until}
}

// A delivery says how the bytes of a step reach the other side.
type delivery struct {
	name string
	send func(c net.Conn, p []byte) error
}

func deliveries() []delivery {
	return []delivery{
		{"whole", func(c net.Conn, p []byte) error { _, err := c.Write(p); return err }},
		{"by the byte", func(c net.Conn, p []byte) error {
			if len(p) > 5000 {
				return inPieces(c, p, 1+len(p)/100)
			}
			return inPieces(c, p, 1)
		}},
		{"in pieces", func(c net.Conn, p []byte) error { return inPieces(c, p, 0) }},
	}
}

// inPieces sends p in pieces of a size, or of random ones, each in a packet of its own.
func inPieces(c net.Conn, p []byte, size int) error {
	for len(p) > 0 {
		n := size
		if n == 0 {
			n = 1 + rand.IntN(20+len(p)/10)
		}
		n = min(n, len(p))
		if _, err := c.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
		time.Sleep(50 * time.Microsecond)
	}
	return nil
}

// hold runs a dialogue and returns everything that was received, with what
// legitimately differs between two connections masked.
func hold(t *testing.T, addr string, d dialogue, how delivery) []string {
	t.Helper()
	c, err := pgraw.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Conn.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var got []string
	steps := d.steps
	if !d.raw {
		steps = append([]step{say("Z", pgraw.Startup(3<<16, "user", "postgres", "database", "postgres", "application_name", "dialogue"))}, steps...)
	}
	for i, s := range steps {
		// A peer that has closed already is no matter here: what it said counts.
		if err := how.send(c.Conn, s.send); err != nil && !strings.HasSuffix(s.until, ".") {
			t.Fatalf("step %d: %v", i, err)
		}
		for _, u := range []byte(s.until) {
			for {
				m, err := c.Receive()
				if err != nil {
					if u != '.' || errors.Is(err, os.ErrDeadlineExceeded) {
						t.Fatalf("step %d: %v; received so far:\n%s", i, err, strings.Join(got, "\n"))
					}
					got = append(got, "end of connection")
					break
				}
				got = append(got, masked(m, d.loose))
				if m.Type == u {
					break
				}
			}
		}
	}
	return got
}

// masked prints a message without process ids and keys.
func masked(m pgraw.Message, loose bool) string {
	switch {
	case m.Type == 'K':
		return fmt.Sprintf("K of %d bytes", len(m.Body))
	case m.Type == 'A':
		return fmt.Sprintf("A %q", m.Body[4:])
	case m.Type == 'E' && loose:
		return "E " + pgraw.Field(m.Body, 'V') + " " + pgraw.Field(m.Body, 'C')
	case len(m.Body) > 2000:
		return fmt.Sprintf("%c %d bytes, %x", m.Type, len(m.Body), m.Body[:16])
	}
	return m.String()
}

// TestDialogues holds each dialogue with the server itself and through pgnotary, in three ways
// of cutting the bytes and in each mode. What is received must be the same.
func TestDialogues(t *testing.T) {
	t.Parallel()
	s := pgtest.Server(t)
	if _, err := s.Psql(t.Context(), "postgres", dialogueSchema); err != nil {
		t.Fatal(err)
	}
	direct := map[string][]string{}
	for _, d := range dialogues(majorOf(t, s.Addr())) {
		direct[d.name] = hold(t, s.Addr(), d, deliveries()[0])
	}
	for _, mode := range []string{"before-forward", "before-reply", "async"} {
		t.Run(mode, func(t *testing.T) {
			n := start(t, s.Addr(), "--durability", mode)
			for _, d := range dialogues(majorOf(t, s.Addr())) {
				t.Run(d.name, func(t *testing.T) {
					ways := deliveries()
					if mode != "before-forward" {
						ways = ways[2:]
					}
					want := direct[d.name]
					for _, how := range ways {
						compare(t, how.name, hold(t, n.addr, d, how), want)
						if t.Failed() {
							return
						}
					}
				})
			}
		})
	}
}

// majorOf asks a server for its major version.
func majorOf(t *testing.T, addr string) int {
	t.Helper()
	c, err := pgraw.Login(addr, "postgres", "postgres", "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answer, err := c.Query("SHOW server_version_num")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range answer {
		if m.Type == 'D' && len(m.Body) == 12 {
			n, err := strconv.Atoi(string(m.Body[6:]))
			if err != nil {
				t.Fatal(err)
			}
			return n / 10000
		}
	}
	t.Fatalf("the server does not tell its version: %v", answer)
	return 0
}

const dialogueSchema = `
CREATE TABLE deferred (i int UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE sink (i int, t text);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$;
CREATE TABLE guarded (i int);
CREATE TRIGGER refuse BEFORE INSERT ON guarded FOR EACH STATEMENT EXECUTE FUNCTION refuse();
CREATE ROLE nologin NOLOGIN;`

func compare(t *testing.T, how string, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		var g, w string
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("%s: message %d differs\n got  %s\n want %s\n after %q", how, i, g, w, got[max(0, min(i, len(got))-5):min(i, len(got))])
			return
		}
	}
}

// v2 reads an answer in the form of protocol 2.0: E, text, NUL.
func v2(t *testing.T, addr string, packet []byte) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(packet); err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(c)
	if err != nil && !os.IsTimeout(err) && len(out) == 0 {
		t.Logf("read: %v", err)
	}
	return string(out)
}

// TestRefusals checks what pgnotary refuses by itself, and that it says so in the log.
func TestRefusals(t *testing.T) {
	s := pgtest.Server(t)
	n := start(t, s.Addr())
	startup := pgraw.Startup(3<<16, "user", "postgres", "database", "postgres")
	long := binary.BigEndian.AppendUint32(nil, 20000)
	for _, tt := range []struct {
		name   string
		packet []byte
		want   string // part of the answer; empty for none at all
	}{
		{"protocol 2.0", pgraw.Startup(2<<16, "user", "postgres"), "E"},
		{"protocol 4.0", pgraw.Startup(4<<16, "user", "postgres"), "0A000"},
		{"length 3", []byte{0, 0, 0, 3, 0, 3, 0, 0}, ""},
		{"length 20000", append(long, 0, 3, 0, 0), ""},
		{"HTTP", []byte("GET / HTTP/1.1\r\n\r\n"), ""},
		{"bytes before TLS", append(pgraw.SSLRequest(), startup...), "08P01"},
		{"unknown message", append(append([]byte{}, startup...), pgraw.Msg('z', "?")...), "08P01"},
		{"message of length 3", append(append([]byte{}, startup...), 'Q', 0, 0, 0, 3), "08P01"},
		{"message of negative length", append(append([]byte{}, startup...), 'Q', 0xff, 0xff, 0xff, 0xff), ""},
		{"second start-up packet", append(append([]byte{}, startup...), startup...), "08P01"},
		{"TLS after the login", append(append([]byte{}, startup...), 0x16, 3, 1, 2, 0, 1), "08P01"},
		{"late password", append(append([]byte{}, startup...), pgraw.Msg('p', "secret", 0)...), "08P01"},
		{"Sync of 20 kB", append(append([]byte{}, startup...), 'S', 0, 0, 0x4e, 0x20), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := v2(t, n.addr, tt.packet)
			if !strings.Contains(got, tt.want) {
				t.Errorf("answer %q, want %q in it", got, tt.want)
			}
			if tt.want == "" && strings.Contains(got, "SFATAL") && !strings.Contains(got, "pgnotary") {
				t.Errorf("the server answered: %q", got)
			}
		})
	}
	all := n.finish(t)
	if got := len(ofKind(all, "violation")); got < 6 {
		t.Errorf("%d violation entries, want one for each refusal", got)
	}
	for _, r := range ofKind(all, "violation") {
		if !strings.HasPrefix(r.Client, "127.0.0.1:") {
			t.Errorf("a violation without its client: %+v", r)
		}
	}
}
