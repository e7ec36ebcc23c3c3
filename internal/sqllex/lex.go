// Package sqllex cuts SQL text into tokens as PostgreSQL does. It holds for
// text of any length and content: it allocates nothing and never panics.
package sqllex

import "bytes"

// A Kind is what a token is.
type Kind uint8

const (
	End    Kind = iota // of the text
	Bad                // something that begins and does not end, until the end of the text
	Word               // key word or plain identifier
	Name               // identifier in double quotes
	String             // literal
	Number             // number or parameter
	Mark               // one other character
)

// A Token is a part of the text. In and Out bound what is between its quotes.
type Token struct {
	Kind    Kind
	Form    byte // of String and Name: one of the forms
	From    int
	In, Out int
	To      int
}

// The forms of literals and quoted identifiers.
const (
	FormPlain   = '\'' // two quotes are one
	FormEscape  = 'e'  // and a backslash escapes
	FormUnicode = 'u'  // U&: two quotes are one, the parser sees to the rest
	FormDollar  = '$'  // nothing is special
	FormBits    = 'x'  // B and X: a quote ends it
)

// A Lexer cuts SQL text into tokens as PostgreSQL's scan.l does, comments and white
// space left out. It is a value: a copy reads ahead.
type Lexer struct {
	B        []byte
	P        int  // where it goes on
	Standard bool // a plain literal has no escapes
	Set      Charset
	Wavering bool // a literal was read whose end depends on Standard
	Adrift   bool // a literal was read whose end depends on Set
}

// Next returns the next token.
func (l *Lexer) Next() Token {
	if !l.skipSpace() {
		return Token{Kind: Bad, From: l.P, In: len(l.B), Out: len(l.B), To: len(l.B)}
	}
	if l.P >= len(l.B) {
		return Token{Kind: End, From: l.P, In: l.P, Out: l.P, To: l.P}
	}
	from := l.P
	switch c := l.B[from]; {
	case c == '\'':
		form := byte(FormPlain)
		if !l.Standard {
			form = FormEscape
		}
		return l.literal(from, 1, form)
	case c == '"':
		return l.quoted(from, 1, FormPlain)
	case c == '$':
		return l.dollar(from)
	case '0' <= c && c <= '9':
		return l.number(from)
	case identStart(c):
		return l.word(from)
	}
	return l.token(Mark, from, from+1)
}

func (l *Lexer) token(k Kind, from, to int) Token {
	l.P = to
	return Token{Kind: k, From: from, In: from, Out: to, To: to}
}

// skipSpace goes to the next Token. It says no at a comment that does not end.
func (l *Lexer) skipSpace() bool {
	for l.P < len(l.B) {
		switch c := l.B[l.P]; {
		case Space(c):
			l.P++
		case c == '-' && l.At(l.P+1) == '-':
			for l.P < len(l.B) && l.B[l.P] != '\n' && l.B[l.P] != '\r' {
				l.P++
			}
		case c == '/' && l.At(l.P+1) == '*':
			end := l.comment(l.P + 2)
			if end < 0 {
				return false
			}
			l.P = end
		default:
			return true
		}
	}
	return true
}

// comment returns the end of the comment, comments in it included, whose text begins at p.
func (l *Lexer) comment(p int) int {
	for depth := 1; p+1 < len(l.B); {
		switch {
		case l.B[p] == '/' && l.B[p+1] == '*':
			depth++
			p += 2
		case l.B[p] == '*' && l.B[p+1] == '/':
			if depth--; depth == 0 {
				return p + 2
			}
			p += 2
		default:
			p++
		}
	}
	return -1
}

// At returns a byte, zero behind the end.
func (l *Lexer) At(p int) byte {
	if p < len(l.B) {
		return l.B[p]
	}
	return 0
}

// word reads an identifier, or the literal that its first letter is the prefix of.
func (l *Lexer) word(from int) Token {
	switch c, after := l.B[from]|0x20, l.At(from+1); {
	case c == 'e' && after == '\'':
		return l.literal(from, 2, FormEscape)
	case (c == 'b' || c == 'x') && after == '\'':
		return l.literal(from, 2, FormBits)
	case c == 'n' && after == '\'': // the n is a word of its own, which says nothing here
		form := byte(FormPlain)
		if !l.Standard {
			form = FormEscape
		}
		return l.literal(from, 2, form)
	case c == 'u' && after == '&' && l.At(from+2) == '\'':
		return l.literal(from, 3, FormUnicode)
	case c == 'u' && after == '&' && l.At(from+2) == '"':
		return l.quoted(from, 3, FormUnicode)
	}
	p := from
	for p < len(l.B) && identCont(l.B[p]) {
		p += l.Set.Width(l.B, p)
	}
	return l.token(Word, from, min(p, len(l.B)))
}

// literal reads a literal in single quotes whose content begins after the prefix.
func (l *Lexer) literal(from, prefix int, form byte) Token {
	t := Token{Kind: String, Form: form, From: from, In: from + prefix}
	for p := t.In; p < len(l.B); {
		switch c := l.B[p]; {
		case c == '\'' && l.At(p+1) == '\'' && form != FormBits:
			p += 2
		case c == '\'':
			if next := l.Continued(p + 1); next > 0 {
				p = next
				break
			}
			t.Out, t.To = p, p+1
			l.P = p + 1
			return t
		case c == '\\':
			if l.At(p+1) == '\'' && (form == FormPlain || form == FormEscape && l.B[from]|0x20 != 'e') {
				l.Wavering = true
			}
			p++
			if form == FormEscape && p < len(l.B) {
				p += l.char(p, form)
			}
		default:
			p += l.char(p, form)
		}
	}
	return l.unterminated(t)
}

// char returns how long the character of a literal at p is.
func (l *Lexer) char(p int, form byte) int {
	if l.B[p] >= 0x80 && (form == FormPlain || form == FormEscape) && (l.At(p+1) == '\\' || l.At(p+2) == '\\') {
		l.Adrift = true // the backslash is one, or half of a character
	}
	return l.Set.Width(l.B, p)
}

func (l *Lexer) unterminated(t Token) Token {
	l.P = len(l.B)
	t.Kind, t.Out, t.To = Bad, len(l.B), len(l.B)
	t.In = min(t.In, t.Out)
	return t
}

// Continued returns where a literal goes on that seemed to end before p: behind
// white space with a line break in it and a quote. Else it returns 0.
func (l *Lexer) Continued(p int) int {
	broken := false
	for ; p < len(l.B); p++ {
		switch c := l.B[p]; {
		case c == '\n' || c == '\r':
			broken = true
		case Space(c):
		case c == '-' && l.At(p+1) == '-':
			for p+1 < len(l.B) && l.B[p+1] != '\n' && l.B[p+1] != '\r' {
				p++
			}
			if p+1 >= len(l.B) { // a comment without a line break at its end
				return 0
			}
		case c == '\'' && broken:
			return p + 1
		default:
			return 0
		}
	}
	return 0
}

// quoted reads an identifier in double quotes.
func (l *Lexer) quoted(from, prefix int, form byte) Token {
	t := Token{Kind: Name, Form: form, From: from, In: from + prefix}
	for p := t.In; p < len(l.B); {
		switch {
		case l.B[p] == '"' && l.At(p+1) == '"':
			p += 2
		case l.B[p] == '"':
			t.Out, t.To = p, p+1
			l.P = p + 1
			return t
		default:
			p += l.Set.Width(l.B, p)
		}
	}
	return l.unterminated(t)
}

// dollar reads $1, a literal in dollar quotes or a lone dollar sign.
func (l *Lexer) dollar(from int) Token {
	p := from + 1
	if Digit(l.At(p)) {
		for Digit(l.At(p)) {
			p++
		}
		return l.token(Number, from, p)
	}
	for p < len(l.B) && l.B[p] != '$' && identCont(l.B[p]) && (p > from+1 || identStart(l.B[p])) {
		p += l.Set.Width(l.B, p)
	}
	if l.At(p) != '$' {
		return l.token(Mark, from, from+1)
	}
	p++
	t := Token{Kind: String, Form: FormDollar, From: from, In: p}
	i := bytes.Index(l.B[p:], l.B[from:p])
	if i < 0 {
		return l.unterminated(t)
	}
	t.Out = p + i
	t.To = t.Out + p - from
	l.P = t.To
	return t
}

// number reads a number in the way of PostgreSQL 16 and later.
func (l *Lexer) number(from int) Token {
	p := from
	if x := l.At(p+1) | 0x20; l.B[p] == '0' && (x == 'x' || x == 'o' || x == 'b') && (Hex(l.At(p+2)) || l.At(p+2) == '_') {
		for p += 2; Hex(l.At(p)) || l.At(p) == '_'; p++ {
		}
		return l.token(Number, from, p)
	}
	p = l.digits(p)
	if l.At(p) == '.' && l.At(p+1) != '.' {
		p = l.digits(p + 1)
	}
	if l.At(p)|0x20 == 'e' {
		e := p + 1
		if l.At(e) == '+' || l.At(e) == '-' {
			e++
		}
		if Digit(l.At(e)) {
			p = l.digits(e)
		}
	}
	return l.token(Number, from, p)
}

// digits skips digits with single underscores between them.
func (l *Lexer) digits(p int) int {
	for Digit(l.At(p)) || l.At(p) == '_' && Digit(l.At(p+1)) {
		p++
	}
	return p
}

// Space reports whether c is white space.
func Space(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

// Digit reports whether c is a decimal digit.
func Digit(c byte) bool { return '0' <= c && c <= '9' }

// Hex reports whether c is a hexadecimal digit.
func Hex(c byte) bool { return Digit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }

func identStart(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' || c == '_' || c >= 0x80 }

func identCont(c byte) bool { return identStart(c) || Digit(c) || c == '$' }
