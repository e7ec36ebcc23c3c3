package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// asOwner makes a process of root's one of the user whom the log in a data directory
// belongs to, and returns the directory's name from then on. What root would put
// there the service, which runs as that user, could not read: orders would never be
// carried out, and after one that was carried out here it would not start. The way to the
// directory may be barred for that user (/var/lib/private), so the process goes there first.
func asOwner(dir string) (string, error) {
	st, err := owner(dir)
	if err != nil {
		return "", err
	}
	if st == nil || os.Geteuid() != 0 || st.Uid == 0 {
		return dir, nil
	}
	uid, gid := int(st.Uid), int(st.Gid)
	return ".", errors.Join(os.Chdir(dir), syscall.Setgroups([]int{gid}), syscall.Setresgid(gid, gid, gid), syscall.Setresuid(uid, uid, uid))
}

// owner says whom the log in a data directory belongs to: by log.json, since the directory itself may be a volume
// that somebody else made; nil where that cannot be told. Without a log it is the directory's owner.
func owner(dir string) (*syscall.Stat_t, error) {
	info, err := os.Stat(filepath.Join(dir, "log.json"))
	if errors.Is(err, fs.ErrNotExist) {
		info, err = os.Stat(dir)
	}
	if err != nil {
		return nil, err
	}
	st, _ := info.Sys().(*syscall.Stat_t)
	return st, nil
}

// refuseForeign is for serve: root must not go on with somebody else's log. That user could not read the
// checkpoint that root signs, so the service would not start any more.
func refuseForeign(dir string) error {
	st, err := owner(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || st == nil || os.Geteuid() != 0 || st.Uid == 0 {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "log.json")); errors.Is(err, fs.ErrNotExist) {
		return nil // a directory for a new log
	}
	return withHint(fmt.Errorf("the log in %s belongs to user %d, who could not read what root writes there", dir, st.Uid),
		"run this as that user, or give all of %s to root (chown -R) for good", dir)
}
