package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// pause is the time between two statements of one client, about.
const pause = 150 * time.Microsecond

// measureSync times n appends of 4000 bytes, each followed by fdatasync, into space that
// was filled with zeros before: what a committed batch costs on this disk. Many disks take
// longer after a pause, however short, so it says which.
func measureSync(dir string, n int, pause time.Duration) ([]time.Duration, error) {
	const size = 4000
	f, err := os.Create(filepath.Join(dir, "sync.tmp"))
	if err != nil {
		return nil, fmt.Errorf("measure fdatasync: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(make([]byte, n*size)); err != nil {
		return nil, fmt.Errorf("measure fdatasync: %w", err)
	}
	if err := f.Sync(); err != nil {
		return nil, fmt.Errorf("measure fdatasync: %w", err)
	}
	block := make([]byte, size)
	for i := range block {
		block[i] = byte(i)
	}
	times := make([]time.Duration, n)
	for i := range times {
		time.Sleep(pause)
		start := time.Now()
		if _, err := f.WriteAt(block, int64(i*size)); err != nil {
			return nil, fmt.Errorf("measure fdatasync: %w", err)
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return nil, fmt.Errorf("measure fdatasync: %w", err)
		}
		times[i] = time.Since(start)
	}
	return times, nil
}

// quantile returns the value below which the part q of the values lies; it sorts them.
func quantile[T ~int64 | ~float64](values []T, q float64) T {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(len(values)-1, int(q*float64(len(values))))]
}

func median[T ~int64 | ~float64](values []T) T {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	m := len(v) / 2
	if len(v)%2 == 1 {
		return v[m]
	}
	return (v[m-1] + v[m]) / 2
}
