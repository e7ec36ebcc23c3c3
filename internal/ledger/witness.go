package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/durable"
)

// A Witness has others cosign the log's checkpoints. It belongs to one ledger,
// which calls one of Start and Cosign at a time.
type Witness interface {
	// Start is given the last checkpoint of a log that is being opened, before
	// anything new is recorded. An error refuses the start.
	Start(ctx context.Context, signed []byte) error
	// Cosign returns a checkpoint with the cosignatures there are by the time
	// it returns, and whether these are enough. It returns soon after ctx ends.
	Cosign(ctx context.Context, signed []byte) (cosigned []byte, enough bool)
	// Held returns the least and the largest size that each witness may hold which is known. It may be called at any time.
	Held() [][2]int64
}

// cosignTimeout bounds the wait for witnesses for one checkpoint.
const cosignTimeout = 10 * time.Second

// retryPause is the pause before witnesses are asked again when there were
// too few and something waits for them.
const retryPause = 200 * time.Millisecond

// Witnessed returns the number of entries that enough witnesses have
// cosigned: those with a smaller index. Without a Witness it is 0.
func (l *Ledger) Witnessed() int64 { return l.witnessed.Load() }

// SubscribeWitnessed is Subscribe for Witnessed: f is called when the witnessed
// size grew, and once with the error that ended recording.
func (l *Ledger) SubscribeWitnessed(f func(witnessed int64, err error)) {
	l.mu.Lock()
	l.witnessSubs = append(l.witnessSubs[:len(l.witnessSubs):len(l.witnessSubs)], f)
	l.mu.Unlock()
}

// WantWitnessed is Want, and then asks that witnesses cosign the entry at
// index as soon as it is durable. Entries nobody wants witnessed are so with the
// next checkpoint.
func (l *Ledger) WantWitnessed(index int64) {
	for {
		w := l.wantWitnessed.Load()
		if index < w || l.wantWitnessed.CompareAndSwap(w, index+1) {
			break
		}
	}
	if index < l.durable.Load() {
		l.askWitness()
		return
	}
	l.Want(index)
}

// awaitWitnessed waits until enough witnesses cosigned a checkpoint over an
// entry, for some time. Without a Witness it does not wait.
func (l *Ledger) awaitWitnessed(ctx context.Context, index int64) error {
	if l.cfg.Witness == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 3*cosignTimeout)
	defer cancel()
	l.WantWitnessed(index)
	for l.Witnessed() <= index {
		if err := l.Err(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("too few witnesses cosigned entry %d, so nothing is done yet: %w", index, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// askWitness wakes the goroutine below. The channel has room for one token.
func (l *Ledger) askWitness() {
	select {
	case l.askNow <- struct{}{}:
	default:
	}
}

// committed is told of each commit, if there is a Witness.
func (l *Ledger) committed(durable int64, err error) {
	if err != nil {
		l.tellWitnessed(err)
		return
	}
	if want := l.wantWitnessed.Load(); want > l.witnessed.Load() && durable > l.witnessed.Load() {
		l.askWitness()
	}
}

func (l *Ledger) tellWitnessed(err error) {
	l.mu.Lock()
	subs := l.witnessSubs
	l.mu.Unlock()
	for _, f := range subs {
		f(l.witnessed.Load(), err)
	}
}

// witness is the goroutine that has checkpoints cosigned, until Close. One
// checkpoint is on its way at any time; what was signed meanwhile is
// skipped but for the newest.
func (l *Ledger) witness() {
	defer close(l.witnessDone)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-l.stopKeep
		cancel()
	}()
	for {
		select {
		case <-l.stopKeep:
			return
		case <-l.askNow:
		}
		if l.Err() != nil {
			continue
		}
		err := l.sign() // if somebody waits, not only once a second
		enough := true
		if err == nil {
			enough, err = l.cosign(ctx, false)
		}
		if err != nil {
			l.fail(err)
			l.tellWitnessed(l.Err())
			return
		}
		if !enough && l.wantWitnessed.Load() > l.witnessed.Load() {
			select {
			case <-l.stopKeep:
				return
			case <-time.After(retryPause):
				l.askWitness()
			}
		}
	}
}

// cosign has the newest checkpoint cosigned and keeps what came of it. last
// says that there will be none after it.
func (l *Ledger) cosign(ctx context.Context, last bool) (enough bool, err error) {
	l.ck.Lock()
	signed, size := l.ck.signed, l.ck.size
	l.ck.Unlock()
	ctx, cancel := context.WithTimeout(ctx, cosignTimeout)
	defer cancel()
	cosigned, enough := l.cfg.Witness.Cosign(ctx, signed)
	if bytes.Equal(cosigned, signed) {
		return enough, nil // nothing was added; another policy may ask for nothing
	}
	// If we die in here: the checkpoint is there without cosignatures, which it
	// is often; those of the one before, or of this one, are in this file.
	if enough {
		if err := durable.WriteFile(l.cfg.FS, l.path("witnessed"), cosigned, 0o600); err != nil {
			return false, fmt.Errorf("write cosigned checkpoint: %w", err)
		}
		// Now it is true: say so. Statements are let go by what this says.
		if size > l.witnessed.Load() {
			l.witnessed.Store(size)
			l.tellWitnessed(nil)
		}
	}
	if len(l.askNow) > 0 && !last {
		return enough, nil // somebody waits for the next one: that will do
	}
	l.ck.Lock()
	defer l.ck.Unlock()
	if l.ck.size == size {
		l.ck.signed = cosigned
		if err := durable.WriteFile(l.cfg.FS, l.path("checkpoint"), cosigned, 0o600); err != nil {
			return false, fmt.Errorf("write cosigned checkpoint: %w", err)
		}
	}
	return enough, nil
}

// startWitness holds the log, as it was left, against the last checkpoint that
// was cosigned, and asks the witnesses about it. It is called before the
// journal is made ready, so that a refusal changes no file.
func (l *Ledger) startWitness() error {
	b, err := durable.ReadFile(l.cfg.FS, l.path("witnessed"), checkpoint.MaxBytes)
	if err == nil {
		c, _, err := checkpoint.OpenAny(b, l.vkeys)
		if err != nil {
			return fmt.Errorf("%s has been altered: %w", l.path("witnessed"), err)
		}
		// It is written after the checkpoint that it is of, whatever crash comes.
		if c.Size > l.ck.size {
			return fmt.Errorf("%w: it is over %d entries, and witnesses cosigned %d (%s): put the newest state back",
				ErrRolledBack, l.ck.size, c.Size, l.path("witnessed"))
		}
		if l.cfg.Witness != nil {
			l.witnessed.Store(c.Size)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the witnessed checkpoint: %w", err)
	}
	if l.cfg.Witness == nil {
		return nil
	}
	if err := l.cfg.Witness.Start(context.Background(), l.ck.signed); err != nil {
		return fmt.Errorf("ask the witnesses: %w", err)
	}
	l.subs = append(l.subs, l.committed)
	return nil
}

// finishWitness has the last checkpoint cosigned, as far as the witnesses
// answer. It is called when the goroutine above has ended.
func (l *Ledger) finishWitness() error {
	if l.cfg.Witness == nil {
		return nil
	}
	enough, err := l.cosign(context.Background(), true)
	if err == nil && !enough {
		l.cfg.Logger.Warn("too few witnesses cosigned the last checkpoint", slog.Int64("size", l.ck.size))
	}
	return err
}
