package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
)

// fetchTimeout bounds one request; maxBundle is what 256 leaves can be at most.
const (
	fetchTimeout = 30 * time.Second
	maxBundle    = tileWidth * (2 + 1<<16)
)

// remote is a log that is served over HTTP (c2sp.org/tlog-tiles).
type remote struct {
	base   string // ends in /log/
	client *http.Client
}

// URL checks a log over HTTP: base is the address under which /log/ is,
// with or without that. It
// fetches every leaf, recomputes the tree and compares it with the signed
// checkpoint; values are not served and so not checked. Without keys in the
// options, it believes the log what its key is, and says so in a note.
func URL(ctx context.Context, base string, opt Options) (*Result, error) {
	r, err := newRemote(base)
	if err != nil {
		return nil, err
	}
	c := &check{opt: opt, files: &listing{}, gap: newGaps()}
	c.Findings, c.Notes = []Finding{}, []string{}
	if err := c.remote(ctx, r); err != nil {
		return nil, fmt.Errorf("verify %s: %w", base, err)
	}
	return c.result(), nil
}

func newRemote(base string) (*remote, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("verify: %q is not the URL of a log", base)
	}
	return &remote{base: strings.TrimSuffix(strings.TrimSuffix(base, "/"), "/log") + "/log/", client: &http.Client{Timeout: fetchTimeout}}, nil
}

// Succession fetches how the keys of the log at base named one another,
// unchecked; nil if it does not say.
func Succession(ctx context.Context, base string) []byte {
	r, err := newRemote(base)
	if err != nil {
		return nil
	}
	b, err := r.get(ctx, "succession", maxSmall)
	if err != nil {
		return nil
	}
	return b
}

// Checkpoint fetches the checkpoint that the log at base serves, unchecked.
func Checkpoint(ctx context.Context, base string) ([]byte, error) {
	r, err := newRemote(base)
	if err != nil {
		return nil, err
	}
	return r.get(ctx, "checkpoint", maxSmall)
}

// catchUp bounds the wait for a checkpoint as large as one that was given: a
// log serves one only when enough witnesses cosigned it, and the first of
// them have it a moment earlier.
const catchUp = 5 * time.Second

// checkpoint fetches the checkpoint, again and again while it is behind.
func (c *check) checkpoint(ctx context.Context, r *remote) (signed []byte, err error) {
	var want int64
	for _, f := range c.opt.Checkpoints {
		want = max(want, sizeOf(f.Data))
	}
	if c.opt.Trusted != nil {
		want = max(want, sizeOf(c.opt.Trusted.Data))
	}
	for until := time.Now().Add(catchUp); ; {
		signed, err = r.get(ctx, "checkpoint", maxSmall)
		if err != nil || sizeOf(signed) >= want || time.Now().After(until) {
			return signed, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// sizeOf returns the size in a checkpoint that was not checked, or 0.
func sizeOf(signed []byte) int64 {
	lines := strings.SplitN(string(signed), "\n", 3)
	if len(lines) < 3 {
		return 0
	}
	n, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func (c *check) remote(ctx context.Context, r *remote) error {
	signed, err := c.checkpoint(ctx, r)
	if err != nil {
		return err
	}
	if c.log.vkey, err = c.keyFor(ctx, r, signed); err != nil {
		return err
	}
	if !c.follow(ctx, r, signed) {
		former, err := c.former(ctx, r)
		if err != nil {
			return err
		}
		c.keysFrom("/log/succession", former)
	}
	c.log.origin, _, _ = strings.Cut(c.log.vkey, "+")
	c.Origin = c.log.origin
	c.checkpoints("/log/checkpoint", signed, nil)
	if c.signed.size < 0 {
		return nil
	}
	c.order = newOrder(c)
	c.order.again = func(index int64) (place, error) { return r.place(ctx, index, c.signed.size) }
	if err := c.remoteStart(ctx, r); err != nil {
		return err
	}
	c.leaveOut()
	c.compareRoots()
	if err := c.bundles(ctx, r); err != nil {
		return err
	}
	c.compareSizes()
	c.explainStart()
	c.note("values were not checked: a log does not serve them")
	return nil
}

// leaveOut takes what lies before the start off the list of roots to compare.
func (c *check) leaveOut() {
	c.wanted = slices.DeleteFunc(c.wanted, func(w wanted) bool {
		if w.size >= c.gap.start {
			return false
		}
		why := "were pruned"
		if c.gap.trusted {
			why = "were not read, since a later checkpoint is trusted"
		}
		c.note("%s is of size %d, and entries before %d %s: it was not compared", w.name, w.size, c.gap.start, why)
		return true
	})
}

// keyFor returns the key of the log that signed the checkpoint: the user's
// own, or what the log itself says.
func (c *check) keyFor(ctx context.Context, r *remote, signed []byte) (string, error) {
	origin, _, _ := strings.Cut(string(signed), "\n")
	for _, k := range c.opt.VKeys {
		if strings.HasPrefix(k, origin+"+") && strings.Contains(string(signed), "— "+origin+" "+keyIDPrefix(k)) {
			return k, nil
		}
	}
	if len(c.opt.VKeys) > 0 {
		return c.opt.VKeys[0], nil // it does not fit, and openNote will say so
	}
	b, err := r.get(ctx, "vkey", maxSmall)
	return strings.TrimSuffix(string(b), "\n"), err
}

// follow takes, of the user's keys, one that signed the checkpoint or whose
// successor did, the oldest if there are several: what it signed before counts too.
func (c *check) follow(ctx context.Context, r *remote, signed []byte) bool {
	opens := func(vkey string) bool { _, err := openNote(signed, vkey); return err == nil }
	if len(c.opt.VKeys) < 2 && opens(c.log.vkey) {
		return false
	}
	rest, err := r.get(ctx, "succession", maxSmall)
	for ; err == nil && len(rest) > 0; _, rest, _ = bytes.Cut(rest, []byte("\n")) {
		for _, vkey := range c.opt.VKeys {
			// The user's key need not be the one the log was founded with.
			if k, err := parseSuccession(rest, vkey); err == nil && slices.ContainsFunc(k.vkeys, opens) {
				c.log.vkey, c.keys = vkey, k
				return true
			}
		}
	}
	return false
}

// former goes from the key that the log gives for its own back to the first, which log.json names: each key signed
// which one it took the place of. It returns the succession, nil if there was one key, or a key of the user's is the one to begin with.
func (c *check) former(ctx context.Context, r *remote) (succession []byte, err error) {
	if len(c.opt.VKeys) > 0 {
		return nil, nil
	}
	b, err := r.get(ctx, "log.json", maxSmall)
	if errors.Is(err, errNotServed) {
		return nil, nil // only the present key is known
	} else if err != nil {
		return nil, err
	}
	f, err := parseLogFile(b)
	if err != nil {
		c.find("/log/log.json", "%v", err)
		return nil, nil
	}
	sum := sha256.Sum256(b)
	c.log.hash = hex.EncodeToString(sum[:]) // entry 0 has it, if it was not pruned
	if f.vkey == c.log.vkey {
		return nil, nil
	}
	if succession, err = r.get(ctx, "succession", maxSmall); err != nil && !errors.Is(err, errNotServed) {
		return nil, err
	}
	if k, err := parseSuccession(succession, f.vkey); err != nil || !slices.Contains(k.vkeys, c.log.vkey) {
		c.find("/log/succession", "does not lead from the first key of the log, %s, to the one it gives for its own, %s", f.vkey, c.log.vkey)
		return nil, nil
	}
	c.log.vkey = f.vkey
	return succession, nil
}

// keyIDPrefix returns what the base64 of a signature by that key begins with:
// the first 3 of the 4 bytes of the key id.
func keyIDPrefix(vkey string) string {
	_, rest, _ := strings.Cut(vkey, "+")
	id, _, _ := strings.Cut(rest, "+")
	var b [4]byte
	if n, _ := fmt.Sscanf(id, "%02x%02x%02x%02x", &b[0], &b[1], &b[2], &b[3]); n != 4 {
		return "\n" // nowhere in a line
	}
	return base64.StdEncoding.EncodeToString(b[:3])
}

// bundle is an entry bundle on its way.
type bundle struct {
	data []byte
	err  error
}

// ahead is how many bundles are fetched at one time.
const ahead = 4

// bundles fetches all entries and puts them in order.
func (c *check) bundles(ctx context.Context, r *remote) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	queue := make(chan chan bundle, ahead)
	go func() {
		defer close(queue)
		for n := c.gap.start / tileWidth; n*tileWidth < c.signed.size; n++ {
			one := make(chan bundle, 1)
			select {
			case queue <- one:
			case <-ctx.Done():
				return
			}
			go func() {
				data, err := r.bundle(ctx, n, c.signed.size)
				one <- bundle{data, err}
			}()
		}
	}()
	for one := range queue {
		b := <-one
		if b.err != nil {
			return b.err
		}
		if !c.bundle(b.data) {
			return nil
		}
		if c.opt.Progress != nil {
			c.opt.Progress(c.Entries, c.signed.size)
		}
	}
	return ctx.Err()
}

// bundle puts the entries of the next bundle in order.
func (c *check) bundle(b []byte) bool {
	first := c.tree.size
	want := int(min(c.signed.size-first, tileWidth))
	leaves, ok := splitBundle(b, want)
	if !ok {
		c.findAt(first, "tile/entries", "the bundle is not one of %d entries", want)
		return false
	}
	for i, leaf := range leaves {
		e := entry{index: first + int64(i), leaf: leaf, hash: leafHash(leaf)}
		var p event.Promise
		if err := c.skim.Skim(leaf, &e.Skimmed, &p); err != nil {
			e.Skimmed = event.Skimmed{}
			e.flaws = []flaw{{"leaf", err.Error()}}
		}
		c.order.entry(&e)
		c.tree.append(e.hash)
		c.compareRoots()
	}
	return true
}

// splitBundle takes a bundle of exactly n entries apart: each a length of two
// bytes, big-endian, and the leaf.
func splitBundle(b []byte, n int) (leaves [][]byte, ok bool) {
	for range n {
		if len(b) < 2 {
			return nil, false
		}
		size := int(binary.BigEndian.Uint16(b))
		if b = b[2:]; len(b) < size {
			return nil, false
		}
		leaves, b = append(leaves, b[:size:size]), b[size:]
	}
	return leaves, len(b) == 0
}

// bundle fetches the bundle that holds entries from 256*n on, in a log of that size.
func (r *remote) bundle(ctx context.Context, n, size int64) ([]byte, error) {
	path := "tile/entries" + tilePath(0, n)[len("tile/0"):]
	if w := size - n*tileWidth; w < tileWidth {
		path += fmt.Sprintf(".p/%d", w)
	}
	return r.get(ctx, path, maxBundle)
}

// place fetches an entry again.
func (r *remote) place(ctx context.Context, index, size int64) (place, error) {
	n := index / tileWidth
	b, err := r.bundle(ctx, n, size)
	if err != nil {
		return place{}, err
	}
	leaves, ok := splitBundle(b, int(min(size-n*tileWidth, tileWidth)))
	if !ok {
		return place{}, errors.New("its bundle was changed meanwhile")
	}
	var l event.Leaf
	if err := event.Skim(leaves[index%tileWidth], &l); err != nil {
		return place{}, err
	}
	return place{l.Session, l.Kind}, nil
}

// get fetches a resource of at most limit bytes, after decompression.
func (r *remote) get(ctx context.Context, path string, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("get %s: %s: %w", req.URL, resp.Status, errNotServed)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s", req.URL, resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", req.URL, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("get %s: more than %d bytes", req.URL, limit)
	}
	return b, nil
}
