package dispatch

import (
	"context"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestAFeedThatGivesUpLeavesNoHole: a feed whose partition goes while the mailbox is full hands over nothing
// after what it gave up. A later record that got in would be settled, and the commit would pass those
// before it, which nobody has seen.
func TestAFeedThatGivesUpLeavesNoHole(t *testing.T) {
	t.Parallel()
	p := &partition{mail: newMailbox()}
	f := &feed{part: p, queue: queueHigh}
	recs := make([]*kgo.Record, queueBound+3*handBatch)
	for i := range recs {
		recs[i] = &kgo.Record{Offset: int64(i), Value: []byte{0xff}}
	}
	if err := f.Handle(t.Context(), recs[:queueBound]); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	next := int64(0)
	taken := func() {
		for _, it := range p.mail.take(queueHigh, queueBound) {
			if it.rec.Offset != next {
				t.Fatalf("after %d comes %d", next-1, it.rec.Offset)
			}
			next++
		}
	}
	cancel()
	// The first batch finds no room, the loop makes some, and the second one would find it.
	gaveUp := &givingUp{Context: ctx, on: taken}
	if err := f.Handle(gaveUp, recs[queueBound:]); err != nil {
		t.Fatal(err)
	}
	taken()
}

// givingUp is an ended context that does something when it is first asked.
type givingUp struct {
	context.Context
	on func()
}

func (g *givingUp) Done() <-chan struct{} {
	if g.on != nil {
		on := g.on
		g.on = nil
		defer on()
	}
	return g.Context.Done()
}
