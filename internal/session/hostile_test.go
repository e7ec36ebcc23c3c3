package session

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/wire"
)

// TestLengthSweep sends every letter with lengths that no message has: from the client nothing passes, from the server
// nothing that could be taken for a message.
func TestLengthSweep(t *testing.T) {
	for _, length := range []uint32{0, 1, 2, 3, 0x80000000, 0xffffffff, 0x7fffffff, wire.MaxLarge + 1} {
		for typ := range 256 {
			for _, fromClient := range []bool{true, false} {
				if !fromClient && length >= wire.MaxLarge && length < 0x80000000 {
					continue // a server may say as much
				}
				d := loggedIn(t)
				fwd, err := d.feed(fromClient, append(binary.BigEndian.AppendUint32([]byte{byte(typ)}, length), "rest"...))
				var v *Violation
				if !errors.As(err, &v) || len(fwd) > 0 {
					t.Fatalf("letter %q, length %d, from client %v: passed on %q, %v", byte(typ), int32(length), fromClient, fwd, err)
				}
			}
		}
	}
}

// TestWrappedLength has a client whose driver counts a value's length in 32 bits: of 4 GiB and some bytes the
// length is those few bytes, and what follows in the value are messages of the attacker's. The proxy and the
// server read the same bytes in the same way, so what was smuggled is recorded as what it became.
func TestWrappedLength(t *testing.T) {
	smuggled := query("DROP TABLE accounts -- smuggled")
	for name, run := range map[string][]byte{
		"value": append(bytes.Join([][]byte{parse("", "SELECT $1"), msg('B', "", "", 0, 1, 4, []byte("AAAA"))}, nil), smuggled...), // Bind ends behind four bytes
		"query": append(query("SELECT 'AAAA"), smuggled...),
	} {
		w := watch(t)
		w.feed(true, run)
		last := &w.log.entries[len(w.log.entries)-1]
		if last.Kind != event.KindQuery || !bytes.Equal(last.value, smuggled) {
			t.Errorf("%s: the last entry is %s %q", name, last.Kind, last.value)
		}
		if !bytes.Equal(w.out[0], run) {
			t.Errorf("%s: passed on %q", name, w.out[0])
		}
		w.finish()
	}
}

// What a client may send at once must not cost more the more of it there is: a loop serves others, too. If it
// does, this runs into the time limit of tests.
func TestDeepPipelines(t *testing.T) {
	const n = 300000
	many := func(m []byte) []byte { return bytes.Repeat(m, n) }
	for _, tt := range []struct {
		name           string
		client, server []byte
	}{
		{"Close", many(closing('S', "s")), many(closed())},
		{"Describe", append(parse("s", ""), many(describe('S', "s"))...), append(parsed(), many(append(paramTypes(23), noData()...))...)},
		{"Syncs in COPY data", bytes.Join([][]byte{execute("", 0), many(syncMsg()), data("x"), copyDone()}, nil), append(copyStart('G'), tag("COPY 1")...)},
		{"Syncs behind a COPY that failed", bytes.Join([][]byte{execute("", 0), many(syncMsg())}, nil), bytes.Join([][]byte{copyStart('G'), failure("P0001"), many(ready('I'))}, nil)},
		{"a name that is refused", many(append(parse("s", ""), syncMsg()...)), many(append(failure("42601"), ready('I')...))},
		{"skipped", many(execute("", 0)), failure("42601")},
		{"DO", query(""), append(many(tag("DO")), ready('I')...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := loggedIn(t)
			d.s.cfg.Log = &nullLog{}
			for i := range maxNames / 2 {
				d.play(client(parse(fmt.Sprint("n", i), "")), server(parsed()))
			}
			d.play(client(tt.client), server(tt.server))
			if n := d.s.queue.len(); n > 0 {
				t.Errorf("%d messages are outstanding", n)
			}
		})
	}
	t.Run("skipped later", func(t *testing.T) {
		d := loggedIn(t)
		d.play(client(execute("", 0)), server(failure("42601")), client(parse("s", ""), many(describe('S', "s"))))
		d.play(client(syncMsg()), server(ready('I')))
	})
}
