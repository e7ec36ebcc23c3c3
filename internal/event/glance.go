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
// of Leaf: the index plus one, 0 for none. It does not check the leaf, but goes by
// the order of keys, and by it that outcomes have neither.
func References(leaf []byte) (parse, bind int64) {
	if len(leaf) > atNext && bytes.HasPrefix(leaf[atNext:], outcomeKey) {
		return 0, 0
	}
	// A search for a letter stops less often than one for a comma. Within a string
	// the quote would be escaped, and no other key ends like that.
	if i := bytes.Index(leaf, parseKey); i >= 0 {
		var rest []byte
		if parse, rest = reference(leaf[i+len(parseKey):]); !bytes.HasPrefix(rest, behindParse) {
			return parse, 0
		}
		bind, _ = reference(rest[len(behindParse):])
		return parse, bind
	}
	if i := bytes.Index(leaf, bindKey); i >= 0 {
		bind, _ = reference(leaf[i+len(bindKey):])
	}
	return 0, bind
}

var (
	outcomeKey  = []byte(`,"k":"outcome"`)
	parseKey    = []byte(`parse":`)
	bindKey     = []byte(`bind":`)
	behindParse = []byte(`,"bind":`)
)

// reference reads the number that b begins with, and returns what follows it.
func reference(b []byte) (ref int64, rest []byte) {
	n := 0
	for n < len(b) && '0' <= b[n] && b[n] <= '9' {
		ref = ref*10 + int64(b[n]-'0')
		if n++; n > 18 {
			return 0, nil
		}
	}
	if n == 0 {
		return 0, nil
	}
	return ref + 1, b[n:]
}
