package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
)

// An Order asks the writer of a log to let something go, or to keep it. It
// comes as a file in DIR/request, from whoever may write there: the writer may
// be another process. docs/format/request.md describes the files.
type Order struct {
	Kind   string `json:"kind"`             // prune, hold, release or erase
	By     string `json:"by,omitempty"`     // who asks
	Reason string `json:"reason,omitempty"` // why

	What  string `json:"what,omitempty"`  // prune: leaves (and values), or values
	Until int64  `json:"until,omitempty"` // prune: entries before this index, as far as whole segments go

	Case string `json:"case,omitempty"` // hold, release: name of the hold
	Hold *Hold  `json:"hold,omitempty"`

	Entries []int64 `json:"entries,omitempty"` // erase: ascending
}

// A Hold says what must stay. Empty fields do not select; those that are set
// select together. A hold without any holds everything.
type Hold struct {
	From     int64  `json:"from,omitempty"`     // entries from this index
	To       int64  `json:"to,omitempty"`       // up to, without, this; 0: without end
	Since    int64  `json:"since,omitempty"`    // entries from this time, Unix nanoseconds
	Until    int64  `json:"until,omitempty"`    // up to this time; 0: without end
	User     string `json:"user,omitempty"`     // sessions of this user
	Database string `json:"database,omitempty"` // sessions in this database
}

// An Answer is what became of an order.
type Answer struct {
	OK     bool   `json:"ok"`
	Text   string `json:"text"`   // what was done, or why not
	Pruned int64  `json:"pruned"` // prune: entries before this index, or their values, are gone
	Frames int    `json:"frames"` // erase: pieces of value files that were written anew
}

const (
	maxOrder    = 16 << 20
	requestMode = 0o600
	// ordersEvery is how often the writer looks for orders.
	ordersEvery = 300 * time.Millisecond
	// staleAfter is how old a file must be that its writer is not taken to be still at.
	staleAfter = time.Hour
	// retainEvery is how often it looks what is older than it may be.
	retainEvery = 10 * time.Minute
	// clockPatience is how long nothing is too old after the clock was set forward by more than clockSet.
	clockPatience, clockSet = 24 * time.Hour, time.Minute
)

// WitnessMode is the fact of a start entry that says whether the log has witnesses: with "off" it has none. What
// went before stays true for a start that does not say, as of a command that opens the log.
const WitnessMode = "witness_mode"

// Retain says how long a log keeps things. Zero fields are without limit.
type Retain struct {
	Age        time.Duration // of leaves and all
	ValueAge   time.Duration // of values
	Bytes      int64         // of all segments, leaves and values
	ValueBytes int64         // of all value files
}

// A clerk carries orders out, one at a time, in a goroutine of its own.
type clerk struct {
	l      *Ledger
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex // held while an order is carried out
	holds    map[string]hold
	sessions map[uint64]struct{} // that go on
	deaf     bool                // orders cannot be read, and the log says so
	watched  bool                // the last start that said so had witnesses
	scanned  int64               // all this is known of entries before this
	clock    clock
	ageless  time.Time // until then nothing is too old; see clockPatience
}

type hold struct {
	Hold
	entry int64 // that says so
}

func (k *clerk) init(l *Ledger) {
	k.l = l
	k.ctx, k.cancel = context.WithCancel(context.Background())
	k.done = make(chan struct{})
	k.clock = clock{now: l.cfg.Now, wall: l.cfg.Now(), mono: time.Now()}
	k.holds, k.sessions = map[string]hold{}, map[uint64]struct{}{}
}

func (k *clerk) stop() {
	k.cancel()
	<-k.done
}

func (k *clerk) run() {
	defer close(k.done)
	if k.l.cfg.byHand {
		<-k.ctx.Done()
		return
	}
	k.tidy()
	look := time.NewTicker(ordersEvery)
	defer look.Stop()
	retain := time.NewTimer(time.Second)
	defer retain.Stop()
	for {
		select {
		case <-k.ctx.Done():
			return
		case <-look.C:
			k.orders()
		case <-retain.C:
			if err := k.retain(k.ctx); err != nil && k.ctx.Err() == nil {
				k.l.cfg.Logger.Error("what is too old was not pruned", slog.Any("error", err))
			}
			retain.Reset(retainEvery)
		}
	}
}

// tidy removes temporary files that crashes left among the orders: the writer's, and those that a command
// began at least staleAfter ago, by the time their names begin with.
func (k *clerk) tidy() {
	dir := k.l.path("request")
	names, err := k.l.cfg.FS.List(dir)
	if err != nil {
		return // there is no directory as long as nobody asked for anything
	}
	for _, name := range names {
		id, orders := strings.CutSuffix(name, ".json.tmp")
		began, _, _ := strings.Cut(id, "-")
		t, err := strconv.ParseInt(began, 10, 64)
		if !strings.HasSuffix(name, ".done.tmp") && (!orders || err != nil || t > k.l.cfg.Now()-int64(staleAfter)) {
			continue
		}
		if err := k.l.cfg.FS.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			k.l.cfg.Logger.Warn("what a crash left stays", slog.Any("error", err))
		}
	}
}

// orders carries out the orders that are there. An order whose carrying out a
// crash ended is still there at the next start.
func (k *clerk) orders() {
	dir := k.l.path("request")
	if link, err := k.l.cfg.FS.IsLink(dir); link || err != nil {
		return // an order is removed when it was carried out; what a link leads to is none, and the next start says so
	}
	names, err := k.l.cfg.FS.List(dir)
	if err != nil { // there is no directory as long as nobody asked for anything
		if !k.deaf && !errors.Is(err, fs.ErrNotExist) {
			k.l.cfg.Logger.Error("orders cannot be read: none is carried out", slog.Any("error", err))
			k.deaf = true
		}
		return
	}
	k.deaf = false
	for _, name := range names {
		id, ok := strings.CutSuffix(name, ".json")
		if !ok {
			continue
		}
		b, err := durable.ReadFile(k.l.cfg.FS, filepath.Join(dir, name), maxOrder)
		var o Order
		if err == nil {
			d := json.NewDecoder(bytes.NewReader(b))
			d.DisallowUnknownFields()
			if err = d.Decode(&o); err != nil {
				err = fmt.Errorf("the order is malformed: %w", err)
			}
		}
		var a *Answer
		if err == nil {
			a, err = k.do(k.ctx, &o)
		}
		if k.ctx.Err() != nil || k.l.Err() != nil {
			return // the next start goes on with it
		}
		if err != nil {
			a = &Answer{Text: err.Error()}
		}
		k.l.cfg.Logger.Info("an order was carried out", slog.String("kind", o.Kind), slog.Bool("ok", a.OK), slog.String("answer", a.Text))
		if err := k.answer(filepath.Join(dir, id), a); err != nil {
			k.l.cfg.Logger.Error("an order was not answered", slog.Any("error", err))
			return
		}
	}
}

// answer puts the answer in the place of the order.
func (k *clerk) answer(name string, a *Answer) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(k.l.cfg.FS, name+".done", b, requestMode); err != nil {
		return err
	}
	// If we die here: the order is carried out again, which does no harm.
	if err := k.l.cfg.FS.Remove(name + ".json"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return k.l.cfg.FS.SyncDir(filepath.Dir(name))
}

// Do carries out an order on the caller's goroutine.
func (l *Ledger) Do(ctx context.Context, o *Order) (*Answer, error) { return l.clerk.do(ctx, o) }

func (k *clerk) do(ctx context.Context, o *Order) (*Answer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if o.Kind == "prune" || o.Kind == "erase" {
		if err := k.learn(); err != nil {
			return nil, err
		}
		if k.watched && k.l.cfg.Witness == nil {
			return nil, errors.New("the log has witnesses, as its last start says: nothing goes before they were asked, so give the order to its writer, or start that without them")
		}
	}
	switch o.Kind {
	case "prune":
		return k.prune(ctx, o)
	case "hold", "release":
		return k.hold(ctx, o)
	case "erase":
		return k.erase(ctx, o)
	}
	return nil, fmt.Errorf("unknown order %.40q", o.Kind)
}

// say records an entry about an order and returns when a signed checkpoint
// covers it.
func (k *clerk) say(ctx context.Context, kind event.Kind, o *Order, facts ...event.Fact) (index int64, err error) {
	for _, f := range []event.Fact{{Key: "by", Val: o.By}, {Key: "reason", Val: o.Reason}} {
		if f.Val != "" {
			facts = append(facts, f)
		}
	}
	if index, err = k.l.Emit(&event.Leaf{Kind: kind, Facts: facts}, nil); err != nil {
		return 0, err
	}
	if err := k.l.await(ctx, index); err != nil {
		return 0, err
	}
	return index, k.l.sign()
}

// await waits until an entry is durable.
func (l *Ledger) await(ctx context.Context, index int64) error {
	l.Want(index)
	for wait := 50 * time.Microsecond; l.Durable() <= index; {
		if err := l.Err(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, 20*time.Millisecond)
	}
	return nil
}
