package config

import (
	"testing"
	"time"
)

func TestSize(t *testing.T) {
	tests := []struct {
		in    string
		bytes int64
		out   string // how it is printed; empty means an error
	}{
		{"0", 0, "0B"},
		{"1", 1, "1B"},
		{"1000B", 1000, "1000B"},
		{"64MiB", 64 << 20, "64MiB"},
		{"67108864", 64 << 20, "64MiB"},
		{" 2 GiB ", 2 << 30, "2GiB"},
		{"1TiB", 1 << 40, "1TiB"},
		{"5KB", 5000, "5000B"},
		{"3kB", 3000, "3000B"},
		{"1.5GiB", 0, ""},
		{"-1", 0, ""},
		{"MiB", 0, ""},
		{"", 0, ""},
		{"9223372036854775807TiB", 0, ""},
		{"8388608TiB", 0, ""},
		{"8388607TiB", 8388607 << 40, "8388607TiB"},
	}
	for _, tt := range tests {
		var s Size
		err := s.Set(tt.in)
		if (err == nil) != (tt.out != "") {
			t.Errorf("Size.Set(%q) = %v, want an error: %t", tt.in, err, tt.out == "")
			continue
		}
		if err == nil && (int64(s) != tt.bytes || s.String() != tt.out) {
			t.Errorf("Size.Set(%q) gives %d, printed %q, want %d, %q", tt.in, s, s, tt.bytes, tt.out)
		}
	}
}

func TestDuration(t *testing.T) {
	tests := []struct {
		in   string
		want time.Duration
		out  string
	}{
		{"24h", 24 * time.Hour, "24h"},
		{"90m", 90 * time.Minute, "1h30m"},
		{"1h0m5s", time.Hour + 5*time.Second, "1h0m5s"},
		{"10m", 10 * time.Minute, "10m"},
		{"250ms", 250 * time.Millisecond, "250ms"},
		{"0", 0, "0s"},
		{"5", 0, ""},
		{"90d", 90 * 24 * time.Hour, "90d"},
		{"1d", 24 * time.Hour, "24h"},
		{"2160h", 90 * 24 * time.Hour, "90d"},
		{"65535d", 65535 * 24 * time.Hour, "65535d"},
		{"65536d", 0, ""},
		{"-1d", 0, ""},
		{"1.5d", 0, ""},
		{"d", 0, ""},
	}
	for _, tt := range tests {
		var d Duration
		err := d.Set(tt.in)
		if (err == nil) != (tt.out != "") {
			t.Errorf("Duration.Set(%q) = %v, want an error: %t", tt.in, err, tt.out == "")
			continue
		}
		if err == nil && (d.Duration != tt.want || d.String() != tt.out) {
			t.Errorf("Duration.Set(%q) gives %d, printed %q, want %d, %q", tt.in, d.Duration, d, tt.want, tt.out)
		}
	}
}
