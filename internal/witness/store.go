package witness

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/durable"
)

// maxKeys bounds the keys of one log: rotation needs two at a time, and Retire takes the older one away.
const maxKeys = 16

// maxState bounds the file of a log, in bytes.
const maxState = maxKeys*512 + checkpoint.MaxBytes

// maxEvidence bounds the pieces of evidence kept.
const maxEvidence = 1000

func (s *Server) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// Add registers a log by its key, or gives a log that is registered one key
// more. It is the only way a log becomes known: by an act of the
// witness's administrator, never by a request. What was cosigned so far stays.
func (s *Server) Add(vkey string) error {
	origin, err := checkpoint.LogOrigin(vkey)
	if err != nil {
		return fmt.Errorf("add log: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := log{origin: origin, root: sha256.Sum256(nil)}
	if l := s.logs[origin]; l != nil {
		next = *l
		next.vkeys = slices.Clone(l.vkeys)
	}
	if slices.Contains(next.vkeys, vkey) {
		return fmt.Errorf("add log: %s is there already", vkey)
	}
	if len(next.vkeys) >= maxKeys {
		return fmt.Errorf("add log: %s has %d keys already", origin, maxKeys)
	}
	next.vkeys = append(next.vkeys, vkey)
	if err := s.save(&next); err != nil {
		return fmt.Errorf("add log: %w", err)
	}
	s.logs[origin] = &next
	return nil
}

// save replaces the file of a log, durably.
func (s *Server) save(l *log) error {
	return durable.WriteFile(s.fs, s.path("log", OriginHash(l.origin)), l.format(), 0o600)
}

// format returns the file of a log: its keys, one a line, an empty line, and
// the latest checkpoint with its signature and ours, or nothing.
//
//	pgnotary/db1/3f2a91c0+84d8…+AQ…
//
//	pgnotary/db1/3f2a91c0
//	70000
//	sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=
//
//	— pgnotary/db1/3f2a91c0 hI2DJw…
//	— witness.example/w1 CMp+6L…
func (l *log) format() []byte {
	return append([]byte(strings.Join(l.vkeys, "\n")+"\n\n"), l.latest...)
}

// parseLog decodes the file of a log; it accepts exactly what format writes
// for a log whose checkpoint the witness with key ours cosigned.
func parseLog(b []byte, ours string) (*log, error) {
	head, latest, ok := bytes.Cut(b, []byte("\n\n"))
	if !ok || len(b) > maxState {
		return nil, errors.New("it is damaged: no empty line after the keys")
	}
	l := &log{vkeys: strings.Split(string(head), "\n"), root: sha256.Sum256(nil)}
	if len(l.vkeys) > maxKeys {
		return nil, errors.New("it is damaged: too many keys")
	}
	for i, v := range l.vkeys {
		origin, err := checkpoint.LogOrigin(v)
		if err != nil {
			return nil, fmt.Errorf("it is damaged: %w", err)
		}
		if i > 0 && origin != l.origin {
			return nil, errors.New("it is damaged: keys of different logs")
		}
		l.origin = origin
	}
	if len(latest) == 0 {
		return l, nil
	}
	c, _, err := checkpoint.OpenAny(latest, l.vkeys)
	if err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	if _, err := checkpoint.CosignatureTime(latest, ours); err != nil {
		return nil, fmt.Errorf("its checkpoint was not cosigned with this witness's key: %w", err)
	}
	l.latest, l.size, l.root = latest, c.Size, c.Root
	return l, nil
}

// load reads all that was saved.
func (s *Server) load() error {
	names, err := s.fs.List(s.path("log"))
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".tmp") {
			continue // a crash left it; the name without .tmp is whole
		}
		b, err := durable.ReadFile(s.fs, s.path("log", name), maxState)
		if err != nil {
			return err
		}
		l, err := parseLog(b, s.signer.VKey())
		if err != nil {
			return fmt.Errorf("%s: %w", s.path("log", name), err)
		}
		if name != OriginHash(l.origin) {
			return fmt.Errorf("%s is the file of another log, %s", s.path("log", name), l.origin)
		}
		s.logs[l.origin] = l
	}
	pieces, err := s.fs.List(s.path("evidence"))
	s.evidence = len(pieces)
	return err
}

// keep writes a request that was refused, with the checkpoint cosigned before:
// the request as it came, an empty line, and the checkpoint.
func (s *Server) keep(l *log, r *request) error {
	text := append(append(r.format(), '\n'), l.latest...)
	name := s.path("evidence", fmt.Sprintf("%x", sha256.Sum256(text)))
	if f, err := s.fs.Open(name); err == nil {
		return f.Close() // it came before
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if s.evidence >= maxEvidence {
		return fmt.Errorf("there are %d pieces already", s.evidence)
	}
	s.evidence++
	return durable.WriteFile(s.fs, name, text, 0o600)
}
