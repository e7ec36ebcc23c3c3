package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/doctor"
	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// runDoctor runs the command and returns its exit code and what it printed.
func runDoctor(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := newDoctorCmd()
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	var out, errs bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SetArgs(args)
	code = report(&errs, cmd.ExecuteContext(t.Context()))
	return code, out.String(), errs.String()
}

func TestDoctor(t *testing.T) {
	pg := pgtest.Start(t, pgserver.Options{TLS: true, HBA: "local all postgres trust\nhost all postgres 127.0.0.1/32 trust\nhostssl all all 127.0.0.1/32 scram-sha-256\nhost all all all reject"})
	same := []string{"--upstream", pg.Addr(), "--upstream-tls", "verify-full", "--upstream-ca", pg.CAFile, "--tls-cert", pg.CertFile, "--tls-key", pg.KeyFile}
	const admin = "user=postgres dbname=postgres"

	code, stdout, stderr := runDoctor(t, append(same, "--admin-dsn", admin, "--json")...)
	var r doctor.Report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || strings.Count(stdout, "\n") != 1 {
		t.Fatalf("doctor --json prints %s, %v", stdout, err)
	}
	if code != exitNo || r.OK || stderr != "" || len(r.Logins) != 12 || r.Facts.ServerLeg != doctor.TLS {
		t.Errorf("doctor where postgres is trusted: exit code %d, %s, %s", code, stdout, stderr)
	}
	code, stdout, stderr = runDoctor(t, same...)
	if code != exitOK || !strings.Contains(stdout, "no credentials were given") || stderr != "" {
		t.Errorf("doctor without credentials: exit code %d, %s, %s", code, stdout, stderr)
	}
	code, stdout, stderr = runDoctor(t, "--upstream", "nowhere")
	if code != exitError || stdout != "" || !strings.HasPrefix(stderr, "pgnotary: ") {
		t.Errorf("doctor with a bad address: exit code %d, %s, %s", code, stdout, stderr)
	}
}
