// Package durable has the file operations a log may rely on: each one says
// what is on the disk once it has returned.
//
// The package text of a disk is short: data written is durable after Sync or
// Datasync of its file; a name (created, renamed, removed) is durable after
// SyncDir of its directory; what was written through OpenDirect is durable at
// once; nothing else is. After an error of Sync or
// Datasync the state of the file is unknown: the page cache may show bytes
// that will never reach the disk, and asking again may report success. So
// neither is ever retried (see Rebello et al., "Can Applications Recover from
// fsync Failures?", ATC 2020), and a file last written by a process that died
// is copied before it is appended to.
//
// FS is what the log's writer and readers use; OS is the real one, and
// durable/faultfs one in memory that loses and breaks things on purpose.
package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"unsafe"
)

// Block is what offsets, lengths and memory are multiples of in OpenDirect.
const Block = 4096

// ErrNoDirect is returned by FS.OpenDirect where it cannot be had. A write
// that fails with syscall.EINVAL means the same.
var ErrNoDirect = errors.New("writing past the page cache is not possible here")

// ErrLocked is returned by FS.Lock if another process holds the lock.
var ErrLocked = errors.New("in use by another process")

// FS is a file system. Its methods may be called concurrently. Errors are
// those of package os: they match fs.ErrNotExist, syscall.ENOSPC and so on.
type FS interface {
	// Create makes a new file for reading and writing and fails with
	// fs.ErrExist if the name is taken. Its name is durable after SyncDir.
	Create(name string, perm fs.FileMode) (File, error)
	// Open opens a file for reading only.
	Open(name string) (File, error)
	// OpenRW opens an existing file for reading and writing.
	OpenRW(name string) (File, error)
	// OpenDirect opens an existing file for writing past the page cache:
	// WriteAt returns once the bytes are durable. It saves a quarter of the
	// time and of the CPU of WriteAt and Datasync. Offset and length are
	// multiples of Block and lie within the file; the memory is from Aligned.
	// What is written this way must not be written in another way at the same time.
	OpenDirect(name string) (File, error)
	// Mkdir makes a directory. It fails with fs.ErrExist if there is one.
	Mkdir(name string, perm fs.FileMode) error
	// Rename replaces newname by oldname, atomically.
	Rename(oldname, newname string) error
	// Remove removes a file, or a directory that is empty.
	Remove(name string) error
	// Protect makes a file read-only, and immutable where the file system and
	// the rights of the process allow it and immutable asks for it.
	Protect(name string, immutable bool) error
	// Unprotect makes it possible to replace or remove a file that was
	// protected. A file that does not exist is no error.
	Unprotect(name string) error
	// List returns the names in a directory, sorted.
	List(dir string) ([]string, error)
	// IsLink reports whether a name is a symbolic link, which the other methods follow. What does not exist is none.
	IsLink(name string) (bool, error)
	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error
	// Lock takes the exclusive lock on a file, making the file if need be,
	// and holds it until the result is closed or the process ends. It fails
	// with ErrLocked if the lock is held.
	Lock(name string) (io.Closer, error)
	// Locked reports whether somebody holds the lock on a file. A file that
	// does not exist is not locked.
	Locked(name string) (bool, error)
}

// A File is an open file. ReadAt and WriteAt may be called concurrently.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Size returns the length of the file.
	Size() (int64, error)
	// Truncate changes the length; it is durable after Sync.
	Truncate(size int64) error
	// Sync makes the file's bytes and length durable.
	Sync() error
	// Datasync is Sync without what is not needed to read the bytes back,
	// such as the time of the change.
	Datasync() error
	// Writeback asks the system to begin writing a range to the disk, so that
	// a later Sync has less to do. It promises nothing.
	Writeback(off, n int64)
}

// Aligned returns n bytes of memory that begin at a multiple of Block.
func Aligned(n int) []byte {
	b := make([]byte, n+Block)
	from := Block - int(uintptr(unsafe.Pointer(&b[0]))%Block)
	return b[from : from+n : from+n]
}

// WriteFile makes a file with the given content, or replaces it, so that
// after a crash at any moment the name has the old content or the new, whole.
// When it returns without error, it is the new one. The content passes
// through name + ".tmp", which a crash can leave behind.
func WriteFile(fsys FS, name string, content []byte, perm fs.FileMode) error {
	if err := Place(fsys, name, content, perm, true); err != nil {
		return err
	}
	if err := fsys.SyncDir(filepath.Dir(name)); err != nil {
		return fmt.Errorf("sync directory of %s: %w", name, err)
	}
	return nil
}

// Place is WriteFile without making the new name durable, and if sync is
// false without making the content durable either: after a crash anything
// between nothing and the content can be there. It is for what can be
// computed again.
func Place(fsys FS, name string, content []byte, perm fs.FileMode, sync bool) error {
	tmp := name + ".tmp"
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove old %s: %w", tmp, err)
	}
	f, err := fsys.Create(tmp, perm)
	if err != nil {
		return fmt.Errorf("create %s: %w", tmp, err)
	}
	_, err = f.WriteAt(content, 0)
	if err == nil && sync {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", tmp, err)
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return fmt.Errorf("rename %s: %w", tmp, err)
	}
	return nil
}

// ReadFile returns the content of a file of at most limit bytes.
func ReadFile(fsys FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("size of %s: %w", name, err)
	}
	if size > limit {
		return nil, fmt.Errorf("read %s: %d bytes, at most %d expected", name, size, limit)
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); err != nil && (!errors.Is(err, io.EOF) || int64(n) != size) {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// MkdirAll makes a directory and those above it that are missing, durably.
func MkdirAll(fsys FS, dir string, perm fs.FileMode) error {
	err := fsys.Mkdir(dir, perm)
	parent := filepath.Dir(dir)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist) && parent != dir:
		if err := MkdirAll(fsys, parent, perm); err != nil {
			return err
		}
		err = fsys.Mkdir(dir, perm)
	}
	if err != nil {
		return fmt.Errorf("make directory %s: %w", dir, err)
	}
	if err := fsys.SyncDir(parent); err != nil {
		return fmt.Errorf("sync directory %s: %w", parent, err)
	}
	return nil
}
