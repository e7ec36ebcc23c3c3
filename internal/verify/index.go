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

	"github.com/pgnotary/pgnotary/internal/event"
)

// indexes checks that the indexes of segments leave out no entry, by what its
// leaf says: a search would not find it. That an index names bundles in vain
// does no harm. It belongs to the goroutine of the order.
type indexes struct {
	*check
	current  *indexFile // of the segment that is read, nil without one
	bundle   int64      // that known and seen are about
	known    map[indexTerm]bool
	seen     map[uint64]bool // sessions
	sessions map[uint64]*indexSession
}

type indexTerm struct{ kind, text string }

// An indexSession is what the entries of a session, in the segment that is read, say alike.
type indexSession struct {
	id  string
	who *event.Who
}

// An indexFile is an index as docs/format/index.md has it.
type indexFile struct {
	name         string
	first, count int64
	terms        []byte
	postings     []byte
	bundles      map[indexTerm]map[int64][2]byte // of terms that were looked for: from where to where in the bundle
	complained   bool
}

// maxIndexFile bounds an index, in bytes.
const maxIndexFile = 1 << 30

// readIndex reads an index, nil if there is none any more.
func (c *check) readIndex(name string) (*indexFile, error) {
	path := filepath.Join(c.dir, "index", name)
	if info, err := os.Stat(path); err != nil || info.Size() > maxIndexFile {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, errors.Join(err, fmt.Errorf("it cannot be an index"))
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	const header = 92
	le := binary.LittleEndian
	b, ok := unblock(b)
	if !ok || len(b) < header || string(b[:8]) != "pgnindx4" {
		return nil, errors.New("it is damaged")
	}
	x := &indexFile{name: "index/" + name, first: int64(le.Uint64(b[8:])), count: int64(le.Uint64(b[16:])), bundles: map[indexTerm]map[int64][2]byte{}}
	terms, postings, params, places := uint64(le.Uint32(b[80:])), uint64(le.Uint32(b[84:])), uint64(le.Uint32(b[88:])), uint64(0)
	pair := uint64(3)
	if x.count/tileWidth > 1<<16 {
		pair = 4
	}
	params = (params/64+1)*4 + params*pair
	if int64(le.Uint64(b[56:])) < 0 { // of a journal file
		places = (uint64(x.count)/tileWidth + 1) * 24
	}
	if rest := uint64(len(b) - header); terms*12+postings+params+places != rest || fmt.Sprintf("%020d.idx", x.first) != name {
		return nil, errors.New("it is not what its name or its lengths say")
	}
	x.terms, x.postings = b[header:header+terms*12], b[header+terms*12:][:postings]
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

// has reports whether an entry of a bundle is listed under a term.
func (x *indexFile) has(index int64, t indexTerm) bool {
	set, ok := x.bundles[t]
	if !ok {
		sum := sha256.Sum256([]byte(t.kind + "\x00" + t.text))
		set = x.list(binary.BigEndian.Uint64(sum[:]))
		x.bundles[t] = set
	}
	part, ok := set[(index-x.first)/tileWidth]
	slot := byte(index % tileWidth)
	return ok && part[0] <= slot && slot <= part[1]
}

// list decodes the bundles of a term; what cannot be decoded is not there.
func (x *indexFile) list(h uint64) map[int64][2]byte {
	le := binary.LittleEndian
	low, high := 0, len(x.terms)/12
	for low < high {
		if mid := (low + high) / 2; le.Uint64(x.terms[mid*12:]) < h {
			low = mid + 1
		} else {
			high = mid
		}
	}
	set := map[int64][2]byte{}
	if low*12 >= len(x.terms) || le.Uint64(x.terms[low*12:]) != h {
		return set
	}
	at := int(le.Uint32(x.terms[low*12+8:]))
	if at > len(x.postings) {
		return set
	}
	p := x.postings[at:]
	n, size := binary.Uvarint(p)
	sparse := n <= 16 // then it says where in a bundle
	for last := uint64(0); size > 0 && n > 0; n-- {
		p = p[size:]
		var d uint64
		if d, size = binary.Uvarint(p); size > 0 {
			last += d
			part := [2]byte{0, tileWidth - 1}
			if sparse && len(p) >= size+2 {
				part = [2]byte(p[size:])
				size += 2
			}
			set[int64(last)] = part
		}
	}
	return set
}

// entry checks that the index of its segment has an admission.
func (i *indexes) entry(e *entry) {
	if i.files == nil {
		return // a log over HTTP has none
	}
	if name, ok := i.files.indexes[e.index]; ok { // a segment with an index begins
		x, err := i.readIndex(name)
		if err != nil {
			i.find("index/"+name, "%v: searches ignore it, and the next start of the proxy makes it anew", err)
		}
		i.current, i.bundle = x, -1
		i.known, i.seen, i.sessions = map[indexTerm]bool{}, map[uint64]bool{}, map[uint64]*indexSession{}
		delete(i.files.indexes, e.index)
	}
	x := i.current
	if x == nil || e.kind == event.KindOutcome || e.kind == event.KindSettle || e.kind == "" || x.complained {
		return
	}
	if e.index < x.first || e.index >= x.first+x.count {
		i.current = nil
		return
	}
	bundle := (e.index - x.first) / tileWidth
	if bundle != i.bundle {
		i.bundle = bundle
		clear(i.known)
		clear(i.seen)
	}
	i.term(x, e, "kind", string(e.kind))
	if e.session == 0 || i.seen[e.session] {
		return // who it is of stays the same
	}
	i.seen[e.session] = true
	s := i.sessions[e.session]
	if s == nil {
		s = &indexSession{id: fmt.Sprintf("%016x", e.session)}
		i.sessions[e.session] = s
	}
	i.term(x, e, "session", s.id)
	if !bytes.Contains(e.leaf, []byte(`"user":`)) {
		return // it does not say whose it is
	}
	if s.who == nil {
		l, err := event.Parse(e.leaf)
		if err != nil || l.Who == nil {
			return
		}
		s.who = l.Who
	}
	i.term(x, e, "user", s.who.User)
	i.term(x, e, "database", s.who.Database)
	i.term(x, e, "application", s.who.Application)
}

// term checks one term of an entry, once in each bundle. One finding for each
// index is enough.
func (i *indexes) term(x *indexFile, e *entry, kind, text string) {
	key := indexTerm{kind, text}
	if text == "" || i.known[key] || x.complained {
		return
	}
	i.known[key] = true
	if !x.has(e.index, key) {
		x.complained = true
		i.find(x.name, "it leaves out entry %d, which has the %s %.100q: searches do not find it", e.index, kind, text)
	}
}
