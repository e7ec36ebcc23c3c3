package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
)

// The layout of docs/format/journal.md.
const (
	fileMagic   = "pgnjrnl1"
	fileFixed   = 113 // bytes of a file header before its levels
	markAt      = 104
	maxLevels   = 7 // 256^8 leaves are more than an int64 counts
	maxHeader   = fileFixed + maxLevels*(2+255*sha256.Size) + 4
	batchFixed  = 88
	maxBody     = 8 << 20 // of a batch
	maxLeaf     = 16 << 10
	maxInline   = 256 << 10 // larger values are blobs
	chunkTarget = 1 << 20   // bytes read at a time, if batches are not larger
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fileHeader is what the header of a journal file claims about the tree.
type fileHeader struct {
	root hash
	rows [][]hash // incomplete tiles, level 1 first
	crc  uint32
	mark [8]byte // which its batches begin with
}

// batch is a batch whose CRCs and place in the chain were checked.
type batch struct {
	seq     uint64
	first   int64
	time    int64
	root    hash  // claimed root after it
	entries int   // how many
	off     int64 // where it begins in the file
}

// chunk is a piece of a journal file, whole batches, on its way from the reader
// through a worker to the order. Chunks are used again.
type chunk struct {
	file    int         // number of the file
	off     int64       // where buf begins in it
	header  *fileHeader // set in the first chunk of each file
	buf     []byte
	batches []batch
	entries []entry
	read    int64         // bytes of all files read with this chunk
	done    chan struct{} // gets a token when the worker is through

	// Of a segment's chunk, whole bundles; buf holds their frames, those of
	// leaves and values in turns.
	first  int64         // index of the first entry
	sealed *sealedHeader // set in the first chunk of each segment
	end    *sealedEnd    // set in the last
	frames []sealedFrame // nil in a chunk of the journal
	values bool          // the value file is there
	plain  [][]byte      // decompressed; by the worker
	roots  []hash        // of the bundles; by the worker
	broken string        // why it could not be taken apart; by the worker

	index    *indexFile // of the segment, nil if there is none
	badIndex error      // why it could not be read, in the first chunk
}

// reset makes the chunk empty.
func (c *chunk) reset() {
	*c = chunk{
		buf: c.buf[:0], batches: c.batches[:0], entries: c.entries[:0], done: c.done,
		frames: c.frames[:0], plain: c.plain, roots: c.roots[:0],
	}
}

// reader walks through segments and journal files and cuts them into chunks. It
// checks all that can be checked without hashing: framing, CRCs, chain, places.
type reader struct {
	data    string           // the data directory
	segs    []string         // names of leaf files
	indexes map[int64]string // names of indexes, by first entry
	dir     string           // of the journal
	names   []string         // of journal files
	inUse   func() bool      // whether a writer holds the log
	loose   bool             // do not follow the chain of header CRCs
	late    func() []byte
	logID   hash

	// What the next batch must continue.
	index int64
	seq   uint64
	mark  [8]byte
	crc   uint32    // of the header before: a batch's, or the file's
	last  uint32    // of the last batch header, for the next file
	seed  *[32]byte // of the bundle

	read  int64
	free  chan *chunk
	jobs  chan *chunk // to the workers
	order chan *chunk // the same, for the one who puts them in order

	// How the journal ended; read after order is closed.
	finding *Finding
	notes   []string
	err     error
	signed  []byte // what late returned, once all was read; what that covers was read after it
}

// readEntries runs reader, workers and order over all segments and journal files.
func (c *check) readEntries(ctx context.Context) error {
	parent := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	depth := 2*c.opt.Workers + 1
	r := &reader{
		data: c.dir, segs: c.files.segments, indexes: maps.Clone(c.files.indexes),
		dir: filepath.Join(c.dir, "journal"), names: c.files.journal, logID: sha256.Sum256([]byte(c.log.origin)),
		inUse: func() bool { return locked(filepath.Join(c.dir, "LOCK")) },
		late: func() []byte {
			b, err := readSmall(filepath.Join(c.dir, "checkpoint"))
			if err != nil {
				return nil
			}
			return b
		},
		free: make(chan *chunk, depth), jobs: make(chan *chunk, depth), order: make(chan *chunk, depth),
	}
	for range depth {
		r.free <- &chunk{done: make(chan struct{}, 1)}
	}
	if err := c.begin(r); err != nil {
		return err
	}
	c.order.names = r.names
	var wg sync.WaitGroup
	for range c.opt.Workers {
		wg.Go(func() {
			w := worker{blobs: filepath.Join(c.dir, "blob")}
			for ch := range r.jobs {
				w.chunk(ch)
				ch.done <- struct{}{}
			}
		})
	}
	wg.Go(func() {
		defer close(r.jobs)
		defer close(r.order)
		r.run(ctx)
	})
	c.compareRoots()
	sound := true
	for ch := range r.order {
		<-ch.done
		if sound && !c.order.chunk(ch) {
			sound = false
			cancel()
		}
		if c.opt.Progress != nil {
			c.opt.Progress(ch.read, c.files.bytes)
		}
		r.free <- ch
	}
	wg.Wait()
	if err := parent.Err(); err != nil {
		return err
	}
	if sound && r.finding != nil {
		c.add(*r.finding)
	}
	if sound {
		c.signedLate(r.signed)
	}
	if sound {
		for _, n := range r.notes {
			c.note("%s", n)
		}
	}
	if sound {
		return r.err
	}
	return nil
}

// run reads all files and says in finding, note and err how it ended.
func (r *reader) run(ctx context.Context) {
	for i := 0; i < len(r.segs); i++ {
		more, err := r.segment(ctx, i)
		if !r.goOn(more, err) {
			return
		}
	}
	if len(r.names) == 0 {
		r.finding = &Finding{What: "journal", Why: "there are no journal files"}
		return
	}
	for i := range r.names {
		more, err := r.file(ctx, i)
		if name := fmt.Sprintf("%020d.zst", r.index); errors.Is(err, fs.ErrNotExist) && r.names[i] == fmt.Sprintf("%020d.journal", r.index) {
			// It was sealed since it was listed.
			r.segs = append(r.segs, name)
			more, err = r.segment(ctx, len(r.segs)-1)
		}
		if !r.goOn(more, err) {
			return
		}
	}
}

// goOn takes the result of reading one file.
func (r *reader) goOn(more bool, err error) bool {
	if err != nil && !errors.Is(err, context.Canceled) {
		r.err = fmt.Errorf("read entries: %w", err)
	}
	return more && err == nil
}

// stop ends reading with a finding about file i.
func (r *reader) stop(i int, format string, args ...any) {
	r.finding = &Finding{What: "journal/" + r.names[i], Why: fmt.Sprintf(format, args...)}
	if n := len(r.names) - 1 - i; n > 0 {
		r.finding.Why += fmt.Sprintf("; this and %d later files were not read on", n)
	}
}

// file reads one file. It reports whether the next one is to be read.
func (r *reader) file(ctx context.Context, i int) (more bool, err error) {
	f, err := openPlain(filepath.Join(r.dir, r.names[i]))
	if err != nil {
		return false, err
	}
	defer f.Close()
	if want := fmt.Sprintf("%020d.journal", r.index); r.names[i] != want {
		r.stop(i, "want %s here: entries from %d on are missing, and no entry explains it", want, r.index)
		return false, nil
	}
	buf := make([]byte, maxHeader)
	n, err := f.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	h, size, why := r.header(buf[:n])
	if why != "" {
		r.stop(i, "%s", why)
		return false, nil
	}
	r.crc, r.mark = h.crc, h.mark
	off := int64(size)
	for pass := 0; ; {
		c, err := r.take(ctx)
		if err != nil {
			return false, err
		}
		c.reset()
		c.file, c.off, c.header = i, off, h
		bad, eof, err := r.fill(f, c)
		if err != nil {
			return false, err
		}
		if len(c.batches) > 0 || h != nil {
			pass = 0
			r.read += int64(len(c.buf))
			c.read = r.read
			off += int64(len(c.buf))
			h = nil
			if err := r.send(ctx, c); err != nil {
				return false, err
			}
		} else {
			r.free <- c
		}
		switch {
		case bad != nil:
			again, err := r.inFlight(ctx, f, i, off, &pass)
			if err != nil {
				return false, err
			}
			switch again {
			case flightAgain:
				continue
			case flightBad:
				err = r.tail(f, i, off, bad)
			case flightEnd:
				if r.late != nil {
					r.signed, r.late = r.late(), nil
					continue // and all that it covers
				}
			}
			return false, err
		case eof:
			return true, nil
		}
	}
}

// header decodes a file header and compares all of it but the tree, which only
// the order knows. It returns the header's length, or why it is wrong.
func (r *reader) header(b []byte) (h *fileHeader, size int, why string) {
	if len(b) < fileFixed+4 || string(b[:8]) != fileMagic {
		return nil, 0, "is not a journal file"
	}
	size = int(binary.LittleEndian.Uint32(b[8:]))
	if size < fileFixed+4 || size > len(b) {
		return nil, 0, fmt.Sprintf("has a header of impossible length %d", size)
	}
	b = b[:size]
	h = &fileHeader{crc: binary.LittleEndian.Uint32(b[size-4:]), root: hash(b[40:72]), mark: [8]byte(b[markAt:])}
	if crc32.Checksum(b[:size-4], castagnoli) != h.crc {
		return nil, 0, "the CRC of its header is wrong"
	}
	le := binary.LittleEndian
	switch {
	case le.Uint64(b[12:]) != uint64(r.index):
		return nil, 0, fmt.Sprintf("its header says entry %d, want %d", le.Uint64(b[12:]), r.index)
	case r.index%tileWidth != 0:
		return nil, 0, fmt.Sprintf("it begins at entry %d, not a multiple of %d", r.index, tileWidth)
	case le.Uint64(b[28:]) != r.seq:
		return nil, 0, fmt.Sprintf("its header says batch %d, want %d", le.Uint64(b[28:]), r.seq)
	case le.Uint32(b[36:]) != r.last:
		return nil, 0, "does not continue the file before: the CRC of its last batch header differs"
	case hash(b[72:104]) != r.logID:
		return nil, 0, "belongs to another log: the hash of the origin differs"
	}
	if h.rows, why = parseRows(b[fileFixed-1 : size-4]); why != "" {
		return nil, 0, why
	}
	return h, size, ""
}

// parseRows decodes the incomplete tiles at the end of a header.
func parseRows(b []byte) (rows [][]hash, why string) {
	levels, rest := int(b[0]), b[1:]
	for range levels {
		if len(rest) < 2 {
			return nil, "the tiles in its header are cut short"
		}
		n := int(binary.LittleEndian.Uint16(rest))
		if rest = rest[2:]; n >= tileWidth || len(rest) < n*sha256.Size {
			return nil, "the tiles in its header are malformed"
		}
		row := make([]hash, n)
		for i := range row {
			row[i] = hash(rest[i*sha256.Size:])
		}
		rows, rest = append(rows, row), rest[n*sha256.Size:]
	}
	if len(rest) != 0 {
		return nil, "its header has bytes behind the tiles"
	}
	return rows, ""
}

// broken says why no batch could be read at some place.
type broken struct {
	why    string
	length int64 // of the batch, if its header could be believed, else of a header
}

// fill reads a piece of the file from c.off on and takes the batches in it
// apart. c.buf is cut behind the last of them. bad is set if a batch is wrong,
// eof if the file ends exactly there.
func (r *reader) fill(f *os.File, c *chunk) (bad *broken, eof bool, err error) {
	c.batches, c.entries = c.batches[:0], c.entries[:0]
	st, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	// One byte more than there is shows that the file ends.
	need := int(min(max(st.Size()-c.off+1, batchFixed), chunkTarget))
	for {
		if cap(c.buf) < need {
			c.buf = make([]byte, need)
		}
		n, err := f.ReadAt(c.buf[:need], c.off)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, false, err
		}
		c.buf = c.buf[:n]
		pos := 0
		for {
			size, bad := r.batch(c, c.buf[pos:])
			if bad == nil && size <= n-pos {
				c.batches[len(c.batches)-1].off = c.off + int64(pos)
				pos += size
				continue
			}
			if bad == nil && n == need && pos == 0 {
				need = size // one batch larger than the piece
				break
			}
			atEnd := bad == nil && n < need
			if atEnd && pos < n {
				bad = &broken{fmt.Sprintf("a batch is cut short at byte %d", c.off+int64(n)), int64(size)}
			}
			c.buf = c.buf[:pos]
			return bad, atEnd && pos == n, nil
		}
	}
}

// batch takes the batch at the beginning of b apart and adds it to c. If b is
// too short it returns the length needed and adds nothing.
func (r *reader) batch(c *chunk, b []byte) (size int, bad *broken) {
	if len(b) < batchFixed {
		return batchFixed, nil
	}
	le := binary.LittleEndian
	crc := le.Uint32(b[84:])
	if [8]byte(b[:8]) != r.mark || crc32.Checksum(b[:84], castagnoli) != crc {
		return 0, &broken{"there is no batch header, or its CRC is wrong", batchFixed}
	}
	count, length := le.Uint32(b[8:]), le.Uint32(b[12:])
	h := batch{seq: le.Uint64(b[16:]), first: int64(le.Uint64(b[24:])), time: int64(le.Uint64(b[32:])), root: hash(b[48:80]), entries: int(count)}
	size = batchFixed
	if length <= maxBody {
		size += int(length)
	}
	wrong := func(format string, args ...any) (int, *broken) {
		return 0, &broken{fmt.Sprintf("batch %d: ", r.seq) + fmt.Sprintf(format, args...), int64(size)}
	}
	switch {
	case le.Uint32(b[80:]) != 0:
		return wrong("bytes that must be zero are not")
	case length > maxBody || count == 0 || count > length:
		return wrong("impossible count %d or length %d", count, length)
	case h.seq != r.seq:
		return wrong("it has the number %d", h.seq)
	case h.first != r.index:
		return wrong("its first entry is %d, want %d", h.first, r.index)
	case le.Uint32(b[40:]) != r.crc && !r.loose:
		return wrong("it does not continue the batch before: the CRC of that header differs")
	}
	if len(b) < size {
		return size, nil
	}
	body := b[batchFixed:size]
	if crc32.Checksum(body, castagnoli) != le.Uint32(b[44:]) {
		return wrong("the CRC of its body is wrong")
	}
	mark, seed := len(c.entries), r.seed
	if why := r.body(c, body, int(count)); why != "" {
		c.entries, r.seed = c.entries[:mark], seed
		return wrong("%s", why)
	}
	c.batches = append(c.batches, h)
	r.seq, r.index, r.crc, r.last = r.seq+1, r.index+int64(count), crc, crc
	return size, nil
}

// body takes the entries of a batch apart.
func (r *reader) body(c *chunk, b []byte, count int) (why string) {
	for i := range count {
		e := entry{index: r.index + int64(i)}
		if e.index%tileWidth == 0 {
			if len(b) < len(r.seed) {
				return "a seed is cut short"
			}
			r.seed, b = new([32]byte(b)), b[32:]
		}
		var ok bool
		if e.leaf, b, ok = bytesOf(b, maxLeaf); !ok || len(b) == 0 {
			return fmt.Sprintf("entry %d: its leaf has a malformed length", e.index)
		}
		e.form, b = b[0], b[1:]
		switch e.form {
		case valueNone:
		case valueInline:
			e.salt = r.seed // the worker makes the salt of it
			if e.value, b, ok = bytesOf(b, maxInline); !ok {
				return fmt.Sprintf("entry %d: its value has a malformed length", e.index)
			}
		case valueBlob:
			if len(b) < 32 {
				return fmt.Sprintf("entry %d: its blob is cut short", e.index)
			}
			e.salt, b = (*[32]byte)(b), b[32:]
			length, n := uvarint(b)
			if n == 0 || len(b)-n < 16 || length > maxIndex {
				return fmt.Sprintf("entry %d: its blob has a malformed length", e.index)
			}
			e.length, e.blob, b = int64(length), [16]byte(b[n:]), b[n+16:]
		default:
			return fmt.Sprintf("entry %d: unknown form %d of its value", e.index, e.form)
		}
		c.entries = append(c.entries, e)
	}
	if len(b) != 0 {
		return fmt.Sprintf("%d bytes behind its last entry", len(b))
	}
	return ""
}

// uvarint decodes a number in its shortest spelling; n is 0 if there is none.
func uvarint(b []byte) (v uint64, n int) {
	v, n = binary.Uvarint(b)
	if n <= 0 || n > 1 && b[n-1] == 0 {
		return 0, 0
	}
	return v, n
}

// bytesOf splits b behind a length and that many bytes, at most limit.
func bytesOf(b []byte, limit uint64) (data, rest []byte, ok bool) {
	length, n := uvarint(b)
	if n == 0 || length > limit || length > uint64(len(b)-n) {
		return nil, nil, false
	}
	return b[n : n+int(length)], b[n+int(length):], true
}

func (r *reader) take(ctx context.Context) (*chunk, error) {
	select {
	case c := <-r.free:
		return c, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// send hands a chunk on; there is room, as there are no more chunks than that.
func (r *reader) send(ctx context.Context, c *chunk) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.jobs <- c
	r.order <- c
	return nil
}

// zeros reports whether nothing but zeros follows in f from off on.
func zeros(f *os.File, off int64) (bool, error) {
	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	buf := make([]byte, min(max(st.Size()-off, 0)+1, 256<<10))
	for {
		n, err := f.ReadAt(buf, off)
		if len(bytes.TrimLeft(buf[:n], "\x00")) > 0 {
			return false, nil
		}
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		off += int64(n)
	}
}
