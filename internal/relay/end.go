package relay

import (
	"errors"
	"fmt"
	"runtime/debug"
	"syscall"

	"github.com/pgnotary/pgnotary/internal/session"
)

// How a pair ends. What happens in which case is told at type pair.

// endOfStream notes that a leg sends nothing more: an orderly end, or an error.
func (p *pair) endOfStream(g *leg, err error) {
	g.eof = true
	if g == &p.server {
		p.serverGone(isEnd(err))
		return
	}
	if !isEnd(err) {
		p.breakLeg(g)
	} else if p.server.shut == shutNo {
		p.server.shut = shutWanted
	}
}

// serverGone ends the session: what the server sent still goes to the client.
func (p *pair) serverGone(orderly bool) {
	why := "server_eof"
	switch {
	case !orderly:
		why = "server_reset"
	case p.sess.Done():
		why = "terminate"
	case p.client.broken:
		why = "client_reset"
	case p.client.eof:
		why = "client_eof"
	}
	p.closeSession(why)
	p.closeLeg(&p.server)
	p.farewell()
}

// farewell makes the client's leg end once it got everything.
func (p *pair) farewell() {
	c := &p.client
	if c.shut == shutNo {
		c.shut = shutWanted
	}
	c.drop = true
	p.setDeadline(p.loop.now + int64(flushTime))
}

// breakLeg notes that nothing can be sent to a leg any more.
func (p *pair) breakLeg(g *leg) {
	if g.broken || g.closed {
		return
	}
	g.broken = true
	p.dropPending(g)
	if g == &p.server {
		return // what it sent before is still to be read
	}
	// The outcome of what runs is worth a short wait.
	g.eof = true
	if p.server.shut == shutNo {
		p.server.shut = shutWanted
	}
	if g.shut == shutNo {
		p.setDeadline(p.loop.now + int64(drainTime))
	} else {
		g.shut = shutDone
	}
}

func (p *pair) halfClose(g *leg) {
	g.shut = shutDone
	if g.broken || g.closed {
		return
	}
	if g.tls != nil {
		g.tls.CloseWrite() // a failure shows at the socket
		p.sendRecords(g)
		p.flush(g)
		g.out = p.loop.queues.put(g.out) // no room for an alert: FIN says enough
	}
	_ = syscall.Shutdown(g.fd, syscall.SHUT_WR) // it may be gone
}

// expired ends a pair whose time is up.
func (p *pair) expired() {
	switch {
	case p.over || p.client.broken:
		p.closeSession("client_reset")
		p.closeLeg(&p.server)
		p.closeLeg(&p.client)
	case !p.loggedIn:
		p.relay.metrics.Refused[RefusedTimeout].Add(1)
		p.sever("login_timeout", fatal("57014", fmt.Sprintf("login took longer than %v", p.relay.cfg.LoginTimeout), ""))
	}
}

// turnedAway ends a login to make room for another one.
func (p *pair) turnedAway() {
	if p.loggedIn || p.over {
		return
	}
	p.relay.metrics.Refused[RefusedLimit].Add(1)
	p.sever("too_many_logins", fatal("53300", tooMany, tooManyHint))
	p.closeLeg(&p.client) // at once: there may be many, and it was to send something, so hardly has
}

// isViolation says what an error of the session means. If it is not a peer's
// fault, recording failed, and the pair ends here: nothing is forwarded.
func (p *pair) isViolation(err error) bool {
	var v *session.Violation
	if errors.As(err, &v) {
		return true
	}
	p.relay.fail(err)
	p.recordingFailed()
	return false
}

// violated ends the pair because a peer broke the protocol. fromClient says
// which.
func (p *pair) violated(err error, fromClient bool) {
	var v *session.Violation
	errors.As(err, &v)
	why := p.relay.refused(v, p.id, p.addr, fromClient)
	if p.sess.Boundary() {
		p.push(&p.client, fatalOf(v), p.gate(BeforeReply), true)
	}
	p.closeSession(why)
	if fromClient {
		p.severed = true // what came before the offence still runs
		p.server.drop = true
		if p.server.shut == shutNo {
			p.server.shut = shutWanted
		}
	} else {
		p.closeLeg(&p.server)
	}
	p.farewell()
}

// sever ends the pair at once with a last message for the client.
func (p *pair) sever(why string, last []byte) {
	if p.over {
		return
	}
	if p.sess.Boundary() {
		p.push(&p.client, last, -1, true)
	}
	p.closeSession(why)
	p.closeLeg(&p.server)
	p.farewell()
}

// recordingFailed ends the pair: what was held is never sent.
func (p *pair) recordingFailed() {
	if p.gone {
		return
	}
	c := &p.client
	p.dropPending(&p.server)
	p.closeLeg(&p.server)
	c.held = p.loop.queues.put(c.held)
	if c.whole {
		p.push(c, recordingFailed(*p.relay.failed.Load()), -1, true)
	}
	p.closeSession("recording_failed")
	p.farewell()
	p.setDeadline(p.loop.now + int64(drainTime))
}

// endIfIdle ends a session that does nothing, or has not logged in, because
// the proxy ends.
func (p *pair) endIfIdle() {
	if p.over {
		return
	}
	if !p.loggedIn || p.server.held == nil && p.sess.Idle() {
		p.end()
	}
}

// end ends a session because the proxy ends.
func (p *pair) end() {
	if p.over {
		p.setDeadline(min(p.deadline, p.loop.now+int64(drainTime)))
		return
	}
	p.sever("shutdown", fatal("57P01", "terminating connection: pgnotary is shutting down", ""))
	p.setDeadline(p.loop.now + int64(drainTime))
}

// closeSession ends the session's record, now or when its blob is synced.
func (p *pair) closeSession(why string) {
	p.over = true
	if p.blob != nil {
		if p.endWhy == "" {
			p.endWhy = why
		}
		return
	}
	if err := p.sess.Close(p.loop.now, why); err != nil {
		p.relay.fail(err)
	}
}

// closeLeg closes a socket. What it does not take of what is on its way to it is lost.
func (p *pair) closeLeg(g *leg) {
	if g.closed {
		return
	}
	if g.due {
		p.flush(g)
	}
	p.dropPending(g)
	g.closed, g.watched, g.mask = true, false, 0
	syscall.Close(g.fd) // which also ends the kernel's watch
}

// dropPending throws away what is on its way to a leg.
func (p *pair) dropPending(g *leg) {
	g.held, g.out, g.due = p.loop.queues.put(g.held), p.loop.queues.put(g.out), false
}

// finish forgets the pair. Both legs are closed.
func (p *pair) finish() {
	p.closeSession("client_reset") // nothing, if it was closed before
	p.forget()
}

func (p *pair) forget() {
	p.gone = true
	if p.key != "" {
		p.relay.cancels.CompareAndDelete(p.key, cancelTarget{p.id, p.connect}) // a newer session may have the same key
	}
	p.relay.metrics.SessionsOpen.Add(-1)
	if !p.loggedIn {
		p.relay.crowd.Leave(p.entrant)
	}
	p.loop.forget(p)
}

// guarded calls f and settles; a panic in there ends this pair only.
func (p *pair) guarded(f func(*pair)) {
	defer p.recover()
	f(p)
	p.settle()
}

// recover is deferred around everything that is done for a pair.
func (p *pair) recover() {
	v := recover()
	if v == nil {
		return
	}
	r := p.relay
	r.metrics.Panics.Add(1)
	r.log.Error("internal error, session ended", "session_id", sessionID(p.id), "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	r.recordViolation(p.id, p.addr, "internal error", "XX000", nil, 0)
	func() {
		defer func() {
			if v := recover(); v != nil {
				r.log.Error("internal error while ending a session", "session_id", sessionID(p.id), "panic", fmt.Sprint(v))
			}
		}()
		p.over = true
		if p.blob == nil {
			if err := p.sess.Close(p.loop.now, "internal_error"); err != nil {
				r.fail(err)
			}
		}
	}()
	if !p.gone {
		p.closeLeg(&p.server)
		p.closeLeg(&p.client)
		p.forget()
	}
}
