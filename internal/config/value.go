package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A Size is a number of bytes, written as a whole number with an optional
// unit: B, KiB, MiB, GiB, TiB, or KB, MB, GB, TB for powers of 1000.
type Size int64

// units are in the order in which suffixes have to be tried; binary marks
// those that String uses, largest first.
func sizeUnits() []struct {
	suffix string
	bytes  int64
	binary bool
} {
	return []struct {
		suffix string
		bytes  int64
		binary bool
	}{
		{"TiB", 1 << 40, true},
		{"GiB", 1 << 30, true},
		{"MiB", 1 << 20, true},
		{"KiB", 1 << 10, true},
		{"TB", 1e12, false},
		{"GB", 1e9, false},
		{"MB", 1e6, false},
		{"KB", 1e3, false},
		{"kB", 1e3, false},
		{"B", 1, false},
	}
}

// String returns the size in the largest binary unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits() {
		if u.binary && s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// Set reads a size as described at Size.
func (s *Size) Set(text string) error {
	number, factor := strings.TrimSpace(text), int64(1)
	for _, u := range sizeUnits() {
		if rest, ok := strings.CutSuffix(number, u.suffix); ok {
			number, factor = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 {
		return fmt.Errorf("%q is not a size such as 64MiB", text)
	}
	if n > math.MaxInt64/factor {
		return fmt.Errorf("%q is too large", text)
	}
	*s = Size(n * factor)
	return nil
}

// UnmarshalText reads a size from a configuration file.
func (s *Size) UnmarshalText(text []byte) error { return s.Set(string(text)) }

// Type names the kind of value in --help.
func (s *Size) Type() string { return "size" }

// A Duration is a time span as Go writes it, or a number of days of 24 hours: 90s, 15m, 24h, 90d.
// It is a struct so that a bare number in a file, whose unit nobody knows, is refused.
type Duration struct{ time.Duration }

const day = 24 * time.Hour

// String returns the shortest form that Set reads.
func (d Duration) String() string {
	if days := d.Duration / day; days > 1 && d.Duration == days*day {
		return fmt.Sprintf("%dd", days)
	}
	s := d.Duration.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// Set reads a time span.
func (d *Duration) Set(text string) error {
	v, err := time.ParseDuration(text)
	if digits, ok := strings.CutSuffix(text, "d"); ok {
		var days uint64
		days, err = strconv.ParseUint(digits, 10, 16)
		v = time.Duration(days) * day
	}
	if err != nil {
		return fmt.Errorf("%q is not a time span such as 15m, 24h or 90d", text)
	}
	d.Duration = v
	return nil
}

// UnmarshalText reads a time span from a configuration file.
func (d *Duration) UnmarshalText(text []byte) error { return d.Set(string(text)) }

// Type names the kind of value in --help.
func (d *Duration) Type() string { return "duration" }

// textValue is a Value over a string.
type textValue struct {
	p    *string
	kind string
}

func text(p *string, kind string) Value { return textValue{p, kind} }

func (v textValue) String() string {
	if v.p == nil { // a zero value, which flag libraries make to compare with
		return ""
	}
	return *v.p
}
func (v textValue) Set(s string) error { *v.p = s; return nil }
func (v textValue) Type() string       { return v.kind }

// count is a Value over an int.
type count int

func (c *count) String() string { return strconv.Itoa(int(*c)) }
func (c *count) Type() string   { return "count" }
func (c *count) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil {
		return fmt.Errorf("%q is not a number", s)
	}
	*c = count(n)
	return nil
}

// A flag is a setting that is on or off, in TOML and on the command line true or false.
type flag bool

func (f *flag) String() string { return strconv.FormatBool(bool(*f)) }

func (f *flag) Set(text string) error {
	switch text {
	case "true", "false":
		*f = text == "true"
		return nil
	}
	return fmt.Errorf("%q is neither true nor false", text)
}

func (f *flag) Type() string { return "bool" }
