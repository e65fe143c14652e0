package decide

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// arrived is a delivery of the normal lane, numbered by its offset.
func arrived(user string, offset int64) *delivery {
	at := time.UnixMilli(1_700_000_000_000)
	id := domain.NewDeliveryID(at, domain.HashDelivery(fmt.Sprint(offset), user))
	acc := &whisperv1.DeliveryAccepted{ExpiresAtMs: at.Add(time.Hour).UnixMilli()}
	return &delivery{
		id: id, acc: acc, source: LaneOffset{domain.Normal, offset},
		ev: &whisperv1.Event{DeliveryId: id[:], NotificationId: fmt.Sprint(offset), UserId: user},
	}
}

// TestDeliveriesKeepTheirInvariants adds, parks, schedules and drops in any order, legs too.
func TestDeliveriesKeepTheirInvariants(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := newDeliveries()
		var held []*delivery
		var waves []*wave
		pick := func() *delivery { return held[rapid.IntRange(0, len(held)-1).Draw(t, "which")] }
		for offset := range int64(rapid.IntRange(1, 40).Draw(t, "steps")) {
			step := rapid.IntRange(0, 7).Draw(t, "step")
			if len(held) == 0 {
				step = step % 2
			}
			switch step {
			case 0:
				d := arrived(rapid.SampledFrom([]string{"mona", "ali"}).Draw(t, "user"), offset)
				h.add(d)
				held = append(held, d)
			case 1: // two legs
				d := arrived("mona", offset)
				leg := d.twin()
				d.own, leg.own = []string{"socket"}, []string{"push"}
				l := &legs{held: []*delivery{d, leg}}
				d.legs, leg.legs = l, l
				h.insert(d, nil)
				h.insert(leg, nil)
				held = append(held, d, leg)
			case 2:
				h.park(pick())
			case 3:
				d := pick()
				at := d.expires().Add(time.Duration(rapid.IntRange(-2, 2).Draw(t, "minutes")) * time.Minute)
				if h.schedule(d, at); d.due != earlier(at, d.expires()) {
					t.Fatalf("due %v, asked for %v, expires %v", d.due, at, d.expires())
				}
			case 4: // again, or by itself so far
				d := pick()
				if len(waves) == 0 || rapid.Bool().Draw(t, "another wave") {
					waves = append(waves, h.newWave(d.expires().Add(-time.Duration(rapid.IntRange(0, 2).Draw(t, "minutes"))*time.Minute)))
				}
				h.scheduleIn(waves[len(waves)-1], d)
			case 5:
				h.unschedule(pick())
			default:
				d := pick()
				h.drop(d, d.key())
				if d.legs != nil {
					if i := slices.Index(d.legs.held, d); i == 0 && len(d.legs.held) > 1 {
						h.lead(d.legs.held[1])
					}
					d.legs.held = slices.DeleteFunc(d.legs.held, func(o *delivery) bool { return o == d })
				}
				held = slices.DeleteFunc(held, func(o *delivery) bool { return o == d })
			}
			parked, scheduled, users, inWaves := 0, 0, map[string]int{}, map[*wave]int{}
			var first time.Time
			for _, d := range held {
				if !h.holds(d) || h.get(d.key()) != d {
					t.Fatalf("%s is not held", d.ev.GetNotificationId())
				}
				if !slices.Contains(h.of(d.user()), d) {
					t.Fatalf("%s is not its user's", d.ev.GetNotificationId())
				}
				if d.parked {
					parked++
				}
				if d.slot > 0 {
					scheduled++
				}
				if d.slot < 0 {
					if inWaves[d.wave]++; d.wave.open[-d.slot-1] != d || !d.due.Equal(d.wave.due) {
						t.Fatalf("%s is not in its wave", d.ev.GetNotificationId())
					}
				}
				if d.slot != 0 && (first.IsZero() || d.due.Before(first)) {
					first = d.due
				}
				users[d.user()]++
			}
			if len(h.byHash) != len(held) || h.parked != parked || h.inFlight() != len(held)-parked || h.due.len() != scheduled || len(h.byUser) != len(users) {
				t.Fatalf("%d held, %d parked, %d scheduled, of %d users; of %d, %d, %d, %d", len(h.byHash), h.parked, h.due.len(), len(h.byUser), len(held), parked, scheduled, len(users))
			}
			for v, n := range inWaves {
				if v.left != n {
					t.Fatalf("%d are left of a wave, not %d", n, v.left)
				}
			}
			if at, ok := h.next(); h.waves.len() != len(inWaves) || ok == first.IsZero() || ok && !at.Equal(first) {
				t.Fatalf("%d waves, not %d, the next is due %v %v, not %v", h.waves.len(), len(inWaves), at, ok, first)
			}
			for user, n := range users {
				if len(h.of(user)) != n {
					t.Fatalf("%s has %d, not %d", user, len(h.of(user)), n)
				}
			}
			if all := h.sorted(func(*delivery) bool { return true }); !slices.IsSortedFunc(all, compareArrival) || len(all) != len(held) {
				t.Fatalf("%v", all)
			}
		}
		var due []*delivery // as they come out, whether by themselves or with a wave
		for {
			d, ok := h.passed(time.UnixMilli(1_800_000_000_000))
			if !ok {
				break
			}
			due = append(due, d)
			h.unschedule(d)
		}
		if !slices.IsSortedFunc(due, func(a, b *delivery) int { return cmp.Or(a.due.Compare(b.due), compareArrival(a, b)) }) {
			t.Fatalf("out of order: %v", due)
		}
	})
}

// TestAUsersHintsEndWithTheLastDelivery: nothing is kept for who has none.
func TestAUsersHintsEndWithTheLastDelivery(t *testing.T) {
	t.Parallel()
	h := newDeliveries()
	first, second := arrived("mona", 1), arrived("mona", 2)
	h.add(first)
	h.add(second)
	h.resting["mona"], h.untexted[laneOf(second)] = true, []*delivery{second}
	if h.drop(first, first.key()); !h.resting["mona"] || len(h.untexted) != 1 {
		t.Fatal("one is held, and nothing is known of it")
	}
	if h.drop(second, second.key()); len(h.resting)+len(h.untexted)+len(h.byUser) > 0 {
		t.Fatalf("%+v", h)
	}
}
