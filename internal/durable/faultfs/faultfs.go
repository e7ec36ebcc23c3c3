// Package faultfs is a durable.FS in memory for tests. It keeps apart what a
// program sees (the page cache) and what is on the disk, so that it can lose
// what was not synced, and it fails operations on demand, before or after
// they took effect.
//
// After Crash, of the writes to a file since its last Sync each 512-byte
// sector has kept any number of the first ones; of the changes to a directory
// since its SyncDir any may have happened. This is harsher than most disks
// and no harsher than POSIX allows.
package faultfs

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/pgnotary/pgnotary/internal/durable"
)

const sector = 512

// ErrCrashed is what every operation returns once the file system has crashed.
var ErrCrashed = errors.New("faultfs: crashed")

// An Op is a kind of operation, as Fault sees it.
type Op string

// The operations. All but Open, Read and List change something.
const (
	Create    Op = "create"
	Open      Op = "open"
	Read      Op = "read"
	Write     Op = "write"
	Truncate  Op = "truncate"
	Sync      Op = "sync"
	Datasync  Op = "datasync"
	Mkdir     Op = "mkdir"
	Rename    Op = "rename"
	Remove    Op = "remove"
	SyncDir   Op = "syncdir"
	List      Op = "list"
	Protect   Op = "protect"
	LockTaken Op = "lock"
)

// A Fault says how an operation goes wrong.
type Fault struct {
	Err   error // nil: it does not
	After bool  // the operation takes effect all the same
	Short int   // of a Write that does not take effect: up to this many bytes do, in whole sectors
}

// FS is the file system. It may be used concurrently. Names are cleaned paths;
// the root directory "/" exists.
type FS struct {
	mu       sync.Mutex
	fault    func(op Op, name string) Fault
	dirs     map[string]*dir
	locks    map[string]bool
	crashed  bool
	noDirect bool
	space    int64 // bytes left to files, negative if without limit
	ops      int
}

type dir struct {
	now, disk map[string]*node
	pending   []func(disk map[string]*node) // changes not yet synced
}

type node struct {
	now, disk []byte
	pending   []write // not yet synced
	lost      []write // pending when a Sync failed: no later Sync helps them
	errs      int     // Syncs that failed
	err       error   // of the last one
	protected bool    // as by chattr +i
}

// A write is one change to a file; nil data is a change of length to off.
type write struct {
	off  int64
	data []byte
}

// New returns an empty file system.
func New() *FS {
	return &FS{
		dirs:  map[string]*dir{"/": {now: map[string]*node{}, disk: map[string]*node{}}},
		locks: map[string]bool{}, space: -1,
	}
}

// Inject makes f decide on each operation. It is called with the lock of the
// file system held and must not use it. Nil removes it.
func (s *FS) Inject(f func(op Op, name string) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// SetSpace limits what files may grow by from now on; writes beyond fail with
// ENOSPC after the sectors that had room.
func (s *FS) SetSpace(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.space = n
}

// SetDirect says whether OpenDirect works.
func (s *FS) SetDirect(works bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noDirect = !works
}

// Ops returns how many operations changed something so far.
func (s *FS) Ops() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ops
}

// begin counts the operation and asks for its fault. Called with mu held.
func (s *FS) begin(op Op, name string) Fault {
	if s.crashed {
		return Fault{Err: ErrCrashed}
	}
	if op != Open && op != Read && op != List {
		s.ops++
	}
	if s.fault == nil {
		return Fault{}
	}
	return s.fault(op, name)
}

// Stop makes every operation fail from now on, as if the machine had lost its
// power; Crash then tells what is left.
func (s *FS) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crashed = true
}

// Crash stops the file system and returns what a restart finds on the disk.
// It may be called several times, for several outcomes.
func (s *FS) Crash(rnd *rand.Rand) *FS {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crashed = true
	next := New()
	next.noDirect = s.noDirect
	seen := map[*node]*node{}
	for _, name := range slices.Sorted(maps.Keys(s.dirs)) { // sorted, so that a seed means one outcome
		d := s.dirs[name]
		disk := maps.Clone(d.disk)
		for _, change := range d.pending {
			if rnd.IntN(2) == 0 {
				change(disk)
			}
		}
		nd := &dir{now: map[string]*node{}, disk: map[string]*node{}}
		for _, file := range slices.Sorted(maps.Keys(disk)) {
			n := disk[file]
			if seen[n] == nil {
				b := n.crash(rnd)
				seen[n] = &node{now: b, disk: slices.Clone(b), protected: n.protected}
			}
			nd.now[file], nd.disk[file] = seen[n], seen[n]
		}
		next.dirs[name] = nd
	}
	return next
}

// crash returns what is left of a file.
func (n *node) crash(rnd *rand.Rand) []byte {
	b := slices.Clone(n.disk)
	ws := append(slices.Clone(n.lost), n.pending...)
	// The length on the disk is that after any number of the changes.
	size := int64(len(b))
	for _, w := range ws[:rnd.IntN(len(ws)+1)] {
		size = w.sizeAfter(size)
	}
	b = resize(b, size)
	// Each sector that was written to kept any number of the first writes.
	kept := map[int64]int{}
	for i, w := range ws {
		for at := w.off / sector; w.data != nil && at*sector < w.off+int64(len(w.data)); at++ {
			if _, ok := kept[at]; !ok {
				kept[at] = rnd.IntN(len(ws) + 1)
			}
			if i >= kept[at] {
				continue
			}
			from, to := max(w.off, at*sector), min(w.off+int64(len(w.data)), (at+1)*sector, size)
			if from < to {
				copy(b[from:to], w.data[from-w.off:])
			}
		}
	}
	return b
}

func (w write) sizeAfter(size int64) int64 {
	if w.data == nil {
		return w.off
	}
	return max(size, w.off+int64(len(w.data)))
}

func (w write) apply(b []byte) []byte {
	b = resize(b, w.sizeAfter(int64(len(b))))
	copy(b[min(w.off, int64(len(b))):], w.data)
	return b
}

func resize(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size:size]
	}
	if size <= int64(cap(b)) {
		grown := b[:size]
		clear(grown[len(b):])
		return grown
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

// sync moves what is pending to the disk, or gives it up.
func (n *node) sync(ok bool) {
	if !ok {
		n.lost = append(n.lost, n.pending...)
		n.pending = nil
		return
	}
	for _, w := range n.pending {
		n.disk = w.apply(n.disk)
	}
	n.pending = nil
}

func (s *FS) dirOf(op, name string) (*dir, string, error) {
	d := s.dirs[filepath.Dir(filepath.Clean(name))]
	if d == nil {
		return nil, "", &fs.PathError{Op: op, Path: name, Err: syscall.ENOENT}
	}
	return d, filepath.Base(name), nil
}

func (d *dir) change(f func(map[string]*node)) {
	f(d.now)
	d.pending = append(d.pending, f)
}

// Create implements durable.FS.
func (s *FS) Create(name string, _ fs.FileMode) (durable.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fault := s.begin(Create, name)
	if fault.Err != nil && !fault.After {
		return nil, fault.Err
	}
	d, base, err := s.dirOf("create", name)
	if err != nil {
		return nil, err
	}
	if d.now[base] != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: syscall.EEXIST}
	}
	n := &node{}
	d.change(func(m map[string]*node) { m[base] = n })
	if fault.Err != nil {
		return nil, fault.Err
	}
	return &file{s: s, n: n, name: name, rw: true}, nil
}

// Open implements durable.FS.
func (s *FS) Open(name string) (durable.File, error) { return result(s.open(name, false)) }

// OpenDirect implements durable.FS, unless SetDirect(false) was called. A
// write that fails with ErrCrashed may be on the disk in any part.
func (s *FS) OpenDirect(name string) (durable.File, error) {
	s.mu.Lock()
	no := s.noDirect
	s.mu.Unlock()
	if no {
		return nil, durable.ErrNoDirect
	}
	f, err := s.open(name, true)
	if err != nil {
		return nil, err
	}
	f.direct = true
	return f, nil
}

// OpenRW implements durable.FS.
func (s *FS) OpenRW(name string) (durable.File, error) { return result(s.open(name, true)) }

// result keeps a nil *file from becoming a File.
func result(f *file, err error) (durable.File, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (s *FS) open(name string, rw bool) (*file, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if fault := s.begin(Open, name); fault.Err != nil {
		return nil, fault.Err
	}
	d, base, err := s.dirOf("open", name)
	if err != nil {
		return nil, err
	}
	if d.now[base] == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
	}
	if rw && d.now[base].protected {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EPERM}
	}
	return &file{s: s, n: d.now[base], name: name, rw: rw, seen: d.now[base].errs}, nil
}

// Mkdir implements durable.FS. Directories are durable at once.
func (s *FS) Mkdir(name string, _ fs.FileMode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fault := s.begin(Mkdir, name)
	if fault.Err != nil && !fault.After {
		return fault.Err
	}
	name = filepath.Clean(name)
	if s.dirs[name] != nil {
		return &fs.PathError{Op: "mkdir", Path: name, Err: syscall.EEXIST}
	}
	if s.dirs[filepath.Dir(name)] == nil {
		return &fs.PathError{Op: "mkdir", Path: name, Err: syscall.ENOENT}
	}
	s.dirs[name] = &dir{now: map[string]*node{}, disk: map[string]*node{}}
	return fault.Err
}

// Rename implements durable.FS, within one directory.
func (s *FS) Rename(oldname, newname string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fault := s.begin(Rename, newname)
	if fault.Err != nil && !fault.After {
		return fault.Err
	}
	d, from, err := s.dirOf("rename", oldname)
	if err != nil {
		return err
	}
	if e, to, _ := s.dirOf("rename", newname); e != d {
		return &fs.PathError{Op: "rename", Path: newname, Err: syscall.EXDEV}
	} else if n := d.now[from]; n == nil {
		return &fs.PathError{Op: "rename", Path: oldname, Err: syscall.ENOENT}
	} else if n.protected || d.now[to] != nil && d.now[to].protected {
		return &fs.PathError{Op: "rename", Path: newname, Err: syscall.EPERM}
	} else {
		d.change(func(m map[string]*node) {
			if m[from] == n {
				delete(m, from)
			}
			m[to] = n
		})
	}
	return fault.Err
}

// Remove implements durable.FS.
func (s *FS) Remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fault := s.begin(Remove, name)
	if fault.Err != nil && !fault.After {
		return fault.Err
	}
	d, base, err := s.dirOf("remove", name)
	if err != nil {
		return err
	}
	n := d.now[base]
	if sub := s.dirs[filepath.Clean(name)]; sub != nil { // durable at once, as Mkdir is
		if len(sub.now) > 0 {
			return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
		}
		delete(s.dirs, filepath.Clean(name))
		return fault.Err
	}
	if n == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOENT}
	}
	if n.protected {
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.EPERM}
	}
	d.change(func(m map[string]*node) {
		if m[base] == n {
			delete(m, base)
		}
	})
	return fault.Err
}

// Protect implements durable.FS: the file can then be neither written, renamed
// nor removed, durably, and whatever immutable says.
func (s *FS) Protect(name string, _ bool) error { return s.protect(name, true) }

// Unprotect implements durable.FS.
func (s *FS) Unprotect(name string) error {
	if err := s.protect(name, false); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (s *FS) protect(name string, on bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fault := s.begin(Protect, name)
	if fault.Err != nil && !fault.After {
		return fault.Err
	}
	d, base, err := s.dirOf("protect", name)
	if err != nil {
		return err
	}
	n := d.now[base]
	if n == nil {
		return &fs.PathError{Op: "protect", Path: name, Err: syscall.ENOENT}
	}
	n.protected = on
	return fault.Err
}

// IsLink implements durable.FS: there are no links.
func (s *FS) IsLink(string) (bool, error) { return false, nil }

// List implements durable.FS.
func (s *FS) List(name string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if fault := s.begin(List, name); fault.Err != nil {
		return nil, fault.Err
	}
	name = filepath.Clean(name)
	d := s.dirs[name]
	if d == nil {
		return nil, &fs.PathError{Op: "list", Path: name, Err: syscall.ENOENT}
	}
	names := slices.Collect(maps.Keys(d.now))
	for sub := range s.dirs {
		if filepath.Dir(sub) == name && sub != name {
			names = append(names, filepath.Base(sub))
		}
	}
	slices.Sort(names)
	return names, nil
}

// SyncDir implements durable.FS.
func (s *FS) SyncDir(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fault := s.begin(SyncDir, name)
	if fault.Err != nil && !fault.After {
		return fault.Err
	}
	d := s.dirs[filepath.Clean(name)]
	if d == nil {
		return &fs.PathError{Op: "syncdir", Path: name, Err: syscall.ENOENT}
	}
	d.disk, d.pending = maps.Clone(d.now), nil
	return fault.Err
}

type lock struct {
	s    *FS
	name string
}

// Lock implements durable.FS. The lock goes with the crash.
func (s *FS) Lock(name string) (io.Closer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if fault := s.begin(LockTaken, name); fault.Err != nil {
		return nil, fault.Err
	}
	d, base, err := s.dirOf("lock", name)
	if err != nil {
		return nil, err
	}
	if s.locks[name] {
		return nil, durable.ErrLocked
	}
	if d.now[base] == nil {
		n := &node{}
		d.change(func(m map[string]*node) { m[base] = n })
	}
	s.locks[name] = true
	return lock{s, name}, nil
}

func (l lock) Close() error {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	delete(l.s.locks, l.name)
	return nil
}

// Locked implements durable.FS.
func (s *FS) Locked(name string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.locks[name], nil
}
