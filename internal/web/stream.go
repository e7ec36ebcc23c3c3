package web

import (
	"errors"
	"net/http"
	"sync"
	"time"
)

const (
	flushAfter     = 50 * time.Millisecond // the longest that what is written waits
	flushBytes     = 32 << 10
	writeTimeout   = 30 * time.Second // for a client to take what is flushed
	heartbeatEvery = 15 * time.Second
)

var errClosed = errors.New("the answer has ended")

// A stream is an answer that is sent bit by bit. write, flush and close are
// for one goroutine; timers flush beside it.
type stream struct {
	clean bool // ending in the middle is no fault

	mu    sync.Mutex
	w     http.ResponseWriter
	rc    *http.ResponseController
	buf   []byte
	err   error // of writing to the client, which ends it
	timer *time.Timer
	beat  *time.Timer
}

// newStream begins the answer. The server's limits on a request as a whole do
// not hold for it: each flush has its own.
func newStream(w http.ResponseWriter, contentType string) *stream {
	s := &stream{w: w, rc: http.NewResponseController(w)}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Accel-Buffering", "no") // a proxy in between shall pass it on at once
	// Not every writer has deadlines; those of net/http do.
	_ = s.rc.SetReadDeadline(time.Time{})
	s.timer = time.AfterFunc(time.Hour, func() { _ = s.flush() })
	s.timer.Stop()
	return s
}

func (s *stream) write(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.buf) == 0 {
		s.timer.Reset(flushAfter)
	}
	if s.buf = append(s.buf, b...); len(s.buf) >= flushBytes {
		s.send()
	}
	return s.err
}

// flush sends what was written, and the head of the answer in any case.
func (s *stream) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.send()
	return s.err
}

// send is flush with mu held.
func (s *stream) send() {
	if s.err != nil {
		return
	}
	_ = s.rc.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, s.err = s.w.Write(s.buf); s.err == nil {
		s.err = s.rc.Flush()
	}
	s.buf = s.buf[:0]
}

// heartbeat writes a comment of Server-Sent Events this often, so that both
// sides notice when the other is gone.
func (s *stream) heartbeat(every time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beat = time.AfterFunc(every, func() {
		_ = s.write([]byte(": \n\n"))
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.beat != nil {
			s.beat.Reset(every)
		}
	})
}

// failed reports whether the client could not be written to.
func (s *stream) failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil
}

// close stops the timers: the answer must not be touched once its handler returned.
func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer.Stop()
	if s.beat != nil {
		s.beat.Stop()
		s.beat = nil
	}
	if s.err == nil {
		s.err = errClosed // for timers that wait for mu
	}
}
