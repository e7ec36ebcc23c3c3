package sink

import (
	"context"
	"net"
	"testing"
)

// TestSilentReceivers holds that an end does not wait for a receiver that
// accepts connections and never answers.
func TestSilentReceivers(t *testing.T) {
	for name, target := range map[string]func(addr string) Target{
		"webhook": func(addr string) Target { return NewWebhook(HTTPConfig{URL: "http://" + addr}) },
		"otlp":    func(addr string) Target { return NewOTLP(HTTPConfig{URL: "http://" + addr}, "v1") },
		"nats":    func(addr string) Target { return NewNATS(NATSConfig{Server: addr, Subject: "s"}) },
		"kafka": func(addr string) Target {
			k, err := NewKafka(KafkaConfig{Brokers: []string{addr}, Topic: "t", User: "u", Password: "p", Mechanism: "PLAIN"})
			if err != nil {
				t.Fatal(err)
			}
			return k
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() { // ends with ln
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					defer c.Close()
					cancel()
				}
			}()
			k := target(ln.Addr().String())
			if err := k.Send(ctx, []Record{{Index: 1, Kind: "query", Body: []byte("x")}}); err == nil {
				t.Error("Send returned nil without an answer")
			}
			if err := k.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
