package sink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// KafkaConfig says where to produce to.
type KafkaConfig struct {
	Brokers   []string // HOST:PORT of some of them
	Topic     string
	TLS       *tls.Config // nil for TCP in the clear
	User      string      // logs in, if set
	Password  string
	Mechanism string // PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
	Origin    string // of the log
}

// kafkaRecord is what brokers take of one record if nobody told them to take
// more (message.max.bytes), less room for its headers.
const kafkaRecord = 1_000_012 - 4<<10

// kafka produces records to one topic.
//
// All go to partition 0: Kafka keeps an order only within a partition, and a
// log has one order. The broker sorts out what the client repeats by itself
// (idempotent producer); what Send repeats after an error may be there twice.
type kafka struct {
	KafkaConfig
	mechanism sasl.Mechanism
	client    *kgo.Client
}

// NewKafka returns a target that produces records to a topic of Kafka; it has
// them once all replicas in sync do (acks=all). The headers origin, index and
// kind tell what is in the value.
func NewKafka(c KafkaConfig) (Target, error) {
	k := &kafka{KafkaConfig: c}
	switch {
	case c.User == "":
	case c.Mechanism == "PLAIN":
		k.mechanism = plain.Auth{User: c.User, Pass: c.Password}.AsMechanism()
	case c.Mechanism == "SCRAM-SHA-256":
		k.mechanism = scram.Auth{User: c.User, Pass: c.Password}.AsSha256Mechanism()
	case c.Mechanism == "SCRAM-SHA-512":
		k.mechanism = scram.Auth{User: c.User, Pass: c.Password}.AsSha512Mechanism()
	default:
		return nil, fmt.Errorf("unknown SASL mechanism %q", c.Mechanism)
	}
	return k, nil
}

func (k *kafka) Settle() time.Duration { return 0 }

// Close drops the client, and with it whatever it still holds.
func (k *kafka) Close() error {
	if k.client != nil {
		k.client.Close()
		k.client = nil
	}
	return nil
}

func (k *kafka) connect() error {
	if k.client != nil {
		return nil
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(k.Brokers...), kgo.DefaultProduceTopic(k.Topic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.AllowIdempotentProduceCancellation(),
		kgo.DialTimeout(dialTimeout), kgo.ClientID("pgnotary"),
	}
	if k.TLS != nil {
		opts = append(opts, kgo.DialTLSConfig(k.TLS))
	}
	if k.mechanism != nil {
		opts = append(opts, kgo.SASL(k.mechanism))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	k.client = client
	return nil
}

func (k *kafka) Send(ctx context.Context, records []Record) error {
	if err := k.connect(); err != nil {
		return err
	}
	batch := make([]*kgo.Record, len(records))
	for i := range records {
		r := &records[i]
		if len(r.Body) > kafkaRecord { // before others behind it are sent
			return &RejectedError{fmt.Sprintf("a record of %d bytes", len(r.Body))}
		}
		batch[i] = &kgo.Record{
			Value: r.Body, Timestamp: time.Unix(0, r.Time),
			Headers: []kgo.RecordHeader{
				{Key: "origin", Value: []byte(k.Origin)}, {Key: "index", Value: strconv.AppendInt(nil, r.Index, 10)}, {Key: "kind", Value: []byte(r.Kind)},
			},
		}
	}
	// Not kgo.RecordDeliveryTimeout: it counts from the record's time, which is the log's.
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	err := k.client.ProduceSync(ctx, batch...).FirstErr()
	if err == nil {
		return nil
	}
	// A new client knows nothing of what this one has begun.
	err = errors.Join(err, k.Close())
	if errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge) {
		return &RejectedError{err.Error()}
	}
	return err
}
