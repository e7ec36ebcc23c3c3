package verify

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// The layout of docs/format/segment.md.
const (
	leafMagic    = "pgnsegm1"
	valueMagic   = "pgnvals1"
	sealedFixed  = 161 // bytes of a header up to its tiles
	sealedFooter = 16
	headerFrame  = 0x184D2A50
	footerFrame  = 0x184D2A51
	seekFrame    = 0x184D2A5E
	seekMagic    = 0x8F92EAB1
	maxFrames    = 1 << 24
	maxBlock     = tileWidth*(maxInline+64) + 1024
	bundlesAhead = 2 // bundles in a chunk, unless their values are large
)

// sealedHeader is the header of a leaf file.
type sealedHeader struct {
	fileHeader
	next     hash // root behind the last entry
	count    int64
	nextSeq  uint64
	lastCRC  uint32
	raw      []byte // for comparison with that of the value file
	hasValue bool   // the value file is there
	name     string
}

// sealed is one of the two files of a segment, while it is read.
type sealed struct {
	name   string // below the data directory
	f      *os.File
	header []byte
	frames []sealedFrame
	off    int64 // read so far
	crc    uint32
}

type sealedFrame struct{ size, real uint32 }

// errSealed is what is wrong with a file of a segment; its text is a finding.
type errSealed struct{ what, why string }

func (e *errSealed) Error() string { return e.what + ": " + e.why }

func (s *sealed) bad(format string, args ...any) error {
	return &errSealed{s.name, fmt.Sprintf(format, args...)}
}

// openSealed opens a file and reads its seek table and header. Both are held
// against the rest: the frames fill the file, and all fixed bytes are as they must be.
func openSealed(dir, name, magic string) (*sealed, error) {
	f, err := openPlain(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil {
		return nil, err
	}
	s := &sealed{name: name, f: f}
	if err := s.open(magic); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

func (s *sealed) open(magic string) error {
	st, err := s.f.Stat()
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	size := st.Size()
	var tail [9]byte
	if size < 17+8+sealedFixed+4+sealedFooter {
		return s.bad("is cut short")
	}
	if _, err := s.f.ReadAt(tail[:], size-9); err != nil {
		return err
	}
	n := int64(le.Uint32(tail[:]))
	if tail[4] != 0 || le.Uint32(tail[5:]) != seekMagic || n < 3 || n > maxFrames || size < 17+8*n {
		return s.bad("does not end in a seek table")
	}
	table := make([]byte, 8+8*n)
	end := size - int64(len(table)) - 9
	if _, err := s.f.ReadAt(table, end); err != nil {
		return err
	}
	if le.Uint32(table) != seekFrame || int64(le.Uint32(table[4:])) != 8*n+9 {
		return s.bad("its seek table is no frame")
	}
	limit := uint32(tileWidth * (2 + maxLeaf))
	if magic == valueMagic {
		limit = maxBlock
	}
	var sum int64
	for i := range n {
		fr := sealedFrame{le.Uint32(table[8+8*i:]), le.Uint32(table[12+8*i:])}
		sum += int64(fr.size)
		skippable := i == 0 || i == n-1
		if skippable && fr.real != 0 || !skippable && fr.real > limit || fr.size > 2*limit {
			return s.bad("frame %d of its seek table is impossible", i)
		}
		s.frames = append(s.frames, fr)
	}
	if sum != end || s.frames[n-1].size != sealedFooter || s.frames[0].size > maxHeader+8 {
		return s.bad("its seek table does not fit the file")
	}
	b := make([]byte, s.frames[0].size)
	if err := s.read(b); err != nil {
		return err
	}
	if len(b) < 8+sealedFixed+4 || le.Uint32(b) != headerFrame || int(le.Uint32(b[4:])) != len(b)-8 {
		return s.bad("its header is no frame")
	}
	s.header, s.frames = b[8:], s.frames[1:n-1]
	h := s.header
	if string(h[:8]) != magic || crc32.Checksum(h[:len(h)-4], castagnoli) != le.Uint32(h[len(h)-4:]) {
		return s.bad("its header is not one, or its CRC is wrong")
	}
	return nil
}

// read fills b with the next bytes of the file.
func (s *sealed) read(b []byte) error {
	n, err := s.f.ReadAt(b, s.off)
	if n < len(b) {
		if errors.Is(err, io.EOF) {
			return s.bad("was cut while it was read")
		}
		return err
	}
	s.off += int64(n)
	s.crc = crc32.Update(s.crc, castagnoli, b)
	return nil
}

// finish reads the footer, which must have the CRC of all before it.
func (s *sealed) finish() error {
	crc := s.crc
	var b [sealedFooter]byte
	if err := s.read(b[:]); err != nil {
		return err
	}
	le := binary.LittleEndian
	if le.Uint32(b[:]) != footerFrame || le.Uint32(b[4:]) != 8 || string(b[8:12]) != "pgnf" {
		return s.bad("its footer is no footer")
	}
	if le.Uint32(b[12:]) != crc {
		return s.bad("the CRC of its bytes is wrong")
	}
	return nil
}

// sealedHeader takes the header of a leaf file apart and compares all but the
// tree, which only the order knows.
func (r *reader) sealedHeader(s *sealed) (*sealedHeader, error) {
	le, b := binary.LittleEndian, s.header
	h := &sealedHeader{
		fileHeader: fileHeader{root: hash(b[64:96])}, next: hash(b[96:128]),
		count: int64(le.Uint64(b[16:])), nextSeq: le.Uint64(b[48:]), lastCRC: le.Uint32(b[60:]),
		raw: b, name: s.name,
	}
	first := int64(le.Uint64(b[8:]))
	switch {
	case hash(b[128:160]) != r.logID:
		return nil, s.bad("belongs to another log: the hash of the origin differs")
	case first != r.index:
		return nil, s.bad("its header says entry %d, want %d", first, r.index)
	case s.name != fmt.Sprintf("segment/%020d.zst", first): // who reads goes by the name
		return nil, s.bad("its header says entry %d, its name another", first)
	case h.count <= 0 || h.count%tileWidth != 0 || h.count > maxIndex || int64(len(s.frames)) != h.count/tileWidth:
		return nil, s.bad("it has %d frames and says %d entries", len(s.frames), h.count)
	case le.Uint64(b[40:]) != r.seq:
		return nil, s.bad("its header says batch %d, want %d", le.Uint64(b[40:]), r.seq)
	case le.Uint32(b[56:]) != r.last:
		return nil, s.bad("does not continue what is before it: the CRC of the last batch header differs")
	case h.nextSeq <= r.seq || int64(h.nextSeq-r.seq) > h.count:
		return nil, s.bad("its header says %d batches", h.nextSeq-r.seq)
	case le.Uint64(b[24:]) > le.Uint64(b[32:]):
		r.notes = append(r.notes, s.name+": the clock was set back while it was written")
	}
	var why string
	if h.rows, why = parseRows(b[sealedFixed-1 : len(b)-4]); why != "" {
		return nil, s.bad("%s", why)
	}
	return h, nil
}

// segment reads the segment that begins with the next entry. It reports
// whether reading can go on behind it.
func (r *reader) segment(ctx context.Context, i int) (more bool, err error) {
	more, err = r.sealed(ctx, i)
	if bad, ok := errors.AsType[*errSealed](err); ok {
		r.finding = &Finding{What: bad.what, Why: bad.why + "; nothing behind it was read"}
		return false, nil
	}
	return more, err
}

func (r *reader) sealed(ctx context.Context, i int) (more bool, err error) {
	name := "segment/" + r.segs[i]
	leaves, err := openSealed(r.data, name, leafMagic)
	if err != nil {
		return false, err
	}
	defer leaves.f.Close()
	h, err := r.sealedHeader(leaves)
	if err != nil {
		return false, err
	}
	values, err := openSealed(r.data, valueName(name), valueMagic)
	if errors.Is(err, fs.ErrNotExist) {
		values, err = nil, nil
	}
	if err != nil {
		return false, err
	}
	if h.hasValue = values != nil; h.hasValue {
		defer values.f.Close()
		n := sealedFixed - 1
		if len(values.header) != sealedFixed+4 || string(values.header[8:n]) != string(h.raw[8:n]) || values.header[n] != 0 {
			return false, values.bad("its header is not that of %s", name)
		}
		if len(values.frames) != len(leaves.frames)+1 {
			return false, values.bad("it has %d frames, want %d", len(values.frames), len(leaves.frames)+1)
		}
	}
	var index *indexFile
	var badIndex error
	if name, ok := r.indexes[r.index]; ok {
		index, badIndex = readIndex(r.data, name)
	}
	for from := 0; from < len(leaves.frames); {
		c, err := r.take(ctx)
		if err != nil {
			return false, err
		}
		c.reset()
		c.file, c.first, c.index = i, r.index, index
		if from == 0 {
			c.sealed, c.badIndex = h, badIndex
		}
		n, size := 0, 0
		for ; n < bundlesAhead && from+n < len(leaves.frames); n++ {
			if values != nil {
				size += int(values.frames[from+n].real)
			}
			if size += int(leaves.frames[from+n].real); n > 0 && size > chunkTarget {
				break
			}
			if err := c.frame(leaves, from+n); err != nil {
				return false, err
			}
			if values != nil {
				if err := c.frame(values, from+n); err != nil {
					return false, err
				}
			}
		}
		c.values = values != nil
		from += n
		r.index += int64(n) * tileWidth
		if from == len(leaves.frames) {
			if c.end, err = r.endSealed(leaves, values, h); err != nil {
				return false, err
			}
		}
		r.read += int64(len(c.buf))
		c.read = r.read
		if err := r.send(ctx, c); err != nil {
			return false, err
		}
	}
	r.seq, r.last = h.nextSeq, h.lastCRC
	return true, nil
}

// endSealed reads what is behind the bundles of a segment.
func (r *reader) endSealed(leaves, values *sealed, h *sealedHeader) (end *sealedEnd, err error) {
	end = &sealedEnd{name: leaves.name, root: h.next}
	if values != nil {
		end.values = values.name
		var c chunk
		if err := c.frame(values, len(values.frames)-1); err != nil {
			return nil, err
		}
		var w worker
		b, err := w.decode(c.buf, c.frames[0].real, nil)
		if err != nil {
			return nil, values.bad("its last frame: %v", err)
		}
		var ok bool
		if end.copies, ok = parseCopies(b, r.index-h.count); !ok {
			return nil, values.bad("the copies in its last frame are malformed")
		}
		if err := values.finish(); err != nil {
			return nil, err
		}
	}
	return end, leaves.finish()
}

// sealedEnd is what is behind the last bundle of a segment.
type sealedEnd struct {
	name, values string // of the files; values empty if it was pruned
	root         hash
	copies       []entryCopy
}

// frame reads a frame of a sealed file into the chunk.
func (c *chunk) frame(s *sealed, i int) error {
	fr := s.frames[i]
	n := len(c.buf)
	c.buf = grow(c.buf, int(fr.size))
	if err := s.read(c.buf[n:]); err != nil {
		return err
	}
	c.frames = append(c.frames, fr)
	return nil
}

// grow makes a longer by n bytes of any content.
func grow(a []byte, n int) []byte {
	if cap(a)-len(a) < n {
		a = append(make([]byte, 0, 2*cap(a)+n), a...)
	}
	return a[:len(a)+n]
}

func valueName(leaf string) string { return leaf[:len(leaf)-len(".zst")] + ".val" }

// decode decompresses one frame behind dst.
func (w *worker) decode(b []byte, real uint32, dst []byte) ([]byte, error) {
	if w.zstd == nil {
		var err error
		if w.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBlock)); err != nil {
			return nil, err
		}
	}
	// With a little room behind what there will be, the decoder copies in large pieces.
	const room = 64
	if cap(dst) < int(real)+room {
		dst = make([]byte, 0, int(real)+int(real)/8+room)
	}
	out, err := w.zstd.DecodeAll(b, dst[:0])
	if err == nil && len(out) != int(real) {
		err = fmt.Errorf("it has %d bytes, the seek table says %d", len(out), real)
	}
	return out, err
}

// sealed takes the bundles of a chunk apart and hashes them.
func (w *worker) sealed(c *chunk) {
	if w.index != c.index || c.sealed != nil {
		w.index = c.index
		w.listed.begin(c.index)
	}
	pos, each := 0, 1
	if c.values {
		each = 2
	}
	for i := 0; i < len(c.frames)/each; i++ {
		if len(c.plain) < 2*(i+1) {
			c.plain = append(c.plain, nil, nil)
		}
		var err error
		fr := c.frames[i*each]
		if c.plain[2*i], err = w.decode(c.buf[pos:pos+int(fr.size)], fr.real, c.plain[2*i]); err != nil {
			c.broken = fmt.Sprintf("bundle of entry %d: %v", c.first+int64(i)*tileWidth, err)
			return
		}
		pos += int(fr.size)
		from := len(c.entries)
		if !c.bundle(c.plain[2*i]) {
			c.broken = fmt.Sprintf("bundle of entry %d: it is malformed", c.first+int64(i)*tileWidth)
			return
		}
		entries := c.entries[from:]
		var block []byte
		if c.values {
			fr := c.frames[i*each+1]
			c.plain[2*i+1], err = w.decode(c.buf[pos:pos+int(fr.size)], fr.real, c.plain[2*i+1])
			pos += int(fr.size)
			block = c.plain[2*i+1]
			if err != nil || !parseBlock(block, entries) {
				c.broken = fmt.Sprintf("values of the entries from %d on cannot be read", c.first+int64(i)*tileWidth)
				return
			}
		}
		c.roots = append(c.roots, w.bundle(entries, c.plain[2*i], block))
	}
}

// bundle checks the entries of a bundle, given the bytes they were taken from: of
// the leaves, and of the values if they are there. It returns the root. What is
// hashed together lies together there, but for what is put in front for a moment.
func (w *worker) bundle(entries []entry, leaves, values []byte) hash {
	at, valueAt := 0, len(values)
	for i := range entries {
		valueAt -= len(entries[i].value)
	}
	for i := range entries {
		e := &entries[i]
		in := leaves[at+1 : at+2+len(e.leaf)]
		at += 2 + len(e.leaf)
		front := in[0]
		in[0] = 0
		e.hash = sha256.Sum256(in)
		in[0] = front
		w.tree.set(i, &e.hash)
		switch {
		case values == nil:
			e.form = valueExpired
			w.entry(e, nil)
		case e.form == valueInline:
			from := valueAt - len(e.salt)
			valueAt += len(e.value)
			w.entry(e, values[from:valueAt])
		default:
			w.entry(e, nil)
		}
		w.listed.entry(e)
	}
	return w.tree.root()
}

// bundle takes the entries of a bundle apart.
func (c *chunk) bundle(b []byte) bool {
	at := len(c.entries)
	index := c.first + int64(at)
	c.entries = slices.Grow(c.entries, tileWidth)[:at+tileWidth]
	entries := c.entries[at:]
	for j := range int64(tileWidth) {
		if len(b) < 2 {
			return false
		}
		n := int(binary.BigEndian.Uint16(b))
		if b = b[2:]; n == 0 || n > maxLeaf || len(b) < n {
			return false
		}
		e := &entries[j]
		// The rest is set before it is used; an entry is large to be cleared.
		e.index, e.leaf, e.value, e.missing, e.unlisted, e.flaws = index+j, b[:n:n], nil, false, nil, nil
		b = b[n:]
	}
	return len(b) == 0
}

// parseBlock gives the entries of a bundle their values. It accepts exactly
// what docs/format/segment.md says.
func parseBlock(b []byte, entries []entry) bool {
	if len(b) < 1+tileWidth || b[0] > 1 {
		return false
	}
	seeded := b[0] == 0
	b = b[1:]
	var seed *[32]byte
	if seeded {
		if len(b) < len(seed)+tileWidth {
			return false
		}
		seed, b = (*[32]byte)(b), b[32:]
	}
	kinds, b := b[:tileWidth], b[tileWidth:]
	for i, kind := range kinds {
		e := &entries[i]
		e.form = kind
		switch kind {
		case valueNone:
		case valueInline:
			e.salt, e.salted = seed, !seeded
			if !seeded {
				if len(b) < 32 {
					return false
				}
				e.salt, b = (*[32]byte)(b), b[32:]
			}
			length, n := uvarint(b)
			if n == 0 || length > maxInline {
				return false
			}
			e.length, b = int64(length), b[n:]
		case valueBlob:
			rest, ok := e.takeBlob(b)
			if !ok {
				return false
			}
			b = rest
		case valueErased:
			if seeded {
				return false // the seed gives its salt away
			}
		default: // valueExpired is not for files
			return false
		}
	}
	for i := range entries {
		if e := &entries[i]; e.form == valueInline {
			if int64(len(b)) < e.length {
				return false
			}
			e.value, b = b[:e.length:e.length], b[e.length:]
		}
	}
	return len(b) == 0
}

// takeBlob decodes what an entry says of its blob.
func (e *entry) takeBlob(b []byte) (rest []byte, ok bool) {
	if len(b) < 32 {
		return nil, false
	}
	e.salt, b = (*[32]byte)(b), b[32:]
	length, n := uvarint(b)
	if n == 0 || len(b)-n < 16 || length > maxIndex {
		return nil, false
	}
	e.length, e.blob = int64(length), [16]byte(b[n:])
	return b[n+16:], true
}

// entryCopy is a copy of an entry of an earlier segment.
type entryCopy struct {
	entry
	path [8]hash
}

func parseCopies(b []byte, first int64) (out []entryCopy, ok bool) {
	last := int64(-1)
	for len(b) > 0 {
		var c entryCopy
		index, n := uvarint(b)
		if n == 0 || index >= uint64(first) || int64(index) <= last || len(b)-n < len(c.path)*len(c.hash) {
			return nil, false
		}
		c.index, b = int64(index), b[n:]
		for i := range c.path {
			c.path[i], b = hash(b[:32]), b[32:]
		}
		if c.leaf, b, ok = bytesOf(b, maxLeaf); !ok || len(c.leaf) == 0 || len(b) == 0 {
			return nil, false
		}
		c.form, b = b[0], b[1:]
		switch c.form {
		case valueInline:
			if len(b) < 32 {
				return nil, false
			}
			c.salt, c.salted, b = (*[32]byte)(b), true, b[32:]
			if c.value, b, ok = bytesOf(b, maxInline); !ok {
				return nil, false
			}
		case valueBlob:
			if b, ok = c.takeBlob(b); !ok {
				return nil, false
			}
		case valueErased:
		default:
			return nil, false
		}
		last = c.index
		out = append(out, c)
	}
	return out, true
}

// root returns the root of the bundle that the copy says it comes from.
func (c *entryCopy) root() hash {
	h, at := c.hash, c.index%tileWidth
	for i := range c.path {
		if at&1 == 0 {
			h = nodeHash(&h, &c.path[i])
		} else {
			h = nodeHash(&c.path[i], &h)
		}
		at >>= 1
	}
	return h
}
