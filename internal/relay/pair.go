package relay

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/pgnotary/pgnotary/internal/crowd"
	"github.com/pgnotary/pgnotary/internal/sender"
	"github.com/pgnotary/pgnotary/internal/session"
)

// How far the sending half of a leg is on its way out.
const (
	shutNo     uint8 = iota
	shutWanted       // half-close once everything was sent
	shutDone
)

// A leg is one of the two sockets of a pair.
type leg struct {
	fd      int
	side    uint8  // 0 client, 1 server
	shut    uint8  // shutNo, shutWanted or shutDone
	watched bool   // the kernel is asked about it
	eof     bool   // the peer sends nothing more
	broken  bool   // what is sent to it goes nowhere
	closed  bool   // fd is closed
	drop    bool   // what it still sends is thrown away
	stuck   bool   // TLS: there may be bytes the socket does not tell of
	whole   bool   // a message boundary is behind the last byte released
	due     bool   // out is sent at the end of the round
	mask    uint32 // events asked for
	dropped int32  // bytes thrown away

	held *queue // bytes whose entries are not durable; nil if none
	out  *queue // bytes released that are due, or that the socket did not take; nil if none
	tls  *tls.Conn
	raw  *rawConn // under tls
}

// pending is the bytes on their way to the leg.
func (g *leg) pending() int {
	n := 0
	if g.held != nil {
		n += g.held.len()
	}
	if g.out != nil {
		n += g.out.len()
	}
	return n
}

// A pair is a session with its two sockets. From begin on it belongs to its
// loop's goroutine.
//
// It lives until both legs are closed:
//
//	client ends its stream   what is complete goes to the server, then the server is told the end; replies still pass
//	client's socket breaks   the same, but the server gets only a short time more
//	server ends its stream   what it sent goes to the client, then FIN; the client's bytes are thrown away
//	violation                as above, with a FATAL as the last message; the server gets what came before the offence
//	recording fails          held bytes are thrown away, FATAL, the server's socket is closed at once
type pair struct {
	relay  *Relay
	loop   *loop
	sess   *session.Session
	client leg
	server leg

	id       uint64
	connect  int64 // index of the connect entry
	addr     string
	first    []byte // start-up packet for the server
	early    []byte // what was read of the server's answer to it
	shift    int64  // from the relay's time to that of entries
	deadline int64  // of the login, or of the end; 0 for none
	blob     session.Blob
	endWhy   string         // reason for Close, once known, while blob keeps it waiting
	key      string         // cancel key, if registered
	entrant  *crowd.Entrant // until it has logged in

	slot, gen int32
	timed     bool // in loop.timed
	loggedIn  bool
	parked    bool // in loop.parked
	goesOn    bool // in loop.again
	over      bool // the session is closed: no byte enters it any more
	severed   bool // close the server's socket once it got what is held for it
	gone      bool // both legs are closed
}

// begin sends the start-up packet on its way and looks for what came with it.
func (p *pair) begin() {
	l := p.loop
	for _, g := range []*leg{&p.client, &p.server} {
		if g.tls != nil {
			g.raw.attach(g.fd, l)
			g.stuck = true
		}
	}
	p.client.whole = true
	p.setDeadline(p.deadline)
	switch {
	case l.failing:
		p.recordingFailed()
		return
	case l.ending:
		p.end()
		return
	case !p.relay.crowd.Becomes(p.entrant, func() { l.post(func() { p.guarded((*pair).turnedAway) }) }):
		p.turnedAway()
		return
	}
	p.push(&p.server, p.first, p.gate(BeforeForward), true)
	p.first = nil
	if early := p.early; early != nil {
		p.early = nil
		p.fromServer(early)
	}
	p.goOn()
}

// gate is the entry that bytes wait for which wait in the given mode.
func (p *pair) gate(waits Mode) int64 {
	if p.relay.cfg.Mode != waits {
		return -1
	}
	return p.sess.Last()
}

// ready serves readiness of one leg.
func (p *pair) ready(g *leg, events uint32) {
	if g.closed {
		return
	}
	if events&syscall.EPOLLOUT != 0 && !g.due {
		p.flush(g)
	}
	if events&(syscall.EPOLLIN|syscall.EPOLLHUP|syscall.EPOLLERR) == 0 || g.closed {
		return
	}
	switch {
	case g.mask&syscall.EPOLLIN != 0:
		p.read(g)
	case events&(syscall.EPOLLHUP|syscall.EPOLLERR) != 0:
		// Nothing is to be read now, and the kernel would tell us again at once.
		if g.eof {
			p.breakLeg(g)
		}
		if !g.closed {
			p.loop.watch(p, g, unwatch)
		}
	}
}

// read takes what a leg has: once from a plain socket, since the kernel tells
// again if there is more; from TLS until nothing is left of what was received.
func (p *pair) read(g *leg) {
	if g.drop {
		p.discard(g)
		return
	}
	if g == &p.client && p.loop.paused {
		p.park()
		return
	}
	if g.tls != nil {
		g.stuck = false
		g.raw.budget = readBudget
	}
	for {
		b, err := p.receive(g)
		if len(b) > 0 {
			if g == &p.client {
				p.fromClient(b)
			} else {
				p.fromServer(b)
			}
		}
		switch {
		case err == errWouldBlock || g.closed || g.drop: //nolint:errorlint // our own, never wrapped
			return
		case err != nil:
			p.endOfStream(g, err)
			return
		case g.tls == nil:
			return
		case !p.wants(g):
			g.stuck = true
			return
		}
	}
}

// receive reads once; b is valid until the next call.
func (p *pair) receive(g *leg) (b []byte, err error) {
	buf := p.loop.buf
	if g.tls != nil {
		n, err := g.tls.Read(buf)
		if len(p.loop.records) > 0 { // an answer to the peer's key update, or an alert
			p.sendRecords(g)
		}
		if err != nil && errors.Is(err, errWouldBlock) {
			err = errWouldBlock
		}
		return buf[:n], err
	}
	n, errno := recv(g.fd, buf)
	switch {
	case errno == syscall.EAGAIN:
		return nil, errWouldBlock
	case errno != 0:
		return nil, errno
	case n == 0:
		return nil, io.EOF
	}
	return buf[:n], nil
}

// fromClient passes bytes through the session and on to the server.
func (p *pair) fromClient(b []byte) {
	p.relay.metrics.FromClients.Add(int64(len(b)))
	fwd, err := p.sess.FromClient(p.loop.now, b)
	if !p.loggedIn {
		p.relay.crowd.Waiting(p.entrant, p.loop.now, p.sess.Asked())
	}
	if err != nil && !p.isViolation(err) {
		return
	}
	p.push(&p.server, fwd, p.gate(BeforeForward), true)
	if err != nil {
		p.violated(err, true)
		return
	}
	if p.blob = p.sess.Blob(); p.blob != nil {
		go func(b session.Blob) {
			err := b.Sync()
			p.loop.post(func() { p.guarded(func(p *pair) { p.blobSynced(err) }) })
		}(p.blob)
	} else if p.sess.Done() {
		p.client.drop = true
	}
}

// blobSynced goes on with the client's bytes after a large value was synced.
func (p *pair) blobSynced(err error) {
	p.blob = nil
	switch {
	case p.endWhy != "":
		p.closeSession(p.endWhy)
	case err != nil:
		p.relay.fail(fmt.Errorf("sync large value: %w", err))
		p.recordingFailed()
	default:
		p.fromClient(nil)
		p.goOn()
	}
}

// fromServer is fromClient for the other direction.
func (p *pair) fromServer(b []byte) {
	p.relay.metrics.FromServers.Add(int64(len(b)))
	fwd, err := p.sess.FromServer(p.loop.now, b)
	if err != nil && !p.isViolation(err) {
		return
	}
	p.push(&p.client, fwd, p.gate(BeforeReply), p.sess.Boundary())
	if err != nil {
		p.violated(err, false)
		return
	}
	if !p.loggedIn {
		p.noteLogin()
	}
	if p.loop.ending {
		p.endIfIdle()
	}
}

// noteLogin looks for the end of the login, or for whom it waits.
func (p *pair) noteLogin() {
	p.relay.crowd.Waiting(p.entrant, p.loop.now, p.sess.Asked())
	if p.sess.ServerFull() {
		p.relay.crowd.MakeRoom(p.loop.now)
	}
	if p.key == "" {
		if k := p.sess.CancelKey(); k != nil {
			p.key = string(k)
			p.relay.cancels.Store(p.key, cancelTarget{p.id, p.connect})
		}
	}
	if p.sess.Ready() {
		p.loggedIn = true
		p.deadline = 0
		p.relay.crowd.Leave(p.entrant)
		p.entrant = nil
	}
}

// push sends b to a leg, or keeps a copy until the entry gate is durable and
// everything before it was sent. whole says that b ends at a message boundary.
func (p *pair) push(g *leg, b []byte, gate int64, whole bool) {
	l := p.loop
	if g.closed || g.broken || g.shut == shutDone {
		return
	}
	if g.held == nil && gate < l.durable {
		g.whole = whole
		p.write(g, b)
		return
	}
	if len(b) == 0 {
		return
	}
	if g.held == nil {
		g.held = l.queues.get()
	}
	if g.held.hold(b, gate, l.now, whole) {
		l.waiting.push(waiting{p, g, gate})
		l.want = max(l.want, gate)
	}
}

// release sends what a leg holds and may have now.
func (p *pair) release(g *leg) {
	if g.held == nil {
		return
	}
	b, last := g.held.release(p.loop.durable, &p.relay.metrics, p.loop.now)
	if len(b) == 0 {
		return
	}
	g.whole = last.boundary
	p.write(g, b)
	if g.due { // not all at once: on a busy machine who has its bytes works while the next get theirs
		p.flush(g)
	}
	if g.held != nil && g.held.len() == 0 {
		g.held = p.loop.queues.put(g.held)
	}
}

// write sends released bytes, through TLS if the leg has it.
func (p *pair) write(g *leg, b []byte) {
	if len(b) == 0 || g.closed || g.broken {
		return
	}
	if g.tls == nil {
		p.send(g, b)
		return
	}
	if _, err := g.tls.Write(b); err != nil {
		p.loop.records = p.loop.records[:0]
		p.breakLeg(g)
		return
	}
	p.sendRecords(g)
}

// sendRecords sends the TLS records that were just made.
func (p *pair) sendRecords(g *leg) {
	p.send(g, p.loop.records)
	if cap(p.loop.records) > 4*readBuffer {
		p.loop.records = nil
	}
	p.loop.records = p.loop.records[:0]
}

// send has bytes sent: a few at the end of the round, with those for others, many at
// once. What the socket does not take is queued.
func (p *pair) send(g *leg, b []byte) {
	if g.due && len(b) > newQueue {
		p.flush(g)
	}
	switch {
	case g.closed || g.broken || len(b) == 0:
		return
	case g.out != nil:
	case len(b) <= newQueue:
		g.out, g.due = p.loop.queues.get(), true
		p.loop.due = append(p.loop.due, due{p, g})
	default:
		n, errno := sender.One(g.fd, b)
		if errno != 0 && errno != syscall.EAGAIN {
			p.breakLeg(g)
			return
		}
		if b = b[n:]; len(b) == 0 {
			return
		}
		g.out = p.loop.queues.get()
	}
	g.out.add(b)
}

// flush sends what is due, or more of what the socket did not take before.
func (p *pair) flush(g *leg) {
	if g.out != nil {
		n, errno := sender.One(g.fd, g.out.b[g.out.off:])
		p.took(g, n, errno)
	}
}

// took notes what became of sending what is out.
func (p *pair) took(g *leg, n int, errno syscall.Errno) {
	g.due = false
	switch {
	case g.out == nil: // closed since
	case errno != 0 && errno != syscall.EAGAIN:
		p.breakLeg(g)
	default:
		if g.out.off += n; g.out.len() == 0 {
			g.out = p.loop.queues.put(g.out)
		}
	}
}

// wants reports whether a leg is to be read now.
func (p *pair) wants(g *leg) bool {
	switch {
	case g.closed || g.eof:
		return false
	case g.drop:
		return g.dropped < maxDrain
	case g == &p.server:
		return p.client.pending() < maxPending
	}
	return p.blob == nil && !p.parked && p.server.pending() < maxPending && !p.sess.Full()
}

// goOn reads legs that stopped in the middle of what they had received, which
// the kernel does not tell about.
func (p *pair) goOn() {
	for _, g := range []*leg{&p.client, &p.server} {
		if g.stuck && p.wants(g) {
			p.read(g)
		}
	}
}

// settle does what follows from the state of the legs after something
// happened: half-closing, closing, telling the kernel which events are wanted.
func (p *pair) settle() {
	if p.gone {
		return
	}
	c, s := &p.client, &p.server
	if s.shut == shutWanted && s.held == nil && s.out == nil && p.blob == nil {
		p.halfClose(s)
		if p.severed {
			p.closeLeg(s)
		}
	}
	if c.shut == shutWanted && c.held == nil && c.out == nil {
		p.halfClose(c)
		p.setDeadline(p.loop.now + int64(drainTime))
	}
	if c.shut == shutDone && (c.eof || c.broken || c.dropped >= maxDrain) {
		p.closeLeg(c)
	}
	if c.closed && s.closed {
		p.finish()
		return
	}
	for _, g := range []*leg{c, s} {
		if g.closed {
			continue
		}
		var mask uint32
		if p.wants(g) {
			mask = syscall.EPOLLIN
			if g.stuck && !p.goesOn {
				p.goesOn = true
				p.loop.again = append(p.loop.again, p)
			}
		}
		if g.out != nil && !g.due {
			mask |= syscall.EPOLLOUT
		}
		if g.mask != mask && (g.watched || mask != 0) {
			p.loop.watch(p, g, mask)
		}
	}
}

// discard reads and throws away.
func (p *pair) discard(g *leg) {
	n, errno := recv(g.fd, p.loop.buf)
	switch {
	case errno == syscall.EAGAIN:
	case errno != 0 || n == 0:
		if g == &p.client && p.server.shut == shutNo {
			p.endOfStream(g, io.EOF)
		}
		g.eof = true
	default:
		g.dropped += int32(n)
	}
}

// park stops reading the client until the recorder has caught up.
func (p *pair) park() {
	if !p.parked {
		p.parked = true
		p.client.stuck = p.client.tls != nil
		p.loop.parked = append(p.loop.parked, p)
	}
}

func (p *pair) setDeadline(t int64) {
	p.deadline = t
	if !p.timed && t != 0 {
		p.timed = true
		p.loop.timed = append(p.loop.timed, p)
	}
}
