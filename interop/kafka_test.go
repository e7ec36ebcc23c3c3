package interop

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/query"
	"github.com/pgnotary/pgnotary/internal/sink"
)

// TestKafka follows a log into a cluster that speaks Kafka's protocol, which
// goes away under load and comes back with what it had stored: nothing is
// missing, and what is new comes in order.
func TestKafka(t *testing.T) {
	addr := freePort(t)
	port := int(netip.MustParseAddrPort(addr).Port())
	store := t.TempDir()
	start := func() *kfake.Cluster {
		t.Helper()
		c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.DataDir(store), kfake.SyncWrites(), kfake.SeedTopics(3, "audit"),
			kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "log", "pw"))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	cluster := start()

	dir := filepath.Join(t.TempDir(), "data")
	l, err := ledger.Open(ledger.Config{Dir: dir, Origin: "example.com/log", CheckpointEvery: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	log, err := query.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	target, err := sink.NewKafka(sink.KafkaConfig{
		Brokers: []string{addr}, Topic: "audit", User: "log", Password: "pw", Mechanism: "SCRAM-SHA-512", Origin: "example.com/log",
	})
	if err != nil {
		t.Fatal(err)
	}
	k, err := sink.New(sink.Config{
		Name: "kafka", Log: log, Target: target, Format: "jsonl", Filter: query.Filter{Kinds: []string{"query"}}, MaxRecord: 4 << 20,
		Cursor: filepath.Join(dir, "cursor.json"), Hold: time.Hour, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	await := func(what string, until func() bool) {
		t.Helper()
		for deadline := time.Now().Add(3 * time.Minute); !until(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v", what, k.Numbers())
			}
		}
	}
	var want []int64
	statement := func(text string) {
		t.Helper()
		b := binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(len(text)+5))
		i, err := l.Emit(&event.Leaf{Session: 1, Seq: uint64(2*len(want) + 1), Kind: event.KindQuery, Who: &event.Who{User: "alice"}}, append(append(b, text...), 0))
		if err == nil {
			_, err = l.Emit(&event.Leaf{Session: 1, Seq: uint64(2*len(want) + 2), Kind: event.KindOutcome, Of: event.Ref(i), Tags: []string{"SELECT 1"}, Tx: 'I', Committed: 1}, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, i)
	}
	load := func(count int) {
		for range count {
			statement(fmt.Sprint("SELECT ", len(want)))
		}
	}
	load(1200)
	await("sent", func() bool { return k.Numbers().Sent > 0 })
	cluster.Close()
	load(300)
	await("away", func() bool { return k.Numbers().Failures > 0 })
	cluster = start()
	defer func() { cluster.Close() }()
	load(300)
	statement("SELECT '" + strings.Repeat("z", 2<<20) + "'") // larger than a broker takes
	load(100)
	await("all sent", func() bool { return k.Numbers().Next > want[len(want)-1] })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if k.Numbers().Shortened != 1 {
		t.Errorf("%+v, want one shortened", k.Numbers())
	}

	reader, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics("audit"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SASL(scram.Auth{User: "log", Pass: "pw"}.AsSha512Mechanism()))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var got []int64
	again := 0
	for last := int64(-1); last < want[len(want)-1]; {
		fetches := reader.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			headers := map[string]string{}
			for _, h := range r.Headers {
				headers[h.Key] = string(h.Value)
			}
			i, err := strconv.ParseInt(headers["index"], 10, 64)
			if err != nil || headers["origin"] != "example.com/log" || headers["kind"] != "query" || r.Partition != 0 || !strings.Contains(string(r.Value), fmt.Sprintf(`"index":%d,`, i)) {
				t.Fatalf("partition %d: %v, %.200s", r.Partition, headers, r.Value)
			}
			if i <= last { // sent again after the fault
				again++
				return
			}
			got, last = append(got, i), i
		})
	}
	if !slices.Equal(got, want) {
		t.Errorf("the topic has %d records, want %d in order", len(got), len(want))
	}
	t.Logf("%d statements, %d came twice", len(want), again)
}
