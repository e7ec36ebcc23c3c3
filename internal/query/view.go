package query

import (
	"bytes"
	"encoding/binary"
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
	who                    *identity // nil unless a scanner knows it; then user, db, app and client are there
}

// An identity is what a scanner remembers of a session: whose it is, as leaves spell it.
type identity struct {
	session uint64
	text    []byte // the keys with their values
	json    []byte // as AppendJSON begins, from the session on
	names   [4]string

	user, db, app, client []byte // in text

	asked  *matcher // that said last whether it is wanted
	wanted bool
}

// whose returns what a leaf says of whose it is.
func (v *view) whose() (user, db, app, client []byte) {
	if w := v.who; w != nil {
		return w.user, w.db, w.app, w.client
	}
	return v.user, v.db, v.app, v.client
}

// A scanner scans leaves as view.scan does, faster where many are of the same
// sessions: whose they are it remembers. It is not for concurrent use.
type scanner struct{ known [1 << scanBits]*identity }

// scanBits is how many sessions a scanner may remember, as a power of two. Ids are
// random: of 400 sessions in turn, one in twenty is in another's way.
const scanBits = 13

func (sc *scanner) whose(session uint64) **identity {
	return &sc.known[(session*0x9E3779B97F4A7C15)>>(64-scanBits)]
}

// identities remember whose sessions are.
type identities interface {
	// whose returns where the identity of a session is, that of another, or nil.
	whose(session uint64) **identity
}

const (
	leafStart = `{"v":1,"t":"`
	timeLen   = len("2006-01-02T15:04:05.000000000Z")
)

// scan sets v from leaf. It does not allocate.
func (v *view) scan(leaf []byte) error { return v.scanBy(nil, leaf) }

// scan sets v from leaf. It allocates for what it did not know yet.
func (sc *scanner) scan(v *view, leaf []byte) error { return v.scanBy(sc, leaf) }

func (v *view) scanBy(ids identities, leaf []byte) error {
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
	for {
		b = v.usual(ids, b)
		if len(b) <= 4 || b[0] != ',' || b[1] != '"' {
			break
		}
		rest, ok := v.field(b)
		if !ok {
			return errLeaf
		}
		b = rest
	}
	if len(b) != 1 || b[0] != '}' || v.kind == "" {
		return errLeaf
	}
	return nil
}

// outcomeOf returns the session of a leaf that is an outcome in the usual spelling, and
// the index of the entry that it is of.
func outcomeOf(leaf []byte) (session uint64, of int64, ok bool) {
	const (
		at  = len(leafStart) + timeLen
		end = at + len(`","s":"`) + 16
	)
	if len(leaf) < end || string(leaf[at:end-16]) != `","s":"` || !hasPrefix(leaf[end:], `","k":"outcome",`) {
		return 0, 0, false
	}
	b := leaf[end+len(`","k":"outcome"`):]
	if _, rest, ok := quickString(b, `,"m":"`); ok {
		b = rest
	}
	if rest := quickNumber(&of, b, `,"of":`); len(rest) == len(b) {
		return 0, 0, false
	}
	session, ok = sessionID(leaf[end-16 : end])
	return session, of, ok
}

// field sets v from any key with its value, which b begins with.
func (v *view) field(b []byte) (rest []byte, ok bool) {
	i := bytes.IndexByte(b[2:], '"')
	if i < 0 || len(b) < i+5 || b[i+3] != ':' {
		return nil, false
	}
	val, rest, ok := scanValue(b[i+4:])
	if ok {
		v.set(b[2:2+i], val)
	}
	return rest, ok
}

func hasPrefix(b []byte, s string) bool { return len(b) >= len(s) && string(b[:len(s)]) == s }

// usual takes the keys that most leaves have, in their order, as far as they are in the
// spelling they have there. It returns what is behind those.
func (v *view) usual(ids identities, b []byte) []byte {
	const idAt = len(`,"s":"`)
	if hasPrefix(b, `,"s":"`) && len(b) > idAt+17 && b[idAt+16] == '"' {
		id, ok := sessionID(b[idAt : idAt+16])
		if !ok {
			return b
		}
		v.session, b = id, b[idAt+17:]
	}
	var skipped int64
	if hasPrefix(b, `,"n":`) {
		b = quickNumber(&skipped, b, `,"n":`)
	}
	if hasPrefix(b, `,"k":"outcome"`) {
		v.kind, b = event.KindOutcome, b[len(`,"k":"outcome"`):]
	} else if val, rest, ok := quickString(b, `,"k":"`); ok {
		v.kind, b = event.KindOf(val), rest
		if ids != nil && v.session != 0 && v.who == nil && v.user == nil && hasPrefix(b, `,"user":"`) {
			if rest, ok := v.by(ids.whose(v.session), b); ok {
				b = rest
			}
		}
		b = quickText(&v.user, b, `,"user":"`)
		b = quickText(&v.db, b, `,"db":"`)
		b = quickText(&v.app, b, `,"app":"`)
		b = quickText(&v.client, b, `,"client":"`)
	}
	if _, rest, ok := quickString(b, `,"m":"`); ok {
		b = rest
	}
	b = quickRef(&v.of, b, `,"of":`)
	b = quickRef(&v.parse, b, `,"parse":`)
	b = quickRef(&v.bind, b, `,"bind":`)
	if !hasPrefix(b, `,"size":`) { // most that have one have nothing else here
		b = v.usualEnd(b)
	}
	b = quickNumber(&skipped, b, `,"size":`)
	if hasPrefix(b, `,"c":"`) && len(b) == len(`,"c":"`)+event.CommitmentLen+len(`"}`) && b[len(b)-2] == '"' {
		v.hasValue, b = true, b[len(b)-1:]
	}
	return b
}

// usualEnd is usual for what came of a statement.
func (v *view) usualEnd(b []byte) []byte {
	const tagAt = len(`,"tags":["`)
	if val, rest, ok := quickString(b, `,"tags":["`); ok && len(rest) > 0 && rest[0] == ']' { // a single one
		v.tags, b = b[tagAt-1:tagAt+len(val)+1], rest[1:]
	}
	b = quickNumber(&v.rows, b, `,"rows":`)
	b = quickNumber(&v.bytes, b, `,"bytes":`)
	b = quickNumber(&v.micros, b, `,"us":`)
	const txAt = len(`,"tx":"`)
	if hasPrefix(b, `,"tx":"`) && len(b) > txAt+1 && b[txAt+1] == '"' && b[txAt] != '\\' && b[txAt] != '"' {
		v.tx, b = b[txAt], b[txAt+2:]
	}
	const behind = len(`,"committed":true`)
	if hasPrefix(b, `,"committed":true`) && len(b) > behind && (b[behind] == ',' || b[behind] == '}') {
		v.committed, b = 1, b[behind:]
	}
	return quickRef(&v.since, b, `,"since":`)
}

// quickString splits key and a string without escapes off b.
func quickString(b []byte, key string) (val, rest []byte, ok bool) {
	if !hasPrefix(b, key) {
		return nil, nil, false
	}
	for i := len(key); i < len(b); i++ {
		switch b[i] {
		case '"':
			return b[len(key):i], b[i+1:], true
		case '\\':
			return nil, nil, false
		}
	}
	return nil, nil, false
}

// quickText is quickString that returns b if there is none.
func quickText(to *[]byte, b []byte, key string) []byte {
	val, rest, ok := quickString(b, key)
	if !ok {
		return b
	}
	*to = val
	return rest
}

// quickNumber splits key and a decimal number of moderate size off b. It returns b if
// there is none.
func quickNumber(to *int64, b []byte, key string) []byte {
	if !hasPrefix(b, key) {
		return b
	}
	return leadingNumber(to, b, len(key))
}

// quickRef is quickNumber for a reference.
func quickRef(to *int64, b []byte, key string) []byte {
	if !hasPrefix(b, key) {
		return b
	}
	rest := leadingNumber(to, b, len(key))
	if len(rest) < len(b) {
		*to++
	}
	return rest
}

// leadingNumber is quickNumber behind the key.
func leadingNumber(to *int64, b []byte, at int) []byte {
	n, i := int64(0), at
	if len(b) >= at+8 {
		first, digits := event.Digits(binary.LittleEndian.Uint64(b[at:]))
		n, i = int64(first), at+digits
	}
	for i < len(b) {
		c := b[i] - '0'
		if c > 9 {
			break
		}
		n = n*10 + int64(c)
		i++
	}
	if digits := i - at; digits == 0 || digits >= 18 || i == len(b) || b[i] != ',' && b[i] != '}' {
		return b
	}
	*to = n
	return b[i:]
}

// digitOf says what a small hexadecimal digit means; other bytes mean 0xff.
var digitOf = func() (t [256]uint8) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range []byte("0123456789abcdef") {
		t[c] = uint8(i)
	}
	return t
}()

// sessionID decodes 16 digits in small letters.
func sessionID(b []byte) (id uint64, ok bool) {
	bad := uint8(0)
	for _, c := range b {
		d := digitOf[c]
		id, bad = id<<4|uint64(d&15), bad|d
	}
	return id, bad < 16
}

// by sets v from the keys that say whose a leaf is, and remembers them in place. Behind
// them stand the message letters, or it leaves them alone.
func (v *view) by(place **identity, b []byte) (rest []byte, ok bool) {
	w := *place
	if w == nil || w.session != v.session || !bytes.HasPrefix(b, w.text) || !hasPrefix(b[len(w.text):], `,"m":`) {
		if w, ok = newIdentity(v.session, b); !ok {
			return nil, false
		}
		*place = w
	}
	v.who = w
	return b[len(w.text):], true
}

func newIdentity(session uint64, b []byte) (w *identity, ok bool) {
	var v view
	rest := b
	for !hasPrefix(rest, `,"m":`) {
		if !hasPrefix(rest, `,"user":"`) && !hasPrefix(rest, `,"db":"`) && !hasPrefix(rest, `,"app":"`) && !hasPrefix(rest, `,"client":"`) {
			return nil, false
		}
		if rest, ok = v.field(rest); !ok {
			return nil, false
		}
	}
	text := b[:len(b)-len(rest)]
	v = view{}
	for rest = text; len(rest) > 0; {
		rest, _ = v.field(rest)
	}
	w = &identity{session: session, names: [4]string{unescape(v.user), unescape(v.db), unescape(v.app), unescape(v.client)}}
	// Side by side, since both are read for most entries.
	both := appendWho(bytes.Clone(text), session, w.names[0], w.names[1], w.names[2], w.names[3])
	w.text, w.json = both[:len(text):len(text)], both[len(text):]
	for rest = w.text; len(rest) > 0; {
		rest, _ = v.field(rest)
	}
	w.user, w.db, w.app, w.client = v.user, v.db, v.app, v.client
	return w, true
}

// appendWho appends what of a statement's object says whose it is.
func appendWho(dst []byte, session uint64, user, db, app, client string) []byte {
	if session != 0 {
		dst = append(dst, `,"session":"`...)
		dst = event.AppendSession(dst, session)
		dst = append(dst, '"')
	}
	dst = appendOpt(dst, `,"user":`, user)
	dst = appendOpt(dst, `,"database":`, db)
	dst = appendOpt(dst, `,"application":`, app)
	return appendOpt(dst, `,"client":`, client)
}

// moved returns a view of a copy of the leaf that v is of, which spares
// scanning it once more.
func (v *view) moved(leaf, to []byte) view {
	m := *v
	m.time = to[len(leafStart):][:timeLen:timeLen]
	for _, f := range [...]*[]byte{&m.types, &m.tags, &m.facts, &m.end, &m.sqlstate, &m.user, &m.db, &m.app, &m.client} {
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
		v.kind = event.KindOf(val)
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
