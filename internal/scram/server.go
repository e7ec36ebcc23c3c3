package scram

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A Server is the server's side of one login.
//
// It accepts what PostgreSQL accepts: no authorization identity, any user name (the
// one of the start-up packet counts), unknown optional attributes.
type Server struct {
	verifier *Verifier
	binding  []byte // of the certificate shown to the client; nil: PLUS was not offered
	plus     bool
	state    state

	header string // gs2 header as sent
	nonce  string // the client's and ours
	auth   string // client-first-message-bare "," server-first-message
}

// state is the step a conversation is at, of either side.
type state uint8

const (
	atStart state = iota // nothing was said
	atFirst              // Client: waits for the server's first message
	atFinal              // waits for the last message of the peer
	atEnd                // done, or failed
)

// NewServer begins a login in which the client chose a mechanism. binding
// is EndPoint of the certificate shown on this connection, or nil if it has no TLS
// or the certificate has no such hash: PLUS must be offered exactly if binding is not nil.
func NewServer(v *Verifier, mechanism string, binding []byte) (*Server, error) {
	switch {
	case mechanism == Mechanism:
		return &Server{verifier: v, binding: binding}, nil
	case mechanism == MechanismPlus && binding != nil:
		return &Server{verifier: v, binding: binding, plus: true}, nil
	}
	return nil, malformed("mechanism was not offered")
}

// First takes the client's first message and returns the server's first. The
// server's half of the nonce is read from random.
func (s *Server) First(message []byte, random io.Reader) ([]byte, error) {
	if s.state != atStart {
		return nil, ErrState
	}
	s.state = atEnd
	text, err := checkMessage(message)
	if err != nil {
		return nil, err
	}
	header, bare, nonce, err := parseClientFirst(text)
	if err != nil {
		return nil, err
	}
	if err := s.checkFlag(header); err != nil {
		return nil, err
	}
	own, err := newNonce(random)
	if err != nil {
		return nil, err
	}
	s.header, s.nonce = header, nonce+own
	first := "r=" + s.nonce + ",s=" + encode(s.verifier.Salt) + ",i=" + strconv.Itoa(s.verifier.Iterations)
	s.auth = bare + "," + first
	s.state = atFinal
	return []byte(first), nil
}

// checkFlag holds the gs2 flag against what was offered and chosen:
//
//	flag   chose PLUS    chose plain, PLUS offered    PLUS not offered
//	n      malformed     ok                           ok
//	y      malformed     downgrade                    ok
//	p      ok            malformed                    malformed
func (s *Server) checkFlag(header string) error {
	switch bound := header[0] == 'p'; {
	case bound != s.plus && bound:
		return malformed("channel binding without the mechanism for it")
	case bound != s.plus:
		return malformed("mechanism with channel binding, but no binding")
	case header[0] == 'y' && s.binding != nil:
		return ErrDowngrade
	}
	return nil
}

// Final takes the client's last message. If its proof is good, keys gets the
// user's keys and last is the server's last message, which proves to the client that the
// server has the verifier: to be sent only once the upstream accepted the login.
func (s *Server) Final(message []byte, keys *Keys) (last []byte, err error) {
	if s.state != atFinal {
		return nil, ErrState
	}
	s.state = atEnd
	text, err := checkMessage(message)
	if err != nil {
		return nil, err
	}
	f, err := parseClientFinal(text)
	if err != nil {
		return nil, err
	}
	bound := append([]byte(s.header), s.bindingSent()...)
	if subtle.ConstantTimeCompare(f.binding, bound) != 1 {
		return nil, ErrBinding
	}
	if f.nonce != s.nonce {
		return nil, malformed("nonce is not the one of this login")
	}
	auth := s.auth + "," + f.withoutProof
	signature := mac(&s.verifier.StoredKey, auth)
	clientKey := xor(&f.proof, &signature)
	defer clear(clientKey[:])
	stored := key(sha256.Sum256(clientKey[:]))
	good := subtle.ConstantTimeCompare(stored[:], s.verifier.StoredKey[:]) == 1
	own := mac(&s.verifier.ServerKey, auth)
	if !good || s.verifier.mock {
		return nil, ErrProof
	}
	keys.ClientKey, keys.ServerKey = clientKey, s.verifier.ServerKey
	return []byte("v=" + encode(own[:])), nil
}

func (s *Server) bindingSent() []byte {
	if s.plus {
		return s.binding
	}
	return nil
}

// parseClientFirst splits client-first-message into the gs2 header, the bare
// message and the client's nonce:
//
//	( "n" / "y" / "p=tls-server-end-point" ) "," "," "n=" user ",r=" nonce *("," extension)
func parseClientFirst(s string) (header, bare, nonce string, err error) {
	flag, rest, ok := strings.Cut(s, ",")
	authz, bare, ok1 := strings.Cut(rest, ",")
	switch {
	case !ok || !ok1:
		return "", "", "", malformed("no gs2 header")
	case flag != "n" && flag != "y" && !strings.HasPrefix(flag, "p="):
		return "", "", "", malformed("gs2 flag")
	case flag[0] == 'p' && flag[2:] != bindType:
		return "", "", "", fmt.Errorf("%w: channel binding type is not %s", ErrMalformed, bindType)
	case authz != "":
		return "", "", "", malformed("authorization identity is not supported")
	}
	header = s[:len(s)-len(bare)]
	if strings.HasPrefix(bare, "m=") {
		return "", "", "", malformed("it needs an extension nobody has")
	}
	_, rest, _, ok = field(bare, 'n')
	if !ok {
		return "", "", "", malformed("no user name")
	}
	nonce, rest, more, ok := field(rest, 'r')
	if !ok {
		return "", "", "", malformed("no nonce")
	}
	if err := checkNonce(nonce); err != nil {
		return "", "", "", err
	}
	if more {
		if err := extensions(rest); err != nil {
			return "", "", "", err
		}
	}
	return header, bare, nonce, nil
}

// clientFinal is client-final-message: "c=" binding ",r=" nonce *("," extension) ",p=" proof.
type clientFinal struct {
	binding      []byte
	nonce        string
	withoutProof string
	proof        key
}

func parseClientFinal(s string) (f clientFinal, err error) {
	at := strings.LastIndex(s, ",p=")
	if at < 0 {
		return f, malformed("no proof")
	}
	var ok, more bool
	if f.proof, ok = decodeKey(s[at+3:]); !ok {
		return f, malformed("proof is not 32 bytes of base64")
	}
	f.withoutProof = s[:at]
	binding, rest, _, ok := field(f.withoutProof, 'c')
	if ok {
		f.binding, ok = decode(binding)
	}
	if !ok {
		return f, malformed("no channel binding")
	}
	if f.nonce, rest, more, ok = field(rest, 'r'); !ok {
		return f, malformed("no nonce")
	}
	if more {
		return f, extensions(rest)
	}
	return f, nil
}
