package verify

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// listing is what lies in the data directory besides log.json and checkpoint.
type listing struct {
	segments  []string               // names of leaf files, ascending
	values    map[string]bool        // names of value files: whether the leaf file was listed
	sealed    map[string]fs.FileInfo // of value files: another one takes the place of one that is erased from
	journal   []string               // names of the journal files, ascending
	bytes     int64                  // of all these
	blobs     map[[16]byte]bool      // whether an entry refers to it
	tiles     map[string]bool        // path below the data directory: whether the entries filled it
	indexes   map[int64]string       // of segments, by first entry
	evidence  []string               // of alarms about witnesses
	requests  []string               // what the writer was asked for
	pending   []string               // marks of blobs that perhaps no entry refers to
	leftover  []string               // left from a crash
	unknown   []string
	special   []string // neither files nor directories where a log has some
	lastTiles []string // missing tiles that the last journal file filled
}

// list reads the names of all files below dir.
func list(dir string) (*listing, error) {
	l := &listing{values: map[string]bool{}, sealed: map[string]fs.FileInfo{}, blobs: map[[16]byte]bool{}, indexes: map[int64]string{}, tiles: map[string]bool{}}
	top := dir + string(filepath.Separator) // dir may be a link, as systemd makes of a StateDirectory
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile, as temporary files are
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if rel == "lost+found" {
				return fs.SkipDir // of the file system, if the directory is its root
			}
			if asFile(rel) {
				l.special = append(l.special, rel)
				return fs.SkipDir
			}
			return nil
		}
		return l.add(rel, d)
	})
	slices.Sort(l.journal)
	slices.Sort(l.segments)
	l.sortOut()
	return l, err
}

// within reports whether the files of l that a writer may remove or put
// another in the place of are all in now.
func (l *listing) within(now *listing) bool {
	for _, name := range l.segments {
		if _, found := slices.BinarySearch(now.segments, name); !found {
			return false
		}
	}
	for _, name := range l.journal {
		if _, found := slices.BinarySearch(now.journal, name); !found {
			return false
		}
	}
	for name, info := range l.sealed {
		if other, found := now.sealed[name]; !found || !os.SameFile(info, other) || !info.ModTime().Equal(other.ModTime()) {
			return false
		}
	}
	for id := range l.blobs {
		if _, found := now.blobs[id]; !found {
			return false
		}
	}
	for first := range l.indexes {
		if _, found := now.indexes[first]; !found {
			return false
		}
	}
	return true
}

// single reports whether a log has one file of this name.
func single(rel string) bool {
	switch rel {
	case "LOCK", "key", "key.next", "token", "log.json", "checkpoint", "witnessed", "succession", "held": // held: what the witnesses hold, for pruning
		return true
	}
	return false
}

// asFile reports whether a directory rel is where a log has a file.
func asFile(rel string) bool {
	return single(rel) || strings.Contains(rel, "/") && !strings.HasPrefix(rel, "tile/")
}

func (l *listing) add(rel string, d fs.DirEntry) error {
	top, name, _ := strings.Cut(rel, "/")
	if info, err := d.Info(); err == nil && (top == "journal" || top == "segment") {
		l.bytes += info.Size()
	}
	switch {
	case !d.Type().IsRegular():
		l.special = append(l.special, rel)
	case single(rel):
	case top == "sink" && strings.HasSuffix(name, ".json"): // how far copies were sent elsewhere
	case top == "index" && numbered(name, ".idx"):
		if first, err := strconv.ParseInt(name[:20], 10, 64); err == nil {
			l.indexes[first] = name
		}
	case top == "evidence" && len(name) == 64 && strings.Trim(name, "0123456789abcdef") == "":
		l.evidence = append(l.evidence, rel)
	case strings.HasSuffix(rel, ".tmp"):
		l.leftover = append(l.leftover, rel)
	case top == "journal" && numbered(name, ".journal"):
		l.journal = append(l.journal, name)
	case top == "segment" && numbered(name, ".zst"):
		l.segments = append(l.segments, name)
	case top == "segment" && numbered(name, ".val"):
		l.values[name] = false
		if info, err := d.Info(); err == nil {
			l.sealed[name] = info
		}
	case top == "request" && (strings.HasSuffix(name, ".json") || strings.HasSuffix(name, ".done")):
		l.requests = append(l.requests, rel)
	case top == "pending" && len(name) == 20+1+32 && numbered(name[:20], "") && blobName(name[21:]+".blob"):
		l.pending = append(l.pending, rel)
	case top == "blob" && blobName(name):
		id, _ := hex.DecodeString(strings.TrimSuffix(name, ".blob"))
		l.blobs[[16]byte(id)] = false
	case top == "tile" && name != "":
		l.tiles[rel] = false
	default:
		l.unknown = append(l.unknown, rel)
	}
	return nil
}

// sortOut looks at how segments and journal fit together: as long as a journal
// file is there, it counts, and a segment of the same entries is not finished.
func (l *listing) sortOut() {
	var kept []string
	for _, name := range l.segments {
		switch {
		case len(l.journal) > 0 && name[:20] >= l.journal[0][:20]:
			l.leftover = append(l.leftover, "segment/"+name)
		default:
			kept = append(kept, name)
			if _, ok := l.values[valueName(name)]; ok {
				l.values[valueName(name)] = true
			}
		}
	}
	l.segments = kept
	for name, belongs := range l.values {
		switch {
		case belongs:
		case len(l.journal) > 0 && name[:20] >= l.journal[0][:20]:
			l.leftover = append(l.leftover, "segment/"+name)
		default:
			l.unknown = append(l.unknown, "segment/"+name)
		}
	}
}

func numbered(s, suffix string) bool {
	digits, ok := strings.CutSuffix(s, suffix)
	return ok && len(digits) == 20 && strings.Trim(digits, "0123456789") == ""
}

func blobName(s string) bool {
	id, ok := strings.CutSuffix(s, ".blob")
	return ok && len(id) == 32 && strings.Trim(id, "0123456789abcdef") == ""
}

// begunAt returns the index that the next entry had when a blob was begun: its id, in hex, begins with it.
func begunAt(id string) uint64 {
	n, err := strconv.ParseUint(id[:16], 16, 64)
	if err != nil {
		return math.MaxUint64 // no index
	}
	return n
}

// refers takes a blob that an entry refers to.
func (c *check) refers(e *entry) {
	if _, ok := c.files.blobs[e.blob]; ok {
		c.files.blobs[e.blob] = true
	}
	if e.missing {
		c.gap.blobs[e.index] = e.blob
	}
	// By this a start knows which entries it has to look at before it removes a blob.
	if id := hex.EncodeToString(e.blob[:]); begunAt(id) > uint64(e.index) {
		c.findAt(e.index, "blob/"+id+".blob", "by its id it was begun only at entry %d", begunAt(id))
	}
}

// tilePath returns the path of a full tile (docs/format/tree.md).
func tilePath(level int, n int64) string {
	s := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		s = fmt.Sprintf("x%03d/%s", n%1000, s)
	}
	return fmt.Sprintf("tile/%d/%s", level, s)
}

// checkTile compares a tile that just became full with its file.
func (c *check) checkTile(level int, n int64, row []hash) {
	name := tilePath(level, n)
	got, err := readSmall(filepath.Join(c.dir, filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) {
		// The writer makes up for a missing one at its next start, but only
		// for those that entries of the last file filled.
		c.files.lastTiles = append(c.files.lastTiles, name)
		return
	}
	c.files.tiles[name] = true
	want := make([]byte, 0, tileWidth*len(row[0]))
	for i := range row {
		want = append(want, row[i][:]...)
	}
	if err != nil {
		c.find(name, "cannot be read: %v", err)
	} else if !bytes.Equal(got, want) {
		c.find(name, "does not agree with the entries")
	}
}

// missingTiles is called where a journal file begins: tiles that those before
// it filled must be there.
func (c *check) missingTiles() {
	for _, name := range c.files.lastTiles {
		c.find(name, "is missing")
	}
	c.files.lastTiles = nil
}

// checkFiles looks at all files that no entry led to. Those that came since
// the list was made, in a log in use, are not on it.
func (c *check) checkFiles() {
	for _, name := range c.files.unknown {
		c.find(name, "no file of a log has this name")
	}
	for _, name := range c.files.leftover {
		c.note("%s: left over from a write that was not finished; it means nothing", name)
	}
	for _, name := range c.files.pending {
		if _, id, _ := strings.Cut(name, "-"); !strings.HasPrefix(name, fmt.Sprintf("pending/%020d-", begunAt(id))) {
			c.find(name, "is not of this log's making: it says another index than the value's id; a writer that believed it would remove a value that is recorded")
			continue
		}
		c.note("%s: of a value that is being written, or was when the writer ended; the next start removes it", name)
	}
	for _, name := range c.files.requests {
		c.note("%s: something that the writer was asked for and has not finished, or an answer that nobody took", name)
	}
	for _, name := range c.files.lastTiles {
		c.note("%s: not written yet; the next start does it", name)
	}
	if c.gap.trusted {
		return // what led to the others was not read
	}
	for _, name := range c.files.indexes {
		c.note("index/%s: no segment that was read begins there; it means nothing", name)
	}
	c.keptTiles()
	for name, compared := range c.files.tiles {
		if !compared {
			c.find(name, "no tile of a log of %d entries has this name", c.Entries)
		}
	}
	for id, used := range c.files.blobs {
		if !used {
			c.note("blob/%x.blob: no entry refers to it; it means nothing", id)
		}
	}
}

// keptTiles checks tiles of level 0, which pruning keeps of the bundles that checkpoints of witnesses end in.
func (c *check) keptTiles() {
	for name := range c.files.tiles {
		digits, ok := strings.CutPrefix(name, "tile/0/")
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.NewReplacer("/", "", "x", "").Replace(digits), 10, 64)
		if err != nil || n < 0 || n >= c.tree.size/tileWidth || tilePath(0, n) != name {
			continue // no tile has this name
		}
		c.files.tiles[name] = true
		row, err := c.tileRow(name)
		if err != nil {
			c.find(name, "%v", err)
			continue
		}
		above, err := c.rowAt(1, n/tileWidth)
		if i := int(n % tileWidth); err != nil || i >= len(above) || rootOf(row) != above[i] {
			c.find(name, "does not agree with the tile above it")
		}
	}
}
