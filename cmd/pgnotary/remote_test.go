package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// TestRemoteTail takes a stream up again after it broke off, behind what was
// received, and ends with it.
func TestRemoteTail(t *testing.T) {
	answers := []func(w http.ResponseWriter){
		func(w http.ResponseWriter) { fmt.Fprint(w, ": hello\n\nid: 3\ndata: {\"a\":1}\n\nid: 7\ndata: {\"b\"") },
		func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) },
		func(w http.ResponseWriter) { fmt.Fprint(w, "id: 7\ndata: {\"b\":2}\n\nid: 9\n\n") },
		func(w http.ResponseWriter) { fmt.Fprint(w, "id: 11\ndata: {\"c\":3}\n\nevent: end\ndata: {}\n\n") },
	}
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, fmt.Sprintf("%s %s %s", r.Header.Get("Authorization"), r.URL, r.Header.Get("Last-Event-ID")))
		answer := answers[0]
		answers = answers[1:]
		answer(w)
	}))
	defer srv.Close()
	t.Setenv(tokenVariable, " pgn_x\n")
	l, err := openRemote(srv.URL+"/", "", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	err = l.tail(t.Context(), url.Values{"limit": {"9"}}, func(object []byte) error {
		got = append(got, string(object))
		return nil
	})
	if err != nil || strings.Join(got, " ") != `{"a":1} {"b":2} {"c":3}` {
		t.Errorf("tail = %v, %v", got, err)
	}
	want := []string{
		"Bearer pgn_x /api/v1/tail?limit=9 ", "Bearer pgn_x /api/v1/tail?limit=8 3",
		"Bearer pgn_x /api/v1/tail?limit=8 3", "Bearer pgn_x /api/v1/tail?limit=7 9",
	}
	if strings.Join(asked, "\n") != strings.Join(want, "\n") {
		t.Errorf("asked\n%s\nwant\n%s", strings.Join(asked, "\n"), strings.Join(want, "\n"))
	}
}

func TestRemoteErrors(t *testing.T) {
	var answer func(w http.ResponseWriter)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w) }))
	defer srv.Close()
	t.Setenv(tokenVariable, "pgn_x")
	l, err := openRemote(srv.URL, "", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("enough")
	for _, tt := range []struct {
		name   string
		answer func(w http.ResponseWriter)
		want   string
	}{
		{"refused", func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"error":"role auditor is needed"}`)
		}, "the server answered 403 Forbidden: role auditor is needed"},
		{"something else", func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) }, "not what pgnotary says"},
		{"elsewhere", func(w http.ResponseWriter) {
			w.Header().Set("Location", "http://example.com/")
			w.WriteHeader(http.StatusFound)
		}, "the server answered 302 Found"},
		{"cut short", func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "{}\n")
		}, "the answer breaks off: unexpected EOF"},
		{"half a line", func(w http.ResponseWriter) { fmt.Fprint(w, "{}\n{") }, "the answer breaks off"},
	} {
		answer = tt.answer
		err := l.search(t.Context(), nil, func([]byte) error { return nil })
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: search = %v, want %s", tt.name, err, tt.want)
		}
	}
	answer = func(w http.ResponseWriter) { fmt.Fprint(w, "id: 1\ndata: {}\n\n") }
	if err := l.tail(t.Context(), url.Values{}, func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("tail = %v, want %v", err, stop)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := l.tail(ctx, url.Values{}, func([]byte) error { cancel(); return nil }); err != nil {
		t.Errorf("tail that is interrupted = %v", err)
	}
	srv.Close()
	if err := l.tail(t.Context(), url.Values{}, nil); err == nil {
		t.Error("tail of nobody waits for ever")
	}
}

func TestOpenRemote(t *testing.T) {
	t.Setenv(tokenVariable, "")
	for _, tt := range []struct{ url, want string }{
		{"127.0.0.1:6433", "is not an address"},
		{"ftp://127.0.0.1", "is not an address"},
		{"http://", "is not an address"},
		{"http://audit.example:6433", "a token does not travel in the clear"},
		{"http://localhost:6433", "--url needs a token"},
		{"https://audit.example", "--url needs a token"},
	} {
		if _, err := openRemote(tt.url, "", io.Discard); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("openRemote(%q) = %v, want %s", tt.url, err, tt.want)
		}
	}
	if _, err := openRemote("https://audit.example", t.TempDir()+"/none", io.Discard); err == nil {
		t.Error("a token file that is not there is no error")
	}
}
