package query

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/segment"
	"github.com/pgnotary/pgnotary/internal/sqlinfo"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// An indexBuilder collects the terms of entries in a row.
type indexBuilder struct {
	dec         *decoder
	first, next int64                // the entry it began with, and the one it takes next
	written     int64                // entries of the file that was written last
	terms       map[uint64][]posting // ascending
	ends        map[uint64][]posting // the same, of terms that an end brought: in any order
	known       map[string]uint64    // hashes of terms, since most come often
	longest     []int8               // of each bundle: 2^n microseconds is less than twice what a statement took; -1 none
	open        map[uint64]*openWork
	params      []uint64 // hash and bundle, in order up to ordered
	ordered     int
	statement   Statement
}

// A posting says that entries of a bundle have a term: some from number low to
// number high of it.
type posting struct {
	bundle    uint32
	low, high uint8
}

// put adds to a list that a term is in an entry, given by its distance from the first.
func put(list []posting, at int64) []posting {
	bundle, slot := uint32(at/tree.Width), uint8(at%tree.Width)
	if n := len(list); n > 0 && list[n-1].bundle == bundle {
		last := &list[n-1]
		last.low, last.high = min(last.low, slot), max(last.high, slot)
		return list
	}
	return append(list, posting{bundle, slot, slot})
}

// openWork is what an index does not know the end of, of one session.
type openWork struct {
	running []int64   // admissions without an outcome
	last    int64     // the newest admission
	since   []posting // all admissions since nothing was open
}

func newIndexBuilder(src source, first int64) *indexBuilder {
	return &indexBuilder{
		dec: newDecoder(src), first: first, next: first,
		terms: make(map[uint64][]posting), ends: make(map[uint64][]posting), known: make(map[string]uint64), open: make(map[uint64]*openWork),
	}
}

func (b *indexBuilder) hash(kind, text string) uint64 {
	key := kind + "\x00" + text
	h, ok := b.known[key]
	if !ok {
		if len(b.known) >= 1<<16 {
			clear(b.known)
		}
		h = term(kind, text)
		b.known[key] = h
	}
	return h
}

// add says that the entry at has a term.
func (b *indexBuilder) add(at int64, kind, text string) {
	if text != "" {
		h := b.hash(kind, text)
		b.terms[h] = put(b.terms[h], at)
	}
}

// entry takes the next entry.
func (b *indexBuilder) entry(e *journal.Entry) error {
	var v view
	if err := v.scan(e.Leaf); err != nil {
		return fmt.Errorf("read entry %d: %w", e.Index, err)
	}
	at := e.Index - b.first
	for at/tree.Width >= int64(len(b.longest)) {
		b.longest = append(b.longest, -1)
	}
	b.next = e.Index + 1
	// Whoever waits for the end of a session's statement goes by this.
	if v.session != 0 {
		b.add(at, "session", string(event.AppendSession(nil, v.session)))
	}
	switch {
	case joined(v.kind):
		b.end(e, &v)
		return nil
	case v.kind == event.KindStart:
		clear(b.open)
	case v.kind == event.KindDisconnect:
		delete(b.open, v.session)
	case concludes(v.kind):
		b.begin(e.Index, v.session)
	}
	b.dec.remember(e, &v)
	if err := b.dec.admission(&b.statement, e, &v); err != nil {
		return fmt.Errorf("read entry %d: %w", e.Index, err)
	}
	if v.sqlstate != nil {
		b.state(at, string(v.sqlstate))
	}
	b.admission(at, &b.statement)
	return nil
}

// begin notes that an admission waits for its end.
func (b *indexBuilder) begin(index int64, session uint64) {
	w := b.open[session]
	if w == nil {
		w = new(openWork)
		b.open[session] = w
	}
	w.running, w.last, w.since = append(w.running, index), index, put(w.since, index-b.first)
}

// end takes an outcome or a settlement, which is indexed where its admission is.
func (b *indexBuilder) end(e *journal.Entry, v *view) {
	of, ok := event.Index(v.of)
	if !ok {
		return
	}
	if of >= b.first && of < e.Index {
		at := of - b.first
		if v.sqlstate != nil {
			b.state(at, string(v.sqlstate))
			value, _ := b.dec.value(e)
			b.state(at, serverError(value, v).SQLState)
		}
		bundle := at / tree.Width
		b.longest[bundle] = max(b.longest[bundle], int8(bits.Len64(uint64(max(0, v.micros)))-1))
	}
	w := b.open[v.session]
	if w == nil {
		return
	}
	if i := slices.Index(w.running, of); i >= 0 && v.kind == event.KindOutcome {
		w.running = slices.Delete(w.running, i, i+1)
	}
	if v.tx == 'I' && len(w.running) == 0 && of >= w.last {
		delete(b.open, v.session) // nothing more is to be learned about any
	}
}

func (b *indexBuilder) state(at int64, state string) {
	if state == "" {
		return
	}
	for _, s := range []string{state[:min(stateLen, len(state))], state[:min(stateClass, len(state))], anyState} {
		h := b.hash("sqlstate", s)
		b.ends[h] = put(b.ends[h], at)
	}
}

// admission adds the terms of an admission.
func (b *indexBuilder) admission(at int64, s *Statement) {
	b.add(at, "user", s.User)
	b.add(at, "database", s.Database)
	b.add(at, "application", s.Application)
	b.add(at, "client", clientHost(s.Client))
	b.add(at, "kind", string(s.Kind))
	for i := range s.Params {
		b.param(at, &s.Params[i])
	}
	if s.Kind == event.KindFunctionCall {
		b.add(at, "class", string(sqlinfo.Function))
	}
	if info := s.SQL(); info != nil {
		b.add(at, "fingerprint", info.Fingerprint)
		for _, c := range info.Classes {
			b.add(at, "class", string(c))
		}
		if !info.Complete {
			b.add(at, "class", Unknown)
		}
		for _, r := range info.Relations {
			b.add(at, "relation", lastName(r))
		}
	}
}

// read takes the entries up to but without to. It leaves half of a processor to others.
func (b *indexBuilder) read(ctx context.Context, src source, to int64) error {
	for e, err := range src.Entries(b.next, to) {
		if err != nil {
			return err
		}
		if e.Index%tree.Width == 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Millisecond):
			}
		}
		if err := b.entry(&e); err != nil {
			return err
		}
	}
	if b.next != to {
		return fmt.Errorf("index: entry %d: %w", b.next, fs.ErrNotExist)
	}
	return nil
}

// sorted returns the postings of a list in any order, one for each bundle.
func sorted(list []posting) (out []posting) {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b posting) int { return cmp.Compare(a.bundle, b.bundle) })
	for _, p := range list {
		out = put(out, int64(p.bundle)*tree.Width+int64(p.low))
		out = put(out, int64(p.bundle)*tree.Width+int64(p.high))
	}
	return out
}

// rare bounds the bundles of a term for which an index says where in them it is.
const rare = 16

// encode returns the bytes of the index of what was taken; places are of the
// batches of a journal file.
func (b *indexBuilder) encode(s stamp, places []byte) ([]byte, error) {
	all := maps.Clone(b.terms)
	for h, list := range b.ends {
		all[h] = sorted(list)
	}
	for bundle, n := range b.longest {
		for ; n >= 0; n-- {
			h := b.hash("duration", durationTerm(int(n)))
			all[h] = append(all[h], posting{uint32(bundle), 0, tree.Width - 1})
		}
	}
	var open []posting
	for _, w := range b.open {
		open = append(open, w.since...)
	}
	if len(open) > 0 {
		all[term(openTerm, "")] = sorted(open)
	}
	le := binary.LittleEndian
	out := append(make([]byte, 0, 1<<16), indexMagic...)
	out = le.AppendUint64(le.AppendUint64(out, uint64(s.first)), uint64(s.count))
	out = append(out, s.root[:]...)
	out = le.AppendUint64(le.AppendUint64(le.AppendUint64(out, uint64(s.size)), uint64(s.modified)), s.engine)
	var postings, table []byte
	for _, h := range slices.Sorted(maps.Keys(all)) {
		table = le.AppendUint32(le.AppendUint64(table, h), uint32(len(postings)))
		list := all[h]
		last, sparse := uint32(0), len(list) <= rare
		postings = binary.AppendUvarint(postings, uint64(len(list)))
		for _, p := range list {
			if postings = binary.AppendUvarint(postings, uint64(p.bundle-last)); sparse {
				postings = append(postings, p.low, p.high)
			}
			last = p.bundle
		}
	}
	params := b.sortedParams()
	out = le.AppendUint32(le.AppendUint32(le.AppendUint32(out, uint32(len(all))), uint32(len(postings))), uint32(len(params)))
	out = append(append(out, table...), postings...)
	out = append(appendParams(out, params, s.count/tree.Width), places...)
	if size := fileSize(int64(len(out))); size > maxIndex || s.count > maxCount {
		return nil, fmt.Errorf("index of %d entries from %d on: %d bytes are too many", s.count, s.first, size)
	}
	return seal(out), nil
}

// growBy is how many entries of the journal file in use are indexed at once.
const growBy = 32 * tree.Width

// Index makes the indexes that are missing or stale, that of the journal file in
// use included, and removes those of segments that are gone. It is for the
// process that writes the log, one at a time.
func (l *Log) Index(ctx context.Context) error {
	// Whoever erases values removes the directory, once they are gone: what was
	// read before that then cannot be written, and what was kept of it goes here.
	if err := os.Mkdir(l.indexDir(), 0o700); err == nil {
		clear(l.growing)
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	size, err := l.Size()
	if err != nil {
		return err
	}
	firsts, err := segment.List(durable.OS, l.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	names, err := os.ReadDir(l.indexDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	sealed := int64(0) // what comes from there on is in the journal
	if len(firsts) > 0 {
		sealed = firsts[len(firsts)-1] + 1
	}
	for _, n := range names {
		if first, ok := indexName(n.Name()); !ok || first < sealed && !slices.Contains(firsts, first) || first > size {
			if err := os.Remove(filepath.Join(l.indexDir(), n.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	for _, first := range firsts {
		if err := l.indexSegment(ctx, first); err != nil && !errors.Is(err, fs.ErrNotExist) { // that is: pruned meanwhile
			return err
		}
		if _, err := os.Stat(l.indexDir()); err != nil {
			return nil // the next call begins anew
		}
	}
	if err := l.indexJournal(ctx, size); err != nil {
		clear(l.growing)
		if !errors.Is(err, fs.ErrNotExist) { // that is: sealed meanwhile
			return err
		}
	}
	return nil
}

// indexSegment makes the index of a segment if there is none that is right.
func (l *Log) indexSegment(ctx context.Context, first int64) error {
	if _, f, err := l.openIndex(first); err == nil {
		return f.Close()
	}
	s, err := l.segmentStamp(first)
	if err != nil {
		return err
	}
	// What was learned from the journal file is good as long as its index is there.
	b := l.growing[first]
	delete(l.growing, first)
	if _, err := os.Stat(l.indexFile(first)); err != nil || b == nil || b.next > first+s.count {
		b = newIndexBuilder(l, first)
	}
	if err := l.removeIndex(first); err != nil {
		return err // what it tells of erased values must not stay
	}
	if err := b.read(ctx, l, first+s.count); err != nil {
		return err
	}
	return l.writeIndex(b, s, nil)
}

// maxGrowing bounds the journal files that are not sealed whose terms are kept.
const maxGrowing = 3

// indexJournal makes or extends the index of the journal file in use.
func (l *Log) indexJournal(ctx context.Context, size int64) error {
	h, err := l.reader.Header(size)
	if h == nil || err != nil {
		return err
	}
	b := l.growing[h.First]
	if b == nil {
		if b = newIndexBuilder(l, h.First); l.growing == nil || len(l.growing) >= maxGrowing {
			l.growing = make(map[int64]*indexBuilder)
		}
		l.growing[h.First] = b
	}
	to := size - 1 // one must follow, for the stamp
	to -= to % tree.Width
	if to < b.first+b.written+growBy {
		return nil
	}
	if err := b.read(ctx, l, to); err != nil {
		return err
	}
	s, err := l.journalStamp(b.first, to-b.first)
	if err != nil {
		return err
	}
	places, err := l.reader.Places(b.first, to)
	if err != nil {
		return err
	}
	b.written = s.count
	return l.writeIndex(b, s, places)
}

func (l *Log) removeIndex(first int64) error {
	if err := os.Remove(l.indexFile(first)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (l *Log) writeIndex(b *indexBuilder, s stamp, places []byte) error {
	content, err := b.encode(s, places)
	if err != nil {
		return err
	}
	if s.size >= 0 { // values may have gone while it was made
		if now, err := l.segmentStamp(s.first); err != nil || now != s {
			return err
		}
	}
	if err := durable.WriteFile(durable.OS, l.indexFile(s.first), content, 0o600); err != nil {
		return err
	}
	_, f, err := l.openIndex(s.first)
	if err != nil { // they went just now
		return l.removeIndex(s.first)
	}
	return f.Close()
}
