package relay

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A crowd is the connections whose login is not complete. Anybody can make them, so there is a
// limit, and who holds them open must not keep others out: in a crowd that is full, a newcomer
// has one turned away. It is one of those that come from where most come from, so nobody is
// turned away for what is done from elsewhere; of these, the one whose client has kept us
// waiting longest, so it is hardly one that goes on with its login. It may be used concurrently.
type crowd struct {
	limit int
	size  *atomic.Int64 // as a metric

	mu   sync.Mutex
	in   map[*entrant]struct{}
	each map[netip.Prefix]int // how many by origin
}

// An entrant is one of a crowd. All of it is guarded by the crowd's mutex.
type entrant struct {
	from     netip.Prefix // as origin has it
	waits    int64        // since when somebody waits for the client, Unix nanoseconds; 0 for nobody
	upstream bool         // it holds a connection to the server
	turnAway func()       // has it ended; it does not wait
}

// patience is how long a client that has a connection to the server may keep that waiting while
// the server has none left.
const patience = int64(time.Second)

// origin is what tells clients at one place from those at another: an address, of IPv6 the network of
// 64 bits, since one host has all of that. Clients of Unix sockets have one origin.
func origin(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	p, _ := a.Prefix(min(64, a.BitLen())) // of no address: none
	return p
}

func originOf(a net.Addr) netip.Prefix {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return origin(tcp.AddrPort().Addr())
	}
	return netip.Prefix{}
}

// enter takes in e, which waits for its client, and turns somebody away if those are too many now, perhaps e.
func (c *crowd) enter(e *entrant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(e)
	if len(c.in) > c.limit {
		c.turnAway(e, func(*entrant) bool { return true })
	}
}

// makeRoom turns away somebody for whom the server waits, because that has no connection left.
func (c *crowd) makeRoom(now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turnAway(nil, func(e *entrant) bool { return e.upstream && e.waits != 0 && now-e.waits > patience })
}

// turnAway turns away one of those that may be. It is the newcomer only if that is of the most
// frequent origin and nobody else of that keeps us waiting.
func (c *crowd) turnAway(newcomer *entrant, may func(*entrant) bool) {
	most := 0
	for _, n := range c.each {
		most = max(most, n)
	}
	var out *entrant
	for e := range c.in {
		if e == newcomer || c.each[e.from] < most || !may(e) {
			continue
		}
		if out == nil || e.waits != 0 && (out.waits == 0 || e.waits < out.waits) {
			out = e
		}
	}
	if newcomer != nil && (out == nil || out.waits == 0 && c.each[newcomer.from] == most) {
		out = newcomer
	}
	if out != nil {
		c.remove(out)
		out.turnAway()
	}
}

// becomes says how e is to be turned away from now on, now that it has a connection to the server.
// It reports false if it was turned away.
func (c *crowd) becomes(e *entrant, turnAway func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.upstream, e.turnAway = true, turnAway
	_, ok := c.in[e]
	return ok
}

// waiting says whether somebody waits for e's client. It reports false if e was turned away.
func (c *crowd) waiting(e *entrant, now int64, waits bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !waits:
		e.waits = 0
	case e.waits == 0:
		e.waits = now
	}
	_, ok := c.in[e]
	return ok
}

// moves says that e comes from elsewhere.
func (c *crowd) moves(e *entrant, from netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.in[e]; ok {
		c.remove(e)
		e.from = from
		c.add(e)
	}
}

// leave takes e out, if it is in: it has logged in, or ended.
func (c *crowd) leave(e *entrant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.in[e]; ok {
		c.remove(e)
	}
}

func (c *crowd) add(e *entrant) {
	c.in[e] = struct{}{}
	c.each[e.from]++
	c.size.Store(int64(len(c.in)))
}

func (c *crowd) remove(e *entrant) {
	delete(c.in, e)
	if c.each[e.from]--; c.each[e.from] == 0 {
		delete(c.each, e.from)
	}
	c.size.Store(int64(len(c.in)))
}

// turnAwaySilent ends those that have not sent their first packet; they stay in the crowd.
func (c *crowd) turnAwaySilent() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := range c.in {
		if !e.upstream && e.waits != 0 {
			e.turnAway()
		}
	}
}
