// Package journal is the file format a log is first written in: batches of
// entries, appended by one writer and made durable one at a time.
//
//	DIR/journal/00000000000000000000.journal
//	            00000000000000131072.journal      named by their first index
//
//	file   | header: tree so far | batch | batch | … | zeros ahead |
//	batch  | 88 bytes: mark, count, length, sequence, root after it, CRCs | entries |
//	entry  | seed, once in 256 | leaf | value or the name of its blob |
//
// Every byte is drawn in docs/format/journal.md.
//
// Writer appends: a batch is one write and one fdatasync, and the next is
// begun only after that, so a batch that is there proves that the one before
// it was durable. Recover reads the last file after a stop of any kind and
// tells an orderly end, a torn tail (cut off) and damage (refused) apart.
// Reader reads a journal at rest or while another process writes it.
//
// What a leaf or a value means is none of this package's business.
package journal

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pgnotary/pgnotary/internal/durable"
)

// Options are the parameters of a journal's writer.
type Options struct {
	FS    durable.FS
	Dir   string   // of the journal files
	LogID [32]byte // SHA-256 of the origin

	// A file ends at the first multiple of 256 entries after it has this many
	// bytes or this age.
	SegmentSize int64
	SegmentAge  time.Duration

	// Rand is where the mark of a file comes from; nil for crypto/rand.
	Rand io.Reader

	// Room is the space prepared when a file is opened, in bytes; 0 for 1 MiB.
	Room int64

	// OnFull is called with each tile of level 1 and above that becomes full,
	// also while recovering; see tree.Builder.OnFull.
	OnFull func(level int, n int64, tile []byte)

	// OnLeaf is called while recovering with each leaf from the tree size on that
	// Recover was asked for, ascending within a file. The leaf is good during the call.
	OnLeaf func(index int64, leaf []byte)
}

// ErrEmpty is returned by Recover if there is no journal file.
var ErrEmpty = errors.New("no journal file")

// DamagedError says that a journal holds something no crash explains.
type DamagedError struct {
	File   string // path
	Offset int64  // in the file
	Index  int64  // of the first entry in doubt
	Why    string
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("journal is damaged: %s at byte %d, entry %d: %s", e.File, e.Offset, e.Index, e.Why)
}
