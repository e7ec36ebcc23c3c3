// Package segment is the file format a log is kept in for good: leaves and
// values of a stretch of entries, compressed, each in a file of its own that
// standard tools read.
//
//	DIR/segment/00000000000000000000.zst     leaves: zstd -dc prints the entry bundles
//	            00000000000000000000.val     values and salts, one block for each bundle
//
//	file   | header | zstd frame of a bundle | zstd frame … | CRC | seek table |
//
// Every byte is drawn in docs/format/segment.md.
//
// Seal makes a segment of a complete journal file and removes that only when
// what was written has been read again and found to be the same. Reader reads
// a log across segments and journal, at rest or in use. Erase takes values
// out of a segment without changing a leaf.
package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/tree"
)

const (
	leafMagic   = "pgnsegm1"
	valueMagic  = "pgnvals1"
	leafSuffix  = ".zst"
	valueSuffix = ".val"
	headerFixed = 161      // bytes of a header up to its tiles
	maxHeader   = 64 << 10 // bytes
	maxLevels   = 7
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Dir returns the directory of the segments of the log in the data directory dir.
func Dir(dir string) string { return filepath.Join(dir, "segment") }

// LeafFile and ValueFile return the names of the files of the segment that
// begins with entry first.
func LeafFile(dir string, first int64) string  { return fileName(dir, first, leafSuffix) }
func ValueFile(dir string, first int64) string { return fileName(dir, first, valueSuffix) }

func fileName(dir string, first int64, suffix string) string {
	return filepath.Join(Dir(dir), fmt.Sprintf("%020d%s", first, suffix))
}

// parseName is strict: one index has one name.
func parseName(name, suffix string) (first int64, ok bool) {
	digits, found := strings.CutSuffix(name, suffix)
	if !found || len(digits) != 20 {
		return 0, false
	}
	first, err := strconv.ParseInt(digits, 10, 64)
	return first, err == nil && first >= 0 && first%tree.Width == 0
}

// List returns the first indexes of the segments that are there, ascending. A
// log without the directory has none.
func List(fsys durable.FS, dir string) ([]int64, error) {
	names, err := fsys.List(Dir(dir))
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	var out []int64
	for _, name := range names { // sorted, and the numbers have one width
		if first, ok := parseName(name, leafSuffix); ok {
			out = append(out, first)
		}
	}
	return out, nil
}

// A Header opens both files of a segment. But for the magic and the tiles it is the same in both.
type Header struct {
	First    int64         // index of the first entry, a multiple of 256
	Count    int64         // entries, a multiple of 256, not 0
	Created  int64         // of the journal file, Unix nanoseconds
	Ended    int64         // when it was complete: creation of the one behind it
	Seq      uint64        // sequence number of its first batch
	NextSeq  uint64        // and of the one behind its last
	PrevCRC  uint32        // header CRC of the last batch before the file, 0 in the first
	LastCRC  uint32        // header CRC of its last batch
	Root     tree.Hash     // of the tree before the first entry
	NextRoot tree.Hash     // of the tree behind the last
	LogID    [32]byte      // SHA-256 of the origin
	Tiles    [][]tree.Hash // incomplete right-most tile of level 1, 2, … before the first entry; none in a value file
}

// End returns the index behind the last entry.
func (h *Header) End() int64 { return h.First + h.Count }

// append appends the encoding.
func (h *Header) append(dst []byte, magic string) []byte {
	start := len(dst)
	le := binary.LittleEndian
	dst = append(dst, magic...)
	for _, v := range []uint64{uint64(h.First), uint64(h.Count), uint64(h.Created), uint64(h.Ended), h.Seq, h.NextSeq} {
		dst = le.AppendUint64(dst, v)
	}
	dst = le.AppendUint32(le.AppendUint32(dst, h.PrevCRC), h.LastCRC)
	dst = append(append(append(dst, h.Root[:]...), h.NextRoot[:]...), h.LogID[:]...)
	if magic == valueMagic {
		dst = append(dst, 0)
	} else {
		dst = journal.AppendTiles(dst, h.Tiles)
	}
	return le.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

var errHeader = errors.New("bad header")

// parseHeader decodes a header. It accepts exactly what append writes for a possible log.
func parseHeader(b []byte, magic string) (*Header, error) {
	h, err := decodeHeader(b, magic)
	if err == nil {
		err = h.check(magic)
	}
	if err != nil {
		return nil, err
	}
	return h, nil
}

// check checks that the tiles have the root that the header states. That costs
// more than all the rest, and matters to who goes on from them.
func (h *Header) check(magic string) error {
	if magic == valueMagic {
		return nil
	}
	t, err := tree.Restore(h.First, h.Tiles)
	if err != nil {
		return fmt.Errorf("%w: %w", errHeader, err)
	}
	if t.Root() != h.Root {
		return fmt.Errorf("%w: tiles do not have the root it states", errHeader)
	}
	return nil
}

// decodeHeader is parseHeader without check.
func decodeHeader(b []byte, magic string) (*Header, error) {
	if len(b) < headerFixed+4 || string(b[:8]) != magic {
		return nil, fmt.Errorf("%w: magic", errHeader)
	}
	le := binary.LittleEndian
	if le.Uint32(b[len(b)-4:]) != crc32.Checksum(b[:len(b)-4], castagnoli) {
		return nil, fmt.Errorf("%w: CRC", errHeader)
	}
	h := &Header{
		First: int64(le.Uint64(b[8:])), Count: int64(le.Uint64(b[16:])),
		Created: int64(le.Uint64(b[24:])), Ended: int64(le.Uint64(b[32:])),
		Seq: le.Uint64(b[40:]), NextSeq: le.Uint64(b[48:]),
		PrevCRC: le.Uint32(b[56:]), LastCRC: le.Uint32(b[60:]),
		Root: tree.Hash(b[64:]), NextRoot: tree.Hash(b[96:]), LogID: [32]byte(b[128:]),
	}
	if h.First < 0 || h.First%tree.Width != 0 || h.Count <= 0 || h.Count%tree.Width != 0 || h.End() < h.First {
		return nil, fmt.Errorf("%w: %d entries from %d on", errHeader, h.Count, h.First)
	}
	rest := b[headerFixed-1 : len(b)-4]
	if magic == valueMagic {
		if len(rest) != 1 || rest[0] != 0 {
			return nil, fmt.Errorf("%w: tiles in a value file", errHeader)
		}
		return h, nil
	}
	var err error
	if h.Tiles, err = journal.ParseTiles(rest, h.First); err != nil {
		return nil, fmt.Errorf("%w: %w", errHeader, err)
	}
	return h, nil
}

// A DamagedError says that a file of a segment is not as it was written.
type DamagedError struct {
	File string // path
	Why  string
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("segment is damaged: %s: %s", e.File, e.Why)
}
