package query

import (
	"encoding/base64"
	"strconv"
	"unicode/utf8"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/pgvalue"
	"github.com/pgnotary/pgnotary/internal/sqlinfo"
)

// MarshalJSON returns what AppendJSON appends.
func (s *Statement) MarshalJSON() ([]byte, error) { return s.AppendJSON(nil), nil }

// stateCancelled is query_canceled: by a CancelRequest, another session or a timeout.
const stateCancelled = "57014"

// AppendJSON appends s as one JSON object without a line feed, its keys in
// the order the command line promises.
func (s *Statement) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"index":`...)
	dst = strconv.AppendInt(dst, s.Index, 10)
	dst = append(dst, `,"time":"`...)
	dst = s.analyses.appendTime(dst, s.Time)
	dst = append(dst, '"')
	if w := s.who; w != nil && w.session == s.Session && w.names == [4]string{s.User, s.Database, s.Application, s.Client} {
		dst = append(dst, w.json...)
	} else {
		dst = appendWho(dst, s.Session, s.User, s.Database, s.Application, s.Client)
	}
	dst = appendOpt(dst, `,"kind":`, string(s.Kind))
	if s.HasText {
		dst = s.appendText(append(dst, `,"statement":`...))
	}
	if s.Function != nil {
		dst = append(dst, `,"function":{"oid":`...)
		dst = strconv.AppendUint(dst, uint64(s.Function.OID), 10)
		dst = appendOpt(dst, `,"name":`, s.Function.Name)
		dst = append(dst, '}')
	}
	if len(s.Params) > 0 {
		dst = append(dst, `,"params":[`...)
		for i := range s.Params {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = s.Params[i].appendJSON(dst)
		}
		dst = append(dst, ']')
	}
	dst = s.appendDetails(dst)
	if s.Outcome != nil {
		dst = append(dst, `,"outcome":`...)
		dst = s.Outcome.appendJSON(dst, s.Kind)
	}
	dst = append(dst, s.analysis().json...)
	return append(dst, '}')
}

// appendSQL appends what was derived from the text, and by which rules.
func appendSQL(dst []byte, info *sqlinfo.Info) []byte {
	dst = appendString(append(dst, `,"sql":{"engine":`...), info.Engine)
	for i, c := range info.Classes {
		dst = appendString(append(dst, separator(i, `,"class":[`)...), string(c))
	}
	if len(info.Classes) == 0 {
		dst = append(dst, `,"class":["`+Unknown+`"`...)
	}
	dst = append(dst, ']')
	for i, r := range info.Relations {
		dst = appendString(append(dst, separator(i, `,"relations":[`)...), r)
	}
	if len(info.Relations) > 0 {
		dst = append(dst, ']')
	}
	dst = appendOpt(dst, `,"fingerprint":`, info.Fingerprint)
	if !info.Complete {
		dst = append(dst, `,"complete":false`...)
	}
	return append(dst, '}')
}

// appendDetails appends what the contract does not name and only some kinds have.
func (s *Statement) appendDetails(dst []byte) []byte {
	if s.Malformed {
		dst = append(dst, `,"malformed":true`...)
	}
	if s.Unavailable {
		dst = append(dst, `,"unavailable":true`...)
	}
	if s.TooLarge {
		dst = append(dst, `,"too_large":true`...)
	}
	dst = appendOpt(dst, `,"executes":`, s.Executes)
	dst = appendOpt(dst, `,"prepared":`, s.Prepared)
	dst = appendOpt(dst, `,"portal":`, s.Portal)
	if s.MaxRows != 0 {
		dst = appendNum(dst, `,"max_rows":`, int64(s.MaxRows))
	}
	if s.Version != 0 {
		dst = append(dst, `,"protocol":"`...)
		dst = strconv.AppendUint(dst, uint64(s.Version>>16), 10)
		dst = append(dst, '.')
		dst = strconv.AppendUint(dst, uint64(s.Version&0xffff), 10)
		dst = append(dst, '"')
	}
	if len(s.Settings) > 0 {
		for i, p := range s.Settings {
			dst = append(dst, separator(i, `,"parameters":{`)...)
			dst = append(appendString(dst, p.Name), ':')
			dst = appendString(dst, p.Value)
		}
		dst = append(dst, '}')
	}
	if of, ok := event.Index(s.Of); ok {
		dst = appendNum(dst, `,"of":`, of)
	}
	dst = appendFacts(dst, s.Facts)
	if c := s.Copy; c != nil {
		dst = appendNum(dst, `,"messages":`, c.Messages)
		dst = appendNum(dst, `,"bytes":`, c.Bytes)
		if c.SHA256 != nil {
			dst = append(dst, `,"sha256":"`...)
			for _, b := range c.SHA256 {
				dst = append(dst, hexDigits[b>>4], hexDigits[b&15])
			}
			dst = append(dst, '"')
		}
	}
	dst = appendOpt(dst, `,"request":`, s.Request)
	if s.Notice != nil {
		dst = s.Notice.appendJSON(append(dst, `,"notice":`...))
	}
	if n := s.Notify; n != nil {
		dst = appendNum(dst, `,"notification":{"pid":`, int64(n.PID))
		dst = appendString(append(dst, `,"channel":`...), n.Channel)
		dst = append(appendString(append(dst, `,"payload":`...), n.Payload), '}')
	}
	if s.Error != nil {
		dst = s.Error.appendJSON(append(dst, `,"error":`...))
	}
	dst = appendRows(dst, s.Rows)
	if s.Raw != nil {
		dst = appendBase64(append(dst, `,"raw":`...), s.Raw)
	}
	return dst
}

// AppendEntryJSON appends the object of `show --json`: the keys of s, its
// Rendering, and the entry's leaf verbatim and, unless value is nil, its value and salt.
func AppendEntryJSON(dst []byte, s *Statement, e *Entry, value []byte) []byte {
	dst = s.AppendJSON(dst)
	dst = dst[:len(dst)-1]
	if text, ok := s.Rendering(); ok {
		dst = appendString(append(dst, `,"rendering":`...), text)
	}
	dst = append(append(dst, `,"leaf":`...), e.Leaf...)
	if e.HasValue && value != nil {
		dst = appendBase64(append(dst, `,"value":`...), value)
		dst = appendBase64(append(dst, `,"salt":`...), e.Salt[:])
	}
	return append(dst, '}')
}

func appendFacts(dst []byte, facts []event.Fact) []byte {
	for i, f := range facts {
		dst = append(dst, separator(i, `,"facts":{`)...)
		dst = append(appendString(dst, f.Key), ':')
		dst = appendString(dst, f.Val)
	}
	if len(facts) > 0 {
		dst = append(dst, '}')
	}
	return dst
}

func separator(i int, first string) string {
	if i == 0 {
		return first
	}
	return ","
}

func (p *Param) appendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	if p.OID != 0 {
		dst = append(appendString(append(dst, `"type":`...), pgvalue.TypeName(p.OID)), ',')
	}
	switch p.Format {
	case 0:
		dst = append(dst, `"format":"text"`...)
	case 1:
		dst = append(dst, `"format":"binary"`...)
	default:
		dst = append(dst, `"format":"`...)
		dst = strconv.AppendInt(dst, int64(p.Format), 10)
		dst = append(dst, '"')
	}
	if p.Null {
		return append(dst, `,"value":null}`...)
	}
	if p.shown == nil && p.Format == pgvalue.FormatText && p.charset == nil && utf8.Valid(p.Raw) { // as Text does
		dst = appendString(append(dst, `,"value":`...), p.Raw)
	} else {
		text, _ := p.Text()
		dst = appendString(append(dst, `,"value":`...), text)
	}
	return append(appendBase64(append(dst, `,"raw":`...), p.Raw), '}')
}

func (o *Outcome) appendJSON(dst []byte, kind event.Kind) []byte {
	dst = appendNum(dst, `{"index":`, o.Index)
	switch len(o.Tags) {
	case 0:
	case 1:
		dst = appendString(append(dst, `,"tag":`...), o.Tags[0])
	default:
		for i, t := range o.Tags {
			dst = appendString(append(dst, separator(i, `,"tags":[`)...), t)
		}
		dst = append(dst, ']')
	}
	ran := !o.Skipped && !o.Discarded
	if ran && (kind == event.KindQuery || kind == event.KindExecute) {
		dst = appendNum(dst, `,"rows":`, o.Rows)
		dst = appendNum(dst, `,"bytes":`, o.Bytes)
	}
	if ran {
		dst = appendNum(dst, `,"duration_us":`, o.Micros)
	}
	if o.Tx != 0 {
		dst = append(dst, `,"tx":"`...)
		dst = append(dst, o.Tx, '"')
	}
	switch {
	case o.Committed > 0:
		dst = append(dst, `,"committed":true`...)
	case o.Committed < 0:
		dst = append(dst, `,"committed":false`...)
	}
	if o.Skipped {
		dst = append(dst, `,"skipped":true`...)
	}
	if o.Error != nil && o.Error.SQLState == stateCancelled {
		dst = append(dst, `,"cancelled":true`...)
	}
	if o.Suspended {
		dst = append(dst, `,"suspended":true`...)
	}
	if o.Discarded {
		dst = append(dst, `,"discarded":true`...)
	}
	if o.Result != nil {
		dst = o.Result.appendJSON(append(dst, `,"result":`...))
	}
	dst = appendFacts(dst, o.Facts)
	if o.Error != nil {
		dst = o.Error.appendJSON(append(dst, `,"error":`...))
	}
	return append(dst, '}')
}

func (m *ServerMessage) appendJSON(dst []byte) []byte {
	dst = appendString(append(dst, `{"sqlstate":`...), m.SQLState)
	dst = appendString(append(dst, `,"message":`...), m.Message)
	dst = appendOpt(dst, `,"severity":`, m.Severity)
	dst = appendOpt(dst, `,"detail":`, m.Detail)
	dst = appendOpt(dst, `,"hint":`, m.Hint)
	dst = appendOpt(dst, `,"position":`, m.Position)
	dst = appendOpt(dst, `,"internal_position":`, m.InternalPosition)
	dst = appendOpt(dst, `,"internal_query":`, m.InternalQuery)
	dst = appendOpt(dst, `,"where":`, m.Where)
	dst = appendOpt(dst, `,"schema":`, m.Schema)
	dst = appendOpt(dst, `,"table":`, m.Table)
	dst = appendOpt(dst, `,"column":`, m.Column)
	dst = appendOpt(dst, `,"data_type":`, m.DataType)
	dst = appendOpt(dst, `,"constraint":`, m.Constraint)
	dst = appendOpt(dst, `,"routine":`, m.Routine)
	return append(dst, '}')
}

func appendOpt(dst []byte, key, val string) []byte {
	if val == "" {
		return dst
	}
	return appendString(append(dst, key...), val)
}

func appendNum(dst []byte, key string, v int64) []byte {
	return strconv.AppendInt(append(dst, key...), v, 10)
}

func appendBase64(dst, b []byte) []byte {
	dst = base64.StdEncoding.AppendEncode(append(dst, '"'), b)
	return append(dst, '"')
}

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string. Bytes that are not UTF-8 become
// U+FFFD each. Characters that some programs take for the end of a line, that a
// terminal acts on or that turn the direction of what follows are escaped.
func appendString[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		for i+8 <= len(s) && plainWord(uint64(s[i])|uint64(s[i+1])<<8|uint64(s[i+2])<<16|uint64(s[i+3])<<24|
			uint64(s[i+4])<<32|uint64(s[i+5])<<40|uint64(s[i+6])<<48|uint64(s[i+7])<<56) {
			i += 8
		}
		if i == len(s) {
			break
		}
		c := s[i]
		if c >= 0x20 && c < utf8.RuneSelf && c != '"' && c != '\\' && c != 0x7f {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
			if r == utf8.RuneError && n == 1 {
				dst = append(append(dst, s[start:i]...), "\uFFFD"...)
				start = i + 1
			} else if r <= 0x9f || 0x2028 <= r && r <= 0x202e || 0x2066 <= r && r <= 0x2069 {
				dst = append(append(dst, s[start:i]...), '\\', 'u',
					hexDigits[r>>12], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
				start = i + n
			}
			i += n
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}

// plainWord reports whether each of the eight bytes of w is an ASCII character
// that stands in a JSON string as it is.
func plainWord(w uint64) bool {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	quote, backslash := w^'"'*ones, w^'\\'*ones
	// A byte below 0x80 borrows if it is below what is taken off, and reaches
	// the highest bit if it is 0x7f.
	return (w|(w-0x20*ones)|(w+ones)|(quote-ones)|(backslash-ones))&high == 0
}
