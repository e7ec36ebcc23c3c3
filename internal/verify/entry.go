package verify

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

	form   byte
	salted bool      // salt is that of the inline value itself
	salt   *[32]byte // the blob's, or the seed of the bundle the entry is in
	value  []byte    // inline
	length int64     // of the value
	blob   [16]byte

	// Set by the worker.
	event.Skimmed           // kind "" if the leaf could not be read
	hash          hash      // of the leaf
	missing       bool      // there is no such blob
	unlisted      *unlisted // set if an index leaves it out
	flaws         []flaw
}

// flaw is a finding about one entry.
type flaw struct{ what, why string }

// worker checks entries by themselves: leaf, value, commitment. It belongs to
// one goroutine.
type worker struct {
	blobs string // directory
	buf   []byte // for reading them
	skim  event.Skimmer
	zstd  *zstd.Decoder
	tree  bundleTree

	index  *indexFile // of the segment whose chunk was last
	listed listed
}

func (w *worker) chunk(c *chunk) {
	if len(c.frames) > 0 {
		w.sealed(c)
		return
	}
	for i := range c.entries {
		e := &c.entries[i]
		e.hash = leafHash(e.leaf)
		w.entry(e, nil)
		e.Head = 0 // of this worker; the order has entries of all
	}
}

// entry checks leaf and value. In a segment, valueIn is the inline value with the
// 32 bytes in front of it, where the salt can be put for a moment; else nil.
func (w *worker) entry(e *entry, valueIn []byte) {
	var p event.Promise
	if err := w.skim.Skim(e.leaf, &e.Skimmed, &p); err != nil {
		e.Skimmed = event.Skimmed{}
		e.flaws = append(e.flaws, flaw{"leaf", err.Error()})
		return
	}
	if e.form == valueExpired && !p.HasValue {
		e.form = valueNone
	}
	if p.HasValue != (e.form != valueNone) {
		e.flaws = append(e.flaws, flaw{"value", "the leaf commits to a value and there is none, or the other way round"})
		return
	}
	var got hash
	switch e.form {
	case valueNone:
		if p.Size != 0 {
			e.flaws = append(e.flaws, flaw{"value", fmt.Sprintf("the leaf says %d bytes and there is no value", p.Size)})
		}
		return
	case valueErased, valueExpired:
		return
	case valueInline:
		e.length = int64(len(e.value))
		salt := *e.salt
		if !e.salted {
			salt = saltOf(e.salt, e.index)
		}
		if valueIn != nil {
			front := [32]byte(valueIn)
			copy(valueIn, salt[:])
			got = sha256.Sum256(valueIn)
			copy(valueIn, front[:])
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
	if p.Size != e.length {
		e.flaws = append(e.flaws, flaw{"value", fmt.Sprintf("it has %d bytes, the leaf says %d", e.length, p.Size)})
	}
	if got != p.Commitment {
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
	f, err := openPlain(filepath.Join(w.blobs, hex.EncodeToString(e.blob[:])+".blob"))
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
