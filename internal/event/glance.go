package event

import (
	"bytes"
	"encoding/base64"
)

// CommitmentOf returns the commitment that a leaf ends in; ok is false if the
// leaf says that its entry has no value. It looks at nothing else of the leaf.
func CommitmentOf(leaf []byte) (c [32]byte, ok bool) {
	const end = `"}`
	n := len(leaf) - len(end) - CommitmentLen
	if n < 6 || string(leaf[len(leaf)-len(end):]) != end || string(leaf[n-6:n]) != `,"c":"` {
		return c, false
	}
	var b [33]byte
	if m, err := base64.StdEncoding.Decode(b[:], leaf[n:n+CommitmentLen]); err != nil || m != 32 {
		return c, false
	}
	return [32]byte(b[:32]), true
}

// References returns what a leaf says under "parse" and "bind", in the form
// of Leaf: the index plus one, 0 for none. It does not check the leaf.
func References(leaf []byte) (parse, bind int64) {
	return reference(leaf, []byte(`parse":`)), reference(leaf, []byte(`bind":`))
}

// reference takes a key without what is in front of it: a search for a letter
// stops less often than one for a comma. Within a string the quote would be
// escaped, and no other key ends like that.
func reference(leaf, key []byte) (ref int64) {
	i := bytes.Index(leaf, key)
	if i < 0 {
		return 0
	}
	digits := 0
	for _, c := range leaf[i+len(key):] {
		if c < '0' || c > '9' {
			break
		}
		if digits++; digits > 18 {
			return 0
		}
		ref = ref*10 + int64(c-'0')
	}
	if digits == 0 {
		return 0
	}
	return ref + 1
}
