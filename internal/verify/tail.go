package verify

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"time"
)

// sector is the unit a disk writes as a whole.
const sector = 512

// retries is how often a batch that a writer may just be writing is read again.
const retries = 20

// flight is what to make of a place where no valid batch was found.
type flight uint8

const (
	flightBad   flight = iota // something is there, and it is not good
	flightEnd                 // nothing but zeros: the log ends here
	flightAgain               // read it again: a writer may have been in the middle of it
)

// inFlight says what to do about off in file i. Each further try waits longer,
// two seconds in all; the first does not, since even a writer that is gone by
// now may have written after the place was read.
func (r *reader) inFlight(ctx context.Context, f *os.File, i int, off int64, tries *int) (flight, error) {
	if i < len(r.names)-1 {
		return flightBad, nil
	}
	if zero, err := zeros(f, off); err != nil || zero {
		return flightEnd, err
	}
	*tries++
	if *tries == 1 {
		return flightAgain, nil
	}
	if *tries > retries || !r.inUse() {
		return flightBad, nil
	}
	select {
	case <-time.After(time.Duration(*tries) * 10 * time.Millisecond):
		return flightAgain, nil
	case <-ctx.Done():
		return flightEnd, ctx.Err()
	}
}

// tail decides what it means that there is something at off in file i that is
// not a valid batch: a batch that was being written when the machine stopped and
// that nobody was told of, or damage (docs/format/journal.md, "Reading after a crash").
func (r *reader) tail(f *os.File, i int, off int64, bad *broken) error {
	if i < len(r.names)-1 {
		r.stop(i, "damaged at byte %d: %s", off, bad.why)
		return nil
	}
	later, at, err := laterBatch(f, off+1, r.mark, r.seq)
	if err != nil {
		return err
	}
	if later {
		r.stop(i, "damaged at byte %d: %s; but a later batch follows at byte %d", off, bad.why, at)
		return nil
	}
	torn, err := zeroSector(f, off, bad.length)
	if err != nil {
		return err
	}
	if !torn {
		r.stop(i, "damaged at byte %d: %s; it was complete once", off, bad.why)
		return nil
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	note := "journal/" + r.names[i] + ": an unfinished batch behind the last entry, as a crash leaves it; nobody was told that it was recorded"
	if bad.length > st.Size()-off {
		note += " (the file ends in it)"
	}
	r.notes = append(r.notes, note)
	return nil
}

// laterBatch looks from off on for a batch header with a number above seq. No
// client can have sent it: it does not know the mark.
func laterBatch(f *os.File, off int64, mark [8]byte, seq uint64) (found bool, at int64, err error) {
	st, err := f.Stat()
	if err != nil {
		return false, 0, err
	}
	buf := make([]byte, min(max(st.Size()-off, batchFixed)+1, 1<<20))
	for {
		n, err := f.ReadAt(buf, off)
		eof := errors.Is(err, io.EOF)
		if err != nil && !eof {
			return false, 0, err
		}
		b := buf[:n]
		for p := 0; ; p++ {
			k := bytes.Index(b[p:], mark[:])
			if k < 0 || p+k+batchFixed > len(b) {
				break
			}
			p += k
			h := b[p : p+batchFixed]
			if crc32.Checksum(h[:84], castagnoli) == binary.LittleEndian.Uint32(h[84:]) && binary.LittleEndian.Uint64(h[16:]) > seq {
				return true, off + int64(p), nil
			}
		}
		if eof || n <= batchFixed {
			return false, 0, nil
		}
		off += int64(n - batchFixed) // a header may lie across
	}
}

// zeroSector reports whether any sector, or part of one, that the length bytes
// from off on cover holds nothing but zeros. What lies behind the end of
// the file was never written.
func zeroSector(f *os.File, off, length int64) (bool, error) {
	var buf [sector]byte
	for length > 0 {
		n := min(length, sector-off%sector)
		m, err := f.ReadAt(buf[:n], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		if int64(m) < n || len(bytes.TrimLeft(buf[:n], "\x00")) == 0 {
			return true, nil
		}
		off, length = off+n, length-n
	}
	return false, nil
}
