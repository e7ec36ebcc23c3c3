package session

import (
	"bytes"
	"strings"
	"testing"
)

// pump feeds b in pieces as the relay does: when a blob is ready it syncs it
// and calls FromClient with nothing. It returns what was passed on.
func (d *dialogue) pump(fromClient bool, b []byte, piece int) []byte {
	d.tb.Helper()
	var out []byte
	take := func(fwd []byte, err error) {
		if err != nil {
			d.tb.Fatal(err)
		}
		out = append(out, fwd...)
	}
	for len(b) > 0 {
		n := min(piece, len(b))
		take(d.feed(fromClient, bytes.Clone(b[:n])))
		b = b[n:]
		for blob := d.s.Blob(); fromClient && blob != nil; blob = d.s.Blob() {
			if err := blob.Sync(); err != nil {
				d.tb.Fatal(err)
			}
			take(d.feed(true, nil))
		}
	}
	return out
}

func TestLargeMessages(t *testing.T) {
	text := strings.Repeat("x", 300<<10)
	in := bytes.Join([][]byte{
		query("small"),
		query(text),
		parse("big", text, 23), bind("p", "big"), execute("p", 0), syncMsg(),
		msg('B', "", "big", int16(0), int16(1), len(text), []byte(text), int16(0)), execute("", 0), syncMsg(),
		query("end"),
	}, nil)
	for _, piece := range []int{1, 1000, 64 << 10, 1 << 20} {
		if piece == 1 && testing.Short() {
			continue
		}
		d := loggedIn(t)
		if out := d.pump(true, in, piece); !bytes.Equal(out, in) {
			t.Fatalf("%d bytes at a time: %d bytes passed on of %d", piece, len(out), len(in))
		}
		var values []byte
		for _, e := range d.log.entries[2:] {
			values = append(values, e.value...)
		}
		if want := bytes.ReplaceAll(in, syncMsg(), nil); !bytes.Equal(bytes.ReplaceAll(values, syncMsg(), nil), want) {
			t.Errorf("%d bytes at a time: values of %d bytes, want %d", piece, len(values), len(want))
		}
		if len(d.log.blobs) != 3 {
			t.Errorf("%d bytes at a time: %d blobs, want 3", piece, len(d.log.blobs))
		}
		if piece == 1<<20 {
			d.want(2, `query Q`, `query Q`, `parse P`, `execute BES parse=4`,
				`bind B parse=4`, `execute ES parse=4 bind=6`, `query Q`)
		}
	}
}

// The last byte of a large message, and what is behind it, wait for the blob.
func TestBlobHoldsLastByte(t *testing.T) {
	d := loggedIn(t)
	in := append(query(strings.Repeat("x", maxHeld)), query("behind")...)
	fwd, err := d.feed(true, in)
	if err != nil || len(fwd) != maxHeld+5 || d.s.Blob() == nil {
		t.Fatalf("passed on %d bytes, blob %v, %v", len(fwd), d.s.Blob(), err)
	}
	d.want(2)
	if err := d.s.Blob().Sync(); err != nil {
		t.Fatal(err)
	}
	rest, err := d.feed(true, nil)
	if err != nil || !bytes.Equal(rest, in[maxHeld+5:]) || d.s.Blob() != nil {
		t.Fatalf("then passed on %q, %v", rest, err)
	}
	d.want(2, `query Q`, `query Q`)
}

func TestBlobAborted(t *testing.T) {
	for _, length := range []int{maxHeld / 2, maxHeld + 6} { // unfinished, and waiting to be synced
		d := loggedIn(t)
		if _, err := d.feed(true, query(strings.Repeat("x", maxHeld))[:length]); err != nil {
			t.Fatal(err)
		}
		if err := d.s.Close(d.clock, "gone"); err != nil {
			t.Fatal(err)
		}
		if len(d.log.blobs) == 1 && !d.log.blobs[0].aborted {
			t.Errorf("blob of %d bytes not aborted", length)
		}
		d.want(2, `disconnect reason:gone`)
	}
}

func TestFull(t *testing.T) {
	d := loggedIn(t)
	many := bytes.Repeat(syncMsg(), 1000)
	for i := 0; !d.s.Full(); i++ {
		if i > maxQueue {
			t.Fatal("never full")
		}
		d.play(client(many))
	}
	for d.s.Full() {
		d.play(server(bytes.Repeat(ready('I'), 1000)))
	}
	if d.s.queue.len() == 0 || d.s.Idle() {
		t.Errorf("%d replies outstanding, idle %v", d.s.queue.len(), d.s.Idle())
	}
}

// A password in a message too large for memory does not stay in the blob, nor in the answer to it.
func TestBlobRedacted(t *testing.T) {
	for _, typ := range []string{"query", "parse"} {
		d := loggedIn(t)
		text := "create role r password 'sesame'; -- " + strings.Repeat("x", 300<<10)
		b := query(text)
		if typ == "parse" {
			b = parse("", text)
		}
		if fwd, err := d.feed(true, b); err != nil || len(fwd) != len(b)-1 {
			t.Fatalf("%d bytes passed, %v", len(fwd), err)
		}
		if err := d.s.Blob().Sync(); err != nil {
			t.Fatal(err)
		}
		if _, err := d.feed(true, nil); err != nil {
			t.Fatal(err)
		}
		d.play(client(syncMsg()), server(problem("ERROR", "42601"), ready('I')))
		e := d.log.entries[2]
		if bytes.Contains(e.value, []byte("sesame")) || !bytes.Contains(e.value, []byte("password '***'")) || len(e.Facts) != 1 || e.Facts[0].Key != "redacted" {
			t.Errorf("%s: %.80q", e.String(), e.value)
		}
		if o := d.log.entries[3]; bytes.Contains(o.value, []byte("went wrong")) || !bytes.Contains(o.value, []byte("42601")) {
			t.Errorf("%s: %q", o.String(), o.value)
		}
	}
}
