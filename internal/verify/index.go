package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"sync/atomic"

	"github.com/pgnotary/pgnotary/internal/event"
)

// listed checks that the index of a segment, or of a journal file, leaves out no
// entry, by what its leaf says: a search would not find it. That an index
// names bundles in vain does no harm. It takes the entries of one file after
// the other, in ascending order, and remembers a bounded number of its terms. It
// belongs to one goroutine.
type listed struct {
	x        *indexFile // nil if there is none, or for what is behind its end
	terms    map[indexTerm]*cursor
	owners   map[string]*indexOwner
	sessions []*indexSession // by hash of the id
	last     *cursor         // of the kind of the last entry
	lastKind event.Kind
}

// Bounds of what is remembered.
const (
	listedBits  = 13 // 2^13 sessions
	listedTerms = 1 << 14
)

type indexTerm struct{ kind, text string }

// An indexSession is what is known of the entries of a session.
type indexSession struct {
	id    uint64
	term  cursor
	owner *indexOwner // of the last statement

	// Entries with this head that have all their terms, in the bundle at hand.
	head   uint32 // 0 for none
	bundle int64
	all    span
}

// An indexOwner is who statements are of: user, database and application.
type indexOwner struct {
	text  string // how a leaf spells them
	terms []ownerTerm
	span
	bundle int64 // that the span is of
}

type ownerTerm struct {
	indexTerm
	*cursor
}

// An unlisted entry is one that an index leaves out.
type unlisted struct {
	x *indexFile
	indexTerm
}

// begin says that entries of the file that x is of follow.
func (l *listed) begin(x *indexFile) {
	*l = listed{x: x, sessions: l.sessions}
	if x == nil {
		return
	}
	l.terms, l.owners = map[indexTerm]*cursor{}, map[string]*indexOwner{}
	if l.sessions == nil {
		l.sessions = make([]*indexSession, 1<<listedBits)
	}
	clear(l.sessions)
}

// entry looks for an entry in the index. It sets unlisted if it is not there.
func (l *listed) entry(e *entry) {
	x := l.x
	if x == nil || e.Kind == "" {
		return
	}
	if e.index < x.first || e.index >= x.first+x.count {
		l.x = nil
		return
	}
	at := e.index - x.first
	var s *indexSession
	if e.Session != 0 {
		s = l.session(e.Session)
		if e.Head != 0 && s.head == e.Head && s.bundle == at/tileWidth && s.all.has(at) {
			return
		}
		if !s.term.has(at) {
			e.unlisted = &unlisted{x, indexTerm{"session", sessionText(e.Session)}}
			return
		}
	}
	if e.Kind == event.KindOutcome || e.Kind == event.KindSettle {
		return
	}
	if e.Kind != l.lastKind {
		l.lastKind, l.last = e.Kind, l.term(indexTerm{"kind", string(e.Kind)})
	}
	if !l.last.has(at) {
		e.unlisted = &unlisted{x, indexTerm{"kind", string(e.Kind)}}
		return
	}
	var o *indexOwner
	if rest := e.leaf[headLen(e):]; s == nil {
		o = l.owner(e, rest)
	} else {
		if s.owner == nil || !s.owner.is(rest) {
			s.owner = l.owner(e, rest)
		}
		o = s.owner
	}
	if t := o.lacks(at); t != nil {
		e.unlisted = &unlisted{x, *t}
	} else if s != nil {
		s.head, s.bundle = e.Head, at/tileWidth
		s.all = span{max(s.term.from, l.last.from, o.from), min(s.term.to, l.last.to, o.to)}
	}
}

// session returns what is known of a session.
func (l *listed) session(id uint64) *indexSession {
	place := &l.sessions[id*0x9E3779B97F4A7C15>>(64-listedBits)]
	if *place == nil || (*place).id != id {
		*place = &indexSession{id: id, term: l.x.find(indexTerm{"session", sessionText(id)})}
	}
	return *place
}

func sessionText(id uint64) string { return string(event.AppendSession(nil, id)) }

// term returns a cursor for a term.
func (l *listed) term(t indexTerm) *cursor {
	c := l.terms[t]
	if c == nil {
		if len(l.terms) >= listedTerms {
			clear(l.terms)
		}
		found := l.x.find(t)
		c = &found
		l.terms[t] = c
	}
	return c
}

// owner returns whose the entry is; rest is what follows the kind in its leaf.
func (l *listed) owner(e *entry, rest []byte) *indexOwner {
	text := rest[:ownerLen(rest)]
	if o := l.owners[string(text)]; o != nil {
		return o
	}
	if len(l.owners) >= listedTerms {
		clear(l.owners)
	}
	o := &indexOwner{text: string(text), bundle: -1}
	l.owners[o.text] = o
	if leaf, err := event.Parse(e.leaf); err == nil && leaf.Who != nil {
		for _, t := range []indexTerm{{"user", leaf.Who.User}, {"database", leaf.Who.Database}, {"application", leaf.Who.Application}} {
			if t.text != "" {
				o.terms = append(o.terms, ownerTerm{t, l.term(t)})
			}
		}
	}
	return o
}

// headLen returns the length of a leaf up to and including its kind. The leaf
// is one that was decoded, so it is in the only form there is.
func headLen(e *entry) int {
	n := len(`{"v":1,"t":"2006-01-02T15:04:05.000000000Z"`)
	if e.Session != 0 {
		n += len(`,"s":"0123456789abcdef"`)
	}
	if e.Seq != 0 {
		n += len(`,"n":`)
		for e.leaf[n]-'0' <= 9 {
			n++
		}
	}
	return n + len(`,"k":""`) + len(e.Kind)
}

// ownerKeys are in their order.
var ownerKeys = []string{`,"user":"`, `,"db":"`, `,"app":"`}

// ownerLen returns the length of user, database and application in front of rest.
func ownerLen(rest []byte) int {
	n := 0
	for _, key := range ownerKeys {
		if !bytes.HasPrefix(rest[n:], []byte(key)) {
			continue
		}
		for n += len(key); rest[n] != '"'; n++ {
			if rest[n] == '\\' {
				n++
			}
		}
		n++
	}
	return n
}

// is reports whether rest begins with user, database and application of o, and
// has no more of them. It may say no where there is just another key of that letter.
func (o *indexOwner) is(rest []byte) bool {
	const letter = len(`,"`)
	n := len(o.text)
	if len(rest) <= n+letter || string(rest[:n]) != o.text {
		return false
	}
	next := rest[n+letter]
	return next != 'u' && next != 'd' && next != 'a'
}

// lacks returns a term under which the entry at is not listed, nil if there is none.
func (o *indexOwner) lacks(at int64) *indexTerm {
	if bundle := at / tileWidth; bundle != o.bundle {
		o.bundle, o.span = bundle, span{bundle * tileWidth, (bundle + 1) * tileWidth}
		for i := range o.terms {
			t := &o.terms[i]
			t.has(at) // has it at the bundle
			o.span = span{max(o.from, t.from), min(o.to, t.to)}
		}
	}
	if o.span.has(at) {
		return nil
	}
	for i := range o.terms {
		if t := &o.terms[i]; !t.has(at) {
			return &t.indexTerm
		}
	}
	return nil
}

// An indexFile is an index as docs/format/index.md has it.
type indexFile struct {
	name         string
	first, count int64
	terms        []byte
	postings     []byte
	places       []byte                     // of batches, of a journal file only
	lists        []atomic.Pointer[termList] // of terms that were looked for
	complained   bool                       // by the order
}

// Bounds of an index, in bytes and in entries.
const (
	maxIndexFile = 1 << 30
	maxIndexed   = 1 << 32
)

// indexRead is called where the entries of a file begin that has an index, or for which it could not be read.
func (c *check) indexRead(first int64, err error) {
	name, ok := c.files.indexes[first]
	if ok && err != nil {
		c.find("index/"+name, "%v: searches ignore it, and the next start of the proxy makes it anew", err)
	}
	delete(c.files.indexes, first)
}

// leavesOut takes an entry that its index leaves out. One finding for each
// index is enough.
func (c *check) leavesOut(e *entry) {
	if u := e.unlisted; !u.x.complained {
		u.x.complained = true
		c.find(u.x.name, "it leaves out entry %d, which has the %s %.100q: searches do not find it", e.index, u.kind, u.text)
	}
}

// placed holds what an index says of the places of batches against one that was read. A reader goes to such a
// place, and takes a batch there for the log's: a client who knew the mark of the file could have put one into a value.
func (c *check) placed(x *indexFile, b *batch) {
	if x == nil || x.complained {
		return
	}
	const size = 24
	for n := (b.first - x.first + tileWidth - 1) / tileWidth; n < int64(len(x.places)/size); n++ {
		begins := x.first + n*tileWidth - b.first // in the batch
		if begins >= int64(b.entries) {
			return
		}
		if p := x.places[n*size:]; int64(le64(p)) != b.off || le64(p[8:]) != b.seq || int64(le32(p[20:])) != begins {
			x.complained = true
			c.find(x.name, "it says that entry %d is where it is not: searches may read something else there", b.first+begins)
			return
		}
	}
}

// readIndex reads an index, nil if there is none any more.
func readIndex(dir, name string) (*indexFile, error) {
	path := filepath.Join(dir, "index", name)
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Size() > maxIndexFile {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, errors.Join(err, fmt.Errorf("it cannot be an index"))
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	const header = 96
	le := binary.LittleEndian
	b, ok := unblock(b)
	if !ok || len(b) < header || string(b[:8]) != "pgnindx5" {
		return nil, errors.New("it is damaged")
	}
	x := &indexFile{name: "index/" + name, first: int64(le.Uint64(b[8:])), count: int64(le.Uint64(b[16:]))}
	terms, postings, params, places := uint64(le.Uint32(b[80:])), uint64(le.Uint32(b[84:])), uint64(le.Uint32(b[88:])), uint64(0)
	pair := uint64(3)
	if x.count/tileWidth > 1<<16 {
		pair = 4
	}
	params = (params/64+1)*4 + params*pair
	if int64(le.Uint64(b[56:])) < 0 { // of a journal file
		places = (uint64(x.count)/tileWidth + 1) * 24
	}
	grams := 256*4 + uint64(le.Uint32(b[92:]))
	if rest := uint64(len(b) - header); x.count < 0 || x.count > maxIndexed || terms*12+postings+params+grams+places != rest || fmt.Sprintf("%020d.idx", x.first) != name {
		return nil, errors.New("it is not what its name or its lengths say")
	}
	x.terms, x.postings = b[header:header+terms*12], b[header+terms*12:][:postings]
	x.places = b[uint64(len(b))-places:]
	x.lists = make([]atomic.Pointer[termList], terms)
	for i := 12; i < len(x.terms); i += 12 { // a search relies on it
		if le.Uint64(x.terms[i-12:]) >= le.Uint64(x.terms[i:]) {
			return nil, errors.New("its terms are not in order")
		}
	}
	return x, nil
}

// unblock returns the content of a file of blocks of 1,024 bytes that end in the
// CRC of the rest, in the same memory.
func unblock(b []byte) (content []byte, ok bool) {
	const block = 1024
	content = b[:0]
	for len(b) > 0 {
		n := min(len(b), block) - 4
		if n <= 0 || crc32.Checksum(b[:n], castagnoli) != binary.LittleEndian.Uint32(b[n:]) {
			return nil, false
		}
		content, b = append(content, b[:n]...), b[n+4:]
	}
	return content, true
}

// A termList is the bundles of a term. What cannot be decoded is not there.
type termList struct {
	bundles []uint32 // ascending
	parts   []byte   // from where to where in each, if it says so
}

// list returns the list of a term of the table. Workers share it.
func (x *indexFile) list(i int) *termList {
	if l := x.lists[i].Load(); l != nil {
		return l
	}
	from := min(len(x.postings), int(binary.LittleEndian.Uint32(x.terms[i*12+8:])))
	l := decodeTerm(x.postings[from:], uint64(x.count)/tileWidth)
	x.lists[i].Store(l) // another worker may have done the same just now
	return l
}

// decodeTerm takes the list apart that is in front of p, of an index of so many bundles.
func decodeTerm(p []byte, limit uint64) *termList {
	l := &termList{}
	left, size := binary.Uvarint(p)
	sparse := left <= 16
	next := uint64(0)
	for ; size > 0 && left > 0; left-- {
		p = p[size:]
		var d uint64
		if d, size = binary.Uvarint(p); size <= 0 || d >= limit || next+d >= limit || d == 0 && len(l.bundles) > 0 {
			break
		}
		if sparse {
			if len(p) < size+2 {
				break
			}
			l.parts = append(l.parts, p[size:size+2]...)
			size += 2
		}
		next += d
		l.bundles = append(l.bundles, uint32(next))
	}
	return l
}

// A cursor goes through the bundles of a term.
type cursor struct {
	*termList
	pos  int // of the bundle at hand
	span     // of its entries that have the term
}

// find returns a cursor in front of the bundles of a term.
func (x *indexFile) find(t indexTerm) cursor {
	sum := sha256.Sum256([]byte(t.kind + "\x00" + t.text))
	h, at := binary.BigEndian.Uint64(sum[:]), func(i int) uint64 { return binary.LittleEndian.Uint64(x.terms[i*12:]) }
	n := len(x.terms) / 12
	i := sort.Search(n, func(i int) bool { return at(i) >= h })
	if i == n || at(i) != h {
		return cursor{termList: &termList{}}
	}
	return cursor{termList: x.list(i), pos: -1}
}

// has reports whether the entry at, counted from the first of the file, is
// listed. Entries are asked for in ascending order, but for those of one bundle.
func (c *cursor) has(at int64) bool {
	bundle := uint32(at / tileWidth)
	if c.pos < len(c.bundles) && (c.pos < 0 || c.bundles[c.pos] < bundle) {
		c.seek(bundle)
	}
	return c.span.has(at)
}

// seek goes to the first bundle from that one on. It is mostly near; other
// workers have those between.
func (c *cursor) seek(bundle uint32) {
	from, step := c.pos+1, 1
	for from+step <= len(c.bundles) && c.bundles[from+step-1] < bundle {
		from += step
		step *= 2
	}
	rest := c.bundles[from:min(len(c.bundles), from+step)]
	c.pos = from + sort.Search(len(rest), func(i int) bool { return rest[i] >= bundle })
	if c.span = (span{}); c.pos == len(c.bundles) {
		return
	}
	first := int64(c.bundles[c.pos]) * tileWidth
	c.span = span{first, first + tileWidth}
	if c.parts != nil {
		c.span = span{first + int64(c.parts[2*c.pos]), first + int64(c.parts[2*c.pos+1]) + 1}
	}
}
