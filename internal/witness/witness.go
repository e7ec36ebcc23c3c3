// Package witness is both ends of c2sp.org/tlog-witness: the Server that
// cosigns a log's checkpoint if it continues the one before, and the Feeder by
// which a log asks the witnesses of its policy.
//
//	log ── POST add-checkpoint: old size, consistency proof, signed checkpoint ──▶ witness
//	log ◀─ 200: cosignature · 409: size it holds · 422: not a continuation ────── witness
//	anyone ── GET <SHA-256 of the origin>/checkpoint ──▶ latest checkpoint it cosigned
//
// A witness promises one thing: all that it ever cosigned for a log are
// prefixes of one tree. So the log, even with its key in the hands of a thief,
// cannot show two people two histories that both have the cosignature.
//
// Files of a server, all in one directory:
//
//	LOCK                 one process at a time
//	key                  its private key, unless that is elsewhere
//	log/<hash>           one for each log: its keys and the latest checkpoint (store.go)
//	request/             what the administrator asks of a server that runs (change.go)
//	evidence/<hash>      requests that a key of the log signed and that contradict what it signed before
package witness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// A Server answers the requests of logs and monitors. Its methods may be
// called concurrently.
type Server struct {
	dir    string
	fs     durable.FS
	signer *checkpoint.Cosigner
	now    func() time.Time
	logger *slog.Logger
	lock   io.Closer

	mu   sync.Mutex      // held from the check of a checkpoint until it is on the disk
	logs map[string]*log // by origin; those registered, and no others
	// evidence is how many pieces there are: anybody who has a log's
	// key can make more, so there is a limit.
	evidence int
}

// A log is what a witness knows about one log. All of it is on the disk.
type log struct {
	origin string
	vkeys  []string
	latest []byte // checkpoint with the log's signature and ours; nil before the first
	size   int64  // of latest, 0 before the first
	root   [32]byte
}

// Config are the parameters of a server.
type Config struct {
	Dir    string // made if it is missing
	Signer *checkpoint.Cosigner
	FS     durable.FS       // default durable.OS
	Now    func() time.Time // default time.Now
	Logger *slog.Logger     // default: discarded
}

// Open opens the witness in cfg.Dir, takes its lock and reads what it
// cosigned so far. A file that is damaged, or names a checkpoint that this key
// did not cosign, is an error: a witness without its memory is none.
func Open(cfg Config) (*Server, error) {
	if cfg.FS == nil {
		cfg.FS = durable.OS
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{dir: cfg.Dir, fs: cfg.FS, signer: cfg.Signer, now: cfg.Now, logger: cfg.Logger, logs: map[string]*log{}}
	for _, name := range []string{"", "log", "evidence"} {
		if err := durable.MkdirAll(s.fs, s.path(name), 0o700); err != nil {
			return nil, fmt.Errorf("open witness: %w", err)
		}
	}
	var err error
	if s.lock, err = s.fs.Lock(s.path("LOCK")); err != nil {
		return nil, fmt.Errorf("open witness in %s: %w", s.dir, err)
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open witness in %s: %w", s.dir, err), s.lock.Close())
	}
	return s, nil
}

// Close gives the lock back. No request may be running.
func (s *Server) Close() error { return s.lock.Close() }

// VKey returns the key line that others check the cosignatures with.
func (s *Server) VKey() string { return s.signer.VKey() }

// Logs returns the origins of the logs it witnesses and the sizes it cosigned.
func (s *Server) Logs() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]int64{}
	for origin, l := range s.logs {
		out[origin] = l.size
	}
	return out
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-cache")
	if r.URL.Path == "/add-checkpoint" {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", "POST")
			http.Error(w, "add-checkpoint wants a POST", http.StatusMethodNotAllowed)
			return
		}
		s.serveAdd(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	if hash, ok := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/"), "/checkpoint"); ok {
		s.serveLatest(w, hash)
		return
	}
	http.NotFound(w, r)
}

// serveLatest is the monitoring part: the latest checkpoint cosigned.
func (s *Server) serveLatest(w http.ResponseWriter, hash string) {
	var latest []byte
	s.mu.Lock()
	for origin, l := range s.logs {
		if OriginHash(origin) == hash {
			latest = l.latest
		}
	}
	s.mu.Unlock()
	if latest == nil {
		http.Error(w, "this witness cosigned nothing for such a log", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(latest) // a client that went away is no error of ours
}

// An answer is what an add-checkpoint gets when it is not cosigned.
type answer struct {
	code int
	held int64 // size this witness holds, with code 409
	why  string
}

func (a *answer) Error() string { return a.why }

func (s *Server) serveAdd(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		http.Error(w, "cannot read the request", http.StatusBadRequest)
		return
	}
	line, err := s.add(r.Context(), body)
	if err == nil {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(line)
		return
	}
	a, ok := errors.AsType[*answer](err)
	switch {
	case !ok: // our own trouble: say so here, not to strangers
		s.logger.Error("cannot cosign", slog.Any("error", err))
		http.Error(w, "this witness cannot cosign now", http.StatusInternalServerError)
	case a.code == http.StatusConflict:
		w.Header().Set("Content-Type", "text/x.tlog.size")
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, strconv.FormatInt(a.held, 10)+"\n")
	default:
		http.Error(w, a.why, a.code)
	}
}

// add checks a request in the order of the specification and returns the
// cosignature. From the check to the disk the log is locked, so two requests
// cannot both be checked against the same past.
func (s *Server) add(ctx context.Context, body []byte) ([]byte, error) {
	r, err := parseRequest(body)
	if err != nil {
		return nil, &answer{code: http.StatusBadRequest, why: err.Error()}
	}
	origin, _, _ := strings.Cut(string(r.checkpoint), "\n")
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil { // the client gave up while others were served
		return nil, &answer{code: http.StatusServiceUnavailable, why: "too late"}
	}
	l := s.logs[origin]
	if l == nil {
		return nil, &answer{code: http.StatusNotFound, why: "unknown log"}
	}
	c, vkey, err := checkpoint.OpenAny(r.checkpoint, l.vkeys)
	switch {
	case errors.Is(err, checkpoint.ErrEmptyRoot):
		return nil, &answer{code: http.StatusUnprocessableEntity, why: err.Error()}
	case errors.Is(err, checkpoint.ErrMalformed):
		return nil, &answer{code: http.StatusBadRequest, why: err.Error()}
	case err != nil:
		return nil, &answer{code: http.StatusForbidden, why: err.Error()}
	}
	if a := l.judge(r, c); a != nil {
		s.suspect(l, r, c, a)
		return nil, a
	}
	line, err := s.signer.Cosign(c, s.now().Unix())
	if err != nil {
		return nil, err
	}
	signed, err := checkpoint.SignedBy(r.checkpoint, vkey)
	if err != nil {
		return nil, err
	}
	next := *l
	next.size, next.root = c.Size, c.Root
	if next.latest, _, err = checkpoint.AddCosignature(signed, line, s.signer.VKey()); err != nil {
		return nil, err
	}
	// If we die in here: the old state is there, or the new one, and nobody has
	// the cosignature. A cosignature is only given out once it is remembered.
	if err := s.save(&next); err != nil {
		return nil, err
	}
	*l = next
	return line, nil
}

// judge says why a checkpoint of the log is not to be cosigned, nil if it is.
func (l *log) judge(r *request, c checkpoint.Checkpoint) *answer {
	switch {
	case r.old > c.Size:
		return &answer{code: http.StatusBadRequest, why: "the old size is larger than that of the checkpoint"}
	case r.old != l.size:
		return &answer{code: http.StatusConflict, held: l.size, why: "this witness holds another size"}
	case r.old == c.Size && len(r.proof) > 0, r.old == 0 && len(r.proof) > 0:
		return &answer{code: http.StatusUnprocessableEntity, why: "a proof where none is needed"}
	case r.old == c.Size && l.latest != nil && c.Root != l.root:
		return &answer{code: http.StatusUnprocessableEntity, why: "another root of the same size was cosigned"}
	case r.old == 0:
		return nil // everything continues nothing
	}
	if err := tree.CheckConsistency(r.proof, c.Size, c.Root, l.size, l.root); err != nil {
		return &answer{code: http.StatusUnprocessableEntity, why: err.Error()}
	}
	return nil
}

// suspect keeps a request that a key of the log signed and that may
// contradict what this witness cosigned. Only another root of the same
// size is proof by itself; a failed consistency proof can be a bad proof only,
// so it is kept beside what it would have to be consistent with.
func (s *Server) suspect(l *log, r *request, c checkpoint.Checkpoint, a *answer) {
	fork := c.Size == l.size && l.latest != nil && c.Root != l.root
	if a.code != http.StatusUnprocessableEntity && !fork {
		return
	}
	s.logger.Error("a checkpoint of the log contradicts the one cosigned before", slog.String("origin", l.origin),
		slog.Int64("size", c.Size), slog.Int64("cosigned_size", l.size), slog.Bool("same_size_other_root", fork), slog.String("why", a.why))
	if err := s.keep(l, r); err != nil {
		s.logger.Error("cannot keep the evidence", slog.Any("error", err))
	}
}
