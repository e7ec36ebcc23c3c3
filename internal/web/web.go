// Package web answers HTTP requests about a running proxy: whether it is
// ready, its metrics, the page that people look at, and the log itself as the
// tiles of c2sp.org/tlog-tiles, from which anyone can check it.
//
//	GET /                          the page, built from ui/; what it shows it asks for at the paths below
//	GET /api/v1/status             Status as JSON
//	GET /api/v1/...                entries, for those with a token (docs/api.md)
//	GET /proof                     a page that checks proofs in the browser, with no further request
//	GET /healthz                   200 while the process answers
//	GET /readyz                    200 while statements are accepted and recorded, else 503
//	GET /metrics                   Prometheus text
//	GET /log/checkpoint            the latest signed checkpoint
//	GET /log/vkey                  the key line that checks it
//	GET /log/succession            how former keys named it, if there were any
//	GET /log/log.json              what the log is: its first key is in it, and its hash in entry 0
//	GET /log/tile/<L>/<N>[.p/<W>]  hashes of the tree
//	GET /log/tile/entries/<N>[.p/<W>]  leaves
//
// Nothing here changes anything but that each look at entries below /api/v1
// becomes an entry itself, before it is answered. Statement texts and
// parameters are values: only tokens of the role investigator see them.
package web

import (
	"context"
	"crypto/tls"
	"embed"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/pgnotary/pgnotary/internal/access"
	"github.com/pgnotary/pgnotary/internal/query"
)

//go:embed dist
var dist embed.FS

// A Log is the read side of the log being written. Its methods may be called
// concurrently.
type Log interface {
	// Checkpoint returns the latest signed checkpoint, or an error that wraps
	// fs.ErrNotExist if there is none yet.
	Checkpoint() ([]byte, error)
	// Tile returns the hashes of a tile; the caller has made sure that it lies
	// within the size of a checkpoint.
	Tile(level int, n int64, width int) ([]byte, error)
	// Bundle returns width entries from n*256 on, each with its length in front.
	Bundle(n int64, width int) ([]byte, error)
	// VKey returns the key line that checks the checkpoints.
	VKey() string
	// Succession returns how the log's keys named one another, nil if there was one.
	Succession() []byte
	// LogJSON returns the file that says what the log is.
	LogJSON() []byte
}

// Config says what the handler is about.
type Config struct {
	Log Log
	// Ready returns nil while the proxy accepts and records statements, and
	// otherwise why not. It may be called concurrently, as may Status.
	Ready  func() error
	Status func() Status
	// Entries is the log as the API shows it.
	Entries *query.Log
	// Prove returns the proof of an entry, with its value or without.
	Prove func(ctx context.Context, index int64, withValue bool) ([]byte, error)
	// Tokens returns those that are accepted now.
	Tokens func() access.Tokens
	// Record makes a look at entries an entry itself, which is durable when it
	// returns its index.
	Record func(context.Context, Read) (int64, error)
	// Metrics answers /metrics.
	Metrics http.Handler
	// Loopback says that the server listens on a loopback address only. Then a
	// request that names another host is refused: it comes from a web page that
	// made its own name point here.
	Loopback bool
	Logger   *slog.Logger
}

// Status is what the page shows of health. Times are RFC 3339.
type Status struct {
	Version    string `json:"version"`
	Origin     string `json:"origin"`
	Started    string `json:"started"`
	Now        string `json:"now"`
	Ready      bool   `json:"ready"`
	Problem    string `json:"problem,omitempty"` // why it is not ready
	Durability string `json:"durability"`
	Listen     string `json:"listen"`
	Upstream   string `json:"upstream"`

	Entries        int64  `json:"entries"` // durable entries
	CheckpointSize int64  `json:"checkpoint_size"`
	CheckpointRoot string `json:"checkpoint_root,omitempty"` // base64
	CheckpointTime string `json:"checkpoint_time,omitempty"`

	Sessions      int64   `json:"sessions"` // open now
	SessionsTotal uint64  `json:"sessions_total"`
	Statements    uint64  `json:"statements_total"`
	Refusals      uint64  `json:"refusals_total"`
	Bytes         uint64  `json:"bytes_total"` // both directions
	CommitMicros  float64 `json:"commit_us"`   // mean time of a commit so far
	BatchEntries  float64 `json:"batch_entries"`
	Backlog       int64   `json:"backlog_bytes"`   // queued and not yet durable
	LogBytes      uint64  `json:"log_bytes_total"` // written to journal files
	Commits       Counts  `json:"commits"`         // by the time they took
	Sinks         []Sink  `json:"sinks,omitempty"`

	Witnesses *WitnessCounts `json:"witnesses,omitempty"` // if it asks any

	Interruptions *Interruptions `json:"interruptions,omitempty"` // filled in here
}

// A Sink tells how far a sink is.
type Sink struct {
	Name      string  `json:"name"`
	Next      int64   `json:"next"`        // the first entry that is not known to be delivered
	Lag       int64   `json:"lag_entries"` // of the log from there on
	Behind    float64 `json:"lag_s"`       // age of the entry Next, 0 if there is none
	Sent      uint64  `json:"sent_total"`
	Failures  uint64  `json:"failures_total"`
	Shortened uint64  `json:"shortened_total"`
}

// WitnessCounts is what witnesses answered since the start of the process.
type WitnessCounts struct {
	Size         int64  `json:"size"` // entries that enough of them cosigned
	Cosignatures uint64 `json:"cosignatures_total"`
	Failures     uint64 `json:"failures_total"` // requests that brought none
	Alarms       uint64 `json:"alarms_total"`   // times one began to disagree
	// Keys are the verifier keys of the witnesses in the policy.
	Keys []string `json:"keys"`
}

// Counts is a Histogram as JSON: counts[i] observations were of at most
// bounds[i] seconds and more than the bound before; the last one is the rest.
type Counts struct {
	Bounds []float64 `json:"bounds_s"`
	Counts []uint64  `json:"counts"`
	Sum    float64   `json:"sum_s"`
}

// NewHandler returns the handler of all paths.
func NewHandler(c Config) http.Handler {
	h := &handler{Config: c, guardian: newGuardian(&c)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", h.health)
	mux.HandleFunc("GET /readyz", h.ready)
	mux.HandleFunc("GET /api/v1/status", h.status)
	h.api(mux)
	mux.Handle("GET /metrics", c.Metrics)
	mux.HandleFunc("GET /log/checkpoint", h.checkpoint)
	mux.HandleFunc("GET /log/vkey", h.vkey)
	mux.HandleFunc("GET /log/succession", h.succession)
	mux.HandleFunc("GET /log/log.json", h.logJSON)
	mux.HandleFunc("GET /log/tile/", h.tile)
	mux.HandleFunc("GET /{$}", h.file("dist/index.html", "text/html; charset=utf-8"))
	mux.HandleFunc("GET /proof", h.proofPage)
	mux.HandleFunc("GET /app.css", h.file("dist/app.css", "text/css; charset=utf-8"))
	mux.HandleFunc("GET /app.js", h.file("dist/app.js", "text/javascript; charset=utf-8"))
	mux.HandleFunc("GET /icon.svg", h.file("dist/icon.svg", "image/svg+xml"))
	return h.guard(http.NewCrossOriginProtection().Handler(mux))
}

type handler struct {
	Config
	guardian      *guardian
	interruptions interruptionCount
}

// guard sets the headers every answer has and refuses foreign host names.
func (h *handler) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; "+
			"img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "+
			"require-trusted-types-for 'script'; trusted-types 'none'")
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("Referrer-Policy", "no-referrer")
		head.Set("Cross-Origin-Resource-Policy", "same-origin")
		head.Set("Cache-Control", "no-store")
		if h.Loopback && !localHost(r.Host) {
			http.Error(w, "this server answers to localhost and addresses only", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// localHost reports whether a Host header is localhost or an address.
func localHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	return host == "localhost" || net.ParseIP(host) != nil
}

func (h *handler) health(w http.ResponseWriter, _ *http.Request) {
	answer(w, "text/plain; charset=utf-8", []byte("ok\n"))
}

func (h *handler) ready(w http.ResponseWriter, _ *http.Request) {
	if err := h.Ready(); err != nil {
		http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	answer(w, "text/plain; charset=utf-8", []byte("ready\n"))
}

// status tells everybody on this machine how the log is doing, and others who
// have a token.
func (h *handler) status(w http.ResponseWriter, r *http.Request) {
	if !h.Loopback {
		if _, err := h.guardian.who(r); err != nil {
			h.refuse(w, err)
			return
		}
	}
	s := h.Status()
	s.Interruptions = h.interruptions.get(r.Context(), h.Entries)
	h.json(w, s)
}

func (h *handler) file(name, contentType string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		body, err := dist.ReadFile(name)
		if err != nil {
			h.fail(w, "read page", err)
			return
		}
		answer(w, contentType, body)
	}
}

// fail answers with 404 for what does not exist, else with 500 and a line in
// the diagnostics: the reason may name files, which are nobody's business.
func (h *handler) fail(w http.ResponseWriter, doing string, err error) {
	if errors.Is(err, fs.ErrNotExist) {
		http.Error(w, "not found", http.StatusNotFound)
		return
	}
	h.Logger.Error("cannot answer HTTP request", slog.String("doing", doing), slog.Any("error", err))
	http.Error(w, "internal error: "+doing, http.StatusInternalServerError)
}

func answer(w http.ResponseWriter, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	// A client that went away is no error of ours.
	_, _ = w.Write(body)
}

// Serve answers requests on ln until ctx ends; searches and streams end then,
// other running requests get a few seconds. It closes ln. It speaks TLS if
// secure is not nil.
func Serve(ctx context.Context, ln net.Listener, secure *tls.Config, h http.Handler, logger *slog.Logger) error {
	ln = limited(ln)
	srv := &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		TLSConfig:         secure,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	stopped := make(chan error, 1) // one value, read once: never blocks the sender
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		if srv.Shutdown(grace) == nil {
			stopped <- nil
			return
		}
		stopped <- srv.Close() // requests took too long: cut them
	})
	serve := srv.Serve
	if secure != nil {
		serve = func(ln net.Listener) error { return srv.ServeTLS(ln, "", "") }
	}
	err := serve(ln)
	if !stop() { // the shutdown above has begun, wait for its end
		err = <-stopped
	}
	return errors.Join(err, closeUnlessClosed(ln))
}

func closeUnlessClosed(c io.Closer) error {
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
