// Package access says who may look at a log over HTTP: it knows tokens, of
// which it keeps only hashes, and the roles they give.
//
// A token file has one token a line:
//
//	# name  role          SHA-256 of the token
//	alice   investigator  9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
//	bob     auditor       60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752
//
// Tokens are 256 random bits, so one pass of SHA-256 is enough: there is
// nothing to guess.
package access

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

// A Role says what somebody may see. A higher one may see what lower ones may.
type Role uint8

// The roles.
const (
	Nobody       Role = iota
	Operator          // how the proxy and the log are doing
	Auditor           // entries without their values: who, when, how it ended
	Investigator      // values too: texts and parameters
)

func (r Role) String() string {
	switch r {
	case Operator:
		return "operator"
	case Auditor:
		return "auditor"
	case Investigator:
		return "investigator"
	}
	return "nobody"
}

// ParseRole returns the role of this name.
func ParseRole(s string) (Role, error) {
	for r := Operator; r <= Investigator; r++ {
		if s == r.String() {
			return r, nil
		}
	}
	return Nobody, fmt.Errorf("role is %q, not one of operator, auditor, investigator", s)
}

// A Token is what is kept of one: whose it is, and how to recognise it.
type Token struct {
	Name string
	Role Role
	Hash [sha256.Size]byte
}

// Tokens are the tokens that are accepted. They may be used concurrently as
// long as nobody changes them.
type Tokens []Token

const (
	prefix = "pgn_" // so that scanners for leaked secrets can find one
	// MaxFile is the most bytes a token file may have.
	MaxFile = 1 << 20
	maxName = 64
)

// New makes a token for somebody and returns it, and its line of a token file.
func New(rand io.Reader, name string, role Role) (secret, line string, err error) {
	if err := checkName(name); err != nil {
		return "", "", err
	}
	var b [32]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return "", "", fmt.Errorf("make token: %w", err)
	}
	secret = prefix + base64.RawURLEncoding.EncodeToString(b[:])
	t := Token{Name: name, Role: role, Hash: Hash(secret)}
	return secret, t.line(), nil
}

func (t *Token) line() string { return fmt.Sprintf("%s %s %x", t.Name, t.Role, t.Hash) }

// Hash returns what is kept of a token.
func Hash(secret string) [sha256.Size]byte { return sha256.Sum256([]byte(secret)) }

// Parse reads a token file. Errors name the line.
func Parse(file []byte) (Tokens, error) {
	var all Tokens
	seen := make(map[string]bool)
	n := 0
	for line := range bytes.Lines(file) {
		n++
		fields := strings.Fields(string(line))
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		t, err := parseLine(fields)
		if err == nil && seen[t.Name] {
			err = fmt.Errorf("there is another token of %s", t.Name)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		seen[t.Name] = true
		all = append(all, t)
	}
	return all, nil
}

func parseLine(fields []string) (t Token, err error) {
	if len(fields) != 3 {
		return t, fmt.Errorf("has %d words, want name, role and SHA-256", len(fields))
	}
	t.Name = fields[0]
	if err := checkName(t.Name); err != nil {
		return t, err
	}
	if t.Role, err = ParseRole(fields[1]); err != nil {
		return t, err
	}
	b, err := hex.DecodeString(fields[2])
	if err != nil || len(b) != len(t.Hash) {
		return t, fmt.Errorf("the third word is not the SHA-256 of a token: %d hexadecimal digits", 2*len(t.Hash))
	}
	copy(t.Hash[:], b)
	return t, nil
}

// checkName holds names to what can stand in a line of a file or of a terminal.
func checkName(s string) error {
	if s == "" || len(s) > maxName || strings.HasPrefix(s, "#") {
		return fmt.Errorf("name %.80q does not have 1 to %d characters, the first of them no #", s, maxName)
	}
	for _, r := range s {
		if r <= ' ' || r > '~' {
			return fmt.Errorf("name %.80q has a character that is not printable ASCII", s)
		}
	}
	return nil
}

// Find returns the token with this hash. It takes the same time whichever it is.
func (all Tokens) Find(hash [sha256.Size]byte) (t Token, ok bool) {
	for i := range all {
		if subtle.ConstantTimeCompare(all[i].Hash[:], hash[:]) == 1 {
			t, ok = all[i], true
		}
	}
	return t, ok
}

// A Difference is how a token file was changed, in words that name tokens and
// roles and nothing that could tell a token: alice:auditor.
type Difference struct {
	Added, Removed []string
	Renewed        []string // another token for the same name, with the same role
	Changed        []string // other roles: alice:auditor>investigator
}

// Until returns how tokens differ from those that came after them.
func (all Tokens) Until(next Tokens) (d Difference) {
	was := make(map[string]Token)
	for _, t := range all {
		was[t.Name] = t
	}
	for _, t := range next {
		old, known := was[t.Name]
		delete(was, t.Name)
		switch {
		case !known:
			d.Added = append(d.Added, t.word())
		case old.Role != t.Role:
			d.Changed = append(d.Changed, old.word()+">"+t.Role.String())
		case old.Hash != t.Hash:
			d.Renewed = append(d.Renewed, t.word())
		}
	}
	for _, t := range all {
		if _, gone := was[t.Name]; gone {
			d.Removed = append(d.Removed, t.word())
		}
	}
	return d
}

// word names a token, as in Difference.
func (t *Token) word() string { return t.Name + ":" + t.Role.String() }
