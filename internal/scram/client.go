package scram

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"strings"
)

// A Flag is the gs2 flag: what a client says about channel binding.
type Flag byte

// The flags.
const (
	FlagNone       Flag = 'n' // the client cannot bind, or the connection has no TLS
	FlagNotOffered Flag = 'y' // it could, but the server did not offer PLUS
	FlagBound      Flag = 'p' // it does: mechanism PLUS
)

// A Client is the client's side of one login, with keys instead of a password.
type Client struct {
	keys     Keys
	verifier *Verifier
	header   string // gs2 header
	binding  []byte
	state    state

	nonce     string
	bare      string
	signature key // the one the server has to show
}

// NewClient begins a login with the keys that a Server recovered under v. binding is
// EndPoint of the certificate the server showed; it is used if flag is FlagBound, and must then
// not be nil. The keys are copied: Erase the client too.
func NewClient(keys *Keys, v *Verifier, flag Flag, binding []byte) (*Client, error) {
	c := &Client{keys: *keys, verifier: v}
	switch {
	case flag == FlagNone || flag == FlagNotOffered:
		c.header = string(rune(flag)) + ",,"
	case flag == FlagBound && binding != nil:
		c.header, c.binding = "p="+bindType+",,", binding
	default:
		return nil, fmt.Errorf("%w: flag without binding", ErrState)
	}
	return c, nil
}

// Mechanism returns the name that belongs to the flag.
func (c *Client) Mechanism() string {
	if c.binding != nil {
		return MechanismPlus
	}
	return Mechanism
}

// Erase overwrites the keys and ends the login.
func (c *Client) Erase() {
	c.keys.Erase()
	clear(c.signature[:])
	c.state = atEnd
}

// Start returns the client's first message. The user name in it is empty, as libpq's.
func (c *Client) Start(random io.Reader) ([]byte, error) {
	if c.state != atStart {
		return nil, ErrState
	}
	c.state = atEnd
	nonce, err := newNonce(random)
	if err != nil {
		return nil, err
	}
	c.nonce, c.bare = nonce, "n=,r="+nonce
	c.state = atFirst
	return []byte(c.header + c.bare), nil
}

// First takes the server's first message and returns the client's last. The server
// must name the salt and iteration count the keys belong to. If it names others, the error is
// ErrVerifier: its verifier was changed, or it hides that the role has expired or cannot log
// in. The message returned with that error has a proof that is never good, for a
// caller who wants the server's own words about it.
func (c *Client) First(message []byte) ([]byte, error) {
	if c.state != atFirst {
		return nil, ErrState
	}
	c.state = atEnd
	text, err := checkMessage(message)
	if err != nil {
		return nil, err
	}
	f, err := parseServerFirst(text)
	if err != nil {
		return nil, err
	}
	if len(f.nonce) <= len(c.nonce) || !strings.HasPrefix(f.nonce, c.nonce) {
		return nil, malformed("nonce is not the one of this login")
	}
	last := "c=" + encode(append([]byte(c.header), c.binding...)) + ",r=" + f.nonce
	if f.iterations != c.verifier.Iterations || subtle.ConstantTimeCompare(f.salt, c.verifier.Salt) != 1 {
		c.Erase()
		return []byte(last + ",p=" + encode(make([]byte, keySize))), ErrVerifier
	}
	auth := c.bare + "," + text + "," + last
	stored := key(sha256.Sum256(c.keys.ClientKey[:]))
	signature := mac(&stored, auth)
	proof := xor(&c.keys.ClientKey, &signature)
	c.signature = mac(&c.keys.ServerKey, auth)
	c.keys.Erase()
	c.state = atFinal
	return []byte(last + ",p=" + encode(proof[:])), nil
}

// Final takes the server's last message: nil means that the server accepted the proof
// and has the verifier itself.
func (c *Client) Final(message []byte) error {
	if c.state != atFinal {
		return ErrState
	}
	c.state = atEnd
	text, err := checkMessage(message)
	if err != nil {
		return err
	}
	if strings.HasPrefix(text, "e=") {
		return ErrRefused
	}
	value, rest, more, ok := field(text, 'v')
	if !ok {
		return malformed("no server signature")
	}
	if more {
		if err := extensions(rest); err != nil {
			return err
		}
	}
	got, ok := decodeKey(value)
	if !ok {
		return malformed("server signature is not 32 bytes of base64")
	}
	if subtle.ConstantTimeCompare(got[:], c.signature[:]) != 1 {
		return ErrSignature
	}
	return nil
}

// serverFirst is server-first-message: "r=" nonce ",s=" salt ",i=" count *("," extension).
type serverFirst struct {
	nonce      string
	salt       []byte
	iterations int
}

func parseServerFirst(s string) (f serverFirst, err error) {
	var ok, more bool
	if f.nonce, s, _, ok = field(s, 'r'); !ok {
		return f, malformed("no nonce")
	}
	if err := checkNonce(f.nonce); err != nil {
		return f, err
	}
	salt, s, _, ok := field(s, 's')
	if ok {
		f.salt, ok = decode(salt)
	}
	if !ok || len(f.salt) == 0 || len(f.salt) > MaxSalt {
		return f, malformed("salt")
	}
	count, s, more, ok := field(s, 'i')
	if ok {
		f.iterations, ok = iterations(count)
	}
	if !ok {
		return f, malformed("iteration count")
	}
	if more {
		return f, extensions(s)
	}
	return f, nil
}
