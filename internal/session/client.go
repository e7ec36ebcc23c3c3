package session

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/verb"
	"github.com/pgnotary/pgnotary/internal/wire"
)

// maxHeld is the largest frontend message held in memory until it is
// whole, in bytes; larger ones are streamed into a blob.
const maxHeld = 256 << 10

// clientSide is what is kept of the client's stream between two reads.
type clientSide struct {
	held    []byte // a partial message; given bytes of it were released before
	given   int
	pooled  *[]byte // where held came from
	letters []byte  // of messages since the last admission
	stream  stream
	run     run
	skip    bool // the server ignores everything up to Sync
}

// A run is the admission being put together: neighbouring messages of one
// read that belong to one statement. See docs/format/leaf.md.
type run struct {
	kind     event.Kind // "" if none is open
	from, to int        // its frames, as offsets into the bytes read
	queued   int        // replies outstanding before it
	stmt     string     // name of its Parse, "" for the unnamed
	portal   string     // name of its Bind
	parsed   *named     // what its Parse gave a name to mean, nil if it has none
	bound    *named     // likewise Bind
	parse    int64      // entry with the Parse, if not this one
	bind     int64
	types    []uint32
	facts    []event.Fact
	skip     bool // the server skips it
	named    bool // it binds what a Parse in an entry before gave a name to
	executed bool
	redacted bool // a password was replaced
}

// pool lends buffers for partial messages, so that an idle session has none.
var pool = sync.Pool{New: func() any { b := make([]byte, 0, 8<<10); return &b }}

// FromClient takes bytes the client sent and returns those to send to the
// server: a slice of p or of the session's buffer, valid until the next call
// of FromClient. What is not returned yet is held: the tail of a message that
// is not whole. On an error what was whole before the offence is returned.
func (s *Session) FromClient(now int64, p []byte) (fwd []byte, err error) {
	s.now = now
	c := &s.client
	if s.phase == phaseDead || s.phase == phaseClosing {
		return nil, nil
	}
	s.release()
	in := p
	if len(c.held) > 0 {
		c.held = append(c.held[:copy(c.held, c.held[c.given:])], p...)
		c.given = 0
		in = c.held
	}
	n, err := s.walkClient(in)
	if s.closeRun(in, n); s.err != nil {
		n, err = 0, s.err
	}
	s.hold(in, n)
	return in[:n], err
}

// release gives back the buffer of a message that passed as a whole. What
// FromClient returned lies in it, so this must wait for the next call: another
// session may take the buffer at once, on another thread.
func (s *Session) release() {
	c := &s.client
	if len(c.held) == 0 || c.given < len(c.held) {
		return
	}
	if c.pooled != nil && cap(c.held) <= 64<<10 {
		*c.pooled = c.held[:0]
		pool.Put(c.pooled)
	}
	c.held, c.pooled, c.given = nil, nil, 0
}

// hold keeps what was not released. in may be c.held itself.
func (s *Session) hold(in []byte, n int) {
	c := &s.client
	switch {
	case len(c.held) > 0:
		c.given = n // see release for the case that nothing is left
	case n < len(in):
		c.pooled = pool.Get().(*[]byte)
		c.held, c.given = append((*c.pooled)[:0], in[n:]...), 0
	}
}

// walkClient goes through the messages in and returns how many bytes may pass.
func (s *Session) walkClient(in []byte) (n int, err error) {
	c := &s.client
	for n < len(in) && s.phase != phaseClosing && s.err == nil {
		if c.stream.left > 0 || c.stream.done {
			if n += s.streamOn(in[n:]); c.stream.left > 0 || c.stream.done {
				break
			}
			continue
		}
		typ, length, ok := wire.Header(in[n:])
		if !ok {
			break
		}
		if err := s.admissible(typ, length); err != nil {
			return n, s.refuse(in, n, err.Code, err.Message)
		}
		total := length + 1
		if typ == 'd' || total > maxHeld {
			s.closeRun(in, n)
		}
		switch {
		case typ == 'd':
			s.copyIn(length - 4)
			n += wire.HeaderLen
		case total > maxHeld:
			s.streamBlob(typ, total)
		case total > len(in)-n:
			return n, nil
		default:
			if err := s.fromClient(typ, in, n, n+total); err != nil {
				return n, err
			}
			n += total
		}
	}
	return n, nil
}

// refuse closes the run in front of an offence and records the offence.
func (s *Session) refuse(in []byte, at int, code, message string) error {
	s.closeRun(in, at)
	if in[at] == 'p' {
		return s.violate(code, message, in[at:at+1]) // a password follows
	}
	return s.violate(code, message, in[at:])
}

// admissible says whether a server would take a message with this header now.
func (s *Session) admissible(typ byte, length int) *Violation {
	if typ == 'p' && s.phase == phaseAuth {
		if length < 4 || length > wire.MaxAuth {
			return &Violation{Code: "08P01", Message: "invalid length of authentication message"}
		}
		return nil
	}
	limit, known := wire.FrontendLimit(typ)
	switch {
	case !known:
		return &Violation{Code: "08P01", Message: fmt.Sprintf("invalid frontend message type %d", typ)}
	case length < 4:
		return &Violation{Code: "08P01", Message: "invalid message length"}
	case length > limit:
		return &Violation{Code: "54000", Message: "message is longer than the server allows"}
	case typ == 'H' && length > 4: // the server would skip what follows, and nothing it says would tell
		return &Violation{Code: "08P01", Message: "invalid message format"}
	case s.phase == phaseAuth && s.login.asked && typ != 'X':
		return &Violation{Code: "08P01", Message: "expected an authentication response"}
	}
	return nil
}

// fromClient admits the whole message in[from:to].
func (s *Session) fromClient(typ byte, in []byte, from, to int) error {
	c, r := &s.client, &s.client.run
	body := in[from+wire.HeaderLen : to]
	if !r.takes(typ, body) {
		s.closeRun(in, from)
	}
	admits := typ == 'P' || typ == 'B' || typ == 'E' || typ == 'Q' || typ == 'F'
	switch {
	case typ == 'p':
		s.login.asked = false
		return s.saslBegun(body)
	case admits && r.kind == "":
		s.copyBroken()
		r.open(from, s.queue.len(), c.skip)
	}
	c.letter(typ)
	r.to = to
	switch {
	case admits:
		s.admit(typ, body)
	case typ == 'c', typ == 'f':
		s.copyInEnded(typ)
	case typ == 'X':
		s.phase = phaseClosing
	case typ == 'S':
		c.skip = false
		s.queue.push(expect{typ: 'S', index: -1, at: s.now})
		s.closeRun(in, to)
	case typ != 'H' && (r.kind != "" || !c.skip):
		s.queue.push(s.target(typ, body))
	}
	return nil
}

// letter notes a message; runs of d are noted once.
func (c *clientSide) letter(typ byte) { c.letters = event.AppendLetter(c.letters, typ) }

func (r *run) open(from, queued int, skip bool) {
	*r = run{kind: event.KindQuery, from: from, to: from, queued: queued, skip: skip, parse: -1, bind: -1}
}

// takes reports whether a message belongs to the open run: a Bind to the statement parsed right
// before it, an Execute to the portal bound before it, and what changes nothing by itself.
func (r *run) takes(typ byte, body []byte) bool {
	open := r.kind != "" && !r.executed
	switch typ {
	case 'B':
		_, rest, _ := wire.CString(body)
		stmt, _, ok := wire.CString(rest)
		return open && r.parsed != nil && r.bound == nil && ok && string(stmt) == r.stmt
	case 'E':
		portal, _, ok := wire.CString(body)
		return open && r.bound != nil && ok && string(portal) == r.portal
	case 'D', 'C':
		return r.kind != event.KindQuery && r.kind != event.KindFunctionCall
	}
	return typ == 'H' || typ == 'S'
}

// admit notes a message that makes or joins an admission. body may be only
// the beginning of a message that is streamed.
func (s *Session) admit(typ byte, body []byte) {
	r, n := &s.client.run, &s.names
	e := expect{typ: typ, index: -1, at: s.now}
	switch typ {
	case 'Q':
		r.kind = event.KindQuery
		n.stmts.known, n.portals.known = false, false
		var name []byte
		e.does, name = verb.Of(body)
		s.runs = s.runs || e.does.Runs
		if len(name) > 0 {
			s.named(&e, name)
		}
		r.whole(len(body) > 0 && body[len(body)-1] == 0, "unterminated text")
	case 'F':
		r.kind = event.KindFunctionCall
	case 'P':
		r.kind = event.KindParse
		name, text, ok := wire.CString(body)
		r.whole(ok, "unterminated name")
		s.parse(&e, name, text)
	case 'B':
		r.kind = event.KindBind
		portal, rest, _ := wire.CString(body)
		stmt, _, ok := wire.CString(rest)
		r.whole(ok, "unterminated name")
		s.bind(&e, portal, stmt, ok)
	case 'E':
		r.kind, r.executed = event.KindExecute, true
		portal, _, ok := wire.CString(body)
		r.whole(ok, "unterminated name")
		s.execute(&e, portal)
	}
	s.queue.push(e)
}

func (r *run) whole(ok bool, otherwise string) {
	if !ok {
		r.tell("malformed", otherwise)
	}
}

func (r *run) tell(key, val string) { r.facts = append(r.facts, event.Fact{Key: key, Val: val}) }

// parse gives a statement name its new meaning.
func (s *Session) parse(e *expect, name, text []byte) {
	n, r := &s.names.stmts, &s.client.run
	sql, rest, ok := wire.CString(text)
	st := named{parse: -1, bind: -1}
	st.does, _ = verb.Of(sql)
	s.runs = s.runs || st.does.Runs
	if len(name) == 0 {
		st.types = n.unnamed.types[:0]
	}
	if ok {
		st.types = appendTypes(st.types, rest)
	}
	r.parsed = n.give(e, name, st)
	r.stmt, r.types = e.name, st.types
}

// bind gives a portal name its new meaning.
func (s *Session) bind(e *expect, portal, stmt []byte, whole bool) {
	r := &s.client.run
	p := named{parse: -1, bind: -1, does: s.any()}
	if st := s.names.stmts.find(stmt); st == nil || !whole {
		r.tell("statement", "unknown")
	} else if p.does, e.seen = st.does, st.nth; r.parsed == nil { // else it is of this very run
		p.parse, r.parse, r.types = st.parse, st.parse, st.types
		r.named = st.parse >= 0 && !st.bySQL
		if len(stmt) > 0 {
			p.of, p.unsure = st, !s.refer(e, st, "statement")
		}
		if p.unsure {
			p.does = s.any()
		}
	}
	r.bound = s.names.portals.give(e, portal, p)
	r.portal = e.name
}

// execute notes what an Execute runs.
func (s *Session) execute(e *expect, portal []byte) {
	r := &s.client.run
	p := s.names.portals.find(portal)
	if p == nil {
		r.tell("portal", "unknown")
		e.does = s.any()
		return
	}
	if e.does, e.seen = p.does, p.nth; r.bound == nil { // else it is of this very run
		r.parse, r.bind = p.parse, p.bind
		s.refer(e, p, "portal")
	}
	if (r.bound != nil || len(portal) == 0) && !p.unsure { // p may be overwritten by another Bind
		e.of = p.of
	}
}

// appendTypes reads a list of types, as Parse and ParameterDescription end with.
func appendTypes(dst []uint32, b []byte) []uint32 {
	if len(b) < 2 {
		return dst
	}
	n := int(binary.BigEndian.Uint16(b))
	for b = b[2:]; n > 0 && len(b) >= 4 && len(dst) < maxTypes; n, b = n-1, b[4:] {
		dst = append(dst, binary.BigEndian.Uint32(b))
	}
	return dst
}

// maxTypes bounds the type OIDs kept of a statement; the frame has them all.
const maxTypes = 256

// target returns the expect of a Describe or Close, and what it is about.
func (s *Session) target(typ byte, body []byte) expect {
	e := expect{typ: typ, index: -1, at: s.now}
	if len(body) < 2 {
		return e
	}
	name, _, _ := wire.CString(body[1:])
	e.unnamed = len(name) == 0
	e.portal = body[0] == 'P'
	if len(name) > 0 && (typ == 'C' || !e.portal) {
		e.name = string(cut(name))
	}
	return e
}

// closeRun records the open run, whose frames lie in in and end before upto.
func (s *Session) closeRun(in []byte, upto int) {
	r := &s.client.run
	if r.kind == "" {
		return
	}
	frames := in[r.from:min(r.to, upto)]
	if r.kind == event.KindQuery || r.parsed != nil {
		var found bool
		if frames, found = s.redacted(frames, r.queued > 0); found {
			r.tellRedacted()
		}
	}
	if r.plain(frames) {
		frames = nil
	}
	s.admission(frames, nil)
}

// plain reports whether the leaf alone says what the frames of a run do: they
// bind the statement that a Parse named to the unnamed portal, without
// parameters, and execute it to the end, with all results in text.
func (r *run) plain(frames []byte) bool {
	if !r.named || r.portal != "" || !r.executed || len(r.facts) > 0 {
		return false
	}
	for len(frames) > 0 {
		typ, length, _ := wire.Header(frames)
		body := frames[wire.HeaderLen : 1+length]
		switch typ {
		case 'B':
			_, rest, _ := wire.CString(body)
			_, rest, _ = wire.CString(rest)
			if string(rest) != noFormats && string(rest) != textFormat {
				return false
			}
		case 'D':
			if string(body) != "P\x00" {
				return false
			}
		case 'E':
			if string(body) != "\x00\x00\x00\x00\x00" {
				return false
			}
		case 'H', 'S':
			if len(body) > 0 {
				return false
			}
		default:
			return false
		}
		frames = frames[1+length:]
	}
	return true
}

// What follows the names in a Bind without parameters: how many formats of
// parameters, parameters, and formats of results; and the one of these.
const noFormats, textFormat = "\x00\x00\x00\x00\x00\x00", "\x00\x00\x00\x00\x00\x01\x00\x00"

// admission emits the entry of the open run, with a value or a synced blob, and
// tells everything that refers to it.
func (s *Session) admission(value []byte, b Blob) {
	c, r := &s.client, &s.client.run
	l := s.entry(r.kind)
	r.facts = s.settings.foreign(r.facts)
	l.Who, l.Msgs, l.Facts = &s.who, c.letters, r.facts
	if r.kind != event.KindParse { // whose frame says it
		l.Types = r.types
	}
	l.Parse, l.Bind = event.Ref(r.parse), event.Ref(r.bind)
	if l.HasValue, l.Size = value != nil, int64(len(value)); b != nil {
		l.HasValue, l.Size = true, c.stream.total
	}
	index := s.record(value, b)
	if c.letters = c.letters[:0]; cap(c.letters) > 128 {
		c.letters = nil
	}
	for i := r.queued; i < s.queue.len(); i++ {
		if e := s.queue.at(i); e.typ != 'S' {
			e.index, e.last, e.redacted = index, false, r.redacted
		}
	}
	for i := s.queue.len() - 1; i >= r.queued; i-- {
		if e := s.queue.at(i); e.typ != 'S' {
			e.last = true
			break
		}
	}
	if r.parsed != nil {
		r.parsed.parse = index
	}
	if r.bound != nil {
		if r.bound.bind = index; r.parsed != nil {
			r.bound.parse = index
		}
	}
	s.work.newest = index
	r.kind = ""
	if r.skip {
		s.skipFrom(r.queued)
	}
}
