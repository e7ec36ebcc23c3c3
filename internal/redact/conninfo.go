package redact

import (
	"bytes"

	"github.com/pgnotary/pgnotary/internal/sqllex"
)

// connection appends the passwords of b if b as a whole is a connection string as libpq takes it:
//
//	host=db password = 'my secret' user=me
//	postgresql://me:secret@db/app?sslpassword=secret
//
// A list of one pair alone counts only where a connection string is sure to stand.
func connection(dst []Span, b []byte, sure bool) (_ []Span, ok bool) {
	for _, scheme := range [][]byte{postgresql, postgresql[:8]} {
		if rest, ok := bytes.CutPrefix(b, scheme); ok && bytes.HasPrefix(rest, colonSlashes) {
			return uri(dst, b, len(scheme)+len(colonSlashes)), true
		}
	}
	from, pairs, secrets := len(dst), 0, 0
	for p := blanks(b, 0); p < len(b); p = blanks(b, p) {
		key := p
		for p < len(b) && ('a' <= b[p] && b[p] <= 'z' || b[p] == '_') {
			p++
		}
		name := b[key:p]
		p = blanks(b, p)
		if len(name) == 0 || p == len(b) || b[p] != '=' {
			return dst[:from], false
		}
		value, next, ok := value(b, blanks(b, p+1))
		if !ok || !sure && next < len(b) && (b[next-1] == ',' || b[next-1] == ';') { // a list in SQL
			return dst[:from], false
		}
		if p = next; wordOf(name) == wordSecret {
			secrets++
			if value.From < value.To {
				dst = append(dst, value)
			}
		}
		pairs++
	}
	if secrets == 0 || pairs == 1 && !sure {
		return dst[:from], false
	}
	return dst, true
}

// value reads a value of a list, with or without quotes, and says where it ends.
func value(b []byte, p int) (v Span, next int, ok bool) {
	quoted := p < len(b) && b[p] == '\''
	if quoted {
		p++
	}
	v.From = p
	for ; p < len(b); p++ {
		switch c := b[p]; {
		case c == '\\':
			p++
		case quoted && c == '\'':
			v.To = p
			return v, p + 1, true
		case !quoted && sqllex.Space(c):
			v.To = p
			return v, p, true
		}
	}
	v.To = len(b)
	return v, len(b), !quoted
}

func blanks(b []byte, p int) int {
	for p < len(b) && sqllex.Space(b[p]) {
		p++
	}
	return p
}

// uri appends the passwords of a URI whose part behind :// begins at p.
func uri(dst []Span, b []byte, p int) []Span {
	end := p + len(b[p:])
	if i := bytes.IndexAny(b[p:], "/?"); i >= 0 {
		end = p + i
	}
	// libpq takes the first @ before a slash for the end of the password, and so a question mark for
	// a part of it.
	if i := bytes.IndexByte(b[p:], '@'); i >= 0 && bytes.IndexByte(b[p:p+i], '/') < 0 {
		if colon := bytes.IndexByte(b[p:p+i], ':'); colon >= 0 && colon+1 < i {
			dst = append(dst, Span{p + colon + 1, p + i})
		}
		end = max(end, p+i)
	}
	mark := bytes.IndexByte(b[end:], '?')
	if mark < 0 {
		return dst
	}
	for p = end + mark + 1; p < len(b); {
		pair := b[p:]
		if i := bytes.IndexByte(pair, '&'); i >= 0 {
			pair = pair[:i]
		}
		name, value, _ := bytes.Cut(pair, []byte("="))
		if wordOf(name) == wordSecret && len(value) > 0 {
			dst = append(dst, Span{p + len(pair) - len(value), p + len(pair)})
		}
		p += len(pair) + 1
	}
	return dst
}
