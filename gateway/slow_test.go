package gateway

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// Clients that don't read are closed 4004, what they never had goes back, and meanwhile everybody else gets
// everything, in order.
func TestSlowClientsAmongFastOnes(t *testing.T) { eachLink(t, testSlowClientsAmongFastOnes) }

func testSlowClientsAmongFastOnes(t *testing.T, link change) {
	const slow, fast, large = 3, 20, 32 << 10
	n := setup(t, link, func(c *Config, _ *fakeBroker) {
		c.SendBuffer, c.PingInterval, c.WriteTimeout = 256<<10, time.Hour, 2*time.Second
	})
	for i := range slow {
		n.connect(fmt.Sprint("slow-", i)) // and never reads
	}
	var clients []*client
	for i := range fast {
		clients = append(clients, n.connect(fmt.Sprint("fast-", i)))
	}
	sent := 0
	for ; n.metrics.closes[closeTooSlow].Get() < slow; sent++ {
		if sent == 5000 {
			t.Fatal("the slow clients were never closed")
		}
		recs := make([]*kgo.Record, 0, slow+fast)
		for i := range slow {
			recs = append(recs, route(n, fmt.Sprint("slow-", i), fmt.Sprintf("s%d-%d", i, sent),
				func(r *whisperv1.Route) { r.Frame = make([]byte, large) }))
		}
		for i := range fast {
			recs = append(recs, route(n, fmt.Sprint("fast-", i), fmt.Sprintf("f%d-%d", i, sent)))
		}
		n.broker.put(domain.Normal, recs...)
		for i, c := range clients { // nobody waits for the slow ones
			c.wantNotification(fmt.Sprintf("f%d-%d", i, sent))
			c.ack(fmt.Sprintf("f%d-%d", i, sent))
		}
		for i := 0; sent == 0 && i < slow; i++ {
			n.wantKinds(fmt.Sprintf("s%d-0", i), "delivery_sent")
		}
	}
	eventually(t, "the slow to be gone", func() bool { return n.connections.Load() == fast })
	eventually(t, "an outcome of each", func() bool { return n.lanes.unsettled() == 0 })
	for i := range slow {
		first, last := n.broker.kinds(fmt.Sprintf("s%d-0", i)), n.broker.kinds(fmt.Sprintf("s%d-%d", i, sent-1))
		if strings.Join(first, " ") != "delivery_sent" || strings.Join(last, " ") != "attempt_failed" {
			t.Errorf("slow client %d: the first is %v, the last %v: neither may count as delivered", i, first, last)
		}
	}
	if got := n.connect("slow-0"); got.session == "" { // it may come again
		t.Error("it may not come again")
	}
}

// BenchmarkSlowClients is what a delivery costs while a tenth of all sessions do not read, against what it
// costs without them, in the same process and run: the ratio is what the slow cost the others.
func BenchmarkSlowClients(b *testing.B) {
	const fast, slow = 90, 10
	inFlight := make(chan struct{}, 1000)
	n := setup(b, func(c *Config, br *fakeBroker) {
		c.SendBuffer, c.WriteTimeout = 16<<20, time.Hour // they stay
		br.discard = true
		br.onFact = func(ev *whisperv1.Event) {
			if ev.GetDeliveryDelivered() != nil && strings.HasPrefix(ev.GetUserId(), "fast") {
				<-inFlight
			}
		}
	})
	for i := range fast {
		go echo(n.connect(fmt.Sprint("fast-", i), "?ack=auto").Conn, true)
	}
	for i := range slow {
		c := n.connect(fmt.Sprint("slow-", i))
		n.broker.put(domain.High, route(n, fmt.Sprint("slow-", i), "stuffing", func(r *whisperv1.Route) { r.Frame = make([]byte, 8<<20) }))
		defer c.Close()
	}
	eventually(b, "the slow to be stuck", func() bool { return n.blocked.Load() == slow })
	recs := make([]*kgo.Record, b.N)
	for i := range recs {
		recs[i] = route(n, fmt.Sprint("fast-", i%fast), fmt.Sprintf("n-%09d", i), func(r *whisperv1.Route) {
			r.Frame = fmt.Appendf(nil, `{"type":"notification","id":"n-%09d","lane":"high","title":"%0186d"}`, i, i)
		})
	}
	deliver := func(toSlow bool) time.Duration {
		began := cpu()
		for i := 0; i < len(recs); i += fast {
			slice := recs[i:min(i+fast, len(recs))]
			for range slice {
				inFlight <- struct{}{}
			}
			n.broker.put(domain.High, slice...)
			if toSlow && i%(10*fast) == 0 {
				n.broker.put(domain.High, route(n, fmt.Sprint("slow-", i/fast%slow), fmt.Sprint("s-", i)))
			}
		}
		for range cap(inFlight) {
			inFlight <- struct{}{}
		}
		for range cap(inFlight) {
			<-inFlight
		}
		return cpu() - began
	}
	b.ResetTimer()
	var with, without time.Duration
	for range 2 { // in turns: the machine is not the same all the time
		without += deliver(false)
		with += deliver(true)
	}
	b.StopTimer()
	b.ReportMetric(float64(with)/float64(without), "with/without")
	b.ReportMetric(float64(with.Microseconds())/float64(2*b.N), "cpu-µs/delivery")
}
