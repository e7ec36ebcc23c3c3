package web

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/pgnotary/pgnotary/internal/tree"
)

// forever is for resources whose bytes can never change: a tile of a given
// width is a function of entries that are durable.
const forever = "public, max-age=31536000, immutable"

func (h *handler) checkpoint(w http.ResponseWriter, _ *http.Request) {
	body, err := h.Log.Checkpoint()
	if err != nil {
		h.fail(w, "read checkpoint", err)
		return
	}
	w.Header().Set("Cache-Control", "no-cache")
	answer(w, "text/plain; charset=utf-8", body)
}

func (h *handler) vkey(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-cache")
	answer(w, "text/plain; charset=utf-8", []byte(strings.TrimSuffix(h.Log.VKey(), "\n")+"\n"))
}

// tile answers for tiles of hashes and for bundles of entries. It shows what
// the latest checkpoint covers and nothing beyond it.
func (h *handler) tile(w http.ResponseWriter, r *http.Request) {
	level, n, width, err := tree.ParseTilePath(strings.TrimPrefix(r.URL.Path, "/log/"))
	if err != nil {
		http.Error(w, "not found: no such tile path", http.StatusNotFound)
		return
	}
	signed, err := h.Log.Checkpoint()
	if err != nil {
		h.fail(w, "read checkpoint", err)
		return
	}
	size, err := checkpointSize(signed)
	if err != nil {
		h.fail(w, "read checkpoint", err)
		return
	}
	if !covered(size, level, n, width) {
		http.Error(w, "not found: beyond the checkpoint", http.StatusNotFound)
		return
	}
	var body []byte
	if level == tree.Entries {
		body, err = h.Log.Bundle(n, width)
	} else {
		body, err = h.Log.Tile(level, n, width)
	}
	if err != nil {
		h.fail(w, "read tile", err) // which may have been pruned
		return
	}
	w.Header().Set("Cache-Control", forever)
	answer(w, "application/octet-stream", body)
}

// covered reports whether a tree of size entries has hashes for the first
// width places of tile n at this level.
func covered(size int64, level int, n int64, width int) bool {
	if level > 0 {
		if level >= 8 {
			return false // 256^8 entries do not fit an int64
		}
		size >>= 8 * level
	}
	if n > size/tree.Width {
		return false
	}
	return n*tree.Width+int64(width) <= size
}

// checkpointSize reads the second line of a checkpoint this process signed.
func checkpointSize(signed []byte) (int64, error) {
	lines := bytes.SplitN(signed, []byte("\n"), 3)
	if len(lines) < 3 {
		return 0, fmt.Errorf("checkpoint of %d lines", len(lines))
	}
	size, err := strconv.ParseInt(string(lines[1]), 10, 64)
	if err != nil || size < 0 {
		return 0, fmt.Errorf("checkpoint size %.20q is no number", lines[1])
	}
	return size, nil
}

// succession serves how the keys of the log named one another.
func (h *handler) succession(w http.ResponseWriter, _ *http.Request) {
	b := h.Log.Succession()
	if b == nil {
		http.Error(w, "this log always had one key", http.StatusNotFound)
		return
	}
	answer(w, "text/plain; charset=utf-8", b)
}

// logJSON serves the file that says what the log is.
func (h *handler) logJSON(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-cache")
	answer(w, "application/json", h.Log.LogJSON())
}
