package query

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
)

// A Session is what the entries of a stretch of the log tell about one
// session. Counts are of that stretch.
type Session struct {
	ID          SessionID `json:"session"`
	User        string    `json:"user,omitempty"`
	Database    string    `json:"database,omitempty"`
	Application string    `json:"application,omitempty"`
	Client      string    `json:"client,omitempty"`
	First       int64     `json:"first"` // index of its first entry
	Last        int64     `json:"last"`
	Begin       time.Time `json:"begin"` // of those entries
	End         time.Time `json:"end"`
	Connected   bool      `json:"connected"` // its connect is among them
	Open        bool      `json:"open"`      // neither its disconnect nor a new start of the proxy is
	Statements  int64     `json:"statements"`
	Errors      int64     `json:"errors"`      // statements that failed
	RolledBack  int64     `json:"rolled_back"` // times work was undone
	Rows        int64     `json:"rows"`        // sent to the client
}

// A SessionID is written as 16 hexadecimal digits.
type SessionID uint64

// MarshalText implements encoding.TextMarshaler.
func (id SessionID) MarshalText() ([]byte, error) { return event.AppendSession(nil, uint64(id)), nil }

// MaxSessions is the most that Sessions returns: the latest.
const MaxSessions = 10_000

// Sessions returns the sessions that entries from since on speak of, in the
// order of their first one, and of those the last limit (0 for MaxSessions).
// It reads leaves only: those from where times say that it is to begin or, with all, every one.
func (l *Log) Sessions(ctx context.Context, since time.Time, limit int, all bool) ([]Session, error) {
	size, err := l.Size()
	if err != nil {
		return nil, err
	}
	from := l.First()
	var begin []byte // as in leaves
	if !since.IsZero() {
		begin = event.AppendTime(nil, since.UnixNano())
	}
	if !since.IsZero() && !all {
		if from, err = l.seek(since); err != nil {
			return nil, err
		}
	}
	byID := make(map[uint64]*Session)
	for e, err := range l.Entries(from, size) {
		if err != nil {
			return nil, err
		}
		if e.Index%4096 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var v view
		if err := v.scan(e.Leaf); err != nil {
			return nil, fmt.Errorf("read entry %d: %w", e.Index, err)
		}
		if v.kind == event.KindStart {
			for _, s := range byID {
				s.Open = false
			}
		}
		if v.session == 0 || bytes.Compare(v.time, begin) < 0 {
			continue
		}
		s := byID[v.session]
		if s == nil {
			if len(byID) >= 2*MaxSessions {
				forgetOldest(byID)
			}
			s = &Session{ID: SessionID(v.session), First: e.Index, Open: true}
			byID[v.session] = s
		}
		if err := s.add(e.Index, &v); err != nil {
			return nil, fmt.Errorf("read entry %d: %w", e.Index, err)
		}
	}
	sessions := inOrder(byID)
	if limit <= 0 || limit > MaxSessions {
		limit = MaxSessions
	}
	return sessions[max(0, len(sessions)-limit):], nil
}

func inOrder(byID map[uint64]*Session) []Session {
	all := make([]Session, 0, len(byID))
	for _, s := range byID {
		all = append(all, *s)
	}
	slices.SortFunc(all, func(a, b Session) int { return cmp.Compare(a.First, b.First) })
	return all
}

// forgetOldest keeps the memory for a log of many sessions small: the older
// half goes.
func forgetOldest(byID map[uint64]*Session) {
	all := inOrder(byID)
	for i := range all[:len(all)/2] {
		delete(byID, uint64(all[i].ID))
	}
}

// add counts an entry of the session.
func (s *Session) add(index int64, v *view) error {
	at, err := v.unixNano()
	if err != nil {
		return err
	}
	s.Last, s.End = index, time.Unix(0, at).UTC()
	if s.Begin.IsZero() {
		s.Begin = s.End
	}
	if s.User == "" && v.user != nil {
		s.User, s.Database = unescape(v.user), unescape(v.db)
		s.Application, s.Client = unescape(v.app), unescape(v.client)
	} else if s.Client == "" {
		s.Client = unescape(v.client)
	}
	switch v.kind {
	case event.KindConnect:
		s.Connected = true
	case event.KindDisconnect:
		s.Open = false
	case event.KindQuery, event.KindExecute, event.KindFunctionCall:
		s.Statements++
	case event.KindOutcome:
		s.Rows += v.rows
		if v.sqlstate != nil {
			s.Errors++
		}
	}
	if v.committed < 0 {
		s.RolledBack++
	}
	return nil
}
