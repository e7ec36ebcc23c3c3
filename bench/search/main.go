// Command search measures searches: over a log that it writes, selective ones,
// which indexes serve, and ones that read everything, beside ripgrep over the same
// statements as JSON lines.
//
//	go run ./bench/search -entries 10000000
//	go run ./bench/search -dir /data/bench -keep      again over the same log
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pgnotary/pgnotary/internal/query"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	entries := flag.Int64("entries", 2_000_000, "about how many `entries` the log has; two a statement")
	dir := flag.String("dir", "", "`directory` for log and output (default: that of temporary files)")
	keep := flag.Bool("keep", false, "leave the directory, and use the log that is in it")
	binary := flag.String("pgnotary", "", "`program` to measure instead of the one built from here")
	rounds := flag.Int("rounds", 5, "rounds; medians are shown")
	only := flag.String("only", "", "only searches whose name contains `WORD`")
	flag.Parse()
	if err := run(ctx, *entries, *dir, *keep, *binary, *rounds, *only); err != nil {
		fmt.Fprintln(os.Stderr, "search:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, entries int64, dir string, keep bool, binary string, rounds int, only string) (err error) {
	if !keep {
		if dir, err = os.MkdirTemp(dir, "pgnotary-search-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	} else if dir == "" {
		return errors.New("-keep needs -dir")
	}
	if binary == "" {
		binary = filepath.Join(dir, "pgnotary")
		build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/pgnotary")
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build does: it starts some milliseconds sooner
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build: %w\n%s", err, out)
		}
	}
	data := filepath.Join(dir, "data")
	began := time.Now()
	if err := generate(ctx, data, entries); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	b := &bench{ctx: ctx, binary: binary, data: data, rounds: rounds, only: only}
	if err := b.describe(time.Since(began)); err != nil {
		return err
	}
	if err := b.selective(); err != nil {
		return err
	}
	return b.everything(filepath.Join(dir, "statements.jsonl"))
}

type bench struct {
	ctx          context.Context
	binary, data string
	rounds       int
	only         string
	size         int64 // entries
}

// describe prints what is searched.
func (b *bench) describe(elapsed time.Duration) error {
	l, err := query.Open(b.data)
	if err != nil {
		return err
	}
	if b.size, err = l.Size(); err != nil {
		return err
	}
	fmt.Printf("%d entries, written and indexed in %v", b.size, elapsed.Round(time.Second))
	for _, part := range []string{"journal", "segment", "index"} {
		var bytes int64
		files, err := os.ReadDir(filepath.Join(b.data, part))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for _, f := range files {
			info, err := f.Info()
			if err != nil {
				return err
			}
			bytes += info.Size()
		}
		fmt.Printf("; %s %.1f MB in %d files", part, float64(bytes)/1e6, len(files))
	}
	fmt.Print("\n\n")
	return nil
}

// A sample is what one run of a program took, and gave.
type sample struct {
	wall, cpu    time.Duration
	lines, bytes int64
}

func (b *bench) measure(name string, args ...string) (sample, error) {
	cmd := exec.CommandContext(b.ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return sample{}, err
	}
	var s sample
	buf := make([]byte, 1<<20)
	for {
		n, err := out.Read(buf)
		s.bytes += int64(n)
		s.lines += int64(bytes.Count(buf[:n], []byte("\n")))
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return s, err
		}
	}
	err = cmd.Wait()
	s.wall, s.cpu = time.Since(began), cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()
	if err != nil && (s.lines > 0 || cmd.ProcessState.ExitCode() != 1) { // ripgrep's for nothing found
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	} else {
		err = nil
	}
	return s, err
}

// median runs a program several times.
func (b *bench) median(rounds int, name string, args ...string) (sample, error) {
	all := make([]sample, rounds)
	for i := range all {
		var err error
		if all[i], err = b.measure(name, args...); err != nil {
			return sample{}, err
		}
	}
	m := all[0]
	slices.SortFunc(all, func(a, b sample) int { return cmp.Compare(a.wall, b.wall) })
	m.wall = all[rounds/2].wall
	slices.SortFunc(all, func(a, b sample) int { return cmp.Compare(a.cpu, b.cpu) })
	m.cpu = all[rounds/2].cpu
	return m, nil
}

func (b *bench) search(words ...string) []string {
	return append([]string{"search", "--json", "--data", b.data}, words...)
}

// selective runs searches that find little.
func (b *bench) selective() error {
	fmt.Println("| search | found | wall ms | CPU ms |\n| --- | ---: | ---: | ---: |")
	first, err := b.measure(b.binary, b.search("--relation", rareRelation, "--limit", "1")...)
	if err != nil || first.lines == 0 {
		return errors.Join(err, errors.New("the rare relation is not found"))
	}
	for _, words := range [][]string{
		{"--user", "nobody"},
		{"--user", rareUser},
		{"--relation", rareRelation},
		{"--class", "DDL"},
		{"--kind", "violation"},
		{"--client", "10.9.9.9"},
		{"--sqlstate", rareState},
		{"--sqlstate", "42"},
		{"--min-duration", rareDuration.String()},
		{"--text", rareText},
		{"--param", rareParam},
		{"--relation", rareRelation, "--user", "user7"},
		{"--session", "0000000000000007", "--sqlstate", "23505"},
		{"--user", "user7", "--limit", "20"},
		{"--since", "1s"},
	} {
		if name := strings.Join(words, " "); strings.Contains(name, b.only) {
			s, err := b.median(b.rounds, b.binary, b.search(words...)...)
			if err != nil {
				return err
			}
			fmt.Printf("| `%s` | %d | %.0f | %.0f |\n", name, s.lines, ms(s.wall), ms(s.cpu))
		}
	}
	s, err := b.median(b.rounds, b.binary, "version")
	fmt.Printf("| (start of the program) | | %.0f | %.0f |\n\n", ms(s.wall), ms(s.cpu))
	return err
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// everything runs searches that read or print everything, and ripgrep over
// what the first of them prints.
func (b *bench) everything(lines string) error {
	if !strings.Contains("everything", b.only) {
		return nil
	}
	f, err := os.Create(lines)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(b.ctx, b.binary, b.search()...)
	cmd.Stdout, cmd.Stderr = f, os.Stderr
	if err := errors.Join(cmd.Run(), f.Close()); err != nil {
		return err
	}
	info, err := os.Stat(lines)
	if err != nil {
		return err
	}
	rg, err := exec.LookPath("rg")
	if err != nil {
		return err // apt-get install ripgrep
	}
	total := float64(info.Size()) / 1e6
	fmt.Printf("%.0f MB as JSON lines\n\n| what | lines | wall s | CPU s | MB/s | thousand entries/s |\n| --- | ---: | ---: | ---: | ---: | ---: |\n", total)
	for _, c := range []struct {
		what string
		args []string
	}{
		{"pgnotary, all", append([]string{b.binary}, b.search()...)},
		{"ripgrep, all", []string{rg, "index", lines}},
		{"pgnotary, a text in none", append([]string{b.binary}, b.search("--text", "gibtsnicht")...)},
		{"ripgrep, a text in none", []string{rg, "gibtsnicht", lines}},
		{"pgnotary, one database of eight", append([]string{b.binary}, b.search("--database", "db3")...)},
		{"ripgrep, one database of eight", []string{rg, `"database":"db3"`, lines}},
		{"pgnotary, a regular expression", append([]string{b.binary}, b.search("--regex", "t1[0-9]9 .*n[0-9a-f]*77")...)},
		{"ripgrep, a regular expression", []string{rg, "t1[0-9]9 .*n[0-9a-f]*77", lines}},
	} {
		s, err := b.median(min(3, b.rounds), c.args[0], c.args[1:]...)
		if err != nil {
			return err
		}
		fmt.Printf("| %s | %d | %.2f | %.2f | %.0f | %.0f |\n", c.what, s.lines, s.wall.Seconds(), s.cpu.Seconds(), total/s.wall.Seconds(), float64(b.size)/1e3/s.wall.Seconds())
	}
	return nil
}
