package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/segment"
)

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
		if err != nil {
			return frames, err
		}
		frames += n
	}
	if err := k.forgetIndexes(); err != nil {
		return frames, err
	}
	// What an earlier try did, that found nothing to change now, may not be durable.
	return frames, k.l.cfg.FS.SyncDir(segment.Dir(k.l.cfg.Dir))
}

// forgetIndexes removes all that was computed from values for searches, with the
// directory: an index that is being made from what was read before has nowhere
// to go then (query.Log.Index). Which indexes tell of a value is hard to say: a
// statement may run what was bound, or prepared, long before it.
func (k *clerk) forgetIndexes() error {
	fsys, dir := k.l.cfg.FS, k.l.path("index")
	for tries := 0; ; tries++ {
		// First without looking into it: a link in its place leads to files that are none of ours to remove.
		err := fsys.Remove(dir)
		switch {
		case err == nil || errors.Is(err, fs.ErrNotExist):
			return fsys.SyncDir(k.l.cfg.Dir)
		case !errors.Is(err, syscall.ENOTEMPTY) || tries == 100:
			return fmt.Errorf("remove indexes: %w", err)
		}
		names, err := fsys.List(dir)
		for _, name := range names {
			if err == nil {
				if err = fsys.Remove(filepath.Join(dir, name)); errors.Is(err, fs.ErrNotExist) { // or renamed
					err = nil
				}
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove indexes: %w", err)
		}
	}
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
