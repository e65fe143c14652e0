package integration

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// BenchmarkRestore is how long dispatch, as a process of its own, takes until it is ready, and how much CPU: with the
// few users of an empty system, and with a million. What lies between is what a copy of the state that is kept warm could spare.
func BenchmarkRestore(b *testing.B) {
	b.Cleanup(func() {
		if sys.proc("dispatch").ready() {
			return
		}
		if err := sys.up(context.Background(), "dispatch"); err != nil {
			b.Error(err)
		}
	})
	for _, users := range []int{0, 1_000_000} {
		b.Run(fmt.Sprint(users), func(b *testing.B) {
			_ = sys.proc("dispatch").end(syscall.SIGTERM)
			profiles(b, users)
			var cpu time.Duration
			b.ResetTimer()
			for b.Loop() {
				if err := sys.up(b.Context(), "dispatch"); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				p := sys.proc("dispatch")
				if err := p.end(syscall.SIGTERM); err != nil {
					b.Fatal(err)
				}
				cpu += p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
				b.StartTimer()
			}
			b.ReportMetric(cpu.Seconds()/float64(b.N), "CPU-s/op")
		})
	}
}

// profiles writes n users to whisper.users, as the owners of their partitions do.
func profiles(b *testing.B, n int) {
	b.Helper()
	var failed atomic.Pointer[error]
	for i := range n {
		value, err := proto.Marshal(&whisperv1.Profile{
			Locale: "ar-EG", Timezone: "Africa/Cairo",
			Attributes: fmt.Appendf(nil, `{"name":"Mona %d","country":"EG","plan":"gold","since":"2021"}`, i),
			Endpoints:  []*whisperv1.Endpoint{{Name: "iphone", Channel: "apns", Token: fmt.Sprintf("%064x", i), App: "com.klivvr.app", RegisteredAtMs: 1_700_000_000_000}},
		})
		if err != nil {
			b.Fatal(err)
		}
		sys.kafka.Produce(b.Context(), &kgo.Record{Topic: consumers.TopicUsers, Key: fmt.Appendf(nil, "restored-%d", i), Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Store(&err)
			}
		})
	}
	if err := sys.kafka.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := failed.Load(); err != nil {
		b.Fatal(*err)
	}
}
