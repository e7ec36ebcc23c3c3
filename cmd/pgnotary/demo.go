package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgnotary/pgnotary/internal/config"
	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/query"
	"github.com/pgnotary/pgnotary/internal/verify"
)

func newDemoCmd() *cobra.Command {
	var once bool
	set := config.Default()
	set.Immutable = false // its directory goes with it
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show it: throwaway PostgreSQL, proxy, page and a small workload",
		Long: `Start a throwaway PostgreSQL server with the proxy in front of it, run a few
statements through it, show what was recorded, verify the log, and wait for
Ctrl-C so that you can try it yourself. Everything lies in a temporary
directory, which is removed at the end.

It needs the programs of a PostgreSQL server, but no server that runs.`,
		Example: `  pgnotary demo
  pgnotary demo --once --durability async`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &demo{settings: &settings{Config: set}, out: cmd.OutOrStdout(), stderr: cmd.ErrOrStderr()}
			return d.run(cmd.Context(), once)
		},
	}
	for _, f := range set.Fields() {
		switch f.Key {
		case "listen", "http":
			cmd.Flags().Var(f.Value, f.Key, f.Usage+"; another port if it is taken")
		case "durability":
			cmd.Flags().Var(f.Value, f.Key, f.Usage)
		}
	}
	cmd.Flags().BoolVar(&once, "once", false, "end after the workload instead of waiting for Ctrl-C")
	return cmd
}

// A demo is the throwaway installation.
type demo struct {
	settings    *settings
	out, stderr io.Writer
}

// run sets everything up, shows it, and takes it down again whatever happens.
func (d *demo) run(ctx context.Context, once bool) (err error) {
	if err := settingsError(d.settings.Validate()); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "pgnotary-demo-")
	if err != nil {
		return fmt.Errorf("make temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	d.title("Starting a throwaway PostgreSQL")
	pg, err := pgserver.Start(ctx, pgserver.Options{})
	if err != nil {
		if ctx.Err() != nil {
			return nil // Ctrl-C; Start has cleaned up
		}
		if errors.Is(err, pgserver.ErrNotFound) {
			return withHint(err, "make demo installs it where it can")
		}
		return err
	}
	defer func() { err = errors.Join(err, pg.Stop()) }()
	d.say("PostgreSQL of %s on %s", pg.Bin, pg.Addr())

	d.settings.Upstream, d.settings.Data = pg.Addr(), filepath.Join(dir, "data")
	d.settings.reload = func() (*settings, error) { return d.settings, nil }
	p, stop, err := d.startProxy()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	err = d.show(ctx, p, once)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// startProxy runs the proxy in this process; stop ends it in order.
func (d *demo) startProxy() (p *proxy, stop func() error, err error) {
	s := d.settings
	s.Listen, s.HTTP = freeAddress(s.Listen), freeAddress(s.HTTP)
	level := new(slog.LevelVar)
	level.Set(slog.LevelWarn)
	logger := slog.New(slog.NewTextHandler(d.stderr, &slog.HandlerOptions{Level: level}))
	p, err = newProxy(s, logger, level)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1) // one value
	go func() { done <- p.run(ctx, nil, nil) }()
	return p, func() error {
		cancel()
		return <-done
	}, nil
}

// freeAddress returns addr, or the same host with port 0 if somebody else
// listens there.
func freeAddress(addr string) string {
	ln, err := net.Listen("tcp", addr)
	if err == nil {
		if err := ln.Close(); err == nil {
			return addr
		}
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return net.JoinHostPort(host, "0")
}

// show runs the workload, prints what was recorded of it and checks the log.
func (d *demo) show(ctx context.Context, p *proxy, once bool) error {
	d.title("Running statements through the proxy on %s", p.relay.Addr())
	if err := d.workload(ctx, p.relay.Addr().String()); err != nil {
		return err
	}
	d.title("What was recorded")
	if err := d.recorded(ctx, p); err != nil {
		return err
	}
	d.title("Verifying the log, as anyone with its public key can")
	if err := d.verify(ctx, p); err != nil {
		return err
	}
	if once {
		return nil
	}
	d.title("Try it")
	host, port, err := net.SplitHostPort(p.relay.Addr().String())
	if err != nil {
		return err
	}
	program := "pgnotary"
	if exe, err := os.Executable(); err == nil {
		program = exe
	}
	data := d.settings.Data
	d.say("psql -h %s -p %s -U alice postgres", host, port)
	d.say("pgbench -h %s -p %s -U alice -i postgres", host, port)
	d.say("%s tail --data %s", program, data)
	d.say("%s search --data %s --text accounts --json", program, data)
	d.say("%s verify --data %s", program, data)
	d.say("http://%s/           the page; log in with the token in %s", p.http.Addr(), filepath.Join(data, "token"))
	d.say("http://%s/metrics    for Prometheus", p.http.Addr())
	fmt.Fprint(d.out, "\nCtrl-C ends it and removes everything.\n")
	<-ctx.Done()
	fmt.Fprint(d.out, "\nStopping.\n")
	return nil
}

// recorded prints the log once all sessions of the workload have ended in it.
func (d *demo) recorded(ctx context.Context, p *proxy) error {
	// The last disconnect is recorded without anybody waiting for it.
	deadline := time.Now().Add(5 * time.Second)
	for p.openSessions() > 0 && time.Now().Before(deadline) {
		time.Sleep(lazyCommit)
	}
	if err := p.signed(ctx); err != nil {
		return err
	}
	lines := newLinePrinter(d.out)
	lines.width = nil // whole statements, however wide the terminal
	return p.view.Search(ctx, query.Filter{}, func(s *query.Statement) error {
		_, err := io.WriteString(d.out, lines.line(s))
		return err
	})
}

// signed waits until a checkpoint covers all that is in the log now.
func (p *proxy) signed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if p.ledger.Backlog() == 0 { // from here on Durable counts all there was
			want := p.ledger.Durable()
			if size, _, _ := p.checkpoint(); size >= want {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for a checkpoint: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (d *demo) verify(ctx context.Context, p *proxy) error {
	result, err := verify.Dir(ctx, d.settings.Data, verify.Options{})
	if err != nil {
		return err
	}
	if !result.OK {
		return fmt.Errorf("the log does not verify: %+v", result.Findings)
	}
	d.say("ok: %s, %d entries, %d values", result.Origin, result.Entries, result.Values)
	signed, err := p.view.Checkpoint()
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(signed)) {
		d.say("%s", strings.TrimRight(line, "\n"))
	}
	return nil
}

func (d *demo) title(format string, args ...any) {
	fmt.Fprintf(d.out, "\n== "+format+"\n", args...)
}

func (d *demo) say(format string, args ...any) {
	line := strings.TrimRight("    "+fmt.Sprintf(format, args...), " ")
	fmt.Fprintln(d.out, line)
}
