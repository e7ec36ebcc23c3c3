package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestReadSinks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sinks.toml")
	for _, tt := range []struct{ keys, want string }{
		{`url = "syslog+tls://siem:6514"`, ""},
		{`url = "syslog+tls://siem"`, `"siem" is not HOST:PORT`},
		{`url = "syslog+tls://siem:6514/x"`, "is not syslog+tls://HOST:PORT"},
		{`url = "otlp+https://collector/v1/logs"`, ""},
		{`url = "https://user:pw@hook/"`, "use token-file"},
		{`url = "ftp://x/"`, "is none of"},
		{`url = "kafka+tls://a:9093,b:9093/audit"`, ""},
		{`url = "kafka+tls://a:9093,b/audit"`, `"b" is not HOST:PORT`},
		{`url = "kafka+tls://u@a:9093/audit"`, "is not HOST:PORT"},
		{`url = "kafka+tls://a:9093"`, "with the name of a topic"},
		{`url = "kafka+tls://a:9093/x/y"`, "with the name of a topic"},
		{"url = \"kafka+tcp://a:1/t\"\nuser = \"u\"\npassword-file = \"/f\"\nsasl = \"PLAIN\"", ""},
		{"url = \"kafka+tcp://a:1/t\"\nuser = \"u\"", "belong together"},
		{"url = \"kafka+tcp://a:1/t\"\ntoken-file = \"/f\"", "does not go with kafka"},
		{"url = \"kafka+tcp://a:1/t\"\nsasl = \"GSSAPI\"", "sasl"},
		{"url = \"nats+tls://a:4222/audit.pg\"\ntoken-file = \"/f\"", ""},
		{"url = \"nats+tls://a:4222/audit.pg\"\nsasl = \"PLAIN\"", "sasl is for kafka"},
		{`url = "nats+tls://a:4222,b:4222/audit"`, "HOST:PORT/NAME"},
		{`url = "nats+tls://a:4222/audit.*"`, "HOST:PORT/NAME"},
		{"url = \"https://hook/\"\nuser = \"u\"\npassword-file = \"/f\"", "user is for kafka and nats"},
		{"url = \"https://hook/\"\npasword = \"u\"", "pasword"},
	} {
		if err := os.WriteFile(file, []byte("[[sink]]\nname = \"one\"\n"+tt.keys+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := ReadSinks(file)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.keys, err, tt.want)
		}
	}
	s := Sink{URL: "kafka+tls://a:9093,b:9093/audit"}
	if protocol, hosts, name := s.Parts(); protocol != "kafka+tls" || !slices.Equal(hosts, []string{"a:9093", "b:9093"}) || name != "audit" {
		t.Errorf("Parts = %q, %q, %q", protocol, hosts, name)
	}
}
