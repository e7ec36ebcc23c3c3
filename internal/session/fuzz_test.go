package session

import (
	"bytes"
	"errors"
	"testing"

	"github.com/pgnotary/pgnotary/internal/wire"
)

// fuzzMessages are what FuzzSession puts together, besides raw bytes.
var fuzzMessages = [2][][]byte{
	{
		query("select 1"), query("commit; x"), query("deallocate s"), parse("", "select $1", 23), parse("s", "call p()"),
		bind("", ""), bind("p", "s"), describe('S', "s"), describe('P', ""), execute("", 0), execute("p", 1),
		closing('S', "s"), closing('P', "p"), flush(), syncMsg(), syncMsg(), call(1), data("x\n"), copyDone(), copyFail(""),
		msg('B'), msg('Q', []byte("no end")), password("x"), terminate(),
	},
	{
		ready('I'), ready('T'), ready('E'), parsed(), bound(), closed(), noData(), suspended(), empty(),
		paramTypes(23, 25), rowDescription(), dataRow("1"), tag("SELECT 1"), tag("BEGIN"), tag("COMMIT"), tag("ROLLBACK"),
		tag("DISCARD ALL"), tag("CALL"), tag("PREPARE TRANSACTION"), failure("42601"), problem("FATAL", "57P01"),
		notice("00000"), notification("c"), setting("client_encoding", "SJIS"), copyStart('G'), copyStart('H'), copyStart('W'),
		data("x\n"), copyDone(), msg('V', -1), auth(0), auth(3), auth(10, "SCRAM-SHA-256"), keyData(),
	},
}

// FuzzSession plays any bytes from both sides. In script, a byte b below 0xc0
// takes message b from the client, or b-0x60 from the server; above, b-0xc0 bytes
// behind it are sent raw, from the client if b is even. It is one read with
// those before it unless the next byte is of the other side, or 0x5f.
func FuzzSession(f *testing.F) {
	f.Add([]byte{0, 0x60 + 12, 0x60}, true)
	f.Add([]byte{3, 5, 9, 14, 0x63, 0x64, 0x6c, 0x60}, true)
	f.Add([]byte{3, 5, 9, 14, 0x63, 0x64, 0x78, 17, 18, 14, 0x6c, 0x60}, true)
	f.Add([]byte{0x80, 22, 0x7f, 0x81, 0x60, 0, 0xc4, 'Q', 0, 0, 0}, false)
	f.Fuzz(func(t *testing.T, script []byte, ready bool) {
		w := watch(t)
		if !ready {
			w = &watched{dialogue: newDialogue(t)}
			w.start(startup(wire.Version30, "user", "u"))
		}
		var read []byte
		from := true
		give := func() {
			if len(read) > 0 && !(from && w.s.Done()) && w.s.phase != phaseDead {
				w.feed(from, read)
			}
			read = nil
		}
		for len(script) > 0 {
			b := int(script[0])
			script = script[1:]
			side := b < 0x60
			if b >= 0xc0 {
				side = b%2 == 0
			}
			if side != from {
				give()
				from = side
			}
			switch {
			case b == 0x5f:
				give()
			case b < 0x60:
				read = append(read, fuzzMessages[0][b%len(fuzzMessages[0])]...)
			case b < 0xc0:
				read = append(read, fuzzMessages[1][(b-0x60)%len(fuzzMessages[1])]...)
			default:
				n := min(b-0xc0, len(script))
				read = append(read, script[:n]...)
				script = script[n:]
			}
		}
		give()
		w.finish()
	})
}

func FuzzStart(f *testing.F) {
	f.Add(startup(wire.Version30, "user", "u", "database", "d", "replication", "on"), []byte{})
	f.Add(startup(3<<16|9999, "user", "u", "_pq_.x", "y"), msg('v', wire.Version30, 1, "_pq_.z"))
	f.Add([]byte{0, 0, 0, 8, 0, 2, 0, 0}, []byte("E"))
	f.Fuzz(func(t *testing.T, packet, answer []byte) {
		d := newDialogue(t)
		fwd, err := d.s.Start(1, packet)
		var v *Violation
		if err != nil && !errors.As(err, &v) {
			t.Fatal(err)
		}
		if err == nil {
			if r, version, err := wire.First(fwd); r != wire.StartupMessage || version > wire.Version32 || err != nil {
				t.Fatalf("forwarded %q: %v", fwd, err)
			}
			if params, err := wire.StartupParams(fwd); err != nil || bytes.Contains(fwd[8:], []byte("\x00_pq_.")) && !bytes.Equal(fwd, packet) {
				t.Fatalf("forwarded %q: %v, %v", fwd, params, err)
			}
			if !d.s.login.negotiate && !bytes.Equal(fwd, packet) {
				t.Fatalf("forwarded %q of %q", fwd, packet)
			}
		}
		if _, err := d.feed(false, answer); err != nil && !errors.As(err, &v) {
			t.Fatal(err)
		}
		if err := d.s.Close(2, "end"); err != nil {
			t.Fatal(err)
		}
	})
}
