package main

import (
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pgnotary/pgnotary/internal/config"
	"github.com/pgnotary/pgnotary/internal/verifiers"
)

func newServeCmd() *cobra.Command {
	var (
		defaults = config.Default() // what the flags write to; see settings
		file     string
		check    bool
	)
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the proxy",
		Long: `Run the proxy: accept clients, forward what they say to the PostgreSQL server,
and record it in the data directory, which is made if it is missing, with the
key that signs the log.

Every flag is also a key of the configuration file (TOML); a flag beats the
file. It is ready when GET /readyz on the HTTP address answers 200. SIGTERM
stops accepting, lets sessions finish for --drain-timeout and leaves a clean,
signed log; a second one cuts them short. SIGHUP reads configuration, certificates, authorities and verifiers
again; sessions go on.
SIGUSR1 ends the journal file, so that what was recorded so far is sealed.

If the log cannot be written, nothing more is forwarded: clients get an error,
the process says why and exits with code 2.`,
		Example: `  pgnotary serve --upstream db.internal:5432 --data /var/lib/pgnotary
  pgnotary serve --config /etc/pgnotary/pgnotary.toml --durability before-reply
  pgnotary serve --config /etc/pgnotary/pgnotary.toml --check
  pgnotary serve --upstream db.internal:5432 --upstream-tls verify-full \
    --tls-cert proxy.crt --tls-key proxy.key --auth-user pgnotary_auth`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := loadSettings(file, cmd.Flags())
			if err != nil {
				return err
			}
			if check {
				return checkSettings(cmd.OutOrStdout(), s)
			}
			if err := settingsError(s.Validate()); err != nil {
				return err
			}
			// Who reads the diagnostics may go away: that is no reason to end everybody's sessions.
			signal.Ignore(syscall.SIGPIPE)
			return serve(cmd.Context(), s, cmd.ErrOrStderr())
		},
	}
	for _, f := range defaults.Fields() {
		cmd.Flags().Var(f.Value, f.Key, f.Usage)
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration file (TOML)")
	cmd.Flags().BoolVar(&check, "check", false, "print the settings in force, check them and exit")
	cmd.Flags().SortFlags = false
	return cmd
}

// settings are the configuration in force, and how to find it again.
type settings struct {
	config.Config
	source map[string]string // key to "default", "file" or "flag"
	reload func() (*settings, error)
}

// loadSettings merges defaults, file (if one is named) and flags.
func loadSettings(file string, flags *pflag.FlagSet) (*settings, error) {
	s := &settings{Config: config.Default(), source: map[string]string{}}
	s.reload = func() (*settings, error) { return loadSettings(file, flags) }
	for _, f := range s.Fields() {
		s.source[f.Key] = "default"
	}
	var mistakes error
	if file != "" {
		var keys []string
		if keys, mistakes = s.ReadFile(file); mistakes != nil && len(keys) == 0 {
			return nil, fileError(mistakes)
		}
		for _, key := range keys {
			s.source[key] = "file"
		}
	}
	var err error
	flags.Visit(func(f *pflag.Flag) {
		if s.source[f.Name] == "" {
			return // --config and --check are no settings
		}
		s.source[f.Name] = "flag"
		err = errors.Join(err, s.Set(f.Name, f.Value.String()))
	})
	if mistakes != nil {
		return nil, fileError(errors.Join(mistakes, err, s.Validate()))
	}
	return s, err
}

// fileError shows the line that is wrong, and the key that was meant, or, if
// there is more than one mistake, all of them.
func fileError(err error) error {
	if strings.Contains(err.Error(), "\n") {
		return settingsError(err)
	}
	bad, ok := errors.AsType[*config.FileError](err)
	if !ok {
		return err
	}
	if bad.Excerpt != "" {
		err = fmt.Errorf("%w\n%s", err, bad.Excerpt)
	}
	if bad.Similar != "" {
		return withHint(err, "did you mean %s?", bad.Similar)
	}
	return err
}

// settingsError puts a list of problems under one heading.
func settingsError(err error) error {
	if err == nil {
		return nil
	}
	problems := strings.Split(err.Error(), "\n")
	if len(problems) == 1 {
		return fmt.Errorf("configuration: %w", err)
	}
	return fmt.Errorf("configuration: %d problems\n  %s", len(problems), strings.Join(problems, "\n  "))
}

// checkSettings is serve --check.
func checkSettings(w io.Writer, s *settings) error {
	if err := s.Print(w, s.source); err != nil {
		return err
	}
	err := s.Validate()
	if err == nil { // only settings that are right in themselves say which files to look at
		err = s.Check()
		if s.AuthFile != "" {
			_, e := verifiers.OpenFile(s.AuthFile)
			err = errors.Join(err, e)
		}
		if list, e := config.ReadSinks(s.Sinks); s.Sinks != "" && e == nil { // Check tells of an error
			for i := range list {
				_, e := sinkFilter(&list[i])
				_, e2 := list[i].TLS()
				for _, e := range []error{e, e2, checkSecrets(&list[i])} {
					if e != nil {
						err = errors.Join(err, fmt.Errorf("sinks: sink %s: %w", list[i].Name, e))
					}
				}
			}
		}
		if s.HTTPTokens != "" {
			if _, e := readTokens(s.HTTPTokens); e != nil {
				err = errors.Join(err, fmt.Errorf("http-tokens: %w", e))
			}
		}
		k, e := openKeys(s)
		_, e2 := newWitnesses(s, &k, nil)
		err = errors.Join(err, e, e2)
	}
	return settingsError(err)
}
