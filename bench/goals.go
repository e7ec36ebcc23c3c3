package main

import (
	"fmt"
	"strings"
)

// goals prints which of the project's aims this run reached. It judges only what
// was measured.
func (r *report) goals() error {
	var lines []string
	judge := func(what string, got, limit float64, unit string, most bool) {
		word := "reached"
		if most && got > limit || !most && got < limit {
			word = "MISSED"
		}
		sign := map[bool]string{true: "≤", false: "≥"}[most]
		lines = append(lines, fmt.Sprintf("- %s: %s: %.2f%s (%s %.2f)", word, what, got, unit, sign, limit))
	}
	for i := range r.results {
		r.judge(&r.results[i], judge)
	}
	for i := range r.copies {
		res := &r.copies[i]
		rate := func(s copySample) float64 { return s.rate }
		for _, mode := range modes {
			if v := res.ratio(mode, "haproxy", rate); v > 0 {
				judge(fmt.Sprintf("%s, %s, throughput of haproxy's", res.name, mode), v, 0.9, " ×", false)
			}
		}
	}
	for _, i := range r.idle {
		for _, mode := range modes {
			if i.target.name == mode {
				judge("idle session, "+mode, i.bytes/1024, 8, " KiB", true)
			}
		}
	}
	if len(lines) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(r.out, "\n## Aims\n\n%s\n", strings.Join(lines, "\n"))
	return err
}

func (r *report) judge(res *result, judge func(what string, got, limit float64, unit string, most bool)) {
	w := res.workload
	if w.name == "tpcb" {
		sealed := res.of("before-forward", func(s sample) float64 { return s.sealed })
		if sealed > 0 {
			judge(fmt.Sprintf("%s, bytes per statement once sealed", w), sealed, 96, "", true)
		}
		if text := res.of("pgaudit", func(s sample) float64 { return s.stored }); sealed > 0 && text > 0 {
			told := res.of("pgaudit", func(s sample) float64 { return s.told })
			judge(fmt.Sprintf("%s, the same against pgaudit's text with user, database, program and client, as entries have", w), sealed/text, 0.5, " ×", true)
			judge(fmt.Sprintf("%s, the same against pgaudit's text without those", w), sealed/(text-told), 0.5, " ×", true)
		}
		return
	}
	cpu := func(s sample) float64 { return s.proxyCPU }
	tps := func(s sample) float64 { return s.tps }
	p50 := func(s sample) float64 { return s.p50 }
	for _, mode := range modes {
		limit := 1.25
		if mode == "before-forward" {
			limit = 1.5
		}
		if v := res.ratio(mode, "pgbouncer", cpu); v > 0 {
			judge(fmt.Sprintf("%s, %s, proxy CPU of pgbouncer's", w, mode), v, limit, " ×", true)
		}
	}
	const mode = "before-forward"
	if v := res.ratio(mode, "pgbouncer", tps); w.clients == 32 && v > 0 {
		judge(fmt.Sprintf("%s, %s, throughput of pgbouncer's", w, mode), v, 0.9, " ×", false)
	}
	if a, b := res.of(mode, p50), res.of("haproxy", p50); w.clients == 1 && a > 0 && b > 0 {
		judge(fmt.Sprintf("%s, %s, p50 over haproxy's against fdatasync after a pause", w, mode), a-b, micros(quantile(r.paced, 0.5)), " µs", true)
	}
}
