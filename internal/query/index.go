package query

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/segment"
	"github.com/pgnotary/pgnotary/internal/sqlinfo"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// An index tells, for terms such as a user or a relation, which bundles of a
// segment have admissions with that term, so that a search need not read the
// others. It is derived, can be made again at any time, and is never evidence:
// one that is missing, damaged or stale is as none. docs/format/index.md has
// the bytes.
type index struct {
	first, count int64
	terms        []byte // 12 bytes each: hash, offset into postings
	postings     []byte
}

const (
	indexMagic  = "pgnindx1"
	indexHeader = 8 + 8 + 8 + 32 + 8 + 8 + 8 + 4 + 4
	termLen     = 12
	maxIndex    = 1 << 30 // bytes
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errIndex = errors.New("no index to go by")

func (l *Log) indexDir() string { return filepath.Join(l.dir, "index") }

func (l *Log) indexFile(first int64) string {
	return filepath.Join(l.indexDir(), fmt.Sprintf("%020d.idx", first))
}

// term returns the hash by which an index knows a term.
func term(kind, text string) uint64 {
	sum := sha256.Sum256([]byte(kind + "\x00" + text))
	return binary.BigEndian.Uint64(sum[:])
}

// engineTerm stands for the rules that relations and fingerprints come from.
func engineTerm() uint64 { return term("engine", sqlinfo.Engine) }

// lastName returns a relation's name without its schema, by which it is indexed.
func lastName(relation string) string {
	if i := strings.LastIndexByte(relation, '.'); i >= 0 && !strings.HasSuffix(relation, `"`) {
		return relation[i+1:]
	} else if i := strings.LastIndex(relation, `."`); i >= 0 {
		return relation[i+1:]
	}
	return relation
}

// clientHost returns the address of a client without its port, "" for none.
func clientHost(client string) string {
	a, err := netip.ParseAddrPort(client)
	if err != nil {
		return ""
	}
	return a.Addr().Unmap().String()
}

// stamp is what an index was made of: the tree, and the file of values, which
// changes when values are erased.
func (l *Log) stamp(first int64) (root tree.Hash, count, size, modified int64, err error) {
	h, err := segment.ReadHeader(durable.OS, l.dir, first)
	if err != nil {
		return root, 0, 0, 0, err
	}
	info, err := os.Stat(segment.ValueFile(l.dir, first))
	if err == nil {
		size, modified = info.Size(), info.ModTime().UnixNano()
	} else if !errors.Is(err, fs.ErrNotExist) { // values may expire
		return root, 0, 0, 0, err
	}
	return h.NextRoot, h.Count, size, modified, nil
}

// openIndex returns the index of a segment if it is there, whole and of the
// segment as it is now.
func (l *Log) openIndex(first int64) (*index, error) {
	b, err := durable.ReadFile(durable.OS, l.indexFile(first), maxIndex)
	if err != nil {
		return nil, err
	}
	x, root, stamps, err := parseIndex(b)
	if err != nil {
		return nil, err
	}
	r, count, size, modified, err := l.stamp(first)
	if err != nil {
		return nil, err
	}
	if x.first != first || x.count != count || root != r || stamps != [3]uint64{uint64(size), uint64(modified), engineTerm()} {
		return nil, fmt.Errorf("%w: it is stale", errIndex)
	}
	return x, nil
}

// parseIndex decodes an index. Its parts alias b.
func parseIndex(b []byte) (x *index, root tree.Hash, stamps [3]uint64, err error) {
	bad := func(what string) (*index, tree.Hash, [3]uint64, error) {
		return nil, root, stamps, fmt.Errorf("%w: %s", errIndex, what)
	}
	if len(b) < indexHeader+4 || string(b[:8]) != indexMagic {
		return bad("not an index")
	}
	le := binary.LittleEndian
	if crc32.Checksum(b[:len(b)-4], castagnoli) != le.Uint32(b[len(b)-4:]) {
		return bad("it is damaged")
	}
	x = &index{first: int64(le.Uint64(b[8:])), count: int64(le.Uint64(b[16:]))}
	copy(root[:], b[24:56])
	stamps = [3]uint64{le.Uint64(b[56:]), le.Uint64(b[64:]), le.Uint64(b[72:])}
	terms, postings := uint64(le.Uint32(b[80:])), uint64(le.Uint32(b[84:]))
	rest := b[indexHeader : len(b)-4]
	if terms*termLen+postings != uint64(len(rest)) || x.first < 0 || x.count < 0 || x.first%tree.Width != 0 || x.count%tree.Width != 0 {
		return bad("its lengths are wrong")
	}
	x.terms, x.postings = rest[:terms*termLen], rest[terms*termLen:]
	return x, root, stamps, nil
}

// bundles adds to set the bundles that have a term. It returns false if the
// index cannot be read there.
func (x *index) bundles(term uint64, set bitset) bool {
	le := binary.LittleEndian
	n := len(x.terms) / termLen
	i, found := 0, false
	for low, high := 0, n; low < high; {
		i = (low + high) / 2
		switch h := le.Uint64(x.terms[i*termLen:]); {
		case h == term:
			found = true
			low = high
		case h < term:
			low = i + 1
		default:
			high = i
		}
	}
	if !found {
		return true
	}
	at := uint64(le.Uint32(x.terms[i*termLen+8:]))
	if at > uint64(len(x.postings)) {
		return false
	}
	p := x.postings[at:]
	many, size := binary.Uvarint(p)
	if size <= 0 {
		return false
	}
	last, limit := uint64(0), uint64(x.count/tree.Width)
	for p = p[size:]; many > 0; many-- {
		d, size := binary.Uvarint(p)
		if size <= 0 || last+d >= limit || d > limit {
			return false
		}
		p = p[size:]
		last += d
		set[last/64] |= 1 << (last % 64)
	}
	return true
}

// A bitset has a bit for each bundle of a segment.
type bitset []uint64

func newBitset(n int64) bitset { return make(bitset, (n+63)/64) }

func (s bitset) and(t bitset) {
	for i := range s {
		s[i] &= t[i]
	}
}

func (s bitset) has(i int64) bool { return s[i/64]&(1<<(i%64)) != 0 }

// An indexBuilder collects the terms of a segment.
type indexBuilder struct {
	terms map[uint64][]uint32 // bundles, ascending
	known map[string]uint64   // hashes of terms, since most come often
}

func (b *indexBuilder) add(bundle uint32, kind, text string) {
	if text == "" {
		return
	}
	key := kind + "\x00" + text
	h, ok := b.known[key]
	if !ok {
		if len(b.known) >= 1<<16 {
			clear(b.known)
		}
		h = term(kind, text)
		b.known[key] = h
	}
	if list := b.terms[h]; len(list) == 0 || list[len(list)-1] != bundle {
		b.terms[h] = append(list, bundle)
	}
}

// statement adds the terms of an admission.
func (b *indexBuilder) statement(bundle uint32, s *Statement) {
	b.add(bundle, "user", s.User)
	b.add(bundle, "database", s.Database)
	b.add(bundle, "application", s.Application)
	b.add(bundle, "client", clientHost(s.Client))
	b.add(bundle, "kind", string(s.Kind))
	if s.Session != 0 {
		b.add(bundle, "session", string(event.AppendSession(nil, s.Session)))
	}
	if s.Kind == event.KindFunctionCall {
		b.add(bundle, "class", string(sqlinfo.Function))
	}
	if info := s.SQL(); info != nil {
		b.add(bundle, "fingerprint", info.Fingerprint)
		for _, c := range info.Classes {
			b.add(bundle, "class", string(c))
		}
		if !info.Complete {
			b.add(bundle, "class", Unknown)
		}
		for _, r := range info.Relations {
			b.add(bundle, "relation", lastName(r))
		}
	}
}

// buildIndex reads a segment and returns the bytes of its index.
func (l *Log) buildIndex(ctx context.Context, first int64) ([]byte, error) {
	root, count, size, modified, err := l.stamp(first)
	if err != nil {
		return nil, err
	}
	b := &indexBuilder{terms: make(map[uint64][]uint32), known: make(map[string]uint64)}
	d := newDecoder(l)
	var s Statement
	for e, err := range l.Entries(first, first+count) {
		if err != nil {
			return nil, err
		}
		if e.Index%tree.Width == 0 { // leave half of a processor to others
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(time.Millisecond):
			}
		}
		var v view
		if err := v.scan(e.Leaf); err != nil {
			return nil, fmt.Errorf("read entry %d: %w", e.Index, err)
		}
		if joined(v.kind) {
			continue
		}
		if err := d.admission(&s, &e, &v); err != nil {
			return nil, fmt.Errorf("read entry %d: %w", e.Index, err)
		}
		b.statement(uint32((e.Index-first)/tree.Width), &s)
	}
	le := binary.LittleEndian
	out := append(make([]byte, 0, 1<<16), indexMagic...)
	out = le.AppendUint64(le.AppendUint64(out, uint64(first)), uint64(count))
	out = append(out, root[:]...)
	out = le.AppendUint64(le.AppendUint64(le.AppendUint64(out, uint64(size)), uint64(modified)), engineTerm())
	hashes := slices.Sorted(maps.Keys(b.terms))
	var postings []byte
	var table []byte
	for _, h := range hashes {
		table = le.AppendUint32(le.AppendUint64(table, h), uint32(len(postings)))
		list := b.terms[h]
		postings = binary.AppendUvarint(postings, uint64(len(list)))
		last := uint32(0)
		for _, n := range list {
			postings = binary.AppendUvarint(postings, uint64(n-last))
			last = n
		}
	}
	out = le.AppendUint32(le.AppendUint32(out, uint32(len(hashes))), uint32(len(postings)))
	out = append(append(out, table...), postings...)
	if len(out) > maxIndex-4 {
		return nil, fmt.Errorf("index of segment %d: %d bytes are too many", first, len(out))
	}
	return le.AppendUint32(out, crc32.Checksum(out, castagnoli)), nil
}

// Index makes the indexes that are missing or stale, and removes those of
// segments that are gone. It is for the process that writes the log, one at a time.
func (l *Log) Index(ctx context.Context) error {
	firsts, err := segment.List(durable.OS, l.dir)
	if err != nil {
		return err
	}
	names, err := os.ReadDir(l.indexDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, n := range names {
		first, ok := indexName(n.Name())
		if !ok || !slices.Contains(firsts, first) {
			if err := os.Remove(filepath.Join(l.indexDir(), n.Name())); err != nil {
				return err
			}
		}
	}
	for _, first := range firsts {
		if _, err := l.openIndex(first); err == nil {
			continue
		}
		if err := os.Remove(l.indexFile(first)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err // what it tells of erased values must not stay
		}
		b, err := l.buildIndex(ctx, first)
		if errors.Is(err, fs.ErrNotExist) {
			continue // pruned meanwhile
		} else if err != nil {
			return err
		}
		if err := durable.MkdirAll(durable.OS, l.indexDir(), 0o700); err != nil {
			return err
		}
		if err := durable.WriteFile(durable.OS, l.indexFile(first), b, 0o600); err != nil {
			return err
		}
		if _, err := l.openIndex(first); err != nil { // values went while it was made
			if err := os.Remove(l.indexFile(first)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// RemoveIndexes removes all indexes of the log in the data directory dir: they
// tell of values that may have been erased. They are made anew by and by.
func RemoveIndexes(dir string) error { return os.RemoveAll(filepath.Join(dir, "index")) }

func indexName(name string) (first int64, ok bool) {
	digits, ok := strings.CutSuffix(name, ".idx")
	if !ok || len(digits) != 20 {
		return 0, false
	}
	first, err := strconv.ParseInt(digits, 10, 64)
	return first, err == nil
}

// A plan tells a search which entries it need not read.
type plan struct {
	log    *Log
	terms  [][]uint64 // of each of these, one must be there
	firsts []int64    // of segments

	at    int64 // segment that the rest is about, -1 for none
	end   int64 // index behind it
	found bitset
}

// plan returns the plan for what is searched for, nil if indexes do not help.
func (l *Log) plan(m *matcher) *plan {
	p := &plan{log: l, at: -1}
	need := func(kind string, texts ...string) {
		var any []uint64
		for _, t := range texts {
			any = append(any, term(kind, t))
		}
		p.terms = append(p.terms, any)
	}
	f := m.f
	if f.User != "" {
		need("user", m.user)
	}
	if f.Database != "" {
		need("database", m.db)
	}
	if f.Application != "" {
		need("application", m.app)
	}
	if a, err := netip.ParseAddr(strings.Trim(f.Client, "[]")); err == nil {
		need("client", a.Unmap().String())
	}
	if m.sessionMask == ^uint64(0) {
		need("session", string(event.AppendSession(nil, m.session)))
	}
	if len(m.kinds) > 0 {
		need("kind", f.Kinds...)
	}
	if len(f.Classes) > 0 {
		need("class", f.Classes...)
	}
	if m.relation != "" {
		need("relation", lastName(m.relation))
	}
	if m.fingerprint != "" {
		need("fingerprint", m.fingerprint)
	}
	if len(p.terms) == 0 {
		return nil
	}
	var err error
	if p.firsts, err = segment.List(durable.OS, l.dir); err != nil || len(p.firsts) == 0 {
		return nil // then all is read
	}
	return p
}

// next returns the first entry from pos on that must be read.
func (p *plan) next(pos int64) int64 {
	for {
		i, found := slices.BinarySearch(p.firsts, pos)
		if !found {
			i--
		}
		if i < 0 {
			return pos
		}
		if p.firsts[i] != p.at {
			p.load(p.firsts[i])
		}
		if p.found == nil || pos >= p.end { // no index, or behind the last segment
			return pos
		}
		for n := (pos - p.at) / tree.Width; n < (p.end-p.at)/tree.Width; n++ {
			if p.found.has(n) {
				return max(pos, p.at+n*tree.Width)
			}
		}
		pos = p.end
	}
}

// load sets the bundles of a segment that may have what is searched for; nil
// means that any may.
func (p *plan) load(first int64) {
	p.at, p.found = first, nil
	x, err := p.log.openIndex(first)
	if err != nil {
		return
	}
	p.end = first + x.count
	bundles := x.count / tree.Width
	var all bitset
	for _, any := range p.terms {
		set := newBitset(bundles)
		for _, t := range any {
			if !x.bundles(t, set) {
				return
			}
		}
		if all == nil {
			all = set
		} else {
			all.and(set)
		}
	}
	p.found = all
}
