package journal

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/pgnotary/pgnotary/internal/tree"
)

// A Hint tells a reader where in a file batches may be, so that it need not
// step from the first to the last. It is not trusted: a place counts if there
// is a batch as the hint says, which nobody can have sent who does not know
// the mark of the file. A wrong hint costs time, never an entry.
type Hint struct {
	First  int64  // entry that the file begins with
	Places []byte // as Places returned them
}

// PlaceLen is the length of each of the places in a Hint:
//
//	8 bytes  offset of the batch in the file
//	8 bytes  its sequence number
//	4 bytes  header CRC of the batch before it
//	4 bytes  how many of its entries come before the bundle's first
const PlaceLen = 24

// Places returns the places of the batches that hold the first entries of
// bundles, from the one that a file begins with up to and with that of entry last.
func (r *Reader) Places(first, last int64) ([]byte, error) {
	s, _, err := r.seek(last)
	if err != nil {
		return nil, err
	}
	if err := s.f.Close(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.fileOf(last)
	n := int((last-first)/tree.Width) + 1
	if i < 0 || r.files[i].first != first || n > len(r.files[i].marks) {
		return nil, fmt.Errorf("entry %d is not in the journal file of entry %d", last, first)
	}
	out := make([]byte, 0, n*PlaceLen)
	for j, p := range r.files[i].marks[:n] {
		out = binary.LittleEndian.AppendUint64(out, uint64(p.off))
		out = binary.LittleEndian.AppendUint64(out, p.seq)
		out = binary.LittleEndian.AppendUint32(out, p.prev)
		out = binary.LittleEndian.AppendUint32(out, uint32(first+int64(j)*tree.Width-p.index))
	}
	return out, nil
}

// hint takes the places of a Hint of the file x, unless they are impossible.
func (x *fileIndex) hint(places []byte) {
	var marks []place
	for b := places; len(b) >= PlaceLen; b = b[PlaceLen:] {
		p := place{
			off: int64(binary.LittleEndian.Uint64(b)), seq: binary.LittleEndian.Uint64(b[8:]), prev: binary.LittleEndian.Uint32(b[16:]),
			index: x.first + int64(len(marks))*tree.Width - int64(binary.LittleEndian.Uint32(b[20:])),
		}
		if p.off < minFileHeader || p.off > math.MaxInt64-BatchHeaderLen-MaxBody || p.index < x.first || len(marks) > 0 && p.off < marks[len(marks)-1].off {
			return
		}
		marks = append(marks, p)
	}
	if len(marks) > 0 {
		x.marks, x.next, x.hinted = marks, marks[len(marks)-1], true
	}
}
