package relay

import (
	"crypto/rand"
	"encoding/binary"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/session"
)

// A pair is the Log of its session. Its entries are encoded into its loop's
// buffer, so they allocate nothing.

// Emit implements session.Log.
func (p *pair) Emit(l *event.Leaf, value []byte) (int64, error) {
	p.relay.metrics.entry(l.Kind)
	return p.relay.rec.Append(p.encode(l), value)
}

// NewBlob implements session.Log.
func (p *pair) NewBlob() (session.Blob, error) { return p.relay.rec.NewBlob() }

// EmitBlob implements session.Log.
func (p *pair) EmitBlob(l *event.Leaf, b session.Blob) (int64, error) {
	p.relay.metrics.entry(l.Kind)
	return p.relay.rec.AppendBlob(p.encode(l), b)
}

// encode gives the entry the time of day. In a session that never goes back, so one that was there before a clock was set back keeps to the old.
func (p *pair) encode(l *event.Leaf) []byte {
	p.shift = max(p.shift, p.relay.clock.Shift(l.Time))
	l.Time += p.shift
	if p.loop == nil { // not yet in a loop
		return l.Append(nil)
	}
	p.loop.leaf = l.Append(p.loop.leaf[:0])
	return p.loop.leaf
}

func (m *Metrics) entry(k event.Kind) {
	m.Entries.Add(1)
	switch k {
	case event.KindQuery, event.KindExecute, event.KindFunctionCall:
		m.Statements.Add(1)
	}
}

// newID returns a random session id, not zero.
func newID() uint64 {
	for {
		var b [8]byte
		rand.Read(b[:]) // never fails
		if id := binary.BigEndian.Uint64(b[:]); id != 0 {
			return id
		}
	}
}

func sessionID(id uint64) string { return string(event.AppendSession(nil, id)) }

// fatalOf is what the client is told about a violation.
func fatalOf(v *session.Violation) []byte {
	return fatal(v.Code, strings.TrimPrefix(v.Message, "pgnotary: "), v.Hint)
}

// refused counts and tells that a session ends for v, and says why in the words of its disconnect entry.
func (r *Relay) refused(v *session.Violation, id uint64, client string, fromClient bool) (why string) {
	why, said := "violation", "protocol violation"
	if v.OfLogin() {
		why, said = "login_refused", "login refused"
		r.metrics.Refused[RefusedLogin].Add(1)
	} else {
		r.metrics.Violations.Add(1)
	}
	r.log.Warn(said, "session_id", sessionID(id), "client", client, "from_client", fromClient, "reason", v.Message) //nolint:sloglint // one of two
	return why
}

// recordViolation appends an entry about a refusal. id is zero where no
// session came to be. at is up to 64 bytes at the place of the offence, nil
// for none; suppressed is how many such entries were left out before.
func (r *Relay) recordViolation(id uint64, client, reason, code string, at []byte, suppressed int64) {
	now := r.now()
	l := event.Leaf{
		Time: now + r.clock.Shift(now), Kind: event.KindViolation, Who: &event.Who{Client: client},
		SQLState: code, Facts: []event.Fact{{Key: "reason", Val: reason}},
	}
	if id != 0 {
		l.Facts = append(l.Facts, event.Fact{Key: "session", Val: sessionID(id)})
	}
	if suppressed > 0 {
		l.Facts = append(l.Facts, event.Fact{Key: "suppressed", Val: strconv.FormatInt(suppressed, 10)})
	}
	if len(at) > 0 {
		at = at[:min(len(at), 64)]
		l.HasValue, l.Size = true, int64(len(at))
	} else {
		at = nil
	}
	r.metrics.entry(l.Kind)
	if _, err := r.rec.Append(l.Append(nil), at); err != nil {
		r.fail(err)
	}
}

// A limiter bounds entries that anybody can cause, so that the log cannot be
// flooded; what it suppressed is told with the next entry.
type limiter struct {
	perSecond int

	mu         sync.Mutex
	second     int64
	n          int
	suppressed int64
}

// allow reports whether an entry may be made now, and how many were not since
// the last one.
func (l *limiter) allow(now int64) (suppressed int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := now / int64(time.Second); s != l.second {
		l.second, l.n = s, 0
	}
	if l.n >= l.perSecond {
		l.suppressed++
		return 0, false
	}
	l.n++
	suppressed, l.suppressed = l.suppressed, 0
	return suppressed, true
}

// waitDurable waits until the entry is durable; only the rare cancel request
// does this, so it just looks again and again. It reports false if recording failed.
func (r *Relay) waitDurable(index int64) bool {
	r.rec.Want(index)
	for r.durable.Load() <= index {
		if r.failed.Load() != nil {
			return false
		}
		time.Sleep(200 * time.Microsecond)
	}
	return r.failed.Load() == nil
}
