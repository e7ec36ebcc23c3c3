package event

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// ErrNotCanonical is returned by Parse for bytes Append would not have written.
var ErrNotCanonical = errors.New("leaf is not in canonical form")

// Parse decodes one leaf. It accepts exactly what Append writes: the keys in
// their order, nothing unknown, no other spelling. The result shares no memory
// with b. Parse never panics, whatever b holds.
func Parse(b []byte) (Leaf, error) {
	var l Leaf
	if len(b) > MaxLeaf {
		return l, fmt.Errorf("leaf of %d bytes is larger than %d", len(b), MaxLeaf)
	}
	d := decoder{b: b}
	l.decode(&d)
	if d.err == nil && d.pos != len(b) {
		d.fail("trailing bytes")
	}
	return l, d.err
}

func (l *Leaf) decode(d *decoder) {
	d.expect(`{"v":1,"t":"`)
	l.Time = d.time()
	d.expect(`"`)
	if d.skip(`,"s":"`) {
		var id [8]byte
		h := d.take(16)
		if _, err := hex.Decode(id[:], h); err != nil || string(hex.AppendEncode(nil, id[:])) != string(h) {
			d.fail("session id")
		}
		for _, c := range id {
			l.Session = l.Session<<8 | uint64(c)
		}
		d.expect(`"`)
	}
	l.Seq = uint64(d.int(`,"n":`))
	d.expect(`,"k":"`)
	l.Kind = kindOf(d.word())
	if l.Kind == "" {
		d.fail("unknown kind")
	}
	d.expect(`"`)
	var w Who
	w.User = d.optString(`,"user":`)
	w.Database = d.optString(`,"db":`)
	w.Application = d.optString(`,"app":`)
	w.Client = d.optString(`,"client":`)
	if w.User != "" || w.Database != "" || w.Application != "" || w.Client != "" {
		l.Who = &w
	}
	if m := d.optString(`,"m":`); m != "" {
		l.Msgs = []byte(m)
	}
	l.Of = d.ref(`,"of":`)
	l.Parse = d.ref(`,"parse":`)
	l.Bind = d.ref(`,"bind":`)
	if d.skip(`,"types":[`) {
		for first := true; d.err == nil && (first || d.skip(`,`)); first = false {
			v, err := strconv.ParseUint(string(d.digits()), 10, 32)
			if err != nil {
				d.fail("type OID")
			}
			l.Types = append(l.Types, uint32(v))
		}
		d.expect(`]`)
	}
	if d.skip(`,"tags":[`) {
		for first := true; d.err == nil && (first || d.skip(`,`)); first = false {
			l.Tags = append(l.Tags, d.string())
		}
		d.expect(`]`)
	}
	l.Rows = d.int(`,"rows":`)
	l.Bytes = d.int(`,"bytes":`)
	l.Micros = d.int(`,"us":`)
	if d.skip(`,"tx":"`) {
		if t := d.take(1); len(t) == 1 && (t[0] == 'I' || t[0] == 'T' || t[0] == 'E') {
			l.Tx = t[0]
		} else {
			d.fail("transaction status")
		}
		d.expect(`"`)
	}
	if d.skip(`,"committed":true`) {
		l.Committed = 1
	} else if d.skip(`,"committed":false`) {
		l.Committed = -1
	}
	l.Since = d.ref(`,"since":`)
	if d.skip(`,"end":"`) {
		switch e := End(d.word()); e {
		case EndSkipped, EndSuspended, EndUnknown, EndDiscarded:
			l.End = e
		default:
			d.fail("unknown end")
		}
		d.expect(`"`)
	}
	l.SQLState = d.optString(`,"sqlstate":`)
	if d.skip(`,"facts":{`) {
		for first := true; d.err == nil && (first || d.skip(`,`)); first = false {
			var f Fact
			f.Key = d.string()
			d.expect(`:`)
			f.Val = d.string()
			l.Facts = append(l.Facts, f)
		}
		d.expect(`}`)
	}
	l.Size = d.int(`,"size":`)
	if d.skip(`,"c":"`) {
		l.HasValue = true
		t := d.take(CommitmentLen)
		var c [33]byte
		n, err := base64.StdEncoding.Strict().Decode(c[:], t)
		if err != nil || n != 32 {
			d.fail("commitment")
		}
		l.Commitment = [32]byte(c[:32])
		d.expect(`"`)
	}
	d.expect(`}`)
}

func kindOf(w string) Kind {
	switch k := Kind(w); k {
	case KindStart, KindStop, KindHeartbeat, KindConnect, KindAuth, KindDisconnect, KindQuery,
		KindParse, KindBind, KindExecute, KindCopy, KindFunctionCall, KindCancel, KindReplication,
		KindViolation, KindNotice, KindGap, KindPrune, KindHold, KindErase, KindRecover, KindConfig,
		KindOutcome, KindSettle:
		return k
	}
	return ""
}

type decoder struct {
	b   []byte
	pos int
	err error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s at byte %d", ErrNotCanonical, what, d.pos)
	}
}

func (d *decoder) skip(s string) bool {
	if d.err != nil || len(d.b)-d.pos < len(s) || string(d.b[d.pos:d.pos+len(s)]) != s {
		return false
	}
	d.pos += len(s)
	return true
}

func (d *decoder) expect(s string) {
	if !d.skip(s) {
		d.fail("want " + s)
	}
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || len(d.b)-d.pos < n {
		d.fail("too short")
		return nil
	}
	d.pos += n
	return d.b[d.pos-n : d.pos]
}

func (d *decoder) word() string {
	i := d.pos
	for i < len(d.b) && (d.b[i] >= 'a' && d.b[i] <= 'z' || d.b[i] == '_') {
		i++
	}
	return string(d.take(i - d.pos))
}

// digits returns a decimal number as written: no sign, no leading zero.
func (d *decoder) digits() []byte {
	i := d.pos
	for i < len(d.b) && d.b[i] >= '0' && d.b[i] <= '9' {
		i++
	}
	t := d.take(i - d.pos)
	if len(t) == 0 || len(t) > 19 || len(t) > 1 && t[0] == '0' {
		d.fail("number")
		return nil
	}
	return t
}

// int decodes an optional positive number; Append leaves zero out.
func (d *decoder) int(key string) int64 {
	if !d.skip(key) {
		return 0
	}
	v, err := strconv.ParseInt(string(d.digits()), 10, 64)
	if err != nil || v == 0 {
		d.fail("number")
	}
	return v
}

func (d *decoder) ref(key string) int64 {
	if !d.skip(key) {
		return 0
	}
	v, err := strconv.ParseInt(string(d.digits()), 10, 64)
	if err != nil || v+1 <= 0 {
		d.fail("reference")
		return 0
	}
	return v + 1
}

func (d *decoder) time() int64 {
	s := d.take(len("2006-01-02T15:04:05.000000000Z"))
	t, err := time.Parse("2006-01-02T15:04:05.000000000Z", string(s))
	if err != nil {
		d.fail("time")
		return 0
	}
	n := t.UnixNano()
	if string(AppendTime(nil, n)) != string(s) {
		d.fail("time")
	}
	return n
}

func (d *decoder) optString(key string) string {
	if !d.skip(key) {
		return ""
	}
	s := d.string()
	if s == "" {
		d.fail("empty string")
	}
	return s
}

// string decodes a JSON string in the one spelling appendString writes.
func (d *decoder) string() string {
	d.expect(`"`)
	var out []byte
	for d.err == nil {
		if d.pos >= len(d.b) {
			d.fail("unterminated string")
			break
		}
		switch c := d.b[d.pos]; {
		case c == '"':
			d.pos++
			return string(out)
		case c == '\\':
			d.pos++
			e := d.take(1)
			switch {
			case len(e) == 1 && (e[0] == '"' || e[0] == '\\'):
				out = append(out, e[0])
			case len(e) == 1 && e[0] == 'u':
				h := d.take(4)
				v, err := strconv.ParseUint(string(h), 16, 16)
				if err != nil || v >= 0x20 && v != 0x7f || len(h) == 4 && string(appendString(nil, []byte{byte(v)}, 1)) != `"\u`+string(h)+`"` {
					d.fail("escape")
				}
				out = append(out, byte(v))
			default:
				d.fail("escape")
			}
		case c < 0x20 || c == 0x7f:
			d.fail("control character")
		case c < utf8.RuneSelf:
			out = append(out, c)
			d.pos++
		default:
			r, n := utf8.DecodeRune(d.b[d.pos:])
			if r == utf8.RuneError && n == 1 {
				d.fail("invalid UTF-8")
				break
			}
			out = append(out, d.b[d.pos:d.pos+n]...)
			d.pos += n
		}
	}
	return string(out)
}
