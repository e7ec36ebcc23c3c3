package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/segment"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// sealRetry is how long the sealer rests after it could not seal, as on a
// full disk. The log goes on meanwhile.
const sealRetry = time.Minute

// A sealer turns complete journal files into segments, one after the other,
// in a goroutine of its own and as far as a signed checkpoint covers them: so
// a start never needs the root of a tree within a segment.
type sealer struct {
	l      *Ledger
	seg    segment.Sealer
	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{} // one token
	done   chan struct{} // closed when run has ended; nil if it was not begun

	failures atomic.Uint64

	work sync.Mutex // held while files of segments change

	mu      sync.Mutex
	bounds  []int64 // where complete files that are not sealed begin, and last where the newest file does
	waiting time.Time
}

func (s *sealer) init(l *Ledger) {
	s.l = l
	s.seg = segment.Sealer{FS: l.cfg.FS, Dir: l.cfg.Dir, Immutable: l.cfg.Immutable}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wake = make(chan struct{}, 1)
	s.done = make(chan struct{})
}

// add notes that the newest journal file begins with entry first.
func (s *sealer) add(first int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bounds = append(s.bounds, first)
}

// poke tells the sealer that there may be something to do.
func (s *sealer) poke() {
	select {
	case s.wake <- struct{}{}:
	default: // it has been told already
	}
}

// stop ends run; what it was at is begun anew by the next start.
func (s *sealer) stop() {
	s.cancel()
	<-s.done
}

func (s *sealer) run() {
	defer close(s.done)
	// Not on a thread of low priority: when the runtime stops the world, all
	// would wait for that thread.
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.wake:
		}
		s.mu.Lock()
		rest := time.Until(s.waiting)
		s.mu.Unlock()
		if rest > 0 || s.l.cfg.byHand {
			continue // the next checkpoint pokes again
		}
		if err := s.sealAll(s.ctx); err != nil && s.ctx.Err() == nil {
			s.l.cfg.Logger.Error("sealing failed; the journal file stays", slog.Any("error", err))
			s.mu.Lock()
			s.waiting = time.Now().Add(sealRetry)
			s.mu.Unlock()
		}
	}
}

// sealAll seals whatever can be.
func (s *sealer) sealAll(ctx context.Context) error {
	s.work.Lock()
	defer s.work.Unlock()
	for {
		s.mu.Lock()
		first, ok := int64(0), len(s.bounds) > 1 && s.bounds[1] <= s.l.signed.Load()
		if ok {
			first = s.bounds[0]
		}
		s.mu.Unlock()
		if !ok {
			return nil
		}
		began := time.Now()
		if err := s.seg.Seal(ctx, first); err != nil {
			if ctx.Err() == nil {
				s.failures.Add(1)
			}
			return err
		}
		s.mu.Lock()
		next := s.bounds[1]
		s.bounds = s.bounds[1:]
		s.mu.Unlock()
		s.l.cfg.Logger.Info("sealed a segment", slog.Int64("first", first), slog.Int64("entries", next-first),
			slog.Duration("elapsed", time.Since(began)))
	}
}

// SealNow signs what is durable and seals all complete journal files that this
// covers, on the caller's goroutine.
func (l *Ledger) SealNow(ctx context.Context) error {
	if err := l.sign(); err != nil {
		return err
	}
	return l.sealer.sealAll(ctx)
}

// SealFailures returns how often sealing a journal file failed; each is tried
// again later, and the file stays until then.
func (l *Ledger) SealFailures() uint64 { return l.sealer.failures.Load() }

// checkSealed makes sure that the journal begins where the last segment ends. Only the file that was
// being sealed can be there in both forms: a segment in the place of a later one is not what a crash leaves.
func (l *Ledger) checkSealed(st *journal.State) error {
	l.sealer.add(st.Files[0])
	segs, err := segment.List(l.cfg.FS, l.cfg.Dir)
	if err != nil {
		return err
	}
	first := st.First
	if n := len(segs); n > 0 && segs[n-1] == first.First && len(st.Files) > 1 {
		segs = segs[:n-1] // its journal file did not go any more: it is sealed anew
	}
	if len(segs) == 0 {
		if first.First != 0 {
			return &journal.DamagedError{File: filepath.Join(l.path("journal"), journal.FileName(0)), Why: "the file is missing, and so is a segment in its place"}
		}
		return nil
	}
	h, err := segment.ReadHeader(l.cfg.FS, l.cfg.Dir, segs[len(segs)-1])
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the last segment went while it was looked at: %w", err)
	} else if err != nil {
		return err
	}
	if h.End() != first.First || h.NextSeq != first.Seq || h.LastCRC != first.PrevCRC || h.NextRoot != first.Root || h.LogID != first.LogID {
		return &journal.DamagedError{
			File: filepath.Join(l.path("journal"), journal.FileName(first.First)), Index: first.First,
			Why: fmt.Sprintf("it does not continue the last segment, which ends before entry %d", h.End()),
		}
	}
	return nil
}

// noSegments makes sure that a log without a journal file has no segment either.
func (l *Ledger) noSegments() error {
	segs, err := segment.List(l.cfg.FS, l.cfg.Dir)
	if err == nil && len(segs) > 0 {
		err = fmt.Errorf("%w: there are segments, and the journal is gone: put it back", ErrRolledBack)
	}
	return err
}

// Rotate ends the current journal file with what was appended so far, so that
// it can be sealed. Since a file ends at a multiple of 256 entries, heartbeat
// entries with the fact "pad" fill it up, and one more begins the next.
func (l *Ledger) Rotate() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	last, err := l.rotateLocked("requested")
	if err == nil {
		l.Want(last)
	}
	return err
}

// rotateLocked does what Rotate says. Called with mu held.
func (l *Ledger) rotateLocked(why string) (last int64, err error) {
	leaf := event.Leaf{Kind: event.KindHeartbeat, Time: l.cfg.Now(), Facts: []event.Fact{{Key: "pad", Val: why}}}
	pad := leaf.Append(nil)
	for l.next%tree.Width != 0 {
		if _, err := l.appendLocked(pad, nil); err != nil {
			return 0, err
		}
	}
	l.cut.Store(l.next)
	leaf.Facts[0].Key = "rotate"
	return l.appendLocked(leaf.Append(nil), nil)
}
