package query

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"math/bits"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/pgvalue"
	"github.com/pgnotary/pgnotary/internal/segment"
	"github.com/pgnotary/pgnotary/internal/sqlinfo"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// An index tells, for terms such as a user or a relation, which bundles of a
// segment, or of a journal file as far as it goes, have admissions with that
// term, so that a search need not read the others. It is derived, can be made
// again at any time, and is never evidence: one that is missing, damaged or
// stale is as none. docs/format/index.md has the bytes.
type index struct {
	f            io.ReaderAt
	stamp        stamp
	terms, bytes int64 // number of terms, bytes of postings
	params       int64 // pairs of a parameter and a bundle
	grams        int64 // bytes of rows of trigrams
	places       int64 // bytes of the places of batches, of a journal file
	buf          []byte
}

// A stamp says what an index was made of.
type stamp struct {
	first, count int64
	root         tree.Hash // of the tree
	// size and modified are of the file of values, which changes when values
	// are erased; size is -1 for a journal file, where none are.
	size, modified int64
	engine         uint64 // the rules that relations, fingerprints and texts of parameters come from
}

const (
	indexMagic   = "pgnindx5"
	indexHeader  = 8 + 8 + 8 + 32 + 8 + 8 + 8 + 4 + 4 + 4 + 4
	termLen      = 12
	indexBlock   = 1024 // bytes, the last four of which are the CRC of the others
	indexContent = indexBlock - 4
	maxIndex     = 1 << 30 // bytes
	maxCount     = 1 << 32 // entries of an index
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errIndex = errors.New("no index to go by")

func (l *Log) indexDir() string { return filepath.Join(l.dir, "index") }

func (l *Log) indexFile(first int64) string {
	return filepath.Join(l.indexDir(), fmt.Sprintf("%020d.idx", first))
}

func indexName(name string) (first int64, ok bool) {
	digits, ok := strings.CutSuffix(name, ".idx")
	if !ok || len(digits) != 20 {
		return 0, false
	}
	first, err := strconv.ParseInt(digits, 10, 64)
	return first, err == nil
}

// term returns the hash by which an index knows a term.
func term(kind, text string) uint64 {
	sum := sha256.Sum256([]byte(kind + "\x00" + text))
	return binary.BigEndian.Uint64(sum[:])
}

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

// Terms of SQLSTATEs: of the code, of its class and of any. A code of a strange
// length is cut.
const (
	stateLen   = 5
	stateClass = 2
	anyState   = "*"
)

// durationTerm is the term of statements that took 2^n microseconds or more.
func durationTerm(n int) string { return strconv.Itoa(n) }

// failedTerm is the term of what has any SQLSTATE of one session: errors of one are
// rare, though it may be busy, and so may errors be.
func failedTerm(session uint64) uint64 {
	return term("failed", string(event.AppendSession(nil, session)))
}

// openTerm is of admissions whose end, or what became of it, an index does not know.
const openTerm = "open"

// engine names the rules that relations, fingerprints and texts of parameters come from, and
// that entries may be unread.
func engine() uint64 { return term("engine", sqlinfo.Engine+" "+pgvalue.Engine+" unread") }

// segmentStamp returns the stamp of an index of a segment as it is now.
func (l *Log) segmentStamp(first int64) (s stamp, err error) {
	count, root, err := segment.End(durable.OS, l.dir, first)
	if err != nil {
		return s, err
	}
	s = stamp{first: first, count: count, root: root, engine: engine()}
	info, err := os.Stat(segment.ValueFile(l.dir, first))
	if err == nil {
		s.size, s.modified = info.Size(), info.ModTime().UnixNano()
	} else if !errors.Is(err, fs.ErrNotExist) { // values may expire
		return s, err
	}
	return s, nil
}

// journalStamp returns the stamp of an index of the first count entries of a
// journal file: its root is that behind the batch of the entry that follows.
func (l *Log) journalStamp(first, count int64) (s stamp, err error) {
	s = stamp{first: first, count: count, size: -1, engine: engine()}
	if h, err := l.reader.Header(first + count); err != nil {
		return s, err
	} else if h == nil || h.First != first {
		return s, fmt.Errorf("%w: it reaches beyond its file", errIndex)
	}
	s.root, err = l.reader.BatchRoot(first + count)
	return s, err
}

// openIndex opens the index that begins with entry first if it is there and of
// the segment or journal file as it is now, and of no more: what verify holds it against. The caller closes it.
func (l *Log) openIndex(first int64) (*index, io.Closer, error) {
	f, err := durable.OS.Open(l.indexFile(first))
	if err != nil {
		return nil, nil, err
	}
	size, err := f.Size()
	var x *index
	if err == nil {
		x, err = newIndex(f, size)
	}
	var now stamp
	switch {
	case err != nil:
	case x.stamp.size < 0:
		now, err = l.journalStamp(first, x.stamp.count)
	default:
		var sealed bool
		if sealed, err = l.reader.Sealed(first); sealed {
			now, err = l.segmentStamp(first)
		}
	}
	if err == nil && now != x.stamp {
		err = fmt.Errorf("%w: it is stale", errIndex)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return x, f, nil
}

// maxHints bounds the indexes of journal files whose places are read: there are
// more than one or two files only while sealing is behind.
const maxHints = 4

// hints returns where batches of the journal files are, as their indexes say. One
// that is stale or damaged is no worse than none.
func (l *Log) hints() (all []journal.Hint) {
	names, err := os.ReadDir(l.indexDir())
	if err != nil {
		return nil
	}
	for i := len(names) - 1; i >= 0 && len(all) < maxHints; i-- { // the newest first
		first, ok := indexName(names[i].Name())
		if !ok {
			continue
		}
		places, err := l.placesOf(first)
		if err != nil || places == nil {
			break // of a segment: so are those before
		}
		all = append(all, journal.Hint{First: first, Places: places})
	}
	return all
}

// placesOf returns what the index that begins with entry first says of the
// places of batches, nil if it is not of a journal file.
func (l *Log) placesOf(first int64) ([]byte, error) {
	f, err := durable.OS.Open(l.indexFile(first))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	x, err := newIndex(f, size)
	if err != nil || x.places == 0 || x.stamp.first != first {
		return nil, err
	}
	return x.read(x.placesAt(), x.places)
}

// newIndex reads the header of an index.
func newIndex(f io.ReaderAt, size int64) (*index, error) {
	x := &index{f: f}
	b, err := x.read(0, indexHeader)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	x.stamp = stamp{
		first: int64(le.Uint64(b[8:])), count: int64(le.Uint64(b[16:])), root: tree.Hash(b[24:56]),
		size: int64(le.Uint64(b[56:])), modified: int64(le.Uint64(b[64:])), engine: le.Uint64(b[72:]),
	}
	x.terms, x.bytes, x.params = int64(le.Uint32(b[80:])), int64(le.Uint32(b[84:])), int64(le.Uint32(b[88:]))
	x.grams = int64(le.Uint32(b[92:]))
	s := &x.stamp
	if s.size < 0 {
		x.places = (min(s.count, maxCount)/tree.Width + 1) * journal.PlaceLen
	}
	if string(b[:8]) != indexMagic || size > maxIndex || x.params > maxParams || fileSize(x.placesAt()+x.places) != size ||
		s.first < 0 || s.count < 0 || s.count > maxCount || s.first > math.MaxInt64-s.count || s.first%tree.Width != 0 || s.count%tree.Width != 0 {
		return nil, fmt.Errorf("%w: it is none, or its lengths are wrong", errIndex)
	}
	return x, nil
}

// fileSize returns the size of a file with so many bytes of content.
func fileSize(content int64) int64 { return content + (content+indexContent-1)/indexContent*4 }

// placesAt returns where in the content the places of batches begin.
func (x *index) placesAt() int64 {
	return x.gramsAt() + gramBuckets*4 + x.grams
}

// gramsAt returns where in the content the trigrams begin.
func (x *index) gramsAt() int64 {
	return indexHeader + x.terms*termLen + x.bytes + layoutParams(x.params, x.stamp.count/tree.Width).size(x.params)
}

// read returns n bytes of the content from off on, of blocks whose CRC is right.
// They are valid until the next call.
func (x *index) read(off, n int64) ([]byte, error) {
	from, to := off/indexContent, (off+n+indexContent-1)/indexContent
	if need := (to - from) * indexBlock; int64(cap(x.buf)) < need {
		x.buf = make([]byte, need)
	}
	b := x.buf[:(to-from)*indexBlock]
	got, err := x.f.ReadAt(b, from*indexBlock)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	b = b[:got]
	content := b[:0]
	for len(b) > 4 {
		block := b[:min(len(b), indexBlock)]
		b = b[len(block):]
		data := block[:len(block)-4]
		if crc32.Checksum(data, castagnoli) != binary.LittleEndian.Uint32(block[len(data):]) {
			return nil, fmt.Errorf("%w: it is damaged", errIndex)
		}
		content = append(content, data...) // moves it to the front
	}
	if off -= from * indexContent; int64(len(content)) < off+n {
		return nil, fmt.Errorf("%w: it is cut short", errIndex)
	}
	return content[off : off+n], nil
}

// seal returns the bytes of a file with that content.
func seal(content []byte) []byte {
	out := make([]byte, 0, fileSize(int64(len(content))))
	for len(content) > 0 {
		n := min(len(content), indexContent)
		out = append(out, content[:n]...)
		out = binary.LittleEndian.AppendUint32(out, crc32.Checksum(content[:n], castagnoli))
		content = content[n:]
	}
	return out
}

// find returns where the postings of a term are; ok is false if it has none.
func (x *index) find(term uint64) (from, to int64, ok bool, err error) {
	// The terms are hashes: where one stands among the others follows from its
	// value, give or take a few times the square root of their number.
	place, _ := bits.Mul64(term, uint64(x.terms))
	span := 2*int64(math.Sqrt(float64(x.terms))) + 8
	low, high := max(0, int64(place)-span), min(x.terms, int64(place)+span)
	for {
		b, err := x.read(indexHeader+low*termLen, (high-low)*termLen)
		if err != nil {
			return 0, 0, false, err
		}
		le := binary.LittleEndian
		at := func(i int64) uint64 { return le.Uint64(b[i*termLen:]) }
		posting := func(i int64) int64 { return int64(le.Uint32(b[i*termLen+8:])) }
		n := high - low
		i, end := int64(0), n
		for i < end {
			if mid := (i + end) / 2; at(mid) < term {
				i = mid + 1
			} else {
				end = mid
			}
		}
		whole := low == 0 && high == x.terms
		switch {
		case !whole && (i == 0 && low > 0 || i+1 >= n && high < x.terms): // it may be elsewhere, or end elsewhere
			low, high = 0, x.terms
			continue
		case i == n || at(i) != term:
			return 0, 0, false, nil
		}
		from, to = posting(i), x.bytes
		if i+1 < n {
			to = posting(i + 1)
		}
		if from > to || to > x.bytes {
			return 0, 0, false, fmt.Errorf("%w: its postings are out of order", errIndex)
		}
		return from, to, true, nil
	}
}

// bundles adds to set the bundles that have a term.
func (x *index) bundles(term uint64, set *places) error {
	from, to, ok, err := x.find(term)
	if err != nil || !ok {
		return err
	}
	p, err := x.read(indexHeader+x.terms*termLen+from, to-from)
	if err != nil {
		return err
	}
	many, size := binary.Uvarint(p)
	sparse := many <= rare
	last, limit := uint64(0), uint64(x.stamp.count/tree.Width)
	for ; size > 0 && many > 0; many-- {
		p = p[size:]
		var d uint64
		if d, size = binary.Uvarint(p); size <= 0 || d > limit || last+d >= limit {
			break
		}
		last += d
		low, high := uint8(0), uint8(tree.Width-1)
		if sparse {
			if len(p) < size+2 {
				break
			}
			low, high = p[size], p[size+1]
			size += 2
		}
		set.add(int64(last), low, high)
	}
	if size <= 0 || many > 0 {
		return fmt.Errorf("%w: its postings make no sense", errIndex)
	}
	return nil
}

// places are bundles of an index, and parts of them.
type places struct {
	bits  []uint64       // one for each bundle
	parts map[int64]part // of bundles only a part of which is meant
}

// A part is the entries from number low to number high of a bundle.
type part struct{ low, high uint8 }

func newPlaces(bundles int64) *places {
	return &places{make([]uint64, (bundles+63)/64), make(map[int64]part)}
}

func (s *places) has(n int64) bool { return s.bits[n/64]&(1<<(n%64)) != 0 }

// part returns which part of a bundle is meant, all of it if it is none of s.
func (s *places) part(n int64) part {
	if p, ok := s.parts[n]; ok {
		return p
	}
	return part{0, tree.Width - 1}
}

// add adds a part of a bundle.
func (s *places) add(n int64, low, high uint8) {
	p := part{low, high}
	if s.has(n) {
		was := s.part(n)
		p = part{min(was.low, low), max(was.high, high)}
	}
	s.bits[n/64] |= 1 << (n % 64)
	if p == (part{0, tree.Width - 1}) {
		delete(s.parts, n)
	} else {
		s.parts[n] = p
	}
}

// and leaves what is also in t.
func (s *places) and(t *places) {
	for i := range s.bits {
		s.bits[i] &= t.bits[i]
	}
	for n, p := range t.parts {
		if !s.has(n) {
			continue
		}
		was := s.part(n)
		if p = (part{max(was.low, p.low), min(was.high, p.high)}); p.low > p.high {
			s.bits[n/64] &^= 1 << (n % 64)
		} else {
			s.parts[n] = p
		}
	}
}
