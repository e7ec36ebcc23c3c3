package relay

import (
	"io"
	"net"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/wire"
)

// cancelTime bounds a cancel request as a whole.
const cancelTime = 10 * time.Second

// A cancelTarget is a session that can be cancelled, in Relay.cancels by the body of its BackendKeyData.
type cancelTarget struct {
	session uint64
	connect int64 // index of its connect entry
}

// cancel serves a CancelRequest: it is recorded, forwarded on a connection of
// its own, and the client's connection is closed only after the server has
// closed that one, so that the cancel cannot hit a later statement. A
// key that names no session is never forwarded, and answered like any other:
// with nothing.
func (r *Relay) cancel(s *starter, packet []byte) {
	now := r.now()
	leaf := event.Leaf{Time: now + r.clock.Shift(now), Kind: event.KindCancel, Who: &event.Who{Client: s.client}}
	found, known := r.cancels.Load(string(wire.CancelKey(packet)))
	if !known {
		r.metrics.CancelsUnknown.Add(1)
		suppressed, ok := r.limits.cancel.allow(now)
		if ok {
			r.recordViolation(0, s.client, "cancel request for no known session", "", nil, suppressed)
		}
		return
	}
	to := found.(cancelTarget)
	leaf.Of = event.Ref(to.connect)
	leaf.Facts = []event.Fact{{Key: "victim", Val: sessionID(to.session)}}
	r.metrics.entry(leaf.Kind)
	index, err := r.rec.Append(leaf.Append(nil), nil)
	if err != nil {
		r.fail(err)
		return
	}
	if r.cfg.Mode != Async && !r.waitDurable(index) {
		return
	}
	up, err := r.dial()
	if err != nil {
		r.log.Warn("cancel request not forwarded", "client", s.client, "error", err)
		return
	}
	defer up.conn.Close()
	s.alsoClose(up.conn)
	r.metrics.Cancels.Add(1)
	up.conn.SetDeadline(time.Now().Add(cancelTime))
	var rw net.Conn = up.conn
	if up.tls != nil {
		rw = up.tls
	}
	if _, err := rw.Write(packet); err != nil {
		r.log.Warn("cancel request not forwarded", "client", s.client, "error", err)
		return
	}
	_, _ = io.Copy(io.Discard, rw) // until the server closes
}
