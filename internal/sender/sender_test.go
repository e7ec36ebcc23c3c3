package sender

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"
)

// pair returns two ends of a stream, the first of which takes about room bytes.
func pair(t testing.TB, room int) (a, b int) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, fd := range fds {
			_ = syscall.Close(fd) // a test may have closed it
		}
	})
	if room > 0 {
		if err := syscall.SetsockoptInt(fds[0], syscall.SOL_SOCKET, syscall.SO_SNDBUF, room); err != nil {
			t.Fatal(err)
		}
	}
	return fds[0], fds[1]
}

// withRing returns a sender with an io_uring. Only where the kernel has none, or may not give one, is there nothing to test.
func withRing(t *testing.T) *Sender {
	t.Helper()
	s, err := New()
	if errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EPERM) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// senders are one with an io_uring, if there is one here, and one without.
func senders(t *testing.T, f func(t *testing.T, s *Sender)) {
	t.Run("io_uring", func(t *testing.T) {
		s := withRing(t)
		f(t, s)
		if s.ring == nil {
			t.Error("the io_uring was given up")
		}
	})
	t.Run("send", func(t *testing.T) { f(t, new(Sender)) })
}

func received(t *testing.T, fd, n int) []byte {
	t.Helper()
	p := make([]byte, n)
	f := os.NewFile(uintptr(must(syscall.Dup(fd))), "")
	defer f.Close()
	if _, err := io.ReadFull(f, p); err != nil {
		t.Fatal(err)
	}
	return p
}

func must(fd int, err error) int {
	if err != nil {
		panic(err)
	}
	return fd
}

func TestSend(t *testing.T) {
	senders(t, func(t *testing.T, s *Sender) {
		for _, n := range []int{1, 2, ringSize, ringSize + 1, 3 * ringSize} {
			peers := make([]int, n)
			messages := make([]Message, n)
			for i := range messages {
				messages[i].FD, peers[i] = pair(t, 0)
			}
			for round := range 5 {
				for i := range messages {
					messages[i].Data = fmt.Appendf(nil, "%d to %d", round, i)
				}
				s.Send(messages)
				for i, m := range messages {
					if m.N != len(m.Data) || m.Err != 0 {
						t.Fatalf("%d of %d: sent %d, %v", i, n, m.N, m.Err)
					}
					if got := received(t, peers[i], m.N); !bytes.Equal(got, m.Data) {
						t.Fatalf("%d of %d: %q arrived, want %q", i, n, got, m.Data)
					}
				}
			}
		}
	})
}

// TestRefused has sockets in between that take part of it, nothing, have no peer, are none.
func TestRefused(t *testing.T) {
	senders(t, func(t *testing.T, s *Sender) {
		before, peerBefore := pair(t, 0)
		slow, _ := pair(t, 8<<10)
		full, _ := pair(t, 8<<10)
		for _, errno := One(full, make([]byte, 100<<10)); errno == 0; {
			_, errno = One(full, make([]byte, 100))
		}
		left, peer := pair(t, 0)
		_ = syscall.Close(peer)
		after, peerAfter := pair(t, 0)
		messages := []Message{
			{FD: before, Data: []byte("before")},
			{FD: slow, Data: make([]byte, 1<<20)},
			{FD: full, Data: []byte("full")},
			{FD: left, Data: []byte("left")},
			{FD: 1 << 20, Data: []byte("none")},
			{FD: after, Data: []byte("after")},
		}
		s.Send(messages)
		if m := messages[1]; m.Err != 0 || m.N == 0 || m.N == len(m.Data) {
			t.Errorf("slow: sent %d, %v; want a part of it", m.N, m.Err)
		}
		for i, want := range map[int]syscall.Errno{2: syscall.EAGAIN, 3: syscall.EPIPE, 4: syscall.EBADF} {
			if m := messages[i]; m.Err != want || m.N != 0 {
				t.Errorf("%s: sent %d, %v; want %v", m.Data, m.N, m.Err, want)
			}
		}
		for peer, want := range map[int]string{peerBefore: "before", peerAfter: "after"} {
			if got := received(t, peer, len(want)); string(got) != want {
				t.Errorf("%q arrived, want %q", got, want)
			}
		}
	})
}

// TestGivenUp has the io_uring fail: what it did not take is sent all the same, once.
func TestGivenUp(t *testing.T) {
	s := withRing(t)
	_ = syscall.Close(s.ring.fd)
	s.ring.fd = -1
	messages := make([]Message, 3)
	peers := make([]int, 3)
	for i := range messages {
		messages[i].FD, peers[i] = pair(t, 0)
		messages[i].Data = []byte{byte(i)}
	}
	s.Send(messages)
	if s.ring != nil {
		t.Error("a broken io_uring is kept")
	}
	s.Send(messages)
	for i, peer := range peers {
		if got := received(t, peer, 2); messages[i].Err != 0 || !bytes.Equal(got, []byte{byte(i), byte(i)}) {
			t.Errorf("%d: %v, %v", i, got, messages[i].Err)
		}
		if n, _, err := syscall.Recvfrom(peer, make([]byte, 1), syscall.MSG_DONTWAIT); err != syscall.EAGAIN { //nolint:errorlint // an errno
			t.Errorf("%d: %d bytes more, %v", i, n, err)
		}
	}
}

func TestSendAllocatesNothing(t *testing.T) {
	senders(t, func(t *testing.T, s *Sender) {
		messages := make([]Message, 4)
		peers := make([]int, len(messages))
		for i := range messages {
			messages[i].FD, peers[i] = pair(t, 0)
			messages[i].Data = []byte("x")
		}
		in := make([]byte, 16)
		if n := testing.AllocsPerRun(100, func() {
			s.Send(messages)
			for _, fd := range peers {
				if n, err := syscall.Read(fd, in); n != 1 {
					t.Fatal(n, err)
				}
			}
		}); n > 0 {
			t.Errorf("%v allocations", n)
		}
	})
}
