package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/pgserver"
	"github.com/pgnotary/pgnotary/internal/pgserver/pgtest"
)

// maxBytesPerStatement is the footprint aimed at: both entries of a statement,
// its value and the tree.
const maxBytesPerStatement = 96

// TestFootprint seals the record of a run of pgbench and weighs it.
func TestFootprint(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgserver.Options{})
	host, serverPort, err := net.SplitHostPort(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	tool(t, s, "", "pgbench", "-h", host, "-p", serverPort, "-U", "postgres", "-i", "-q", "-s", "1", "postgres")
	n := start(t, s.Addr(), "--durability", "async", "--immutable=false")
	const transactions = 4000
	pgbench := func() {
		if out, err := tryTool(t, s, nil, "", "pgbench", "-h", "127.0.0.1", "-p", port(n.addr), "-U", "postgres",
			"-n", "-M", "prepared", "-b", "tpcb-like", "-c", "8", "-j", "2", "-t", "500", "postgres"); err != nil {
			t.Fatalf("pgbench: %v\n%s", err, out)
		}
	}
	pgbench()
	n.seal(t)
	sizes := map[string]int64{}
	for _, dir := range []string{"segment", "tile"} {
		for path, data := range filesBelow(t, filepath.Join(n.data, dir)) {
			sizes[filepath.Ext(path)] += int64(len(data))
		}
	}
	const statements = transactions * 7
	per := func(n int64) float64 { return float64(n) / statements }
	total := per(sizes[".zst"] + sizes[".val"] + sizes[""])
	t.Logf("%.1f bytes per statement: leaves %.1f, values %.1f, tiles %.2f", total, per(sizes[".zst"]), per(sizes[".val"]), per(sizes[""]))
	if total > maxBytesPerStatement {
		t.Errorf("%.1f bytes per statement, want at most %d", total, maxBytesPerStatement)
	}
	// What is sealed is searched, proved and continued like the rest.
	pgbench()
	all := n.await(t, 2*transactions, "--text", "INSERT INTO pgbench_history", "--kind", "execute")
	if len(all) != 2*transactions {
		t.Errorf("%d inserts are found, want %d", len(all), 2*transactions)
	}
	for _, r := range all[:10] {
		if len(r.Params) != 4 || r.Outcome == nil || r.Outcome.Tag != "INSERT 0 1" {
			t.Errorf("a sealed statement: %v", r)
		}
	}
	if out, code := runProgram(t, "prove", "--data", n.data, strconv.FormatInt(all[5].Index, 10), "-o", filepath.Join(t.TempDir(), "p.tlog-proof"), "--value"); code != 0 {
		t.Errorf("prove of a sealed entry: %s", out)
	}
}

// seal ends the first journal file and waits until it is a segment.
func (n *notary) seal(t *testing.T) {
	t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		names, err := os.ReadDir(filepath.Join(n.data, "journal"))
		if err != nil {
			t.Fatal(err)
		}
		if len(names) == 1 && !strings.HasPrefix(names[0].Name(), "00000000000000000000.") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the journal file was not sealed:\n%s", n.stderr())
		}
	}
}
