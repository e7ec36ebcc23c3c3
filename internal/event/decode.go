package event

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// ErrNotCanonical is returned by Parse for bytes Append would not have written.
var ErrNotCanonical = errors.New("leaf is not in canonical form")

// Parse decodes one leaf. It accepts exactly what Append writes: the keys in
// their order, nothing unknown, no other spelling. The result shares no memory
// with b. Parse never panics, whatever b holds.
func Parse(b []byte) (Leaf, error) {
	var l Leaf
	err := l.parse(&decoder{b: b})
	return l, err
}

// Skim checks b exactly as Parse does and fills l with the numbers in it only:
// Who, Msgs, Types, Tags, SQLState and Facts stay empty. It does not allocate.
func Skim(b []byte, l *Leaf) error {
	*l = Leaf{}
	d := decoder{b: b, skim: true}
	return l.parse(&d)
}

func (l *Leaf) parse(d *decoder) error {
	if len(d.b) > MaxLeaf {
		return fmt.Errorf("leaf of %d bytes is larger than %d", len(d.b), MaxLeaf)
	}
	l.decode(d)
	if d.err == nil && d.pos != len(d.b) {
		d.fail("trailing bytes")
	}
	return d.err
}

func (l *Leaf) decode(d *decoder) {
	l.Time = d.time()
	d.expectByte('"')
	if d.skip(`,"s":"`) {
		l.Session = d.session()
		d.expectByte('"')
	}
	if d.key(`,"n":`) {
		l.Seq = uint64(d.int())
	}
	d.head.from = d.pos
	l.decodeHead(d)
	d.head.to = d.pos
	if l.Seq != 0 && l.Kind == KindOutcome {
		d.fail("an outcome with a number in the session")
	}
	if d.key(`,"of":`) {
		l.Of = d.ref()
	}
	if d.key(`,"parse":`) {
		l.Parse = d.ref()
	}
	if d.key(`,"bind":`) {
		l.Bind = d.ref()
	}
	if d.key(`,"types":[`) {
		for first := true; d.err == nil && (first || d.skip(`,`)); first = false {
			v := d.number()
			if v > math.MaxUint32 {
				d.fail("type OID")
			}
			if !d.skim {
				l.Types = append(l.Types, uint32(v))
			}
		}
		d.expectByte(']')
	}
	// The value comes last, and most leaves with one have nothing else here.
	if !d.next(`,"size":`) {
		l.decodeEnd(d)
	}
	if d.key(`,"size":`) {
		l.Size = d.int()
	}
	if d.key(`,"c":"`) {
		l.HasValue = true
		d.commitment(&l.Commitment)
		d.expectByte('"')
	}
	d.expectByte('}')
}

// decodeEnd decodes what came of a statement, and the facts.
func (l *Leaf) decodeEnd(d *decoder) {
	if d.key(`,"tags":[`) {
		for first := true; d.err == nil && (first || d.skip(`,`)); first = false {
			if t := d.string(); !d.skim {
				l.Tags = append(l.Tags, t)
			}
		}
		d.expectByte(']')
	}
	if d.key(`,"rows":`) {
		l.Rows = d.int()
	}
	if d.key(`,"bytes":`) {
		l.Bytes = d.int()
	}
	if d.key(`,"us":`) {
		l.Micros = d.int()
	}
	if d.key(`,"tx":"`) {
		if t := d.take(1); len(t) == 1 && (t[0] == 'I' || t[0] == 'T' || t[0] == 'E') {
			l.Tx = t[0]
		} else {
			d.fail("transaction status")
		}
		d.expectByte('"')
	}
	if d.key(`,"committed":true`) {
		l.Committed = 1
	} else if d.key(`,"committed":false`) {
		l.Committed = -1
	}
	if d.key(`,"since":`) {
		l.Since = d.ref()
	}
	if d.key(`,"end":"`) {
		l.End = ends[string(d.word())]
		if l.End == "" {
			d.fail("unknown end")
		}
		d.expectByte('"')
	}
	d.optString(`,"sqlstate":`, &l.SQLState)
	if d.key(`,"facts":{`) {
		for first := true; d.err == nil && (first || d.skip(`,`)); first = false {
			var f Fact
			f.Key = d.string()
			d.expectByte(':')
			f.Val = d.string()
			if !d.skim {
				l.Facts = append(l.Facts, f)
			}
		}
		d.expectByte('}')
	}
}

// decodeHead decodes the kind, who it is of and the message letters.
func (l *Leaf) decodeHead(d *decoder) {
	d.expect(`,"k":"`)
	l.Kind = KindOf(d.word())
	if l.Kind == "" {
		d.fail("unknown kind")
	}
	d.expectByte('"')
	var w Who
	user, db := d.optString(`,"user":`, &w.User), d.optString(`,"db":`, &w.Database)
	app, client := d.optString(`,"app":`, &w.Application), d.optString(`,"client":`, &w.Client)
	if (user || db || app || client) && !d.skim {
		l.Who = &Who{User: w.User, Database: w.Database, Application: w.Application, Client: w.Client}
	}
	var msgs string
	if d.optString(`,"m":`, &msgs) && !d.skim {
		l.Msgs = []byte(msgs)
	}
}

// KindOf returns the constant for a kind, "" for what is none. A switch takes
// a third of the time of a map, and constants as results take no memory.
func KindOf(b []byte) Kind {
	switch Kind(b) {
	case KindOutcome:
		return KindOutcome
	case KindExecute:
		return KindExecute
	case KindQuery:
		return KindQuery
	case KindParse:
		return KindParse
	case KindBind:
		return KindBind
	case KindSettle:
		return KindSettle
	case KindResult:
		return KindResult
	case KindConnect:
		return KindConnect
	case KindAuth:
		return KindAuth
	case KindDisconnect:
		return KindDisconnect
	case KindCopy:
		return KindCopy
	case KindFunctionCall:
		return KindFunctionCall
	case KindCancel:
		return KindCancel
	case KindReplication:
		return KindReplication
	case KindViolation:
		return KindViolation
	case KindNotice:
		return KindNotice
	case KindStart:
		return KindStart
	case KindStop:
		return KindStop
	case KindHeartbeat:
		return KindHeartbeat
	case KindGap:
		return KindGap
	case KindPrune:
		return KindPrune
	case KindHold:
		return KindHold
	case KindErase:
		return KindErase
	case KindRecover:
		return KindRecover
	case KindConfig:
		return KindConfig
	}
	return ""
}

var ends = words(EndSkipped, EndSuspended, EndUnknown, EndDiscarded)

// words returns a map from spelling to constant, looked up without allocating.
func words[T ~string](list ...T) map[string]T {
	m := make(map[string]T, len(list))
	for _, w := range list {
		m[string(w)] = w
	}
	return m
}

// decoder walks over one leaf. After the first failure b is empty, so nothing
// is found in it any more.
type decoder struct {
	b    []byte
	pos  int
	err  error
	skim bool // check strings and do not keep them

	head struct{ from, to int } // where the head is, as a Skimmer remembers it
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s at byte %d", ErrNotCanonical, what, d.pos)
		d.b = nil
	}
}

// next reports whether s comes next.
func (d *decoder) next(s string) bool {
	return len(d.b)-d.pos >= len(s) && string(d.b[d.pos:d.pos+len(s)]) == s
}

func (d *decoder) skip(s string) bool {
	if !d.next(s) {
		return false
	}
	d.pos += len(s)
	return true
}

// key is skip for the name of an optional key. All begin alike, so it looks
// at the first letter of the name first.
func (d *decoder) key(s string) bool {
	return len(d.b)-d.pos > 2 && d.b[d.pos+2] == s[2] && d.skip(s)
}

func (d *decoder) expect(s string) {
	if !d.skip(s) {
		d.fail("want " + s)
	}
}

// expectByte is expect for a single byte, the most frequent of all.
func (d *decoder) expectByte(c byte) {
	if d.pos < len(d.b) && d.b[d.pos] == c {
		d.pos++
		return
	}
	d.want(c)
}

func (d *decoder) want(c byte) { d.fail("want " + string(rune(c))) }

func (d *decoder) take(n int) []byte {
	if len(d.b)-d.pos < n {
		d.fail("too short")
		return nil
	}
	d.pos += n
	return d.b[d.pos-n : d.pos]
}

func (d *decoder) word() []byte {
	b, i := d.b, d.pos
	for i < len(b) && (b[i] >= 'a' && b[i] <= 'z' || b[i] == '_') {
		i++
	}
	return d.take(i - d.pos)
}

// number decodes a decimal number as it is written: no sign, no leading zero.
func (d *decoder) number() uint64 {
	b, i, v := d.b, d.pos, uint64(0)
	for i < len(b) && b[i]-'0' <= 9 {
		v = v*10 + uint64(b[i]-'0')
		i++
	}
	// 19 digits fit into 64 bits.
	if n := i - d.pos; n == 0 || n > 19 || n > 1 && b[d.pos] == '0' {
		d.fail("number")
		return 0
	}
	d.pos = i
	return v
}

// int decodes a positive number; Append leaves zero out.
func (d *decoder) int() int64 {
	v := d.number()
	if v > math.MaxInt64 || v == 0 {
		d.fail("number")
		return 0
	}
	return int64(v)
}

func (d *decoder) ref() int64 {
	v := d.number()
	if v >= math.MaxInt64 {
		d.fail("reference")
		return 0
	}
	return int64(v) + 1
}

// hexDigit is the value of each digit, and 16 for all else.
var hexDigit = func() (t [256]byte) {
	for c := range t {
		t[c] = 16
	}
	for i, c := range []byte("0123456789abcdef") {
		t[c] = byte(i)
	}
	return t
}()

// sextets are the values of each letter of base64 in the four places of 24 bits,
// and noSextet for all else.
var sextets = func() (t [4][256]uint32) {
	for place := range t {
		for c := range t[place] {
			t[place][c] = noSextet
		}
		for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
			t[place][c] = uint32(i) << (18 - 6*place)
		}
	}
	return t
}()

const noSextet = 1 << 24

// commitment decodes 32 bytes of base64. The bits behind them must be zero.
func (d *decoder) commitment(c *[32]byte) {
	if t := d.take(CommitmentLen); t != nil && !decodeCommitment(c, (*[CommitmentLen]byte)(t)) {
		d.fail("commitment")
	}
}

// decodeCommitment reports whether t is what 32 bytes are in base64.
func decodeCommitment(c *[32]byte, t *[CommitmentLen]byte) bool {
	var all uint32
	for i, j := 0, 0; i < 30; i, j = i+3, j+4 {
		v := sextets[0][t[j]] | sextets[1][t[j+1]] | sextets[2][t[j+2]] | sextets[3][t[j+3]]
		c[i], c[i+1], c[i+2] = byte(v>>16), byte(v>>8), byte(v)
		all |= v
	}
	v := sextets[0][t[40]] | sextets[1][t[41]] | sextets[2][t[42]]
	c[30], c[31] = byte(v>>16), byte(v>>8)
	return (all|v)&noSextet == 0 && v&0xff == 0 && t[43] == '='
}

// session decodes 16 hex digits in small letters.
func (d *decoder) session() (id uint64) {
	var bad byte
	for _, c := range d.take(16) {
		v := hexDigit[c]
		bad |= v
		id = id<<4 | uint64(v&15)
	}
	if id == 0 || bad > 15 {
		d.fail("session id")
	}
	return id
}

// time decodes the beginning of a leaf and in it what AppendTime writes:
// 2006-01-02T15:04:05.000000000Z.
func (d *decoder) time() int64 {
	var f fields
	d.expect(`{"v":1,"t":"`)
	s := d.take(len("2006-01-02T15:04:05.000000000Z"))
	if s == nil {
		return 0
	}
	year, month, day := f.number(s[0:4]), f.number(s[5:7]), f.number(s[8:10])
	hour, minute, second := f.number(s[11:13]), f.number(s[14:16]), f.number(s[17:19])
	nano := f.number(s[20:29])
	if f.bad || s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' || s[19] != '.' || s[29] != 'Z' ||
		month < 1 || month > 12 || day < 1 || day > daysIn(year, month) || hour > 23 || minute > 59 || second > 59 {
		d.fail("time")
		return 0
	}
	// Days since 1970-01-01 of a civil date, counted from March in eras of
	// 400 years: the inverse of what AppendTime does.
	if month <= 2 {
		year--
	}
	era := year / 400
	yoe, mp := year-era*400, (month+9)%12
	doe := yoe*365 + yoe/4 - yoe/100 + (153*mp+2)/5 + day - 1
	seconds := (era*146097+doe-719468)*86400 + hour*3600 + minute*60 + second
	n := seconds*1_000_000_000 + nano
	// In 1677 and 2262 nanoseconds outgrow 64 bits: then the time is another
	// when it is written again.
	if era*400+yoe <= 1677 || era*400+yoe >= 2262 {
		if again := AppendTime(make([]byte, 0, 30), n); string(again) != string(s) {
			d.fail("time")
			return 0
		}
	}
	return n
}

// fields reads numbers of fixed width; bad is set if one has another character.
type fields struct{ bad bool }

func (f *fields) number(b []byte) (v int64) {
	for _, c := range b {
		if c -= '0'; c > 9 {
			f.bad = true
		}
		v = v*10 + int64(c)
	}
	return v
}

func daysIn(year, month int64) int64 {
	switch {
	case month == 2 && (year%4 != 0 || year%100 == 0 && year%400 != 0):
		return 28
	case month == 2:
		return 29
	}
	return 30 + (month+month/8)&1
}

// optString decodes an optional string, which Append leaves out if it is empty.
func (d *decoder) optString(key string, s *string) bool {
	if !d.key(key) {
		return false
	}
	from := d.pos
	*s = d.string()
	if d.pos == from+2 {
		d.fail("empty string")
	}
	return true
}

// plain is the bytes a string holds as they are and one by one.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// string decodes a JSON string in the one spelling appendString writes.
func (d *decoder) string() string {
	d.expectByte('"')
	if d.err != nil {
		return ""
	}
	var out []byte
	for {
		from, b, i := d.pos, d.b, d.pos
		for i < len(b) && plain[b[i]] {
			i++
		}
		if d.pos = i; i >= len(b) {
			d.fail("unterminated string")
			return ""
		}
		run := b[from:i]
		if b[i] == '"' {
			d.pos++
			if d.skim {
				return ""
			}
			if out == nil {
				return string(run)
			}
			return string(append(out, run...))
		}
		from = d.pos
		r := d.special()
		if d.err != nil {
			return ""
		}
		if d.skim {
			continue
		}
		if out = append(out, run...); r < utf8.RuneSelf {
			out = append(out, byte(r))
		} else {
			out = append(out, d.b[from:d.pos]...)
		}
	}
}

// special decodes one character that is not plain.
func (d *decoder) special() rune {
	switch c := d.b[d.pos]; {
	case c == '\\':
		return d.escape()
	case c < utf8.RuneSelf:
		d.fail("control character")
		return 0
	}
	r, n := utf8.DecodeRune(d.b[d.pos:])
	if r == utf8.RuneError && n == 1 {
		d.fail("invalid UTF-8")
	}
	d.pos += n
	return r
}

// escape decodes one of \" \\ \u00XX, the last only for control characters.
func (d *decoder) escape() rune {
	d.pos++
	e := d.take(1)
	if len(e) == 1 && (e[0] == '"' || e[0] == '\\') {
		return rune(e[0])
	}
	if len(e) == 1 && e[0] == 'u' {
		h := d.take(4)
		v, err := strconv.ParseUint(string(h), 16, 16)
		var again [len(`"\u0000"`)]byte
		if err == nil && (v < 0x20 || v == 0x7f) && string(appendString(again[:0], []byte{byte(v)}, 1)) == `"\u`+string(h)+`"` {
			return rune(v)
		}
	}
	d.fail("escape")
	return 0
}
