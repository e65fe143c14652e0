package dispatch

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

var readBackAt = time.UnixMilli(1_700_000_000_000)

// BenchmarkReadBack looks at facts of pushes that were taken, one in a hundred of them the retracted notification's:
// what a retract costs a fact, beside fetching it.
func BenchmarkReadBack(b *testing.B) {
	records := make([]*kgo.Record, 1000)
	for i := range records {
		note := fmt.Sprint("news-", i%100)
		id := domain.NewDeliveryID(readBackAt, domain.HashDelivery(note, fmt.Sprint("user-", i)))
		ev := &whisperv1.Event{
			DeliveryId: id[:], NotificationId: note, UserId: fmt.Sprint("user-", i), AtUs: readBackAt.UnixMicro(),
			Kind: &whisperv1.Event_DeliverySent{DeliverySent: &whisperv1.DeliverySent{
				Attempt: 1, Channel: "apns", Provider: "apns", Endpoint: "iphone", ProviderId: id.String(), LatencyUs: 42_000,
			}},
		}
		value, err := proto.Marshal(ev)
		if err != nil {
			b.Fatal(err)
		}
		records[i] = &kgo.Record{Value: value, Headers: []kgo.RecordHeader{{Key: consumers.HeaderEvent, Value: []byte(domain.KindOf(ev))}}}
	}
	back := &readBack{notes: map[string]recall{"news-7": {}}}
	found, i := 0, 0
	for b.Loop() {
		if _, of := back.fact(records[i%len(records)]); of {
			found++
		}
		i++
	}
	if b.N >= len(records) && found < b.N/200 {
		b.Fatalf("found %d in %d", found, b.N)
	}
}
