package sink

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// requestTimeout bounds one request and its answer.
const requestTimeout = 30 * time.Second

// HTTPConfig says where to post to.
type HTTPConfig struct {
	URL    string
	TLS    *tls.Config // nil for the system's authorities
	Token  string      // sent as a bearer token, if any
	Secret []byte      // signs the body, if any
	Origin string      // of the log
	Format string      // of the records, of package export; a webhook names it as the type of its body
}

func (c *HTTPConfig) client() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:errcheck // it is one
	transport.TLSClientConfig = c.TLS
	return &http.Client{
		Transport: transport, Timeout: requestTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// post sends a body and returns the answer to it, at most 64 KiB.
func (c *HTTPConfig) post(ctx context.Context, client *http.Client, contentType string, header map[string]string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("User-Agent", "pgnotary")
	for k, v := range header {
		r.Header.Set(k, v)
	}
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	switch code := resp.StatusCode; {
	case 200 <= code && code < 300:
		return answer, err
	case code == http.StatusBadRequest || code == http.StatusRequestEntityTooLarge || code == http.StatusUnprocessableEntity:
		return nil, &RejectedError{resp.Status}
	default: // also what is a matter of rights or addresses: somebody will put it right
		after, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return nil, &RetryError{errors.New("the receiver answered " + resp.Status), time.Duration(after) * time.Second}
	}
}

// webhook posts records as lines.
type webhook struct {
	HTTPConfig
	client *http.Client
}

// NewWebhook returns a target that posts records, one a line, to an HTTP
// server; it has them once it answers with a status of 200 to 299. The headers
// Pgnotary-Origin, Pgnotary-First and Pgnotary-Last tell what is in the body,
// and Pgnotary-Signature is sha256= and its HMAC, if there is a secret.
func NewWebhook(c HTTPConfig) Target { return &webhook{c, c.client()} }

func (w *webhook) Settle() time.Duration { return 0 }

func (w *webhook) Close() error {
	w.client.CloseIdleConnections()
	return nil
}

func (w *webhook) Send(ctx context.Context, records []Record) error {
	var body []byte
	for i := range records {
		body = append(append(body, records[i].Body...), '\n')
	}
	header := map[string]string{
		"Pgnotary-Origin": w.Origin,
		"Pgnotary-First":  strconv.FormatInt(records[0].Index, 10),
		"Pgnotary-Last":   strconv.FormatInt(records[len(records)-1].Index, 10),
	}
	if len(w.Secret) > 0 {
		mac := hmac.New(sha256.New, w.Secret)
		mac.Write(body)
		header["Pgnotary-Signature"] = "sha256=" + hex.EncodeToString(mac.Sum(nil))
	}
	contentType := "application/x-ndjson"
	if w.Format == "csv" {
		contentType = "text/csv; charset=utf-8; header=absent"
	}
	_, err := w.post(ctx, w.client, contentType, header, body)
	return err
}

// otlp posts records to a collector as OTLP/HTTP in its JSON form.
type otlp struct {
	HTTPConfig
	client  *http.Client
	version string
}

// NewOTLP returns a target that posts records as OpenTelemetry log records
// (OTLP/HTTP with JSON, specification 1.5) to a collector; the URL ends in /v1/logs by custom.
func NewOTLP(c HTTPConfig, version string) Target { return &otlp{c, c.client(), version} }

func (o *otlp) Settle() time.Duration { return 0 }

func (o *otlp) Close() error {
	o.client.CloseIdleConnections()
	return nil
}

// The parts of an ExportLogsServiceRequest that are used.
type (
	otlpRequest struct {
		ResourceLogs []otlpResource `json:"resourceLogs"`
	}
	otlpResource struct {
		Resource struct {
			Attributes []otlpAttribute `json:"attributes"`
		} `json:"resource"`
		ScopeLogs []otlpScope `json:"scopeLogs"`
	}
	otlpScope struct {
		Scope struct {
			Name    string `json:"name"`
			Version string `json:"version"`
		} `json:"scope"`
		LogRecords []otlpRecord `json:"logRecords"`
	}
	otlpRecord struct {
		Time       string          `json:"timeUnixNano"` // 64-bit numbers are strings
		Observed   string          `json:"observedTimeUnixNano"`
		Severity   int             `json:"severityNumber"`
		Text       string          `json:"severityText"`
		EventName  string          `json:"eventName"`
		Body       otlpValue       `json:"body"`
		Attributes []otlpAttribute `json:"attributes"`
	}
	otlpAttribute struct {
		Key   string    `json:"key"`
		Value otlpValue `json:"value"`
	}
	otlpValue struct {
		String *string `json:"stringValue,omitempty"`
		Int    *string `json:"intValue,omitempty"`
	}
)

func otlpString(key, s string) otlpAttribute { return otlpAttribute{key, otlpValue{String: &s}} }

func otlpInt(key string, n int64) otlpAttribute {
	s := strconv.FormatInt(n, 10)
	return otlpAttribute{key, otlpValue{Int: &s}}
}

func (o *otlp) request(records []Record, now time.Time) ([]byte, error) {
	var res otlpResource
	res.Resource.Attributes = []otlpAttribute{
		otlpString("service.name", "pgnotary"), otlpString("service.version", o.version), otlpString("pgnotary.origin", o.Origin),
	}
	var scope otlpScope
	scope.Scope.Name, scope.Scope.Version = "pgnotary", o.version
	for i := range records {
		r := &records[i]
		body := string(r.Body)
		l := otlpRecord{
			Time: strconv.FormatInt(r.Time, 10), Observed: strconv.FormatInt(now.UnixNano(), 10), Severity: 9, Text: "INFO",
			EventName: "pgnotary." + string(r.Kind), Body: otlpValue{String: &body},
			Attributes: []otlpAttribute{otlpString("db.system.name", "postgresql"), otlpString("pgnotary.kind", string(r.Kind)), otlpInt("pgnotary.index", r.Index)},
		}
		if r.Failed {
			l.Severity, l.Text = 17, "ERROR"
		}
		scope.LogRecords = append(scope.LogRecords, l)
	}
	res.ScopeLogs = []otlpScope{scope}
	return json.Marshal(otlpRequest{ResourceLogs: []otlpResource{res}})
}

func (o *otlp) Send(ctx context.Context, records []Record) error {
	body, err := o.request(records, time.Now())
	if err != nil {
		return err
	}
	answer, err := o.post(ctx, o.client, "application/json", nil, body)
	if err != nil {
		return err
	}
	// A collector may take a part only; it does not say which.
	var partial struct {
		PartialSuccess struct {
			Rejected json.Number `json:"rejectedLogRecords"`
			Message  string      `json:"errorMessage"`
		} `json:"partialSuccess"`
	}
	if json.Unmarshal(answer, &partial) == nil {
		if n := partial.PartialSuccess.Rejected; n != "" && n != "0" {
			return &RejectedError{fmt.Sprintf("%s of %d records", n, len(records))}
		}
	}
	return nil
}
