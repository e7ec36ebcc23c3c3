// Command bench measures pgnotary beside what it competes with, interleaved and in one
// go, so that all see the same machine. See README.md for how to read its tables.
//
//	go run ./bench
//	go run ./bench -quick
//	go run ./bench -run simple,32 -rounds 5
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options are the flags, parsed.
type options struct {
	parts    []string // simple, extended, prepared, tpcb, copy, idle; empty means all
	clients  []int
	targets  []string // empty means all
	seconds  time.Duration
	rounds   int
	scale    int
	copySize int64 // bytes
	idle     int   // sessions
	binary   string
	dir      string
	verify   bool
}

var allParts = []string{"simple", "extended", "prepared", "tpcb", "copy", "idle"}

func (o *options) wants(part string) bool { return len(o.parts) == 0 || slices.Contains(o.parts, part) }

func (o *options) wantsTarget(name string) bool {
	return len(o.targets) == 0 || slices.Contains(o.targets, name) ||
		slices.Contains(modes, name) && slices.Contains(o.targets, "pgnotary")
}

func main() {
	runtime.LockOSThread() // children get a signal when this thread ends: it must be the last one
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parseFlags(args []string) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	runParts := fs.String("run", "", "parts and numbers of clients to run, such as `simple,copy,32`; parts: "+strings.Join(allParts, ", "))
	targets := fs.String("targets", "", "only these `targets`: direct, haproxy, pgbouncer, pgaudit, pgnotary, "+strings.Join(modes, ", "))
	seconds := fs.Int("seconds", 5, "length of one run of pgbench")
	fs.IntVar(&o.rounds, "rounds", 3, "rounds over all targets; medians are shown")
	fs.IntVar(&o.scale, "scale", 10, "pgbench's scale: 16 MB each")
	fs.Int64Var(&o.copySize, "copy", 1e9, "`bytes` of a COPY")
	fs.IntVar(&o.idle, "idle", 1000, "idle sessions, at most 1000")
	fs.StringVar(&o.binary, "pgnotary", "", "`program` to measure instead of the one built from here")
	fs.StringVar(&o.dir, "dir", "", "`directory` for servers and logs, on the disk to be measured (default: that of temporary files)")
	fs.BoolVar(&o.verify, "verify", true, "verify pgnotary's logs at the end")
	quick := fs.Bool("quick", false, "one short round, to see that everything runs")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	o.seconds = time.Duration(*seconds) * time.Second
	o.clients = []int{1, 8, 32}
	if *quick {
		o.seconds, o.rounds, o.scale, o.copySize, o.idle, o.clients = time.Second, 1, 1, 1e8, 100, []int{1, 8}
	}
	if *targets != "" {
		o.targets = strings.Split(*targets, ",")
	}
	return o, o.parseRun(*runParts)
}

func (o *options) parseRun(list string) error {
	var clients []int
	for word := range strings.SplitSeq(list, ",") {
		if n, err := strconv.Atoi(word); err == nil && n > 0 {
			clients = append(clients, n)
		} else if slices.Contains(allParts, word) {
			o.parts = append(o.parts, word)
		} else if word != "" {
			return fmt.Errorf("-run: %q is neither a number of clients nor one of %s", word, strings.Join(allParts, ", "))
		}
	}
	if clients != nil {
		o.clients = clients
	}
	if o.idle > 1000 || o.rounds < 1 || o.seconds < time.Second {
		return errors.New("-idle is at most 1000, -rounds and -seconds at least 1")
	}
	return nil
}

func run(ctx context.Context, o *options) (err error) {
	dir, err := os.MkdirTemp(o.dir, "pgnotary-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	progress("start servers and proxies")
	f, err := newField(ctx, dir, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()

	r := &report{out: os.Stdout, options: o, started: time.Now()}
	for _, t := range f.targets {
		if t.missing != "" {
			r.missing = append(r.missing, t)
			progress("missing: %s: %s", t.name, t.missing)
		}
	}
	here := slices.DeleteFunc(slices.Clone(f.targets), func(t *target) bool { return t.missing != "" })
	// What was measured is worth printing even if the rest could not be.
	err = measure(ctx, o, dir, here, r)
	if err == nil && o.verify {
		r.verified = verify(ctx, f, here)
	}
	return errors.Join(err, r.print())
}

// measure runs everything: each workload in rounds over all targets, each round
// beginning with another target.
func measure(ctx context.Context, o *options, dir string, targets []*target, r *report) error {
	inTurn := func(round int, do func(t *target) error) error {
		for _, s := range []struct {
			pause time.Duration
			times *[]time.Duration
		}{{0, &r.syncs}, {pause, &r.paced}} {
			times, err := measureSync(dir, 200, s.pause)
			if err != nil {
				return err
			}
			*s.times = append(*s.times, times...)
		}
		for i := range targets {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := do(targets[(i+round)%len(targets)]); err != nil {
				return err
			}
		}
		return nil
	}
	if err := measureIdle(o, targets, r); err != nil {
		return err
	}
	for _, w := range workloads(o) {
		res := result{workload: w, samples: map[*target][]sample{}, targets: targets}
		for round := range o.rounds {
			progress("%s: round %d of %d", w, round+1, o.rounds)
			err := inTurn(round, func(t *target) error {
				s, err := pgbench(ctx, t, w, o.seconds, dir)
				res.samples[t] = append(res.samples[t], s)
				return err
			})
			if err != nil {
				return err
			}
		}
		r.results = append(r.results, res)
	}
	if o.wants("copy") {
		if err := measureCopies(o, targets, r, inTurn); err != nil {
			return err
		}
	}
	return nil
}

// measureIdle comes first: in a process that has served other work, sessions
// fit into memory it took before, and would seem to cost nothing.
func measureIdle(o *options, targets []*target, r *report) error {
	if !o.wants("idle") {
		return nil
	}
	progress("%d idle sessions", o.idle)
	for _, t := range targets {
		if t.proxy == nil {
			continue
		}
		n, err := idle(t, o.idle)
		if err != nil {
			return err
		}
		r.idle = append(r.idle, idleResult{t, n})
	}
	return nil
}

func measureCopies(o *options, targets []*target, r *report, inTurn func(int, func(*target) error) error) error {
	for _, c := range []struct {
		name string
		run  func(*target, int64) (copySample, error)
	}{{"COPY to the client", copyOut}, {"COPY from the client", copyIn}} {
		res := copyResult{name: c.name, samples: map[*target][]copySample{}, targets: targets}
		for round := range o.rounds {
			progress("%s: round %d of %d", c.name, round+1, o.rounds)
			err := inTurn(round, func(t *target) error {
				s, err := c.run(t, o.copySize)
				res.samples[t] = append(res.samples[t], s)
				return err
			})
			if err != nil {
				return err
			}
		}
		r.copies = append(r.copies, res)
	}
	return nil
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
