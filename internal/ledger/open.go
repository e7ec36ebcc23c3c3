package ledger

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"time"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/segment"
)

// ErrRolledBack is in the error of Open if the log is not the one its own
// signed checkpoint speaks of.
var ErrRolledBack = errors.New("the log does not agree with its signed checkpoint")

// Open opens the log in cfg.Dir for writing, or makes a new one, and takes
// its lock. It refuses a log that was damaged, cut or put back, and one that
// another process writes (durable.ErrLocked). The entries that tell of the
// start are durable when it returns. Its cost is that of reading the last
// journal file, whatever the size of the log.
func Open(cfg Config) (*Ledger, error) {
	cfg.setDefaults()
	l := &Ledger{
		cfg: cfg, wake: make(chan struct{}, 1), done: make(chan struct{}),
		stopKeep: make(chan struct{}), keepDone: make(chan struct{}),
		askNow: make(chan struct{}, 1), witnessDone: make(chan struct{}),
	}
	l.lazy = time.AfterFunc(time.Hour, l.tick)
	l.lazy.Stop()
	if err := durable.MkdirAll(cfg.FS, cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	var err error
	if l.lock, err = cfg.FS.Lock(l.path("LOCK")); err != nil {
		return nil, fmt.Errorf("open log in %s: %w", cfg.Dir, err)
	}
	if err := l.open(); err != nil {
		if l.w != nil {
			l.w.Abandon()
		}
		return nil, errors.Join(fmt.Errorf("open log in %s: %w", cfg.Dir, err), l.lock.Close())
	}
	go l.run()
	go l.keep()
	if cfg.Witness != nil {
		go l.witness()
	} else {
		close(l.witnessDone)
	}
	go l.sealer.run()
	go l.clerk.run()
	return l, nil
}

func (c *Config) setDefaults() {
	setDefault(&c.SegmentSize, 64<<20)
	setDefault(&c.SegmentAge, 24*time.Hour)
	setDefault(&c.Lazy, 10*time.Millisecond)
	setDefault(&c.CheckpointEvery, time.Second)
	setDefault(&c.HeartbeatEvery, time.Minute)
	if c.FS == nil {
		c.FS = durable.OS
	}
	if c.Now == nil {
		c.Now = func() int64 { return time.Now().UnixNano() }
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

func setDefault[T int64 | time.Duration](p *T, v T) {
	if *p == 0 {
		*p = v
	}
}

// open does what Open promises, under the lock.
func (l *Ledger) open() error {
	for _, name := range []string{"journal", "segment", "blob", pending, "tile", "index", "request", "sink", "evidence"} {
		// What is removed, or replaced, in one of them is to be what we put there.
		if link, err := l.cfg.FS.IsLink(l.path(name)); link || err != nil {
			return errors.Join(fmt.Errorf("%s is a link to another place: a log lies in one directory; remove the link", l.path(name)), err)
		}
	}
	for _, name := range []string{"journal", "segment", "blob", pending, "tile"} {
		if err := durable.MkdirAll(l.cfg.FS, l.path(name), 0o700); err != nil {
			return err
		}
	}
	digest, err := l.identify()
	if err != nil {
		return err
	}
	signed, text, err := l.lastCheckpoint()
	if err != nil {
		return err
	}
	l.ck.size, l.ck.signed = signed.Size, text
	st, err := l.openJournal(signed)
	if err != nil {
		return err
	}
	if err := l.finishTiles(); err != nil {
		return err
	}
	l.signed.Store(signed.Size)
	l.next = l.tree.Size()
	l.durable.Store(l.next)
	l.pub.size, l.pub.root = l.next, l.tree.Root()
	if err := l.begin(st, digest); err != nil {
		return err
	}
	return l.removePending()
}

// lastCheckpoint returns the checkpoint this log signed last, and its text. There always is
// one, since a log is founded with one over nothing: without it, a journal that
// was cut could not be told from one that is whole.
func (l *Ledger) lastCheckpoint() (c checkpoint.Checkpoint, text []byte, err error) {
	name := l.path("checkpoint")
	b, err := durable.ReadFile(l.cfg.FS, name, checkpoint.MaxBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil, fmt.Errorf("%w: %s is missing, and with it what the log promised: put it back",
			ErrRolledBack, name)
	} else if err != nil {
		return c, nil, fmt.Errorf("read checkpoint: %w", err)
	}
	// After a crash in a rotation it is of the key before, after several of an older one.
	if c, _, err = checkpoint.OpenAny(b, l.vkeys); err != nil {
		return c, nil, fmt.Errorf("%s has been altered: %w", name, err)
	}
	return c, b, nil
}

// openJournal recovers the journal, holds it against the signed checkpoint
// and makes it ready. st is nil for a new journal.
func (l *Ledger) openJournal(signed checkpoint.Checkpoint) (*journal.State, error) {
	opt := journal.Options{
		FS: l.cfg.FS, Dir: l.path("journal"), LogID: sha256.Sum256([]byte(l.info.Origin)),
		SegmentSize: l.cfg.SegmentSize, SegmentAge: l.cfg.SegmentAge, OnFull: l.tileFull, Room: l.cfg.room, Rand: l.cfg.Rand,
	}
	var forged firstForged
	opt.OnLeaf = forged.leaf
	l.sealer.init(l)
	l.clerk.init(l)
	if err := segment.RemoveLeftovers(l.cfg.FS, l.cfg.Dir); err != nil {
		return nil, err
	}
	st, err := journal.Recover(opt, signed.Size)
	if errors.Is(err, journal.ErrEmpty) && signed.Size == 0 {
		if err := l.noSegments(); err != nil {
			return nil, err
		}
		if err := l.startWitness(); err != nil {
			return nil, err
		}
		if l.w, err = journal.Create(opt, l.cfg.Now()); err != nil {
			return nil, err
		}
		l.tree = journal.NewTree(opt)
		l.sealer.add(0)
		return nil, nil
	}
	if errors.Is(err, journal.ErrEmpty) {
		return nil, fmt.Errorf("%w: it is over %d entries, and the journal is gone: put it back", ErrRolledBack, signed.Size)
	}
	if err != nil {
		return nil, err
	}
	if err := l.checkSealed(st); err != nil {
		return nil, err
	}
	const whatToDo = "this is not what a crash leaves; put the journal back as it was, or keep both as evidence and begin a new log elsewhere"
	if size := st.Tree.Size(); size < signed.Size {
		return nil, fmt.Errorf("%w: entries were lost: it is over %d, the journal has %d; %s", ErrRolledBack, signed.Size, size, whatToDo)
	}
	if !st.HasRootAt {
		return nil, fmt.Errorf("%w: it is over %d entries, but was newer when entries up to %d were sealed: put it back",
			ErrRolledBack, signed.Size, st.Files[0])
	}
	if st.RootAt != signed.Root {
		return nil, fmt.Errorf("%w: entries were changed: at %d entries the root is %x, and %x was signed; %s",
			ErrRolledBack, signed.Size, st.RootAt, signed.Root, whatToDo)
	}
	if stopped, err := l.endsWithStop(signed.Size, &forged); err != nil {
		return nil, err
	} else if stopped {
		return nil, fmt.Errorf("%w: the log had stopped in order, after %d entries; no start made what follows, somebody added entry %d; %s",
			ErrRolledBack, signed.Size, forged.index, whatToDo)
	}
	if err := l.startWitness(); err != nil {
		return nil, err
	}
	if l.w, err = st.Resume(); err != nil {
		return nil, err
	}
	l.tree, l.cursor.Seed = st.Tree, st.Seed
	for _, first := range st.Files[1:] {
		l.sealer.add(first)
	}
	return st, nil
}

// firstForged finds the first entry behind those signed that no start made.
//
// A start signs what it records before anything else is recorded (begin), and a
// stop is the last of all (close). So behind a checkpoint that ends with a stop, or is
// over nothing, there can only be what starts left that died before they had
// signed. Behind any other a crash may have left everything.
type firstForged struct {
	found bool
	index int64
}

func (f *firstForged) leaf(index int64, leaf []byte) {
	if f.found && f.index < index {
		return
	}
	l, err := event.Parse(leaf)
	if err != nil || l.Kind != event.KindStart && l.Kind != event.KindRecover && l.Kind != event.KindConfig {
		f.found, f.index = true, index
	}
}

// endsWithStop reports whether what f found is behind a stop that was signed.
func (l *Ledger) endsWithStop(signed int64, f *firstForged) (bool, error) {
	if !f.found || signed == 0 {
		return f.found, nil
	}
	r, err := segment.OpenReaderFS(l.cfg.FS, l.cfg.Dir)
	if err != nil {
		return false, err
	}
	e, err := r.Entry(signed - 1)
	if err != nil {
		return false, fmt.Errorf("read the last entry that was signed: %w", err)
	}
	last, err := event.Parse(e.Leaf)
	return err == nil && last.Kind == event.KindStop, err
}

// stopped reports whether the last writer stopped in order.
func stopped(st *journal.State) bool {
	last, err := event.Parse(st.LastLeaf)
	return st.Clean && err == nil && last.Kind == event.KindStop
}

// begin records the start, and what it found if the last writer did not stop
// in order, and signs it.
func (l *Ledger) begin(st *journal.State, digest string) error {
	size := l.next
	if st != nil && size > 0 && !stopped(st) {
		why := st.Why
		if why == "" {
			why = "the process did not stop in order"
		}
		l.cfg.Logger.Warn("recovered the log", slog.String("reason", why), slog.Int64("cut_bytes", st.Cut), slog.Int64("last_index", size-1))
		if _, err := l.Emit(&event.Leaf{Kind: event.KindRecover, Facts: []event.Fact{
			{Key: "reason", Val: why},
			{Key: "cut_bytes", Val: strconv.FormatInt(st.Cut, 10)},
			{Key: "last_index", Val: strconv.FormatInt(size-1, 10)},
		}}, nil); err != nil {
			return err
		}
	}
	facts := []event.Fact{{Key: "version", Val: l.cfg.Version}}
	if size == 0 {
		// The tree vouches for the file from its first leaf on.
		facts = append(facts, event.Fact{Key: "log_json", Val: digest})
	}
	facts = append(facts, l.cfg.StartFacts...)
	if _, err := l.Emit(&event.Leaf{Kind: event.KindStart, Facts: facts}, nil); err != nil {
		return err
	}
	rotation, successor, err := l.rotation()
	if err != nil {
		return err
	}
	if rotation != nil {
		if _, err := l.Emit(rotation, nil); err != nil {
			return err
		}
	}
	if err := l.commitNow(); err != nil {
		return err
	}
	if rotation != nil {
		err = l.succeed(successor)
	} else {
		err = l.renameKey()
	}
	if err != nil {
		return err
	}
	return l.sign()
}

// commitNow commits what was emitted while the log is opened.
func (l *Ledger) commitNow() error {
	l.mu.Lock()
	b := l.fill
	l.fill = nil
	l.mu.Unlock()
	return l.commit(b)
}
