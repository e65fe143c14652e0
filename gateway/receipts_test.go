package gateway

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// Whatever acknowledgements take, nine of ten come within the hold that follows from them.
func TestTheHoldFollowsTheAcknowledgements(t *testing.T) {
	t.Parallel()
	const least = 50 * time.Millisecond
	random := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		name       string
		took       func() time.Duration
		from, most time.Duration
	}{
		{"at once", func() time.Duration { return time.Millisecond }, least, least},
		{"after 200 ms", func() time.Duration { return 200 * time.Millisecond }, 195 * time.Millisecond, 215 * time.Millisecond},
		{"up to 500 ms", func() time.Duration { return time.Duration(random.Int64N(int64(500 * time.Millisecond))) }, 400 * time.Millisecond, 495 * time.Millisecond},
		{"after 5 s: nobody waits", func() time.Duration { return 5 * time.Second }, least, least},
	} {
		r := newReceipts(least, func() int64 { return 0 })
		late := 0
		const all, settled = 20_000, 10_000
		for i := range all {
			took, hold := c.took(), time.Duration(r.after.Load())
			told := took > hold
			if i >= settled && told {
				late++
			}
			r.answered(took, told)
		}
		hold := time.Duration(r.after.Load())
		if hold < c.from || hold > c.most {
			t.Errorf("%s: the hold is %s, not %s to %s", c.name, hold, c.from, c.most)
		}
		if c.most < time.Second && c.from > least && late > (all-settled)*3/20 {
			t.Errorf("%s: %d of %d came too late", c.name, late, all-settled)
		}
		for range 10_000 {
			r.answered(0, false)
		}
		if hold := time.Duration(r.after.Load()); hold != least {
			t.Errorf("%s, then at once: the hold is still %s", c.name, hold)
		}
	}
	long := newReceipts(800*time.Millisecond, func() int64 { return 0 })
	for range 10_000 {
		long.answered(time.Second, true)
	}
	if hold := time.Duration(long.after.Load()); hold > holdMost {
		t.Errorf("a long hold became %s", hold)
	}
	none := newReceipts(-1, func() int64 { return 0 })
	none.answered(time.Second, true)
	if hold := none.after.Load(); hold != 0 {
		t.Errorf("no hold became %d", hold)
	}
}

// A hold that has become shorter lets nothing overtake what was held before.
func TestHeldReceiptsAreWrittenInOrder(t *testing.T) {
	t.Parallel()
	var now int64
	r := newReceipts(time.Millisecond, func() int64 { return now })
	r.after.Store(int64(10 * time.Millisecond))
	long, short := &delivery{}, &delivery{}
	r.hold(long)
	r.after.Store(int64(time.Millisecond))
	r.hold(short)
	if d, next := r.pop(int64(9 * time.Millisecond)); d != nil || next != int64(10*time.Millisecond) {
		t.Errorf("before its time: %v, next %d", d, next)
	}
	for _, want := range []*delivery{long, short} {
		if d, _ := r.pop(int64(10 * time.Millisecond)); d != want {
			t.Error("not in the order in which they were held")
		}
	}
}

func TestLateAcknowledgementsLengthenTheHold(t *testing.T) {
	t.Parallel()
	n := setup(t, func(c *Config, _ *fakeBroker) { c.ReceiptHold = 50 * time.Millisecond })
	c := n.connect("mona")
	before := n.receipts.after.Load()
	n.broker.put(domain.Normal, route(n, "mona", "a", func(r *whisperv1.Route) { r.ExplicitAck = true }))
	c.wantNotification("a")
	n.wantKinds("a", "delivery_sent")
	c.ack("a")
	n.wantKinds("a", "delivery_sent", "delivery_delivered")
	sent, delivered := n.broker.allFacts()[0], n.broker.allFacts()[1]
	took := time.Duration(delivered.GetAtUs()-sent.GetAtUs()) * time.Microsecond
	if got := n.receipts.after.Load(); (got > before) != (took <= holdMost) {
		t.Errorf("the hold was %d and is %d, of an acknowledgement after %s", before, got, took)
	}
}
