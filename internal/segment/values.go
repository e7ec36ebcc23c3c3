package segment

import (
	"encoding/binary"
	"errors"

	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// Kinds of value.
const (
	kindNone   = 0
	kindInline = 1
	kindBlob   = 2
	kindErased = 3
)

// A slot is what a block says of one entry's value.
type slot struct {
	kind  byte
	salt  [32]byte // of a value that is there
	value []byte   // inline; not nil then
	blob  journal.BlobRef
}

// slotOf returns the slot of an entry.
func slotOf(e *journal.Entry) slot {
	switch {
	case e.Blob != nil:
		return slot{kind: kindBlob, salt: e.Salt, blob: *e.Blob}
	case e.Value != nil:
		return slot{kind: kindInline, salt: e.Salt, value: e.Value}
	case e.HasValue:
		return slot{kind: kindErased}
	}
	return slot{}
}

// fill puts the value into the entry.
func (s *slot) fill(e *journal.Entry) {
	e.Salt = s.salt
	switch s.kind {
	case kindInline:
		e.HasValue, e.Value = true, s.value
	case kindBlob:
		ref := s.blob
		e.HasValue, e.Blob = true, &ref
	case kindErased:
		e.HasValue, e.Gone = true, journal.Erased
	}
}

// A block holds the values of a bundle.
type block struct {
	seed   [journal.SeedLen]byte
	seeded bool // else each inline value has its salt
	slots  [tree.Width]slot
}

// append appends the encoding.
func (b *block) append(dst []byte) []byte {
	if b.seeded {
		dst = append(append(dst, 0), b.seed[:]...)
	} else {
		dst = append(dst, 1)
	}
	for i := range b.slots {
		dst = append(dst, b.slots[i].kind)
	}
	for i := range b.slots {
		switch s := &b.slots[i]; s.kind {
		case kindInline:
			if !b.seeded {
				dst = append(dst, s.salt[:]...)
			}
			dst = binary.AppendUvarint(dst, uint64(len(s.value)))
		case kindBlob:
			dst = appendBlob(dst, s)
		}
	}
	for i := range b.slots {
		dst = append(dst, b.slots[i].value...)
	}
	return dst
}

func appendBlob(dst []byte, s *slot) []byte {
	dst = append(dst, s.salt[:]...)
	dst = binary.AppendUvarint(dst, uint64(s.blob.Size))
	return append(dst, s.blob.ID[:]...)
}

var errBlock = errors.New("a block of values is malformed")

// A scan takes a piece of memory apart from the front.
type scan struct {
	b   []byte
	bad bool
}

func (s *scan) take(n int) []byte {
	if n < 0 || n > len(s.b) {
		s.bad = true
		return nil
	}
	p := s.b[:n:n]
	s.b = s.b[n:]
	return p
}

// fixed fills p.
func (s *scan) fixed(p []byte) { copy(p, s.take(len(p))) }

// uvarint takes a number in its shortest form, at most limit.
func (s *scan) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(s.b)
	if n <= 0 || n > 1 && s.b[n-1] == 0 || v > limit {
		s.bad = true
		return 0
	}
	s.b = s.b[n:]
	return v
}

func (s *scan) blob(to *slot) {
	s.fixed(to.salt[:])
	to.blob.Size = int64(s.uvarint(1 << 62))
	s.fixed(to.blob.ID[:])
}

// parse decodes a block; its values refer to p. It accepts exactly what append writes.
func (b *block) parse(p []byte) error {
	err := b.parseUnsalted(p)
	for i := range b.slots {
		b.salt(i)
	}
	return err
}

// salt sets the salt of a slot, if it is derived from the seed.
func (b *block) salt(i int) {
	if s := &b.slots[i]; b.seeded && s.kind == kindInline {
		s.salt = journal.Salt(&b.seed, int64(i))
	}
}

// parseUnsalted is parse without the salts that are derived: few readers need them.
func (b *block) parseUnsalted(p []byte) error {
	s := scan{b: p}
	form := s.take(1)
	if s.bad || form[0] > 1 {
		return errBlock
	}
	if b.seeded = form[0] == 0; b.seeded {
		s.fixed(b.seed[:])
	}
	kinds := s.take(tree.Width)
	if s.bad {
		return errBlock
	}
	var sizes [tree.Width]int
	for i, kind := range kinds {
		to := &b.slots[i]
		*to = slot{kind: kind}
		switch kind {
		case kindInline:
			if !b.seeded {
				s.fixed(to.salt[:])
			}
			sizes[i] = int(s.uvarint(uint64(len(p))))
		case kindBlob:
			s.blob(to)
		case kindNone:
		case kindErased:
			if b.seeded {
				return errBlock // the seed would give its salt away
			}
		default:
			return errBlock
		}
	}
	for i := range b.slots {
		if b.slots[i].kind == kindInline {
			b.slots[i].value = s.take(sizes[i])
		}
	}
	if s.bad || len(s.b) > 0 {
		return errBlock
	}
	return nil
}

// erase takes the value of an entry out of its block. It returns the blob
// that held it, if one did, and whether there was a value.
func (b *block) erase(index int64) (blob *journal.BlobRef, was bool) {
	s := &b.slots[index%tree.Width]
	if s.kind == kindNone || s.kind == kindErased {
		return nil, false
	}
	if s.kind == kindBlob {
		ref := s.blob
		blob = &ref
	}
	*s = slot{kind: kindErased}
	b.seeded, b.seed = false, [journal.SeedLen]byte{} // the salts were computed when the block was read
	return blob, true
}

// pathLen is the number of hashes between a leaf and the root of its bundle.
const pathLen = 8

// A copied entry is one of an earlier segment that entries of this one go back to.
type copied struct {
	index int64
	path  [pathLen]tree.Hash
	leaf  []byte
	slot
}

func appendCopies(dst []byte, list []copied) []byte {
	for i := range list {
		c := &list[i]
		dst = binary.AppendUvarint(dst, uint64(c.index))
		for j := range c.path {
			dst = append(dst, c.path[j][:]...)
		}
		dst = binary.AppendUvarint(dst, uint64(len(c.leaf)))
		dst = append(append(dst, c.leaf...), c.kind)
		switch c.kind {
		case kindInline:
			dst = append(dst, c.salt[:]...)
			dst = binary.AppendUvarint(dst, uint64(len(c.value)))
			dst = append(dst, c.value...)
		case kindBlob:
			dst = appendBlob(dst, &c.slot)
		}
	}
	return dst
}

// parseCopies decodes the last frame of a value file; the result refers to p.
// It accepts exactly what appendCopies writes for a segment that begins at first.
func parseCopies(p []byte, first int64) (list []copied, err error) {
	s := scan{b: p}
	last := int64(-1)
	for len(s.b) > 0 {
		var c copied
		c.index = int64(s.uvarint(1 << 62))
		for j := range c.path {
			s.fixed(c.path[j][:])
		}
		c.leaf = s.take(int(s.uvarint(65535)))
		kind := s.take(1)
		if s.bad {
			return nil, errBlock
		}
		switch c.kind = kind[0]; c.kind {
		case kindInline:
			s.fixed(c.salt[:])
			c.value = s.take(int(s.uvarint(uint64(len(p)))))
		case kindBlob:
			s.blob(&c.slot)
		case kindErased:
		default:
			return nil, errBlock
		}
		if s.bad || c.index <= last || c.index >= first || len(c.leaf) == 0 {
			return nil, errBlock
		}
		last = c.index
		list = append(list, c)
	}
	return list, nil
}

// entry returns the copy as an entry, which refers to the same memory.
func (c *copied) entry() journal.Entry {
	e := journal.Entry{Index: c.index, Leaf: c.leaf}
	c.fill(&e)
	return e
}
