package relay

import (
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/pgnotary/pgnotary/internal/sender"
)

const (
	readBuffer  = 128 << 10
	eventsAtOne = 64                            // few, so that a round is short: what nobody wants waits for its end
	askWithin   = int64(2 * time.Millisecond)   // what somebody waits for is asked for, whatever else comes
	quickCommit = int64(3 * time.Millisecond)   // a loop may be busy committing no longer than this
	askAgain    = 64                            // of so many commits one is made all the same, to see if they are quick now
	rawWait     = 5                             // milliseconds of waiting that the scheduler is not told of
	stayAwake   = int64(100 * time.Millisecond) // of such waits for nothing, before the scheduler is told
	yieldEvery  = int64(9 * time.Millisecond)   // after ten the runtime preempts
	wakeSlot    = -1                            // in the place of a pair's slot: the wake-up descriptor
)

// A loop serves many pairs on one goroutine. Everything below the line belongs to
// that goroutine; others talk to it through post and committed.
type loop struct {
	relay  *Relay
	epfd   int
	wakefd int // eventfd, edge-triggered, so it is never read
	done   chan struct{}

	asleep atomic.Bool  // in, or about to enter, a wait without a time limit of its own choosing
	gate   atomic.Int64 // while asleep: wake up once this many entries are exceeded
	mu     sync.Mutex   // guards inbox, and wakefd against its closing
	inbox  []func()

	// -- owned by the goroutine
	now     int64 // clock at the start of this round
	durable int64 // as of this round
	events  []syscall.EpollEvent
	buf     []byte // what recv reads into; nothing keeps a slice of it
	records []byte // TLS records on their way out
	leaf    []byte // encoding of the entry being appended
	todo    []func()

	slots   []*pair // by number in the event's data
	vacant  []int32
	gen     int32
	pairs   int
	queues  queuePool
	waiting fifo
	want    int64 // latest entry waited for
	wanted  int64 // ... and told to the recorder
	served  int64 // time of the last event
	yielded int64 // when the loop last let the scheduler choose
	askedAt int64 // when the recorder was asked last, and had done it if it did it at once
	asked   int   // times it was asked

	commitTime int64 // of the loop's own commits, about the mean of the last few

	timed []*pair // those with a deadline, and some that had one
	swept int64   // time of the last look at timed

	due      []due // legs with bytes to be sent at the end of the round
	sending  []due // those being sent
	messages []sender.Message
	sender   *sender.Sender

	again   []*pair // TLS legs that may hold bytes the socket does not tell of
	parked  []*pair // clients not read while the recorder is behind
	paused  bool
	ending  bool // idle sessions end
	failing bool // recording failed
	empty   bool // stop when there is no pair
}

func newLoop(r *Relay) (*loop, error) {
	s, err := sender.New()
	if err != nil {
		r.log.Info("sending takes a system call each", "error", err)
	}
	l := &loop{
		relay: r, sender: s, epfd: -1, wakefd: -1, done: make(chan struct{}),
		events: make([]syscall.EpollEvent, eventsAtOne), buf: make([]byte, readBuffer),
		leaf: make([]byte, 0, 4<<10), want: -1, wanted: -1,
	}
	if l.epfd, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	fd, _, errno := syscall.Syscall(syscall.SYS_EVENTFD2, 0, syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if errno != 0 {
		l.free()
		return nil, fmt.Errorf("create eventfd: %w", errno)
	}
	l.wakefd = int(fd)
	ev := syscall.EpollEvent{Events: syscall.EPOLLIN | -syscall.EPOLLET&math.MaxUint32, Fd: wakeSlot}
	if err := syscall.EpollCtl(l.epfd, syscall.EPOLL_CTL_ADD, l.wakefd, &ev); err != nil {
		l.free()
		return nil, fmt.Errorf("watch eventfd: %w", err)
	}
	return l, nil
}

// free closes the descriptors. The goroutine must have ended; others may still
// try to wake it.
func (l *loop) free() {
	l.sender.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, fd := range []*int{&l.epfd, &l.wakefd} {
		if *fd >= 0 {
			syscall.Close(*fd)
			*fd = -1
		}
	}
}

// post has f called on the loop's goroutine. It may be called from anywhere.
func (l *loop) post(f func()) {
	l.mu.Lock()
	l.inbox = append(l.inbox, f)
	l.mu.Unlock()
	l.wake()
}

// wake ends a wait. A loop that is busy looks at everything before it waits
// again, so nothing need be written for it.
func (l *loop) wake() {
	if l.asleep.CompareAndSwap(true, false) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.wakefd < 0 {
			return
		}
		one := uint64(1)
		_, _, _ = syscall.RawSyscall(syscall.SYS_WRITE, uintptr(l.wakefd), uintptr(unsafe.Pointer(&one)), 8)
	}
}

// committed wakes the loop if one of its pairs waits for one of the first
// durable entries. It is called from the committer.
func (l *loop) committed(durable int64) {
	if l.gate.Load() < durable {
		l.wake()
	}
}

// run is the loop's goroutine. Each round serves what the sockets have, then what
// others posted, then the pairs whose entries became durable, and asks the
// recorder once for all entries of the round that somebody waits for.
func (l *loop) run() {
	defer close(l.done)
	l.relay.rec.Attend()
	defer l.relay.rec.Leave()
	for !l.empty || l.pairs > 0 {
		n := l.poll()
		l.now = l.relay.now()
		l.yield()
		l.durable = l.relay.durable.Load()
		if n > 0 && !l.paused && l.relay.rec.Backlog() > maxBacklog {
			l.paused = true
			l.relay.metrics.Paused.Add(1)
		}
		for i := range n {
			l.dispatch(&l.events[i])
		}
		l.takeInbox()
		l.release()
		l.resume()
		l.sweep()
		l.send()
		if l.now-l.askedAt > askWithin {
			l.ask()
		}
	}
}

// yield lets the Go scheduler choose every few milliseconds. Otherwise it
// would have its monitor take the loop for stuck after ten of them, interrupt
// it by a signal and then look every 20 µs.
func (l *loop) yield() {
	if l.now-l.yielded > yieldEvery {
		l.yielded = l.now
		runtime.Gosched()
	}
}

// ask has the recorder commit what somebody waits for. It is called before the
// loop waits, so that all statements that are there already share a commit,
// and at the latest after a while.
//
// If commits are quick, the loop makes them itself: what comes meanwhile waits
// no longer than a commit, and will share the next one.
func (l *loop) ask() {
	l.askedAt = l.now
	if l.want <= l.wanted || l.want < l.relay.durable.Load() {
		return
	}
	l.wanted = l.want
	if l.asked++; l.commitTime < quickCommit || l.asked%askAgain == 0 {
		start := l.relay.now()
		if l.relay.rec.TryCommit(l.want) {
			l.askedAt = l.relay.now()
			took := min(l.askedAt-start, 2*quickCommit) // one slow commit says little
			l.commitTime += (took - l.commitTime) / 8
			return
		}
	}
	l.relay.rec.Want(l.want)
}

// poll returns the number of events in l.events. If somebody waits for a
// commit, it first lets others have the processor, should they want it, and
// asks the kernel without waiting, so that what is there already, and what they
// send, shares it.
//
// Before each wait it sees to the entries nobody wants; when it waits for
// long, the recorder has a timer do that.
//
// It waits for a few milliseconds in a raw system call, which the Go scheduler
// takes for work: an ordinary one has its monitor wake up every 20 µs to look
// after this thread. A stop of the world interrupts the raw call by its
// signal. Only when nothing has happened for a while it waits in an ordinary
// one: after each of those the monitor looks again every 20 µs for some time.
func (l *loop) poll() int {
	patience := min(rawWait, l.relay.rec.Tend())
	if l.want > l.wanted {
		_, _, _ = syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0)
		if n := l.wait(0); n > 0 {
			return n
		}
		l.ask()
	}
	gate := int64(math.MaxInt64)
	if l.paused {
		gate = -1 // any commit shortens the backlog
	} else if g := l.waiting.gate(); g >= 0 {
		gate = g
	}
	l.gate.Store(gate)
	l.asleep.Store(true)
	defer l.asleep.Store(false)
	if l.hasWork(gate) {
		return 0
	}
	if n := l.wait(patience); n != 0 || l.now-l.served < stayAwake {
		return max(n, 0)
	}
	l.relay.rec.Leave()
	defer l.relay.rec.Attend()
	timeout := -1
	if len(l.timed) > 0 {
		timeout = int(sweepInterval.Milliseconds())
	}
	n, _ := syscall.EpollWait(l.epfd, l.events, timeout) // fails by EINTR
	return max(n, 0)
}

// wait waits some milliseconds for events by a raw system call. It returns
// their number, or -1 if a signal came.
func (l *loop) wait(milliseconds int) int {
	n, _, _ := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.epfd), uintptr(unsafe.Pointer(&l.events[0])),
		eventsAtOne, uintptr(milliseconds), 0, 0)
	return int(n)
}

// hasWork looks again after asleep was set: who comes later wakes us.
func (l *loop) hasWork(gate int64) bool {
	if gate < l.relay.durable.Load() && gate >= 0 || l.paused && l.relay.rec.Backlog() <= lowBacklog ||
		len(l.again) > 0 || l.relay.failed.Load() != nil && !l.failing {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.inbox) > 0
}

// dispatch serves one event. Whatever goes wrong in there ends its pair only.
func (l *loop) dispatch(ev *syscall.EpollEvent) {
	l.served = l.now
	if ev.Fd == wakeSlot {
		return
	}
	p := l.slots[ev.Fd>>1]
	if p == nil || p.gen != ev.Pad {
		return // ended earlier in this round
	}
	defer p.recover()
	g := &p.client
	if ev.Fd&1 != 0 {
		g = &p.server
	}
	p.ready(g, ev.Events)
	p.settle()
}

// takeInbox does what others posted. That recording failed comes first: it is
// what clients are told then. So it is looked for once the inbox was taken, which may hold the drain it leads to.
func (l *loop) takeInbox() {
	l.mu.Lock()
	l.todo, l.inbox = l.inbox, l.todo[:0]
	l.mu.Unlock()
	if l.relay.failed.Load() != nil && !l.failing {
		l.failing = true
		l.each((*pair).recordingFailed)
	}
	if len(l.todo) > 0 {
		l.now = l.relay.now() // not before the connect entries of new pairs
	}
	for i, f := range l.todo {
		f()
		l.todo[i] = nil
	}
}

// release sends what waited for entries that are durable now, and ends a pause
// once the recorder has caught up.
func (l *loop) release() {
	l.durable = l.relay.durable.Load()
	for {
		w, ok := l.waiting.pop(l.durable)
		if !ok {
			break
		}
		l.releaseOne(w.p, w.g)
	}
	if l.paused && l.relay.rec.Backlog() <= lowBacklog {
		l.paused = false
		for i, p := range l.parked {
			p.parked = false
			p.guarded((*pair).goOn)
			l.parked[i] = nil
		}
		l.parked = l.parked[:0]
	}
}

func (l *loop) releaseOne(p *pair, g *leg) {
	defer p.recover()
	p.release(g)
	p.settle()
}

// A due is a leg with bytes that are sent at the end of the round.
type due struct {
	p *pair
	g *leg
}

// send sends what is due.
func (l *loop) send() {
	for len(l.due) > 0 {
		l.sending, l.due = l.due, l.sending[:0]
		n := 0
		for _, d := range l.sending {
			if d.g.due {
				d.g.due = false
				l.sending[n] = d
				n++
				l.messages = append(l.messages, sender.Message{FD: d.g.fd, Data: d.g.out.b[d.g.out.off:]})
			}
		}
		l.sender.Send(l.messages)
		for i, m := range l.messages {
			l.sent(l.sending[i], m)
		}
		clear(l.sending)
		clear(l.messages)
		l.messages = l.messages[:0]
	}
}

func (l *loop) sent(d due, m sender.Message) {
	defer d.p.recover()
	d.p.took(d.g, m.N, m.Err)
	d.p.settle()
}

// resume goes on with TLS legs that stopped in the middle of what they had.
func (l *loop) resume() {
	for n := len(l.again); n > 0; n-- {
		p := l.again[0]
		l.again = append(l.again[:0], l.again[1:]...)
		p.goesOn = false
		p.guarded((*pair).goOn)
	}
}

// sweep looks at deadlines, a few times a second.
func (l *loop) sweep() {
	if len(l.timed) == 0 || l.now-l.swept < int64(sweepInterval) {
		return
	}
	l.swept = l.now
	kept := l.timed[:0]
	for _, p := range l.timed {
		if p.deadline != 0 && l.now >= p.deadline {
			p.deadline = 0
			p.guarded((*pair).expired)
		}
		if p.gone || p.deadline == 0 {
			p.timed = false
			continue
		}
		kept = append(kept, p)
	}
	clear(l.timed[len(kept):])
	l.timed = kept
}

// each calls f for every pair and then settles it.
func (l *loop) each(f func(*pair)) {
	for _, p := range l.slots {
		if p != nil {
			p.guarded(f)
		}
	}
}

// drain ends idle sessions from now on, the others when they become idle.
func (l *loop) drain() {
	l.ending = true
	l.each((*pair).endIfIdle)
}

func (l *loop) endAll() { l.ending = true; l.each((*pair).end) }

func (l *loop) stopWhenEmpty() { l.empty = true }

// adopt takes a pair over from the goroutine that made it.
func (l *loop) adopt(p *pair) {
	if n := len(l.vacant); n > 0 {
		p.slot = l.vacant[n-1]
		l.vacant = l.vacant[:n-1]
		l.slots[p.slot] = p
	} else {
		p.slot = int32(len(l.slots))
		l.slots = append(l.slots, p)
	}
	l.gen++
	p.gen = l.gen
	l.pairs++
	p.guarded((*pair).begin)
}

// forget gives the pair's slot to others.
func (l *loop) forget(p *pair) {
	l.slots[p.slot] = nil
	l.vacant = append(l.vacant, p.slot)
	l.pairs--
}

// watch tells the kernel which events of the leg are wanted.
func (l *loop) watch(p *pair, g *leg, mask uint32) {
	ev := syscall.EpollEvent{Events: mask, Fd: p.slot<<1 | int32(g.side), Pad: p.gen}
	op := syscall.EPOLL_CTL_MOD
	switch {
	case !g.watched:
		op = syscall.EPOLL_CTL_ADD
	case mask == unwatch:
		op = syscall.EPOLL_CTL_DEL
	}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(l.epfd), uintptr(op), uintptr(g.fd),
		uintptr(unsafe.Pointer(&ev)), 0, 0)
	if errno != 0 {
		panic(fmt.Sprintf("epoll_ctl: %v", errno)) // ends this pair, see recover
	}
	g.watched, g.mask = mask != unwatch, mask
}

// unwatch stands for a leg the kernel is not asked about at all: a mask of
// zero would still report that the connection is dead, again and again.
const unwatch = math.MaxUint32

// recv is a raw system call: it never waits, so the scheduler need not know. p is
// not empty.
func recv(fd int, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)),
			syscall.MSG_DONTWAIT, 0, 0)
		if errno != syscall.EINTR {
			return int(n), errno
		}
	}
}
