package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/query"
)

func newKeygenCmd() *cobra.Command {
	var origin, out, policyOut, next string
	cmd := &cobra.Command{
		Use:   "keygen",
		Short: "Make the signing key of a new log",
		Long: `Keygen writes a new private key and prints the public key that belongs to it, the
line others verify the log with. A log's name (origin) is in its key and stays for ever:
choose one that no other log has, such as host/purpose/number.

Serve makes a key by itself. Who wants to choose the name, or to hand the public key
out before the first start, puts a key of this command at DIR/key first. Keys that others can read are refused.

With --next it makes the key that takes the place of the present one at the next start of serve:
an entry signed with both keys then says so, and verify and check follow it. Give the line it prints
to the log's witnesses before that start (pgnotary witness --add), and to auditors; witnesses can
retire the old one (pgnotary witness --retire) as soon as they have cosigned something that the new one signed.`,
		Example: `  pgnotary keygen --origin pgnotary/db1/prod -o ./pgnotary-data/key --policy-out log.policy
  pgnotary keygen --next ./pgnotary-data`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if next != "" {
				if origin != "" || out != "" {
					return withHint(errors.New("--next takes name and place from the data directory"), "leave out --origin and -o")
				}
				log, err := query.Open(next)
				if err != nil {
					return err
				}
				origin, out = log.Origin(), filepath.Join(next, "key.next")
			}
			if origin == "" || out == "" {
				return withHint(errors.New("--origin and -o are needed"), "see %s --help", cmd.CommandPath())
			}
			skey, vkey, err := checkpoint.GenerateKey(rand.Reader, origin)
			if err != nil {
				return err
			}
			if err := writeNew(out, []byte(skey+"\n"), 0o600); err != nil {
				return err
			}
			if info, err := os.Stat(next); err == nil && os.Geteuid() == 0 { // for serve, whoever runs it
				if st, ok := info.Sys().(*syscall.Stat_t); ok {
					if err := os.Chown(out, int(st.Uid), int(st.Gid)); err != nil {
						return err
					}
				}
			}
			if policyOut != "" {
				if err := writeNew(policyOut, []byte(checkpoint.FormatPolicy(vkey, "")), 0o644); err != nil {
					return err
				}
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), vkey)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&origin, "origin", "", "`NAME` of the log: 1 to 255 bytes without white space and '+'")
	f.StringVarP(&out, "out", "o", "", "`FILE` for the private key; must not exist")
	f.StringVar(&next, "next", "", "make the next key of the log in this data `DIR`ectory")
	f.StringVar(&policyOut, "policy-out", "", "`FILE` for a policy that trusts this key; must not exist")
	return cmd
}

// writeNew writes a file that must not exist yet, so that no key is ever
// overwritten, and syncs it. What fails leaves none.
func writeNew(name string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(name)
	}
	return err
}
