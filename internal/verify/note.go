package verify

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// maxSmall bounds log.json, checkpoints and the like, in bytes.
const maxSmall = 64 << 10

// maxEvidence bounds a file of evidence: two checkpoints in JSON.
const maxEvidence = 16 * maxSmall

// readSmall reads a file that must be small.
func readSmall(name string) ([]byte, error) { return readUpTo(name, maxSmall) }

// readUpTo reads a file of up to limit bytes.
func readUpTo(name string, limit int64) ([]byte, error) {
	f, err := openPlain(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// One byte more than any valid one: the parsers refuse that.
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// openPlain opens a file for reading. It refuses what is none, and does not wait at a FIFO.
func openPlain(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a plain file", name)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// logFile is log.json.
type logFile struct {
	origin, vkey string
	hash         string // SHA-256 of the file, hex
}

// parseLogFile accepts exactly the canonical form (docs/format/checkpoint.md).
func parseLogFile(b []byte) (logFile, error) {
	var j struct {
		Format  int    `json:"format"`
		Origin  string `json:"origin"`
		VKey    string `json:"vkey"`
		Created string `json:"created"`
	}
	if err := json.Unmarshal(b, &j); err != nil {
		return logFile{}, fmt.Errorf("is malformed: %w", err)
	}
	var again bytes.Buffer
	enc := json.NewEncoder(&again) // ends in a line feed
	enc.SetEscapeHTML(false)
	if err := enc.Encode(j); err != nil || !bytes.Equal(again.Bytes(), b) {
		return logFile{}, errors.New("is not in canonical form")
	}
	if j.Format != 1 {
		return logFile{}, fmt.Errorf("is of format %d, this program knows 1", j.Format)
	}
	const nine = "2006-01-02T15:04:05.000000000Z"
	if t, err := time.Parse(nine, j.Created); err != nil || t.Format(nine) != j.Created {
		return logFile{}, fmt.Errorf("has a malformed time %q", j.Created)
	}
	v, err := note.NewVerifier(j.VKey)
	if err != nil {
		return logFile{}, fmt.Errorf("has a malformed key: %w", err)
	}
	if v.Name() != j.Origin {
		return logFile{}, fmt.Errorf("has the key of %q and the origin %q", v.Name(), j.Origin)
	}
	return logFile{origin: j.Origin, vkey: j.VKey}, nil
}

// signedNote is a checkpoint whose signature was checked.
type signedNote struct {
	size   int64
	root   hash
	others int // signatures of other keys, not checked
}

// openNote checks a signed checkpoint: three lines of text, the first the name
// of the key, signed once by that key, everything spelled in the only way
// it can be. Lines of other keys are only checked for their spelling.
func openNote(signed []byte, vkey string) (signedNote, error) {
	var s signedNote
	if len(signed) > maxSmall {
		return s, errors.New("is larger than any checkpoint")
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return s, fmt.Errorf("the key is malformed: %w", err)
	}
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil {
		return s, fmt.Errorf("is not signed with the log's key: %w", err)
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return s, errors.New("is not of three lines")
	}
	if lines[0] != v.Name() {
		return s, fmt.Errorf("is of log %q, want %q", lines[0], v.Name())
	}
	s.size, err = strconv.ParseInt(lines[1], 10, 64)
	if err != nil || s.size < 0 || s.size > maxIndex || strconv.FormatInt(s.size, 10) != lines[1] {
		return s, fmt.Errorf("has the malformed size %.40q", lines[1])
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != len(s.root) {
		return s, fmt.Errorf("has the malformed root %.80q", lines[2])
	}
	s.root = hash(root)
	// note.Open is lenient with base64 and drops repeated lines. Put together
	// again, in the order they were in, the lines must give the same bytes.
	_, rest, _ := strings.Cut(string(signed), "\n\n")
	seen := map[string]bool{}
	for line := range strings.Lines(rest) {
		name, b64, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(line, "— "), "\n"), " ")
		raw, err := base64.StdEncoding.Strict().DecodeString(b64)
		if err != nil || len(raw) < 5 {
			return s, errors.New("has a malformed signature line")
		}
		if key := name + "+" + string(raw[:4]); seen[key] {
			return s, errors.New("has two signatures of one key")
		} else {
			seen[key] = true
		}
		if "— "+name+" "+base64.StdEncoding.EncodeToString(raw)+"\n" != line {
			return s, errors.New("has a malformed signature line")
		}
	}
	s.others = len(seen) - 1
	return s, nil
}
