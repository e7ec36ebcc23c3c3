package witness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
)

// Kinds of alarms.
const (
	AlarmFork     = "fork"     // a witness says that it cosigned another history of this log
	AlarmRollback = "rollback" // a witness cosigned a larger tree than this log ever signed
)

// An Alarm says that a witness and the log do not agree. Somebody has the
// log's key, an old state of the log was put back, or the witness errs.
type Alarm struct {
	Kind    string // AlarmFork or AlarmRollback
	Witness string // its name in the policy
	Size    int64  // of the log's checkpoint
	Held    int64  // size the witness holds, -1 if it did not say
	Why     string // one line
	// Evidence is one line of JSON (see Evidence); if the witness serves its
	// latest checkpoint, that is in it.
	Evidence []byte
}

// Evidence is what is kept of an alarm. The two checkpoints prove it to
// anybody if both are signed by the log and neither continues the other.
type Evidence struct {
	Kind    string `json:"kind"`
	Witness string `json:"witness"`
	Time    string `json:"time"` // RFC 3339
	Answer  string `json:"answer"`
	Ours    string `json:"ours"`             // the log's checkpoint
	Theirs  string `json:"theirs,omitempty"` // what the witness serves
}

// FeederConfig are the parameters of a Feeder. All must be set but Grace and HeldFile.
type FeederConfig struct {
	Policy *checkpoint.Policy // of this log: checkpoint.Policy.ForLog
	// Consistency returns the proof that the tree of size old is a prefix of
	// that of size.
	Consistency func(old, size int64) ([][32]byte, error)
	// Grace is how long to wait for the other witnesses once there is a quorum.
	Grace time.Duration
	// HeldFile is where what the witnesses hold is kept for the next start; empty for nowhere.
	HeldFile string
	// Alarm is called, from several goroutines, when a witness begins to
	// disagree with the log. It may take its time.
	Alarm  func(Alarm)
	Logger *slog.Logger
}

// A Feeder keeps the witnesses of a policy at the tip of one log.
type Feeder struct {
	cfg     FeederConfig
	members []*member
	stop    chan struct{}
	held    held

	// Counts for metrics.
	Cosignatures atomic.Int64 // received
	Failures     atomic.Int64 // requests without one
	Alarms       atomic.Int64

	quorum atomic.Bool  // the last result of Cosign
	asked  atomic.Int64 // when the call of Cosign under way began, Unix nanoseconds; 0 if there is none
}

// patience is how long witnesses may take to cosign a checkpoint before they count as not there.
const patience = 2 * time.Second

// Quorum reports whether enough witnesses cosign: they did when asked last, and
// do not leave a call of Cosign waiting for long. Without a grace, that is.
func (f *Feeder) Quorum(now time.Time) bool {
	asked := f.asked.Load()
	return f.quorum.Load() && (asked == 0 || now.UnixNano()-asked < int64(patience))
}

// member is one witness. Its goroutine owns the fields below the line.
type member struct {
	checkpoint.Witness
	client *Client
	next   chan job // the newest checkpoint to cosign; one place

	held  int64    // size it holds as far as is known; -1 if it is not
	alarm bool     // it disagrees
	down  bool     // it did not answer
	last  struct { // alarm raised
		kind string
		at   time.Time
	}
}

type job struct {
	ctx    context.Context
	signed []byte // with the log's signature only
	size   int64
	done   chan<- result // has room for all
}

// result is what one witness answered.
type result struct {
	witness string
	vkey    string
	lines   []byte
	err     error
}

// NewFeeder returns the feeder of the policy's witnesses that have a URL, and
// starts a goroutine for each. Close ends them.
func NewFeeder(cfg FeederConfig) *Feeder {
	f := &Feeder{cfg: cfg, stop: make(chan struct{})}
	for _, w := range cfg.Policy.Witnesses() {
		if w.URL == "" {
			continue
		}
		f.members = append(f.members, &member{Witness: w, client: NewClient(w.URL), next: make(chan job, 1), held: -1})
	}
	if err := f.held.load(cfg.HeldFile); err != nil {
		cfg.Logger.Warn("what the witnesses hold is not known until they answer", slog.Any("error", err))
	}
	// A witness that the policy names no more needs nothing.
	maps.DeleteFunc(f.held.known, func(vkey string, _ *span) bool {
		return !slices.ContainsFunc(f.members, func(m *member) bool { return m.VKey == vkey })
	})
	for _, m := range f.members {
		go f.run(m)
	}
	return f
}

// Len returns the number of witnesses it asks.
func (f *Feeder) Len() int { return len(f.members) }

// Close ends the feeder. No other method may be running.
func (f *Feeder) Close() { close(f.stop) }

func (f *Feeder) run(m *member) {
	for {
		select {
		case <-f.stop:
			return
		case j := <-m.next:
			lines, err := f.update(j, m)
			f.note(m, err)
			j.done <- result{m.Name, m.VKey, lines, err}
		}
	}
}

func (f *Feeder) holds(m *member, size int64) {
	m.held = size
	f.kept(f.held.holds(m.VKey, size))
}

// kept takes the error of writing down what a witness holds. The next answer has it tried again.
func (f *Feeder) kept(err error) {
	if err != nil {
		f.cfg.Logger.Error("what the witnesses hold is not kept", slog.Any("error", err))
	}
}

// Held returns, for each witness that has answered, in this process or before it as far as that was kept, the least and
// the largest size it may hold.
func (f *Feeder) Held() [][2]int64 { return f.held.sizes() }

// note counts, and tells when a witness goes and comes back.
func (f *Feeder) note(m *member, err error) {
	if err == nil {
		f.Cosignatures.Add(1)
		if m.down {
			f.cfg.Logger.Info("the witness is back", slog.String("witness", m.Name))
		}
		m.down, m.alarm = false, false
		return
	}
	f.Failures.Add(1)
	f.kept(f.held.lost(m.VKey))
	if !m.down && !m.alarm {
		m.down = true
		f.cfg.Logger.Warn("no cosignature", slog.String("witness", m.Name), slog.Any("error", err))
	}
}

// Cosign asks all witnesses to cosign a checkpoint of the log and returns it
// with the cosignatures that came before ctx ended, and whether they fulfil the
// policy. Only one call at a time; sizes never fall.
func (f *Feeder) Cosign(ctx context.Context, signed []byte) (cosigned []byte, quorum bool) {
	f.asked.Store(time.Now().UnixNano())
	cosigned, quorum, _ = f.ask(ctx, signed, f.cfg.Grace)
	f.quorum.Store(quorum)
	f.asked.Store(0)
	return cosigned, quorum
}

// ask is Cosign; it also returns the answers that came, and waits for all of
// them for wait after there is a quorum.
func (f *Feeder) ask(ctx context.Context, signed []byte, wait time.Duration) (cosigned []byte, quorum bool, all []result) {
	v, err := f.cfg.Policy.Verify(signed)
	if err != nil && !errors.Is(err, checkpoint.ErrQuorum) {
		f.cfg.Logger.Error("the checkpoint does not fit the policy", slog.Any("error", err))
		return signed, false, nil
	}
	bare, err := checkpoint.SignedBy(signed, v.VKey)
	if err != nil {
		return signed, false, nil
	}
	done := make(chan result, len(f.members))
	for _, m := range f.members {
		select { // what is older and was not begun is of no use any more
		case <-m.next:
		default:
		}
		m.next <- job{ctx, bare, v.Size, done}
	}
	cosigned = signed
	fulfilled := func() bool { _, err := f.cfg.Policy.Verify(cosigned); return err == nil }
	quorum = fulfilled()
	var grace <-chan time.Time
	for len(all) < len(f.members) {
		if quorum && grace == nil {
			t := time.NewTimer(wait)
			defer t.Stop()
			grace = t.C
		}
		select {
		case r := <-done:
			if all = append(all, r); r.err != nil {
				continue
			}
			if with, _, err := checkpoint.AddCosignature(cosigned, r.lines, r.vkey); err == nil {
				cosigned = with
				quorum = quorum || fulfilled()
			}
		case <-grace:
			return cosigned, quorum, all
		case <-ctx.Done():
			return cosigned, quorum, all
		}
	}
	return cosigned, quorum, all
}

// update brings one witness to a checkpoint and returns its cosignature.
func (f *Feeder) update(j job, m *member) (lines []byte, err error) {
	// The request outlives the call of Cosign, so that a slow witness keeps up.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(j.ctx), requestTimeout)
	defer cancel()
	for range 3 {
		old := m.held
		if old < 0 || old > j.size {
			old = j.size // if it holds another one, it says so
		}
		var proof [][32]byte
		if old > 0 && old < j.size {
			if proof, err = f.cfg.Consistency(old, j.size); err != nil {
				return nil, fmt.Errorf("prove consistency with the witness's checkpoint: %w", err)
			}
		}
		f.kept(f.held.asked(m.VKey, j.size))
		lines, err = m.client.Add(ctx, old, proof, j.signed)
		if err == nil {
			if _, _, err = checkpoint.AddCosignature(j.signed, lines, m.VKey); err == nil {
				f.holds(m, j.size)
			}
			return lines, err
		}
		conflict, ok := errors.AsType[*ConflictError](err)
		switch {
		case errors.Is(err, ErrFork):
			f.alarm(ctx, j, m, AlarmFork, -1, err)
			return nil, err
		case !ok:
			return nil, err
		case conflict.Held > j.size:
			f.alarm(ctx, j, m, AlarmRollback, conflict.Held, err)
			return nil, &RollbackError{m.Name, conflict.Held, j.size}
		case conflict.Held == old:
			return nil, fmt.Errorf("the witness contradicts itself: %w", err)
		}
		f.holds(m, conflict.Held)
	}
	return nil, err
}

// A RollbackError says that a witness cosigned a larger tree than the log signed.
type RollbackError struct {
	Witness    string
	Held, Size int64
}

func (e *RollbackError) Error() string {
	return fmt.Sprintf("witness %s cosigned %d entries of this log, which signed only %d: an old state was put back, or another process has its key",
		e.Witness, e.Held, e.Size)
}

// repeatAlarm is how long a witness that agrees and disagrees by turns is
// not told of again.
const repeatAlarm = time.Hour

// alarm raises the alarm once, until the witness agrees again.
func (f *Feeder) alarm(ctx context.Context, j job, m *member, kind string, held int64, why error) {
	if m.alarm {
		return
	}
	m.alarm = true
	if kind == m.last.kind && time.Since(m.last.at) < repeatAlarm {
		return
	}
	m.last.kind, m.last.at = kind, time.Now()
	f.Alarms.Add(1)
	e := Evidence{Kind: kind, Witness: m.VKey, Time: time.Now().UTC().Format(time.RFC3339), Answer: why.Error(), Ours: string(j.signed)}
	origin, _, _ := bytes.Cut(j.signed, []byte("\n"))
	if theirs, err := m.client.Latest(ctx, string(origin)); err == nil {
		e.Theirs = string(theirs)
	}
	text, err := json.Marshal(e)
	if err != nil {
		f.cfg.Logger.Error("cannot write down the evidence", slog.Any("error", err))
	}
	f.cfg.Alarm(Alarm{kind, m.Name, j.size, held, why.Error(), append(text, '\n')})
}

// Start holds a log against its witnesses before it signs anything new. signed
// is its last checkpoint. An error means that it must not go on: a witness
// knows a larger tree or another one (ErrFork, *RollbackError), or too
// few answered (ErrUnreachable).
func (f *Feeder) Start(ctx context.Context, signed []byte) error {
	_, quorum, all := f.ask(ctx, signed, 3*requestTimeout)
	var silent []error
	for _, r := range all {
		_, rollback := errors.AsType[*RollbackError](r.err)
		if rollback || errors.Is(r.err, ErrFork) {
			return fmt.Errorf("witness %s: %w", r.witness, r.err)
		}
		if r.err != nil {
			silent = append(silent, fmt.Errorf("%s: %w", r.witness, r.err))
		}
	}
	if quorum {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, errors.Join(silent...))
}

// ErrUnreachable is returned by Start if too few witnesses answered for a quorum.
var ErrUnreachable = errors.New("too few witnesses answer to know that this is the newest state of the log")
