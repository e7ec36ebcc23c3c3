package session

import (
	"bytes"
	"fmt"
	"math"

	"github.com/pgnotary/pgnotary/internal/content"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/wire"
)

// maxControl is how much of a backend message is looked at, in bytes; what is
// longer (an error message, say) is passed on in pieces and kept cut.
const maxControl = 64 << 10

// serverSide is what is kept of the server's stream between two reads.
type serverSide struct {
	held    []byte // a partial message, nothing of it released
	given   int
	skip    int    // bytes of a message that pass without being looked at
	body    byte   // the message whose those bytes are, if they are content: d, D or T
	letters []byte // of messages since the last outcome
}

// takeLetters returns the letters and begins anew; they stay valid until the
// next message.
func (v *serverSide) takeLetters() []byte {
	l := v.letters
	v.letters = v.letters[:0]
	return l
}

// FromServer takes bytes the server sent and returns those to send to the
// client, as FromClient does for the other direction.
func (s *Session) FromServer(now int64, p []byte) (fwd []byte, err error) {
	s.now = now
	v := &s.server
	if s.phase == phaseDead {
		return nil, nil
	}
	s.release() // what came from the client has been sent on by now
	in := p
	if len(v.held) > 0 {
		v.held = append(v.held[:copy(v.held, v.held[v.given:])], p...)
		v.given = 0
		in = v.held
	}
	var put injection
	n, err := s.walkServer(in, &put)
	if s.flush(); s.err != nil {
		n, err = 0, s.err
	}
	switch {
	case len(v.held) > 0 && n == len(in):
		v.held = nil
	case len(v.held) > 0:
		v.given = n
	case n < len(in):
		v.held, v.given = append([]byte(nil), in[n:]...), 0
	}
	return put.into(in[:n]), err
}

// An injection puts a message of ours in the place of some of the server's.
type injection struct {
	at, drop int
	message  []byte
}

func (i *injection) into(b []byte) []byte {
	if i.message == nil || i.at > len(b) {
		return b
	}
	out := append([]byte(nil), b[:i.at]...)
	out = append(out, i.message...)
	return append(out, b[min(len(b), i.at+i.drop):]...)
}

// walkServer goes through the messages in and returns how many bytes may pass.
func (s *Session) walkServer(in []byte, put *injection) (n int, err error) {
	v := &s.server
	for n < len(in) && s.err == nil {
		if v.skip > 0 {
			m := min(v.skip, len(in)-n)
			s.passed(in[n : n+m])
			v.skip -= m
			n += m
			continue
		}
		typ, length, ok := wire.Header(in[n:])
		if !ok {
			return n, nil
		}
		if typ == 'E' && !s.login.done && (length < 8 || length > maxControl) {
			s.oldError(in[n:])
			return len(in), nil
		}
		if length < 4 {
			return n, s.violate("08P01", "the server sent a message with an invalid length", in[n:])
		}
		total := length + 1
		looked := total // bytes that are looked at
		switch typ {
		case 'D', 'd', 'T':
			looked = wire.HeaderLen
		default:
			looked = min(looked, maxControl)
		}
		if looked > len(in)-n {
			return n, nil
		}
		v.letters = event.AppendLetter(v.letters, typ)
		if s.login.negotiate {
			s.putNegotiation(typ, in[n:n+looked], n, put)
		}
		v.body = 0
		if err := s.fromServer(typ, total, in[n:n+looked]); err != nil {
			v.letters = v.letters[:max(0, len(v.letters)-1)] // it does not pass
			return n, err
		}
		n += looked
		v.skip = total - looked
	}
	return n, nil
}

// passed takes bytes that pass without being looked at, of a message that may
// have content.
func (s *Session) passed(b []byte) {
	switch s.server.body {
	case 'd':
		s.copy.out.Add(b)
		of := s.queue.index(s.work.newest)
		if c := &s.copy; c.mode == 'W' && (c.out.Bytes+c.in.Bytes >= maxUntold || s.now-c.told >= untoldTime) {
			s.replicated(of)
		} else {
			s.kept(&s.copy.out, event.KindCopy, "out", of, content.MaxChunk)
		}
	case 'D', 'T':
		s.returned(b, false)
	}
}

// oldError follows an error in the form of protocol 2.0: the letter, a text, a
// NUL. A postmaster that cannot fork still answers so. All that follows passes.
func (s *Session) oldError(b []byte) {
	s.server.letters = event.AppendLetter(s.server.letters, 'E')
	s.server.skip = math.MaxInt
	text, _, _ := wire.CString(b[1:])
	if len(text) > 4*maxFact {
		text = text[:4*maxFact]
	}
	s.work.cur.facts = append(s.work.cur.facts[:0], event.Fact{Key: "message", Val: string(bytes.TrimSpace(text))})
	s.loginEnded("failed", nil, nil)
}

// putNegotiation has the client told, before or in place of the server's
// first message, what of its wishes will not come true.
func (s *Session) putNegotiation(typ byte, frame []byte, at int, put *injection) {
	if typ == 'v' {
		*put = injection{at, len(frame), s.negotiated(frame[wire.HeaderLen:])}
	} else if typ == 'R' {
		*put = injection{at, 0, s.negotiated(nil)}
	}
}

// fromServer follows one backend message of total bytes, of which frame is the
// beginning that is looked at.
func (s *Session) fromServer(typ byte, total int, frame []byte) error {
	body := frame[wire.HeaderLen:]
	switch typ {
	case 'N', 'A':
		s.noticed(frame)
		return nil
	case 'S':
		s.parameterChanged(body)
		return nil
	case 'K':
		if s.login.key == nil {
			s.login.key = append([]byte(nil), body...)
		}
		return nil
	case 'R':
		if !s.login.accepted {
			s.authentication(body)
			return nil
		}
	case 'v':
		if !s.login.done && total <= maxControl {
			return nil
		}
	case 'E':
		s.failed(frame)
		return nil
	case 'Z':
		if len(body) == 1 && (body[0] == 'I' || body[0] == 'T' || body[0] == 'E') {
			return s.readyForQuery(body[0], frame)
		}
	case '1', '2', '3', 't', 'T', 'n', 'D', 'C', 'I', 's', 'G', 'H', 'W', 'd', 'c', 'V':
		if s.answered(typ, total, frame) {
			return nil
		}
		return s.violate("08P01", fmt.Sprintf("unexpected message of type %q from the server", typ), frame)
	}
	return s.violate("08P01", fmt.Sprintf("invalid message of type %d from the server", typ), frame)
}

// noticed records a notice or a notification.
func (s *Session) noticed(frame []byte) {
	s.flush()
	l := s.entry(event.KindNotice)
	l.Who, l.Msgs = &s.who, s.server.takeLetters()
	if frame[0] == 'N' {
		_, state := wire.ErrorFields(frame[wire.HeaderLen:])
		l.SQLState = string(state)
	}
	l.Of = event.Ref(s.queue.index(-1))
	l.Facts = s.settings.foreign(l.Facts)
	s.emit(frame)
}

// parameterChanged keeps what a later reader needs to understand texts.
func (s *Session) parameterChanged(body []byte) {
	name, rest, ok := wire.CString(body)
	if !ok {
		return
	}
	if !s.login.done {
		switch string(name) {
		case "client_encoding", "standard_conforming_strings", "session_authorization", "is_superuser", "server_version":
		default:
			return // of the many settings told at start-up
		}
	}
	val, _, _ := wire.CString(rest)
	val = val[:min(len(val), maxFact)]
	s.settings.learn(string(name), string(val))
	if len(s.work.cur.facts) >= maxFacts {
		return
	}
	s.work.cur.facts = append(s.work.cur.facts, event.Fact{Key: string(name), Val: string(val)})
}
