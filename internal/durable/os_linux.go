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

// immutableFlag is FS_IMMUTABLE_FL of linux/fs.h.
const immutableFlag = 0x10

// setImmutable sets or clears the flag of chattr +i. Most file systems have
// it, and few processes the right to (CAP_LINUX_IMMUTABLE): where it does not
// work, nothing happens.
func setImmutable(name string, on bool) {
	f, err := openPlain(name, os.O_RDONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil || (flags&immutableFlag != 0) == on {
		return
	}
	_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags^immutableFlag)
}
