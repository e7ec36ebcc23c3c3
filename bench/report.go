package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// A report collects what was measured and prints it as Markdown.
type report struct {
	out      io.Writer
	options  *options
	started  time.Time
	missing  []*target
	syncs    []time.Duration // back to back
	paced    []time.Duration // with pauses
	results  []result
	copies   []copyResult
	idle     []idleResult
	verified []string
}

type result struct {
	workload workload
	targets  []*target
	samples  map[*target][]sample
}

type copyResult struct {
	name    string
	targets []*target
	samples map[*target][]copySample
}

type idleResult struct {
	target *target
	bytes  float64
}

// of returns the median over the rounds of one number, -1 if the target was not measured.
func (r *result) of(name string, get func(sample) float64) float64 {
	for _, t := range r.targets {
		if t.name == name {
			var values []float64
			for _, s := range r.samples[t] {
				values = append(values, get(s))
			}
			return median(values)
		}
	}
	return -1
}

// ratio returns the median over the rounds of how one target's number is to another's
// in the same round, so a slow minute of the machine counts for both; -1 if
// either was not measured.
func (r *result) ratio(name, base string, get func(sample) float64) float64 {
	return ratio(r.targets, r.samples, name, base, get)
}

func (r *copyResult) ratio(name, base string, get func(copySample) float64) float64 {
	return ratio(r.targets, r.samples, name, base, get)
}

func ratio[S any](targets []*target, samples map[*target][]S, name, base string, get func(S) float64) float64 {
	of := func(name string) []S {
		for _, t := range targets {
			if t.name == name {
				return samples[t]
			}
		}
		return nil
	}
	a, b := of(name), of(base)
	var values []float64
	for i := range min(len(a), len(b)) {
		if x, y := get(a[i]), get(b[i]); x >= 0 && y > 0 {
			values = append(values, x/y)
		}
	}
	if len(values) == 0 {
		return -1
	}
	return median(values)
}

func (r *copyResult) of(name string, get func(copySample) float64) float64 {
	for _, t := range r.targets {
		if t.name == name {
			var values []float64
			for _, s := range r.samples[t] {
				values = append(values, get(s))
			}
			return median(values)
		}
	}
	return -1
}

func (r *report) print() error {
	fmt.Fprintf(r.out, "# pgnotary bench\n\n%s UTC, %d cores, %s, rounds of %v: %d, medians\n", r.started.UTC().Format("2006-01-02 15:04"),
		runtime.NumCPU(), runtime.Version(), r.options.seconds, r.options.rounds)
	if len(r.syncs) > 0 {
		fmt.Fprintf(r.out, "\nfdatasync of 4000 bytes here, during this run: back to back p50 %.0f µs, p99 %.0f µs; %v apart p50 %.0f µs, p99 %.0f µs (n=%d each)\n",
			micros(quantile(r.syncs, 0.5)), micros(quantile(r.syncs, 0.99)), pause,
			micros(quantile(r.paced, 0.5)), micros(quantile(r.paced, 0.99)), len(r.syncs))
	}
	for _, t := range r.missing {
		fmt.Fprintf(r.out, "\nMISSING: %s: %s\n", t.name, t.missing)
	}
	for i := range r.results {
		r.table(&r.results[i])
	}
	for i := range r.copies {
		r.copyTable(&r.copies[i])
	}
	if len(r.idle) > 0 {
		fmt.Fprintf(r.out, "\n## %d idle sessions\n\n", r.options.idle)
		w := r.columns("target", "KiB/session")
		for _, i := range r.idle {
			row(w, i.target.name, fmt.Sprintf("%.1f", i.bytes/1024))
		}
		w.Flush()
	}
	for _, line := range r.verified {
		fmt.Fprintf(r.out, "\n%s\n", line)
	}
	return r.goals()
}

func (r *report) table(res *result) {
	fmt.Fprintf(r.out, "\n## %s\n\n", res.workload)
	heads := []string{"target", "tps", "×direct", "×haproxy", "×pgbouncer", "proxy µs/stmt", "×pgbouncer", "server µs/stmt", "B/stmt", "sealed B/stmt", "peak MiB"}
	one := res.workload.clients == 1
	if one {
		heads = append(heads, "p50 µs", "p99 µs", "+p50", "+p99", "+p50 over haproxy")
	}
	w := r.columns(heads...)
	tps := func(s sample) float64 { return s.tps }
	cpu := func(s sample) float64 { return s.proxyCPU }
	p50 := func(s sample) float64 { return s.p50 }
	p99 := func(s sample) float64 { return s.p99 }
	for _, t := range res.targets {
		n := t.name
		cells := []string{
			n, num(res.of(n, tps), 0),
			num(res.ratio(n, "direct", tps), 2), num(res.ratio(n, "haproxy", tps), 2), num(res.ratio(n, "pgbouncer", tps), 2),
			num(res.of(n, cpu), 1), num(res.ratio(n, "pgbouncer", cpu), 2),
			num(res.of(n, func(s sample) float64 { return s.serverCPU }), 1), num(res.of(n, func(s sample) float64 { return s.stored }), 1),
			num(res.of(n, func(s sample) float64 { return s.sealed }), 1),
			num(res.of(n, func(s sample) float64 { return float64(s.peak) / (1 << 20) }), 1),
		}
		if one {
			cells = append(cells, num(res.of(n, p50), 0), num(res.of(n, p99), 0), diff(res.of(n, p50), res.of("direct", p50)),
				diff(res.of(n, p99), res.of("direct", p99)), diff(res.of(n, p50), res.of("haproxy", p50)))
		}
		row(w, cells...)
	}
	w.Flush()
}

func (r *report) copyTable(res *copyResult) {
	fmt.Fprintf(r.out, "\n## %s, %.0f MB\n\n", res.name, float64(r.options.copySize)/1e6)
	w := r.columns("target", "MB/s", "×direct", "×haproxy", "proxy µs/MB", "peak MiB")
	rate := func(s copySample) float64 { return s.rate }
	for _, t := range res.targets {
		n := t.name
		row(w, n, num(res.of(n, rate), 0), num(res.ratio(n, "direct", rate), 2), num(res.ratio(n, "haproxy", rate), 2),
			num(res.of(n, func(s copySample) float64 { return s.proxyCPU }), 0),
			num(res.of(n, func(s copySample) float64 { return float64(s.peak) / (1 << 20) }), 1))
	}
	w.Flush()
}

func (r *report) columns(heads ...string) *tabwriter.Writer {
	w := tabwriter.NewWriter(r.out, 0, 0, 1, ' ', 0)
	row(w, heads...)
	rules := make([]string, len(heads))
	for i := range rules {
		rules[i] = "---"
	}
	row(w, rules...)
	return w
}

func row(w io.Writer, cells ...string) {
	fmt.Fprintf(w, "| %s\t|\n", strings.Join(cells, "\t| "))
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// num prints what was measured, and a dash for what does not apply.
func num(v float64, digits int) string {
	if v < 0 {
		return "-"
	}
	return fmt.Sprintf("%.*f", digits, v)
}

func diff(a, b float64) string {
	if a < 0 || b < 0 {
		return "-"
	}
	return fmt.Sprintf("%+.0f", a-b)
}

// verify stops pgnotary's processes and checks the logs they leave.
func verify(ctx context.Context, f *field, targets []*target) (lines []string) {
	for _, t := range targets {
		if t.data == "" {
			continue
		}
		progress("verify the log of %s", t.name)
		line := "ok"
		if err := t.proxy.stop(); err != nil {
			line = err.Error()
		}
		start := time.Now()
		out, err := exec.CommandContext(ctx, f.pgnotary, "verify", "--data", t.data, "--json").CombinedOutput()
		var answer struct {
			OK      bool
			Entries int64
		}
		if jsonErr := json.Unmarshal(out, &answer); err != nil || jsonErr != nil || !answer.OK {
			line = fmt.Sprintf("NOT OK: %v: %s", err, lastLine(out))
		}
		took := time.Since(start)
		lines = append(lines, fmt.Sprintf("log of %s: verify %s, %d entries in %.1f s", t.name, line, answer.Entries, took.Seconds()))
	}
	return lines
}
