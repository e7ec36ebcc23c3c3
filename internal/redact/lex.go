package redact

import "bytes"

// A kind is what a token is.
type kind uint8

const (
	tokEnd    kind = iota // of the text
	tokBad                // something that begins and does not end, until the end of the text
	tokWord               // key word or plain identifier
	tokName               // identifier in double quotes
	tokString             // literal
	tokNumber             // number or parameter
	tokMark               // one other character
)

// A token is a part of the text. in and out bound what is between its quotes.
type token struct {
	kind    kind
	form    byte // of tokString and tokName: one of the forms
	from    int
	in, out int
	to      int
}

// The forms of literals and quoted identifiers.
const (
	formPlain   = '\'' // two quotes are one
	formEscape  = 'e'  // and a backslash escapes
	formUnicode = 'u'  // U&: two quotes are one, the parser sees to the rest
	formDollar  = '$'  // nothing is special
	formBits    = 'x'  // B and X: a quote ends it
)

// A lexer cuts SQL text into tokens as PostgreSQL's scan.l does, comments and white
// space left out. It is a value: a copy reads ahead.
type lexer struct {
	b        []byte
	p        int
	standard bool // a plain literal has no escapes
	set      charset
	wavering bool // a literal was read whose end depends on standard
}

func (l *lexer) next() token {
	if !l.skipSpace() {
		return token{kind: tokBad, from: l.p, in: len(l.b), out: len(l.b), to: len(l.b)}
	}
	if l.p >= len(l.b) {
		return token{kind: tokEnd, from: l.p, in: l.p, out: l.p, to: l.p}
	}
	from := l.p
	switch c := l.b[from]; {
	case c == '\'':
		form := byte(formPlain)
		if !l.standard {
			form = formEscape
		}
		return l.literal(from, 1, form)
	case c == '"':
		return l.quoted(from, 1, formPlain)
	case c == '$':
		return l.dollar(from)
	case '0' <= c && c <= '9':
		return l.number(from)
	case identStart(c):
		return l.word(from)
	}
	return l.token(tokMark, from, from+1)
}

func (l *lexer) token(k kind, from, to int) token {
	l.p = to
	return token{kind: k, from: from, in: from, out: to, to: to}
}

// skipSpace goes to the next token. It says no at a comment that does not end.
func (l *lexer) skipSpace() bool {
	for l.p < len(l.b) {
		switch c := l.b[l.p]; {
		case space(c):
			l.p++
		case c == '-' && l.at(l.p+1) == '-':
			for l.p < len(l.b) && l.b[l.p] != '\n' && l.b[l.p] != '\r' {
				l.p++
			}
		case c == '/' && l.at(l.p+1) == '*':
			end := l.comment(l.p + 2)
			if end < 0 {
				return false
			}
			l.p = end
		default:
			return true
		}
	}
	return true
}

// comment returns the end of the comment, comments in it included, whose text begins at p.
func (l *lexer) comment(p int) int {
	for depth := 1; p+1 < len(l.b); {
		switch {
		case l.b[p] == '/' && l.b[p+1] == '*':
			depth++
			p += 2
		case l.b[p] == '*' && l.b[p+1] == '/':
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

// at returns a byte, zero behind the end.
func (l *lexer) at(p int) byte {
	if p < len(l.b) {
		return l.b[p]
	}
	return 0
}

// word reads an identifier, or the literal that its first letter is the prefix of.
func (l *lexer) word(from int) token {
	switch c, after := l.b[from]|0x20, l.at(from+1); {
	case c == 'e' && after == '\'':
		return l.literal(from, 2, formEscape)
	case (c == 'b' || c == 'x') && after == '\'':
		return l.literal(from, 2, formBits)
	case c == 'n' && after == '\'': // the n is a word of its own, which says nothing here
		form := byte(formPlain)
		if !l.standard {
			form = formEscape
		}
		return l.literal(from, 2, form)
	case c == 'u' && after == '&' && l.at(from+2) == '\'':
		return l.literal(from, 3, formUnicode)
	case c == 'u' && after == '&' && l.at(from+2) == '"':
		return l.quoted(from, 3, formUnicode)
	}
	p := from
	for p < len(l.b) && identCont(l.b[p]) {
		p += l.set.width(l.b, p)
	}
	return l.token(tokWord, from, min(p, len(l.b)))
}

// literal reads a literal in single quotes whose content begins after the prefix.
func (l *lexer) literal(from, prefix int, form byte) token {
	t := token{kind: tokString, form: form, from: from, in: from + prefix}
	for p := t.in; p < len(l.b); {
		switch c := l.b[p]; {
		case c == '\'' && l.at(p+1) == '\'' && form != formBits:
			p += 2
		case c == '\'':
			if next := l.continued(p + 1); next > 0 {
				p = next
				break
			}
			t.out, t.to = p, p+1
			l.p = p + 1
			return t
		case c == '\\':
			if l.at(p+1) == '\'' && (form == formPlain || form == formEscape && l.b[from]|0x20 != 'e') {
				l.wavering = true
			}
			p++
			if form == formEscape && p < len(l.b) {
				p += l.set.width(l.b, p)
			}
		default:
			p += l.set.width(l.b, p)
		}
	}
	return l.unterminated(t)
}

func (l *lexer) unterminated(t token) token {
	l.p = len(l.b)
	t.kind, t.out, t.to = tokBad, len(l.b), len(l.b)
	t.in = min(t.in, t.out)
	return t
}

// continued returns where a literal goes on that seemed to end before p: behind
// white space with a line break in it and a quote. Else it returns 0.
func (l *lexer) continued(p int) int {
	broken := false
	for ; p < len(l.b); p++ {
		switch c := l.b[p]; {
		case c == '\n' || c == '\r':
			broken = true
		case space(c):
		case c == '-' && l.at(p+1) == '-':
			for p+1 < len(l.b) && l.b[p+1] != '\n' && l.b[p+1] != '\r' {
				p++
			}
			if p+1 >= len(l.b) { // a comment without a line break at its end
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
func (l *lexer) quoted(from, prefix int, form byte) token {
	t := token{kind: tokName, form: form, from: from, in: from + prefix}
	for p := t.in; p < len(l.b); {
		switch {
		case l.b[p] == '"' && l.at(p+1) == '"':
			p += 2
		case l.b[p] == '"':
			t.out, t.to = p, p+1
			l.p = p + 1
			return t
		default:
			p += l.set.width(l.b, p)
		}
	}
	return l.unterminated(t)
}

// dollar reads $1, a literal in dollar quotes or a lone dollar sign.
func (l *lexer) dollar(from int) token {
	p := from + 1
	if digit(l.at(p)) {
		for digit(l.at(p)) {
			p++
		}
		return l.token(tokNumber, from, p)
	}
	for p < len(l.b) && l.b[p] != '$' && identCont(l.b[p]) && (p > from+1 || identStart(l.b[p])) {
		p += l.set.width(l.b, p)
	}
	if l.at(p) != '$' {
		return l.token(tokMark, from, from+1)
	}
	p++
	t := token{kind: tokString, form: formDollar, from: from, in: p}
	i := bytes.Index(l.b[p:], l.b[from:p])
	if i < 0 {
		return l.unterminated(t)
	}
	t.out = p + i
	t.to = t.out + p - from
	l.p = t.to
	return t
}

// number reads a number in the way of PostgreSQL 16 and later.
func (l *lexer) number(from int) token {
	p := from
	if x := l.at(p+1) | 0x20; l.b[p] == '0' && (x == 'x' || x == 'o' || x == 'b') && (hex(l.at(p+2)) || l.at(p+2) == '_') {
		for p += 2; hex(l.at(p)) || l.at(p) == '_'; p++ {
		}
		return l.token(tokNumber, from, p)
	}
	p = l.digits(p)
	if l.at(p) == '.' && l.at(p+1) != '.' {
		p = l.digits(p + 1)
	}
	if l.at(p)|0x20 == 'e' {
		e := p + 1
		if l.at(e) == '+' || l.at(e) == '-' {
			e++
		}
		if digit(l.at(e)) {
			p = l.digits(e)
		}
	}
	return l.token(tokNumber, from, p)
}

// digits skips digits with single underscores between them.
func (l *lexer) digits(p int) int {
	for digit(l.at(p)) || l.at(p) == '_' && digit(l.at(p+1)) {
		p++
	}
	return p
}

func space(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

func digit(c byte) bool { return '0' <= c && c <= '9' }

func hex(c byte) bool { return digit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }

func identStart(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' || c == '_' || c >= 0x80 }

func identCont(c byte) bool { return identStart(c) || digit(c) || c == '$' }
