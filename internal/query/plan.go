package query

import (
	"io"
	"math"
	"math/bits"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// A plan tells a search which entries it need not read.
type plan struct {
	open   func(first int64) (*index, io.Closer, error)
	terms  [][]uint64 // of each of these, one must be there
	param  *string    // and this parameter
	parts  []string   // and these in a text
	stop   int64      // index from which on nothing is searched for
	firsts []int64    // of what has an index, ascending

	at       int64 // the one that the rest is about, -1 for none
	end      int64 // index behind it
	found    *places
	index    *index
	file     io.Closer          // of it, nil if none is open
	sessions map[uint64]*places // bundles of sessions that were waited for, and of starts as session 0

	texts map[int64]textPlaces // of all indexes so far, by their first entry
}

// textPlaces are the bundles of an index whose texts may have the parts that are
// searched for: those that are in there, and those that are kept elsewhere.
type textPlaces struct {
	bundles  int64
	in, kept *places
}

// maxAwaited bounds the sessions that indexes are asked about: if the ends of
// statements of more are waited for, all is read.
const maxAwaited = 16

// plan returns the plan for what is searched for, nil if indexes do not help. It
// is to be closed.
func (l *Log) plan(m *matcher) *plan {
	p := &plan{open: l.openIndex, at: -1, terms: m.terms(), param: m.param(), parts: m.parts(), stop: m.end, texts: make(map[int64]textPlaces)}
	if len(p.terms) == 0 && p.param == nil && len(p.parts) == 0 && m.f.End == 0 {
		return nil
	}
	names, err := os.ReadDir(l.indexDir())
	if err != nil {
		return nil // then all is read
	}
	for _, n := range names { // sorted, and the numbers have one width
		if first, ok := indexName(n.Name()); ok {
			p.firsts = append(p.firsts, first)
		}
	}
	return p
}

// terms returns what a bundle must have, of each slice one, to hold an admission
// that is wanted.
func (m *matcher) terms() (all [][]uint64) {
	need := func(kind string, texts ...string) {
		var any []uint64
		for _, t := range texts {
			any = append(any, term(kind, t))
		}
		all = append(all, any)
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
	} else if host := clientHost(f.Client); host != "" { // and a port
		need("client", host)
	}
	if m.sessionMask == ^uint64(0) {
		need("session", string(event.AppendSession(nil, m.session)))
	}
	if len(m.kinds) > 0 {
		need("kind", f.Kinds...)
	}
	said := func(kind string, texts ...string) { // what the text says
		need(kind, texts...)
		all[len(all)-1] = append(all[len(all)-1], term(openTerm, unreadTerm))
	}
	if len(f.Classes) > 0 {
		said("class", f.Classes...)
	}
	if m.relation != "" {
		said("relation", lastName(m.relation))
	}
	if m.fingerprint != "" {
		said("fingerprint", m.fingerprint)
	}
	unknown := term(openTerm, "")
	if state := f.SQLState; state != "" {
		switch n := len(state); {
		case n >= stateLen:
			state = state[:stateLen]
		case n >= stateClass:
			state = state[:stateClass]
		default:
			state = anyState
		}
		all = append(all, []uint64{term("sqlstate", state), unknown})
		if m.sessionMask == ^uint64(0) {
			all = append(all, []uint64{failedTerm(m.session), unknown})
		}
	}
	if m.minMicros > 0 {
		all = append(all, []uint64{term("duration", durationTerm(bits.Len64(uint64(m.minMicros))-1)), unknown})
	}
	return all
}

// param returns the parameter that is wanted if indexes know it, else nil. What
// is shown of a value as hexadecimal may have been shown otherwise when the
// index was made, with the type that a Parse told that was pruned since.
func (m *matcher) param() *string {
	if p := m.f.Param; p != nil && len(*p) <= maxParamText && !strings.HasPrefix(*p, `\x`) {
		return p
	}
	return nil
}

// next returns the first entry from pos on that must be read: since what is
// searched for may begin there, or something that j waits for.
func (p *plan) next(pos int64, j *joiner) int64 {
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
		if p.found == nil || pos >= p.end { // no index, or behind what it is of
			return pos
		}
		awaited, ok := p.awaited(j)
		if !ok {
			return pos
		}
		for n := (pos - p.at) / tree.Width; n < (p.end-p.at)/tree.Width; n++ {
			if p.found.has(n) && p.at+n*tree.Width < p.stop || slices.ContainsFunc(awaited, func(s *places) bool { return s.has(n) }) {
				return max(pos, p.at+n*tree.Width)
			}
		}
		pos = p.end
	}
}

// may returns from where to where what is searched for may begin in the bundle
// of pos, which next returned last; a plan that is nil does not know.
func (p *plan) may(pos int64) (from, to int64) {
	if p == nil || p.found == nil || pos < p.at || pos >= p.end {
		return 0, math.MaxInt64
	}
	n := (pos - p.at) / tree.Width
	if !p.found.has(n) {
		return 0, -1
	}
	part := p.found.part(n)
	return p.at + n*tree.Width + int64(part.low), p.at + n*tree.Width + int64(part.high)
}

// solid returns where the entries end that must all be read, from pos on, which
// next returned last; pos if that is known of none. A plan that is nil knows of no other ones.
func (p *plan) solid(pos, size int64) int64 {
	if p == nil {
		return size
	}
	if p.found == nil || pos < p.at || pos >= p.end {
		if i, _ := slices.BinarySearch(p.firsts, pos+1); i < len(p.firsts) {
			return min(size, p.firsts[i])
		}
		return size
	}
	n, bundles := (pos-p.at)/tree.Width, (p.end-p.at)/tree.Width
	for n < bundles && p.found.has(n) && p.at+n*tree.Width < p.stop {
		n++
	}
	return min(size, p.at+n*tree.Width)
}

// before returns where the last bundle ends that begins before pos and must be
// read, from not included; from if there is none.
func (p *plan) before(pos, from int64) int64 {
	for pos > from {
		i, found := slices.BinarySearch(p.firsts, pos-1)
		if !found {
			i--
		}
		if i < 0 {
			return pos
		}
		if p.firsts[i] != p.at {
			p.load(p.firsts[i])
		}
		if p.found == nil || pos > p.end {
			return pos
		}
		for n := (pos - 1 - p.at) / tree.Width; n >= 0; n-- {
			if p.found.has(n) {
				return max(from, min(pos, p.at+(n+1)*tree.Width))
			}
		}
		pos = p.at
	}
	return from
}

// awaited returns the bundles with entries of the sessions whose statements j
// waits for, and those with starts, which end all; ok is false if that is not known.
func (p *plan) awaited(j *joiner) (all []*places, ok bool) {
	if !j.waiting() {
		return nil, true
	}
	ids := []uint64{0}
	for id, s := range j.sessions.all {
		if len(s.open) == 0 {
			continue
		}
		if ids = append(ids, id); len(ids) > maxAwaited {
			return nil, false
		}
	}
	for _, id := range ids {
		set := p.sessions[id]
		if set == nil {
			t := term("kind", string(event.KindStart))
			if id != 0 {
				t = term("session", string(event.AppendSession(nil, id)))
			}
			set = newPlaces(p.index.stamp.count / tree.Width)
			if p.index.bundles(t, set) != nil {
				return nil, false
			}
			p.sessions[id] = set
		}
		all = append(all, set)
	}
	return all, true
}

// load sets the bundles of an index that may have what is searched for; nil
// means that any may.
func (p *plan) load(first int64) {
	p.close()
	p.at, p.found = first, nil
	x, f, err := p.open(first)
	if err != nil {
		return
	}
	p.index, p.file, p.sessions = x, f, make(map[uint64]*places)
	p.end = first + x.stamp.count
	bundles := x.stamp.count / tree.Width
	all := newPlaces(bundles)
	for n := range bundles {
		all.add(n, 0, tree.Width-1)
	}
	for _, any := range p.terms {
		set := newPlaces(bundles)
		for _, t := range any {
			if x.bundles(t, set) != nil {
				return
			}
		}
		all.and(set)
	}
	if p.param != nil {
		set := newPlaces(bundles)
		if x.param(paramHash(*p.param), set) != nil || x.bundles(term("open", paramTerm), set) != nil {
			return
		}
		all.and(set)
	}
	if len(p.parts) > 0 {
		texts := textPlaces{bundles, newPlaces(bundles), newPlaces(bundles)}
		for n := range bundles {
			texts.in.add(n, 0, tree.Width-1)
		}
		for _, part := range p.parts {
			set := newPlaces(bundles)
			if x.part(part, set) != nil {
				return
			}
			texts.in.and(set)
		}
		if x.bundles(term(openTerm, keptTerm), texts.kept) != nil {
			return
		}
		all.and(texts.in)
		p.texts[first] = texts
	}
	p.found = all
}

// without reports whether no text that goes back to the entry at index can have the
// parts that are searched for; false if that is not known.
func (p *plan) without(index int64) bool {
	i, found := slices.BinarySearch(p.firsts, index)
	if !found {
		i--
	}
	if i < 0 {
		return false
	}
	t, n := p.texts[p.firsts[i]], (index-p.firsts[i])/tree.Width
	return n < t.bundles && !t.in.has(n) && !t.kept.has(n)
}

// close closes what the plan has open; nil has nothing.
func (p *plan) close() {
	if p != nil && p.file != nil {
		_ = p.file.Close() // was only read
		p.file = nil
	}
}
