package gateway

import (
	"fmt"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
)

func TestTheProcessEndsWhileKafkaTakesNothing(t *testing.T) {
	eachLink(t, testTheProcessEndsWhileKafkaTakesNothing)
}

func testTheProcessEndsWhileKafkaTakesNothing(t *testing.T, link change) {
	for name, auto := range map[string]string{"a writer waits for it": "?ack=auto", "a reader waits for it": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := setup(t, link, func(c *Config, b *fakeBroker) {
				b.full = make(chan struct{})
				c.DrainTimeout, c.ReceiptHold = 500*time.Millisecond, time.Hour
			})
			c := n.connect("mona", auto)
			n.broker.put(domain.High, route(n, "mona", "a"))
			c.wantNotification("a")
			c.ack("a")
			began := time.Now()
			n.stop()
			<-n.ended
			if took := time.Since(began); took > n.cfg.DrainTimeout+3*closeLinger {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// What became of deliveries waits in memory for Kafka; while it takes nothing, no more are handed over.
func TestDeliveriesWaitForTheirReceipts(t *testing.T) {
	eachLink(t, testDeliveriesWaitForTheirReceipts)
}

func testDeliveriesWaitForTheirReceipts(t *testing.T, link change) {
	n := setup(t, link, func(c *Config, b *fakeBroker) {
		b.full = make(chan struct{})
		c.ReceiptHold = time.Millisecond
	})
	c := n.connect("mona")
	const first = 10
	for i := range first {
		n.broker.put(domain.Normal, route(n, "mona", fmt.Sprint(i)))
		c.wantNotification(fmt.Sprint(i))
	}
	n.clock.advance(2 * receiptLag)
	n.broker.put(domain.Normal, route(n, "mona", "later"))
	eventually(t, "the lane to wait", func() bool {
		n.lanes.mu.Lock()
		defer n.lanes.mu.Unlock()
		return n.lanes.waiting[domain.Normal] == nil && n.receipts.overdue()
	})
	if n.metrics.framesOut.Get() != 1+first {
		t.Errorf("%d frames are out", n.metrics.framesOut.Get())
	}
	close(n.broker.full)
	c.wantNotification("later")
	for i := range first {
		n.wantKinds(fmt.Sprint(i), "delivery_sent")
	}
	n.wantKinds("later", "delivery_sent")
}

func TestRoomForReceiptsIsGivenBackAfterABurst(t *testing.T) {
	t.Parallel()
	n, _, _ := onFakeLink(t, func(c *Config, _ *fakeBroker) { c.ReceiptHold = time.Hour })
	for range 2 * keptReceipts {
		n.receipts.hold(&delivery{routed: &routed{}, told: true})
	}
	n.receipts.flush()
	if got := cap(n.receipts.held); got > keptReceipts {
		t.Errorf("room for %d is kept", got)
	}
}
