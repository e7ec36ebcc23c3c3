package scram

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// A Middle ends one login between a client and a server, both of PostgreSQL: each method takes
// the content of one message and returns that of the next.
//
//	client                 Middle                      server
//	                       Offer             <-        AuthenticationSASL
//	AuthenticationSASL  <-                             (PLUS as the client's certificate allows)
//	SASLInitialResponse -> ClientFirst       ->        SASLInitialResponse (PLUS as the server's allows)
//	                       ServerFirst       <-        AuthenticationSASLContinue
//	...SASLContinue     <-                             (the server's salt and count, a nonce of its own)
//	SASLResponse        -> ClientFinal       ->        SASLResponse (a proof with the key out of the client's)
//	                       ServerFinal       <-        AuthenticationSASLFinal
//	...SASLFinal        <-
//
// The server is asked first and has the last word. A user it does not know gets the salt and the
// count that it makes up for him, so that nothing tells the middle from the server; and a client
// whose proof is wrong, or cannot be checked because there is no verifier or an outdated one,
// makes the server see a wrong proof, and refuse in its own words.
type Middle struct {
	shown, seen []byte // what each leg binds to
	plus        bool   // the server offers PLUS
	server      *Server
	client      *Client
	mechanism   string // the client's choice
	first       []byte // messages kept for the next step
	challenge   []byte
	last        []byte // for the client, if its proof was good
}

// NewMiddle begins a login. shown is EndPoint of the certificate the client sees, seen that of
// the server's; nil where there is no TLS, or no such hash.
func NewMiddle(shown, seen []byte) *Middle { return &Middle{shown: shown, seen: seen} }

// Offer takes the list of mechanisms of the server and returns that for the client. ok is false
// if SCRAM-SHA-256 is not among them: the login is then none to be ended here.
func (m *Middle) Offer(list []byte) (ours []byte, ok bool) {
	for name := range strings.SplitSeq(string(list), "\x00") {
		ok = ok || name == Mechanism
		m.plus = m.plus || name == MechanismPlus
	}
	if m.shown != nil {
		ours = append(ours, MechanismPlus+"\x00"...)
	}
	return append(ours, Mechanism+"\x00\x00"...), ok
}

// ClientFirst takes the client's SASLInitialResponse and returns that for the server.
func (m *Middle) ClientFirst(body []byte, random io.Reader) ([]byte, error) {
	mechanism, rest, ok := strings.Cut(string(body), "\x00")
	if !ok || len(rest) < 4 || int64(binary.BigEndian.Uint32([]byte(rest))) != int64(len(rest)-4) {
		return nil, malformed("length of the first message")
	}
	m.mechanism, m.first = mechanism, []byte(rest[4:])
	// It is checked before the server hears of it, and again with the server's salt.
	if _, err := m.begin(Nobody([]byte{0}, 1), zeros{}); err != nil {
		return nil, err
	}
	flag := FlagNone
	switch {
	case m.plus && m.seen != nil:
		flag = FlagBound
	case m.seen != nil:
		flag = FlagNotOffered
	}
	var err error
	if m.client, err = NewClient(new(Keys), nil, flag, m.seen); err != nil {
		return nil, err
	}
	message, err := m.client.Start(random)
	if err != nil {
		return nil, err
	}
	out := append([]byte(m.client.Mechanism()), 0)
	out = binary.BigEndian.AppendUint32(out, uint32(len(message)))
	return append(out, message...), nil
}

// begin has a new Server answer the client's first message.
func (m *Middle) begin(v *Verifier, random io.Reader) (answer []byte, err error) {
	if m.server, err = NewServer(v, m.mechanism, m.shown); err != nil {
		return nil, err
	}
	return m.server.First(m.first, random)
}

// ServerFirst takes the server's first message and the user's verifier, nil if there is none, and
// returns the first message for the client. fits says that the verifier is the server's: if it is false the
// login will fail, and the client is not to know before the server says so.
func (m *Middle) ServerFirst(message []byte, v *Verifier, random io.Reader) (answer []byte, fits bool, err error) {
	if m.client == nil || m.challenge != nil {
		return nil, false, ErrState
	}
	text, err := checkMessage(message)
	if err != nil {
		return nil, false, err
	}
	f, err := parseServerFirst(text)
	if err != nil {
		return nil, false, err
	}
	fits = v != nil && v.Iterations == f.iterations && subtle.ConstantTimeCompare(v.Salt, f.salt) == 1
	if !fits {
		v = Nobody(f.salt, f.iterations)
	}
	m.challenge, m.client.verifier = []byte(text), v
	answer, err = m.begin(v, random)
	return answer, fits, err
}

// ClientFinal takes the client's last message and returns that for the server. good says that the
// client's proof was good. The client's key exists only while this runs.
func (m *Middle) ClientFinal(message []byte) (answer []byte, good bool, err error) {
	if m.challenge == nil {
		return nil, false, ErrState
	}
	var keys Keys
	defer keys.Erase()
	switch m.last, err = m.server.Final(message, &keys); {
	case err == nil:
		good = true
		m.client.keys = keys
	case err != ErrProof: //nolint:errorlint // returned as it is
		return nil, false, err
	}
	answer, err = m.client.First(m.challenge)
	m.client.keys.Erase()
	return answer, good, err
}

// ServerFinal takes the server's last message and returns that for the client: the server accepted
// the proof and has the verifier itself.
func (m *Middle) ServerFinal(message []byte) ([]byte, error) {
	if m.client == nil {
		return nil, ErrState
	}
	if err := m.client.Final(message); err != nil {
		return nil, err
	}
	if m.last == nil {
		return nil, fmt.Errorf("%w, and yet the server accepted another", ErrProof)
	}
	return m.last, nil
}

// Erase ends the login and overwrites what is left of its secrets.
func (m *Middle) Erase() {
	if m.client != nil {
		m.client.Erase()
	}
	clear(m.last)
}

// zeros is no randomness, for a nonce that nobody will see.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
