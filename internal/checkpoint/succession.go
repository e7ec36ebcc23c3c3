package checkpoint

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MaxSuccession bounds what a succession is kept in, in bytes.
const MaxSuccession = 64 << 10

// A Successor is the word of a log's key, and of the one that takes its place,
// that it does so. In a file it is a line: VKey, ByOld and ByNew in base64.
type Successor struct {
	VKey         string
	ByOld, ByNew []byte // Ed25519 signatures of successionText
}

// successionText is what both keys sign.
func successionText(oldVKey, newVKey string) []byte {
	return []byte("pgnotary/succession@v1\n" + oldVKey + "\n" + newVKey + "\n")
}

// NewSuccessor has the key of a log, and the one that is to take its place, sign that.
func NewSuccessor(origin string, old, next crypto.Signer) (s Successor, err error) {
	from, err := keyOf(origin, algEd25519, old)
	if err != nil {
		return s, err
	}
	to, err := keyOf(origin, algEd25519, next)
	if err != nil {
		return s, err
	}
	if bytes.Equal(from.pub, to.pub) {
		return s, errors.New("a key cannot succeed itself")
	}
	s.VKey = to.String()
	text := successionText(from.String(), s.VKey)
	if s.ByOld, err = sign(old, text); err != nil {
		return s, err
	}
	s.ByNew, err = sign(next, text)
	return s, err
}

// Format returns the line of the successor.
func (s *Successor) Format() []byte {
	b := append([]byte(s.VKey), ' ')
	b = append(base64.StdEncoding.AppendEncode(b, s.ByOld), ' ')
	return append(base64.StdEncoding.AppendEncode(b, s.ByNew), '\n')
}

// ParseSuccession returns the keys of a log in the order they were in force:
// first, which it was founded with, and the successors in b, each of which its
// predecessor named. All signatures are checked; b is as Format writes it.
func ParseSuccession(b []byte, first string) (vkeys []string, err error) {
	k, err := parseKey(first)
	if err != nil {
		return nil, err
	}
	vkeys = []string{first}
	if len(b) > MaxSuccession {
		return nil, fmt.Errorf("%w succession: %d bytes, want at most %d", ErrMalformed, len(b), MaxSuccession)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		if len(f) != 3 {
			return nil, fmt.Errorf("%w succession: line %d is not of three fields", ErrMalformed, len(vkeys))
		}
		next, err := parseKey(f[0])
		if err != nil {
			return nil, err
		}
		s := Successor{VKey: f[0]}
		var err1, err2 error
		s.ByOld, err1 = base64.StdEncoding.DecodeString(f[1])
		s.ByNew, err2 = base64.StdEncoding.DecodeString(f[2])
		if err1 != nil || err2 != nil || string(s.Format()) != line {
			return nil, fmt.Errorf("%w succession: line %d is not in canonical form", ErrMalformed, len(vkeys))
		}
		text := successionText(k.String(), next.String())
		if k.alg != algEd25519 || next.alg != algEd25519 || next.name != k.name || slices.Contains(vkeys, s.VKey) ||
			!ed25519.Verify(k.pub, text, s.ByOld) || !ed25519.Verify(next.pub, text, s.ByNew) {
			return nil, fmt.Errorf("succession: %w: line %d does not have those of both keys", ErrSignature, len(vkeys))
		}
		vkeys, k = append(vkeys, s.VKey), next
	}
	return vkeys, nil
}

// Follow returns the policy that trusts, with a key of a log, also those that
// took its place as a succession says. What is not well formed or not signed
// from a key of the policy on is not followed.
func (p *Policy) Follow(succession []byte) *Policy {
	q := *p
	q.logs = slices.Clone(p.logs)
	if len(succession) > MaxSuccession {
		return &q
	}
	for _, l := range p.logs {
		// The key of the policy need not be the one the log was founded with.
		for rest := succession; len(rest) > 0; {
			vkeys, err := ParseSuccession(rest, l.key.String())
			if err == nil {
				for _, v := range vkeys[1:] {
					if k, err := parseKey(v); err == nil && !slices.ContainsFunc(q.logs, func(o policyKey) bool { return o.key.String() == v }) {
						q.logs = append(q.logs, policyKey{key: k})
					}
				}
				break
			}
			_, rest, _ = bytes.Cut(rest, []byte("\n"))
		}
	}
	return &q
}

// ParseLogKey returns the origin and the key in a private key that GenerateKey
// made; one line feed may follow.
func ParseLogKey(skey string) (origin string, priv crypto.Signer, err error) {
	if _, err := VKey(skey); err != nil {
		return "", nil, err
	}
	k, priv, err := parsePrivate(skey)
	return k.name, priv, err
}

// VKeyOf returns the verifier key of the log with that origin and key.
func VKeyOf(origin string, priv crypto.Signer) (string, error) {
	k, err := keyOf(origin, algEd25519, priv)
	return k.String(), err
}
