package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

const (
	maxFile     = 1 << 20 // bounds what is read as a configuration file, in bytes
	maxMistakes = 100     // bounds how many mistakes in a file are told
)

// A FileError is a configuration file that cannot be used. Error is one line
// with the place; Excerpt shows that line with a caret under the fault.
type FileError struct {
	Path    string
	Line    int // from 1
	Column  int // from 1
	What    string
	Excerpt string
	Similar string // a known key that looks like the unknown one, or empty
}

func (e *FileError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.Path, e.Line, e.Column, e.What)
}

// ReadFile puts the settings in the TOML file at path into c and returns the
// keys it set. Errors about the content are *FileError, all that there are,
// joined; then c has what the rest of the file says.
func (c *Config) ReadFile(path string) (keys []string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("read configuration: %s is larger than 1 MiB", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return c.decode(path, data)
}

// decode is ReadFile on content already read. Where the file is no TOML c is
// unchanged.
func (c *Config) decode(path string, data []byte) ([]string, error) {
	var present map[string]any
	if err := toml.Unmarshal(data, &present); err != nil {
		return nil, errors.Join(c.fileErrors(path, data, err)...)
	}
	var next Config
	var mistakes []error
	// The decoder stops at the first value that is not right. It reads the file
	// again without that line, until it is content.
	for rest := data; ; {
		next = *c
		next.Captures = nil
		dec := toml.NewDecoder(bytes.NewReader(rest))
		dec.DisallowUnknownFields()
		err := dec.Decode(&next)
		if err == nil {
			break
		}
		found := next.fileErrors(path, rest, err)
		mistakes = append(mistakes, found...)
		if _, ok := errors.AsType[*toml.StrictMissingError](err); ok {
			break // looked at last, and all of them at once
		}
		bad, ok := errors.AsType[*FileError](found[0])
		if !ok || len(mistakes) >= maxMistakes {
			return nil, errors.Join(mistakes...)
		}
		lines := bytes.Split(rest, []byte("\n"))
		lines[bad.Line-1] = nil
		rest = bytes.Join(lines, []byte("\n"))
		if toml.Unmarshal(rest, &present) != nil { // the value had several lines
			return nil, errors.Join(mistakes...)
		}
	}
	var keys []string
	for _, f := range next.Fields() {
		if _, ok := present[f.Key]; ok {
			keys = append(keys, f.Key)
		}
	}
	*c = next
	return keys, errors.Join(mistakes...)
}

// fileErrors says where in the file the decoder stopped, and names each key it
// does not know. There is at least one.
func (c *Config) fileErrors(path string, data []byte, err error) []error {
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok && len(strict.Errors) > 0 {
		var list []error
		for _, missing := range strict.Errors[:min(len(strict.Errors), maxMistakes)] {
			key := strings.Join(missing.Key(), ".")
			line, column := missing.Position()
			e := newFileError(path, data, line, column, fmt.Sprintf("unknown key %q", key))
			e.Similar = c.similar(key)
			list = append(list, e)
		}
		return list
	}
	if bad, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, column := bad.Position()
		return []error{newFileError(path, data, line, column, plainMessage(bad))}
	}
	// The decoder gives no place for a value that is no string and that
	// Set refused, such as a time span without its unit.
	for i, line := range strings.Split(string(data), "\n") {
		key, value, ok := strings.Cut(line, "=")
		known := slices.ContainsFunc(c.Fields(), func(f Field) bool { return f.Key == strings.TrimSpace(key) })
		if ok && known && c.Set(strings.TrimSpace(key), strings.TrimSpace(value)) != nil {
			column := len(line) - len(strings.TrimLeft(value, " \t")) + 1
			return []error{newFileError(path, data, i+1, column, err.Error())}
		}
	}
	return []error{fmt.Errorf("read configuration %s: %w", path, err)}
}

// plainMessage is the decoder's message without the names of Go types.
func plainMessage(bad *toml.DecodeError) string {
	msg := strings.TrimPrefix(bad.Error(), "toml: ")
	got, ok := strings.CutPrefix(msg, "cannot decode TOML ")
	if !ok {
		return msg
	}
	got, want, ok := strings.Cut(got, " into struct field ")
	if !ok {
		return msg
	}
	article := "a string"
	switch {
	case strings.HasSuffix(want, " of type int"):
		article = "a number"
	case strings.HasSuffix(want, " of type bool"):
		article = "true or false"
	}
	return fmt.Sprintf("found %s where %s belongs", got, article)
}

func newFileError(path string, data []byte, line, column int, what string) *FileError {
	e := &FileError{Path: path, Line: line, Column: column, What: what}
	lines := strings.Split(string(data), "\n")
	if line >= 1 && line <= len(lines) && column >= 1 {
		number := strconv.Itoa(line)
		text := strings.ReplaceAll(strings.TrimRight(lines[line-1], "\r"), "\t", " ")
		e.Excerpt = fmt.Sprintf("  %s | %s\n  %*s | %*s", number, text, len(number), "", column, "^")
	}
	return e
}

// similar returns the known key nearest to key, if one is near.
func (c *Config) similar(key string) string {
	best, bestDistance := "", 3
	for _, f := range c.Fields() {
		if d := distance(key, f.Key); d < bestDistance {
			best, bestDistance = f.Key, d
		}
	}
	return best
}

// distance is the number of single-letter edits between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = slices.Min([]int{row[j] + 1, row[j+1] + 1, replace})
		}
	}
	return row[len(b)]
}
