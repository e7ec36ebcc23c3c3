// Package redact finds passwords in SQL text, so that a recorder can replace
// them before the text is kept for ever.
//
// It finds the literal
//
//   - of PASSWORD in CREATE and ALTER ROLE, USER and GROUP;
//   - of the options password, sslpassword and oauth_client_secret of servers, user
//     mappings and whatever else has FOREIGN in its name;
//   - or the part of a literal that is the password in a connection string or
//     URI, as CREATE SUBSCRIPTION and dblink take them;
//
// in each of several statements, behind any comment, in every form of literal, and
// inside literals, so in the bodies of DO and functions and in dynamic SQL: there also where
// format puts it in by %L, or quote_literal.
//
// # What must not happen
//
// A password left in is bad; SQL that ran and cannot be read is worse, because then
// whoever wants to hide something needs only to write PASSWORD somewhere. So what is
// replaced is always the content of a literal that is no code, or text the server refuses. The
// lexer follows PostgreSQL's own (scan.l) for both values of standard_conforming_strings and for
// the client encodings in which a backslash may be half of a character; where values or encodings read
// a text differently and nobody knows which will hold, the search ends; and the bodies of languages
// with other rules than SQL's are left alone. Text that does not lex at all, which no server
// runs, is replaced from the first suspicious word on.
//
// Not found: a password that another expression puts together, one that is a parameter or plain
// data, and one in the body of a function that is neither in SQL nor in PL/pgSQL. Servers before
// 16 read 0x1F$$ and 1_0$$ differently; the later reading is taken.
package redact

import (
	"bytes"

	"github.com/pgnotary/pgnotary/internal/sqllex"
)

// A Span is a part of a text: the bytes [From, To).
type Span struct{ From, To int }

// Options says how the server will read the text.
type Options struct {
	StandardConforming bool   // standard_conforming_strings is on
	Encoding           string // client_encoding, in any spelling PostgreSQL takes
	// Unsure says that these may be wrong: a statement that could change them was
	// sent and not answered. Then the search ends where it matters.
	Unsure bool
}

// Mark is what Replace puts in the place of a password.
const Mark = "***"

// Passwords appends to dst the passwords in sql, in order, without overlap and without the quotes
// around them. It does not allocate if there is nothing that looks like one.
//
// sql is what the server parses: without the zero byte that ends it in a message.
func Passwords(dst []Span, sql []byte, o Options) []Span {
	at := suspicious(sql)
	if at < 0 {
		return dst
	}
	f := finder{standard: o.StandardConforming, unsure: o.Unsure, set: sqllex.CharsetOf(o.Encoding)}
	before := len(dst)
	dst, whole := f.scan(dst, sql, 0)
	if !whole {
		dst = closeUp(dst, before, Span{at, len(sql)})
	}
	return dst
}

// closeUp replaces the spans from dst[before] on that reach into s by s.
func closeUp(dst []Span, before int, s Span) []Span {
	for len(dst) > before && dst[len(dst)-1].To > s.From {
		s.From = min(s.From, dst[len(dst)-1].From)
		dst = dst[:len(dst)-1]
	}
	if s.From == s.To {
		return dst
	}
	return append(dst, s)
}

// Replace appends sql to dst with Mark in the place of each span.
func Replace(dst, sql []byte, spans []Span) []byte {
	at := 0
	for _, s := range spans {
		dst = append(append(dst, sql[at:s.From]...), Mark...)
		at = s.To
	}
	return append(dst, sql[at:]...)
}

// suspicious returns where the first word ends that may stand before a password, -1 if there is
// none. This is all that an ordinary statement costs.
func suspicious(b []byte) int {
	at := -1
	first := func(i int) {
		if i >= 0 && (at < 0 || i < at) {
			at = i
		}
	}
	first(password.end(b))
	first(clientSecret.end(b))
	for from := 0; ; {
		i := bytes.Index(b[from:], colonSlashes)
		if i < 0 {
			return at
		}
		from += i + len(colonSlashes)
		if scheme := b[:from-len(colonSlashes)]; bytes.HasSuffix(scheme, postgresql) || bytes.HasSuffix(scheme, postgresql[:8]) {
			first(from)
			return at
		}
	}
}

var (
	password     = newNeedle("password")
	clientSecret = newNeedle("oauth_client_secret")
	colonSlashes = []byte("://")
	postgresql   = []byte("postgresql")
)

// A needle is an ASCII word to be found in any case of letters. It looks at one byte in about as
// many as the word has (Horspool's algorithm).
type needle struct {
	word  string
	skip  [256]uint8 // how far to go on from a byte that is not the last of the word
	again uint8      // and from one that is
}

func newNeedle(word string) *needle {
	n := &needle{word: word, again: uint8(len(word))}
	for i := range n.skip {
		n.skip[i] = uint8(len(word))
	}
	last := len(word) - 1
	for i := range last {
		n.skip[word[i]] = uint8(last - i)
		n.skip[word[i]&^0x20] = uint8(last - i)
	}
	n.again = n.skip[word[last]]
	n.skip[word[last]], n.skip[word[last]&^0x20] = 0, 0
	return n
}

// end returns where the first occurrence in b ends, or -1.
func (n *needle) end(b []byte) int {
	for i := len(n.word) - 1; i < len(b); {
		if skip := n.skip[b[i]]; skip > 0 {
			i += int(skip)
			continue
		}
		if equalFold(b[i+1-len(n.word):i+1], n.word) {
			return i + 1
		}
		i += int(n.again)
	}
	return -1
}

// equalFold compares with an ASCII word in small letters.
func equalFold(b []byte, word string) bool {
	if len(b) != len(word) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != word[i] {
			return false
		}
	}
	return true
}
