package interop

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/pgnotary/pgnotary/internal/sink"
)

// TestOTLP sends records to a receiver that decodes them with OpenTelemetry's
// own definitions, strictly.
func TestOTLP(t *testing.T) {
	var got logs.LogsData // of the same form as an ExportLogsServiceRequest
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = protojson.Unmarshal(body, &got) // refuses what it does not know
		}
		if err != nil {
			t.Errorf("the receiver cannot read the request: %v", err)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
	}))
	defer srv.Close()
	target := sink.NewOTLP(sink.HTTPConfig{URL: srv.URL + "/v1/logs", Origin: "example.com/log"}, "v1")
	defer target.Close()
	body := `{"origin":"example.com/log","index":7}`
	err := target.Send(t.Context(), []sink.Record{
		{Index: 7, Time: 1_700_000_000_123_456_789, Kind: "query", Body: []byte(body)},
		{Index: 8, Time: 1_700_000_000_123_456_790, Kind: "violation", Failed: true, Body: []byte("x")},
	})
	if err != nil {
		t.Fatal(err)
	}
	records := got.GetResourceLogs()[0].GetScopeLogs()[0].GetLogRecords()
	if len(records) != 2 || records[0].GetTimeUnixNano() != 1_700_000_000_123_456_789 || records[0].GetBody().GetStringValue() != body ||
		records[1].GetSeverityText() != "ERROR" || records[0].GetAttributes()[2].GetValue().GetIntValue() != 7 {
		t.Errorf("the receiver has %v", records)
	}
	if attributes := got.GetResourceLogs()[0].GetResource().GetAttributes(); attributes[2].GetKey() != "pgnotary.origin" || attributes[2].GetValue().GetStringValue() != "example.com/log" {
		t.Errorf("the resource is %v", attributes)
	}
}
