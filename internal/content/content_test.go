package content

import (
	"bytes"
	"crypto/sha256"
	"testing"
)

func TestFlow(t *testing.T) {
	all := bytes.Repeat([]byte("0123456789"), MaxChunk/5)
	sum := sha256.Sum256(all)
	for _, mode := range []Mode{Count, Digest, Full} {
		var f Flow
		f.Begin(mode)
		f.Begin(Count) // too late
		var kept []byte
		for b := all; len(b) > 0; b = b[min(len(b), 777):] {
			f.Add(b[:min(len(b), 777)])
			c := f.Chunk(MaxChunk)
			if len(c) > MaxChunk+777 {
				t.Errorf("a chunk of %d bytes", len(c))
			}
			kept = append(kept, c...)
		}
		kept = append(kept, f.Chunk(1)...)
		if f.Bytes != int64(len(all)) {
			t.Errorf("mode %d: %d bytes, want %d", mode, f.Bytes, len(all))
		}
		if (mode == Full) != bytes.Equal(kept, all) || mode != Full && len(kept) > 0 {
			t.Errorf("mode %d: %d bytes kept", mode, len(kept))
		}
		if got := f.Sum(); mode == Count && got != nil || mode != Count && !bytes.Equal(got, sum[:]) {
			t.Errorf("mode %d: sum %x", mode, got)
		}
	}
}
