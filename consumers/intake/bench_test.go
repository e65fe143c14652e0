package intake

import (
	"fmt"
	"testing"

	"github.com/VictoriaMetrics/metrics"
	"github.com/twmb/franz-go/pkg/kgo"
)

// BenchmarkIntake is the whole handling, from a backlog of requests until each delivery is acknowledged
// and counted; the fake broker shares the machine, and its time is in the figure.
func BenchmarkIntake(b *testing.B) {
	for _, users := range []int{1, 100} {
		b.Run(fmt.Sprintf("%d-users", users), func(b *testing.B) { benchmarkIntake(b, users) })
	}
}

func benchmarkIntake(b *testing.B, users int) {
	h := setup(b)
	to := ""
	for i := range users {
		to += fmt.Sprintf(`"user-%06d",`, i)
	}
	value := `{"category":"transactions.card","to":{"users":[` + to[:len(to)-1] + `]},"content":{"title":"Card payment","body":"You paid 120.50 EGP at the corner shop with the card that ends in 4417",` +
		`"url":"app://cards/4417","data":{"amount":"120.50","currency":"EGP"}},"channels":["socket","apns"],"collapse_key":"card-4417","ttl":"1h"}`
	for from := 0; from < b.N; from += 10_000 {
		records := make([]*kgo.Record, min(10_000, b.N-from))
		for i := range records {
			records[i] = &kgo.Record{Topic: high, Partition: int32(i % partitions), Value: []byte(value)}
		}
		h.publish(records...)
	}
	b.SetBytes(int64(len(value)))
	cfg := h.config()
	accepted := metrics.GetOrCreateCounter(`whisper_intake_requests_total{lane="high",outcome="accepted"}`)
	before := accepted.Get()
	b.ResetTimer()
	h.start(cfg)
	h.eventually("all requests are taken", func() bool { return accepted.Get()-before == uint64(b.N) })
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
	b.ReportMetric(float64(b.N*users)/b.Elapsed().Seconds(), "deliveries/s")
}
