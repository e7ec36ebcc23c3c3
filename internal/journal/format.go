package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/pgnotary/pgnotary/internal/tree"
)

const (
	fileMagic = "pgnjrnl1"

	// BatchHeaderLen is the length of a batch's header.
	BatchHeaderLen = 88
	// MaxBody bounds the body of a batch: that many bytes are written with one
	// write, and a reader needs no more memory than that.
	MaxBody = 8 << 20

	fileHeaderFixed = 113 // up to the tiles
	minFileHeader   = fileHeaderFixed + 4
	maxFileHeader   = 64 << 10
	maxLevels       = 7 // 256^8 is more than an index can count

	suffix = ".journal"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// FileName returns the name of the file whose first entry has the given index.
func FileName(first int64) string { return fmt.Sprintf("%020d%s", first, suffix) }

// parseFileName is strict: one index has one name.
func parseFileName(name string) (first int64, ok bool) {
	digits, found := strings.CutSuffix(name, suffix)
	if !found || len(digits) != 20 {
		return 0, false
	}
	first, err := strconv.ParseInt(digits, 10, 64)
	return first, err == nil && first%tree.Width == 0 && FileName(first) == name
}

// A Mark is what each batch of a journal file begins with: random bytes, drawn
// when the file is begun. Clients' bytes are in the file as they came, and
// nobody who cannot read it can send what looks like a batch of it.
type Mark [8]byte

// A FileHeader opens each journal file. It carries what is needed to go on
// without the files before.
type FileHeader struct {
	First   int64         // index of the first entry, a multiple of 256
	Created int64         // Unix nanoseconds
	Seq     uint64        // sequence number of the first batch in this file
	PrevCRC uint32        // header CRC of the last batch of the file before, 0 in the first
	Root    tree.Hash     // root of the tree of all entries before this file
	LogID   [32]byte      // SHA-256 of the origin
	Mark    Mark          // of the batches in this file
	Tiles   [][]tree.Hash // incomplete right-most tile of level 1, 2, …
	CRC     uint32        // of the encoding; set by Append and ParseFileHeader
	Len     int           // of the encoding; likewise
}

// Append appends the encoding of h and sets h.CRC and h.Len.
func (h *FileHeader) Append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, fileMagic...)
	dst = append(dst, 0, 0, 0, 0) // length
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.First))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.Created))
	dst = binary.LittleEndian.AppendUint64(dst, h.Seq)
	dst = binary.LittleEndian.AppendUint32(dst, h.PrevCRC)
	dst = append(dst, h.Root[:]...)
	dst = append(dst, h.LogID[:]...)
	dst = append(dst, h.Mark[:]...)
	dst = AppendTiles(dst, h.Tiles)
	h.Len = len(dst) - start + 4
	binary.LittleEndian.PutUint32(dst[start+8:], uint32(h.Len))
	h.CRC = checksum(dst[start:])
	return binary.LittleEndian.AppendUint32(dst, h.CRC)
}

// AppendTiles appends incomplete tiles, level 1 first, as headers hold them: how
// many levels, and for each the number of its hashes and these.
func AppendTiles(dst []byte, tiles [][]tree.Hash) []byte {
	dst = append(dst, byte(len(tiles)))
	for _, tile := range tiles {
		dst = binary.LittleEndian.AppendUint16(dst, uint16(len(tile)))
		for i := range tile {
			dst = append(dst, tile[i][:]...)
		}
	}
	return dst
}

// ParseTiles decodes what AppendTiles writes, all of b, for a tree of size
// leaves: each tile has the length that goes with it.
func ParseTiles(b []byte, size int64) (tiles [][]tree.Hash, err error) {
	if len(b) == 0 {
		return nil, errors.New("tiles are cut short")
	}
	levels := int(b[0])
	if levels > maxLevels || levels > 0 && size>>(8*levels)%tree.Width == 0 {
		return nil, fmt.Errorf("%d tile levels", levels)
	}
	b = b[1:]
	for l := 1; l <= levels; l++ {
		want := int(size >> (8 * l) % tree.Width)
		if len(b) < 2+32*want || int(binary.LittleEndian.Uint16(b)) != want {
			return nil, fmt.Errorf("tile of level %d", l)
		}
		b = b[2:]
		tile := make([]tree.Hash, want)
		for i := range tile {
			tile[i], b = tree.Hash(b[:32]), b[32:]
		}
		tiles = append(tiles, tile)
	}
	if len(b) != 0 {
		return nil, fmt.Errorf("%d bytes left", len(b))
	}
	return tiles, nil
}

var errHeader = errors.New("bad file header")

// ParseFileHeader decodes the header at the start of b, which may hold more.
// It accepts exactly what Append writes for a possible log: the tiles have
// the lengths that go with First, and the root is theirs.
func ParseFileHeader(b []byte) (*FileHeader, error) {
	if len(b) < minFileHeader || string(b[:8]) != fileMagic {
		return nil, fmt.Errorf("%w: magic", errHeader)
	}
	n := int64(binary.LittleEndian.Uint32(b[8:]))
	if n < minFileHeader || n > maxFileHeader || n > int64(len(b)) {
		return nil, fmt.Errorf("%w: length %d", errHeader, n)
	}
	b = b[:n]
	h := &FileHeader{
		First:   int64(binary.LittleEndian.Uint64(b[12:])),
		Created: int64(binary.LittleEndian.Uint64(b[20:])),
		Seq:     binary.LittleEndian.Uint64(b[28:]),
		PrevCRC: binary.LittleEndian.Uint32(b[36:]),
		Root:    tree.Hash(b[40:72]),
		LogID:   [32]byte(b[72:104]),
		Mark:    Mark(b[104:112]),
		CRC:     binary.LittleEndian.Uint32(b[n-4:]),
		Len:     int(n),
	}
	if h.CRC != checksum(b[:n-4]) {
		return nil, fmt.Errorf("%w: CRC", errHeader)
	}
	if h.First < 0 || h.First%tree.Width != 0 {
		return nil, fmt.Errorf("%w: first index %d", errHeader, h.First)
	}
	var err error
	if h.Tiles, err = ParseTiles(b[fileHeaderFixed-1:n-4], h.First); err != nil {
		return nil, fmt.Errorf("%w: %w", errHeader, err)
	}
	t, err := tree.Restore(h.First, h.Tiles)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errHeader, err)
	}
	if t.Root() != h.Root {
		return nil, fmt.Errorf("%w: tiles do not have the root it states", errHeader)
	}
	return h, nil
}

// A BatchHeader opens each batch.
type BatchHeader struct {
	Mark    Mark      // of the file
	Count   int       // entries, at least 1
	BodyLen int       // bytes, at most MaxBody
	Seq     uint64    // 0 for the log's first batch, then +1
	First   int64     // index of the first entry
	Time    int64     // Unix nanoseconds
	PrevCRC uint32    // header CRC of the batch before, or the file header's
	BodyCRC uint32    // of the body
	Root    tree.Hash // of the tree after this batch
	CRC     uint32    // of this header; set by put and parseBatchHeader
}

// put encodes h into b, BatchHeaderLen bytes, and sets h.CRC.
func (h *BatchHeader) put(b []byte) {
	_ = b[BatchHeaderLen-1]
	copy(b, h.Mark[:])
	binary.LittleEndian.PutUint32(b[8:], uint32(h.Count))
	binary.LittleEndian.PutUint32(b[12:], uint32(h.BodyLen))
	binary.LittleEndian.PutUint64(b[16:], h.Seq)
	binary.LittleEndian.PutUint64(b[24:], uint64(h.First))
	binary.LittleEndian.PutUint64(b[32:], uint64(h.Time))
	binary.LittleEndian.PutUint32(b[40:], h.PrevCRC)
	binary.LittleEndian.PutUint32(b[44:], h.BodyCRC)
	copy(b[48:80], h.Root[:])
	binary.LittleEndian.PutUint32(b[80:], 0)
	h.CRC = checksum(b[:84])
	binary.LittleEndian.PutUint32(b[84:], h.CRC)
}

// parseBatchHeader decodes a header and reports whether it is one of a file
// with that mark: mark and CRC are right and the counts are possible. Whether it
// is the one expected there is for the caller to see.
func parseBatchHeader(b []byte, mark Mark) (h BatchHeader, ok bool) {
	if len(b) < BatchHeaderLen || Mark(b[:8]) != mark || binary.LittleEndian.Uint32(b[80:]) != 0 {
		return h, false
	}
	count, bodyLen := binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
	h = BatchHeader{
		Mark: mark, Count: int(count), BodyLen: int(bodyLen),
		Seq:     binary.LittleEndian.Uint64(b[16:]),
		First:   int64(binary.LittleEndian.Uint64(b[24:])),
		Time:    int64(binary.LittleEndian.Uint64(b[32:])),
		PrevCRC: binary.LittleEndian.Uint32(b[40:]),
		BodyCRC: binary.LittleEndian.Uint32(b[44:]),
		Root:    tree.Hash(b[48:80]),
		CRC:     binary.LittleEndian.Uint32(b[84:]),
	}
	ok = h.CRC == checksum(b[:84]) && count >= 1 && bodyLen <= MaxBody && count <= bodyLen &&
		h.First >= 0 && h.First+int64(count) > h.First
	return h, ok
}
