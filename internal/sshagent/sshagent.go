// Package sshagent signs with an Ed25519 key that an ssh-agent holds, so that
// the key need not be in the process nor on its disk: it can be in a locked
// agent, on a smart card or in a security module behind one.
//
// It speaks the two requests of the agent protocol (RFC 9987) that this takes:
//
//	request: uint32 length, byte type, …
//	  11 list keys ──▶ 12: uint32 n, n × {string key, string comment}
//	  13 sign: string key, string data, uint32 flags ──▶ 14: string signature
//	key, signature: string "ssh-ed25519", string of 32 or 64 bytes
package sshagent

import (
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// timeout bounds one request to the agent.
const timeout = 5 * time.Second

// maxMessage bounds an answer, in bytes; it is what OpenSSH's agent allows.
const maxMessage = 256 << 10

const (
	askKeys, sayKeys = 11, 12
	askSign, saySign = 13, 14
	keyType          = "ssh-ed25519"
)

// A Key is a key in an agent. It implements crypto.Signer for messages of any
// length (crypto.Hash(0)) and may be used concurrently. Each signature is a
// connection of its own, so the agent may be restarted meanwhile.
type Key struct {
	socket string
	blob   []byte
	pub    ed25519.PublicKey
}

var _ crypto.Signer = (*Key)(nil)

// Open returns the Ed25519 key with that fingerprint, in the form of
// ssh-keygen -l: SHA256: and unpadded base64, in the agent at a Unix socket.
func Open(socket, fingerprint string) (*Key, error) {
	if socket == "" {
		return nil, errors.New("open ssh-agent: no socket given: SSH_AUTH_SOCK is not set")
	}
	answer, err := ask(socket, []byte{askKeys}, sayKeys)
	if err != nil {
		return nil, fmt.Errorf("ask ssh-agent for its keys: %w", err)
	}
	keys, err := parseKeys(answer)
	if err != nil {
		return nil, fmt.Errorf("ask ssh-agent for its keys: %w", err)
	}
	found := ""
	for _, blob := range keys {
		pub, ok := parseKey(blob, ed25519.PublicKeySize)
		if !ok {
			continue // of another type
		}
		if Fingerprint(pub) == fingerprint {
			return &Key{socket, blob, pub}, nil
		}
		found += " " + Fingerprint(pub)
	}
	if found == "" {
		found = " none"
	}
	return nil, fmt.Errorf("ssh-agent has no Ed25519 key %.100q; it has:%s", fingerprint, found)
}

// Fingerprint returns what ssh-keygen -l calls a key.
func Fingerprint(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(appendString(appendString(nil, keyType), string(pub)))
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// Public implements crypto.Signer.
func (k *Key) Public() crypto.PublicKey { return k.pub }

// Sign implements crypto.Signer.
func (k *Key) Sign(_ io.Reader, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.Hash(0) {
		return nil, errors.New("sign with ssh-agent: Ed25519 signs messages, not hashes")
	}
	req := appendString([]byte{askSign}, string(k.blob))
	req = binary.BigEndian.AppendUint32(appendString(req, string(msg)), 0)
	answer, err := ask(k.socket, req, saySign)
	if err != nil {
		return nil, fmt.Errorf("sign with ssh-agent: %w", err)
	}
	blob, rest, ok := cutString(answer)
	sig, ok2 := parseKey(blob, ed25519.SignatureSize)
	if !ok || !ok2 || len(rest) > 0 {
		return nil, errors.New("sign with ssh-agent: it answered with something else than an Ed25519 signature")
	}
	return sig, nil
}

// ask sends one request and returns the answer behind its type, which must be want.
func ask(socket string, req []byte, want byte) ([]byte, error) {
	conn, err := net.DialTimeout("unix", socket, timeout)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(req))), req...)); err != nil {
		return nil, err
	}
	var length [4]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n < 1 || n > maxMessage {
		return nil, fmt.Errorf("an answer of %d bytes", n)
	}
	answer := make([]byte, n)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return nil, err
	}
	if answer[0] != want {
		return nil, fmt.Errorf("it refused, or does not have the key any more (answer %d)", answer[0])
	}
	return answer[1:], nil
}

// parseKeys takes the list of keys apart.
func parseKeys(b []byte) (keys [][]byte, err error) {
	bad := errors.New("the list is malformed")
	if len(b) < 4 {
		return nil, bad
	}
	n, b := binary.BigEndian.Uint32(b), b[4:]
	for ; n > 0; n-- {
		blob, rest, ok := cutString(b)
		if !ok {
			return nil, bad
		}
		if _, b, ok = cutString(rest); !ok {
			return nil, bad
		}
		keys = append(keys, blob)
	}
	if len(b) > 0 {
		return nil, bad
	}
	return keys, nil
}

// parseKey returns the content of a key or signature of our type.
func parseKey(blob []byte, size int) (content []byte, ok bool) {
	name, rest, ok := cutString(blob)
	content, rest, ok2 := cutString(rest)
	return content, ok && ok2 && len(rest) == 0 && string(name) == keyType && len(content) == size
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// cutString takes a length and so many bytes off b.
func cutString(b []byte) (s, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n, b := binary.BigEndian.Uint32(b), b[4:]
	if uint64(n) > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:n:n], b[n:], true
}
