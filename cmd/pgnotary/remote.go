package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/pgnotary/pgnotary/internal/query"
)

// tokenVariable names the environment variable for those who keep no token file.
const tokenVariable = "PGNOTARY_TOKEN"

// A remoteLog is a log as the HTTP API of a running proxy shows it.
type remoteLog struct {
	base   string // of the API, without a slash at the end
	token  string
	client *http.Client
	notice io.Writer // is told that a stream is taken up again
}

// openRemote returns the log at an address such as http://127.0.0.1:6433. The
// token is in a file, or in the environment.
func openRemote(address, tokenFile string, notice io.Writer) (*remoteLog, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q is not an address such as http://127.0.0.1:6433", address)
	}
	if u.Scheme == "http" && !localName(u.Hostname()) {
		return nil, withHint(fmt.Errorf("%s: a token does not travel in the clear", address), "use https://")
	}
	token := os.Getenv(tokenVariable)
	if tokenFile != "" {
		b, err := readFile(tokenFile, 4<<10)
		if err != nil {
			return nil, err
		}
		token = string(b)
	}
	if token = strings.TrimSpace(token); token == "" {
		return nil, withHint(errors.New("--url needs a token"), "give --token-file, or put it into %s", tokenVariable)
	}
	return &remoteLog{
		base: strings.TrimRight(u.Scheme+"://"+u.Host+u.Path, "/") + "/api/v1", token: token, notice: notice,
		// No limit on the whole: a stream has none. Nor is the token carried on
		// to where an answer points.
		client: &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// localName reports whether a host is this machine.
func localName(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// A refused request is not worth another try.
type refusedError struct{ status, why string }

func (e *refusedError) Error() string { return "the server answered " + e.status + ": " + e.why }

// get asks for a resource. The caller closes the answer.
func (l *remoteLog) get(ctx context.Context, path string, words url.Values, lastEvent int64) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, l.base+path+"?"+words.Encode(), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+l.token)
	if lastEvent >= 0 {
		r.Header.Set("Last-Event-ID", strconv.FormatInt(lastEvent, 10))
	}
	resp, err := l.client.Do(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // as much of the reason as there is
	var answer struct{ Error string }
	if json.Unmarshal(body, &answer) != nil || answer.Error == "" {
		answer.Error = "not what pgnotary says"
	}
	return nil, &refusedError{resp.Status, plain(answer.Error)}
}

// origin returns the name of the log.
func (l *remoteLog) origin(ctx context.Context) (string, error) {
	body, err := l.get(ctx, "/status", nil, -1)
	if err != nil {
		return "", err
	}
	defer body.Close()
	var status struct{ Origin string }
	if err := json.NewDecoder(io.LimitReader(body, 1<<20)).Decode(&status); err != nil {
		return "", fmt.Errorf("read status: %w", err)
	}
	return status.Origin, nil
}

// search calls fn with each statement that the words select, as JSON.
func (l *remoteLog) search(ctx context.Context, words url.Values, fn func(object []byte) error) error {
	body, err := l.get(ctx, "/search", words, -1)
	if err != nil {
		return err
	}
	defer body.Close()
	return lines(body, func(line []byte) error { return fn(line) })
}

// lines calls fn with each line, without its end. An answer that breaks off is
// an error, and what is behind the last line feed is not shown.
func lines(r io.Reader, fn func(line []byte) error) error {
	for b := bufio.NewReaderSize(r, 64<<10); ; {
		line, err := b.ReadBytes('\n')
		if err != nil {
			if errors.Is(err, io.EOF) && len(line) == 0 {
				return nil
			}
			return fmt.Errorf("the answer breaks off: %w", err)
		}
		if err := fn(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			return err
		}
	}
}

const (
	retryFirst = time.Second
	retryMost  = 15 * time.Second
)

// tail calls fn with each statement that comes, as JSON, until ctx ends, which
// is no error. When the connection is lost it is made again, and the stream
// taken up where it broke off.
func (l *remoteLog) tail(ctx context.Context, words url.Values, fn func(object []byte) error) error {
	s := &remoteTail{log: l, words: words, fn: fn, last: -1, wait: retryFirst}
	if n := words.Get("limit"); n != "" {
		var err error
		if s.left, err = strconv.Atoi(n); err != nil {
			return err
		}
	}
	for {
		err := s.once(ctx)
		_, refused := errors.AsType[*refusedError](err)
		switch {
		case ctx.Err() != nil:
			return nil
		case s.ended || s.failed != nil:
			return s.failed
		case refused || !s.begun:
			return err
		}
		fmt.Fprintf(l.notice, "pgnotary: the stream broke off (%v), trying again\n", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(s.wait):
		}
		s.wait = min(2*s.wait, retryMost)
	}
}

// A remoteTail is a stream over several connections.
type remoteTail struct {
	log    *remoteLog
	words  url.Values
	fn     func([]byte) error
	last   int64 // index up to which all was received, -1 for none
	left   int   // statements still wanted, 0 for any number
	begun  bool  // there was an answer
	ended  bool  // by its limit or its time
	failed error // of fn
	wait   time.Duration
}

// once follows one connection to its end, which is always an error unless the
// stream has ended.
func (s *remoteTail) once(ctx context.Context) error {
	if s.left > 0 {
		s.words.Set("limit", strconv.Itoa(s.left))
	}
	body, err := s.log.get(ctx, "/tail", s.words, s.last)
	if err != nil {
		if s.begun { // the server may be starting again
			if refused, ok := errors.AsType[*refusedError](err); ok && strings.HasPrefix(refused.status, "5") {
				return errors.New(refused.Error())
			}
		}
		return err
	}
	defer body.Close()
	s.begun = true
	var data []byte
	id, event := s.last, ""
	err = lines(body, func(line []byte) error {
		field, value, _ := bytes.Cut(line, []byte(": "))
		switch string(field) {
		case "id":
			n, err := strconv.ParseInt(string(value), 10, 64)
			if err != nil {
				return fmt.Errorf("event id %.40q", value)
			}
			id = n
		case "event":
			event = string(value)
		case "data":
			data = append(data[:0], value...)
		case "": // the end of an event, or a comment
			if len(line) > 0 {
				return nil
			}
			err := s.event(event, data)
			s.last, data, event = id, data[:0], ""
			return err
		}
		return nil
	})
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return err
}

var errStreamEnd = errors.New("the stream has ended")

func (s *remoteTail) event(event string, data []byte) error {
	switch {
	case event == "end":
		s.ended = true
		return errStreamEnd
	case len(data) == 0:
		return nil
	}
	s.wait = retryFirst
	if s.failed = s.fn(data); s.failed != nil {
		return s.failed
	}
	if s.left--; s.left == 0 {
		s.ended = true
		return errStreamEnd
	}
	s.left = max(s.left, 0)
	return nil
}

// decoded makes a statement of an object, for those who do not want JSON.
func decoded(fn func(*query.Statement) error) func([]byte) error {
	return func(object []byte) error {
		var s query.Statement
		if err := json.Unmarshal(object, &s); err != nil {
			return err
		}
		return fn(&s)
	}
}
