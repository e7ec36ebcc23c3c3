package journal

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/tree"
)

const (
	firstRoom = 1 << 20 // zeros behind the last batch when a file is opened, unless Options say otherwise
	mostRoom  = 8 << 20 // and the most that is prepared ahead
	spareRoom = 64 << 10

	// maxDirect is the largest batch written past the page cache.
	maxDirect = 256 << 10
)

func (o *Options) room() int64 {
	if o.Room == 0 {
		return firstRoom
	}
	return o.Room
}

// A Writer appends batches. It belongs to one goroutine. After an error every
// call returns that error: a failed write or sync is never tried again.
//
// While it is open the file is longer than its last batch, by zeros. They
// make a commit cheaper, since an fdatasync then changes no metadata, and
// they are how Recover knows that a writer did not get to Close.
type Writer struct {
	opt  Options
	head *FileHeader
	name string
	at   place // of the next batch
	f    durable.File
	err  error

	// Batches go past the page cache, in whole blocks, where that is possible.
	direct durable.File // nil if it is not
	block  []byte       // begins with the bytes of the file's last block before at.off

	// A goroutine writes zeros ahead through a file handle of its own, so that
	// a write error it is told of is told to the fdatasync of a batch as well.
	ahead durable.File
	room  atomic.Int64 // zeros are durable up to this offset
	fill  chan error   // receives one result per fill; has room for it
	busy  bool         // a fill was begun and its result not received
	full  bool         // the disk had no room for zeros ahead
}

// Create makes the first file of a journal that has none and returns its
// writer. The caller holds the log's lock.
func Create(opt Options, now int64) (*Writer, error) {
	if err := removeLeftovers(opt.FS, opt.Dir); err != nil {
		return nil, err
	}
	w := &Writer{opt: opt}
	if err := w.begin(&FileHeader{Created: now, Root: sha256.Sum256(nil), LogID: opt.LogID}); err != nil {
		return nil, err
	}
	return w, nil
}

// begin makes a file with the header and opens it for appending.
func (w *Writer) begin(h *FileHeader) error {
	random := w.opt.Rand
	if random == nil {
		random = rand.Reader
	}
	if _, err := io.ReadFull(random, h.Mark[:]); err != nil {
		return fmt.Errorf("make the mark of a journal file: %w", err)
	}
	encoded := h.Append(nil)
	w.head, w.at = h, h.start()
	w.name = filepath.Join(w.opt.Dir, FileName(h.First))
	// A file has its name only once its header is durable, so readers never
	// see a header in part.
	if err := w.place(func(f durable.File) (int64, error) {
		_, err := f.WriteAt(encoded, 0)
		return int64(len(encoded)), err
	}); err != nil {
		return err
	}
	return w.open()
}

// place makes the file w.name from what write puts into it and zeros behind
// that, durably and at once.
func (w *Writer) place(write func(durable.File) (size int64, err error)) error {
	fsys, tmp := w.opt.FS, w.name+".tmp"
	f, err := fsys.Create(tmp, 0o600)
	if err != nil {
		return fmt.Errorf("create journal file: %w", err)
	}
	size, err := write(f)
	if err == nil {
		err = writeZeros(f, size, align(size+w.opt.room()))
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = f.Close()
	} else {
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("write journal file %s: %w", tmp, err)
	}
	if err := fsys.Rename(tmp, w.name); err != nil {
		return fmt.Errorf("name journal file: %w", err)
	}
	return SyncDir(fsys, w.opt.Dir)
}

// open opens the file for appending and makes sure of some room.
func (w *Writer) open() error {
	var err error
	if w.f, err = w.opt.FS.OpenRW(w.name); err != nil {
		return fmt.Errorf("open journal file: %w", err)
	}
	size, err := w.f.Size()
	if err == nil {
		w.ahead, err = w.opt.FS.OpenRW(w.name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("open journal file: %w", err), w.f.Close())
	}
	w.room.Store(size)
	w.fill = make(chan error, 1)
	w.full = false
	err = w.reserve(w.opt.room() / 2)
	if err == nil {
		err = w.openDirect()
	}
	if err != nil {
		w.Abandon()
		return err
	}
	return nil
}

// openDirect opens the file for writing past the page cache and tries it by
// writing the last block as it is. Where it does not work, the file is
// written to in the common way.
func (w *Writer) openDirect() error {
	f, err := w.opt.FS.OpenDirect(w.name)
	if errors.Is(err, durable.ErrNoDirect) {
		return nil
	} else if err != nil {
		return fmt.Errorf("open journal file: %w", err)
	}
	if w.block == nil {
		w.block = durable.Aligned(maxDirect + 2*durable.Block)
	}
	last := w.at.off - w.at.off%durable.Block
	if _, err = w.f.ReadAt(w.block[:durable.Block], last); err == nil {
		_, err = f.WriteAt(w.block[:durable.Block], last)
	}
	switch {
	case err == nil:
		w.direct = f
		return nil
	case errors.Is(err, syscall.EINVAL):
		return f.Close()
	}
	return errors.Join(fmt.Errorf("write %s: %w", w.name, err), f.Close())
}

// align returns the multiple of durable.Block that is n or follows it.
func align(n int64) int64 { return (n + durable.Block - 1) &^ (durable.Block - 1) }

// Next returns the index of the entry that comes next.
func (w *Writer) Next() int64 { return w.at.index }

// First returns the index that the file is named by.
func (w *Writer) First() int64 { return w.head.First }

// Offset returns the length of the file so far, in bytes, without zeros ahead.
func (w *Writer) Offset() int64 { return w.at.off }

// Due reports whether the file has reached its size or age at the time now
// (Unix nanoseconds), so that it should end at the next multiple of 256.
func (w *Writer) Due(now int64) bool {
	return w.at.index > w.head.First && (w.at.off >= w.opt.SegmentSize || now-w.head.Created >= int64(w.opt.SegmentAge))
}

// Append writes a batch and returns once it is durable. buf has room for the
// header, BatchHeaderLen bytes, and then the body; root is that of the tree
// after the batch. It does not allocate.
func (w *Writer) Append(buf []byte, count int, root *tree.Hash, now int64) error {
	if w.err != nil {
		return w.err
	}
	body := buf[BatchHeaderLen:]
	h := BatchHeader{
		Mark: w.head.Mark, Count: count, BodyLen: len(body), Seq: w.at.seq, First: w.at.index, Time: now,
		PrevCRC: w.at.prev, BodyCRC: checksum(body), Root: *root,
	}
	h.put(buf)
	if err := w.reserve(int64(len(buf))); err != nil {
		return w.fail(err)
	}
	// If we die here: nothing was promised about these entries. What reached
	// the disk of the batch is a torn tail, or it is whole and counts.
	if err := w.write(buf); err != nil {
		return w.fail(err)
	}
	w.at = w.at.after(&h)
	return nil
}

// write puts a batch at the end of the file and returns once it is durable.
func (w *Writer) write(buf []byte) error {
	in := int(w.at.off % durable.Block) // bytes of the last block that are taken
	if w.direct != nil && len(buf) <= maxDirect {
		// The block is written again with the same bytes in front, as the
		// page cache would do it.
		n := in + copy(w.block[in:], buf)
		end := int(align(int64(n)))
		clear(w.block[n:end])
		if _, err := w.direct.WriteAt(w.block[:end], w.at.off-int64(in)); err != nil {
			return fmt.Errorf("write batch to %s: %w", w.name, err)
		}
		copy(w.block, w.block[n-n%durable.Block:n])
		return nil
	}
	if _, err := w.f.WriteAt(buf, w.at.off); err != nil {
		return fmt.Errorf("write batch to %s: %w", w.name, err)
	}
	if err := w.f.Datasync(); err != nil {
		return fmt.Errorf("sync batch in %s: %w", w.name, err)
	}
	if w.direct != nil {
		copy(w.block, buf[len(buf)-(in+len(buf))%durable.Block:])
	}
	return nil
}

var errClosed = errors.New("journal is closed")

func (w *Writer) fail(err error) error {
	w.err = err
	return err
}

// Rotate ends the file and begins the next; the index that comes next is a
// multiple of 256 and the file is not empty. t is the tree so far.
func (w *Writer) Rotate(t *tree.Builder, now int64) error {
	if w.err != nil {
		return w.err
	}
	// If we die behind this: the old file ends at its last batch, as after a
	// clean stop, and the next start goes on in it.
	if err := w.trim(); err != nil {
		return w.fail(err)
	}
	h := &FileHeader{
		First: w.at.index, Created: now, Seq: w.at.seq, PrevCRC: w.at.prev,
		Root: t.Root(), LogID: w.head.LogID, Tiles: t.Tiles(),
	}
	// If we die in here: the same, or the new file is there without a batch.
	if err := w.begin(h); err != nil {
		return w.fail(err)
	}
	return nil
}

// Close cuts the zeros off and closes the file. A writer that failed leaves
// the file as it is, for Recover to look at; its Close returns nil.
func (w *Writer) Close() error {
	if w.err != nil {
		w.Abandon()
		return nil
	}
	if err := w.trim(); err != nil {
		return w.fail(err)
	}
	w.err = errClosed
	return nil
}

// Abandon closes the file without ending it: the next start will recover it.
func (w *Writer) Abandon() {
	_ = w.settle() // nothing depends on it any more
	_ = w.closeFiles()
	if w.err == nil {
		w.err = errClosed
	}
}

// closeFiles closes what is open of the file.
func (w *Writer) closeFiles() (err error) {
	for _, f := range []*durable.File{&w.ahead, &w.direct, &w.f} {
		if *f != nil {
			err = errors.Join(err, (*f).Close())
			*f = nil
		}
	}
	return err
}

// trim ends the file at its last batch, durably, and closes it.
func (w *Writer) trim() error {
	err := w.settle()
	if err == nil {
		err = w.f.Truncate(w.at.off)
	}
	if err == nil {
		err = w.f.Sync()
	}
	if cerr := w.closeFiles(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("end journal file %s: %w", w.name, err)
	}
	return nil
}

// reserve makes sure that n more bytes and at least one zero behind them lie
// in whole blocks of the file, and begins to prepare more when little is left.
func (w *Writer) reserve(n int64) error {
	if w.busy {
		select {
		case err := <-w.fill:
			if err := w.filled(err); err != nil {
				return err
			}
		default:
		}
	}
	if end := align(w.at.off + n + 1); end > w.room.Load() {
		if err := w.settle(); err != nil {
			return err
		}
		if end > w.room.Load() {
			if err := w.fillTo(end + min(spareRoom, w.opt.room())); err != nil {
				return err
			}
		}
	}
	// Small logs stay small: prepare as much as the file has, within limits.
	step := min(max(w.at.off, w.opt.room()), mostRoom)
	room := w.room.Load()
	if end := align(min(w.at.off+n+step, w.opt.SegmentSize+spareRoom)); !w.busy && !w.full && room-w.at.off-n < step/2 && end > room {
		w.busy = true
		go func() { w.fill <- w.fillTo(end) }()
	}
	return nil
}

// settle waits for the goroutine that writes zeros, if there is one.
func (w *Writer) settle() error {
	if !w.busy {
		return nil
	}
	return w.filled(<-w.fill)
}

// filled takes the result of a fill. A disk without room for zeros is no
// error yet: they were for later, and a batch may still have its place.
func (w *Writer) filled(err error) error {
	w.busy = false
	if errors.Is(err, errNoRoomAhead) {
		w.full = true
		return nil
	}
	return err
}

var errNoRoomAhead = errors.New("no room to prepare space")

// fillTo writes zeros from the end of the room to end and makes them durable.
func (w *Writer) fillTo(end int64) error {
	for end = align(end); w.room.Load() < end; {
		room := w.room.Load()
		next := min(align(room+fillStep), end)
		if err := writeZeros(w.ahead, room, next); errors.Is(err, syscall.ENOSPC) {
			return fmt.Errorf("%w in %s: %w", errNoRoomAhead, w.name, err)
		} else if err != nil {
			return fmt.Errorf("prepare space in %s: %w", w.name, err)
		}
		if err := w.ahead.Datasync(); err != nil {
			return fmt.Errorf("prepare space in %s: %w", w.name, err)
		}
		w.room.Store(next)
	}
	return nil
}

// fillStep bounds the zeros that are dirty at one time: an fdatasync of a
// batch writes them as well.
const fillStep = 1 << 20

func writeZeros(f durable.File, from, to int64) error {
	for from < to {
		n, err := f.WriteAt(zeros[:min(to-from, int64(len(zeros)))], from)
		if err != nil {
			return err
		}
		from += int64(n)
	}
	return nil
}
