package verify

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"github.com/pgnotary/pgnotary/internal/event"
)

// Forms of a value in the journal.
const (
	valueNone   = 0
	valueInline = 1
	valueBlob   = 2
	valueErased = 3
	// valueExpired stands for the values of a segment without a value file.
	valueExpired = 4
)

// entry is an entry on its way through the check.
type entry struct {
	index int64
	leaf  []byte
	// In a segment: the leaf with the byte in front of it, the inline value with
	// the 32 bytes in front. What is hashed together can lie together there.
	leafIn, valueIn []byte

	form   byte
	value  []byte   // inline
	salt   [32]byte // the blob's, or the seed of the bundle the entry is in
	salted bool     // salt is that of the inline value itself
	blob   [16]byte
	length int64 // of the blob

	missing bool // there is no such blob; set by the worker

	unlisted *unlisted // set if an index leaves it out

	// Set by the worker.
	hash hash
	leafFacts
	flaws []flaw
}

// leafFacts is what the order needs of a leaf. References are as in
// event.Leaf: the index plus one.
type leafFacts struct {
	time                   int64
	session, seq           uint64
	kind                   event.Kind
	of, parse, bind, since int64
	discarded              bool // COPY data the server dropped
}

func factsOf(l *event.Leaf) leafFacts {
	return leafFacts{l.Time, l.Session, l.Seq, l.Kind, l.Of, l.Parse, l.Bind, l.Since, l.End == event.EndDiscarded}
}

// flaw is a finding about one entry.
type flaw struct{ what, why string }

// worker checks entries by themselves: leaf, value, commitment. It belongs to
// one goroutine.
type worker struct {
	blobs string // directory
	buf   []byte // for reading them
	leaf  event.Leaf
	skim  event.Skimmer
	zstd  *zstd.Decoder
	row   [tileWidth]hash

	index  *indexFile // of the segment whose chunk was last
	listed listed
}

func (w *worker) chunk(c *chunk) {
	if len(c.frames) > 0 {
		w.sealed(c)
		return
	}
	for i := range c.entries {
		w.entry(&c.entries[i])
	}
}

func (w *worker) entry(e *entry) {
	if e.leafIn != nil {
		front := e.leafIn[0]
		e.leafIn[0] = 0
		e.hash = sha256.Sum256(e.leafIn)
		e.leafIn[0] = front
	} else {
		e.hash = leafHash(e.leaf)
	}
	l := &w.leaf
	if err := w.skim.Skim(e.leaf, l); err != nil {
		e.flaws = append(e.flaws, flaw{"leaf", err.Error()})
		return
	}
	e.leafFacts = factsOf(l)
	if e.form == valueExpired && !l.HasValue {
		e.form = valueNone
	}
	if l.HasValue != (e.form != valueNone) {
		e.flaws = append(e.flaws, flaw{"value", "the leaf commits to a value and there is none, or the other way round"})
		return
	}
	var got hash
	switch e.form {
	case valueNone:
		if l.Size != 0 {
			e.flaws = append(e.flaws, flaw{"value", fmt.Sprintf("the leaf says %d bytes and there is no value", l.Size)})
		}
		return
	case valueErased, valueExpired:
		return
	case valueInline:
		e.length = int64(len(e.value))
		salt := e.salt
		if !e.salted {
			salt = saltOf(&e.salt, e.index)
		}
		if e.valueIn != nil {
			front := [32]byte(e.valueIn)
			copy(e.valueIn, salt[:])
			got = sha256.Sum256(e.valueIn)
			copy(e.valueIn, front[:])
		} else {
			got = commitment(&salt, e.value)
		}
	case valueBlob:
		var err error
		if got, err = w.blob(e); errors.Is(err, errNoBlob) {
			e.missing = true
			return
		} else if err != nil {
			e.flaws = append(e.flaws, flaw{"blob/" + hex.EncodeToString(e.blob[:]) + ".blob", err.Error()})
			return
		}
	}
	if l.Size != e.length {
		e.flaws = append(e.flaws, flaw{"value", fmt.Sprintf("it has %d bytes, the leaf says %d", e.length, l.Size)})
	}
	if got != l.Commitment {
		e.flaws = append(e.flaws, flaw{"value", "it is not the one the leaf commits to"})
	}
}

// saltOf returns the salt of an inline value: SHA-256(seed || slot).
func saltOf(seed *[32]byte, index int64) [32]byte {
	var buf [33]byte
	copy(buf[:], seed[:])
	buf[32] = byte(index % tileWidth)
	return sha256.Sum256(buf[:])
}

// commitment returns SHA-256(salt || value).
func commitment(salt *[32]byte, value []byte) hash {
	var buf [1024]byte
	if len(value) <= len(buf)-len(salt) {
		copy(buf[:], salt[:])
		return sha256.Sum256(buf[:len(salt)+copy(buf[len(salt):], value)])
	}
	h := sha256.New()
	h.Write(salt[:])
	h.Write(value)
	return hash(h.Sum(nil))
}

var errNoBlob = errors.New("is missing")

// blob returns the commitment of a value that is in a file of its own.
func (w *worker) blob(e *entry) (got hash, err error) {
	f, err := os.Open(filepath.Join(w.blobs, hex.EncodeToString(e.blob[:])+".blob"))
	if errors.Is(err, fs.ErrNotExist) {
		return got, errNoBlob
	}
	if err != nil {
		return got, err
	}
	defer f.Close()
	h := sha256.New()
	h.Write(e.salt[:])
	if w.buf == nil {
		w.buf = make([]byte, 256<<10)
	}
	// One byte more than there should be is enough to see that it is too long.
	n, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{io.LimitReader(f, e.length+1)}, w.buf)
	if err != nil {
		return got, err
	}
	if n != e.length {
		return got, fmt.Errorf("does not have the %d bytes the journal says", e.length)
	}
	return hash(h.Sum(nil)), nil
}
