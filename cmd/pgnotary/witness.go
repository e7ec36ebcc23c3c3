package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/config"
	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/web"
	"github.com/pgnotary/pgnotary/internal/witness"
)

func newWitnessCmd() *cobra.Command {
	var (
		dir, listen, name string
		add, retire       []string
	)
	cmd := &cobra.Command{
		Use:   "witness",
		Short: "Watch over the logs of others, as a witness",
		Long: `Witness runs a witness (c2sp.org/tlog-witness): it cosigns the checkpoints of the logs
it was told of, each only if it continues the one cosigned before. Run it on another
machine, under another administrator, than the logs: it is what keeps the owner of a log,
and whoever stole its key, from rewriting the past or showing two people two histories.

It learns of a log, and of its next key, by --add only, never from a request over HTTP; --retire
takes a key away that the log has replaced. Both work while the witness runs, and while it does not.
What it cosigned is on the disk before anybody gets the cosignature. If the data directory is lost or put back to an
earlier state, the witness must not go on: begin a new one, with a new key and name.

The key is made at the first start if --name is given; the line printed then is for the
policy files of those who trust this witness:

  witness NAME <that line> http://host:port/

  POST /add-checkpoint                      for logs
  GET  /<SHA-256 of the origin>/checkpoint  for anyone: the latest checkpoint cosigned`,
		Example: `  pgnotary witness --data ./witness --name witness.example/w1 --add "$(curl -s http://db1:6433/log/vkey)"
  pgnotary witness --data ./witness --listen 0.0.0.0:7380
  pgnotary witness --data ./witness --add "$NEXT_VKEY"
  pgnotary witness --data ./witness --retire "$OLD_VKEY"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := config.Default()
			logger, _ := newLogger(cmd.ErrOrStderr(), &c)
			signer, err := witnessKey(dir, name)
			if err != nil {
				return err
			}
			var changes []witness.Change
			for _, vkey := range add {
				changes = append(changes, witness.Change{Verb: witness.ChangeAdd, VKey: vkey})
			}
			for _, vkey := range retire {
				changes = append(changes, witness.Change{Verb: witness.ChangeRetire, VKey: vkey})
			}
			s, err := witness.Open(witness.Config{Dir: dir, Signer: signer, Logger: logger})
			if errors.Is(err, durable.ErrLocked) && len(changes) > 0 {
				err = changeRunning(cmd.Context(), dir, changes)
				if err == nil {
					_, err = fmt.Fprintln(cmd.OutOrStdout(), signer.VKey())
				}
				return err
			}
			if err != nil {
				return err
			}
			for _, c := range changes {
				err = errors.Join(err, s.Do(c))
			}
			if len(changes) == 0 {
				err = serveWitness(cmd.Context(), s, listen, logger)
			} else if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), s.VKey())
			}
			return errors.Join(err, s.Close())
		},
	}
	f := cmd.Flags()
	f.StringVarP(&dir, "data", "d", "pgnotary-witness", "data `DIR`ectory of the witness, made if missing")
	f.StringVar(&listen, "listen", "127.0.0.1:7380", "`ADDR`ess to answer on")
	f.StringVar(&name, "name", "", "`NAME` of a new witness, a URL without scheme, such as witness.example/w1")
	f.StringArrayVar(&add, "add", nil, "witness the log with this `VKEY` from now on, print the witness's own and exit; may be given again")
	f.StringArrayVar(&retire, "retire", nil, "do not cosign any more what this `VKEY` of a log signed, print the witness's own and exit; may be given again")
	return cmd
}

// witnessPatience is how long a running witness may take for a change.
const witnessPatience = 10 * time.Second

// changeRunning has the running witness make changes.
func changeRunning(ctx context.Context, dir string, changes []witness.Change) (err error) {
	ctx, cancel := context.WithTimeout(ctx, witnessPatience)
	defer cancel()
	for _, c := range changes {
		err = errors.Join(err, witness.Ask(ctx, durable.OS, dir, c))
	}
	return err
}

// serveWitness answers until ctx ends.
func serveWitness(ctx context.Context, s *witness.Server, listen string, logger *slog.Logger) error {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	logs := s.Logs()
	if len(logs) == 0 {
		logger.Warn("this witness knows no log yet: add one with --add")
	}
	for _, origin := range slices.Sorted(maps.Keys(logs)) {
		logger.Info("witnessing", slog.String("origin", origin), slog.Int64("size", logs[origin]))
	}
	logger.Info("listening", slog.String("address", ln.Addr().String()), slog.String("vkey", s.VKey()))
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Changes(ctx)
	}()
	err = web.Serve(ctx, ln, nil, s, logger)
	cancel()
	<-ended
	return err
}

// witnessKey reads the key in a witness's data directory, or makes it.
func witnessKey(dir, name string) (*checkpoint.Cosigner, error) {
	file := filepath.Join(dir, "key")
	b, err := readKey(file)
	if errors.Is(err, fs.ErrNotExist) {
		if b, err = newWitnessKey(dir, name); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	c, err := checkpoint.ParseWitnessKey(string(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if n, _ := checkpoint.Origin(c.VKey()); name != "" && n != name {
		return nil, fmt.Errorf("the witness in %s is %q, not %q: a witness keeps its name", dir, n, name)
	}
	return c, nil
}

func newWitnessKey(dir, name string) ([]byte, error) {
	if name == "" {
		return nil, withHint(fmt.Errorf("%s has no key yet", dir), "give a new witness its --name")
	}
	if names, err := os.ReadDir(filepath.Join(dir, "log")); err == nil && len(names) > 0 {
		return nil, fmt.Errorf("%s has the logs of a witness, but not its key: put the key back", dir)
	}
	skey, _, err := checkpoint.GenerateWitnessKey(rand.Reader, name)
	if err != nil {
		return nil, err
	}
	if err := durable.MkdirAll(durable.OS, dir, 0o700); err != nil {
		return nil, err
	}
	b := []byte(skey + "\n")
	return b, durable.WriteFile(durable.OS, filepath.Join(dir, "key"), b, 0o600)
}

// readKey reads a private key, if nobody but its owner can.
func readKey(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, withHint(fmt.Errorf("the private key %s can be read by others (mode %#o)", file, mode), "chmod 600 %s; if anyone may have read it, make a new one", file)
	}
	return readFile(file, 4<<10)
}
