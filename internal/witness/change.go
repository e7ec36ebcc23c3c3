package witness

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/durable"
)

// A Change is one to the keys that a witness goes by, by its administrator.
// While a server runs, it reaches it as a file in DIR/request: who may write there is the
// administrator, since the directory is its owner's alone.
type Change struct {
	Verb string // ChangeAdd or ChangeRetire
	VKey string
}

// Verbs of a Change.
const (
	ChangeAdd    = "add"
	ChangeRetire = "retire"
)

const (
	// changesEvery is how often a server looks for changes.
	changesEvery = 300 * time.Millisecond
	// maxChange bounds the file of a change, or of its answer, in bytes.
	maxChange = 4 << 10
)

// Do makes a change.
func (s *Server) Do(c Change) error {
	switch c.Verb {
	case ChangeAdd:
		return s.Add(c.VKey)
	case ChangeRetire:
		return s.Retire(c.VKey)
	}
	return fmt.Errorf("unknown change %.20q", c.Verb)
}

// Retire takes a key away from a log: what it signs is not cosigned any more.
// One key stays, and the one that the latest checkpoint is signed with, since that would
// not be known for the log's own then.
func (s *Server) Retire(vkey string) error {
	origin, err := checkpoint.LogOrigin(vkey)
	if err != nil {
		return fmt.Errorf("retire key: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.logs[origin]
	if l == nil || !slices.Contains(l.vkeys, vkey) {
		return fmt.Errorf("retire key: %s is not there", vkey)
	}
	next := *l
	next.vkeys = slices.DeleteFunc(slices.Clone(l.vkeys), func(k string) bool { return k == vkey })
	if len(next.vkeys) == 0 {
		return fmt.Errorf("retire key: it is the only one of %s: add the next one before", origin)
	}
	if l.latest != nil {
		if _, _, err := checkpoint.OpenAny(l.latest, next.vkeys); err != nil {
			return fmt.Errorf("retire key: the latest checkpoint of %s, over %d entries, is signed with it: wait until one is cosigned that the next key signed", origin, l.size)
		}
	}
	if err := s.save(&next); err != nil {
		return fmt.Errorf("retire key: %w", err)
	}
	s.logs[origin] = &next
	return nil
}

// Changes makes the changes that are asked for in DIR/request, until ctx ends.
func (s *Server) Changes(ctx context.Context) {
	look := time.NewTicker(changesEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			s.changes()
		}
	}
}

func (s *Server) changes() {
	names, err := s.fs.List(s.path("request"))
	if err != nil {
		return // there is no directory as long as nobody asked for anything
	}
	for _, name := range names {
		id, ok := strings.CutSuffix(name, ".ask")
		if !ok {
			continue
		}
		name, answer := s.path("request", name), s.path("request", id+".done")
		b, err := durable.ReadFile(s.fs, name, maxChange)
		if errors.Is(err, fs.ErrNotExist) {
			continue // who asked has given up
		}
		var c Change
		if err == nil {
			c.Verb, c.VKey, _ = strings.Cut(strings.TrimSuffix(string(b), "\n"), " ")
			err = s.Do(c)
		}
		// If we die behind the change: it is tried again, and answered that it was made already.
		text := ""
		if err != nil {
			text = err.Error()
		}
		s.logger.Info("a change was asked for", slog.String("change", c.Verb), slog.String("vkey", c.VKey), slog.String("refused", text))
		if err := errors.Join(durable.WriteFile(s.fs, answer, []byte(text), 0o600), s.fs.Remove(name)); err != nil {
			s.logger.Error("a change was not answered", slog.Any("error", err))
			return
		}
	}
}

// Ask has the server that runs in dir make a change and waits for its answer. If none
// comes before ctx ends, the change is taken back, as far as it was not made.
func Ask(ctx context.Context, fsys durable.FS, dir string, c Change) error {
	requests := filepath.Join(dir, "request")
	if err := durable.MkdirAll(fsys, requests, 0o700); err != nil {
		return err
	}
	id := filepath.Join(requests, rand.Text())
	if err := durable.WriteFile(fsys, id+".ask", []byte(c.Verb+" "+c.VKey+"\n"), 0o600); err != nil {
		return err
	}
	look := time.NewTicker(changesEvery / 6)
	defer look.Stop()
	for {
		b, err := durable.ReadFile(fsys, id+".done", maxChange)
		if err == nil {
			if len(b) > 0 {
				err = errors.New(string(b))
			}
			return errors.Join(err, fsys.Remove(id+".done"))
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		select {
		case <-ctx.Done():
			if err := fsys.Remove(id + ".ask"); errors.Is(err, fs.ErrNotExist) {
				ctx = context.Background() // it is being answered now
				continue
			}
			return fmt.Errorf("the witness in %s does not answer: %w", dir, ctx.Err())
		case <-look.C:
		}
	}
}
