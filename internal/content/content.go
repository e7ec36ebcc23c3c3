// Package content sums up what flows by, and keeps it if it is told to: the
// data of a COPY, the rows of a result.
//
// A Flow is not safe for concurrent use. The zero Flow is one that did not begin.
package content

import (
	"crypto/sha256"
	"hash"
)

// A Mode says how much is kept of a flow. Counting costs nothing.
type Mode uint8

// The modes.
const (
	Count  Mode = iota // how much it was
	Digest             // and the SHA-256 of it
	Full               // and all of it
)

// MaxChunk is about how much is kept in memory, in bytes, before it has to be
// recorded.
const MaxChunk = 64 << 10

// A Flow is a stream of messages of which the content is looked at.
type Flow struct {
	Rows  int64 // messages, which the owner counts
	Bytes int64 // of content

	mode  Mode
	begun bool
	store *store // nil if it is only counted
}

// A store is apart, so that a Flow that did not begin is small.
type store struct {
	sum  hash.Hash
	kept []byte
}

// Begin says how much to keep; only the first call counts.
func (f *Flow) Begin(m Mode) {
	if f.begun {
		return
	}
	f.begun, f.mode = true, m
	if m != Count {
		f.store = &store{sum: sha256.New()}
	}
}

// Keeps reports whether all of the content is kept.
func (f *Flow) Keeps() bool { return f.mode == Full }

// Add takes content. It keeps a copy of b, if at all.
func (f *Flow) Add(b []byte) {
	f.Bytes += int64(len(b))
	if f.store == nil {
		return
	}
	f.store.sum.Write(b)
	if f.mode == Full {
		f.store.kept = append(f.store.kept, b...)
	}
}

// Chunk returns what was kept since the last chunk if that is at least n bytes,
// else nothing. The result is valid until the next call of Add.
func (f *Flow) Chunk(n int) []byte {
	if f.store == nil || len(f.store.kept) < n {
		return nil
	}
	b := f.store.kept
	f.store.kept = b[:0]
	return b
}

// Sum returns the SHA-256 of all content, nil if it is not known.
func (f *Flow) Sum() []byte {
	if f.store == nil {
		return nil
	}
	return f.store.sum.Sum(nil)
}
