package web

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/pgnotary/pgnotary/internal/access"
	"github.com/pgnotary/pgnotary/internal/query"
)

// api adds the paths below /api/v1 that show entries; docs/api.md is their manual.
func (h *handler) api(mux *http.ServeMux) {
	searches, tails := make(slots, maxSearches), make(slots, maxTails)
	mux.HandleFunc("GET /api/v1/search", h.reading("search", access.Auditor, searches, h.search))
	mux.HandleFunc("GET /api/v1/tail", h.reading("tail", access.Auditor, tails, h.tail))
	mux.HandleFunc("GET /api/v1/entry/{index}", h.reading("entry", access.Auditor, searches, h.entry))
	mux.HandleFunc("GET /api/v1/proof/{index}", h.reading("proof", access.Auditor, searches, h.proof))
	mux.HandleFunc("GET /api/v1/sessions", h.reading("sessions", access.Auditor, searches, h.sessions))
	mux.HandleFunc("GET /api/v1/me", h.me)
	mux.HandleFunc("POST /api/v1/login", h.login)
	mux.HandleFunc("POST /api/v1/logout", h.logout)
	mux.HandleFunc("GET /api/v1/", func(w http.ResponseWriter, _ *http.Request) {
		h.refuse(w, &refusal{http.StatusNotFound, "there is no such path"})
	})
}

// filter returns what the parameters of a request select, if the token's owner
// may ask that: an answer to a question about values tells of them.
func filter(words url.Values, v visit) (query.Filter, error) {
	f, err := query.ParseFilter(words, time.Now())
	if err != nil {
		return f, &refusal{http.StatusBadRequest, err.Error()}
	}
	if v.Role >= access.Investigator {
		return f, nil
	}
	for _, c := range query.Conditions() {
		if c.Content && slices.ContainsFunc(words[c.Name], func(text string) bool { return text != "" }) {
			return f, &refusal{http.StatusForbidden, c.Name + ": role investigator is needed, the token's is " + v.Role.String()}
		}
	}
	return f, nil
}

// parameters returns what a request asks. One that cannot be read to its end is
// refused: what it leaves out would select more.
func parameters(r *http.Request) (url.Values, error) {
	words, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, "the parameters cannot be read: " + err.Error()}
	}
	return words, nil
}

// parametersOf is parameters for a request that knows those of these names only.
func parametersOf(r *http.Request, names ...string) (url.Values, error) {
	words, err := parameters(r)
	for name := range words {
		if !slices.Contains(names, name) {
			return nil, &refusal{http.StatusBadRequest, name + ": there is no such parameter"}
		}
	}
	return words, err
}

// shown returns of s what somebody may see.
func shown(s *query.Statement, v visit) *query.Statement {
	if v.Role >= access.Investigator {
		return s
	}
	return s.FactsOnly()
}

// takeAll takes out of words whether every entry is to be read.
func takeAll(words url.Values) (all bool, err error) {
	given := words["all"]
	if all = slices.Equal(given, []string{"true"}); !all && given != nil && !slices.Equal(given, []string{"false"}) {
		return false, &refusal{http.StatusBadRequest, "all is true or false"}
	}
	words.Del("all")
	return all, nil
}

// search answers with statements, one JSON object a line. If it has to stop
// in the middle it cuts the connection, so nobody takes a part for the whole.
func (h *handler) search(w http.ResponseWriter, r *http.Request, v visit) error {
	words, err := parameters(r)
	if err != nil {
		return err
	}
	find := h.Entries.Search
	switch order := words["order"]; {
	case len(order) == 1 && order[0] == "newest":
		find = h.Entries.SearchBack
	case order != nil:
		return &refusal{http.StatusBadRequest, "order is newest, or left out for that of the log"}
	}
	words.Del("order")
	all, err := takeAll(words)
	if err != nil {
		return err
	}
	f, err := filter(words, v)
	if err != nil {
		return err
	}
	f.All = all
	if err := h.Entries.CatchUpTo(r.Context(), v.index); err != nil {
		return err
	}
	if f.End == 0 || f.End > v.index { // what was there when it was asked, so not the asking
		f.End = v.index
	}
	out := newStream(w, "application/x-ndjson")
	defer out.close()
	var buf []byte
	err = find(r.Context(), f, func(s *query.Statement) error {
		buf = append(shown(s, v).AppendJSON(buf[:0]), '\n')
		return out.write(buf)
	})
	return h.ended(out, err)
}

// ended ends the answer of a stream.
func (h *handler) ended(out *stream, err error) error {
	if err == nil {
		err = out.flush()
	}
	if err == nil || errors.Is(err, context.Canceled) && out.clean {
		return nil
	}
	if !out.failed() && !errors.Is(err, context.Canceled) { // ours, not the client's
		h.Logger.Error("cannot finish an answer", slog.Any("error", err))
	}
	panic(http.ErrAbortHandler)
}

// tail answers with statements as they come, as Server-Sent Events. The id of
// each is the index up to which everything was sent.
func (h *handler) tail(w http.ResponseWriter, r *http.Request, v visit) error {
	words, err := parameters(r)
	if err != nil {
		return err
	}
	all, err := takeAll(words)
	if err != nil {
		return err
	}
	f, err := filter(words, v)
	if err != nil {
		return err
	}
	f.All = all
	from, err := h.tailFrom(r, &f, words)
	if err != nil {
		return err
	}
	out := newStream(w, "text/event-stream")
	defer out.close()
	out.clean = true // a stream may end anywhere: whoever reads it comes again
	out.heartbeat(heartbeatEvery)
	if err := out.write([]byte(": pgnotary\n\n")); err != nil {
		return h.ended(out, err)
	}
	var buf []byte
	err = h.Entries.Follow(r.Context(), from, f, func(s *query.Statement, next int64) error {
		if !h.guardian.still(r, v.Token) {
			return context.Canceled // who comes again hears why
		}
		buf = buf[:0]
		if next > 0 {
			buf = append(strconv.AppendInt(append(buf, "id: "...), next-1, 10), '\n')
		}
		if s != nil {
			buf = append(shown(s, v).AppendJSON(append(buf, "data: "...)), '\n')
		}
		return out.write(append(buf, '\n'))
	})
	if err == nil && r.Context().Err() == nil { // the limit, or the time or entry up to which it goes
		err = out.write([]byte("event: end\ndata: {}\n\n"))
	}
	return h.ended(out, err)
}

// tailFrom says where a stream begins: behind what the client has seen, where
// its filter says, or now.
func (h *handler) tailFrom(r *http.Request, f *query.Filter, words url.Values) (int64, error) {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		last, err := strconv.ParseInt(id, 10, 64)
		if err != nil || last < 0 || last >= 1<<60 {
			return 0, &refusal{http.StatusBadRequest, "Last-Event-ID is no index"}
		}
		f.Since = time.Time{} // it may count back from now, and that has moved on
		return last + 1, nil
	}
	if !f.Since.IsZero() || words.Get("from") != "" {
		return 0, nil
	}
	return h.Entries.Size()
}

// index returns the index in a request's path.
func index(r *http.Request) (int64, error) {
	n, err := strconv.ParseInt(r.PathValue("index"), 10, 64)
	if err != nil || n < 0 {
		return 0, &refusal{http.StatusBadRequest, "an index is a number from 0 on"}
	}
	return n, nil
}

// entry answers with the object of `show --json`.
func (h *handler) entry(w http.ResponseWriter, r *http.Request, v visit) error {
	i, err := index(r)
	if err != nil {
		return err
	}
	if _, err := parametersOf(r); err != nil {
		return err
	}
	// What was there before the request is shown at once: in a log that nobody else
	// writes now, only the next checkpoint says that the request's own entry is durable.
	if err := h.Entries.CatchUpTo(r.Context(), v.index); err != nil {
		return err
	}
	if i >= v.index { // it, or one since
		if err := h.Entries.CatchUp(r.Context()); err != nil {
			return err
		}
	}
	s, e, value, err := h.Entries.Detail(r.Context(), i)
	if err != nil {
		return missing(err)
	}
	if v.Role < access.Investigator {
		value = nil
	}
	answer(w, "application/json", append(query.AppendEntryJSON(nil, shown(s, v), &e, value), '\n'))
	return nil
}

func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &refusal{http.StatusNotFound, "there is no such entry"}
	}
	return err
}

// proof answers with a proof file; with the parameter value=true the value is in it.
func (h *handler) proof(w http.ResponseWriter, r *http.Request, v visit) error {
	i, err := index(r)
	if err != nil {
		return err
	}
	words, err := parametersOf(r, "value")
	if err != nil {
		return err
	}
	withValue := false
	if text := words.Get("value"); text != "" {
		if withValue, err = strconv.ParseBool(text); err != nil {
			return &refusal{http.StatusBadRequest, "value is true or false"}
		}
	}
	if withValue && v.Role < access.Investigator {
		return &refusal{http.StatusForbidden, "value: role investigator is needed, the token's is " + v.Role.String()}
	}
	if err := h.Entries.CatchUp(r.Context()); err != nil {
		return err
	}
	if _, err := h.Entries.Entry(i); err != nil {
		return missing(err)
	}
	proof, err := h.Prove(r.Context(), i, withValue)
	if err != nil {
		return &refusal{http.StatusConflict, err.Error()}
	}
	w.Header().Set("Content-Disposition", `attachment; filename="`+strconv.FormatInt(i, 10)+`.tlog-proof"`)
	answer(w, "text/plain; charset=utf-8", proof)
	return nil
}

// sessionsSince is the stretch of the log that sessions are taken from if
// nobody says another.
const sessionsSince = time.Hour

// sessions answers with the sessions that entries since some time speak of.
func (h *handler) sessions(w http.ResponseWriter, r *http.Request, _ visit) error {
	words, err := parametersOf(r, "since", "limit", "all")
	if err != nil {
		return err
	}
	every, err := takeAll(words)
	if err != nil {
		return err
	}
	now := time.Now()
	f, err := query.ParseFilter(words, now)
	if err != nil {
		return &refusal{http.StatusBadRequest, err.Error()}
	}
	if f.Since.IsZero() {
		f.Since = now.Add(-sessionsSince)
	}
	all, err := h.Entries.Sessions(r.Context(), f.Since, f.Limit, every)
	if err != nil {
		return err
	}
	h.json(w, struct {
		Since    time.Time       `json:"since"`
		Sessions []query.Session `json:"sessions"`
	}{f.Since.UTC(), all})
	return nil
}
