package verify

import (
	"errors"
	"os"
	"path/filepath"
	"sort"

	"github.com/pgnotary/pgnotary/internal/event"
)

// readAgain reads an entry that was checked before, to see what it is. It
// costs reading about one chunk.
func (o *order) readAgain(index int64) (place, error) {
	i := sort.Search(len(o.marks), func(i int) bool { return o.marks[i].index > index }) - 1
	if i < 0 {
		return place{}, errors.New("no file has it")
	}
	m := o.marks[i]
	f, err := os.Open(filepath.Join(o.dir, "journal", o.files.journal[m.file]))
	if err != nil {
		return place{}, err
	}
	defer f.Close()
	c := chunk{off: m.off}
	r := reader{index: m.index, seq: m.seq, loose: true}
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
