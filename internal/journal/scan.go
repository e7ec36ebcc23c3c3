package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// A place is where a batch is, or is expected: offset in the file and all
// that the batch's header must say to follow the one before it.
type place struct {
	off   int64
	seq   uint64
	index int64
	prev  uint32
}

// after returns the place behind a batch.
func (p place) after(h *BatchHeader) place {
	return place{
		off: p.off + BatchHeaderLen + int64(h.BodyLen), seq: p.seq + 1,
		index: p.index + int64(h.Count), prev: h.CRC,
	}
}

// start returns the place of the first batch in a file.
func (h *FileHeader) start() place {
	return place{off: int64(h.Len), seq: h.Seq, index: h.First, prev: h.CRC}
}

// listFiles returns the indexes that the journal files are named by, ascending.
func listFiles(fsys durable.FS, dir string) ([]int64, error) {
	names, err := fsys.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list journal: %w", err)
	}
	var out []int64
	for _, name := range names { // sorted, and the numbers have one width
		if first, ok := parseFileName(name); ok {
			out = append(out, first)
		}
	}
	return out, nil
}

// A scanner steps through the batches of one file. It holds one batch in memory.
type scanner struct {
	f    durable.File
	path string
	size int64 // of the file when it was opened
	head *FileHeader
	at   place // of the batch that comes next

	// durable says that whatever is read was durable before: so bodies need not be
	// read anew where the window has them, and it may as well have more of them.
	durable bool

	win    []byte // small reads go through this window on the file
	winOff int64
	body   []byte
	last   []byte // leaf of the last entry that replay saw
}

// window is the size of a scanner's window: with small batches it saves most
// of the reads while stepping from header to header. Where bodies are read from it,
// it grows up to wide.
const (
	window = 32 << 10
	wide   = 256 << 10
)

// openScanner opens a file and reads its header. The caller closes f.
func openScanner(fsys durable.FS, dir string, first int64) (*scanner, error) {
	s := &scanner{path: filepath.Join(dir, FileName(first))}
	f, err := fsys.Open(s.path)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	s.f = f
	if s.size, err = f.Size(); err != nil {
		return nil, errors.Join(fmt.Errorf("size of %s: %w", s.path, err), f.Close())
	}
	b := make([]byte, min(s.size, maxFileHeader))
	n, err := s.read(b, 0)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if s.head, err = ParseFileHeader(b[:n]); err == nil && s.head.First != first {
		err = fmt.Errorf("%w: it is for entry %d", errHeader, s.head.First)
	}
	if err != nil {
		return nil, errors.Join(&DamagedError{s.path, 0, first, err.Error()}, f.Close())
	}
	s.at = s.head.start()
	return s, nil
}

// read fills b from the file and returns how much of it there was: the writer
// may have cut off its zeros since.
func (s *scanner) read(b []byte, off int64) (n int, err error) {
	n, err = s.f.ReadAt(b, off)
	if n == len(b) {
		return n, nil
	}
	if !errors.Is(err, io.EOF) {
		return n, fmt.Errorf("read %s at byte %d: %w", s.path, off+int64(n), err)
	}
	s.size = min(s.size, off+int64(n))
	return n, nil
}

// peek returns up to n bytes (at most window; wide, if what is read is durable) at
// off, fewer at the end of the file. They are valid until the next call.
func (s *scanner) peek(off int64, n int) ([]byte, error) {
	n = int(max(0, min(int64(n), s.size-off)))
	if off < s.winOff || off+int64(n) > s.winOff+int64(len(s.win)) {
		size := max(window, n)
		if s.durable && len(s.win) > 0 { // who reads on reads much
			size = max(n, min(2*cap(s.win), wide))
		}
		if cap(s.win) < size {
			s.win = make([]byte, 0, size)
		}
		s.win, s.winOff = s.win[:max(0, min(int64(size), s.size-off))], off
		got, err := s.read(s.win, off)
		if s.win = s.win[:got]; err != nil {
			return nil, err
		}
		n = min(n, got)
	}
	return s.win[off-s.winOff:][:n], nil
}

// header reads the header at the scanner's place and reports whether it is
// valid and the one expected.
func (s *scanner) header() (h BatchHeader, ok bool, err error) {
	b, err := s.peek(s.at.off, BatchHeaderLen)
	if err != nil {
		return h, false, err
	}
	h, ok = parseBatchHeader(b, s.head.Mark)
	return h, ok && h.Seq == s.at.seq && h.First == s.at.index && h.PrevCRC == s.at.prev, nil
}

// readBody reads the body that belongs to the header at the scanner's place
// and reports whether it is whole. The result is valid until the next call.
func (s *scanner) readBody(h *BatchHeader) (body []byte, ok bool, err error) {
	off := s.at.off + BatchHeaderLen
	if s.size-off < int64(h.BodyLen) {
		return nil, false, nil
	}
	if s.durable && h.BodyLen <= wide {
		body, err = s.peek(off, h.BodyLen)
		return body, err == nil && len(body) == h.BodyLen && checksum(body) == h.BodyCRC, err
	}
	if cap(s.body) < h.BodyLen {
		s.body = make([]byte, h.BodyLen, max(h.BodyLen, min(MaxBody, 2*cap(s.body))))
	}
	s.body = s.body[:h.BodyLen]
	n, err := s.read(s.body, off)
	return s.body, err == nil && n == len(s.body) && checksum(s.body) == h.BodyCRC, err
}

// damaged returns the error for the scanner's place.
func (s *scanner) damaged(why string) error {
	return &DamagedError{s.path, s.at.off, s.at.index, why}
}

// replay steps through all valid batches from the scanner's place and grows t
// by their leaves, so that size and root of t are checked against each header.
// It stops at the first batch that is not valid; the seed of the last bundle
// is left in seed. each, unless nil, is called whenever t has grown by a leaf.
func (s *scanner) replay(t *tree.Builder, seed *[SeedLen]byte, each func(leaf []byte)) error {
	c := Cursor{Seed: *seed}
	for {
		h, ok, err := s.header()
		if err != nil || !ok {
			return err
		}
		body, ok, err := s.readBody(&h)
		if err != nil || !ok {
			return err
		}
		c.Reset(body, h.First)
		for c.Next() {
			t.Append(tree.LeafHash(c.Leaf()))
			if each != nil {
				each(c.Leaf())
			}
		}
		// The CRCs are right, so this was never torn.
		if c.Err() != nil || c.Index != h.First+int64(h.Count) {
			return s.damaged("entries do not fill their batch")
		}
		if t.Root() != h.Root {
			return s.damaged("the tree over the leaves has another root than the batch states")
		}
		*seed, s.last = c.Seed, append(s.last[:0], c.Leaf()...)
		s.at = s.at.after(&h)
	}
}

// tail says what follows the last valid batch of a journal's last file: its
// first result is the number of bytes up to the last that is not zero, 0 if
// the file ended there, and why says so in words. A tail that no crash
// explains is an error, *DamagedError. The scanner is where replay stopped.
func (s *scanner) tail() (cut int64, why string, err error) {
	const sector = 512
	end, err := s.lastNonZero()
	if err != nil || end <= s.at.off {
		return 0, "", err
	}
	cut = end - s.at.off
	b, err := s.peek(s.at.off, BatchHeaderLen)
	if err != nil {
		return 0, "", err
	}
	h, whole := parseBatchHeader(b, s.head.Mark)
	if whole && (h.Seq != s.at.seq || h.First != s.at.index || h.PrevCRC != s.at.prev) {
		return 0, "", s.damaged("a whole batch header that does not follow the batch before it")
	}
	// Behind the bad batch nothing was ever begun, unless it was durable. No
	// client can have sent what looks like a header: it does not know the mark.
	if later, err := s.headerBehind(s.at.off+1, end); err != nil {
		return 0, "", err
	} else if later >= 0 {
		return 0, "", s.damaged(fmt.Sprintf("the batch is bad, but a later one was written at byte %d", later))
	}
	extent := int64(BatchHeaderLen)
	if whole {
		extent += int64(h.BodyLen)
	}
	for at := s.at.off; at < s.at.off+extent; {
		next := min((at/sector+1)*sector, s.at.off+extent)
		if at >= end {
			return cut, "a batch was written in part", nil
		}
		part, err := s.peek(at, int(next-at))
		if err != nil {
			return 0, "", err
		}
		if allZero(part) {
			return cut, "a batch was written in part", nil
		}
		at = next
	}
	return 0, "", s.damaged("a batch that was whole once has been altered")
}

// lastNonZero returns the offset behind the last byte from the scanner's
// place on that is not zero, or the place itself.
func (s *scanner) lastNonZero() (int64, error) {
	for hi := s.size; hi > s.at.off; {
		lo := max(s.at.off, hi-window)
		b, err := s.peek(lo, int(hi-lo))
		if err != nil {
			return 0, err
		}
		if !allZero(b) {
			return lo + int64(len(bytes.TrimRight(b, "\x00"))), nil
		}
		hi = lo
	}
	return s.at.off, nil
}

// headerBehind returns the offset of the first valid batch header in
// [from, end) with a higher sequence number than expected here, or -1.
func (s *scanner) headerBehind(from, end int64) (int64, error) {
	for from < end {
		b, err := s.peek(from, window)
		if err != nil {
			return -1, err
		}
		pos := 0
		for {
			i := bytes.Index(b[pos:], s.head.Mark[:])
			if i < 0 {
				pos = max(pos, len(b)-len(s.head.Mark)+1)
				break
			}
			pos += i
			if len(b)-pos < BatchHeaderLen {
				break // the next window begins with it
			}
			if h, ok := parseBatchHeader(b[pos:], s.head.Mark); ok && h.Seq > s.at.seq {
				return from + int64(pos), nil
			}
			pos++
		}
		from += int64(max(pos, 1))
	}
	return -1, nil
}

var zeros [256 << 10]byte

// allZero reports whether b, at most 256 KiB, is all zeros.
func allZero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }
