package verify

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sort"
	"strconv"

	"github.com/pgnotary/pgnotary/internal/event"
)

// readAgain reads an entry that was checked before, to see what it is. It
// costs reading about one chunk.
func (o *order) readAgain(index int64) (place, error) {
	if n := len(o.marks); n == 0 || index < o.marks[0].index {
		return o.readSealed(index)
	}
	i := sort.Search(len(o.marks), func(i int) bool { return o.marks[i].index > index }) - 1
	if i < 0 {
		return place{}, errors.New("no file has it")
	}
	m := o.marks[i]
	f, err := openPlain(filepath.Join(o.dir, "journal", o.names[m.file]))
	if errors.Is(err, fs.ErrNotExist) { // sealed since
		first, err := strconv.ParseInt(o.names[m.file][:20], 10, 64)
		if err != nil {
			return place{}, err
		}
		return o.sealedPlace(first, index)
	}
	if err != nil {
		return place{}, err
	}
	defer f.Close()
	c := chunk{off: m.off}
	r := reader{index: m.index, seq: m.seq, loose: true}
	if _, err := f.ReadAt(r.mark[:], markAt); err != nil {
		return place{}, err
	}
	for {
		bad, eof, err := r.fill(f, &c)
		if err != nil {
			return place{}, err
		}
		if n := len(c.entries); n > 0 && c.entries[n-1].index >= index {
			var l event.Leaf
			if err := event.Skim(c.entries[index-c.entries[0].index].leaf, &l); err != nil {
				return place{}, err
			}
			return place{l.Session, l.Kind}, nil
		}
		if bad != nil || eof || len(c.buf) == 0 {
			return place{}, errors.New("the file was changed meanwhile")
		}
		c.off += int64(len(c.buf))
	}
}

// readSealed is readAgain in a segment.
func (o *order) readSealed(index int64) (place, error) {
	i := sort.Search(len(o.segs), func(i int) bool { return o.segs[i] > index }) - 1
	if i < 0 {
		return place{}, errors.New("no file has it")
	}
	return o.sealedPlace(o.segs[i], index)
}

// sealedPlace reads an entry of the segment that begins with entry first.
func (o *order) sealedPlace(first, index int64) (place, error) {
	s, err := openSealed(o.dir, fmt.Sprintf("segment/%020d.zst", first), leafMagic)
	if err != nil {
		return place{}, err
	}
	defer s.f.Close()
	n := int((index - first) / tileWidth)
	if n >= len(s.frames) {
		return place{}, errors.New("the file was changed meanwhile")
	}
	for _, fr := range s.frames[:n] {
		s.off += int64(fr.size)
	}
	c := chunk{first: index - index%tileWidth}
	if err := c.frame(s, n); err != nil {
		return place{}, err
	}
	b, err := o.own.decode(c.buf, c.frames[0].real, nil)
	if err != nil || !c.bundle(b) {
		return place{}, errors.New("its bundle was changed meanwhile")
	}
	var l event.Leaf
	if err := event.Skim(c.entries[index%tileWidth].leaf, &l); err != nil {
		return place{}, err
	}
	return place{l.Session, l.Kind}, nil
}
