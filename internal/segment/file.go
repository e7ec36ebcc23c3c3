package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/tree"
)

const (
	headerFrame = 0x184D2A50 // skippable
	footerFrame = 0x184D2A51
	seekFrame   = 0x184D2A5E
	seekMagic   = 0x8F92EAB1
	footerMagic = "pgnf"
	footerLen   = 8 + 8 // frame header and content
	seekTail    = 9     // bytes behind the entries of a seek table

	// maxBundle bounds a bundle, decompressed; maxBlock a block of values.
	maxBundle = tree.Width * (2 + 65535)
	maxBlock  = tree.Width*(256<<10+64) + 1024
	maxFrames = 1 << 24
)

// level is the compression level. "Default" takes 1 to 2 % more space for pgbench,
// and a sixth more CPU for all of sealing; for "better" and "best" see ARCHITECTURE.md.
const level = zstd.SpeedFastest

func newEncoder() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true))
}

// decoders spares making one for each file that is opened: that costs more
// than reading a frame.
var decoders = sync.Pool{New: func() any {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBlock))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
}}

// A writer writes a sealed file front to back. After an error it is of no more use.
type writer struct {
	f     durable.File
	enc   *zstd.Encoder
	buf   []byte // frames that are not written yet
	off   int64  // where they go
	crc   uint32 // of what is before them
	table []byte // of the seek table
}

// writeAt is how many bytes a writer collects: frames are small, and a write costs
// as much as compressing some kilobytes.
const writeAt = 64 << 10

func newWriter(fsys durable.FS, name string, enc *zstd.Encoder, header []byte) (*writer, error) {
	f, err := fsys.Create(name, 0o600)
	if err != nil {
		return nil, err
	}
	w := &writer{f: f, enc: enc}
	w.buf = binary.LittleEndian.AppendUint32(w.buf, headerFrame)
	w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(len(header)))
	w.buf = append(w.buf, header...)
	w.note(0, 0)
	return w, nil
}

// note notes a frame in the seek table: what is in buf from from on.
func (w *writer) note(from, size int) {
	w.table = binary.LittleEndian.AppendUint32(w.table, uint32(len(w.buf)-from))
	w.table = binary.LittleEndian.AppendUint32(w.table, uint32(size))
}

// put writes a whole frame.
func (w *writer) put(b []byte, size int) error {
	w.buf = append(w.buf, b...)
	w.note(len(w.buf)-len(b), size)
	return w.flush(writeAt)
}

// content writes content as one zstd frame.
func (w *writer) content(b []byte) error {
	from := len(w.buf)
	w.buf = w.enc.EncodeAll(b, w.buf)
	w.note(from, len(b))
	return w.flush(writeAt)
}

// flush writes buf to the file if there is as much in it.
func (w *writer) flush(least int) error {
	if len(w.buf) < least {
		return nil
	}
	if _, err := w.f.WriteAt(w.buf, w.off); err != nil {
		return err
	}
	w.crc = crc32.Update(w.crc, castagnoli, w.buf)
	w.off += int64(len(w.buf))
	w.buf = w.buf[:0]
	return nil
}

// finish writes footer and seek table, makes the file durable, and reads every
// byte of it again. It closes it in any case.
func (w *writer) finish() error {
	le := binary.LittleEndian
	from := len(w.buf)
	crc := crc32.Update(w.crc, castagnoli, w.buf)
	w.buf = le.AppendUint32(le.AppendUint32(w.buf, footerFrame), 8)
	w.buf = le.AppendUint32(append(w.buf, footerMagic...), crc)
	w.note(from, 0)
	w.buf = le.AppendUint32(le.AppendUint32(w.buf, seekFrame), uint32(len(w.table)+seekTail))
	w.buf = append(w.buf, w.table...)
	w.buf = le.AppendUint32(w.buf, uint32(len(w.table)/8))
	w.buf = le.AppendUint32(append(w.buf, 0), seekMagic)
	err := w.flush(0)
	if err == nil {
		err = w.f.Sync()
	}
	if err == nil {
		err = readBack(w.f, w.off, w.crc)
	}
	if cerr := w.f.Close(); err == nil {
		err = cerr
	}
	return err
}

// readBack compares a file with the length and the CRC of what was written to
// it. That finds what no reader would miss, such as a bit of the footer.
func readBack(f durable.File, size int64, want uint32) error {
	buf, crc := make([]byte, 64<<10), uint32(0)
	for off := int64(0); off < size; {
		b := buf[:min(int64(len(buf)), size-off)]
		if n, err := f.ReadAt(b, off); n < len(b) {
			return fmt.Errorf("%w: %w", errReadBack, err)
		}
		crc = crc32.Update(crc, castagnoli, b)
		off += int64(len(b))
	}
	if got, err := f.Size(); err != nil || got != size || crc != want {
		return errors.Join(errReadBack, err)
	}
	return nil
}

// A frame is where a frame is in its file.
type frame struct {
	off        int64
	size, real uint32 // compressed and decompressed
}

// A file is a sealed file that is open. It is not for concurrent use.
type file struct {
	*Header
	name   string
	f      durable.File
	frames []frame // those with content
	in     []byte
}

// openFile opens a sealed file and reads its header and seek table.
func openFile(fsys durable.FS, name, magic string) (*file, error) {
	x, err := openUnchecked(fsys, name, magic)
	if err != nil {
		return nil, err
	}
	if err := x.check(magic); err != nil {
		return nil, errors.Join(x.damaged("%v", err), x.close())
	}
	return x, nil
}

// openUnchecked is openFile without Header.check, for who only reads entries.
func openUnchecked(fsys durable.FS, name, magic string) (*file, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	x := &file{name: name, f: f}
	if err := x.index(magic); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return x, nil
}

func (x *file) close() error { return x.f.Close() }

func (x *file) damaged(format string, args ...any) error {
	return &DamagedError{x.name, fmt.Sprintf(format, args...)}
}

// read fills b from off.
func (x *file) read(b []byte, off int64) error {
	if n, err := x.f.ReadAt(b, off); n < len(b) {
		if err == nil || errors.Is(err, io.EOF) {
			return x.damaged("it is cut short")
		}
		return fmt.Errorf("read %s: %w", x.name, err)
	}
	return nil
}

// index reads seek table and header.
func (x *file) index(magic string) error {
	size, err := x.f.Size()
	if err != nil {
		return fmt.Errorf("size of %s: %w", x.name, err)
	}
	le := binary.LittleEndian
	var tail [seekTail]byte
	if size < 8+seekTail {
		return x.damaged("it is cut short")
	}
	if err := x.read(tail[:], size-seekTail); err != nil {
		return err
	}
	n := int64(le.Uint32(tail[:]))
	if le.Uint32(tail[5:]) != seekMagic || tail[4] != 0 || n < 2 || n > maxFrames {
		return x.damaged("it does not end in a seek table")
	}
	end := size - seekTail - 8*n - 8 // where the frames end
	if end < 8+headerFixed+footerLen {
		return x.damaged("it is too short for its seek table")
	}
	table := make([]byte, 8+8*n)
	if err := x.read(table, end); err != nil {
		return err
	}
	if le.Uint32(table) != seekFrame || int64(le.Uint32(table[4:])) != 8*n+seekTail {
		return x.damaged("its seek table is no frame")
	}
	limit := uint32(maxBundle)
	if magic == valueMagic {
		limit = maxBlock
	}
	x.frames = make([]frame, 0, n-2)
	var off, head int64
	for i := range n {
		fr := frame{off, le.Uint32(table[8+8*i:]), le.Uint32(table[12+8*i:])}
		switch {
		case fr.real > limit || fr.size > limit+limit/8+1024 || int64(fr.size) > end-off:
			return x.damaged("frame %d is impossible", i)
		case i == 0:
			head = int64(fr.size)
		case i < n-1:
			x.frames = append(x.frames, fr)
		}
		off += int64(fr.size)
	}
	if off != end || head < 8+headerFixed+4 || head > maxHeader {
		return x.damaged("its seek table does not fit its frames")
	}
	b := make([]byte, head)
	if err := x.read(b, 0); err != nil {
		return err
	}
	if le.Uint32(b) != headerFrame || int64(le.Uint32(b[4:])) != head-8 {
		return x.damaged("its header is no frame")
	}
	if x.Header, err = decodeHeader(b[8:], magic); err != nil {
		return x.damaged("%v", err)
	}
	want := x.Count / tree.Width
	if magic == valueMagic {
		want++
	}
	if int64(len(x.frames)) != want {
		return x.damaged("it has %d frames, want %d", len(x.frames), want)
	}
	return nil
}

// content appends the content of frame i to dst.
func (x *file) content(i int, dst []byte) ([]byte, error) {
	fr := x.frames[i]
	b, err := x.raw(i)
	if err != nil {
		return nil, err
	}
	was := len(dst)
	dec := decoders.Get().(*zstd.Decoder)
	defer decoders.Put(dec)
	if dst, err = dec.DecodeAll(b, dst); err != nil {
		return nil, x.damaged("frame %d: %v", i, err)
	}
	if len(dst)-was != int(fr.real) {
		return nil, x.damaged("frame %d has %d bytes, want %d", i, len(dst)-was, fr.real)
	}
	return dst, nil
}

// raw returns frame i as it is in the file, valid until the next call.
func (x *file) raw(i int) ([]byte, error) {
	fr := x.frames[i]
	if cap(x.in) < int(fr.size) {
		x.in = make([]byte, fr.size)
	}
	x.in = x.in[:fr.size]
	return x.in, x.read(x.in, fr.off)
}

// ReadHeader returns the header of the segment that begins with entry first.
func ReadHeader(fsys durable.FS, dir string, first int64) (*Header, error) {
	x, err := openFile(fsys, LeafFile(dir, first), leafMagic)
	if err != nil {
		return nil, err
	}
	if x.First != first {
		err = x.damaged("it is for entry %d", x.First)
	}
	return x.Header, errors.Join(err, x.close())
}

// End returns number of entries and tree root behind the last as the header of
// the segment that begins with entry first states them, unchecked: to tell
// whether it is a certain one.
func End(fsys durable.FS, dir string, first int64) (count int64, root tree.Hash, err error) {
	f, err := fsys.Open(LeafFile(dir, first))
	if err != nil {
		return 0, root, fmt.Errorf("open segment: %w", err)
	}
	x := &file{name: LeafFile(dir, first), f: f}
	var b [8 + headerFixed]byte
	if err = x.read(b[:], 0); err == nil && (string(b[8:16]) != leafMagic || int64(binary.LittleEndian.Uint64(b[16:])) != first) {
		err = x.damaged("its header is another one's")
	}
	return int64(binary.LittleEndian.Uint64(b[24:])), tree.Hash(b[8+96:]), errors.Join(err, f.Close())
}

// syncDir makes names in the segment directory durable.
func syncDir(fsys durable.FS, dir string) error {
	if err := fsys.SyncDir(filepath.Clean(Dir(dir))); err != nil {
		return fmt.Errorf("sync segment directory: %w", err)
	}
	return nil
}
