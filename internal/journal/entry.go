package journal

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"github.com/pgnotary/pgnotary/internal/tree"
)

// Kinds of value, the byte behind the leaf.
const (
	valueNone   = 0
	valueInline = 1
	valueBlob   = 2
)

// SeedLen is the length of the seed in front of each entry whose index is a
// multiple of 256.
const SeedLen = 32

// An Entry is one entry as the journal holds it. Its slices are valid until
// the next step of the iteration that gave them.
type Entry struct {
	Index    int64
	Leaf     []byte
	Value    []byte   // nil if there is none, or if it is in a blob
	HasValue bool     // inline or in a blob
	Blob     *BlobRef // nil unless the value is in a blob
	Salt     [32]byte // of the value
	Gone     Gone     // why a value that the entry has had is not there
}

// Gone says why the value of an entry is not there.
type Gone uint8

// Values in a journal file are always there; those of a segment may go.
const (
	NotGone Gone = iota
	Erased       // alone; an entry of kind erase says so
	Expired      // with all others of its segment; an entry of kind prune says so
)

func (g Gone) String() string {
	switch g {
	case Erased:
		return "erased"
	case Expired:
		return "expired"
	}
	return "there"
}

// A BlobRef names the blob that holds a value.
type BlobRef struct {
	ID   [16]byte
	Size int64 // bytes
}

// Salt returns the salt of the inline value of an entry.
func Salt(seed *[SeedLen]byte, index int64) [32]byte {
	var b [SeedLen + 1]byte
	copy(b[:], seed[:])
	b[SeedLen] = byte(index % tree.Width)
	return sha256.Sum256(b[:])
}

// EntryLen returns the most that AppendEntry adds to a body, in bytes.
func EntryLen(leaf, value int) int { return SeedLen + leaf + value + 2*binary.MaxVarintLen64 + 1 }

// AppendEntry appends an entry to a body: with room for the seed if its index
// is a multiple of 256, and with an inline value unless value is nil.
func AppendEntry(dst []byte, index int64, leaf, value []byte) []byte {
	dst = appendLeaf(dst, index, leaf)
	if value == nil {
		return append(dst, valueNone)
	}
	dst = append(dst, valueInline)
	dst = binary.AppendUvarint(dst, uint64(len(value)))
	return append(dst, value...)
}

// AppendBlobEntry appends an entry whose value is in a blob.
func AppendBlobEntry(dst []byte, index int64, leaf []byte, salt *[32]byte, ref BlobRef) []byte {
	dst = append(appendLeaf(dst, index, leaf), valueBlob)
	dst = append(dst, salt[:]...)
	dst = binary.AppendUvarint(dst, uint64(ref.Size))
	return append(dst, ref.ID[:]...)
}

// BlobTail returns how many bytes AppendBlobEntry puts behind the leaf.
func BlobTail(ref BlobRef) int {
	var b [binary.MaxVarintLen64]byte
	return 1 + 32 + binary.PutUvarint(b[:], uint64(ref.Size)) + len(ref.ID)
}

var noSeed [SeedLen]byte

func appendLeaf(dst []byte, index int64, leaf []byte) []byte {
	if index%tree.Width == 0 {
		dst = append(dst, noSeed[:]...)
	}
	dst = binary.AppendUvarint(dst, uint64(len(leaf)))
	return append(dst, leaf...)
}

var errEntry = errors.New("bad entry in a batch")

// A Cursor walks the entries of a body in place. The zero Cursor is at the
// end of nothing; set Body and Index, and Seed if Index is within a bundle.
type Cursor struct {
	Body  []byte
	Index int64         // of the entry Next will take
	Seed  [SeedLen]byte // of the bundle of the entry taken last

	// Of the entry taken last, as offsets in Body. SeedAt is -1 if it has
	// none, ValueAt is -1 unless the value is inline.
	SeedAt, LeafAt, LeafEnd, ValueAt, ValueEnd int
	kind                                       byte
	ref                                        BlobRef
	salt                                       [32]byte

	pos int
	err error
}

// Reset makes c ready for another body.
func (c *Cursor) Reset(body []byte, index int64) {
	c.Body, c.Index, c.pos, c.err = body, index, 0, nil
}

// Next takes the next entry and reports whether there was one. It does not allocate.
func (c *Cursor) Next() bool {
	if c.err != nil || c.pos == len(c.Body) {
		return false
	}
	c.SeedAt, c.ValueAt = -1, -1
	if c.Index%tree.Width == 0 {
		if len(c.Body)-c.pos < SeedLen {
			return c.fail()
		}
		c.SeedAt = c.pos
		copy(c.Seed[:], c.Body[c.pos:])
		c.pos += SeedLen
	}
	n, ok := c.uvarint()
	if !ok || n == 0 || n > uint64(len(c.Body)-c.pos) {
		return c.fail()
	}
	c.LeafAt, c.LeafEnd = c.pos, c.pos+int(n)
	c.pos = c.LeafEnd
	if c.pos == len(c.Body) {
		return c.fail()
	}
	c.kind = c.Body[c.pos]
	c.pos++
	switch c.kind {
	case valueNone:
	case valueInline:
		n, ok := c.uvarint()
		if !ok || n > uint64(len(c.Body)-c.pos) {
			return c.fail()
		}
		c.ValueAt, c.ValueEnd = c.pos, c.pos+int(n)
		c.pos = c.ValueEnd
	case valueBlob:
		if len(c.Body)-c.pos < 32 {
			return c.fail()
		}
		c.pos += copy(c.salt[:], c.Body[c.pos:])
		n, ok := c.uvarint()
		if !ok || n > 1<<62 || len(c.Body)-c.pos < len(c.ref.ID) {
			return c.fail()
		}
		c.ref.Size = int64(n)
		c.pos += copy(c.ref.ID[:], c.Body[c.pos:])
	default:
		return c.fail()
	}
	c.Index++
	return true
}

func (c *Cursor) fail() bool {
	c.err = errEntry
	return false
}

// uvarint decodes a number in its shortest form.
func (c *Cursor) uvarint() (uint64, bool) {
	v, n := binary.Uvarint(c.Body[c.pos:])
	if n <= 0 || n > 1 && c.Body[c.pos+n-1] == 0 {
		return 0, false
	}
	c.pos += n
	return v, true
}

// Pos returns the offset behind the entry taken last.
func (c *Cursor) Pos() int { return c.pos }

// Err returns why Next stopped, if not at the end of the body.
func (c *Cursor) Err() error { return c.err }

// Leaf returns the leaf of the entry taken last, within Body.
func (c *Cursor) Leaf() []byte { return c.Body[c.LeafAt:c.LeafEnd:c.LeafEnd] }

// Entry returns the entry taken last; it refers to Body.
func (c *Cursor) Entry() (e Entry) {
	c.take(&e)
	if c.kind == valueInline {
		e.Salt = Salt(&c.Seed, e.Index)
	}
	return e
}

// take sets e to the entry taken last, but for the salt of an inline value.
func (c *Cursor) take(e *Entry) {
	*e = Entry{Index: c.Index - 1, Leaf: c.Leaf()}
	switch c.kind {
	case valueInline:
		e.HasValue, e.Value = true, c.Body[c.ValueAt:c.ValueEnd:c.ValueEnd]
	case valueBlob:
		ref := c.ref
		e.HasValue, e.Salt, e.Blob = true, c.salt, &ref
	}
}
