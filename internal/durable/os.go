//go:build unix

package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"syscall"
	"time"
)

// OS is the file system of the machine.
var OS FS = osFS{}

type osFS struct{}

func (osFS) Create(name string, perm fs.FileMode) (File, error) {
	return openFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
}
func (osFS) Open(name string) (File, error)            { return openFile(name, os.O_RDONLY, 0) }
func (osFS) OpenRW(name string) (File, error)          { return openFile(name, os.O_RDWR, 0) }
func (osFS) Mkdir(name string, perm fs.FileMode) error { return os.Mkdir(name, perm) }
func (osFS) Rename(oldname, newname string) error      { return os.Rename(oldname, newname) }
func (osFS) Remove(name string) error                  { return os.Remove(name) }

func (osFS) Protect(name string, immutable bool) error {
	if err := os.Chmod(name, 0o444); err != nil {
		return err
	}
	if immutable {
		setImmutable(name, true)
	}
	return nil
}

func (osFS) Unprotect(name string) error {
	setImmutable(name, false)
	if err := os.Chmod(name, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (osFS) List(dir string) ([]string, error) {
	d, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	sort.Strings(names)
	return names, err
}

func (osFS) IsLink(name string) (bool, error) {
	fi, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	return fi.Mode()&fs.ModeSymlink != 0, nil
}

func (osFS) SyncDir(dir string) error {
	d, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// lockPatience is how long Lock tries: a reader that asks whether the lock is
// held (Locked) holds a shared one for some microseconds.
const lockPatience = 500 * time.Millisecond

// Lock locks the directory of the file as well, where that is possible: somebody may remove the file, or put another in its place.
func (osFS) Lock(name string) (io.Closer, error) {
	f, err := openPlain(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	end := time.Now().Add(lockPatience)
	if err := lock(f, end); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), f.Close())
	}
	d, err := os.Open(filepath.Dir(name))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), f.Close())
	}
	if err := lock(d, end); errors.Is(err, ErrLocked) { // network file systems know no lock on a directory
		return nil, errors.Join(fmt.Errorf("lock %s: another process holds the one that was there before: %w", name, err), f.Close(), d.Close())
	}
	return closers{f, d}, nil
}

// lock takes the exclusive lock, and waits for it until end.
func lock(f *os.File, end time.Time) error {
	for ; ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			return err
		case time.Now().After(end):
			return ErrLocked
		}
	}
}

type closers [2]io.Closer

func (c closers) Close() error { return errors.Join(c[0].Close(), c[1].Close()) }

func (osFS) Locked(name string) (bool, error) {
	f, err := openPlain(name, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	defer f.Close() // lets go of the shared lock
	for {
		switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); {
		case err == nil:
			return false, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return true, nil
		case !errors.Is(err, syscall.EINTR):
			return false, fmt.Errorf("test lock %s: %w", name, err)
		}
	}
}

type osFile struct {
	*os.File
	fd int
}

func openFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := openPlain(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return osFile{File: f, fd: int(f.Fd())}, nil
}

// openPlain is os.OpenFile for what must be a file. It does not wait at a FIFO that somebody put in its place.
func openPlain(name string, flag int, perm fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(name, flag|syscall.O_NONBLOCK, perm)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errors.New("it is not a plain file")}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (f osFile) Size() (int64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}
