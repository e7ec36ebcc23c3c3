package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/pgnotary/pgnotary/internal/access"
)

// A Read is one look at entries through HTTP. It becomes an entry itself.
type Read struct {
	What    string // search, tail, entry, proof or sessions; "" for a token that was refused
	Reader  string // name of the token
	Role    access.Role
	Client  string // host:port
	Request string // what was asked for: path and parameters
	// Suppressed counts refused tokens that got no entry since the last that did.
	Suppressed int64
}

// Limits on what readers can make the proxy do beside its work.
const (
	maxSearches = 4  // searches, entries and proofs at once
	maxTails    = 32 // streams at once
	maxLogins   = 1000
	loginLasts  = 12 * time.Hour
	maxLogin    = 4 << 10 // bytes of a login request
	// Requests of a token, each of which is an entry, and refused tokens that
	// are one.
	readsPerSecond    = 20
	refusalsPerSecond = 1
)

// A guardian knows who asks. Its methods may be called concurrently.
type guardian struct {
	tokens func() access.Tokens
	record func(context.Context, Read) (int64, error)
	cookie string // its name; cookies do not tell ports apart, so it has the log's in it
	now    func() time.Time

	mu     sync.Mutex
	logins map[[sha256.Size]byte]login
	rates  map[string]*rate // by name of the token; "" is for refused ones
}

// A login is what a cookie stands for. The token is looked up again at each
// request, so that one that was taken back ends its logins.
type login struct {
	token [sha256.Size]byte
	until time.Time
}

// A rate counts what happened in the present second.
type rate struct {
	second     int64
	n          int
	suppressed int64
}

func newGuardian(c *Config) *guardian {
	sum := sha256.Sum256([]byte(c.Log.VKey()))
	return &guardian{
		tokens: c.Tokens, record: c.Record, now: time.Now,
		cookie: fmt.Sprintf("pgnotary_%x", sum[:4]),
		logins: make(map[[sha256.Size]byte]login), rates: make(map[string]*rate),
	}
}

// allow reports whether one more thing may happen this second, and how many
// were refused since the last that was allowed.
func (g *guardian) allow(name string, perSecond int) (suppressed int64, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.rates[name]
	if r == nil {
		r = new(rate)
		g.rates[name] = r // as many as there are tokens
	}
	if s := g.now().Unix(); s != r.second {
		r.second, r.n = s, 0
	}
	if r.n >= perSecond {
		r.suppressed++
		return 0, false
	}
	r.n++
	suppressed, r.suppressed = r.suppressed, 0
	return suppressed, true
}

// A refusal is an answer to a request that gets nothing.
type refusal struct {
	code int
	why  string
}

func (r *refusal) Error() string { return r.why }

// who returns the token of a request: of its Authorization header, or the one
// its cookie stands for. It never returns a role of Nobody.
func (g *guardian) who(r *http.Request) (access.Token, error) {
	if !private(r) {
		return access.Token{}, &refusal{http.StatusForbidden, "entries are shown over TLS or to this machine only: set http-tls-cert and http-tls-key"}
	}
	if secret, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return g.check(r, access.Hash(strings.TrimSpace(secret)))
	}
	cookie, err := r.Cookie(g.cookie)
	if err != nil {
		return access.Token{}, &refusal{http.StatusUnauthorized, "a token is needed"}
	}
	// A page of another origin can make a browser send the cookie, if it is of
	// the same site, which another port is.
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return access.Token{}, &refusal{http.StatusForbidden, "a page of another origin asks"}
	}
	l, ok := g.loginOf(cookie)
	if !ok {
		return access.Token{}, &refusal{http.StatusUnauthorized, "the login has ended: a token is needed"}
	}
	return g.check(r, l.token)
}

// loginOf returns the login that a cookie stands for, unless it has ended.
func (g *guardian) loginOf(cookie *http.Cookie) (login, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l, ok := g.logins[access.Hash(cookie.Value)]
	return l, ok && !g.now().After(l.until)
}

// still reports whether somebody whose request was let in may be shown more: the
// token was not taken back, and the login, if there is one, has not ended.
func (g *guardian) still(r *http.Request, was access.Token) bool {
	if t, ok := g.tokens().Find(was.Hash); !ok || t.Role != was.Role {
		return false
	}
	if strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
		return true
	}
	cookie, err := r.Cookie(g.cookie)
	if err != nil {
		return false
	}
	_, ok := g.loginOf(cookie)
	return ok
}

// check finds the token with this hash. A wrong one is recorded.
func (g *guardian) check(r *http.Request, hash [sha256.Size]byte) (access.Token, error) {
	if t, ok := g.tokens().Find(hash); ok {
		return t, nil
	}
	if suppressed, ok := g.allow("", refusalsPerSecond); ok {
		if _, err := g.record(r.Context(), Read{Client: r.RemoteAddr, Suppressed: suppressed}); err != nil {
			return access.Token{}, &refusal{http.StatusServiceUnavailable, "cannot record the refusal"}
		}
	}
	return access.Token{}, &refusal{http.StatusUnauthorized, "the token is not known"}
}

// private reports whether nobody between can read request and answer.
func private(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// secretRequest is what a login sends.
type secretRequest struct {
	Token string `json:"token"`
}

// whoami is what a login answers.
type whoami struct {
	Name string `json:"name"`
	Role string `json:"role"`
}

// login turns a token into a cookie, for browsers.
func (h *handler) login(w http.ResponseWriter, r *http.Request) {
	var req secretRequest
	if !private(r) {
		h.refuse(w, &refusal{http.StatusForbidden, "tokens are accepted over TLS or from this machine only"})
		return
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxLogin)).Decode(&req); err != nil {
		h.refuse(w, &refusal{http.StatusBadRequest, `want {"token":"…"}`})
		return
	}
	g := h.guardian
	hash := access.Hash(strings.TrimSpace(req.Token))
	t, err := g.check(r, hash)
	if err != nil {
		h.refuse(w, err)
		return
	}
	var b [32]byte
	rand.Read(b[:]) // never fails
	value := base64.RawURLEncoding.EncodeToString(b[:])
	now := g.now()
	g.mu.Lock()
	for id, l := range g.logins {
		if now.After(l.until) || len(g.logins) >= maxLogins {
			delete(g.logins, id)
		}
	}
	g.logins[access.Hash(value)] = login{token: hash, until: now.Add(loginLasts)}
	g.mu.Unlock()
	http.SetCookie(w, &http.Cookie{
		Name: g.cookie, Value: value, Path: "/", MaxAge: int(loginLasts / time.Second),
		Secure: r.TLS != nil, HttpOnly: true, SameSite: http.SameSiteStrictMode,
	})
	h.json(w, whoami{t.Name, t.Role.String()})
}

// logout ends the login of the request's cookie.
func (h *handler) logout(w http.ResponseWriter, r *http.Request) {
	g := h.guardian
	if cookie, err := r.Cookie(g.cookie); err == nil {
		g.mu.Lock()
		delete(g.logins, access.Hash(cookie.Value))
		g.mu.Unlock()
	}
	http.SetCookie(w, &http.Cookie{Name: g.cookie, Path: "/", MaxAge: -1, Secure: r.TLS != nil, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	w.WriteHeader(http.StatusNoContent)
}

func (h *handler) me(w http.ResponseWriter, r *http.Request) {
	t, err := h.guardian.who(r)
	if err != nil {
		h.refuse(w, err)
		return
	}
	h.json(w, whoami{t.Name, t.Role.String()})
}

// slots bounds how many requests of one kind are answered at once.
type slots chan struct{}

// A visit is one look at entries: whose, and at which index it is recorded itself.
type visit struct {
	access.Token
	index int64
}

// reader is a handler for somebody who may read entries.
type reader func(w http.ResponseWriter, r *http.Request, v visit) error

// reading makes an HTTP handler of f: for tokens of at least this role, no more
// at once than there are slots, and each request recorded before it is answered.
func (h *handler) reading(what string, least access.Role, free slots, f reader) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		t, err := h.guardian.who(r)
		switch {
		case err != nil:
		case t.Role < least:
			err = &refusal{http.StatusForbidden, fmt.Sprintf("role %s is needed, the token's is %s", least, t.Role)}
		default:
			if _, ok := h.guardian.allow(t.Name, readsPerSecond); !ok {
				w.Header().Set("Retry-After", "1")
				err = &refusal{http.StatusTooManyRequests, fmt.Sprintf("more than %d requests a second", readsPerSecond)}
			}
		}
		if err != nil {
			h.refuse(w, err)
			return
		}
		select {
		case free <- struct{}{}:
			defer func() { <-free }()
		default:
			w.Header().Set("Retry-After", "1")
			h.refuse(w, &refusal{http.StatusServiceUnavailable, "too many requests at once"})
			return
		}
		index, err := h.Record(r.Context(), Read{What: what, Reader: t.Name, Role: t.Role, Client: r.RemoteAddr, Request: r.URL.RequestURI()})
		if err != nil {
			h.Logger.Error("cannot record a read", slog.Any("error", err))
			h.refuse(w, &refusal{http.StatusServiceUnavailable, "nothing is shown that cannot be recorded"})
			return
		}
		if err := f(w, r, visit{t, index}); err != nil {
			h.refuse(w, err)
		}
	}
}

// refuse answers with {"error":"…"}.
func (h *handler) refuse(w http.ResponseWriter, err error) {
	code, why := http.StatusInternalServerError, "internal error"
	if r, ok := err.(*refusal); ok { //nolint:errorlint // made here, never wrapped
		code, why = r.code, r.why
	} else {
		h.Logger.Error("cannot answer HTTP request", slog.Any("error", err))
	}
	if code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	body, _ := json.Marshal(map[string]string{"error": why}) // strings are no trouble
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // a client that went away is no error of ours
}

// json answers with v.
func (h *handler) json(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		h.fail(w, "encode answer", err)
		return
	}
	answer(w, "application/json", append(body, '\n'))
}
