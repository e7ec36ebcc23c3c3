package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/pgnotary/pgnotary/internal/access"
)

func newTokenCmd() *cobra.Command {
	var name, role, file string
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make a token for reading the log over HTTP",
		Long: `Token prints a new token for somebody who may read the log over HTTP, and adds its
hash to a token file. The token itself is kept nowhere else: hand it over, it
cannot be shown again. Take it back by removing its line. A running serve, whose
setting http-tokens names the file, reads it again on SIGHUP.

Roles: operator sees how the proxy and the log are doing; auditor also sees
entries without their values, that is who, when, from where and how it ended;
investigator sees values too, that is texts and parameters.

Without http-tokens there is one token of role investigator, in the file
"token" of the data directory.`,
		Example: `  pgnotary token --name alice --role auditor --file /etc/pgnotary/tokens
  pgnotary serve --http-tokens /etc/pgnotary/tokens`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if name == "" || role == "" || file == "" {
				return withHint(errors.New("--name, --role and --file are needed"), "see %s --help", cmd.CommandPath())
			}
			r, err := access.ParseRole(role)
			if err != nil {
				return err
			}
			secret, line, err := access.New(rand.Reader, name, r)
			if err != nil {
				return err
			}
			if err := addToken(file, line); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), secret)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "whose token it is: this `NAME` stands in the entries about what was read")
	f.StringVar(&role, "role", "", "`ROLE`: operator, auditor or investigator")
	f.StringVar(&file, "file", "", "token `FILE`, made if it is missing")
	return cmd
}

// addToken adds a line to a token file that stays a good one.
func addToken(name, line string) error {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := readFile(name, access.MaxFile)
	if err != nil {
		return err
	}
	if len(b) > 0 && b[len(b)-1] != '\n' {
		line = "\n" + line
	}
	if _, err := access.Parse(append(b, line...)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if _, err := f.WriteString(line + "\n"); err != nil {
		return err
	}
	return f.Sync()
}
