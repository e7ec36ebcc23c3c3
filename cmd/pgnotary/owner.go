package main

import (
	"errors"
	"os"
	"syscall"
)

// asOwner makes a process of root's one of the user whom a data directory
// belongs to, and returns the directory's name from then on. What root would put
// there the service, which runs as that user, could not read: orders would never be
// carried out, and after one that was carried out here it would not start. The way to the
// directory may be barred for that user (/var/lib/private), so the process goes there first.
func asOwner(dir string) (string, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 || st.Uid == 0 {
		return dir, nil
	}
	uid, gid := int(st.Uid), int(st.Gid)
	return ".", errors.Join(os.Chdir(dir), syscall.Setgroups([]int{gid}), syscall.Setresgid(gid, gid, gid), syscall.Setresuid(uid, uid, uid))
}
