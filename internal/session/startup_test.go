package session

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/wire"
)

func TestStart(t *testing.T) {
	const grease = 3<<16 | 9999
	tests := []struct {
		name      string
		packet    []byte
		fwd       []byte // nil: as packet
		violation string
		want      string
		who       event.Who
	}{
		{
			name: "3.0", packet: startup(wire.Version30, "user", "u"), want: "connect protocol:3.0",
			who: event.Who{User: "u", Database: "u"},
		},
		{
			name: "3.1", packet: startup(3<<16|1, "user", "u"), want: "connect protocol:3.1",
			who: event.Who{User: "u", Database: "u"},
		},
		{
			name: "3.2", packet: startup(wire.Version32, "user", "u", "database", "d", "application_name", "psql"),
			want: "connect protocol:3.2", who: event.Who{User: "u", Database: "d", Application: "psql"},
		},
		{
			name: "newer", packet: startup(grease, "user", "u"), fwd: startup(wire.Version32, "user", "u"),
			want: "connect protocol:3.9999", who: event.Who{User: "u", Database: "u"},
		},
		{
			name: "options of the protocol", packet: startup(wire.Version30, "_pq_.a", "1", "user", "u", "_pq_.b", "2"),
			fwd: startup(wire.Version30, "user", "u"), want: "connect protocol:3.0 refused_option:_pq_.a refused_option:_pq_.b",
			who: event.Who{User: "u", Database: "u"},
		},
		{
			name: "repeated", packet: startup(wire.Version30, "user", "u", "user", "v", "database", ""),
			want: "connect protocol:3.0 repeated_parameter:the last one counts", who: event.Who{User: "v", Database: "v"},
		},
		{
			name: "replication", packet: startup(wire.Version30, "user", "u", "replication", "yes"),
			want: "connect protocol:3.0 replication:yes", who: event.Who{User: "u", Database: "u"},
		},
		{
			name: "replication database", packet: startup(wire.Version30, "user", "u", "replication", "database"),
			want: "connect protocol:3.0 replication:database", who: event.Who{User: "u", Database: "u"},
		},
		{
			name: "no replication", packet: startup(wire.Version30, "user", "u", "replication", "OFF"),
			want: "connect protocol:3.0", who: event.Who{User: "u", Database: "u"},
		},
		{
			name: "settings", packet: startup(wire.Version30, "user", "u", "options", "-c a=b", "client_encoding", "SJIS"),
			want: "connect protocol:3.0 options:-c a=b client_encoding:SJIS", who: event.Who{User: "u", Database: "u"},
		},
		{name: "no terminator", packet: func() []byte {
			b := startup(wire.Version30, "user", "u")
			b = b[:len(b)-1]
			b[3]--
			return b
		}(), violation: "08P01", want: "violation 08P01 reason:invalid start-up packet: the terminator is not its last byte"},
		{name: "bytes behind the terminator", packet: func() []byte {
			b := append(startup(wire.Version30, "user", "u"), 'x')
			b[3]++
			return b
		}(), violation: "08P01", want: "violation 08P01 reason:invalid start-up packet: the terminator is not its last byte"},
		{
			name: "2.0", packet: startup(2<<16, "user", "u"), violation: "0A000",
			want: "violation 0A000 reason:protocol version 2.0 is not supported, only 3.0 to 3.2",
		},
		{
			name: "4.0", packet: startup(4<<16, "user", "u"), violation: "0A000",
			want: "violation 0A000 reason:protocol version 4.0 is not supported, only 3.0 to 3.2",
		},
		{name: "empty", packet: nil, violation: "08P01", want: "violation 08P01 reason:malformed start-up packet"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDialogue(t)
			fwd, err := d.s.Start(1, tt.packet)
			var v *Violation
			switch {
			case tt.violation != "":
				if !errors.As(err, &v) || v.Code != tt.violation {
					t.Errorf("Start: %v, want violation %s", err, tt.violation)
				}
			case err != nil:
				t.Error(err)
			case tt.fwd == nil && !bytes.Equal(fwd, tt.packet), tt.fwd != nil && !bytes.Equal(fwd, tt.fwd):
				t.Errorf("forwarded %q", fwd)
			case !bytes.Equal(d.log.entries[0].value, tt.packet):
				t.Errorf("recorded %q", d.log.entries[0].value)
			}
			d.want(0, tt.want)
			tt.who.Client = "10.0.0.1:999"
			if w := d.log.entries[0].Who; w.User != tt.who.User || w.Database != tt.who.Database ||
				w.Application != tt.who.Application || w.Client != tt.who.Client {
				t.Errorf("who = %+v, want %+v", *w, tt.who)
			}
		})
	}
}

// A packet full of the largest facts must still make a valid leaf.
func TestStartLargest(t *testing.T) {
	var pairs []string
	for _, name := range []string{"user", "database", "application_name", "options", "client_encoding", "replication"} {
		pairs = append(pairs, name, strings.Repeat("\x01", 1400))
	}
	for i := range 100 {
		pairs = append(pairs, fmt.Sprintf("_pq_.\x01%02d", i), "")
	}
	d := newDialogue(t)
	for _, name := range []string{"tls", "tls_cipher", "tls_alpn", "sni", "tls_client", "tls_client_sha256", "tls_client_issuer", "proxied_by"} {
		d.s.cfg.Facts = append(d.s.cfg.Facts, event.Fact{Key: name, Val: strings.Repeat("\x01", 128)})
	}
	d.start(startup(wire.Version30, pairs...))
}

func TestNegotiate(t *testing.T) {
	const grease = 3<<16 | 9999
	wants := func(version int, names ...string) []byte {
		parts := []any{version, len(names)}
		for _, n := range names {
			parts = append(parts, n)
		}
		return msg('v', parts...)
	}
	tests := []struct {
		name          string
		start, server []byte
		want          []byte
	}{
		{
			"answered by the proxy", startup(grease, "user", "u", "_pq_.x", "1"), auth(0),
			append(wants(wire.Version32, "_pq_.x"), auth(0)...),
		},
		{
			"merged with the server's", startup(grease, "user", "u", "_pq_.x", "1"), append(wants(wire.Version30), auth(0)...),
			append(wants(wire.Version30, "_pq_.x"), auth(0)...),
		},
		{
			"the server's own", startup(wire.Version32, "user", "u"), append(wants(wire.Version30), auth(0)...),
			append(wants(wire.Version30), auth(0)...),
		},
		{"none", startup(wire.Version32, "user", "u"), auth(0), auth(0)},
		{"before a failure", startup(grease, "user", "u"), problem("FATAL", "28000"), problem("FATAL", "28000")},
	}
	for _, tt := range tests {
		for _, piece := range []int{1, 7, 1000} {
			d := newDialogue(t)
			d.start(tt.start)
			var got []byte
			for b := tt.server; len(b) > 0; b = b[min(piece, len(b)):] {
				fwd, err := d.feed(false, b[:min(piece, len(b))])
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, fwd...)
			}
			if !bytes.Equal(got, tt.want) {
				t.Errorf("%s, %d bytes at a time: the client got %q, want %q", tt.name, piece, got, tt.want)
			}
		}
	}
}

func TestLogin(t *testing.T) {
	rest := server(auth(0), setting("client_encoding", "UTF8"), keyData(), ready('I'))
	const secret = "s3cret"
	tests := []struct {
		name  string
		steps []step
		want  []string
	}{
		{"trust", []step{rest}, []string{`auth RSKZ method:trust result:ok client_encoding:UTF8`}},
		{
			"password",
			[]step{server(auth(3)), client(password(secret)), rest},
			[]string{`auth RRSKZ method:password result:ok client_encoding:UTF8`},
		},
		{
			"md5",
			[]step{server(auth(5, []byte("salt"))), client(password(secret)), rest},
			[]string{`auth RRSKZ method:md5 result:ok client_encoding:UTF8`},
		},
		{"SCRAM", []step{
			server(auth(10, "SCRAM-SHA-256", "")), client(msg('p', "SCRAM-SHA-256", 6, []byte(secret))),
			server(auth(11, []byte(secret))), client(msg('p', []byte(secret))),
			server(auth(12, []byte(secret)), auth(0), keyData(), ready('I')),
		}, []string{`auth RRRRKZ method:sasl mechanism:SCRAM-SHA-256 channel_binding:none result:ok`}},
		{"SCRAM-PLUS", []step{
			server(auth(10, "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "")), client(msg('p', "SCRAM-SHA-256-PLUS", 40, []byte("p=tls-server-end-point,,n=,r="+secret))),
			server(auth(11, []byte(secret))), client(msg('p', []byte(secret))),
			server(auth(12, []byte(secret)), auth(0), keyData(), ready('I')),
		}, []string{`auth RRRRKZ method:sasl mechanism:SCRAM-SHA-256-PLUS channel_binding:tls-server-end-point result:ok`}},
		{"OAUTHBEARER", []step{
			server(auth(10, "OAUTHBEARER", "")), client(msg('p', "OAUTHBEARER", 30, []byte("y,,\x01auth=Bearer "+secret+"\x01\x01"))), rest,
		}, []string{`auth RRSKZ method:sasl mechanism:OAUTHBEARER result:ok client_encoding:UTF8`}},
		{"GSS, three rounds", []step{
			server(auth(7)), client(password(secret)), server(auth(8, []byte(secret))), client(password(secret)), server(auth(8, []byte(secret))),
			client(password(secret)), rest,
		}, []string{`auth RRRRSKZ method:gss result:ok client_encoding:UTF8`}},
		{
			"wrong password",
			[]step{server(auth(3)), client(password(secret)), server(problem("FATAL", "28P01"))},
			[]string{`auth RE 28P01 method:password result:failed`},
		},
		{
			"refused after the password",
			[]step{server(auth(0), problem("FATAL", "3D000"))},
			[]string{`auth RE 3D000 method:trust result:failed`},
		},
		{"refused at once", []step{server(problem("FATAL", "53300"))}, []string{`auth E 53300 result:failed`}},
		{
			"no fork",
			[]step{server([]byte("Ecould not fork new process\n\x00"))},
			[]string{`auth E result:failed message:could not fork new process`},
		},
		{
			"notices",
			[]step{server(notice("01000"), auth(0), keyData(), ready('I'))},
			[]string{`notice N 01000`, `auth RKZ method:trust result:ok`},
		},
		{
			"query ahead",
			[]step{client(query("q")), server(auth(0), keyData(), ready('I'), tag("Q"), ready('I'))},
			[]string{`query Q`, `auth RKZ method:trust result:ok`, `outcome CZ of=1 ["Q"] tx=I committed=true`},
		},
		{
			"query while the server waits",
			[]step{server(auth(3)), client(query(secret)).breaks("08P01")},
			[]string{`violation 08P01 reason:expected an authentication response`},
		},
		{
			"password too long",
			[]step{server(auth(3)), client(msg('p', bytes.Repeat([]byte(secret), 20000))).breaks("08P01")},
			[]string{`violation 08P01 reason:invalid length of authentication message`},
		},
		{
			"late password",
			[]step{rest, client(query("q"), password(secret)).breaks("08P01")},
			[]string{
				`auth RSKZ method:trust result:ok client_encoding:UTF8`, `query Q`,
				`violation 08P01 reason:invalid frontend message type 112`,
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDialogue(t)
			d.start(startup(wire.Version30, "user", "u"))
			d.play(tt.steps...)
			d.want(1, tt.want...)
			if err := d.s.Close(d.clock, "done"); err != nil {
				t.Fatal(err)
			}
			for i, e := range d.log.entries {
				if leaf := string(e.Append(nil)); strings.Contains(leaf, secret) || bytes.Contains(e.value, []byte(secret)) {
					t.Errorf("entry %d holds the secret: %s %q", i, leaf, e.value)
				}
			}
		})
	}
}

// TestUnbindable has a client whose SCRAM message depends on the certificate it sees.
func TestUnbindable(t *testing.T) {
	for _, tt := range []struct {
		mechanism, message string
		refused            bool
		want               string
		plain              bool // the server offers no channel binding
	}{
		{"SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,n=,r=x", true, "channel_binding:tls-server-end-point reason:channel binding cannot work here: this connection and the server's have different certificates result:refused", false},
		{"SCRAM-SHA-256", "y,,n=,r=x", true, "channel_binding:not offered reason:channel binding cannot work here: this connection and the server's have different certificates result:refused", false},
		{"SCRAM-SHA-256", "y,,n=,r=x", false, "channel_binding:not offered result:unfinished", true},
		{"SCRAM-SHA-256", "n,,n=,r=x", false, "channel_binding:none result:unfinished", false},
		{"SCRAM-SHA-256", ",", false, "result:unfinished", false},
		{"OAUTHBEARER", "y,,\x01auth=Bearer t\x01\x01", false, "result:unfinished", false},
	} {
		d := newDialogue(t)
		d.s.Unbindable("hint")
		d.start(startup(wire.Version30, "user", "u"))
		if tt.plain {
			d.play(server(auth(10, "SCRAM-SHA-256", "")))
		} else {
			d.play(server(auth(10, "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "")))
		}
		fwd, err := d.feed(true, msg('p', tt.mechanism, len(tt.message), []byte(tt.message)))
		var v *Violation
		if refused := errors.As(err, &v); refused != tt.refused || refused && (v.Code != "28000" || v.Hint != "hint" || !v.OfLogin() || len(fwd) > 0) {
			t.Errorf("%s %q: forwarded %q, %v", tt.mechanism, tt.message, fwd, err)
		}
		if err := d.s.Close(d.clock, "done"); err != nil {
			t.Fatal(err)
		}
		code := ""
		if tt.refused {
			code = "28000 "
		}
		d.want(1, "auth R "+code+"method:sasl mechanism:"+tt.mechanism+" "+tt.want, "disconnect reason:done")
	}
}

// The client may say all it has to say, Terminate too, before the server lets it in.
func TestTerminateBeforeLogin(t *testing.T) {
	d := newDialogue(t)
	d.start(startup(wire.Version30, "user", "u"))
	d.play(
		client(query("q"), terminate()),
		server(auth(0), setting("client_encoding", "UTF8"), keyData(), ready('I')),
		server(rowDescription(), dataRow("1"), tag("SELECT 1"), ready('I')),
	)
	if !d.s.Done() || !d.s.Ready() {
		t.Errorf("done %v, ready %v", d.s.Done(), d.s.Ready())
	}
	d.want(1, "query Q", "auth RSKZ method:trust result:ok client_encoding:UTF8", `outcome TDCZ of=1 ["SELECT 1"] rows=1 tx=I committed=true`)
}

func TestLoginState(t *testing.T) {
	d := newDialogue(t)
	d.start(startup(wire.Version30, "user", "u"))
	if d.s.Ready() || d.s.CancelKey() != nil || d.s.Idle() {
		t.Errorf("before the login: ready %v, key %x, idle %v", d.s.Ready(), d.s.CancelKey(), d.s.Idle())
	}
	d.play(server(auth(0), keyData(), ready('I')))
	if !d.s.Ready() || len(d.s.CancelKey()) != 8 || !d.s.Idle() {
		t.Errorf("after the login: ready %v, key %x, idle %v", d.s.Ready(), d.s.CancelKey(), d.s.Idle())
	}
	d.play(client(terminate()))
	if !d.s.Done() {
		t.Error("not done after Terminate")
	}
}
