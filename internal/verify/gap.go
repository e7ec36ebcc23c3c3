package verify

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pgnotary/pgnotary/internal/event"
)

// gaps is what is not there, and what the log's own entries say about that. It
// is put together at the end: what explains a gap comes later in the log.
type gaps struct {
	start   int64 // entries before it were not read: pruned, or trusted
	root    hash  // of the tree before it, as the first file claims
	trusted bool

	expired []span             // entries of segments without a value file
	erased  map[int64]struct{} // entries whose value was erased
	copies  map[int64]struct{} // the same, in copies
	kept    map[int64]struct{} // entries whose value is in a copy
	blobs   map[int64][16]byte // entries whose value is in a blob that is not there
	lacking []lacking          // copies that are not where they are made

	// What entries that a checkpoint covers explain.
	leaves  map[int64]string   // prune: root in hex, by where the rest begins
	values  int64              // prune: values before it may be gone
	ordered map[int64]struct{} // erase: may be gone
	done    map[int64]struct{} // erase: must be gone
}

// lacking says that an entry goes back to an earlier one, whose copy is not in
// the value file of its segment, or, if that is "", that it is in the journal and takes a copy only when it is sealed.
type lacking struct {
	by, to int64
	values string
}

type span struct{ from, to int64 }

func (s span) has(index int64) bool { return index >= s.from && index < s.to }

func newGaps() gaps {
	m := func() map[int64]struct{} { return map[int64]struct{}{} }
	return gaps{erased: m(), copies: m(), kept: m(), blobs: map[int64][16]byte{}, leaves: map[int64]string{}, ordered: m(), done: m()}
}

// begin finds out where reading begins: at entry 0, at the first file that
// pruning left, or near a trusted checkpoint. In the latter cases the tree before is
// what the file's header says; a later signed root vouches for that.
func (c *check) begin(r *reader) error {
	if c.trusted > 0 {
		c.gap.trusted = r.skipTo(c.trusted)
	}
	var name, magic string
	switch {
	case len(r.segs) > 0:
		name, magic = "segment/"+r.segs[0], leafMagic
	case len(r.names) > 0:
		name = "journal/" + r.names[0]
	default:
		return nil
	}
	_, digits, _ := strings.Cut(name, "/")
	first, err := strconv.ParseInt(digits[:20], 10, 64)
	if err != nil || first == 0 || first%tileWidth != 0 || first > maxIndex {
		return nil // the reader will say what is wrong with the name
	}
	var b []byte
	var rows []byte
	if magic != "" {
		s, err := openSealed(c.dir, name, magic)
		if bad, ok := errors.AsType[*errSealed](err); ok {
			c.add(Finding{What: bad.what, Why: bad.why})
			return nil
		} else if err != nil {
			return err
		}
		b = s.header
		if err := s.f.Close(); err != nil {
			return err
		}
		rows = b[sealedFixed-1 : len(b)-4]
		r.seq, r.last, c.gap.root = le64(b[40:]), le32(b[56:]), hash(b[64:96])
	} else {
		if b, err = readHeader(filepath.Join(c.dir, name)); err != nil {
			return err
		}
		if len(b) < fileFixed+4 || int(le32(b[8:])) > len(b) || le32(b[8:]) < fileFixed+4 {
			return nil
		}
		rows = b[fileFixed-1 : le32(b[8:])-4]
		r.seq, r.last, c.gap.root = le64(b[28:]), le32(b[36:]), hash(b[40:72])
	}
	hashes, why := parseRows(rows)
	if why == "" && (!c.tree.restore(first, hashes) || c.tree.root() != c.gap.root) {
		why = "the tiles in its header do not make the root there"
	}
	if why != "" {
		c.find(name, "%s", why)
		c.tree = frontier{full: c.tree.full}
		return nil
	}
	r.index, c.gap.start = first, first
	if c.gap.trusted {
		c.leaveOut()
		return nil
	}
	c.Pruned = first
	c.prunedTiles(hashes)
	c.prunedRoots()
	c.wanted = slices.DeleteFunc(c.wanted, func(w wanted) bool { return w.size < first })
	return nil
}

func readHeader(name string) ([]byte, error) {
	f, err := openPlain(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxHeader))
}

// skipTo drops the files before the one that holds the entry at size. It
// reports whether there were some.
func (r *reader) skipTo(size int64) (skipped bool) {
	name := fmt.Sprintf("%020d.", size)
	i, found := slices.BinarySearch(r.names, name+"journal")
	if !found {
		i--
	}
	if i >= 0 {
		skipped = i > 0 || len(r.segs) > 0
		r.segs, r.names = nil, r.names[i:]
		return skipped
	}
	if i, found = slices.BinarySearch(r.segs, name+"zst"); !found {
		i--
	}
	if i > 0 {
		r.segs = r.segs[i:]
	}
	return i > 0
}

// prunedTiles checks the tiles that are kept of entries that are not there any
// more: each must be what the hash above it stands for, up to the rows of the header.
func (c *check) prunedTiles(rows [][]hash) {
	for level := len(rows); level >= 2; level-- { // those of level 1 stand for bundles
		n := c.gap.start >> (8 * level) / tileWidth * tileWidth
		for i := range rows[level-1] {
			c.prunedTile(level-1, n+int64(i), rows[level-1][i])
		}
	}
}

func (c *check) prunedTile(level int, n int64, want hash) {
	name := tilePath(level, n)
	row, err := c.tileRow(name)
	if err != nil {
		c.find(name, "%v", err)
		return
	}
	c.files.tiles[name] = true
	if rootOf(slices.Clone(row)) != want {
		c.find(name, "does not agree with the tile above it")
		return
	}
	for i := range row {
		if level > 1 {
			c.prunedTile(level-1, n*tileWidth+int64(i), row[i])
		}
	}
}

// tileRow reads a full tile.
func (c *check) tileRow(name string) ([]hash, error) {
	b, err := readSmall(filepath.Join(c.dir, filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("is missing")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	row := make([]hash, tileWidth)
	if len(b) != len(row)*len(row[0]) {
		return nil, fmt.Errorf("has %d bytes", len(b))
	}
	for i := range row {
		row[i] = hash(b[i*len(row[i]):])
	}
	return row, nil
}

// prunedRoots compares checkpoints of sizes whose entries are not there any
// more, as far as the tiles that are kept reach.
func (c *check) prunedRoots() {
	for _, w := range c.wanted {
		switch {
		case w.size >= c.gap.start || w.size == 0:
		case w.size%tileWidth != 0:
			c.note("%s is of size %d, within a bundle that was pruned: it cannot be compared any more", w.name, w.size)
		default:
			got, err := c.rootAt(w.size)
			if err != nil {
				c.find(w.name, "cannot be compared: %v", err)
			} else if got != w.root {
				c.find(w.name, "its root at size %d is not that of the tiles that are kept", w.size)
			}
		}
	}
}

// rootAt returns the root at an aligned size before the start, from tiles.
func (c *check) rootAt(size int64) (root hash, err error) {
	have := false
	for height := 8; size>>height > 0; height++ {
		if size>>height&1 == 0 {
			continue
		}
		at := size >> height << height
		at -= 1 << height // where the subtree begins, once the higher bits are left
		level := height / 8
		from, n := at>>(8*level), 1<<(height%8)
		row, err := c.rowAt(level, from/tileWidth)
		if err != nil {
			return root, err
		}
		i := int(from % tileWidth)
		if i+n > len(row) {
			return root, errors.New("a tile is too short")
		}
		h := rootOf(slices.Clone(row[i : i+n]))
		if have {
			h = nodeHash(&h, &root)
		}
		root, have = h, true
	}
	if !have {
		return root, errors.New("no size")
	}
	return root, nil
}

// rowAt returns the hashes of a tile: a file, or the incomplete one of the tree.
func (c *check) rowAt(level int, n int64) ([]hash, error) {
	if c.tree.size>>(8*(level+1)) == n {
		if level <= len(c.tree.rows) {
			return c.tree.rows[level-1], nil
		}
		return nil, errors.New("no such tile")
	}
	name := tilePath(level, n)
	if c.lastTile.name != name {
		row, err := c.tileRow(name)
		if err != nil {
			return nil, fmt.Errorf("%s %w", name, err)
		}
		c.lastTile.name, c.lastTile.row = name, row
	}
	return c.lastTile.row, nil
}

// maxLate bounds the entries, and the roots, kept from behind the checkpoint.
const maxLate = 1 << 16

// explains takes what an entry of kind prune or erase says of others, if a
// signature vouches for it.
func (c *check) explains(e *entry) {
	if c.signed.size < 0 || e.index < c.signed.size {
		c.says(e)
	} else if len(c.late) < maxLate {
		c.late = append(c.late, entry{index: e.index, leaf: bytes.Clone(e.leaf)})
	}
}

// batchEnd takes the end of a batch: its size and root may be those of a later checkpoint.
func (c *check) batchEnd(root hash) {
	if len(c.late) == 0 {
		return
	}
	if len(c.ends) >= maxLate { // the one that is wanted is among the last
		c.ends = append(c.ends[:0], c.ends[maxLate/2:]...)
	}
	c.ends = append(c.ends, wanted{size: c.tree.size, root: root})
}

// signedLate takes the checkpoint that was there when all entries had been
// read: in a log in use, things go while it is checked, and what explains
// that comes behind the checkpoint it was checked with.
func (c *check) signedLate(b []byte) {
	if len(c.late) == 0 || b == nil {
		return
	}
	n, err := c.openSigned("checkpoint", b)
	if err != nil || !slices.ContainsFunc(c.ends, func(w wanted) bool { return w.size == n.size && w.root == n.root }) {
		return // it explains nothing
	}
	for i := range c.late {
		if e := &c.late[i]; e.index < n.size {
			c.says(e)
		}
	}
}

// says takes what such an entry says.
func (c *check) says(e *entry) {
	l, err := event.Parse(e.leaf)
	if err != nil {
		return
	}
	fact := func(key string) string {
		for _, f := range l.Facts {
			if f.Key == key {
				return f.Val
			}
		}
		return ""
	}
	switch l.Kind {
	case event.KindPrune:
		until, err := strconv.ParseInt(fact("until"), 10, 64)
		switch {
		case err != nil || until < 0 || until > e.index:
			c.findAt(e.index, "leaf", "a prune entry with a malformed place")
		case fact("what") == "leaves":
			c.gap.leaves[until] = fact("root")
			c.gap.values = max(c.gap.values, until)
		case fact("what") == "values":
			c.gap.values = max(c.gap.values, until)
		}
	case event.KindErase:
		list, ok := parseRanges(fact("entries"), e.index)
		if !ok {
			c.findAt(e.index, "leaf", "an erase entry with a malformed list")
			return
		}
		to := c.gap.ordered
		if fact("phase") == "done" {
			to = c.gap.done
		}
		for _, i := range list {
			to[i] = struct{}{}
		}
	}
}

// maxRange bounds what one erase entry can name.
const maxRange = 1 << 20

// parseRanges decodes "5,9-12", ascending, below limit.
func parseRanges(s string, limit int64) (out []int64, ok bool) {
	last := int64(-1)
	for part := range strings.SplitSeq(s, ",") {
		a, b, isRange := strings.Cut(part, "-")
		if !isRange {
			b = a
		}
		from, err1 := strconv.ParseInt(a, 10, 64)
		to, err2 := strconv.ParseInt(b, 10, 64)
		if err1 != nil || err2 != nil || from <= last || to < from || to >= limit || to-from > maxRange || len(out) > maxRange {
			return nil, false
		}
		for i := from; i <= to; i++ {
			out = append(out, i)
		}
		last = to
	}
	return out, true
}

// explainStart is called at the end: a missing beginning must have its entry.
func (c *check) explainStart() {
	if g := &c.gap; g.start > 0 && !g.trusted && !g.pruned() {
		c.find("entries", "those before %d are not there, and no prune entry that a checkpoint covers explains it", g.start)
	}
}

// explain is called at the end: whatever is not there must have its entry.
func (c *check) explain() {
	c.explainStart()
	c.order.compareCopies("", nil)
	g := &c.gap
	for _, s := range g.expired {
		if s.to > g.values {
			c.findAt(s.from, "value", "the values of entries %d to %d are not there, and no prune entry that a checkpoint covers explains it", s.from, s.to-1)
		}
	}
	gone := func(index int64) bool {
		return index < g.start || slices.ContainsFunc(g.expired, func(s span) bool { return s.has(index) })
	}
	for _, set := range []map[int64]struct{}{g.erased, g.copies} {
		for _, index := range slices.Sorted(maps.Keys(set)) {
			// What was pruned may have taken the entry that explains a copy with it.
			if _, ok := g.ordered[index]; !ok && index >= g.start {
				c.findAt(index, "value", "it was erased, and no erase entry that a checkpoint covers explains it")
			}
		}
	}
	// A blob goes before the file that names it.
	for _, index := range slices.Sorted(maps.Keys(g.blobs)) {
		if _, ok := g.ordered[index]; !ok && index >= g.values {
			c.findAt(index, fmt.Sprintf("blob/%x.blob", g.blobs[index]), "is missing")
		}
	}
	for _, index := range slices.Sorted(maps.Keys(g.done)) {
		_, erased := g.erased[index]
		if _, kept := g.kept[index]; kept || !erased && !gone(index) {
			c.findAt(index, "value", "an erase entry says that it is gone, but it is there")
		}
	}
	c.Erased = int64(len(g.erased))
	c.explainCopies(gone)
}

// explainCopies looks at the copies that are not there. Sealing makes one of whatever can be read, here or in
// another copy: what can be now, could be then. What was erased could not.
func (c *check) explainCopies(gone func(int64) bool) {
	g := &c.gap
	var lost lacking
	n := 0
	for _, x := range g.lacking {
		_, erased := g.erased[x.to]
		_, ordered := g.ordered[x.to]
		_, emptied := g.copies[x.to]
		_, kept := g.kept[x.to]
		switch {
		case erased || ordered || emptied:
		case x.values != "" && (kept || !gone(x.to)):
			c.findAt(x.by, x.values, "has no copy of entry %d, to which this one goes back", x.to)
		case !kept && gone(x.to) && !g.trusted:
			lost, n = x, n+1
		}
	}
	if n > 0 {
		c.note("entry %d goes back to entry %d, which is gone, and there is no copy (%d such cases): its session had more than 1,024 statements, or it was erased by an entry that is gone too, or somebody took the copy away", lost.by, lost.to, n)
	}
}

// goesBack notes that the entry by goes back to one before what is read now.
func (o *order) goesBack(by, ref int64) {
	if to, ok := event.Index(ref); ok && o.refs != nil && to < o.refsFrom {
		o.refs[to] = by
	}
}

// copiesFrom begins to note what entries from first on go back to.
func (o *order) copiesFrom(first int64) { o.refsFrom, o.refs = first, map[int64]int64{} }

// compareCopies is called at the end of what copiesFrom began.
func (o *order) compareCopies(values string, copies []entryCopy) {
	for i := range copies {
		delete(o.refs, copies[i].index)
	}
	for _, to := range slices.Sorted(maps.Keys(o.refs)) {
		if len(o.gap.lacking) < maxLate {
			o.gap.lacking = append(o.gap.lacking, lacking{o.refs[to], to, values})
		}
	}
	o.refsFrom, o.refs = 0, nil
}

// pruned reports whether an entry explains the missing beginning.
func (g *gaps) pruned() bool {
	for until, root := range g.leaves {
		if until > g.start || until == g.start && root == hex.EncodeToString(g.root[:]) {
			return true
		}
	}
	return false
}

// copy checks a copy of an entry of an earlier segment.
func (c *check) copy(where string, e *entryCopy) {
	for _, f := range e.flaws {
		c.findAt(e.index, where, "in the copy: %s", f.why)
	}
	if e.form == valueErased {
		c.gap.copies[e.index] = struct{}{}
	} else {
		c.gap.kept[e.index] = struct{}{}
	}
	if e.form == valueBlob {
		c.refers(&e.entry)
	}
	n := e.index / tileWidth
	row, err := c.rowAt(1, n/tileWidth)
	switch {
	case err != nil:
		c.findAt(e.index, where, "its copy cannot be compared: %v", err)
	case int(n%tileWidth) >= len(row) || row[n%tileWidth] != e.root():
		c.findAt(e.index, where, "its copy is not the entry: the path does not lead to its bundle")
	}
}

// same reports whether rows are those of the tree so far.
func (f *frontier) same(rows [][]hash) bool {
	return slices.EqualFunc(f.incomplete(), rows, func(a, b []hash) bool { return slices.Equal(a, b) })
}

func rootText(h *hash) string { return base64.StdEncoding.EncodeToString(h[:]) }

// sealedChunk takes a chunk of a segment; see chunk.
func (o *order) sealedChunk(c *chunk) bool {
	if h := c.sealed; h != nil {
		o.missingTiles()
		o.segs = append(o.segs, c.first)
		if got := o.tree.root(); got != h.root {
			o.find(h.name, "the root in its header is not that of the entries before: %s, want %s", rootText(&h.root), rootText(&got))
			return false
		}
		if !o.tree.same(h.rows) {
			o.find(h.name, "the tiles in its header are not those of the entries before")
			return false
		}
		o.copiesFrom(c.first)
		o.indexRead(c.first, c.badIndex)
		if !h.hasValue {
			o.gap.expired = append(o.gap.expired, span{c.first, c.first + h.count})
		}
	}
	if c.broken != "" {
		o.find("segment", "%s; nothing behind it was read", c.broken)
		return false
	}
	for i := range c.roots {
		o.bundle(c.entries[i*tileWidth:(i+1)*tileWidth], &c.roots[i])
	}
	if c.end == nil {
		return true
	}
	if got := o.tree.root(); got != c.end.root {
		o.find(c.end.name, "the root that its header gives for its end is not that of the entries; nothing behind it was read")
		return false
	}
	w := worker{blobs: filepath.Join(o.dir, "blob")}
	for i := range c.end.copies {
		e := &c.end.copies[i]
		e.hash = leafHash(e.leaf)
		w.entry(&e.entry, nil)
		o.copy(c.end.values, e)
	}
	if c.end.values == "" {
		clear(o.refs) // they went with the values
	}
	o.compareCopies(c.end.values, c.end.copies)
	return true
}

// bundle takes 256 entries whose root is known.
func (o *order) bundle(entries []entry, root *hash) {
	// A signed root within the bundle needs the hashes one by one.
	single := len(o.wanted) > 0 && o.wanted[0].size < o.tree.size+tileWidth
	for i := range entries {
		o.entry(&entries[i])
		if single {
			o.tree.append(entries[i].hash)
			o.compareRoots()
		}
	}
	if !single {
		o.tree.appendAt(8, *root)
		o.compareRoots()
	}
}

func le64(b []byte) uint64 {
	_ = b[7]
	return uint64(le32(b)) | uint64(le32(b[4:]))<<32
}

func le32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}
