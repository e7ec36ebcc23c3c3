package durable

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

func (osFS) OpenDirect(name string) (File, error) {
	f, err := openFile(name, os.O_WRONLY|unix.O_DIRECT|unix.O_DSYNC, 0)
	if errors.Is(err, unix.EINVAL) {
		return nil, ErrNoDirect
	}
	return f, err
}

func (f osFile) Datasync() error {
	for {
		err := unix.Fdatasync(f.fd)
		runtime.KeepAlive(f.File)
		if err == nil {
			return nil
		}
		// A signal came first: that is no report on the data, so asking again
		// hides nothing.
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

func (f osFile) Writeback(off, n int64) {
	_ = unix.SyncFileRange(f.fd, off, n, unix.SYNC_FILE_RANGE_WRITE) // only a hint
	runtime.KeepAlive(f.File)
}
