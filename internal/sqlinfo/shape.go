package sqlinfo

import (
	"slices"

	"github.com/pgnotary/pgnotary/internal/sqllex"
)

// The bytes that say what a token is.
const (
	shapeLiteral = iota
	shapeWord
	shapeName
	shapeMark
	shapeUnicodeName // is not followed
	shapeWavering    // what Analyze cannot be sure of
	shapeBroken
)

// AppendShape appends to dst what Analyze looks at of a text: its tokens, the
// case of key words and the content of literals left out. Texts of one shape
// have one Info, so that a reader of many need analyse each shape only once;
// this takes a tenth of the time. It allocates nothing but room in dst.
//
// Each token is a byte that says what it is, and its text: no other byte of a
// word or mark is as small, and a quoted name has its length in front.
func AppendShape(dst, text []byte) []byte {
	b := text[:min(len(text), maxText)]
	dst = slices.Grow(dst, len(b)+len(b)/2+8)
	l := sqllex.Lexer{B: b, Standard: true}
	for p := 0; ; {
		var ok bool
		if dst, p, ok = appendPlain(dst, b, p); ok {
			continue
		}
		l.P = p
		switch t := l.Next(); t.Kind {
		case sqllex.End:
			if l.Wavering {
				dst = append(dst, shapeWavering)
			}
			if len(text) > maxText {
				dst = append(dst, shapeBroken)
			}
			return dst
		case sqllex.Bad:
			return append(dst, shapeBroken)
		case sqllex.Word:
			dst = append(dst, shapeWord)
			for _, c := range b[t.From:t.To] {
				dst = append(dst, wordByte[c])
			}
		case sqllex.Name:
			kind := byte(shapeName)
			if t.Form == sqllex.FormUnicode {
				kind = shapeUnicodeName
			}
			n := t.Out - t.In
			dst = append(dst, kind, byte(n), byte(n>>8), byte(n>>16))
			dst = append(dst, b[t.In:t.Out]...)
		case sqllex.Mark:
			dst = append(dst, shapeMark)
			dst = append(dst, b[t.From:t.To]...)
		default:
			dst = append(dst, shapeLiteral)
		}
		p = l.P
	}
}

// wordByte is each byte that words can go on with, in lower case, and 0 for all else.
var wordByte = func() (t [256]byte) {
	for c := range t {
		switch b := byte(c); {
		case 'A' <= b && b <= 'Z':
			t[c] = b + 'a' - 'A'
		case 'a' <= b && b <= 'z', sqllex.Digit(b), b == '_', b == '$', b >= 0x80:
			t[c] = b
		}
	}
	return t
}()

// appendPlain appends the tokens from p on that need no lexer: words, decimal
// numbers, parameters, literals in plain quotes without a backslash, and marks. It
// returns where others begin, or the end, and whether it went on at all.
func appendPlain(dst, b []byte, p int) ([]byte, int, bool) {
	begin := p
	for p < len(b) {
		c, next := b[p], byte(0)
		if p+1 < len(b) {
			next = b[p+1]
		}
		switch {
		case sqllex.Space(c):
			p++
		case sqllex.Digit(c):
			to := digits(b, p)
			if to < len(b) && (b[to] == '.' || wordByte[b[to]] != 0) {
				return dst, p, p > begin // a fraction, an exponent, another base
			}
			dst, p = append(dst, shapeLiteral), to
		case c == '$':
			if !sqllex.Digit(next) {
				return dst, p, p > begin
			}
			dst, p = append(dst, shapeLiteral), digits(b, p+1)
		case wordByte[c] != 0:
			if next == '\'' || next == '&' { // perhaps the prefix of a literal
				return dst, p, p > begin
			}
			dst = append(dst, shapeWord)
			for p < len(b) {
				w := wordByte[b[p]]
				if w == 0 {
					break
				}
				dst = append(dst, w)
				p++
			}
		case c == '\'':
			to := p + 1
			for to < len(b) && b[to] != '\'' && b[to] != '\\' {
				to++
			}
			if to == len(b) || b[to] == '\\' {
				return dst, p, p > begin
			}
			if to++; to < len(b) && (b[to] == '\'' || b[to] == '-' || sqllex.Space(b[to]) && b[to] != ' ') {
				return dst, p, p > begin // it may go on
			}
			if to+1 < len(b) && b[to] == ' ' && (sqllex.Space(b[to+1]) || b[to+1] == '-') {
				return dst, p, p > begin
			}
			dst, p = append(dst, shapeLiteral), to
		case c == '"', c == '-' && next == '-', c == '/' && next == '*':
			return dst, p, p > begin
		default:
			dst = append(dst, shapeMark, c)
			p++
		}
	}
	return dst, p, p > begin
}

// digits returns the end of the digits that begin at p.
func digits(b []byte, p int) int {
	for p < len(b) && sqllex.Digit(b[p]) {
		p++
	}
	return p
}
