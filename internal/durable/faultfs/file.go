package faultfs

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"syscall"
	"unsafe"

	"github.com/pgnotary/pgnotary/internal/durable"
)

type file struct {
	s      *FS
	n      *node
	name   string
	rw     bool
	seen   int // of n.errs
	direct bool
}

func (f *file) Size() (int64, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.s.crashed {
		return 0, ErrCrashed
	}
	return int64(len(f.n.now)), nil
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if fault := f.s.begin(Read, f.name); fault.Err != nil {
		return 0, fault.Err
	}
	if off >= int64(len(f.n.now)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.now[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if !f.rw {
		return 0, &fs.PathError{Op: "write", Path: f.name, Err: syscall.EBADF}
	}
	fault := f.s.begin(Write, f.name)
	if f.direct {
		return f.writeDirect(p, off, fault)
	}
	data := p
	if fault.Err != nil && !fault.After {
		data = wholeSectors(p, off, int64(fault.Short))
	}
	if grown := off + int64(len(data)) - int64(len(f.n.now)); grown > 0 && f.s.space >= 0 {
		if grown > f.s.space {
			data = wholeSectors(data, off, int64(len(data))-(grown-f.s.space))
			fault.Err = &fs.PathError{Op: "write", Path: f.name, Err: syscall.ENOSPC}
		}
		f.s.space -= min(grown, f.s.space)
	}
	if len(data) > 0 {
		f.change(write{off, slices.Clone(data)})
	}
	return len(data), fault.Err
}

// writeDirect writes what is durable at once.
func (f *file) writeDirect(p []byte, off int64, fault Fault) (int, error) {
	end := off + int64(len(p))
	if off%durable.Block != 0 || end%durable.Block != 0 || uintptr(unsafe.Pointer(&p[0]))%durable.Block != 0 ||
		end > int64(len(f.n.disk)) || end > int64(len(f.n.now)) {
		return 0, &fs.PathError{Op: "write", Path: f.name, Err: syscall.EINVAL}
	}
	switch {
	case fault.Err == nil || fault.After:
	case errors.Is(fault.Err, ErrCrashed):
		f.n.pending = append(f.n.pending, write{off, slices.Clone(p)})
		return 0, fault.Err
	default:
		p = wholeSectors(p, off, int64(fault.Short))
	}
	if len(p) > 0 {
		f.n.now, f.n.disk = write{off, p}.apply(f.n.now), write{off, p}.apply(f.n.disk)
	}
	return len(p), fault.Err
}

// wholeSectors returns at most the first n bytes of a write, so that it ends
// where a sector ends: no file system stops in the middle of one.
func wholeSectors(p []byte, off, n int64) []byte {
	n = min(n, int64(len(p)))
	if n < int64(len(p)) {
		n -= (off + n) % sector
	}
	return p[:max(n, 0)]
}

func (f *file) Truncate(size int64) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	fault := f.s.begin(Truncate, f.name)
	if fault.Err != nil && !fault.After {
		return fault.Err
	}
	f.change(write{off: size})
	return fault.Err
}

func (f *file) change(w write) {
	f.n.now = w.apply(f.n.now)
	f.n.pending = append(f.n.pending, w)
}

func (f *file) Sync() error     { return f.sync(Sync) }
func (f *file) Datasync() error { return f.sync(Datasync) }

// sync fails on each file handle once for an error it was not yet told of, as
// Linux does: one handle's error is no news to another.
func (f *file) sync(op Op) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	fault := f.s.begin(op, f.name)
	if errors.Is(fault.Err, ErrCrashed) {
		return fault.Err
	}
	if fault.Err != nil {
		f.n.errs++
		f.n.err = fault.Err
	}
	f.n.sync(fault.Err == nil || fault.After)
	if fault.Err == nil && f.seen < f.n.errs {
		fault.Err = f.n.err
	}
	f.seen = f.n.errs
	return fault.Err
}

func (f *file) Writeback(_, _ int64) {}
func (f *file) Close() error         { return nil }
