package query

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/sqlinfo"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// An indexBuilder collects the terms of entries in a row.
type indexBuilder struct {
	dec         *decoder
	first, next int64                // the entry it began with, and the one it takes next
	written     int64                // entries of the file that was written last
	terms       map[uint64]*postings // ascending
	ends        map[uint64]*postings // the same, of terms that an end brought: in any order
	known       map[knownTerm]*postings
	kinds       map[event.Kind]*postings
	longest     []int8 // of each bundle: 2^n microseconds is less than twice what a statement took; -1 none
	sessions    map[uint64]*indexSession
	last        *indexSession // the one of these that was asked for last
	texts       indexTexts
	params      []uint64 // hash and bundle, in order up to ordered
	ordered     int
	view        view
	statement   Statement
	bind        bindMsg
	buf         []byte
}

// postings are the bundles that have a term.
type postings struct{ list []posting }

// A posting says that entries of a bundle have a term: some from number low to
// number high of it.
type posting struct {
	bundle    uint32
	low, high uint8
}

// put adds that the term is in an entry, given by its distance from the first.
func (p *postings) put(at int64) {
	bundle, slot := uint32(at/tree.Width), uint8(at%tree.Width)
	if n := len(p.list); n > 0 && p.list[n-1].bundle == bundle {
		last := &p.list[n-1]
		last.low, last.high = min(last.low, slot), max(last.high, slot)
		return
	}
	p.list = append(p.list, posting{bundle, slot, slot})
}

// An indexSession is what there is to know of a session to index the entries to
// come: most say the same as those before.
type indexSession struct {
	id                    uint64
	all                   *postings   // of its entries; nil for what is of no session
	whose                 *identity   // as leaves of the usual form spell it
	told                  *identity   // that of the last admission, nil if it has another form
	user, db, app, client []byte      // as in the leaf of the last admission
	who                   []*postings // of these
	running               []int64     // admissions whose end is not known: without an outcome
	last                  int64       // the newest admission
	since                 postings    // all admissions since nothing was open
}

func newIndexBuilder(src source, first int64) *indexBuilder {
	dec := newDecoder(src)
	dec.limit = maxIndexedBlob
	return &indexBuilder{
		dec: dec, first: first, next: first,
		terms: make(map[uint64]*postings), ends: make(map[uint64]*postings),
		known: make(map[knownTerm]*postings), kinds: make(map[event.Kind]*postings),
		sessions: make(map[uint64]*indexSession),
	}
}

// maxIndexedBlob bounds the values that an index is made from. The process that makes it serves too, and must not
// need several times the memory of the largest statement that somebody sends.
const maxIndexedBlob = 8 << 20

// A knownTerm is one whose hash was worked out before.
type knownTerm struct{ kind, text string }

// maxKnown bounds the terms whose hashes are kept.
const maxKnown = 1 << 16

// of returns where a term is.
func (b *indexBuilder) of(kind, text string) *postings {
	p := b.known[knownTerm{kind, text}]
	if p == nil {
		p = listed(b.terms, term(kind, text))
		if len(b.known) >= maxKnown {
			clear(b.known)
		}
		b.known[knownTerm{kind, strings.Clone(text)}] = p
	}
	return p
}

// listed returns where a term is by a map, in which it is then.
func listed(terms map[uint64]*postings, h uint64) *postings {
	p := terms[h]
	if p == nil {
		p = new(postings)
		terms[h] = p
	}
	return p
}

// session returns what is known of a session.
func (b *indexBuilder) session(id uint64) *indexSession {
	if b.last != nil && b.last.id == id {
		return b.last
	}
	s := b.sessions[id]
	if s == nil {
		s = &indexSession{id: id}
		if id != 0 {
			s.all = listed(b.terms, term("session", string(event.AppendSession(nil, id))))
		}
		b.sessions[id] = s
	}
	b.last = s
	return s
}

// whose is for view.scanBy.
func (b *indexBuilder) whose(session uint64) **identity { return &b.session(session).whose }

// entry takes the next entry.
func (b *indexBuilder) entry(e *journal.Entry) error {
	v := &b.view
	if err := v.scanBy(b, e.Leaf); err != nil {
		return fmt.Errorf("read entry %d: %w", e.Index, err)
	}
	at := e.Index - b.first
	for at/tree.Width >= int64(len(b.longest)) {
		b.longest = append(b.longest, -1)
	}
	b.next = e.Index + 1
	s := b.session(v.session)
	// Whoever waits for the end of a session's statement goes by this.
	if s.all != nil {
		s.all.put(at)
	}
	if joined(v.kind) {
		b.end(s, e, v)
		return nil
	}
	b.who(s, v)
	for _, p := range s.who {
		p.put(at)
	}
	kind := b.kinds[v.kind]
	if kind == nil {
		kind = b.of("kind", string(v.kind))
		b.kinds[v.kind] = kind
	}
	kind.put(at)
	if v.sqlstate != nil {
		b.state(at, v.session, string(v.sqlstate))
	}
	switch {
	case v.kind == event.KindStart:
		clear(b.sessions)
		b.last = nil
	case v.kind == event.KindDisconnect:
		delete(b.sessions, v.session)
		b.last = nil
	case concludes(v.kind):
		s.running, s.last = append(s.running, e.Index), e.Index
		s.since.put(at)
		if err := b.content(at, e, v); err != nil {
			return fmt.Errorf("read entry %d: %w", e.Index, err)
		}
	}
	return nil
}

// who sets whose entries those of a session are.
func (b *indexBuilder) who(s *indexSession, v *view) {
	if v.who != nil && v.who == s.told {
		return
	}
	s.told = v.who
	user, db, app, client := v.whose()
	if bytes.Equal(s.user, user) && bytes.Equal(s.db, db) && bytes.Equal(s.app, app) && bytes.Equal(s.client, client) {
		return
	}
	s.user, s.db = append(s.user[:0], user...), append(s.db[:0], db...)
	s.app, s.client = append(s.app[:0], app...), append(s.client[:0], client...)
	s.who = s.who[:0]
	for _, t := range []knownTerm{
		{"user", unescape(user)}, {"database", unescape(db)}, {"application", unescape(app)}, {"client", clientHost(unescape(client))},
	} {
		if t.text != "" {
			s.who = append(s.who, b.of(t.kind, t.text))
		}
	}
}

// end takes an outcome or a settlement, which is indexed where its admission is.
func (b *indexBuilder) end(s *indexSession, e *journal.Entry, v *view) {
	of, ok := event.Index(v.of)
	if !ok {
		return
	}
	if of >= b.first && of < e.Index && v.sqlstate != nil {
		b.state(of-b.first, v.session, string(v.sqlstate))
		value, _ := b.dec.value(e)
		b.state(of-b.first, v.session, serverError(value, v).SQLState)
	}
	b.ended(s, v)
}

// ended takes from an outcome or a settlement how long a statement took, and
// which of its session nothing more is to be learned about.
func (b *indexBuilder) ended(s *indexSession, v *view) {
	of, ok := event.Index(v.of)
	if !ok {
		return
	}
	if bundle := (of - b.first) / tree.Width; of >= b.first && bundle < int64(len(b.longest)) {
		b.longest[bundle] = max(b.longest[bundle], int8(bits.Len64(uint64(max(0, v.micros)))-1))
	}
	if i := slices.Index(s.running, of); i >= 0 && v.kind == event.KindOutcome {
		s.running = slices.Delete(s.running, i, i+1)
	}
	if v.tx == 'I' && len(s.running) == 0 && of >= s.last {
		s.since.list = s.since.list[:0]
	}
}

func (b *indexBuilder) state(at int64, session uint64, state string) {
	if state == "" {
		return
	}
	listed(b.ends, failedTerm(session)).put(at)
	for _, s := range []string{state[:min(stateLen, len(state))], state[:min(stateClass, len(state))], anyState} {
		listed(b.ends, term("sqlstate", s)).put(at)
	}
}

// content adds the terms of what an admission says, its text and its parameters.
func (b *indexBuilder) content(at int64, e *journal.Entry, v *view) error {
	s := &b.statement
	*s = Statement{Params: s.Params[:0]}
	value, ok := b.dec.value(e)
	s.Unavailable = !ok
	if e.Gone != journal.NotGone {
		b.of(openTerm, keptTerm).put(at)
	} else if !ok {
		b.unread(at)
	}
	cs := v.charset()
	switch v.kind {
	case event.KindQuery:
		if body, found := findFrame(value, 'Q'); found {
			c := cursor{b: body}
			if raw := c.str(); cs == nil && utf8.Valid(raw) { // as most are
				b.text(at, raw)
			} else {
				b.text(at, []byte(cs.text(raw)))
			}
		}
		return nil
	case event.KindFunctionCall:
		s.functionCall(value, cs)
		b.of("class", string(sqlinfo.Function)).put(at)
	default:
		b.dec.remember(e, v)
		var err error
		if bound, ok := boundOnly(value); ok { // as most are
			b.bind.decode(bound)
			err = b.dec.referred(s, v.parse, &b.bind, typeList(v.types), cs)
		} else {
			err = b.dec.extended(s, value, v, cs)
			// Whoever goes back to it has the text of its Parse, even if s has another.
			body, _ := findFrame(value, 'P')
			c := cursor{b: body}
			c.str()
			if raw := c.str(); !s.HasText || string(raw) != s.Text {
				b.parts(at, []byte(cs.text(raw)))
			}
		}
		if err != nil {
			return err
		}
	}
	if s.Unavailable && e.Gone == journal.NotGone { // of itself, or of what it goes back to
		b.unread(at)
	}
	for i := range s.Params {
		b.param(at, &s.Params[i])
	}
	if c := s.shared; c != nil && s.HasText && c.text == s.Text {
		b.shared(at, c)
	} else if s.HasText {
		b.buf = append(b.buf[:0], s.Text...)
		b.text(at, b.buf)
	}
	return nil
}

// lookBehind is how many entries behind a segment are read for what becomes of its
// statements: those that run while it ends have ended by then, but for slow ones.
const lookBehind = 8 * tree.Width

// conclude looks behind the last entry for what became of the statements that
// are open there. If all went well that is in leaves, which stay; a session with
// an error stays open. No more can be taken afterwards.
func (b *indexBuilder) conclude(src source) error {
	open := make(map[uint64]*indexSession)
	for id, s := range b.sessions {
		if len(s.since.list) > 0 {
			open[id] = s
		}
	}
	if len(open) == 0 {
		return nil
	}
	for e, err := range src.Entries(b.next, b.next+lookBehind) {
		if err != nil {
			return err
		}
		var v view
		if err := v.scan(e.Leaf); err != nil {
			return fmt.Errorf("read entry %d: %w", e.Index, err)
		}
		if v.kind == event.KindStart {
			for _, s := range open {
				s.since.list = nil // no end will come
			}
			return nil
		}
		s := open[v.session]
		switch {
		case s == nil:
			continue
		case v.kind == event.KindDisconnect:
			s.since.list = nil
		case v.sqlstate != nil:
			delete(open, v.session)
		case joined(v.kind):
			b.ended(s, &v)
		}
		if len(s.since.list) == 0 {
			delete(open, v.session)
		}
		if len(open) == 0 {
			break
		}
	}
	return nil
}

// boundOnly returns the Bind of a value with one, and without the Parse that it goes back to.
func boundOnly(value []byte) (body []byte, ok bool) {
	for {
		f, rest, more := nextFrame(value)
		switch {
		case !more:
			return body, ok
		case f.letter == 'P':
			return nil, false
		case f.letter == 'B' && !ok:
			body, ok = f.body, true
		}
		value = rest
	}
}

// atOnce is how many bundles are taken without a rest, some milliseconds: waking up
// costs as much as some hundred entries.
const atOnce = 8

// read takes the entries up to but without to. It leaves half of a processor to others.
func (b *indexBuilder) read(ctx context.Context, src source, to int64) error {
	for e, err := range src.Entries(b.next, to) {
		if err != nil {
			return err
		}
		if e.Index%(atOnce*tree.Width) == 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(4 * time.Millisecond):
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
func sorted(list []posting) []posting {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b posting) int { return cmp.Compare(a.bundle, b.bundle) })
	var out postings
	for _, p := range list {
		out.put(int64(p.bundle)*tree.Width + int64(p.low))
		out.put(int64(p.bundle)*tree.Width + int64(p.high))
	}
	return out.list
}

// rare bounds the bundles of a term for which an index says where in them it is.
const rare = 16

// encode returns the bytes of the index of what was taken; places are of the
// batches of a journal file.
func (b *indexBuilder) encode(s stamp, places []byte) ([]byte, error) {
	all := make(map[uint64][]posting, len(b.terms)+len(b.ends)+64)
	for h, p := range b.terms {
		all[h] = p.list
	}
	for h, p := range b.ends {
		all[h] = sorted(p.list)
	}
	var lasted [64][]posting
	for bundle, n := range b.longest {
		for ; n >= 0; n-- {
			lasted[n] = append(lasted[n], posting{uint32(bundle), 0, tree.Width - 1})
		}
	}
	for n, list := range lasted {
		if len(list) > 0 {
			all[term("duration", durationTerm(n))] = list
		}
	}
	var open []posting
	for _, s := range b.sessions {
		open = append(open, s.since.list...)
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
	grams := b.texts.grams.appendGrams(nil, s.count/tree.Width)
	out = le.AppendUint32(le.AppendUint32(le.AppendUint32(out, uint32(len(all))), uint32(len(postings))), uint32(len(params)))
	out = append(append(le.AppendUint32(out, uint32(len(grams)-gramBuckets*4)), table...), postings...)
	out = append(appendParams(out, params, s.count/tree.Width), grams...)
	out = append(out, places...)
	if size := fileSize(int64(len(out))); size > maxIndex || s.count > maxCount {
		return nil, fmt.Errorf("index of %d entries from %d on: %d bytes are too many", s.count, s.first, size)
	}
	return seal(out), nil
}
