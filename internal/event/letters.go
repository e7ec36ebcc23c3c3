package event

// maxLetters bounds the message letters of an entry.
const maxLetters = 4096

// AppendLetter appends a message's letter to those of an entry, Leaf.Msgs: a run
// of d or D is one letter, and '+' says that there were more than 4096.
func AppendLetter(letters []byte, typ byte) []byte {
	n := len(letters)
	switch {
	case n > maxLetters:
		return letters
	case n == maxLetters:
		typ = '+'
	case n > 0 && letters[n-1] == typ && (typ == 'd' || typ == 'D'):
		return letters
	}
	return append(letters, typ)
}
