package query

import (
	"strconv"
	"strings"

	"github.com/pgnotary/pgnotary/internal/pgvalue"
	"github.com/pgnotary/pgnotary/internal/sqllex"
)

// maxRendering bounds the text of a rendering, in bytes.
const maxRendering = 1 << 20

// Rendering returns the statement's text with its parameters put in place as
// literals, for people: nobody sent it, and the server never saw it. ok is
// false if there are no parameters, if the text cannot be cut into tokens for
// sure, or if it would be long.
func (s *Statement) Rendering() (text string, ok bool) {
	if !s.HasText || len(s.Params) == 0 || len(s.Text) > maxRendering {
		return "", false
	}
	var b strings.Builder
	l := sqllex.Lexer{B: []byte(s.Text), Standard: true}
	for from := 0; ; {
		t := l.Next()
		switch {
		case t.Kind == sqllex.Bad || l.Wavering:
			return "", false
		case t.Kind == sqllex.End:
			b.WriteString(s.Text[from:])
			return b.String(), b.Len() <= maxRendering
		case t.Kind != sqllex.Number || s.Text[t.From] != '$':
			continue
		}
		n, err := strconv.Atoi(s.Text[t.From+1 : t.To])
		if err != nil || n < 1 || n > len(s.Params) {
			return "", false
		}
		b.WriteString(s.Text[from:t.From])
		b.WriteString(s.Params[n-1].literal())
		if from = t.To; b.Len() > maxRendering {
			return "", false
		}
	}
}

// literal writes a parameter as SQL, in parentheses where the text around it
// could run into it.
func (p *Param) literal() string {
	text, ok := p.Text()
	if !ok {
		return "NULL"
	}
	const oidBool, oidInt2, oidNumeric, oidText, oidVarchar = 16, 21, 1700, 25, 1043
	switch p.OID {
	case oidInt2, oidInt4, oidInt8, oidOid, oidNumeric:
		if strings.Trim(text, "0123456789.") == "" && text != "" {
			return text
		}
	case oidBool:
		switch text {
		case "t", "true":
			return "true"
		case "f", "false":
			return "false"
		}
	}
	text = quoteLiteral(text)
	if p.OID == 0 || p.OID == oidText || p.OID == oidVarchar {
		return text
	}
	name := pgvalue.TypeName(p.OID)
	if strings.Trim(name, "0123456789") == "" {
		return text // a type of that server's own
	}
	return text + "::" + name
}

// quoteLiteral is PostgreSQL's quote_literal.
func quoteLiteral(s string) string {
	quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		return " E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}
