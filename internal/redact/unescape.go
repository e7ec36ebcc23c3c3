package redact

import (
	"bytes"
	"strconv"

	"github.com/pgnotary/pgnotary/internal/sqllex"
)

// unescape returns the value of a literal of that form, and for each byte of it, and its end, where
// in the literal's content it begins; pos is nil if both are the same. What is not ASCII after
// an escape becomes an underscore: it is of no interest here. l stands behind the literal.
func (f *finder) unescape(form byte, in []byte, l *sqllex.Lexer) (text []byte, pos []int32, ok bool) {
	if form == sqllex.FormDollar || bytes.IndexByte(in, '\'') < 0 && (form == sqllex.FormPlain || bytes.IndexByte(in, '\\') < 0 && form == sqllex.FormEscape) {
		return in, nil, true
	}
	if form == sqllex.FormBits || len(in) > maxInside {
		return nil, nil, false
	}
	escape := byte('\\')
	switch form {
	case sqllex.FormPlain:
		escape = 0
	case sqllex.FormUnicode:
		escape = unicodeEscape(*l)
	}
	text, pos = make([]byte, 0, len(in)), make([]int32, 0, len(in)+1)
	sub := sqllex.Lexer{B: in, Set: f.set}
	for p := 0; p < len(in); {
		c, n := in[p], 1
		switch {
		case c == '\'' && sub.At(p+1) == '\'':
			n = 2
		case c == '\'': // the literal is in several pieces
			next := sub.Continued(p + 1)
			p = max(next, p+1)
			continue
		case c == escape && escape != 0 && p+1 < len(in) && in[p+1] >= 0x80:
			p++
			continue
		case c == escape && escape != 0 && p+1 < len(in):
			if form == sqllex.FormUnicode {
				c, n = unicodeUnescape(in[p:], escape)
			} else {
				c, n = backslash(in[p:])
			}
		default:
			for range f.set.Width(in, p) - 1 {
				if p+1 < len(in) {
					text, pos = append(text, in[p]), append(pos, int32(p))
					p++
				}
			}
			c = in[p]
		}
		text, pos = append(text, c), append(pos, int32(p))
		p += n
	}
	return text, append(pos, int32(len(in))), true
}

// backslash reads an escape of an E literal: what it stands for and its length.
func backslash(b []byte) (c byte, n int) {
	switch b[1] {
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'x':
		return number(b, 2, 1, 2, 16)
	case 'u':
		return number(b, 2, 4, 4, 16)
	case 'U':
		return number(b, 2, 8, 8, 16)
	case '0', '1', '2', '3', '4', '5', '6', '7':
		return number(b, 1, 1, 3, 8)
	}
	return b[1], 2
}

// unicodeUnescape reads an escape of a U& literal.
func unicodeUnescape(b []byte, escape byte) (c byte, n int) {
	switch b[1] {
	case escape:
		return escape, 2
	case '+':
		return number(b, 2, 6, 6, 16)
	}
	return number(b, 1, 4, 4, 16)
}

// number reads least to most digits at b[from:]. Without them the character there stands for itself.
func number(b []byte, from, least, most, base int) (c byte, n int) {
	end := from
	for end < len(b) && end < from+most && sqllex.Hex(b[end]) && (base == 16 || b[end] < '8') {
		end++
	}
	v, err := strconv.ParseUint(string(b[from:end]), base, 64)
	switch {
	case end-from < least || err != nil:
		return b[1], 2
	case base == 8:
		v &= 0xff
	}
	if v >= 0x80 || v == 0 {
		return '_', end
	}
	return byte(v), end
}

// unicodeEscape returns the escape character of a U& literal that l has just read.
func unicodeEscape(l sqllex.Lexer) byte {
	if t := l.Next(); t.Kind != sqllex.Word || !equalFold(l.B[t.In:t.Out], "uescape") {
		return '\\'
	}
	if t := l.Next(); t.Kind == sqllex.String && t.Out-t.In == 1 {
		return l.B[t.In]
	}
	return '\\'
}
