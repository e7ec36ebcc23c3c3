package sqlinfo

import "github.com/pgnotary/pgnotary/internal/sqllex"

// AppendShape appends to dst what Analyze looks at of a text: its tokens, the
// case of key words and the content of literals left out. Texts of one shape
// have one Info, so that a reader of many need analyse each shape only once;
// this takes a fifth of the time. It allocates nothing but room in dst.
//
// Each token is a byte that says what it is, and its text: no other byte of a
// word or mark is as small, and a quoted name has its length in front.
func AppendShape(dst, text []byte) []byte {
	const (
		literal = iota
		word
		name
		mark
		unicodeName // is not followed
		wavering    // what Analyze cannot be sure of
		broken
	)
	l := sqllex.Lexer{B: text[:min(len(text), maxText)], Standard: true}
	for {
		switch t := l.Next(); t.Kind {
		case sqllex.End:
			if l.Wavering {
				dst = append(dst, wavering)
			}
			if len(text) > maxText {
				dst = append(dst, broken)
			}
			return dst
		case sqllex.Bad:
			return append(dst, broken)
		case sqllex.Word:
			dst = append(dst, word)
			for _, c := range text[t.From:t.To] {
				if 'A' <= c && c <= 'Z' {
					c += 'a' - 'A'
				}
				dst = append(dst, c)
			}
		case sqllex.Name:
			kind := byte(name)
			if t.Form == sqllex.FormUnicode {
				kind = unicodeName
			}
			n := t.Out - t.In
			dst = append(dst, kind, byte(n), byte(n>>8), byte(n>>16))
			dst = append(dst, text[t.In:t.Out]...)
		case sqllex.Mark:
			dst = append(dst, mark)
			dst = append(dst, text[t.From:t.To]...)
		default:
			dst = append(dst, literal)
		}
	}
}
