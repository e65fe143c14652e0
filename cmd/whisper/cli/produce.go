package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
)

// Produce writes records, waits until all replicas that are in sync have them, and notes in each where it stands. It gives
// up after ten seconds.
func Produce(ctx context.Context, client consumers.ClientConfig, recs ...*kgo.Record) error {
	if len(recs) == 0 {
		return nil
	}
	cl, err := kgo.NewClient(append(client.Options(),
		kgo.ProducerLinger(0), kgo.RecordDeliveryTimeout(10*time.Second), kgo.UnknownTopicRetries(2))...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
		return fmt.Errorf("write to %s: %w", recs[0].Topic, err)
	}
	return nil
}
