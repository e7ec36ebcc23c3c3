package event

import (
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"unicode/utf8"
)

// CommitmentLen is the length of an encoded commitment: base64 of 32 bytes.
const CommitmentLen = 44

// commitmentPlace closes every leaf that has a value.
const commitmentPlace = `,"c":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`

// maxText bounds each user-controlled string in a leaf, in bytes of input.
// PostgreSQL itself cuts names to 63 bytes; the full bytes are in the value.
const maxText = 128

// maxMsgs bounds the message letters of one leaf.
const maxMsgs = 8 << 10

// PutCommitment writes c over the placeholder at the end of leaf. It reports
// false, and changes nothing, if leaf does not end in a commitment.
func PutCommitment(leaf []byte, c *[32]byte) bool {
	n := len(leaf) - len(commitmentPlace)
	if n < 0 || string(leaf[n:n+6]) != commitmentPlace[:6] || string(leaf[len(leaf)-2:]) != `"}` {
		return false
	}
	base64.StdEncoding.Encode(leaf[n+6:n+6+CommitmentLen], c[:])
	return true
}

// Append appends the encoding of l to dst and returns the result. It does not
// allocate if dst has room. Strings that are not valid UTF-8 have the invalid
// bytes replaced by U+FFFD, and long ones are cut: the value keeps the bytes. Of lists
// what would make the leaf larger than MaxLeaf is left out.
func (l *Leaf) Append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, `{"v":1,"t":"`...)
	dst = AppendTime(dst, l.Time)
	dst = append(dst, '"')
	if l.Session != 0 {
		dst = append(dst, `,"s":"`...)
		dst = AppendSession(dst, l.Session)
		dst = append(dst, '"')
	}
	if l.Kind != KindOutcome {
		dst = appendInt(dst, `,"n":`, int64(l.Seq))
	}
	dst = append(dst, `,"k":"`...)
	dst = append(dst, l.Kind...)
	dst = append(dst, '"')
	if l.Who != nil {
		if l.Who.enc == nil {
			l.Who.encode()
		}
		dst = append(dst, l.Who.enc...)
	}
	if len(l.Msgs) > 0 {
		m := l.Msgs
		if len(m) > maxMsgs {
			m = m[:maxMsgs]
		}
		dst = append(dst, `,"m":`...)
		dst = appendString(dst, m, maxMsgs)
	}
	dst = appendRef(dst, `,"of":`, l.Of)
	dst = appendRef(dst, `,"parse":`, l.Parse)
	dst = appendRef(dst, `,"bind":`, l.Bind)
	if len(l.Types) > 0 {
		dst = append(dst, `,"types":[`...)
		for i, t := range l.Types {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = strconv.AppendUint(dst, uint64(t), 10)
			if len(dst)-start > MaxLeaf/2 {
				break
			}
		}
		dst = append(dst, ']')
	}
	if len(l.Tags) > 0 {
		dst = append(dst, `,"tags":[`...)
		for i, t := range l.Tags {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, t, maxText)
			if len(dst)-start > MaxLeaf/2 {
				break
			}
		}
		dst = append(dst, ']')
	}
	dst = appendInt(dst, `,"rows":`, l.Rows)
	dst = appendInt(dst, `,"bytes":`, l.Bytes)
	dst = appendInt(dst, `,"us":`, l.Micros)
	if l.Tx != 0 {
		dst = append(dst, `,"tx":"`...)
		dst = append(dst, l.Tx, '"')
	}
	switch {
	case l.Committed > 0:
		dst = append(dst, `,"committed":true`...)
	case l.Committed < 0:
		dst = append(dst, `,"committed":false`...)
	}
	dst = appendRef(dst, `,"since":`, l.Since)
	if l.End != "" {
		dst = append(dst, `,"end":"`...)
		dst = append(dst, l.End...)
		dst = append(dst, '"')
	}
	if l.SQLState != "" {
		dst = append(dst, `,"sqlstate":`...)
		dst = appendString(dst, l.SQLState, 16)
	}
	if len(l.Facts) > 0 {
		dst = append(dst, `,"facts":{`...)
		for i, f := range l.Facts {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, f.Key, maxText)
			dst = append(dst, ':')
			dst = appendString(dst, f.Val, 4*maxText)
			if len(dst)-start > MaxLeaf*3/4-maxText { // one more takes 30 maxText at most
				break
			}
		}
		dst = append(dst, '}')
	}
	dst = appendInt(dst, `,"size":`, l.Size)
	if l.HasValue {
		return append(dst, commitmentPlace...)
	}
	return append(dst, '}')
}

func (w *Who) encode() {
	for _, f := range []struct{ key, val string }{
		{`,"user":`, w.User}, {`,"db":`, w.Database}, {`,"app":`, w.Application}, {`,"client":`, w.Client},
	} {
		if f.val != "" {
			w.enc = append(w.enc, f.key...)
			w.enc = appendString(w.enc, f.val, maxText)
		}
	}
}

func appendInt(dst []byte, key string, v int64) []byte {
	if v == 0 {
		return dst
	}
	return strconv.AppendInt(append(dst, key...), v, 10)
}

func appendRef(dst []byte, key string, ref int64) []byte {
	if ref == 0 {
		return dst
	}
	return strconv.AppendInt(append(dst, key...), ref-1, 10)
}

// AppendSession appends a session id as it is written in leaves.
func AppendSession(dst []byte, id uint64) []byte {
	var b [8]byte
	for i := range b {
		b[i] = byte(id >> (56 - 8*i))
	}
	return hex.AppendEncode(dst, b[:])
}

// AppendTime appends t, Unix nanoseconds, as RFC 3339 in UTC with all nine
// digits of the fraction. It does what time.AppendFormat would, in a fifth of
// the time: every entry has one.
func AppendTime(dst []byte, t int64) []byte {
	sec, nsec := t/1e9, t%1e9
	if nsec < 0 {
		sec, nsec = sec-1, nsec+1e9
	}
	days, rest := sec/86400, sec%86400
	if rest < 0 {
		days, rest = days-1, rest+86400
	}
	// Civil date from days since 1970-01-01 by counting from 0000-03-01,
	// in eras of 400 years (146,097 days). int64 nanoseconds end in 2262 and
	// begin in 1677, so era and all that follows are positive.
	z := days + 719468
	era := z / 146097
	doe := z - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	day := doy - (153*mp+2)/5 + 1
	month, year := mp+3, yoe+era*400
	if month > 12 {
		month, year = month-12, year+1
	}
	dst = append(dst, "0000-00-00T00:00:00.000000000Z"...)
	b := dst[len(dst)-30:]
	putDigits(b[0:4], year)
	putDigits(b[5:7], month)
	putDigits(b[8:10], day)
	putDigits(b[11:13], rest/3600)
	putDigits(b[14:16], rest/60%60)
	putDigits(b[17:19], rest%60)
	putDigits(b[20:29], nsec)
	return dst
}

// putDigits fills b with the decimal digits of v, zeros in front.
func putDigits(b []byte, v int64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + v%10)
		v /= 10
	}
}

// appendString appends s as a JSON string of at most limit bytes of input.
// Only the escapes \" \\ and \u00XX are used, so the encoding is canonical.
func appendString[T string | []byte](dst []byte, s T, limit int) []byte {
	const digits = "0123456789abcdef"
	cut := false
	if len(s) > limit {
		s, cut = s[:limit], true
	}
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		plain := i
		for i < len(s) && s[i] >= 0x20 && s[i] < 0x7f && s[i] != '"' && s[i] != '\\' {
			i++
		}
		if dst = append(dst, s[plain:i]...); i == len(s) {
			break
		}
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
			i++
		case c < 0x20 || c == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
			i++
		default:
			end := min(i+utf8.UTFMax, len(s))
			r, n := utf8.DecodeRuneInString(string(s[i:end]))
			dst = utf8.AppendRune(dst, r)
			i += n
		}
	}
	if cut {
		dst = append(dst, "…"...)
	}
	return append(dst, '"')
}
