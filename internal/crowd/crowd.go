// Package crowd is the connections whose login is not complete, and who of them has to go when they
// are too many.
package crowd

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A Crowd is the connections whose login is not complete. Anybody can make them, so there is a
// limit, and who holds them open must not keep others out: in a crowd that is full, a newcomer
// has one turned away. It is one of those that come from where most come from, so nobody is
// turned away for what is done from elsewhere; of these, the one whose client has kept us
// Waiting longest, so it is hardly one that goes on with its login. It may be used concurrently.
type Crowd struct {
	limit int
	size  *atomic.Int64 // as a metric

	mu   sync.Mutex
	in   map[*Entrant]struct{}
	each map[netip.Prefix]int // how many by origin
}

// New returns an empty crowd that is full with limit, and keeps its size in size.
func New(limit int, size *atomic.Int64) *Crowd {
	return &Crowd{limit: limit, size: size, in: map[*Entrant]struct{}{}, each: map[netip.Prefix]int{}}
}

// An Entrant is one of a crowd. All of it is guarded by the crowd's mutex.
type Entrant struct {
	From     netip.Prefix // as Origin has it
	Waits    int64        // since when somebody waits for the client, Unix nanoseconds; 0 for nobody
	upstream bool         // it holds a connection to the server
	TurnAway func()       // has it ended; it does not wait
}

// patience is how long a client that has a connection to the server may keep that waiting while
// the server has none left.
const patience = int64(time.Second)

// Origin is what tells clients at one place from those at another: an address, of IPv6 the network of
// 64 bits, since one host has all of that. Clients of Unix sockets have one origin.
func Origin(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	p, _ := a.Prefix(min(64, a.BitLen())) // of no address: none
	return p
}

// OriginOf is Origin of the address of a connection.
func OriginOf(a net.Addr) netip.Prefix {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return Origin(tcp.AddrPort().Addr())
	}
	return netip.Prefix{}
}

// Enter takes in e, which waits for its client, and turns somebody away if those are too many now, perhaps e.
func (c *Crowd) Enter(e *Entrant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(e)
	if len(c.in) > c.limit {
		c.turnAway(e, func(*Entrant) bool { return true })
	}
}

// MakeRoom turns away somebody for whom the server waits, because that has no connection left.
func (c *Crowd) MakeRoom(now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turnAway(nil, func(e *Entrant) bool { return e.upstream && e.Waits != 0 && now-e.Waits > patience })
}

// turnAway turns away one of those that may be. It is the newcomer only if that is of the most
// frequent origin and nobody else of that keeps us waiting.
func (c *Crowd) turnAway(newcomer *Entrant, may func(*Entrant) bool) {
	most := 0
	for _, n := range c.each {
		most = max(most, n)
	}
	var out *Entrant
	for e := range c.in {
		if e == newcomer || c.each[e.From] < most || !may(e) {
			continue
		}
		if out == nil || e.Waits != 0 && (out.Waits == 0 || e.Waits < out.Waits) {
			out = e
		}
	}
	if newcomer != nil && (out == nil || out.Waits == 0 && c.each[newcomer.From] == most) {
		out = newcomer
	}
	if out != nil {
		c.remove(out)
		out.TurnAway()
	}
}

// Becomes says how e is to be turned away from now on, now that it has a connection to the server.
// It reports false if it was turned away.
func (c *Crowd) Becomes(e *Entrant, turnAway func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.upstream, e.TurnAway = true, turnAway
	_, ok := c.in[e]
	return ok
}

// Waiting says whether somebody waits for e's client. It reports false if e was turned away.
func (c *Crowd) Waiting(e *Entrant, now int64, waits bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !waits:
		e.Waits = 0
	case e.Waits == 0:
		e.Waits = now
	}
	_, ok := c.in[e]
	return ok
}

// Moves says that e comes from elsewhere.
func (c *Crowd) Moves(e *Entrant, from netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.in[e]; ok {
		c.remove(e)
		e.From = from
		c.add(e)
	}
}

// Leave takes e out, if it is in: it has logged in, or ended.
func (c *Crowd) Leave(e *Entrant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.in[e]; ok {
		c.remove(e)
	}
}

func (c *Crowd) add(e *Entrant) {
	c.in[e] = struct{}{}
	c.each[e.From]++
	c.size.Store(int64(len(c.in)))
}

func (c *Crowd) remove(e *Entrant) {
	delete(c.in, e)
	if c.each[e.From]--; c.each[e.From] == 0 {
		delete(c.each, e.From)
	}
	c.size.Store(int64(len(c.in)))
}

// TurnAwaySilent ends those that have not sent their first packet; they stay in the crowd.
func (c *Crowd) TurnAwaySilent() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := range c.in {
		if !e.upstream && e.Waits != 0 {
			e.TurnAway()
		}
	}
}
