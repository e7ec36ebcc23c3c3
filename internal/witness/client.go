package witness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
)

// requestTimeout bounds one request to a witness.
const requestTimeout = 10 * time.Second

// maxAnswer bounds an answer of a witness, in bytes.
const maxAnswer = checkpoint.MaxBytes

// A ConflictError is the answer of a witness that holds another size than it
// was told (409).
type ConflictError struct{ Held int64 }

func (e *ConflictError) Error() string {
	return fmt.Sprintf("the witness holds a checkpoint of size %d", e.Held)
}

// ErrFork is returned if a witness says that a checkpoint is not a
// continuation of the one it cosigned: 422, or 409 without a size, which is
// what omniwitness answers to another root of the same size.
var ErrFork = errors.New("the witness says that it cosigned another history")

// ErrUnknownLog is returned if a witness does not know the log, or the key it
// is signed with.
var ErrUnknownLog = errors.New("the witness does not know the log or its key")

// A Client speaks to one witness. It may be used concurrently.
type Client struct {
	url  string // ends in /
	http *http.Client
}

// NewClient returns a client of the witness with that submission prefix.
func NewClient(prefix string) *Client {
	return &Client{strings.TrimSuffix(prefix, "/") + "/", &http.Client{
		Timeout: requestTimeout,
		// A witness has one address, the one in the policy.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Add asks the witness to cosign a signed checkpoint that continues the one of
// size old. It returns the signature lines of the answer, unchecked, or one of
// the errors above; the body of a refusal is in its text.
func (c *Client) Add(ctx context.Context, old int64, proof [][32]byte, signed []byte) (lines []byte, err error) {
	body := (&request{old, proof, signed}).format()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"add-checkpoint", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	b, err := readAnswer(resp)
	if err != nil {
		return nil, err
	}
	said := strings.TrimSpace(string(b[:min(len(b), 200)]))
	switch resp.StatusCode {
	case http.StatusOK:
		return b, nil
	case http.StatusConflict:
		held, err := strconv.ParseInt(strings.TrimSuffix(string(b), "\n"), 10, 64)
		if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/x.tlog.size") || err != nil || held < 0 || held > maxSize {
			return nil, fmt.Errorf("%w: %s: %q", ErrFork, resp.Status, said)
		}
		return nil, &ConflictError{held}
	case http.StatusUnprocessableEntity:
		return nil, fmt.Errorf("%w: %s: %q", ErrFork, resp.Status, said)
	case http.StatusNotFound, http.StatusForbidden:
		return nil, fmt.Errorf("%w: %s: %q", ErrUnknownLog, resp.Status, said)
	}
	return nil, fmt.Errorf("the witness answers %s: %q", resp.Status, said)
}

// Latest returns the latest checkpoint that the witness cosigned for the log,
// unchecked: the monitoring part, which not every witness serves.
func (c *Client) Latest(ctx context.Context, origin string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+OriginHash(origin)+"/checkpoint", nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	b, err := readAnswer(resp)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("the witness answers %s", resp.Status)
	}
	return b, err
}

func readAnswer(resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(b) > maxAnswer {
		err = fmt.Errorf("the witness answers with more than %d bytes", maxAnswer)
	}
	return b, err
}
