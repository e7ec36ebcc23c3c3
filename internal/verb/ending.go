package verb

import "bytes"

// endingOf looks for a CALL or a DO, at the beginning of a text or behind a
// semicolon. It errs on the side of EndsAny. The code of a DO is there to be
// read; what it does beyond that it must CALL.
func endingOf(text []byte) Ending {
	for {
		for len(text) > 0 && (blank(text[0]) || text[0] == ';' || text[0] == '(') {
			text = text[1:]
		}
		t := space(text)
		if bytes.HasPrefix(t, []byte("/*")) {
			return EndsAny // a comment not looked behind
		}
		if len(t) > 1 && (t[0]|0x20 == 'c' || t[0]|0x20 == 'd') {
			word, _ := nextWord(t[:min(len(t), 5)])
			switch {
			case is(word, "call"):
				return EndsAny
			case is(word, "do"):
				rest := t[len(word):]
				if containsFold(rest, "rollback") || containsFold(rest, "call") || bytes.IndexByte(rest, '\\') >= 0 {
					return EndsAny
				}
				return EndsCommit
			}
		}
		i := bytes.IndexByte(t, ';')
		if i < 0 {
			return EndsNone
		}
		text = t[i+1:]
	}
}

// containsFold looks for a lower-case ASCII word in any case.
func containsFold(b []byte, word string) bool {
	for len(b) >= len(word) {
		if b[0]|0x20 == word[0] && bytes.EqualFold(b[:len(word)], []byte(word)) {
			return true
		}
		b = b[1:]
	}
	return false
}
