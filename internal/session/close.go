package session

import "github.com/pgnotary/pgnotary/internal/event"

// Close ends the session's record: outcomes for what is outstanding and the
// disconnect entry. Only the first call does something.
func (s *Session) Close(now int64, reason string) error {
	if s.over {
		return nil
	}
	s.over = true
	s.now = max(s.now, now)
	s.phase = phaseDead
	if l := s.client.stream.large; l != nil && l.blob != nil {
		l.blob.Abort()
		s.client.stream.large = nil
	}
	if !s.login.done && s.login.begun {
		s.loginEnded("unfinished", nil, nil)
	}
	s.copyBroken()
	of := s.work.newest
	if e := s.queue.first(); e != nil && e.index >= 0 {
		of = e.index
	}
	s.copyOutEnded(of)
	w := &s.work
	w.splitOff()
	if s.queue.len() == 0 && w.Open() { // the server undoes what was not committed
		s.ended(&expect{index: -1}, "", nil, nil)
		w.end(w.used-1, -1)
	}
	for told := int64(-1); s.queue.len() > 0; {
		e := s.queue.pop()
		if e.index < 0 || e.index == told {
			continue
		}
		told = e.index
		s.ended(&e, event.EndUnknown, nil, nil)
		s.flush()
	}
	if len(s.server.letters) > 0 {
		s.ended(&expect{index: -1}, "", nil, nil)
	}
	s.flush()
	l := s.entry(event.KindDisconnect)
	l.Who, l.Msgs = &s.who, s.client.letters
	l.Facts = []event.Fact{{Key: "reason", Val: reason}}
	s.emit(nil)
	return s.err
}
