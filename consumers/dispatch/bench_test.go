package dispatch_test

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func benchProfile(b *testing.B, i int) []byte {
	b.Helper()
	encoded, err := proto.Marshal(&whisperv1.Profile{
		Locale: "ar-EG", Timezone: "Africa/Cairo",
		Attributes: fmt.Appendf(nil, `{"name":"Mona %d","country":"EG","plan":"gold","since":"2021"}`, i),
		Endpoints:  []*whisperv1.Endpoint{{Name: "iphone", Channel: "apns", Token: fmt.Sprintf("%064x", i), App: "com.klivvr.app", RegisteredAtMs: 1_700_000_000_000}},
	})
	if err != nil {
		b.Fatal(err)
	}
	return encoded
}

// BenchmarkUserMemory is what 100,000 users with a locale, a zone, four attributes and one endpoint take
// on the heap.
func BenchmarkUserMemory(b *testing.B) {
	const users = 100_000
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		s := decide.NewState(0, decide.DefaultPolicy())
		encoded := 0
		for i := range users {
			p := benchProfile(b, i)
			encoded += len(p)
			s.RestoreUser(fmt.Sprint("user-", i), p)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/users, "B/user")
		b.ReportMetric(float64(encoded)/users, "encoded-B/user")
		runtime.KeepAlive(s)
	}
}

// BenchmarkRestore is the time from starting dispatch until it is ready with 100,000 users, on a fake
// broker in the same process.
func BenchmarkRestore(b *testing.B) {
	const users = 100_000
	s := newSetup(b)
	for i := range users {
		user := fmt.Sprint("user-", i)
		s.pub.Publish(b.Context(), &kgo.Record{Topic: consumers.TopicUsers, Partition: consumers.PartitionOf(user, partitions), Key: []byte(user), Value: benchProfile(b, i)}, nil)
	}
	if err := s.pub.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s.start()()
	}
}

// BenchmarkDispatch is the role on a fake broker in the same process: deliveries to one connected node,
// each acknowledged, everything encoded and written.
func BenchmarkDispatch(b *testing.B) {
	s := newSetup(b)
	const users = 1_000
	for i := range users {
		s.connect(fmt.Sprint("u", i), "s", 1)
	}
	s.start()
	now := time.Now()
	begin := cpu(b)
	b.ResetTimer()
	for i := range b.N {
		user, note := fmt.Sprint("u", i%users), fmt.Sprint("n-", i)
		id := domain.NewDeliveryID(now, domain.HashDelivery(note, user))
		rec, err := consumers.EventRecord(consumers.TopicDeliveries(domain.High), consumers.PartitionOf(user, partitions), &whisperv1.Event{
			DeliveryId: id[:], NotificationId: note, UserId: user, Lane: whisperv1.Lane_LANE_HIGH,
			Kind: &whisperv1.Event_DeliveryAccepted{DeliveryAccepted: &whisperv1.DeliveryAccepted{
				Category: "default", Channels: []string{"socket"}, Content: &whisperv1.Content{Title: "Card payment", Body: "You paid 120.50 EGP"},
				AcceptedAtMs: now.UnixMilli(), ExpiresAtMs: now.Add(time.Hour).UnixMilli(),
				Request: &whisperv1.Position{Topic: "r", Offset: int64(i)}, Recipients: 1,
			}},
		}, nil)
		if err != nil {
			b.Fatal(err)
		}
		s.pub.Publish(b.Context(), rec, nil)
	}
	s.eventually("everything is routed", func() bool { return len(s.of(consumers.TopicNode("n1"))) >= b.N })
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
	b.ReportMetric(float64((cpu(b)-begin).Microseconds())/float64(b.N), "CPU-µs/delivery(all)")
}

// cpu is what this whole process has used, the fake broker included.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
