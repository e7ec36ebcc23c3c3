package segment

import (
	"bytes"
	"testing"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/tree"
)

func sampleBlock(seeded bool) *block {
	b := &block{seeded: seeded}
	for i := range b.slots {
		s := &b.slots[i]
		switch i % 4 {
		case 1:
			*s = slot{kind: kindInline, value: bytes.Repeat([]byte{byte(i)}, i)}
		case 2:
			*s = slot{kind: kindBlob, blob: journal.BlobRef{ID: [16]byte{byte(i)}, Size: 1 << 20}}
		case 3:
			if !seeded {
				*s = slot{kind: kindErased}
			}
		}
	}
	return b
}

// FuzzBlock: what is accepted encodes to the same bytes.
func FuzzBlock(f *testing.F) {
	f.Add(sampleBlock(true).append(nil))
	f.Add(sampleBlock(false).append(nil))
	f.Fuzz(func(t *testing.T, p []byte) {
		var b block
		if b.parse(p) != nil {
			return
		}
		if got := b.append(nil); !bytes.Equal(got, p) {
			t.Errorf("parsed and encoded again: %x, want %x", got, p)
		}
	})
}

func FuzzCopies(f *testing.F) {
	f.Add(appendCopies(nil, []copied{
		{index: 3, leaf: []byte("{}"), slot: slot{kind: kindInline, value: []byte("text")}},
		{index: 4, leaf: []byte("{}"), slot: slot{kind: kindErased}},
		{index: 255, leaf: []byte("{}"), slot: slot{kind: kindBlob}},
	}))
	f.Fuzz(func(t *testing.T, p []byte) {
		list, err := parseCopies(p, 256)
		if err != nil {
			return
		}
		if got := appendCopies(nil, list); !bytes.Equal(got, p) {
			t.Errorf("parsed and encoded again: %x, want %x", got, p)
		}
	})
}

func FuzzHeader(f *testing.F) {
	t := tree.New()
	for i := range 512 {
		t.Append(tree.Hash{byte(i)})
	}
	h := Header{First: 512, Count: 256, NextSeq: 4, Root: t.Root(), Tiles: t.Tiles()}
	f.Add(h.append(nil, leafMagic), true)
	f.Add(h.append(nil, valueMagic), false)
	f.Fuzz(func(t *testing.T, p []byte, leaf bool) {
		magic := valueMagic
		if leaf {
			magic = leafMagic
		}
		h, err := parseHeader(p, magic)
		if err != nil {
			return
		}
		if got := h.append(nil, magic); !bytes.Equal(got, p) {
			t.Errorf("parsed and encoded again: %x, want %x", got, p)
		}
	})
}

// FuzzFile opens any bytes as a sealed file and reads all that it gives.
func FuzzFile(f *testing.F) {
	f.Add(sampleFile(f))
	f.Fuzz(func(t *testing.T, p []byte) {
		s := faultfs.New()
		if err := durable.WriteFile(s, "/f", p, 0o600); err != nil {
			t.Fatal(err)
		}
		x, err := openFile(s, "/f", valueMagic)
		if err != nil {
			return
		}
		for i := range x.frames {
			if b, err := x.content(i, nil); err == nil && len(b) > maxBlock {
				t.Errorf("frame %d has %d bytes", i, len(b))
			}
		}
	})
}

func sampleFile(t testing.TB) []byte {
	s := faultfs.New()
	enc, err := newEncoder()
	if err != nil {
		t.Fatal(err)
	}
	h := Header{Count: 256, NextSeq: 1}
	w, err := newWriter(s, "/f", enc, h.append(nil, valueMagic))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{sampleBlock(true).append(nil), nil} {
		if err := w.content(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.finish(); err != nil {
		t.Fatal(err)
	}
	b, err := durable.ReadFile(s, "/f", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openFile(s, "/f", valueMagic); err != nil {
		t.Fatal(err)
	}
	return b
}
