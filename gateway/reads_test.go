package gateway

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// TestAReadSaysWhoVouchesForIt: a node vouches for the attempts that it holds or held, and passes on a client's word about
// anything else as such; with a receipt it names one delivery exactly.
func TestAReadSaysWhoVouchesForIt(t *testing.T) { eachLink(t, testAReadSaysWhoVouchesForIt) }

func testAReadSaysWhoVouchesForIt(t *testing.T, link change) {
	n := setup(t, link)
	c := n.connect("mona")
	week := 7 * 24 * time.Hour
	rec := route(n, "mona", "reminder", func(r *whisperv1.Route) { r.Attempt = 3 })
	held := idOf(t, rec.Value)
	before := domain.NewDeliveryID(held.Time().Add(-week), held.Hash())
	n.broker.put(domain.High, rec)
	c.wantNotification("reminder")

	c.say("read", []string{"reminder"}, domain.Receipt(before)) // last week's
	c.say("ack", []string{"reminder"}, domain.Receipt(before))
	c.wantError(codeUnknownID)
	c.say("read", []string{"reminder"}, domain.Receipt(held))
	c.say("read", []string{"other"}, domain.Receipt(before))
	c.read("other")
	eventually(t, "all to be told", func() bool { return len(n.reads()) == 4 })
	for i, want := range []struct {
		id      domain.DeliveryID
		attempt int32
	}{
		{before, 0},
		{held, 3},
		{domain.NewDeliveryID(before.Time(), domain.HashDelivery("other", "mona")), 0},
		{domain.NewDeliveryID(time.UnixMilli(0), domain.HashDelivery("other", "mona")), 0},
	} {
		ev := n.reads()[i]
		if !bytes.Equal(ev.GetDeliveryId(), want.id[:]) || ev.GetDeliveryRead().GetAttempt() != want.attempt {
			t.Errorf("read %d is %v, want %s of attempt %d", i, ev, want.id, want.attempt)
		}
	}
}

// TestAReusedIDMeansItsNewestUse where the client has no receipt.
func TestAReusedIDMeansItsNewestUse(t *testing.T) {
	t.Parallel()
	n := setup(t)
	c := n.connect("mona")
	first := route(n, "mona", "reminder")
	held := idOf(t, first.Value)
	later := domain.NewDeliveryID(held.Time().Add(time.Minute), held.Hash())
	second := route(n, "mona", "reminder", func(r *whisperv1.Route) { r.DeliveryId = later[:] })
	n.broker.put(domain.High, first)
	c.wantNotification("reminder")
	c.ack("reminder")
	eventually(t, "the first to be acknowledged", func() bool {
		return slices.ContainsFunc(n.broker.allFacts(), func(ev *whisperv1.Event) bool { return ev.GetDeliveryDelivered() != nil })
	})
	n.broker.put(domain.High, second)
	c.wantNotification("reminder")
	c.ack("reminder")
	c.read("reminder")
	c.say("read", []string{"reminder"}, domain.Receipt(held))
	eventually(t, "both to be told", func() bool { return len(n.reads()) == 2 })
	for i, want := range []domain.DeliveryID{later, held} {
		if got := n.reads()[i]; !bytes.Equal(got.GetDeliveryId(), want[:]) || !domain.ProvenRead(got) {
			t.Errorf("read %d is %v, want one of %s", i, got, want)
		}
	}
}

func TestRepeatsAreDroppedByIDAndReceipt(t *testing.T) {
	t.Parallel()
	f := clientFrame{IDs: []string{"a", "a", "b", "a", "b"}, Receipts: []string{"1", "2", "", "1", ""}}
	f.distinct()
	if !slices.Equal(f.IDs, []string{"a", "a", "b"}) || !slices.Equal(f.Receipts, []string{"1", "2", ""}) {
		t.Errorf("left %v with %v", f.IDs, f.Receipts)
	}
	f = clientFrame{IDs: []string{"a", "a", "b"}}
	f.distinct()
	if !slices.Equal(f.IDs, []string{"a", "b"}) || f.Receipts != nil {
		t.Errorf("left %v with %v", f.IDs, f.Receipts)
	}
}

func (n *node) reads() (all []*whisperv1.Event) {
	for _, ev := range n.broker.allFacts() {
		if ev.GetDeliveryRead() != nil {
			all = append(all, ev)
		}
	}
	return all
}

func (c *client) say(verb string, ids []string, receipts ...string) {
	c.t.Helper()
	b, err := json.Marshal(map[string]any{"type": verb, "ids": ids, "receipts": receipts})
	if err != nil {
		c.t.Fatal(err)
	}
	c.write(string(b))
}

// idOf is the delivery that a route's record names.
func idOf(t *testing.T, value []byte) domain.DeliveryID {
	t.Helper()
	r := &whisperv1.Route{}
	if err := proto.Unmarshal(value, r); err != nil {
		t.Fatal(err)
	}
	return domain.DeliveryID(r.GetDeliveryId())
}
