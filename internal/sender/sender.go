// Package sender sends to many sockets in one system call.
//
// What it saves is not the calls. Each send wakes who waits for the bytes, and on a busy
// machine the kernel gives that process the processor when the call returns: a proxy with 32
// clients loses it at every second send. When all are sent in one call, it loses it once.
//
// The call is io_uring_enter(2), of which no more is used than this: each send is tried once,
// as send(2) with MSG_DONTWAIT does, and is over when the call returns. Where there is no
// io_uring, because the kernel is older than 5.12, or it or a container forbids it, the sends are system calls of
// their own.
package sender

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// A Message is what is to be sent to one socket. Send fills in N and Err as send(2) returns them.
type Message struct {
	FD   int
	Data []byte // not empty
	N    int    // bytes the socket took
	Err  syscall.Errno
}

// flags of each send: it does not wait for room, and a peer that has gone is an error, not a signal.
const flags = syscall.MSG_DONTWAIT | syscall.MSG_NOSIGNAL

// One sends to one socket, as much as it takes at once. Err is EAGAIN if it takes nothing.
func One(fd int, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), flags, 0, 0)
		if errno == 0 {
			return int(n), 0
		}
		if errno != syscall.EINTR {
			return 0, errno
		}
	}
}

// A Sender is used by one goroutine at a time.
type Sender struct {
	ring *ring
	now  []Message // those being sent; that they are here keeps them from moving
}

// New returns a Sender, which always works, and why it has no io_uring, if so.
func New() (*Sender, error) {
	r, err := newRing()
	return &Sender{ring: r}, err
}

// Close gives the io_uring back.
func (s *Sender) Close() {
	if s.ring != nil {
		s.ring.close()
		s.ring = nil
	}
}

// Send sends each message, as much as its socket takes at once, in any order: no two of
// them may have the same socket. The data must not change meanwhile.
func (s *Sender) Send(messages []Message) {
	for len(messages) > 0 {
		s.now = messages[:min(len(messages), ringSize)]
		messages = messages[len(s.now):]
		done := 0
		if s.ring != nil && len(s.now) > 1 {
			var err error
			if done, err = s.ring.send(s.now); err != nil {
				s.Close()
			}
		}
		for i := done; i < len(s.now); i++ {
			m := &s.now[i]
			m.N, m.Err = One(m.FD, m.Data)
		}
		s.now = nil
	}
}

// ringSize is how many sends one call makes, a power of two.
const ringSize = 64

// Of the kernel's header linux/io_uring.h. Numbers of calls are the same for all architectures.
const (
	sysSetup      = 425
	sysEnter      = 426
	opSend        = 26
	getEvents     = 1 << 0
	mapEntries    = 0x10000000
	singleMap     = 1 << 0 // one mapping for both queues
	nativeWorkers = 1 << 9 // the kernel is 5.12 or newer
)

type parameters struct {
	submissions, completions, _, _, _, features, _ uint32
	_                                              [3]uint32
	sq                                             struct {
		_, tail, _, _, _, _, array uint32 // offsets in the mapping
		_                          uint32
		_                          uint64
	}
	cq struct {
		head, tail, _, _, _, entry uint32
		_                          [2]uint32
		_                          uint64
	}
}

type submission struct {
	op, _       uint8
	_           uint16
	fd          int32
	_           uint64
	data        uint64 // address
	size, flags uint32
	user        uint64
	_           [3]uint64
}

type completion struct {
	user   uint64
	result int32
	_      uint32
}

// A ring is the two queues that are shared with the kernel.
type ring struct {
	fd             int
	queues         []byte // mapping of indexes and completions
	entries        []byte // mapping of submissions
	tail           *uint32
	done, doneTail *uint32
	completions    *[2 * ringSize]completion
	submissions    *[ringSize]submission
}

func newRing() (*ring, error) {
	var p parameters
	fd, _, errno := syscall.Syscall(sysSetup, ringSize, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	r := &ring{fd: int(fd)}
	err := r.mapQueues(&p)
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *ring) mapQueues(p *parameters) (err error) {
	if p.features&singleMap == 0 || p.features&nativeWorkers == 0 || p.submissions != ringSize || p.completions != 2*ringSize {
		return fmt.Errorf("io_uring: the kernel is older than 5.12")
	}
	const protection = syscall.PROT_READ | syscall.PROT_WRITE
	size := max(p.sq.array+4*ringSize, p.cq.entry+uint32(unsafe.Sizeof(*r.completions)))
	if r.queues, err = syscall.Mmap(r.fd, 0, int(size), protection, syscall.MAP_SHARED|syscall.MAP_POPULATE); err != nil {
		return fmt.Errorf("map io_uring: %w", err)
	}
	r.entries, err = syscall.Mmap(r.fd, mapEntries, int(unsafe.Sizeof(*r.submissions)), protection, syscall.MAP_SHARED|syscall.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("map io_uring: %w", err)
	}
	at := func(offset uint32) unsafe.Pointer { return unsafe.Pointer(&r.queues[offset]) }
	r.tail = (*uint32)(at(p.sq.tail))
	r.done, r.doneTail = (*uint32)(at(p.cq.head)), (*uint32)(at(p.cq.tail))
	r.completions = (*[2 * ringSize]completion)(at(p.cq.entry))
	r.submissions = (*[ringSize]submission)(unsafe.Pointer(&r.entries[0]))
	for i, order := 0, (*[ringSize]uint32)(at(p.sq.array)); i < ringSize; i++ {
		order[i] = uint32(i)
	}
	return nil
}

func (r *ring) close() {
	for _, m := range [][]byte{r.queues, r.entries} {
		if m != nil {
			_ = syscall.Munmap(m)
		}
	}
	_ = syscall.Close(r.fd)
}

// send sends at most ringSize messages. It returns how many were tried, which is all of them
// unless there is an error, after which the ring is of no use.
func (r *ring) send(messages []Message) (int, error) {
	first := *r.tail
	for i := range messages {
		m := &messages[i]
		m.N, m.Err = 0, syscall.EIO // should nothing be heard of it
		r.submissions[(first+uint32(i))%ringSize] = submission{
			op: opSend, fd: int32(m.FD), data: uint64(uintptr(unsafe.Pointer(&m.Data[0]))), size: uint32(len(m.Data)), flags: flags, user: uint64(i),
		}
	}
	atomic.StoreUint32(r.tail, first+uint32(len(messages)))
	var err error
	taken, heard := 0, 0
	for heard < len(messages) {
		n, _, errno := syscall.RawSyscall6(sysEnter, uintptr(r.fd), uintptr(len(messages)-taken), uintptr(len(messages)-heard), getEvents, 0, 0)
		switch {
		case errno == 0:
			taken += int(n)
		case errno != syscall.EINTR:
			err = fmt.Errorf("io_uring_enter: %w", errno)
		}
		done := *r.done
		for tail := atomic.LoadUint32(r.doneTail); done != tail; done++ {
			c := &r.completions[done%(2*ringSize)]
			if m := &messages[c.user]; c.result >= 0 {
				m.N, m.Err = int(c.result), 0
			} else {
				m.Err = syscall.Errno(-c.result)
			}
			heard++
		}
		atomic.StoreUint32(r.done, done)
		if err != nil {
			break
		}
	}
	return taken, err
}
