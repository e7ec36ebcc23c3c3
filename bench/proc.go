package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A process is a server under test: started by us, ended by us, and by the
// kernel should we die first (main keeps its thread, so the death signal is reliable).
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

func startProcess(log string, cred *syscall.Credential, name string, args ...string) (*process, error) {
	w, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer w.Close()
	p := &process{cmd: exec.Command(name, args...), log: log, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred, Pdeathsig: syscall.SIGTERM, Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // the exit status is of no interest: an early end shows as a failed run
		close(p.done)
	}()
	return p, nil
}

// waitFor calls ready until it answers true, the process ends or ten seconds are over.
func (p *process) waitFor(ready func() bool) error {
	deadline := time.Now().Add(10 * time.Second)
	for !ready() {
		select {
		case <-p.done:
			text, _ := os.ReadFile(p.log)
			return fmt.Errorf("%s ended: %s", filepath.Base(p.cmd.Path), tail(text))
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not ready after 10 s", filepath.Base(p.cmd.Path))
		}
	}
	return nil
}

func (p *process) stop() error {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop %s: %w", p.cmd.Path, err)
		}
		select {
		case <-p.done:
			return nil
		case <-time.After(15 * time.Second):
		}
	}
	return fmt.Errorf("%s does not end", p.cmd.Path)
}

// tail returns the end of a log on one line.
func tail(text []byte) string {
	text = text[max(0, len(text)-300):]
	return string(bytes.ReplaceAll(bytes.TrimSpace(text), []byte("\n"), []byte(" / ")))
}

func lastLine(text []byte) string {
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(lines[len(lines)-1])
}

// clockTick is the unit of CPU times in /proc, the same on every Linux Go runs on.
const clockTick = 10 * time.Millisecond

// cpuTime returns the CPU time a process has used: all its threads, those that
// have ended included, and with children also the processes below it,
// living or waited for. The kernel rounds to 10 ms.
func cpuTime(pid int, children bool) (time.Duration, error) {
	f, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	last := 15 // utime, stime
	if children {
		last = 17 // cutime, cstime: of the children that were waited for
	}
	var ticks int64
	for _, s := range f[14-1 : last] {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read CPU time: %w", err)
		}
		ticks += n
	}
	total := time.Duration(ticks) * clockTick
	if !children {
		return total, nil
	}
	kids, err := childrenOf(pid)
	if err != nil {
		return 0, err
	}
	for _, kid := range kids {
		t, err := cpuTime(kid, true)
		if err != nil {
			continue // it has ended meanwhile
		}
		total += t
	}
	return total, nil
}

// statFields returns the fields of /proc/PID/stat, field n of proc(5) at n-1.
func statFields(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, fmt.Errorf("read CPU time: %w", err)
	}
	// The command's name is in parentheses and may hold anything.
	i := bytes.LastIndexByte(text, ')')
	f := append([]string{"", ""}, strings.Fields(string(text[i+1:]))...)
	if i < 0 || len(f) < 17 {
		return nil, fmt.Errorf("read CPU time of %d: bad stat line", pid)
	}
	return f, nil
}

func childrenOf(pid int) ([]int, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil, err
	}
	var kids []int
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for _, s := range strings.Fields(string(text)) {
			if n, err := strconv.Atoi(s); err == nil {
				kids = append(kids, n)
			}
		}
	}
	return kids, nil
}

// memory returns a field of /proc/PID/status in bytes: VmHWM is the peak of the
// resident memory, VmRSS what it is now.
func memory(pid int, field string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			var kib int64
			if _, err := fmt.Sscanf(rest, "%d kB", &kib); err != nil {
				return 0, fmt.Errorf("read memory: %w", err)
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("read memory: no %s", field)
}

// resetPeak sets the peak of a process's memory to what it has now.
func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// sealedBytes has pgnotary end its journal file, waits until all of it is
// sealed, and returns the bytes of segments and tiles. For other targets it is 0.
func (t *target) sealedBytes(ctx context.Context) (int64, error) {
	if t.data == "" {
		return 0, nil
	}
	journal := filepath.Join(t.data, "journal")
	before, err := os.ReadDir(journal)
	if err != nil {
		return 0, fmt.Errorf("wait for sealing: %w", err)
	}
	if err := t.proxy.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		return 0, fmt.Errorf("ask for sealing: %w", err)
	}
	for {
		now, err := os.ReadDir(journal)
		if err != nil {
			return 0, fmt.Errorf("wait for sealing: %w", err)
		}
		if len(now) == 1 && (len(before) == 0 || now[0].Name() > before[len(before)-1].Name()) {
			break
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	var total int64
	for _, part := range []string{"segment", "tile"} {
		n, err := usedBytes(filepath.Join(t.data, part))
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// usedBytes returns the bytes a log directory holds. The space that the journal has
// prepared ahead, zeros at the end of a file, is not counted.
func usedBytes(dir string) (int64, error) {
	var total int64
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n, err := usedLength(path)
		total += n
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("measure %s: %w", dir, err)
	}
	return total, nil
}

func usedLength(path string) (int64, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil // replaced while we looked
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || filepath.Ext(path) != ".journal" {
		return end, err
	}
	buf := make([]byte, 1<<20)
	for end > 0 {
		n := min(end, int64(len(buf)))
		if _, err := f.ReadAt(buf[:n], end-n); err != nil {
			return 0, err
		}
		if used := len(bytes.TrimRight(buf[:n], "\x00")); used > 0 {
			return end - n + int64(used), nil
		}
		end -= n
	}
	return 0, nil
}

// inBraces returns the bytes of what stands in braces at the beginning of the lines of
// a server's log, with the braces and the space behind.
func inBraces(r io.Reader) (n int64, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Bytes()
		from := bytes.Index(line, []byte("] {"))
		if from < 0 || line[0] == '\t' { // further lines of a statement begin with a tab
			continue
		}
		if to := bytes.Index(line[from:], []byte("} ")); to > 0 {
			n += int64(to)
		}
	}
	return n, lines.Err()
}
