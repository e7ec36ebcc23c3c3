package session

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// Every letter from either side either is a message of the protocol or ends
// the session, and never reaches the other side then.
func TestLetters(t *testing.T) {
	for c := range 256 {
		typ := byte(c)
		for _, from := range []struct {
			client bool
			legal  string
			after  []step // puts the session where the letter is tried
		}{
			{true, "QPBEDCHSFXdcf", nil},
			{false, "NSAEK", nil},
			{false, "NSAEKTDCIGHWZ", []step{client(query("q"))}},
		} {
			d := loggedIn(t)
			d.play(from.after...)
			before := len(d.log.entries)
			body := []byte("I")
			if typ == 'H' {
				body = nil
			}
			fwd, err := d.feed(from.client, msg(typ, body))
			legal := strings.IndexByte(from.legal, typ) >= 0
			var v *Violation
			if legal != (err == nil) || !legal && (!errors.As(err, &v) || len(fwd) > 0) {
				t.Errorf("letter %q, from client %v: %v, passed on %q", typ, from.client, err, fwd)
			}
			if !legal && d.log.entries[before].Kind != "violation" {
				t.Errorf("letter %q, from client %v: %s", typ, from.client, d.log.text(before))
			}
			if !legal {
				for _, side := range []bool{true, false} {
					if fwd, err := d.feed(side, query("more")); len(fwd) > 0 || err != nil {
						t.Errorf("letter %q: %q passed on afterwards, %v", typ, fwd, err)
					}
				}
			}
		}
	}
}

func TestLengths(t *testing.T) {
	for _, tt := range []struct {
		header string
		code   string // "" for legal
	}{
		{"Q\x00\x00\x00\x00", "08P01"},
		{"Q\x00\x00\x00\x03", "08P01"},
		{"Q\x00\x00\x00\x04", ""},
		{"Q\x80\x00\x00\x00", "08P01"},
		{"Q\xff\xff\xff\xff", "08P01"},
		{"Q\x3f\xff\xff\xff", "54000"},
		{"Q\x3f\xff\xff\xfe", ""},
		{"d\x00\x00\x00\x03", "08P01"},
		{"d\x3f\xff\xff\xff", "54000"},
		{"d\x3f\xff\xff\xfe", ""},
		{"S\x00\x00\x00\x00", "08P01"},
		{"H\x00\x00\x00\x05", "08P01"}, // the server would skip what follows
		{"S\x00\x00\x27\x10", ""},
		{"S\x00\x00\x27\x11", "54000"},
		{"E\x00\x00\x27\x11", "54000"},
		{"X\x7f\xff\xff\xff", "54000"},
		{"p\x00\x00\x00\x08", "08P01"},
		{"GET / HTTP/1.1\r\n", "08P01"},
		{"\x16\x03\x01\x02\x00", "08P01"},
	} {
		d := loggedIn(t)
		_, err := d.feed(true, []byte(tt.header))
		var v *Violation
		if errors.As(err, &v); err != nil && (v == nil || v.Code != tt.code) || err == nil && tt.code != "" {
			t.Errorf("header %q: %v, want %q", tt.header, err, tt.code)
		}
	}
	for _, header := range []string{"D\x00\x00\x00\x03", "Z\xff\xff\xff\xff", "1\x00\x00\x00\x00", "E\x80\x00\x00\x00"} {
		d := loggedIn(t)
		_, err := d.feed(false, []byte(header))
		var v *Violation
		if !errors.As(err, &v) || v.Code != "08P01" {
			t.Errorf("header %q from the server: %v, want 08P01", header, err)
		}
	}
}

// What was whole before an offence passes, recorded.
func TestViolationBehindQuery(t *testing.T) {
	d := loggedIn(t)
	fwd, err := d.feed(true, append(query("q"), "\x00\x00\x00\x00\x00"...))
	if err == nil || !bytes.Equal(fwd, query("q")) {
		t.Errorf("passed on %q, %v", fwd, err)
	}
	d.want(2, `query Q`, `violation 08P01 reason:invalid frontend message type 0`)
	if err := d.s.Close(d.clock, "violation"); err != nil {
		t.Fatal(err)
	}
	d.want(4, `outcome of=2 end=unknown`, `disconnect reason:violation`)
}

func TestUnexpectedReplies(t *testing.T) {
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"ReadyForQuery for nothing", []step{server(ready('I'))}},
		{"ReadyForQuery of a status nobody knows", []step{client(query("q")), server(ready('X'))}},
		{"ReadyForQuery for a Bind", []step{client(bind("", ""), syncMsg()), server(ready('I'))}},
		{"ReadyForQuery inside COPY", []step{client(query("copy")), server(copyStart('G')), server(ready('I'))}},
		{"BindComplete for a Parse", []step{client(parse("", "q"), syncMsg()), server(bound())}},
		{"row for a Parse", []step{client(parse("", "q"), syncMsg()), server(dataRow("1"))}},
		{"suspended Query", []step{client(query("q")), server(suspended())}},
		{"parameter types of a portal", []step{client(describe('P', ""), syncMsg()), server(paramTypes(23))}},
		{"COPY content without COPY", []step{client(query("q")), server(data("x"))}},
		{"second authentication", []step{server(auth(0))}},
		{"negotiation after login", []step{server(msg('v', 1<<17, 0))}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := loggedIn(t)
			last := len(tt.steps) - 1
			d.play(tt.steps[:last]...)
			d.play(tt.steps[last].breaks("08P01"))
		})
	}
}

func TestEndings(t *testing.T) {
	end := func(d *dialogue) {
		if err := d.s.Close(d.clock, "gone"); err != nil {
			d.tb.Fatal(err)
		}
		n := len(d.log.entries)
		if err := d.s.Close(d.clock, "again"); err != nil || len(d.log.entries) != n {
			d.tb.Errorf("second Close: %v, %d entries more", err, len(d.log.entries)-n)
		}
	}
	for _, tt := range []struct {
		name  string
		steps []step
		want  []string
	}{
		{"Terminate", []step{client(query("q")), server(tag("Q"), ready('I')), client(terminate())}, []string{
			`query Q`,
			`outcome CZ of=2 ["Q"] tx=I committed=true`,
			`disconnect X reason:gone`,
		}},
		{"in the middle of an answer", []step{client(query("q")), server(rowDescription(), dataRow("1"))}, []string{
			`query Q`,
			`outcome TD of=2 rows=1 end=unknown`,
			`disconnect reason:gone`,
		}},
		{"in the middle of a pipeline", []step{
			client(parse("", "a"), bind("", ""), execute("", 0), parse("", "b"), bind("", ""), execute("", 0), syncMsg(), query("c")),
			server(parsed(), bound(), tag("A")),
		}, []string{
			`execute PBE`,
			`execute PBES`,
			`query Q`,
			`outcome 12C of=2 ["A"]`,
			`outcome of=3 end=unknown`,
			`outcome of=4 end=unknown`,
			`disconnect reason:gone`,
		}},
		{"FATAL while idle", []step{server(problem("FATAL", "57P01"))}, []string{
			`settle E 57P01`,
			`disconnect reason:gone`,
		}},
		{"FATAL in the middle", []step{client(query("a"), query("b")), server(problem("FATAL", "57P01"))}, []string{
			`query Q`,
			`query Q`,
			`outcome E of=2 end=unknown 57P01`,
			`outcome of=3 end=unknown`,
			`disconnect reason:gone`,
		}},
		{"COPY not ended", []step{client(query("copy")), server(copyStart('G')), client(data("1"))}, []string{
			`query Q`,
			`copy d of=2 rows=1 direction:in`,
			`outcome G of=2 end=unknown`,
			`outcome of=3 end=unknown`,
			`disconnect reason:gone`,
		}},
		{"after the COMMIT of a Query", []step{
			client(query("begin")), server(tag("BEGIN"), ready('T')),
			client(query("commit; more")), server(tag("COMMIT")),
		}, []string{
			`query Q`,
			`outcome CZ of=2 ["BEGIN"] tx=T`,
			`query Q`,
			`settle of=2 committed=true since=2`,
			`outcome C of=4 ["COMMIT"] end=unknown`,
			`disconnect reason:gone`,
		}},
		{"letters left", []step{client(syncMsg()), server(ready('I')), client(flush())}, []string{
			`settle Z`,
			`disconnect SH reason:gone`,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := loggedIn(t)
			d.play(tt.steps...)
			end(d)
			d.want(2, tt.want...)
		})
	}
}

func TestRecordingFails(t *testing.T) {
	full := errors.New("disk full")
	for _, tt := range []struct {
		name string
		do   func(d *dialogue) ([]byte, error)
	}{
		{"admission", func(d *dialogue) ([]byte, error) { return d.feed(true, query("q")) }},
		{"outcome", func(d *dialogue) ([]byte, error) { return d.feed(false, append(tag("A"), ready('I')...)) }},
		{"notice", func(d *dialogue) ([]byte, error) { return d.feed(false, notice("00000")) }},
		{"violation", func(d *dialogue) ([]byte, error) { return d.feed(true, make([]byte, 10)) }},
		{"blob", func(d *dialogue) ([]byte, error) { return d.feed(true, query(strings.Repeat("x", maxHeld))) }},
	} {
		d := loggedIn(t)
		d.play(client(query("a")))
		d.log.fail = full
		if fwd, err := tt.do(d); !errors.Is(err, full) || len(fwd) > 0 {
			t.Errorf("%s: passed on %q, %v", tt.name, fwd, err)
		}
		if fwd, _ := d.feed(true, query("q")); len(fwd) > 0 {
			t.Errorf("%s: %q passed on afterwards", tt.name, fwd)
		}
	}
}
