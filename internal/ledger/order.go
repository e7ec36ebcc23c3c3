package ledger

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/segment"
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
	// retainEvery is how often it looks what is older than it may be.
	retainEvery = 10 * time.Minute
)

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

	mu      sync.Mutex // held while an order is carried out
	holds   map[string]hold
	scanned int64 // holds are known of entries before this
}

type hold struct {
	Hold
	entry int64 // that says so
}

func (k *clerk) init(l *Ledger) {
	k.l = l
	k.ctx, k.cancel = context.WithCancel(context.Background())
	k.done = make(chan struct{})
	k.holds = map[string]hold{}
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

// orders carries out the orders that are there. An order whose carrying out a
// crash ended is still there at the next start.
func (k *clerk) orders() {
	dir := k.l.path("request")
	names, err := k.l.cfg.FS.List(dir)
	if err != nil {
		return // there is no directory as long as nobody asked for anything
	}
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

// learn brings the holds up to date with the log: they are nowhere else. A log
// that may not be pruned before the entry of a hold in force still has all of these.
func (k *clerk) learn() error {
	r, err := segment.OpenReaderFS(k.l.cfg.FS, k.l.cfg.Dir)
	if err != nil {
		return err
	}
	mark := []byte(`,"k":"hold"`)
	for e, err := range r.Leaves(max(k.scanned, r.First()), k.l.Durable()) {
		if err != nil {
			return fmt.Errorf("look for holds: %w", err)
		}
		k.scanned = e.Index + 1
		if !bytes.Contains(e.Leaf, mark) {
			continue
		}
		leaf, err := event.Parse(e.Leaf)
		if err != nil || leaf.Kind != event.KindHold {
			continue
		}
		k.note(e.Index, &leaf)
	}
	return nil
}

// note takes a hold entry.
func (k *clerk) note(index int64, leaf *event.Leaf) {
	h := hold{entry: index}
	var name, phase string
	for _, f := range leaf.Facts {
		n, _ := strconv.ParseInt(f.Val, 10, 64) // the writer's own numbers
		switch f.Key {
		case "case":
			name = f.Val
		case "phase":
			phase = f.Val
		case "from":
			h.From = n
		case "to":
			h.To = n
		case "since":
			h.Since = n
		case "until":
			h.Until = n
		case "user":
			h.User = f.Val
		case "database":
			h.Database = f.Val
		}
	}
	if phase == "release" {
		delete(k.holds, name)
	} else {
		k.holds[name] = h
	}
}

func (k *clerk) hold(ctx context.Context, o *Order) (*Answer, error) {
	if o.Case == "" || len(o.Case) > 100 {
		return nil, errors.New("a hold needs a name of at most 100 bytes")
	}
	if err := k.learn(); err != nil {
		return nil, err
	}
	_, known := k.holds[o.Case]
	facts := []event.Fact{{Key: "case", Val: o.Case}, {Key: "phase", Val: o.Kind}}
	switch {
	case o.Kind == "release" && !known:
		return nil, fmt.Errorf("there is no hold %q", o.Case)
	case o.Kind == "hold" && (o.Hold == nil || len(o.Hold.User) > 100 || len(o.Hold.Database) > 100):
		return nil, errors.New("a hold needs to say what it holds")
	case o.Kind == "hold" && known:
		return nil, fmt.Errorf("there is a hold %q already", o.Case)
	case o.Kind == "hold":
		for _, f := range []struct {
			key string
			n   int64
		}{{"from", o.Hold.From}, {"to", o.Hold.To}, {"since", o.Hold.Since}, {"until", o.Hold.Until}} {
			if f.n != 0 {
				facts = append(facts, event.Fact{Key: f.key, Val: strconv.FormatInt(f.n, 10)})
			}
		}
		for _, f := range []event.Fact{{Key: "user", Val: o.Hold.User}, {Key: "database", Val: o.Hold.Database}} {
			if f.Val != "" {
				facts = append(facts, f)
			}
		}
	}
	index, err := k.say(ctx, event.KindHold, o, facts...)
	if err != nil {
		return nil, err
	}
	if err := k.learn(); err != nil {
		return nil, err
	}
	what := "holds"
	if o.Kind == "release" {
		what = "was released"
	}
	return &Answer{OK: true, Text: fmt.Sprintf("%s %s, entry %d says so", o.Case, what, index)}, nil
}

// A holder finds out which entries are held. Sessions are told by their
// admissions, so it is to see these first. What is of a session that it did not
// see an admission of may be anybody's, and counts as held.
type holder struct {
	holds    map[string]hold
	sessions map[uint64][]string // names of the holds of user or database that a session is under
	who      bool                // some hold is by user or database
	all      bool                // it saw the whole log
}

func (k *clerk) holder() *holder {
	h := &holder{holds: k.holds, sessions: map[uint64][]string{}}
	for _, x := range k.holds {
		h.who = h.who || x.User != "" || x.Database != ""
	}
	return h
}

// see learns whose a session is, if that matters and the entry says so.
func (h *holder) see(leaf *event.Leaf) {
	if leaf.Who == nil || leaf.Session == 0 || !h.who {
		return
	}
	var names []string
	for name, x := range h.holds {
		if (x.User != "" || x.Database != "") && (x.User == "" || x.User == leaf.Who.User) && (x.Database == "" || x.Database == leaf.Who.Database) {
			names = append(names, name)
		}
	}
	h.sessions[leaf.Session] = names
}

// ask finds out whose an entry is that does not say so: of a session that began
// before what is there of the log, a later entry may say it.
func (h *holder) ask(r *segment.Reader, size int64, leaf *event.Leaf) error {
	if _, seen := h.sessions[leaf.Session]; seen || h.all || !h.who || leaf.Who != nil || leaf.Session == 0 {
		return nil
	}
	h.all = true
	for e, err := range r.Leaves(r.First(), size) {
		if err != nil {
			return err
		}
		leaf, err := event.Parse(e.Leaf)
		if err != nil {
			return fmt.Errorf("entry %d: %w", e.Index, err)
		}
		h.see(&leaf)
	}
	return nil
}

// held returns the name of a hold that the entry is under, "" if there is none.
func (h *holder) held(index int64, leaf *event.Leaf) string {
	h.see(leaf)
	under, seen := h.sessions[leaf.Session]
	for name, x := range h.holds {
		if index < x.From || x.To != 0 && index >= x.To || leaf.Time < x.Since || x.Until != 0 && leaf.Time > x.Until {
			continue
		}
		if x.User == "" && x.Database == "" || slices.Contains(under, name) || leaf.Session != 0 && !seen {
			return name
		}
	}
	return ""
}

// openSessions follows which sessions go on, and the entries that each may
// still go back to, with where it did last.
type openSessions map[uint64]map[int64]int64

// maxKept bounds the entries that are kept for one session: those it went back
// to last. It has that many statements at hand.
const maxKept = 1024

// see takes the next entry of the log.
func (s openSessions) see(index int64, leaf *event.Leaf) {
	switch leaf.Kind {
	case event.KindStart:
		clear(s) // no session outlives its process
	case event.KindDisconnect:
		delete(s, leaf.Session)
	case event.KindParse, event.KindBind:
		s.use(leaf.Session, index, index)
	}
	for _, ref := range []int64{leaf.Parse, leaf.Bind} {
		if to, ok := event.Index(ref); ok {
			s.use(leaf.Session, to, index)
		}
	}
}

func (s openSessions) use(session uint64, entry, at int64) {
	m := s[session]
	if m == nil {
		m = map[int64]int64{}
		s[session] = m
	}
	m[entry] = at
	if len(m) > 2*maxKept {
		uses := slices.Sorted(maps.Values(m))
		maps.DeleteFunc(m, func(_, at int64) bool { return at < uses[len(uses)-maxKept] })
	}
}

// segments returns the first entries of the segments that are complete: those
// whose journal file is gone.
func (k *clerk) segments() ([]int64, error) {
	segs, err := segment.List(k.l.cfg.FS, k.l.cfg.Dir)
	k.l.sealer.mu.Lock()
	defer k.l.sealer.mu.Unlock()
	for n := len(segs); n > 0 && len(k.l.sealer.bounds) > 0 && segs[n-1] >= k.l.sealer.bounds[0]; n-- {
		segs = segs[:n-1]
	}
	return segs, err
}

// prune lets whole segments go, or their values: those that end before
// o.Until, up to the first one that a hold stops.
func (k *clerk) prune(ctx context.Context, o *Order) (*Answer, error) {
	if o.What != "leaves" && o.What != "values" {
		return nil, fmt.Errorf("prune leaves or values, not %.40q", o.What)
	}
	if err := k.learn(); err != nil {
		return nil, err
	}
	k.l.sealer.work.Lock() // nothing is sealed meanwhile
	defer k.l.sealer.work.Unlock()
	fsys, dir := k.l.cfg.FS, k.l.cfg.Dir
	segs, err := k.segments()
	if err != nil {
		return nil, err
	}
	var list []int64
	var end *segment.Header
	some := o.What == "leaves" // something is there to go
	r, err := segment.OpenReaderFS(fsys, dir)
	if err != nil {
		return nil, err
	}
	holder, open, stopped := k.holder(), openSessions{}, ""
	for i, first := range segs {
		h, err := segment.ReadHeader(fsys, dir, first)
		if err != nil {
			return nil, err
		}
		// The newest segment stays: it takes the copies.
		if h.End() > o.Until || i == len(segs)-1 {
			break
		}
		for name, x := range k.holds {
			if o.What == "leaves" && x.entry < h.End() {
				stopped = name
			}
		}
		// What older segments left here goes, stays or moves on as what is here does.
		if name, err := k.copies(r, first, holder, open); err != nil {
			return nil, err
		} else if name != "" && stopped == "" {
			stopped = name
		}
		for e, err := range r.Leaves(first, h.End()) {
			if err != nil {
				return nil, err
			}
			leaf, err := event.Parse(e.Leaf)
			if err != nil {
				return nil, fmt.Errorf("entry %d: %w", e.Index, err)
			}
			if err := holder.ask(r, k.l.Durable(), &leaf); err != nil {
				return nil, err
			}
			if name := holder.held(e.Index, &leaf); name != "" && stopped == "" {
				stopped = name
			}
			open.see(e.Index, &leaf)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if stopped != "" {
			break
		}
		list, end = append(list, first), h
		if !some {
			_, values, err := segment.Size(fsys, dir, first)
			if err != nil {
				return nil, err
			}
			some = values > 0
		}
	}
	under := ""
	if stopped != "" {
		under = fmt.Sprintf("; the hold %q stopped it there", stopped)
	}
	if end == nil || !some {
		return &Answer{OK: stopped == "", Text: "nothing was pruned" + under, Pruned: r.First()}, nil
	}
	if err := k.keep(ctx, r, open, end.End(), segs[len(segs)-1]); err != nil {
		return nil, err
	}
	index, err := k.say(ctx, event.KindPrune, o, event.Fact{Key: "what", Val: o.What},
		event.Fact{Key: "until", Val: strconv.FormatInt(end.End(), 10)}, event.Fact{Key: "root", Val: hex.EncodeToString(end.NextRoot[:])})
	if err == nil {
		err = k.l.awaitWitnessed(ctx, index)
	}
	if err != nil {
		return nil, err
	}
	// If we die from here on: the entry explains what is gone already, and the
	// order or the next look at what is too old lets the rest go.
	for _, first := range list {
		if err := k.drop(first, o.What == "leaves"); err != nil {
			return nil, err
		}
	}
	return &Answer{
		OK: true, Pruned: end.End(),
		Text: fmt.Sprintf("%s of the entries before %d are gone, entry %d says so%s", o.What, end.End(), index, under),
	}, nil
}

// copies shows what a segment has copies of, and nothing else has, to open.
// It returns the name of a hold that one of these is under, "" if none is. What
// the segment's own entries say of the sessions comes behind that.
func (k *clerk) copies(r *segment.Reader, first int64, h *holder, open openSessions) (name string, err error) {
	indexes, _, err := segment.Copies(k.l.cfg.FS, k.l.cfg.Dir, first)
	if err != nil {
		return "", err
	}
	for _, index := range indexes {
		if index >= r.First() {
			continue
		}
		e, err := r.Copy(index)
		if err != nil {
			return "", err
		}
		leaf, err := event.Parse(e.Leaf)
		if err != nil {
			return "", fmt.Errorf("copy of entry %d: %w", index, err)
		}
		if held := h.held(index, &leaf); held != "" {
			name = held
		}
		open.use(leaf.Session, index, index)
	}
	return name, nil
}

// keep copies what sessions that go on may still go back to from the segments
// that end before until to the newest one.
func (k *clerk) keep(ctx context.Context, r *segment.Reader, open openSessions, until, newest int64) error {
	for e, err := range r.Leaves(until, k.l.Durable()) {
		if err != nil {
			return err
		}
		if len(open) == 0 {
			return nil
		}
		parse, bind := event.References(e.Leaf)
		if parse == 0 && bind == 0 && !bytes.Contains(e.Leaf, []byte(`"k":"disconnect"`)) && !bytes.Contains(e.Leaf, []byte(`"k":"start"`)) {
			continue
		}
		var leaf event.Leaf
		if err := event.Skim(e.Leaf, &leaf); err != nil {
			return fmt.Errorf("entry %d: %w", e.Index, err)
		}
		open.see(e.Index, &leaf)
	}
	var copies []int64
	for _, entries := range open {
		for index := range entries {
			if index < until {
				copies = append(copies, index)
			}
		}
	}
	slices.Sort(copies)
	return k.l.sealer.seg.Keep(ctx, newest, slices.Compact(copies))
}

// drop removes a segment or its values, its index, and the blobs that nothing else names.
func (k *clerk) drop(first int64, all bool) error {
	fsys, dir := k.l.cfg.FS, k.l.cfg.Dir
	blobs, err := segment.Blobs(fsys, dir, first)
	if err != nil {
		return err
	}
	_, copied, err := segment.Copies(fsys, dir, first)
	if err != nil {
		return err
	}
	if blobs = append(blobs, copied...); len(blobs) > 0 {
		needed, err := k.copiedBlobs(first)
		if err != nil {
			return err
		}
		blobs = slices.DeleteFunc(blobs, func(b journal.BlobRef) bool { return needed[b.ID] })
		if err := segment.RemoveBlobs(fsys, dir, blobs); err != nil {
			return err
		}
	}
	// The leaf file last: by it the next try finds the rest.
	if err := segment.RemoveValues(fsys, dir, first); err != nil {
		return err
	}
	if err := k.forgetIndex(first); err != nil || !all {
		return err
	}
	return segment.Remove(fsys, dir, first)
}

// copiedBlobs returns the blobs that segments behind first have copies of.
func (k *clerk) copiedBlobs(first int64) (map[[16]byte]bool, error) {
	segs, err := segment.List(k.l.cfg.FS, k.l.cfg.Dir)
	if err != nil {
		return nil, err
	}
	needed := map[[16]byte]bool{}
	for _, s := range segs {
		if s <= first {
			continue
		}
		_, blobs, err := segment.Copies(k.l.cfg.FS, k.l.cfg.Dir, s)
		if err != nil {
			return nil, err
		}
		for _, b := range blobs {
			needed[b.ID] = true
		}
	}
	return needed, nil
}

// retain prunes what is older, or more, than the log may keep.
func (k *clerk) retain(ctx context.Context) error {
	p := k.l.cfg.Retain
	if p == (Retain{}) {
		return nil
	}
	fsys, dir := k.l.cfg.FS, k.l.cfg.Dir
	segs, err := k.segments()
	if err != nil {
		return err
	}
	now := k.l.cfg.Now()
	type part struct{ end, ended, leaves, values int64 }
	var parts []part
	var bytes, valueBytes int64
	for _, first := range segs {
		h, err := segment.ReadHeader(fsys, dir, first)
		if err != nil {
			return err
		}
		leaves, values, err := segment.Size(fsys, dir, first)
		if err != nil {
			return err
		}
		parts = append(parts, part{h.End(), h.Ended, leaves, values})
		bytes, valueBytes = bytes+leaves+values, valueBytes+values
	}
	parts = parts[:max(0, len(parts)-1)] // the newest stays; see prune
	var all, values int64
	for _, x := range parts {
		if p.Age > 0 && now-x.ended > int64(p.Age) || p.Bytes > 0 && bytes > p.Bytes {
			all = x.end
			bytes -= x.leaves + x.values
		} else {
			break
		}
	}
	for _, x := range parts {
		if p.ValueAge > 0 && now-x.ended > int64(p.ValueAge) || p.ValueBytes > 0 && valueBytes > p.ValueBytes {
			if x.values > 0 {
				values = x.end
			}
			valueBytes -= x.values
		} else {
			break
		}
	}
	for _, o := range []Order{{Kind: "prune", What: "leaves", Until: all, By: "retention"}, {Kind: "prune", What: "values", Until: values, By: "retention"}} {
		if o.Until == 0 || o.What == "values" && values <= all {
			continue
		}
		a, err := k.do(ctx, &o)
		if err != nil {
			return err
		}
		k.l.cfg.Logger.Info("pruned", slog.String("what", o.What), slog.String("answer", a.Text))
	}
	return nil
}

// erase lets single values go.
func (k *clerk) erase(ctx context.Context, o *Order) (*Answer, error) {
	if len(o.Entries) == 0 || !slices.IsSorted(o.Entries) || o.Entries[0] < 0 || o.Entries[len(o.Entries)-1] >= k.l.Durable() {
		return nil, errors.New("an order to erase needs entries that are there, in ascending order")
	}
	if err := k.l.sign(); err != nil { // so that readers see all of it
		return nil, err
	}
	entries, name, err := k.valued(slices.Compact(slices.Clone(o.Entries)))
	switch {
	case err != nil:
		return nil, err
	case name != "":
		return nil, fmt.Errorf("the hold %q forbids it", name)
	case len(entries) == 0:
		return nil, errors.New("none of the entries has a value")
	}
	// 1. Say what is going to go. If we die behind this: the order is still there.
	if err := k.sayEach(ctx, o, "order", entries); err != nil {
		return nil, err
	}
	// 2. What is in the journal has to be sealed first.
	if err := k.sealUpTo(ctx, entries[len(entries)-1]); err != nil {
		return nil, err
	}
	// 3. Write the value files anew. If we die here: the next start does it again.
	frames, err := k.eraseFiles(ctx, entries)
	if err != nil {
		return nil, err
	}
	// 4. Say that it is done.
	if err := k.sayEach(ctx, o, "done", entries); err != nil {
		return nil, err
	}
	return &Answer{OK: true, Text: fmt.Sprintf("the values of %d entries are gone", len(entries)), Frames: frames}, nil
}

// valued returns those of the entries that have, or had, a value, and the name
// of a hold that one of them is under, "" if none is.
func (k *clerk) valued(entries []int64) (with []int64, name string, err error) {
	if err := k.learn(); err != nil {
		return nil, "", err
	}
	r, err := segment.OpenReaderFS(k.l.cfg.FS, k.l.cfg.Dir)
	if err != nil {
		return nil, "", err
	}
	if size, err := r.Size(); err != nil || size <= entries[len(entries)-1] {
		return nil, "", errors.Join(err, errors.New("not all of the entries can be read yet"))
	}
	h := k.holder()
	for _, index := range entries {
		e, err := r.Entry(index)
		if errors.Is(err, fs.ErrNotExist) { // pruned; there may be copies
			if e, err = r.Copy(index); errors.Is(err, fs.ErrNotExist) {
				continue
			}
		}
		if err != nil {
			return nil, "", err
		}
		leaf, err := event.Parse(e.Leaf)
		if err != nil {
			return nil, "", err
		}
		if err := h.ask(r, k.l.Durable(), &leaf); err != nil {
			return nil, "", err
		}
		if name := h.held(index, &leaf); name != "" {
			return nil, name, nil
		}
		if leaf.HasValue {
			with = append(with, index)
		}
	}
	return with, "", nil
}

// sayEach records the entries, in as many leaves as that takes.
func (k *clerk) sayEach(ctx context.Context, o *Order, phase string, entries []int64) error {
	for len(entries) > 0 {
		list, n := ranges(entries, 480)
		if _, err := k.say(ctx, event.KindErase, o, event.Fact{Key: "phase", Val: phase}, event.Fact{Key: "entries", Val: list}); err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

// ranges writes ascending numbers as in "5,9-12", in at most limit bytes, and
// returns how many of them those are.
func ranges(list []int64, limit int) (s string, n int) {
	for n < len(list) {
		m := n + 1
		for m < len(list) && list[m] == list[m-1]+1 && m-n < 1<<20 {
			m++
		}
		part := strconv.FormatInt(list[n], 10)
		if m-n > 1 {
			part += "-" + strconv.FormatInt(list[m-1], 10)
		}
		if n > 0 {
			part = "," + part
		}
		if n > 0 && len(s)+len(part) > limit {
			break
		}
		s, n = s+part, m
	}
	return s, n
}

// sealUpTo makes sure that the entry at index is in a segment.
func (k *clerk) sealUpTo(ctx context.Context, index int64) error {
	k.l.sealer.mu.Lock()
	bounds := slices.Clone(k.l.sealer.bounds)
	k.l.sealer.mu.Unlock()
	if len(bounds) > 0 && index < bounds[0] {
		return nil
	}
	if len(bounds) > 0 && index >= bounds[len(bounds)-1] {
		k.l.mu.Lock()
		last, err := k.l.rotateLocked("erase")
		k.l.mu.Unlock()
		if err != nil {
			return err
		}
		if err := k.l.await(ctx, last); err != nil {
			return err
		}
	}
	return k.l.SealNow(ctx)
}

func (k *clerk) eraseFiles(ctx context.Context, entries []int64) (frames int, err error) {
	k.l.sealer.work.Lock()
	defer k.l.sealer.work.Unlock()
	segs, err := k.segments()
	if err != nil {
		return 0, err
	}
	gone := func(index int64) bool {
		_, found := slices.BinarySearch(entries, index)
		return found
	}
	for i, first := range segs {
		// Its own entries, and copies of earlier ones.
		if i+1 < len(segs) && segs[i+1] <= entries[0] {
			continue
		}
		n, err := k.l.sealer.seg.Erase(ctx, first, gone)
		if err == nil {
			err = k.forgetIndex(first)
		}
		if err != nil {
			return frames, err
		}
		frames += n
	}
	// What an earlier try did, that found nothing to change now, may not be durable.
	return frames, k.l.cfg.FS.SyncDir(segment.Dir(k.l.cfg.Dir))
}

// forgetIndex removes what was computed from a segment's values for searches;
// see package query.
func (k *clerk) forgetIndex(first int64) error {
	dir := k.l.path("index")
	if _, err := k.l.cfg.FS.List(dir); errors.Is(err, fs.ErrNotExist) {
		return nil // nobody made any
	} else if err != nil {
		return fmt.Errorf("remove index: %w", err)
	}
	if err := k.l.cfg.FS.Remove(filepath.Join(dir, fmt.Sprintf("%020d.idx", first))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove index: %w", err)
	}
	return k.l.cfg.FS.SyncDir(dir)
}
