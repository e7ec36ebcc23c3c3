package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/config"
	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/query"
	"github.com/pgnotary/pgnotary/internal/session"
	"github.com/pgnotary/pgnotary/internal/tree"
	"github.com/pgnotary/pgnotary/internal/witness"
)

// graceForWitnesses is how long a checkpoint waits for the other witnesses
// once enough have cosigned it, if no statement waits for it.
const graceForWitnesses = time.Second

// witnesses is the ledger's Witness: the feeder, and what an alarm does here.
type witnesses struct {
	dir    string
	policy *checkpoint.Policy
	sync   bool // statements wait for the quorum
	lax    bool // start although too few answer
	log    *slog.Logger
	keys   *keys

	feeder  *witness.Feeder // from Start on
	started atomic.Bool     // Start succeeded
	opened  chan struct{}   // closed when ledger is set
	ledger  *ledger.Ledger
}

// newWitnesses reads the policy, or returns nil if the settings name none.
func newWitnesses(s *settings, k *keys, log *slog.Logger) (*witnesses, error) {
	if s.Policy == "" {
		return nil, nil
	}
	policy, err := readPolicy(s.Policy)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	w := &witnesses{
		dir: s.Data, policy: policy, keys: k, log: log, opened: make(chan struct{}),
		sync: s.WitnessMode == config.WitnessSync, lax: s.WitnessUnreachable == config.UnreachableStart,
	}
	urls := 0
	for _, m := range policy.Witnesses() {
		if m.URL != "" {
			urls++
		}
	}
	switch {
	case w.sync && !policy.HasQuorum():
		return nil, fmt.Errorf("witness-mode is sync, but %s asks for no quorum: nothing would be waited for", s.Policy)
	case policy.HasQuorum() && urls == 0:
		return nil, fmt.Errorf("%s asks for a quorum, but gives no witness a URL", s.Policy)
	}
	return w, nil
}

// Start implements ledger.Witness.
func (w *witnesses) Start(ctx context.Context, signed []byte) error {
	view, err := query.Open(w.dir)
	if err != nil {
		return err
	}
	vkeys := view.VKeys()
	if next, err := w.keys.nextVKey(w.dir, view.Origin()); err != nil {
		return err
	} else if next != "" && next != view.VKey() {
		vkeys = append(vkeys[:len(vkeys):len(vkeys)], next)
	}
	policy, err := w.policy.ForLog(vkeys...)
	if err != nil {
		return err
	}
	grace := graceForWitnesses
	if w.sync {
		grace = 0
	}
	w.feeder = witness.NewFeeder(witness.FeederConfig{
		Policy: policy, Grace: grace, Alarm: w.alarm, Logger: w.log, HeldFile: filepath.Join(w.dir, "held"),
		Consistency: func(old, size int64) ([][32]byte, error) { return tree.Consistency(view, old, size) },
	})
	err = w.feeder.Start(ctx, signed)
	if errors.Is(err, witness.ErrUnreachable) {
		if !w.lax {
			return withHint(err, `a log that was put back to an earlier state could fork here unnoticed; --witness-unreachable start starts all the same`)
		}
		w.log.Warn("starting without the witnesses", slog.Any("error", err))
		err = nil
	}
	if err == nil {
		w.started.Store(true)
	}
	return err
}

// Cosign implements ledger.Witness.
func (w *witnesses) Cosign(ctx context.Context, signed []byte) ([]byte, bool) {
	return w.feeder.Cosign(ctx, signed)
}

// Held implements ledger.Witness.
func (w *witnesses) Held() [][2]int64 { return w.feeder.Held() }

// attach says which log the alarms are recorded in.
func (w *witnesses) attach(l *ledger.Ledger) {
	w.ledger = l
	close(w.opened)
}

// alarm keeps the evidence, says it loudly, and records it, unless the log is
// refused to be opened for it.
func (w *witnesses) alarm(a witness.Alarm) {
	hash, file, err := w.keepEvidence(a.Evidence)
	if err != nil {
		w.log.Error("cannot keep the evidence", slog.Any("error", err), slog.String("content", string(a.Evidence)))
	}
	w.log.Error("ALARM: a witness does not agree with this log: it was put back to an earlier state, or somebody else has its key",
		slog.String("alarm", a.Kind), slog.String("witness", a.Witness), slog.Int64("size", a.Size), slog.Int64("held", a.Held),
		slog.String("answer", a.Why), slog.String("evidence", file))
	if !w.started.Load() {
		return
	}
	<-w.opened
	facts := []event.Fact{
		{Key: "reason", Val: "witness_" + a.Kind},
		{Key: "witness", Val: a.Witness},
		{Key: "size", Val: strconv.FormatInt(a.Size, 10)},
	}
	if a.Held >= 0 {
		facts = append(facts, event.Fact{Key: "held", Val: strconv.FormatInt(a.Held, 10)})
	}
	if err == nil {
		facts = append(facts, event.Fact{Key: "evidence", Val: hash})
	}
	if _, err := w.ledger.Emit(&event.Leaf{Kind: event.KindViolation, Facts: facts}, nil); err != nil {
		w.log.Error("cannot record the alarm", slog.Any("error", err))
	}
}

// maxEvidence bounds the files of evidence: a service manager may start a log
// that its witnesses refuse again and again.
const maxEvidence = 100

func (w *witnesses) keepEvidence(text []byte) (hash, file string, err error) {
	hash = fmt.Sprintf("%x", sha256.Sum256(text))
	dir := filepath.Join(w.dir, "evidence")
	file = filepath.Join(dir, hash)
	if err := durable.MkdirAll(durable.OS, dir, 0o700); err != nil {
		return hash, file, err
	}
	names, err := durable.OS.List(dir)
	if err == nil && len(names) >= maxEvidence {
		err = fmt.Errorf("there are %d files of evidence already", len(names))
	}
	if err != nil {
		return hash, file, err
	}
	return hash, file, durable.WriteFile(durable.OS, file, text, 0o600)
}

// witnessedRecorder is the ledger as the relay sees it in witness-mode sync: an
// entry counts as durable when enough witnesses cosigned a checkpoint over it.
type witnessedRecorder struct{ r recorder }

func (w witnessedRecorder) Append(leaf, value []byte) (int64, error) { return w.r.Append(leaf, value) }
func (w witnessedRecorder) NewBlob() (session.Blob, error)           { return w.r.NewBlob() }
func (w witnessedRecorder) AppendBlob(leaf []byte, b session.Blob) (int64, error) {
	return w.r.AppendBlob(leaf, b)
}
func (w witnessedRecorder) Want(index int64)     { w.r.WantWitnessed(index) }
func (w witnessedRecorder) TryCommit(int64) bool { return false } // a commit is not all that is waited for
func (w witnessedRecorder) Attend()              { w.r.Attend() }
func (w witnessedRecorder) Tend() int            { return w.r.Tend() }
func (w witnessedRecorder) Leave()               { w.r.Leave() }
func (w witnessedRecorder) Durable() int64       { return w.r.Witnessed() }
func (w witnessedRecorder) Backlog() int64       { return w.r.Backlog() }
func (w witnessedRecorder) Subscribe(f func(durable int64, err error)) {
	w.r.SubscribeWitnessed(f)
}

// servedLog is the log as HTTP shows it to others: with the newest checkpoint
// that enough witnesses cosigned, if there is to be one.
type servedLog struct{ *query.Log }

// Checkpoint implements web.Log.
func (l servedLog) Checkpoint() ([]byte, error) { return l.Witnessed() }

// witnessMode is off without a policy.
func (s *settings) witnessMode() string {
	if s.Policy == "" {
		return "off"
	}
	return s.WitnessMode
}
