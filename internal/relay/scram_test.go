package relay

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/scram"
	"github.com/pgnotary/pgnotary/internal/wire"
)

// account is what a server and a client know of a user: verifier and keys.
type account struct {
	verifier *scram.Verifier
	keys     scram.Keys
}

func newAccount(t *testing.T, password string) account {
	t.Helper()
	salt := []byte("sixteen bytes ..")
	salted, err := pbkdf2.Key(sha256.New, password, salt, 4096, 32)
	if err != nil {
		t.Fatal(err)
	}
	derive := func(label string) (k [32]byte) {
		h := hmac.New(sha256.New, salted)
		h.Write([]byte(label))
		h.Sum(k[:0])
		return k
	}
	a := account{keys: scram.Keys{ClientKey: derive("Client Key"), ServerKey: derive("Server Key")}}
	a.verifier = &scram.Verifier{Iterations: 4096, Salt: salt, StoredKey: sha256.Sum256(a.keys.ClientKey[:]), ServerKey: a.keys.ServerKey}
	return a
}

// users is a Verifiers of one user.
type users struct {
	verifier *scram.Verifier
	err      error
}

func (u users) Verifier(_ context.Context, user string) (*scram.Verifier, error) {
	if u.err != nil || user != "postgres" || u.verifier == nil {
		return nil, u.err
	}
	v := *u.verifier
	return &v, nil
}

func frame(typ byte, body ...[]byte) []byte {
	b := bytes.Join(body, nil)
	return append(binary.BigEndian.AppendUint32([]byte{typ}, uint32(4+len(b))), b...)
}

func authentication(code uint32, data string) []byte {
	return frame('R', binary.BigEndian.AppendUint32(nil, code), []byte(data))
}

func initial(mechanism, message string) []byte {
	return frame('p', []byte(mechanism+"\x00"), binary.BigEndian.AppendUint32(nil, uint32(len(message))), []byte(message))
}

// receive reads one message whole, or five bytes that are no header.
func receive(c io.Reader) (message []byte, err error) {
	message = make([]byte, 5)
	if n, err := io.ReadFull(c, message); err != nil {
		return message[:n], err
	}
	length := binary.BigEndian.Uint32(message[1:])
	if length < 4 || length > 1<<20 {
		return message, nil
	}
	message = append(message, make([]byte, length-4)...)
	n, err := io.ReadFull(c, message[5:])
	return message[:5+n], err
}

const offer = "SCRAM-SHA-256\x00\x00"

var refusedByServer = wire.AppendError(nil, "FATAL", "28P01", "password authentication failed", "")

// A scramServer plays a server of SCRAM, whose steps a test can replace.
type scramServer struct {
	account   account
	list      []byte                                   // in the place of AuthenticationSASL
	challenge func(first, answer []byte) []byte        // ... of AuthenticationSASLContinue; answer is the right one
	verdict   func(final, ok []byte, err error) []byte // ... of what follows the client's proof
}

func (s *scramServer) serve(c net.Conn) {
	readStartup(c)
	list := s.list
	if list == nil {
		list = authentication(10, offer)
	}
	c.Write(list)
	if s.list != nil {
		io.Copy(io.Discard, c)
		return
	}
	body, err := receive(c)
	if err != nil {
		return
	}
	_, message, _ := bytes.Cut(body[5:], []byte{0})
	server, err := scram.NewServer(s.account.verifier, scram.Mechanism, nil)
	if err != nil {
		return
	}
	first, err := server.First(message[4:], rand.Reader)
	if err != nil {
		return
	}
	out := authentication(11, string(first))
	if s.challenge != nil {
		out = s.challenge(message[4:], out)
	}
	c.Write(out)
	if out[0] == 'E' {
		return
	}
	body, err = receive(c)
	if err != nil {
		return
	}
	var keys scram.Keys
	last, err := server.Final(body[5:], &keys)
	ok := append(authentication(12, string(last)), login...)
	switch {
	case s.verdict != nil:
		ok = s.verdict(body[5:], ok, err)
	case err != nil:
		ok = refusedByServer
	}
	c.Write(ok)
	if !bytes.HasSuffix(ok, refusedByServer) { // after which a server closes
		io.Copy(io.Discard, c)
	}
}

// logIn plays a client of SCRAM. It returns what it was told behind its proof: all of it if it ends in an error,
// else up to the first ReadyForQuery.
func (a *account) logIn(c net.Conn) (heard []byte, err error) {
	answer := func(code uint32) (data []byte, err error) {
		message, err := receive(c)
		if err == nil && bytes.HasPrefix(message[5:], authentication(code, "")[5:]) && message[0] == 'R' {
			return message[9:], nil
		}
		rest, _ := io.ReadAll(c)
		heard = append(message, rest...)
		return nil, errors.New("another message")
	}
	if _, err := answer(10); err != nil {
		return heard, err
	}
	client, err := scram.NewClient(&a.keys, a.verifier, scram.FlagNone, nil)
	if err != nil {
		return nil, err
	}
	m, err := client.Start(rand.Reader)
	if err != nil {
		return nil, err
	}
	c.Write(initial(scram.Mechanism, string(m)))
	if m, err = answer(11); err != nil {
		return heard, err
	}
	if m, err = client.First(m); err != nil && !errors.Is(err, scram.ErrVerifier) {
		return nil, err
	}
	c.Write(frame('p', m))
	if m, err = answer(12); err != nil {
		return heard, err
	}
	if err := client.Final(m); err != nil {
		return nil, err
	}
	heard = make([]byte, len(login))
	_, err = io.ReadFull(c, heard)
	return heard, err
}

// TestEndSCRAM has servers that are honest, broken or hostile. Whatever one says, the client hears that it is in only if it
// proved itself to the proxy and to the server.
func TestEndSCRAM(t *testing.T) {
	good, bad := newAccount(t, "right"), newAccount(t, "wrong")
	replace := func(old, new string) func([]byte, []byte) []byte {
		return func(_, answer []byte) []byte {
			data := bytes.Replace(answer[9:], []byte(old), []byte(new), 1)
			return authentication(11, string(data))
		}
	}
	always := func(b []byte) func([]byte, []byte) []byte { return func(_, _ []byte) []byte { return b } }
	final := func(b []byte) func([]byte, []byte, error) []byte {
		return func(_, _ []byte, _ error) []byte { return b }
	}
	for _, tt := range []struct {
		name   string
		server scramServer
		users  Verifiers
		client account
		want   string // what the client hears: an SQLSTATE of ours, exact bytes, or "" for the login
		result string // of the auth entry
	}{
		{name: "good", client: good, result: "ok"},
		{name: "wrong password", client: bad, want: string(refusedByServer), result: "failed"},
		{name: "no verifier", users: users{}, client: good, want: string(refusedByServer), result: "failed"},
		{name: "verifiers cannot be read", users: users{err: errors.New("gone")}, client: good, want: "28000", result: "refused"},
		{name: "server lets everybody in", server: scramServer{verdict: func(_, ok []byte, _ error) []byte { return ok }}, client: bad, want: "08P01", result: "refused"},
		{name: "server asks for nothing more", server: scramServer{challenge: always(login)}, client: good, want: "08P01", result: "refused"},
		{name: "server skips its proof", server: scramServer{verdict: final(login)}, client: good, want: "08P01", result: "refused"},
		{name: "server's proof is wrong", server: scramServer{verdict: final(append(authentication(12, "v="+strings.Repeat("A", 43)+"="), login...))}, client: good, want: "28P01", result: "refused"},
		{name: "server's proof is missing", server: scramServer{verdict: final(append(authentication(12, "e=other-error"), login...))}, client: good, want: "28P01", result: "refused"},
		{name: "server refuses after its proof", server: scramServer{verdict: func(_, ok []byte, _ error) []byte {
			return append(bytes.Clone(ok[:len(ok)-len(login)]), refusedByServer...)
		}}, client: good, want: string(refusedByServer), result: "failed"},
		{name: "server refuses at once", server: scramServer{challenge: always(refusedByServer)}, client: good, want: string(refusedByServer), result: "failed"},
		{name: "error in the form of protocol 2.0", server: scramServer{challenge: always([]byte("Eno fork\n\x00"))}, client: good, want: "Eno fork\n\x00", result: "failed"},
		{name: "iterations without end", server: scramServer{challenge: replace("i=4096", "i=2147483647")}, client: good, want: "08P01", result: "refused"},
		{name: "another nonce", server: scramServer{challenge: replace("r=", "r=x")}, client: good, want: "08P01", result: "refused"},
		{name: "no salt", server: scramServer{challenge: replace("s=", "t=")}, client: good, want: "08P01", result: "refused"},
		{name: "long message", server: scramServer{challenge: replace("i=4096", "i=4096,x="+strings.Repeat("y", 60000))}, client: good, want: "08P01", result: "refused"},
		{name: "challenge twice", server: scramServer{verdict: final(authentication(11, "r=x,s=AA==,i=1"))}, client: good, want: "08P01", result: "refused"},
		{name: "another message", server: scramServer{challenge: always(frame('Z', []byte("I")))}, client: good, want: "08P01", result: "refused"},
		{name: "cut message", server: scramServer{challenge: always([]byte{'R', 0, 0, 0, 6, 0, 0})}, client: good, want: "08P01", result: "refused"},
		{name: "message without end", server: scramServer{challenge: always([]byte{'R', 0x7f, 0xff, 0xff, 0xff})}, client: good, want: "08P01", result: "refused"},
	} {
		for _, mode := range []Mode{BeforeForward, BeforeReply} {
			t.Run(tt.name, func(t *testing.T) {
				server := tt.server
				server.account = good
				if tt.users == nil {
					tt.users = users{verifier: good.verifier}
				}
				log := newMemLog(time.Millisecond)
				g := start(t, Config{Upstream: fakeServerFunc(t, server.serve), Verifiers: tt.users, Mode: mode}, log)
				c := dialLogin(t, g, packet(3<<16, startup30), nil)
				heard, err := tt.client.logIn(c)
				switch {
				case tt.want == "":
					if err != nil || !bytes.Equal(heard, login) {
						t.Errorf("heard %q, %v", heard, err)
					}
				case err == nil:
					t.Errorf("logged in, heard %q", heard)
				default:
					checkReply(t, string(heard), tt.want)
				}
				c.Close()
				if l := entry(t, log, event.KindAuth); fact(*l, "result") != tt.result {
					t.Errorf("auth entry: %v, want %s", l.Facts, tt.result)
				}
				if fact(*entry(t, log, event.KindAuth), "result") == "ok" && fact(*entry(t, log, event.KindAuth), "verifier") != "fits" {
					t.Error("auth entry does not tell of the verifier")
				}
				waitFor(t, "session ended", func() bool {
					return g.Metrics().SessionsOpen.Load() == 0 && g.Metrics().Unauthenticated.Load() == 0
				})
				if n := g.Metrics().Panics.Load(); n != 0 {
					t.Errorf("%d panics", n)
				}
			})
		}
	}
}

// TestEndSCRAMRelays has servers that ask for something else, or nothing: the proxy only listens.
func TestEndSCRAMRelays(t *testing.T) {
	const token = "bearer-token-s3cret"
	for name, first := range map[string][]byte{
		"trust": login, "password": authentication(3, ""), "MD5": authentication(5, "salt"), "GSS": authentication(7, ""),
		"OAUTHBEARER": authentication(10, "OAUTHBEARER\x00\x00"), "error": refusedByServer, "protocol 2.0 error": []byte("Eno fork\n\x00"),
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan string, 1)
			up := fakeServerFunc(t, func(c net.Conn) {
				readStartup(c)
				c.Write(first)
				if message, err := receive(c); err == nil {
					got <- string(message[5:])
				}
				c.Write(login)
				io.Copy(io.Discard, c)
			})
			log := newMemLog(0)
			g := start(t, Config{Upstream: up, Verifiers: users{}}, log)
			c := dialLogin(t, g, packet(3<<16, startup30), nil)
			expect(t, c, string(first))
			if first[0] == 'R' && first[8] != 0 {
				secret := frame('p', []byte(token))
				if name == "OAUTHBEARER" {
					secret = initial("OAUTHBEARER", "n,,\x01auth=Bearer "+token+strings.Repeat("x", 60000)+"\x01\x01")
				}
				c.Write(secret)
				if s := <-got; s != string(secret[5:]) {
					t.Errorf("the server got %.100q", s)
				}
				expect(t, c, string(login))
			}
			c.Close()
			waitFor(t, "session ended", func() bool { return g.Metrics().SessionsOpen.Load() == 0 })
			log.mu.Lock()
			defer log.mu.Unlock()
			for i := range log.leaves {
				if bytes.Contains(log.leaves[i], []byte(token)) || bytes.Contains(log.values[i], []byte(token)) {
					t.Errorf("entry %d has the token", i)
				}
			}
		})
	}
}

// TestEndSCRAMClients has clients that do not keep to the dialogue.
func TestEndSCRAMClients(t *testing.T) {
	good := newAccount(t, "right")
	log := newMemLog(0)
	conf := Config{Upstream: fakeServerFunc(t, (&scramServer{account: good}).serve), TLS: testCertificate(t), Verifiers: users{verifier: good.verifier}}
	g := start(t, conf, log)
	conf.LoginTimeout = 3 * time.Second // for who says nothing: the handshake has to end within it, on a slow machine too
	hasty := start(t, conf, newMemLog(0))
	long := binary.BigEndian.AppendUint32([]byte{'p'}, 70000)
	for _, tt := range []struct {
		name string
		send []byte
		want string
	}{
		{"query", query("select 1"), "08P01"},
		{"long message", long, "08P01"},
		{"negative length", []byte{'p', 0xff, 0xff, 0xff, 0xff}, "08P01"},
		{"length 3", []byte{'p', 0, 0, 0, 3}, "08P01"},
		{"empty message", []byte{'p', 0, 0, 0, 4}, "08P01"},
		{"other mechanism", initial("SCRAM-SHA-1", "n,,n=,r=x"), "08P01"},
		{"unknown binding", initial("SCRAM-SHA-256-PLUS", "p=tls-unique,,n=,r=x"), "08P01"},
		{"downgrade", initial("SCRAM-SHA-256", "y,,n=,r=x"), "28000"},
		{"no commas", initial("SCRAM-SHA-256", strings.Repeat("n", 4000)), "08P01"},
		{"long nonce", initial("SCRAM-SHA-256", "n,,n=,r="+strings.Repeat("x", 50000)), "08P01"},
		{"terminate", frame('X'), ""},
		{"nothing", nil, "57014"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := g
			if tt.want == "57014" {
				g = hasty
			}
			c := dialLogin(t, g, nil, &tls.Config{})
			c.Write(packet(3<<16, startup30))
			expect(t, c, string(authentication(10, "SCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00\x00")))
			c.Write(tt.send)
			heard, _ := io.ReadAll(c)
			checkReply(t, string(heard), tt.want)
		})
	}
	for _, g := range []*rig{g, hasty} {
		waitFor(t, "sessions ended", func() bool { return g.Metrics().SessionsOpen.Load() == 0 })
		all, err := g.log.entries()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range all {
			if l.Kind == event.KindAuth && fact(l, "result") == "ok" {
				t.Errorf("a login: %v", l.Facts)
			}
		}
	}
}
