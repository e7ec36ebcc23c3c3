package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestParseFlags(t *testing.T) {
	tests := []struct {
		name string
		args string
		want string // part of the error; empty if it parses
	}{
		{"nothing", "", ""},
		{"parts and clients", "-run simple,copy,1,32", ""},
		{"unknown part", "-run simpel", "simpel"},
		{"too many sessions", "-idle 1001", "-idle"},
		{"no rounds", "-rounds 0", "-rounds"},
		{"argument", "simple", "unexpected"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, err := parseFlags(strings.Fields(tt.args))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("parseFlags(%q) = %+v, %v, want an error with %q", tt.args, o, err, tt.want)
			}
		})
	}
	o, err := parseFlags([]string{"-run", "simple,32", "-targets", "pgnotary"})
	if err != nil {
		t.Fatal(err)
	}
	if ws := workloads(o); len(ws) != 1 || ws[0].String() != "simple, 32 clients" {
		t.Errorf("workloads = %v", ws)
	}
	if !o.wantsTarget("async") || o.wantsTarget("haproxy") || o.wants("copy") {
		t.Errorf("options = %+v", o)
	}
}

func TestUsedBytes(t *testing.T) {
	dir := t.TempDir()
	zeros := make([]byte, 3<<20)
	files := map[string][]byte{
		"journal/a.journal": append([]byte("abc\x00d"), zeros...),
		"journal/b.journal": zeros,
		"journal/c.journal": append(append([]byte{}, zeros...), 1),
		"checkpoint":        {'x', 0, 0},
	}
	if err := os.Mkdir(filepath.Join(dir, "journal"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := usedBytes(dir); err != nil || got != 5+0+3<<20+1+3 {
		t.Errorf("usedBytes = %d, %v, want %d", got, err, 5+0+3<<20+1+3)
	}
}

func TestCPUTimeAndMemory(t *testing.T) {
	before, err := cpuTime(os.Getpid(), true)
	if err != nil {
		t.Fatal(err)
	}
	var used syscall.Rusage // the kernel's own account of what is burnt here
	for used.Utime.Nano()+used.Stime.Nano() < int64(before+100*time.Millisecond) {
		bytes.Repeat([]byte{1}, 1000)
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
			t.Fatal(err)
		}
	}
	after, err := cpuTime(os.Getpid(), true)
	if err != nil || after-before < 80*time.Millisecond { // it counts in steps of 10 ms, twice
		t.Errorf("cpuTime grew by %v, %v, want about 100 ms", after-before, err)
	}
	if n, err := memory(os.Getpid(), "VmHWM"); err != nil || n < 1<<20 {
		t.Errorf("memory = %d, %v", n, err)
	}
}

func TestQuantileMedian(t *testing.T) {
	if got := median([]float64{3, 1, 2}); got != 2 {
		t.Errorf("median = %v, want 2", got)
	}
	if got := median([]float64{4, 1, 2, 3}); got != 2.5 {
		t.Errorf("median = %v, want 2.5", got)
	}
	if got := quantile([]float64{5, 4, 3, 2, 1}, 0.99); got != 5 {
		t.Errorf("quantile = %v, want 5", got)
	}
}

// TestRatio: ratios are made within a round, and only of what was measured in it.
func TestRatio(t *testing.T) {
	a, b, missing := &target{name: "a"}, &target{name: "b"}, &target{name: "missing"}
	r := result{targets: []*target{a, b, missing}, samples: map[*target][]sample{
		a: {{tps: 10}, {tps: 60}, {tps: 90}, {tps: 1}}, // medians: 60 of 30
		b: {{tps: 20}, {tps: 30}, {tps: 100}},
	}}
	tps := func(s sample) float64 { return s.tps }
	if got := r.ratio("a", "b", tps); got != 0.9 {
		t.Errorf("ratio = %v, want 0.9", got)
	}
	for _, name := range []string{"missing", "c"} {
		if got := r.ratio(name, "b", tps); got != -1 {
			t.Errorf("ratio of %s = %v, want -1", name, got)
		}
	}
}

func TestInBraces(t *testing.T) {
	log := "2026-11-26 10:00:00.000 UTC [12] {postgres@postgres pgbench [local]} LOG:  AUDIT: {x} \n" +
		"2026-11-26 10:00:00.000 UTC [12] {@  } LOG:  ready\n\tsecond line [1] {not this} \n\n" +
		"2026-11-26 10:00:00.000 UTC [12] {cut off"
	if n, err := inBraces(strings.NewReader(log)); err != nil || n != int64(len("{postgres@postgres pgbench [local]} {@  } ")) {
		t.Errorf("%d, %v", n, err)
	}
}
