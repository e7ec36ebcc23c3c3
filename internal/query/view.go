package query

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
)

// errLeaf is returned for bytes that are not a leaf. Whether a leaf is
// canonical to the last byte is for event.Parse and verify to say.
var errLeaf = errors.New("not a leaf")

// A view gives access to a leaf's fields where they stand, without decoding
// what nobody asks for: a search looks at each entry of the log, and at most
// of them only briefly. Slices alias the leaf; strings are still escaped.
// References are stored plus one, as in event.Leaf.
type view struct {
	time                   []byte // RFC 3339, 30 bytes: compares like the time it means
	session                uint64
	kind                   event.Kind
	user, db, app, client  []byte
	of, parse, bind, since int64
	types, tags, facts     []byte // what is between the brackets
	rows, bytes, micros    int64
	tx                     byte
	committed              int8
	end, sqlstate          []byte
	hasValue               bool
}

const (
	leafStart = `{"v":1,"t":"`
	timeLen   = len("2006-01-02T15:04:05.000000000Z")
)

// scan sets v from leaf. It does not allocate.
func (v *view) scan(leaf []byte) error {
	*v = view{}
	if len(leaf) < len(leafStart)+timeLen+1 || string(leaf[:len(leafStart)]) != leafStart {
		return errLeaf
	}
	b := leaf[len(leafStart):]
	v.time, b = b[:timeLen:timeLen], b[timeLen:]
	if b[0] != '"' {
		return errLeaf
	}
	b = b[1:]
	for len(b) > 4 && b[0] == ',' && b[1] == '"' {
		i := bytes.IndexByte(b[2:], '"')
		if i < 0 || len(b) < i+5 || b[i+3] != ':' {
			return errLeaf
		}
		key := b[2 : 2+i]
		val, rest, ok := scanValue(b[i+4:])
		if !ok {
			return errLeaf
		}
		v.set(key, val)
		b = rest
	}
	if len(b) != 1 || b[0] != '}' || v.kind == "" {
		return errLeaf
	}
	return nil
}

// moved returns a view of a copy of the leaf that v is of, which spares
// scanning it once more.
func (v *view) moved(leaf, to []byte) view {
	m := *v
	m.time = to[len(leafStart):][:timeLen:timeLen]
	for _, f := range []*[]byte{&m.user, &m.db, &m.app, &m.client, &m.types, &m.tags, &m.facts, &m.end, &m.sqlstate} {
		if *f != nil { // each reaches to the end of the leaf, beyond its length
			at := cap(leaf) - cap(*f)
			*f = to[at : at+len(*f)]
		}
	}
	return m
}

// scanValue splits a JSON value off b. Strings, arrays and objects come
// without their delimiters.
func scanValue(b []byte) (val, rest []byte, ok bool) {
	switch b[0] {
	case '"':
		n := stringEnd(b[1:])
		if n < 0 {
			return nil, nil, false
		}
		return b[1 : 1+n], b[n+2:], true
	case '[', '{':
		end := b[0] + 2 // ']' and '}' follow their partners by two
		for i := 1; i < len(b); i++ {
			switch b[i] {
			case end:
				return b[1:i], b[i+1:], true
			case '"':
				n := stringEnd(b[i+1:])
				if n < 0 {
					return nil, nil, false
				}
				i += n + 1
			}
		}
		return nil, nil, false
	}
	for i, c := range b {
		if c == ',' || c == '}' {
			return b[:i], b[i:], true
		}
	}
	return nil, nil, false
}

// stringEnd returns the place of the quote that ends a string, or -1.
func stringEnd(b []byte) int {
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			return i
		case '\\':
			i++
		}
	}
	return -1
}

func (v *view) set(key, val []byte) {
	switch string(key) {
	case "s":
		var id [8]byte
		if len(val) == 16 {
			_, _ = hex.Decode(id[:], val) // an id of another form stays 0
		}
		for _, c := range id {
			v.session = v.session<<8 | uint64(c)
		}
	case "k":
		v.kind = kindOf(val)
	case "user":
		v.user = val
	case "db":
		v.db = val
	case "app":
		v.app = val
	case "client":
		v.client = val
	case "of":
		v.of = number(val) + 1
	case "parse":
		v.parse = number(val) + 1
	case "bind":
		v.bind = number(val) + 1
	case "types":
		v.types = val
	case "tags":
		v.tags = val
	case "rows":
		v.rows = number(val)
	case "bytes":
		v.bytes = number(val)
	case "us":
		v.micros = number(val)
	case "tx":
		if len(val) == 1 {
			v.tx = val[0]
		}
	case "committed":
		v.committed = -1
		if string(val) == "true" {
			v.committed = 1
		}
	case "since":
		v.since = number(val) + 1
	case "end":
		v.end = val
	case "sqlstate":
		v.sqlstate = val
	case "facts":
		v.facts = val
	case "c":
		v.hasValue = true
	}
}

// kindOf returns the constant for a kind, so that no view allocates.
func kindOf(b []byte) event.Kind {
	for _, k := range [...]event.Kind{
		event.KindOutcome, event.KindExecute, event.KindQuery, event.KindParse, event.KindBind, event.KindSettle,
		event.KindConnect, event.KindAuth, event.KindDisconnect, event.KindCopy, event.KindFunctionCall,
		event.KindCancel, event.KindReplication, event.KindViolation, event.KindNotice, event.KindStart,
		event.KindStop, event.KindHeartbeat, event.KindGap, event.KindPrune, event.KindHold, event.KindErase,
		event.KindRecover, event.KindConfig, event.KindResult,
	} {
		if string(b) == string(k) {
			return k
		}
	}
	return ""
}

// number reads decimal digits; anything else counts as the digits before it.
func number(b []byte) (n int64) {
	for _, c := range b {
		if c < '0' || c > '9' || n > 1<<59 {
			break
		}
		n = n*10 + int64(c-'0')
	}
	return n
}

// unixNano returns the leaf's time.
func (v *view) unixNano() (int64, error) {
	// A loop over digits takes a tenth of time.Parse's time.
	t := v.time
	part := func(from, to int) int { return int(number(t[from:to])) }
	if t[4] != '-' || t[10] != 'T' || t[19] != '.' || t[29] != 'Z' {
		return 0, fmt.Errorf("%w: time %.40q", errLeaf, t)
	}
	return time.Date(part(0, 4), time.Month(part(5, 7)), part(8, 10),
		part(11, 13), part(14, 16), part(17, 19), part(20, 29), time.UTC).UnixNano(), nil
}

// unescape returns the text of a JSON string's inside.
func unescape(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b)
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' || i+1 == len(b) {
			out = append(out, b[i])
			continue
		}
		i++
		if b[i] == 'u' && i+4 < len(b) {
			if r, err := strconv.ParseUint(string(b[i+1:i+5]), 16, 8); err == nil {
				out = append(out, byte(r)) // leaves escape only ASCII
				i += 4
				continue
			}
		}
		out = append(out, b[i])
	}
	return string(out)
}

// stringList decodes the inside of an array of strings.
func stringList(b []byte) (out []string) {
	for len(b) > 0 {
		val, rest, ok := scanString(b)
		if !ok {
			return out
		}
		out = append(out, unescape(val))
		b = bytes.TrimPrefix(rest, []byte(","))
	}
	return out
}

// scanString splits a string in quotes off b.
func scanString(b []byte) (val, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return nil, nil, false
	}
	return scanValue(b)
}

// factList decodes the inside of the facts object.
func factList(b []byte) (out []event.Fact) {
	for len(b) > 0 {
		key, rest, ok := scanString(b)
		if !ok || len(rest) == 0 || rest[0] != ':' {
			return out
		}
		val, rest, ok := scanString(rest[1:])
		if !ok {
			return out
		}
		out = append(out, event.Fact{Key: unescape(key), Val: unescape(val)})
		b = bytes.TrimPrefix(rest, []byte(","))
	}
	return out
}

// typeList decodes the inside of an array of OIDs.
func typeList(b []byte) []uint32 {
	if len(b) == 0 {
		return nil
	}
	out := make([]uint32, 0, bytes.Count(b, []byte{','})+1)
	for part := range bytes.SplitSeq(b, []byte{','}) {
		out = append(out, uint32(number(part)))
	}
	return out
}
