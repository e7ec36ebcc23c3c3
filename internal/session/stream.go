package session

import (
	"github.com/pgnotary/pgnotary/internal/content"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/wire"
)

// maxHead is how much of a streamed message is looked at for names.
const maxHead = 4 << 10

// A stream is a frontend message that passes without being held: CopyData, or
// a message too large for memory on its way into a blob.
type stream struct {
	left   int // bytes of the message that did not come yet
	*large     // nil for CopyData
	// done: all is in the blob but the blob not durable. The message's last
	// byte is held until it is, and its entry emitted; a server runs nothing
	// before that byte.
	done bool
}

// A large is a message on its way into a blob.
type large struct {
	total int64 // its length, header included
	typ   byte
	blob  Blob
	head  []byte // its first bytes
	text  []byte // all that came, if passwords are to be looked for before any of it is written

	redacted bool // a password was replaced in the blob
}

// streamBlob begins to stream a large message.
func (s *Session) streamBlob(typ byte, total int) {
	b, err := s.cfg.Log.NewBlob()
	if err != nil {
		s.fail(err)
		return
	}
	s.client.stream = stream{left: total, large: &large{total: int64(total), typ: typ, blob: b}}
}

// streamOn takes more of the streamed message and returns how much may pass.
func (s *Session) streamOn(in []byte) (n int) {
	st := &s.client.stream
	if st.done {
		return s.streamed()
	}
	n = min(st.left, len(in))
	st.left -= n
	if st.large == nil {
		s.copy.in.Add(in[:n])
		s.kept(&s.copy.in, event.KindCopy, "in", s.work.newest, content.MaxChunk)
		return n
	}
	st.head = append(st.head, in[:min(n, maxHead-len(st.head))]...)
	value := in[:n]
	if (st.typ == 'Q' || st.typ == 'P') && st.total <= maxRedacted {
		st.text, value = append(st.text, value...), nil
		if st.left == 0 {
			value, st.redacted = s.redacted(st.text, s.queue.len() > 0)
			st.total, st.text = int64(len(value)), nil
		}
	}
	if _, err := st.blob.Write(value); err != nil {
		s.fail(err)
	}
	if st.left == 0 {
		st.done = true
		return n - 1
	}
	return n
}

// streamed emits the entry of a streamed message whose blob is durable, and
// lets its last byte go.
func (s *Session) streamed() (n int) {
	c, st := &s.client, &s.client.stream
	s.copyBroken()
	b := st.blob
	st.blob, st.done = nil, false // it is not ours to abort any more
	c.run.open(0, s.queue.len(), c.skip)
	c.letter(st.typ)
	s.admit(st.typ, st.head[wire.HeaderLen:])
	s.unread(s.queue.at(s.queue.len() - 1))
	if st.redacted {
		c.run.tellRedacted()
	}
	s.admission(nil, b)
	st.large = nil
	return 1
}

// unread takes back what admit made of a text of which it saw only the head.
func (s *Session) unread(e *expect) {
	s.runs = s.runs || e.typ != 'B'
	e.does = s.any()
	switch {
	case e.typ == 'Q':
		r := &s.client.run
		e.name, r.parse, r.bind, r.facts = "", -1, -1, r.facts[:0]
	case e.typ == 'P':
		s.client.run.parsed.does = e.does
	}
}

// Blob returns the value that the relay must Sync before it calls
// FromClient(now, nil), and nothing else of FromClient; nil if there is none.
func (s *Session) Blob() Blob {
	if !s.client.stream.done {
		return nil
	}
	return s.client.stream.blob
}

// copyState is what is known of the COPY going on.
type copyState struct {
	mode byte  // 'G' in, 'H' out, 'W' both, 0 none
	told int64 // time of the newest entry about a stream without an end
	in   content.Flow
	out  content.Flow
}

// copyMode is how much is kept of the COPY going on: of a stream without an
// end only how much it was.
func (s *Session) copyMode() content.Mode {
	if s.copy.mode == 'W' {
		return content.Count
	}
	return s.copies
}

// copyIn begins a CopyData message of the client with n bytes of content.
func (s *Session) copyIn(n int) {
	s.client.letter('d')
	f := &s.copy.in
	f.Begin(s.copyMode())
	f.Rows++
	s.client.stream = stream{left: n}
}

// copyInEnded records the content of a COPY before its CopyDone or CopyFail
// passes: until then the server has made nothing of it.
func (s *Session) copyInEnded(typ byte) {
	if s.copy.mode == 'W' {
		return // replication: the entry comes at the end of both directions
	}
	index := s.copied(&s.copy.in, "in", s.work.newest, event.KindCopy, s.client.letters, typ == 'f')
	s.client.letters = s.client.letters[:0]
	e := expect{typ: 'c', index: index, at: s.now}
	if s.client.skip || s.queue.len() == 0 { // it was sent after an error, or to no COPY
		s.dropped(&e, event.EndDiscarded)
		s.flush()
		return
	}
	s.queue.push(e)
}

// copyBroken records COPY data that was sent but never ended: another message
// came, or the session ends. The server makes nothing of such data.
func (s *Session) copyBroken() {
	if s.copy.in.Rows > 0 {
		s.copyInEnded(0)
	}
}

// copied emits the entry about what a COPY carried.
func (s *Session) copied(f *content.Flow, direction string, of int64, kind event.Kind, letters []byte, failed bool) int64 {
	f.Begin(s.copyMode())
	s.kept(f, kind, direction, of, 1)
	l := s.entry(kind)
	l.Who, l.Msgs, l.Of = &s.who, letters, event.Ref(of)
	l.Rows, l.Bytes = f.Rows, f.Bytes
	l.Facts = append(l.Facts, event.Fact{Key: "direction", Val: direction})
	if failed {
		l.Facts = append(l.Facts, event.Fact{Key: "client", Val: "CopyFail"})
	}
	digest := f.Sum()
	*f = content.Flow{}
	return s.emit(digest)
}

// kept emits what a flow has kept, if that is at least n bytes, as an entry of
// its own.
func (s *Session) kept(f *content.Flow, kind event.Kind, direction string, of int64, n int) {
	chunk := f.Chunk(n)
	if len(chunk) == 0 {
		return
	}
	s.flush()
	l := s.entry(kind)
	l.Who, l.Of = &s.who, event.Ref(of)
	if direction != "" {
		l.Facts = append(l.Facts, event.Fact{Key: "direction", Val: direction})
	}
	l.Facts = append(l.Facts, event.Fact{Key: "content", Val: "full"})
	l.Facts = s.settings.foreign(l.Facts)
	s.emit(chunk)
}

// returned takes a part of a DataRow, or of the RowDescription in front of some.
func (s *Session) returned(b []byte, first bool) {
	n := 4 * content.MaxChunk // of one row
	if first {
		if n = content.MaxChunk; s.rows == nil {
			s.rows = new(content.Flow)
			s.rows.Begin(s.results)
		}
	}
	s.kept(s.rows, event.KindResult, "", s.queue.index(-1), n)
	s.rows.Add(b)
}

// resultEnded records the rows of the statement of, in full or their digest.
func (s *Session) resultEnded(of int64) {
	f := s.rows
	if f == nil {
		return
	}
	s.rows = nil
	if f.Keeps() {
		s.kept(f, event.KindResult, "", of, 1)
		return
	}
	s.flush()
	l := s.entry(event.KindResult)
	l.Who, l.Of, l.Rows, l.Bytes = &s.who, event.Ref(of), s.work.cur.rows, f.Bytes
	l.Facts = append(l.Facts, event.Fact{Key: "content", Val: "sha256"})
	s.emit(f.Sum())
}
