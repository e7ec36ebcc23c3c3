package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A workload is one kind of load on all targets.
type workload struct {
	name       string // simple, extended, prepared, tpcb
	args       []string
	statements int // in a transaction
	clients    int
}

func (w workload) String() string {
	return fmt.Sprintf("%s, %d client%s", w.name, w.clients, map[bool]string{true: "s"}[w.clients > 1])
}

// workloads returns what was asked for, in the order of the report.
func workloads(o *options) []workload {
	var ws []workload
	for _, mode := range []string{"simple", "extended", "prepared"} {
		for _, clients := range o.clients {
			if o.wants(mode) {
				ws = append(ws, workload{mode, []string{"-S", "-M", mode}, 1, clients})
			}
		}
	}
	if o.wants("tpcb") {
		// BEGIN, three UPDATEs, SELECT, INSERT, END
		ws = append(ws, workload{"tpcb", []string{"-b", "tpcb-like", "-M", "prepared"}, 7, 8})
	}
	return ws
}

// A sample is what one run of pgbench on one target showed. A number that does
// not apply is negative.
type sample struct {
	tps       float64
	proxyCPU  float64 // microseconds per statement
	serverCPU float64
	stored    float64 // bytes per statement
	told      float64 // those of them in target.told
	sealed    float64 // the same, once its log is sealed
	peak      int64   // of the proxy's memory
	p50, p99  float64 // of a transaction, microseconds; with one client only
}

var (
	countLine = regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)`)
	failLine  = regexp.MustCompile(`(?m)^number of failed transactions: (\d+)`)
)

// pgbench runs a workload on a target for some seconds. Throughput and CPU are those of a stretch in
// which all sessions are there: to begin one costs a server as much as a hundred statements.
func pgbench(ctx context.Context, t *target, w workload, d time.Duration, dir string) (s sample, err error) {
	tool, err := t.server.Tool("pgbench")
	if err != nil {
		return s, err
	}
	args := append([]string{
		"-n", "-h", t.host(), "-p", t.port(), "-U", "postgres", "-c", strconv.Itoa(w.clients),
		"-j", strconv.Itoa(min(w.clients, 2)), "-T", strconv.Itoa(int((d + lead(w.clients)).Seconds())), "-P", "1",
	}, w.args...)
	prefix := filepath.Join(dir, "transactions")
	if w.clients == 1 {
		args = append(args, "-l", "--log-prefix", prefix)
	}
	if err := waitForSessions(t, 0, 0, patience); err != nil {
		return s, err
	}
	if err := t.fillPool(w.clients); err != nil {
		return s, err
	}
	sealed, err := t.sealedBytes(ctx)
	if err != nil {
		return s, err
	}
	before, err := t.usage()
	if err != nil {
		return s, err
	}
	out, st, err := t.run(exec.CommandContext(ctx, tool, append(args, "postgres")...), w.clients)
	if err != nil {
		return s, fmt.Errorf("pgbench on %s: %w", t.name, err)
	}
	time.Sleep(50 * time.Millisecond) // the last outcomes are written lazily
	after, err := t.usage()
	if err != nil {
		return s, err
	}
	count, fail := countLine.FindSubmatch(out), failLine.FindSubmatch(out)
	if count == nil || fail != nil && string(fail[1]) != "0" {
		return s, fmt.Errorf("pgbench on %s: unexpected output: %s", t.name, out)
	}
	n, _ := strconv.ParseFloat(string(count[1]), 64)
	n *= float64(w.statements)
	s.tps = st.transactions / st.seconds
	s.proxyCPU, s.stored, s.told, s.sealed, s.p50, s.p99, s.peak = -1, -1, -1, -1, -1, -1, -1
	perStatement := 1 / (st.transactions * float64(w.statements))
	s.serverCPU = micros(st.server) * perStatement
	if t.proxy != nil {
		s.proxyCPU = micros(st.proxy) * perStatement
		s.peak = after.peak
	}
	if t.stored != nil {
		s.stored = float64(after.stored-before.stored) / n
	}
	if t.told != nil {
		s.told = float64(after.told-before.told) / n
	}
	if t.data != "" {
		size, err := t.sealedBytes(ctx)
		if err != nil {
			return s, err
		}
		s.sealed = float64(size-sealed) / n
	}
	if w.clients == 1 {
		s.p50, s.p99, err = latencies(prefix)
	}
	return s, err
}

// usage is what a target has consumed so far.
type usage struct {
	proxyCPU, serverCPU time.Duration
	stored, told, peak  int64
}

func (t *target) usage() (u usage, err error) {
	var errs [5]error
	u.proxyCPU, u.serverCPU, errs[0] = t.cpu()
	if t.proxy != nil {
		u.peak, errs[1] = memory(t.proxy.cmd.Process.Pid, "VmHWM")
	}
	if t.stored != nil {
		u.stored, errs[3] = t.stored()
	}
	if t.told != nil {
		u.told, errs[4] = t.told()
	}
	return u, errors.Join(errs[:]...)
}

// cpu is the CPU time that the proxy, if there is one, and the server have used so far.
func (t *target) cpu() (proxy, server time.Duration, err error) {
	if t.proxy != nil {
		if proxy, err = cpuTime(t.proxy.cmd.Process.Pid, true); err != nil {
			return 0, 0, err
		}
	}
	server, err = cpuTime(t.server.Pid(), true)
	return proxy, server, err
}

// latencies reads pgbench's logs of transactions, removes them, and returns
// median and 99th percentile in microseconds.
func latencies(prefix string) (p50, p99 float64, err error) {
	files, err := filepath.Glob(prefix + ".*")
	if err != nil || len(files) == 0 {
		return 0, 0, fmt.Errorf("read transaction log: none (%w)", err)
	}
	var times []float64
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return 0, 0, fmt.Errorf("read transaction log: %w", err)
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			// client, number, microseconds, script, time of the end
			fields := strings.Fields(lines.Text())
			if len(fields) < 3 {
				continue
			}
			us, err := strconv.ParseFloat(fields[2], 64)
			if err != nil {
				continue // "skipped" and "failed"
			}
			times = append(times, us)
		}
		if err := errors.Join(f.Close(), os.Remove(name)); err != nil {
			return 0, 0, fmt.Errorf("read transaction log: %w", err)
		}
	}
	return quantile(times, 0.5), quantile(times, 0.99), nil
}
