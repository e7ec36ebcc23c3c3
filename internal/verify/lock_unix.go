//go:build unix

package verify

import (
	"errors"
	"io/fs"
	"syscall"
)

// locked reports whether a writer holds the log: whether the lock it takes on
// the file cannot be had, not even shared.
func locked(name string) bool {
	f, err := openPlain(name)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist) // a file of somebody else, perhaps one who writes
	}
	defer f.Close() // gives the lock back
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	return errors.Is(err, syscall.EWOULDBLOCK)
}
