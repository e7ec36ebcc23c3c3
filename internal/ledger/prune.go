package ledger

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/segment"
	"github.com/pgnotary/pgnotary/internal/tree"
)

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
	if err := k.l.sign(); err != nil { // so that readers see all of it
		return nil, err
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
		_, values, err := segment.Size(fsys, dir, first)
		if err != nil {
			return nil, err
		}
		if o.What == "values" && values == 0 {
			continue // they went before; what was needed of them is in copies since
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
		for e, err := range r.Entries(first, h.End()) {
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
			open.see(e.Index, &leaf, namesOf(r, &e, &leaf))
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if stopped != "" {
			break
		}
		list, end = append(list, first), h
	}
	under := ""
	if stopped != "" {
		under = fmt.Sprintf("; the hold %q stopped it there", stopped)
	}
	if end == nil {
		return &Answer{OK: stopped == "", Text: "nothing was pruned" + under, Pruned: r.First()}, nil
	}
	if err := k.keep(ctx, r, open, end.End(), segs[len(segs)-1]); err != nil {
		return nil, err
	}
	if o.What == "leaves" {
		if err := k.keepTiles(r, end.End()); err != nil {
			return nil, err
		}
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
	var needed map[[16]byte]bool
	for _, first := range list {
		if err := k.drop(first, end.End(), &needed, o.What == "leaves"); err != nil {
			return nil, err
		}
	}
	return &Answer{
		OK: true, Pruned: end.End(),
		Text: fmt.Sprintf("%s of the entries before %d are gone, entry %d says so%s", o.What, end.End(), index, under),
	}, nil
}

// copies shows what a segment has copies of to open.
// It returns the name of a hold that one of these is under, "" if none is. What
// the segment's own entries say of the sessions comes behind that.
func (k *clerk) copies(r *segment.Reader, first int64, h *holder, open openSessions) (name string, err error) {
	entries, _, err := segment.Copies(k.l.cfg.FS, k.l.cfg.Dir, first)
	if err != nil {
		return "", err
	}
	for i := range entries {
		e := &entries[i]
		leaf, err := event.Parse(e.Leaf)
		if err != nil {
			return "", fmt.Errorf("copy of entry %d: %w", e.Index, err)
		}
		if held := h.held(e.Index, &leaf); held != "" {
			name = held
		}
		open.see(e.Index, &leaf, namesOf(r, e, &leaf))
	}
	return name, nil
}

// keep copies from the segments that end before until to the newest one what sessions that go on may still go
// back to, and what entries do that are not sealed yet: these take their copies from segments then. Segments
// between have copies of all that their entries go back to, so they are not read.
func (k *clerk) keep(ctx context.Context, r *segment.Reader, open openSessions, until, newest int64) error {
	h, err := segment.ReadHeader(k.l.cfg.FS, k.l.cfg.Dir, newest)
	if err != nil {
		return err
	}
	var copies []int64
	for e, err := range r.Leaves(h.End(), k.l.Durable()) {
		if err != nil {
			return err
		}
		parse, bind := event.References(e.Leaf)
		for _, ref := range []int64{parse, bind} {
			if to, ok := event.Index(ref); ok && to < until {
				copies = append(copies, to)
			}
		}
	}
	for id, s := range open {
		if _, goesOn := k.sessions[id]; !goesOn {
			continue
		}
		for index := range s.uses {
			if index < until {
				copies = append(copies, index)
			}
		}
	}
	slices.Sort(copies)
	return k.l.sealer.seg.Keep(ctx, newest, until, slices.Compact(copies))
}

// keepTiles writes the tiles of level 0 that witnesses which are behind need: the proof that the log continues the
// checkpoint they hold begins within the bundle that this ends in.
func (k *clerk) keepTiles(r *segment.Reader, until int64) error {
	if k.l.cfg.Witness == nil {
		return nil
	}
	for _, sizes := range k.l.cfg.Witness.Held() {
		if sizes[0] == sizes[1] && sizes[0]%tree.Width == 0 {
			continue
		}
		from, to := max(sizes[0]/tree.Width*tree.Width, r.First()), min(sizes[1], until-1)/tree.Width*tree.Width+tree.Width
		tile := make([]byte, 0, tree.Width*len(tree.Hash{}))
		for e, err := range r.Leaves(from, to) {
			if err != nil {
				return err
			}
			h := tree.LeafHash(e.Leaf)
			if tile = append(tile, h[:]...); len(tile) < cap(tile) {
				continue
			}
			if err := k.keepTile(e.Index/tree.Width, tile); err != nil {
				return err
			}
			tile = tile[:0]
		}
	}
	return nil
}

func (k *clerk) keepTile(n int64, tile []byte) error {
	name := k.l.path(tree.TilePath(0, n, tree.Width))
	if err := durable.MkdirAll(k.l.cfg.FS, filepath.Dir(name), 0o700); err != nil {
		return err
	}
	if err := durable.WriteFile(k.l.cfg.FS, name, tile, 0o600); err != nil {
		return fmt.Errorf("write tile: %w", err)
	}
	return nil
}

// drop removes a segment or its values, its index, and the blobs that no segment from until on has a copy of; needed
// are these, once they were looked up.
func (k *clerk) drop(first, until int64, needed *map[[16]byte]bool, all bool) error {
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
		if *needed == nil {
			if *needed, err = k.copiedBlobs(until); err != nil {
				return err
			}
		}
		blobs = slices.DeleteFunc(blobs, func(b journal.BlobRef) bool { return (*needed)[b.ID] })
		if err := segment.RemoveBlobs(fsys, dir, blobs); err != nil {
			return err
		}
	}
	// The value file, and the leaf file, last: by them the next try finds the rest.
	if err := k.forgetIndex(first); err != nil {
		return err
	}
	if err := segment.RemoveValues(fsys, dir, first); err != nil {
		return err
	}
	if err := k.forgetIndex(first); err != nil || !all { // one that was made meanwhile
		return err
	}
	return segment.Remove(fsys, dir, first)
}

// copiedBlobs returns the blobs that segments from until on have copies of.
func (k *clerk) copiedBlobs(until int64) (map[[16]byte]bool, error) {
	segs, err := segment.List(k.l.cfg.FS, k.l.cfg.Dir)
	if err != nil {
		return nil, err
	}
	needed := map[[16]byte]bool{}
	for _, s := range segs {
		if s < until {
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

// retain prunes what is older, or more, than the log may keep. A clock that was set forward makes all older: if that was
// a mistake, there is a day to mend it before anything goes for its age.
func (k *clerk) retain(ctx context.Context) error {
	p := k.l.cfg.Retain
	if p == (Retain{}) {
		return nil
	}
	if step := k.clock.step(); step > clockSet {
		k.ageless = time.Now().Add(clockPatience)
		k.l.cfg.Logger.Warn("the clock was set forward: for a day nothing is pruned for its age",
			slog.Duration("by", step.Round(time.Second)), slog.String("hint", "if it is right now, start again to prune at once"))
	}
	if time.Now().Before(k.ageless) {
		p.Age, p.ValueAge = 0, 0
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
