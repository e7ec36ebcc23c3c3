package ledger

import (
	"fmt"
	"strconv"
	"time"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
)

// keep is the keeper: it signs checkpoints and makes heartbeat entries until
// Close. A heartbeat makes the log grow, so an idle log is signed as well.
func (l *Ledger) keep() {
	defer close(l.keepDone)
	sign := time.NewTicker(l.cfg.CheckpointEvery)
	defer sign.Stop()
	beat := time.NewTicker(l.cfg.HeartbeatEvery)
	defer beat.Stop()
	clock := clock{now: l.cfg.Now, wall: l.cfg.Now(), mono: time.Now()}
	for {
		err := l.Err()
		select {
		case <-l.stopKeep:
			return
		case <-sign.C:
			if err == nil {
				err = l.sign()
			}
		case <-beat.C:
			if err == nil {
				err = l.heartbeat(&clock)
			}
		}
		if err != nil {
			l.fail(err)
			return
		}
	}
}

// sign signs a checkpoint over what is durable, if that grew.
func (l *Ledger) sign() error {
	l.ck.Lock()
	defer l.ck.Unlock()
	l.pub.Lock()
	size, root := l.pub.size, l.pub.root
	l.pub.Unlock()
	if size <= l.ck.size {
		return nil
	}
	signed, err := checkpoint.Sign(l.signer, l.info.Origin, size, root)
	if err != nil {
		return err
	}
	// If we die in here: the old checkpoint is there, or the new one. Both are
	// true, since the entries were durable before.
	if err := durable.WriteFile(l.cfg.FS, l.path("checkpoint"), signed, 0o600); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	l.ck.size, l.ck.signed = size, signed
	l.askWitness()
	l.signed.Store(size)
	l.sealer.poke()
	return nil
}

// maxSkew is how far the wall clock may run from the monotonic one between
// two heartbeats without being mentioned.
const maxSkew = 100 * time.Millisecond

// clock compares the two clocks.
type clock struct {
	now  func() int64
	wall int64
	mono time.Time
}

// step returns by how much the wall clock was moved since the last call.
func (c *clock) step() time.Duration {
	wall, mono := c.now(), time.Now()
	step := time.Duration(wall-c.wall) - mono.Sub(c.mono)
	c.wall, c.mono = wall, mono
	return step
}

func (l *Ledger) heartbeat(c *clock) error {
	var facts []event.Fact
	if step := c.step(); step.Abs() > maxSkew {
		facts = append(facts, event.Fact{Key: "clock_step", Val: step.Round(time.Millisecond).String()})
	}
	if l.cfg.Sessions != nil {
		facts = append(facts, event.Fact{Key: "sessions", Val: strconv.Itoa(l.cfg.Sessions())})
	}
	_, err := l.Emit(&event.Leaf{Kind: event.KindHeartbeat, Facts: facts}, nil)
	return err
}

// Close records the stop, makes everything durable, signs it, and leaves the
// files as an orderly end does. If recording had ended by an error, it
// returns that error and leaves the files to the next start.
func (l *Ledger) Close() error {
	l.closeOnce.Do(func() { l.closeErr = l.close() })
	return l.closeErr
}

func (l *Ledger) close() error {
	close(l.stopKeep)
	l.clerk.stop()
	l.sealer.stop()
	<-l.keepDone
	<-l.witnessDone
	stop := event.Leaf{Kind: event.KindStop, Time: l.cfg.Now()}
	l.mu.Lock()
	_, err := l.appendLocked(stop.Append(nil), nil) // the last one: from here on it is closed
	l.closing = true
	l.mu.Unlock()
	l.kick()
	<-l.done
	l.lazy.Stop()
	if err == nil {
		err = l.Err()
	}
	// If we die behind this: the checkpoint is over everything, and the zeros
	// behind the last batch say that the file was not trimmed.
	if err == nil {
		err = l.sign()
	}
	if err == nil {
		err = l.finishWitness()
	}
	// If we die behind this: nothing is missing. After an error the file is
	// not trimmed, so that the next start recovers the log and says so.
	if err == nil {
		err = l.w.Close()
	}
	l.w.Abandon()
	if lerr := l.lock.Close(); err == nil {
		err = lerr
	}
	return err
}
