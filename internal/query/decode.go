package query

import (
	"bytes"
	"iter"
	"strings"
	"unicode/utf8"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
)

// A source is a log as the joins here need it.
type source interface {
	// Entries yields the entries from index from up to but without to.
	Entries(from, to int64) iter.Seq2[journal.Entry, error]
	// stretches is for one who reads many stretches, one after the other.
	stretches() stretches
	// Entry returns one entry; it stays valid.
	Entry(index int64) (journal.Entry, error)
	// Copy returns one entry from what is kept for those that go back to it.
	Copy(index int64) (journal.Entry, error)
	// Blob returns the content of a blob.
	Blob(ref *journal.BlobRef) ([]byte, error)
	// maxValue is how large a value may be to be read, in bytes; 0 stands for any size.
	maxValue() int64
}

// stretches yield the entries of one stretch after the other, as source.Entries does. They
// are for one goroutine, and to be closed.
type stretches interface {
	Entries(from, to int64) iter.Seq2[journal.Entry, error]
	Close()
}

// A decoder turns entries into statements. It looks up the entries that they
// refer to, and remembers what it found. It is not for concurrent use.
type decoder struct {
	src         source
	names       map[string]string // one copy of each user, database, tag ...
	refs        *refs
	atHand      map[int64]*ref // of refs, some used last
	atHandBytes int
	near, by    int64 // refs may yet learn of entries from near up to by
	limit       int64 // bytes of a value that is read, 0 for any
	analyses    analyses

	second [len("2006-01-02T15:04:05.")]byte // of the time seen last
	nano   int64                             // that means
	bind   bindMsg                           // decoded last
	lend   bool                              // the statements are not kept for long
	room   strings.Builder                   // of texts, see text
}

// maxNames bounds the number of a decoder's strings.
const maxNames = 4096

func newDecoder(src source) *decoder {
	return &decoder{src: src, limit: src.maxValue(), names: make(map[string]string), refs: newRefs(), atHand: make(map[int64]*ref)}
}

// charset returns the encoding that a fact names; without one it is UTF-8.
func (v *view) charset() *charset {
	if !bytes.Contains(v.facts, []byte(`"`+encodingFact+`":`)) {
		return nil
	}
	for _, f := range factList(v.facts) {
		if f.Key == encodingFact {
			return charsetOf(f.Val)
		}
	}
	return nil
}

// name returns b, unescaped, as a string that is kept only once.
func (d *decoder) name(b []byte) string {
	if s, ok := d.names[string(b)]; ok {
		return s
	}
	if len(d.names) >= maxNames {
		clear(d.names)
	}
	s := unescape(b)
	d.names[string(b)] = s
	return s
}

// time returns a leaf's time; most are of the same second as the one before.
func (d *decoder) time(v *view) (int64, error) {
	const n = len(d.second)
	if string(v.time[:n]) == string(d.second[:]) && v.time[timeLen-1] == 'Z' {
		nano, ok := int64(0), true
		for _, c := range v.time[n : timeLen-1] {
			c -= '0'
			nano, ok = nano*10+int64(c), ok && c <= 9
		}
		if ok {
			return d.nano + nano, nil
		}
	}
	at, err := v.unixNano()
	if err == nil {
		copy(d.second[:], v.time)
		d.nano = at - number(v.time[n:timeLen-1])
	}
	return at, err
}

// roomLen is the size of what texts that are not kept for long share.
const roomLen = 16 << 10

// text is charset.text for the text of a statement.
func (d *decoder) text(cs *charset, b []byte) string {
	if cs != nil || !utf8.Valid(b) {
		return cs.text(b)
	}
	if !d.lend || len(b) > roomLen/8 {
		return string(b)
	}
	if d.room.Cap()-d.room.Len() < len(b) {
		d.room.Reset()
		d.room.Grow(roomLen)
	}
	from := d.room.Len()
	d.room.Write(b)
	return d.room.String()[from:]
}

// tooLarge reports whether an entry's value is larger than what is read.
func (d *decoder) tooLarge(e *journal.Entry) bool {
	return e.Blob != nil && d.limit > 0 && e.Blob.Size > d.limit
}

// value returns an entry's value. ok is false if it is not there, or too large.
func (d *decoder) value(e *journal.Entry) (b []byte, ok bool) {
	if d.tooLarge(e) {
		return nil, false
	}
	if e.Blob != nil {
		b, err := d.src.Blob(e.Blob)
		return b, err == nil
	}
	return e.Value, e.Value != nil || !e.HasValue
}

// admission fills s from an admission's entry, but for its outcome. Raw bytes
// in s alias e.Value and what the decoder remembers; s.Params is reused.
func (d *decoder) admission(s *Statement, e *journal.Entry, v *view) error {
	value, ok := d.value(e)
	return d.fill(s, e.Index, value, ok, v)
}

// fill is admission with the entry's value, if ok says that it is there.
func (d *decoder) fill(s *Statement, index int64, value []byte, ok bool, v *view) error {
	*s = Statement{Index: index, Session: v.session, Kind: v.kind, Params: s.Params[:0], Of: v.of, Unavailable: !ok, analyses: &d.analyses}
	var err error
	if s.Time, err = d.time(v); err != nil {
		return err
	}
	if w := v.who; w != nil {
		s.who, s.User, s.Database, s.Application, s.Client = w, w.names[0], w.names[1], w.names[2], w.names[3]
	} else {
		s.User, s.Database, s.Application, s.Client = d.name(v.user), d.name(v.db), d.name(v.app), d.name(v.client)
	}
	s.Facts = factList(v.facts)
	cs := v.charset()
	switch v.kind {
	case event.KindQuery:
		d.query(s, value, cs)
		return d.executes(s, v)
	case event.KindParse, event.KindBind, event.KindExecute:
		return d.extended(s, value, v, cs)
	case event.KindFunctionCall:
		s.functionCall(value, cs)
	case event.KindConnect:
		if value != nil {
			s.Version, s.Settings = decodeStartup(value, cs.text)
		}
	case event.KindCopy, event.KindReplication, event.KindResult:
		s.content(v, value, cs)
	case event.KindNotice:
		if v.session == 0 && s.fact(event.FactRead) != "" {
			s.Request = cs.text(value)
			break
		}
		if f, _, ok := nextFrame(value); ok && f.letter == 'A' {
			n := decodeNotification(f.body, cs.text)
			s.Notify = &n
		} else if ok {
			m := decodeServerMessage(f.body, cs.text)
			s.Notice = &m
		}
	case event.KindViolation:
		s.Raw = value
	}
	if v.sqlstate != nil && v.kind != event.KindNotice && !concludes(v.kind) {
		s.Error = serverError(value, v)
		if v.kind == event.KindViolation { // the proxy's own, which has no message but its reason
			s.Error = &ServerMessage{Severity: "FATAL", SQLState: unescape(v.sqlstate), Message: s.fact("reason")}
		}
	}
	return nil
}

// serverError decodes the ErrorResponse in a value, and what the leaf says of
// it if there is none.
func serverError(value []byte, v *view) *ServerMessage {
	var m ServerMessage
	if body, ok := findFrame(value, 'E'); ok {
		m = decodeServerMessage(body, v.charset().text)
	} else if v.sqlstate == nil {
		return nil
	}
	if m.SQLState == "" {
		m.SQLState = unescape(v.sqlstate)
	}
	return &m
}

func (d *decoder) query(s *Statement, value []byte, cs *charset) {
	body, ok := findFrame(value, 'Q')
	if !ok {
		return
	}
	c := cursor{b: body}
	s.setText(d.text(cs, c.str()), c.bad || len(c.b) > 0)
}

// executes sets the text that a Query runs or fetches from by a name.
func (d *decoder) executes(s *Statement, v *view) error {
	for _, reference := range []int64{v.parse, v.bind} {
		r, err := d.ref(reference)
		if err != nil {
			return err
		}
		if r != nil && (r.hasParse || r.isQuery) {
			s.Executes = r.text
			return nil
		}
		if r != nil {
			s.lacks(r)
		}
	}
	return nil
}

// lacks notes that the statement goes back to r.
func (s *Statement) lacks(r *ref) {
	s.Unavailable, s.TooLarge = s.Unavailable || !r.ok, s.TooLarge || r.tooLarge
}

// fact returns the value of a fact, "" if there is none.
func (s *Statement) fact(key string) string {
	for _, f := range s.Facts {
		if f.Key == key {
			return f.Val
		}
	}
	return ""
}

func (s *Statement) setText(text string, malformed bool) {
	s.Text, s.HasText = text, true
	s.Malformed = s.Malformed || malformed
}

func (s *Statement) functionCall(value []byte, cs *charset) {
	body, found := findFrame(value, 'F')
	if !found {
		return
	}
	oid, args, ok := decodeFunctionCall(body)
	lo := largeObjects[oid]
	s.Malformed = !ok
	s.Function = &Function{OID: oid, Name: lo.name, resultFormat: args.result}
	s.setParams(&args, lo.args, cs)
}

// extended decodes the messages of the extended protocol: those of the entry
// itself, and those it goes back to.
func (d *decoder) extended(s *Statement, value []byte, v *view, cs *charset) error {
	var own struct{ parse, bind, execute []byte }
	for rest := value; ; {
		f, more, ok := nextFrame(rest)
		if !ok {
			break
		}
		switch {
		case f.letter == 'P' && own.parse == nil:
			own.parse = f.body
		case f.letter == 'B' && own.bind == nil:
			own.bind = f.body
		case f.letter == 'E' && own.execute == nil:
			own.execute = f.body
		}
		rest = more
	}
	if own.execute != nil {
		m, ok := decodeExecute(own.execute)
		s.Portal, s.MaxRows, s.Malformed = cs.text(m.portal), m.maxRows, !ok
	}
	types := typeList(v.types)
	parse := v.parse
	bound, hasBind, bindIn := own.bind, own.bind != nil, cs
	if !hasBind && v.bind != 0 {
		r, err := d.ref(v.bind)
		if err != nil {
			return err
		}
		s.lacks(r)
		bound, hasBind = findFrame(r.value, 'B')
		bindIn = r.charset
		types = mergeTypes(types, r.types)
		if parse == 0 {
			if parse = r.parse; r.hasParse {
				parse = v.bind
			}
		}
	}
	bind := &d.bind
	*bind = bindMsg{formats: bind.formats[:0], params: bind.params[:0]}
	if hasBind {
		ok := bind.decode(bound)
		s.Malformed = s.Malformed || !ok
		s.Portal = bindIn.text(bind.portal)
	}
	if own.parse != nil {
		m, ok := decodeParse(own.parse)
		if !hasBind || string(m.name) == string(bind.statement) {
			s.Prepared = cs.text(m.name)
			s.setText(d.text(cs, m.text), !ok)
			s.setParams(bind, mergeTypes(types, m.types), bindIn)
			return nil
		}
	}
	return d.referred(s, parse, bind, types, bindIn)
}

// referred sets text and parameters of a statement whose Parse is in another entry.
func (d *decoder) referred(s *Statement, parse int64, bind *bindMsg, types []uint32, bindIn *charset) error {
	r, err := d.ref(parse)
	if err != nil {
		return err
	}
	if r == nil || !r.hasParse {
		s.Prepared = bindIn.text(bind.statement)
	}
	if r == nil {
		s.setParams(bind, types, bindIn)
		return nil
	}
	s.lacks(r)
	s.shared = r.shared
	if r.isQuery {
		s.setText(r.text, false)
	}
	if r.hasParse {
		s.setText(r.text, r.malformed)
		s.Prepared = r.name
		types = mergeTypes(types, r.parsed.types)
	}
	types = mergeTypes(types, r.types)
	for i := range bind.params {
		if i >= len(types) || types[i] == 0 {
			i, _ := event.Index(parse)
			types = mergeTypes(types, d.soughtTypes(r, i))
			break
		}
	}
	s.setParams(bind, types, bindIn)
	return nil
}

func (s *Statement) setParams(m *bindMsg, types []uint32, cs *charset) {
	for i, raw := range m.params {
		p := Param{Format: m.format(i), Null: raw == nil, Raw: raw, charset: cs}
		if i < len(types) {
			p.OID = types[i]
		}
		s.Params = append(s.Params, p)
	}
}

// outcome fills o from an outcome's entry.
func (d *decoder) outcome(o *Outcome, e *journal.Entry, v *view) {
	*o = Outcome{
		Index: e.Index, Rows: v.rows, Bytes: v.bytes, Micros: v.micros, Tx: v.tx, Tags: o.Tags[:0],
		Skipped: string(v.end) == string(event.EndSkipped), Suspended: string(v.end) == string(event.EndSuspended),
		Discarded: string(v.end) == string(event.EndDiscarded), Facts: factList(v.facts),
	}
	for b := v.tags; len(b) > 0; {
		val, rest, ok := scanString(b)
		if !ok {
			break
		}
		o.Tags = append(o.Tags, d.name(val))
		if b = rest; len(b) > 0 {
			b = b[1:]
		}
	}
	if !v.hasValue && v.sqlstate == nil {
		return
	}
	value, _ := d.value(e)
	o.Error = serverError(value, v)
	if o.Error != nil {
		return
	}
	// Without an error the value is a function's result, or all the command
	// tags, since they were too many for the leaf.
	if len(value) > 0 && value[0] == 'V' {
		o.value = bytes.Clone(value)
		return
	}
	o.Tags = o.Tags[:0]
	for {
		f, rest, ok := nextFrame(value)
		if !ok {
			return
		}
		if f.letter == 'C' {
			c := cursor{b: f.body}
			o.Tags = append(o.Tags, v.charset().text(c.str()))
		}
		value = rest
	}
}
