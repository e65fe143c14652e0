package gateway

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// BenchmarkBroadcast is what a gateway does itself for a broadcast to 10,000 sessions in slices of 16 users, as dispatch
// hands them out: routes are read, frames queued and gathered, acknowledgements read, facts encoded. Sockets and Kafka
// are left out, and with them the noise of a machine: the clients answer within the call.
//
//   - auto, acknowledged: CPU and allocations of a delivery, and what the heap holds for a session afterwards
//   - held: nobody acknowledges; what the heap holds for each
func BenchmarkBroadcast(b *testing.B) {
	for _, name := range []string{"auto", "acknowledged", "held"} {
		b.Run(name, func(b *testing.B) { benchmarkBroadcast(b, name) })
	}
}

// sinkLink is a socket that takes everything.
type sinkLink struct{ fakeLink }

func (l *sinkLink) write(b []byte) (int, error) { return len(b), nil }

// encodingBroker encodes facts as Kafka's does, and acknowledges each after some more.
type encodingBroker struct {
	*fakeBroker
	done [2000]func(error)
	next int
}

func (b *encodingBroker) Attempt(shared *domain.AttemptFacts, fact domain.AttemptFact, _ []kgo.RecordHeader, done func(error)) {
	value, _ := shared.Encode(fact)
	if len(value) == 0 || consumers.PartitionOf(fact.User, 12) < 0 {
		panic("nothing was encoded")
	}
	earlier := b.done[b.next]
	b.done[b.next] = done
	b.next = (b.next + 1) % len(b.done)
	if earlier != nil {
		earlier(nil)
	}
}

func benchmarkBroadcast(b *testing.B, name string) {
	const users, slice = 10_000, 16
	n := prepare(b, func(c *Config, br *fakeBroker) {
		br.discard = true
		c.ReceiptHold = time.Millisecond
	})
	n.Gateway.broker = &encodingBroker{fakeBroker: n.broker}
	names, sessions := make([]string, users), make([]*session, users)
	box := newOutbox()
	for i := range users {
		names[i] = fmt.Sprint("user-", i)
		s := newSession(n.Gateway, grant{user: names[i], until: n.clock.now().Add(time.Hour)}, name == "auto")
		s.link = &sinkLink{}
		s.join(welcomeFrame(s.id, time.Second))
		s.flush(box)
		sessions[i] = s
	}
	n.broker.records = nil
	routes := func(round int) (recs []*kgo.Record) {
		for chunk := range slices.Chunk(names, slice) {
			recs = append(recs, shared(n, fmt.Sprintf("n-%09d", round), chunk, func(r *whisperv1.Route) {
				r.Frame = fmt.Appendf(nil, `{"type":"notification","id":"n-%09d","lane":"low","title":"%0186d"}`, round, round)
			}))
		}
		return recs
	}
	before := inUse()
	var targets []*session
	broadcast := func(round, most int, recs []*kgo.Record) {
		ack := fmt.Sprintf(`{"type":"ack","ids":["n-%09d"]}`, round)
		plain := clientFrameBytes(finBit|opText, ack)
		bytes := make([]byte, len(plain))
		for at := 0; at < most; at += slice {
			if err := n.lanes.take(domain.Low, recs[at/slice], &targets); err != nil {
				b.Fatal(err)
			}
			for range slice {
				n.flusher.mu.Lock()
				next := n.flusher.take(nil, 1)
				n.flusher.mu.Unlock()
				for _, s := range next {
					s.flush(box)
				}
			}
			for _, s := range sessions[at:min(at+slice, users)] {
				if name == "acknowledged" {
					copy(bytes, plain) // it is unmasked in place
					s.received(bytes)
				}
			}
			n.receipts.flush()
		}
	}
	defer runtime.KeepAlive(sessions)
	if name == "held" { // once, whatever b.N
		for round := range 8 {
			broadcast(round, users, routes(round))
		}
		b.ReportMetric(float64(inUse()-before)/(8*users), "B/delivery")
		return
	}
	b.ReportAllocs()
	b.ResetTimer()
	spent := time.Duration(0)
	round := 0
	for left := b.N; left > 0; left -= users {
		b.StopTimer()
		recs := routes(round)
		b.StartTimer()
		began := cpu()
		broadcast(round, min(left, users), recs)
		spent += cpu() - began
		round++
	}
	b.StopTimer()
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N), "cpu-ns/delivery")
	b.ReportMetric(float64(inUse()-before)/users, "B/session-after")
}
