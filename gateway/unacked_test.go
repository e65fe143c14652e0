package gateway

import (
	"maps"
	"slices"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain"
)

// Whatever comes and goes, it holds what a plain map would.
func TestTheUnacknowledgedEqualAMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var u unacked
		model := map[domain.DeliveryHash]*delivery{}
		var ever []*delivery
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			if len(ever) == 0 || rapid.Bool().Draw(t, "adds") {
				d := &delivery{id: domain.NewDeliveryID(time.UnixMilli(1),
					domain.HashDelivery(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "id"), "mona"))}
				u.add(d)
				model[d.id.Hash()] = d
				ever = append(ever, d)
			} else {
				d := rapid.SampledFrom(ever).Draw(t, "removed")
				u.remove(d)
				if model[d.id.Hash()] == d {
					delete(model, d.id.Hash())
				}
			}
			held := map[domain.DeliveryHash]*delivery{}
			for d := range u.all() {
				held[d.id.Hash()] = d
			}
			if u.len() != len(model) || !maps.Equal(held, model) || len(slices.Collect(u.all())) != len(model) {
				t.Fatalf("it holds %d, %v; not %v", u.len(), held, model)
			}
			for _, d := range ever {
				if got := u.get(d.id.Hash()); got != model[d.id.Hash()] {
					t.Fatalf("get is %p, not %p", got, model[d.id.Hash()])
				}
			}
			if len(model) == 0 && (u.one != nil || u.many != nil) {
				t.Fatal("it keeps room for nothing")
			}
		}
	})
}

func TestTheOnlyUnacknowledgedDeliveryIsFound(t *testing.T) {
	t.Parallel()
	id := domain.NewDeliveryID(time.UnixMilli(1795392000123), domain.HashDelivery("a", "mona"))
	d := &delivery{routed: &routed{facts: domain.AttemptFacts{Notification: "a"}}, id: id}
	u := unacked{one: d}
	receipt := domain.Receipt(id)
	for _, c := range []struct {
		notification, receipt string
		want                  *delivery
	}{
		{"a", "", d}, {"a", receipt, d}, {"b", "", nil}, {"b", receipt, nil}, {"a", receipt + "0", nil}, {"a", "0" + receipt, nil}, {"a", "x", nil},
	} {
		if got := u.only(c.notification, c.receipt); got != c.want {
			t.Errorf("%q with the receipt %q is %p, not %p", c.notification, c.receipt, got, c.want)
		}
	}
	if (&unacked{}).only("a", "") != nil {
		t.Error("none is one")
	}
}

// docs/design.md and docs/sizing.md count with these.
func TestASessionIsSmall(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ is, most uintptr }{
		"a session": {unsafe.Sizeof(session{}), 448}, "a delivery": {unsafe.Sizeof(delivery{}), 64},
		"a record of the node's topic": {unsafe.Sizeof(routed{}), 240}, "a queued frame": {unsafe.Sizeof(outgoing{}), 40},
		"what is remembered": {unsafe.Sizeof(remembered{}), 32},
	} {
		if c.is > c.most {
			t.Errorf("%s has %d bytes, over %d", name, c.is, c.most)
		}
	}
}
