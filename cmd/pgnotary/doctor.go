package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pgnotary/pgnotary/internal/config"
	"github.com/pgnotary/pgnotary/internal/doctor"
)

func newDoctorCmd() *cobra.Command {
	var (
		defaults = config.Default() // what the flags write to; see settings
		file     string
		admin    string
		asJSON   bool
	)
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Tell which logins will work through the proxy, and why not",
		Long: `Look at the server as the proxy with these settings would, and tell which logins
will work through it, which not and why, whether clients can go around the
proxy, which lines pg_hba.conf should begin with, and the SQL of the function
for verifiers where that would help.

Reading pg_hba.conf needs a role that may, such as a superuser: give its
connection string with --admin-dsn; host and port are those of the server if
left out, the password may come from PGPASSWORD or ~/.pgpass. Nothing is
changed, and no password or verifier is shown. Run it on the proxy's machine.

Exit code 1 means that logins fail, or that the record can be evaded.`,
		Example: `  pgnotary doctor --config /etc/pgnotary/pgnotary.toml --admin-dsn "user=postgres dbname=postgres"
  pgnotary doctor --config /etc/pgnotary/pgnotary.toml --auth-user pgnotary_auth
  pgnotary doctor --upstream db.internal:5432 --upstream-tls require --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := loadSettings(file, cmd.Flags())
			if err != nil {
				return err
			}
			if err := settingsError(s.Validate()); err != nil {
				return err
			}
			facts, err := doctor.Examine(cmd.Context(), &s.Config, admin)
			if err != nil {
				return err
			}
			r := doctor.Diagnose(facts)
			if asJSON {
				out := json.NewEncoder(cmd.OutOrStdout())
				out.SetEscapeHTML(false)
				err = out.Encode(r)
			} else {
				err = r.Print(cmd.OutOrStdout())
			}
			if err != nil {
				return fmt.Errorf("write report: %w", err)
			}
			if !r.OK {
				return no("")
			}
			return nil
		},
	}
	for _, f := range defaults.Fields() {
		cmd.Flags().Var(f.Value, f.Key, f.Usage)
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration file (TOML)")
	cmd.Flags().StringVar(&admin, "admin-dsn", "", "connection string of a role that may read pg_hba_file_rules")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	cmd.Flags().SortFlags = false
	return cmd
}
