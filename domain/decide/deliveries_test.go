package decide

import (
	"cmp"
	"fmt"
	"maps"
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
		h := newDeliveries(rapid.IntRange(1, 6).Draw(t, "crowd"))
		var held []*delivery
		var waves []*wave
		pick := func() *delivery { return held[rapid.IntRange(0, len(held)-1).Draw(t, "which")] }
		for offset := range int64(rapid.IntRange(1, 40).Draw(t, "steps")) {
			step := rapid.IntRange(0, 10).Draw(t, "step")
			if len(held) == 0 {
				step = step % 2
			}
			switch step {
			case 0:
				d := arrived(rapid.SampledFrom([]string{"mona", "ali"}).Draw(t, "user"), rapid.Int64Range(0, 9).Draw(t, "place")*100+offset)
				d.source.Lane = rapid.SampledFrom(domain.Lanes[:]).Draw(t, "lane")
				d.ev.NotificationId = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "notification")
				d.acc.CollapseKey = rapid.SampledFrom([]string{"", "key", "other"}).Draw(t, "collapse key")
				h.add(d)
				held = append(held, d)
			case 1: // two legs
				d := arrived("mona", offset)
				leg := d.newLeg()
				d.own, leg.own = []string{"socket"}, []string{"push"}
				l := &legs{held: []*delivery{d, leg}}
				d.legs, leg.legs = l, l
				h.add(d)
				h.add(leg)
				held = append(held, d, leg)
			case 2:
				h.park(pick())
			case 3:
				d := pick()
				if d.waiting = nil; rapid.Bool().Draw(t, "sent") {
					d.waiting = []waiting{{node: rapid.SampledFrom([]string{"n1", "n2"}).Draw(t, "node"), incarnation: 1}}
				}
				at := d.expires().Add(time.Duration(rapid.IntRange(-2, 2).Draw(t, "minutes")) * time.Minute)
				if h.schedule(d, at); d.due != earliest(at, d.expires()) {
					t.Fatalf("due %v, asked for %v, expires %v", d.due, at, d.expires())
				}
			case 4: // again, or by itself so far
				d := pick()
				if len(waves) == 0 || rapid.Bool().Draw(t, "another wave") {
					waves = append(waves, h.newWave(d.expires().Add(-time.Duration(rapid.IntRange(0, 2).Draw(t, "minutes"))*time.Minute)))
				}
				h.scheduleIn(waves[len(waves)-1], d)
			case 5:
				d := pick()
				h.unschedule(d)
				d.waiting = nil
			case 6:
				d := pick()
				d.phase = rapid.SampledFrom([]whisperv1.Phase{
					whisperv1.Phase_PHASE_QUIET, whisperv1.Phase_PHASE_DIGEST,
					whisperv1.Phase_PHASE_AWAY,
				}).Draw(t, "phase")
				h.hold(d)
			case 7:
				h.ready.add(pick(), rapid.SampledFrom([]readyTo{readyToWake, readyToGo}).Draw(t, "why"))
			case 8:
				h.ready.next()
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
			if len(h.byHash) != len(held) || h.parked != parked || h.inFlight() != len(held)-parked || h.due.len() != scheduled ||
				len(h.byUser)+len(h.indexes) != len(users) {
				t.Fatalf("%d held, %d parked, %d scheduled, of %d users; of %d, %d, %d, %d", len(h.byHash), h.parked, h.due.len(), len(h.byUser),
					len(held), parked, scheduled, len(users))
			}
			for v, n := range inWaves {
				if v.left != n {
					t.Fatalf("%d are left of a wave, not %d", n, v.left)
				}
			}
			if at, ok := h.next(); h.waves.len() != len(inWaves) || ok == first.IsZero() || ok && !at.Equal(first) {
				t.Fatalf("%d waves, not %d, the next is due %v %v, not %v", h.waves.len(), len(inWaves), at, ok, first)
			}
			checkIndexes(t, &h)
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

// checkIndexes compares what is asked of deliveries by an index with a look at all of them.
func checkIndexes(t *rapid.T, h *deliveries) {
	same := func(what string, got, want []*delivery) {
		if slices.SortFunc(want, compareArrival); !slices.Equal(got, want) {
			t.Fatalf("%s: %d, want %d", what, len(got), len(want))
		}
	}
	scan := func(match func(*delivery) bool) (all []*delivery) {
		for _, d := range h.byHash {
			if match(d) {
				all = append(all, d)
			}
		}
		return all
	}
	users, notes, nodes := map[string]bool{}, map[string]*walk{}, map[waiting]bool{}
	turns, hastened := map[userLane]int{}, 0
	for _, d := range h.byHash {
		users[d.user()], notes[d.ev.GetNotificationId()] = true, d.walk
		for _, w := range d.waiting {
			if !w.push() && d.slot != 0 {
				nodes[waiting{node: w.node, incarnation: w.incarnation}] = true
			}
		}
		if d.readyTo != notReady {
			turns[laneOf(d)]++
		}
		if d.rulesChanged {
			hastened++
		}
	}
	if !maps.Equal(turns, h.ready.of) || hastened != h.hastened {
		t.Fatalf("%v wait for their turn, want %v; %d are hastened, want %d", h.ready.of, turns, h.hastened, hastened)
	}
	for user := range users {
		mine := scan(func(d *delivery) bool { return d.user() == user })
		same("of "+user, slices.Clone(h.of(user)), mine)
		if h.count(user) != len(mine) {
			t.Fatalf("%s has %d, want %d", user, h.count(user), len(mine))
		}
		for _, d := range mine {
			key := d.acc.GetCollapseKey()
			if key != "" {
				same("key "+key, h.keyed(user, key), scan(func(o *delivery) bool { return o.user() == user && o.acc.GetCollapseKey() == key }))
			}
		}
		for _, lane := range domain.Lanes {
			held := func(phase whisperv1.Phase) []*delivery {
				return scan(func(d *delivery) bool { return d.user() == user && d.source.Lane == lane && d.phase == phase })
			}
			gathered := slices.DeleteFunc(slices.Collect(h.gathered(user, lane)),
				func(d *delivery) bool { return d.phase != whisperv1.Phase_PHASE_DIGEST })
			slices.Reverse(gathered)
			same("gathered", gathered, held(whisperv1.Phase_PHASE_DIGEST))
			if c := h.indexes[user]; c != nil {
				c.firstResting(lane)
				resting := slices.DeleteFunc(slices.Collect(c.resting[lane].all()),
					func(d *delivery) bool { return d.phase != whisperv1.Phase_PHASE_QUIET })
				same("resting", resting, held(whisperv1.Phase_PHASE_QUIET))
			}
		}
	}
	for note, w := range notes {
		same("of notification "+note, h.ofNote(note, w), scan(func(d *delivery) bool { return d.ev.GetNotificationId() == note }))
	}
	for at := range nodes {
		on := scan(func(d *delivery) bool {
			return d.slot != 0 && slices.ContainsFunc(d.waiting,
				func(w waiting) bool { return w.node == at.node && w.incarnation == at.incarnation })
		})
		same("on node "+at.node, h.onNode(at.node, at.incarnation), on)
	}
	for d := range h.atSockets.all(atSocketLink) {
		if !h.holds(d) {
			t.Fatalf("%s ended, and waits at a socket", d.ev.GetNotificationId())
		}
	}
	for user := range h.indexes {
		if !users[user] {
			t.Fatalf("%s has nothing", user)
		}
	}
	for note, list := range h.notes {
		if list.latest == nil {
			t.Fatalf("%s has nothing", note)
		}
	}
}

// TestAUsersHintsEndWithTheLastDelivery: nothing is kept for who has none.
func TestAUsersHintsEndWithTheLastDelivery(t *testing.T) {
	t.Parallel()
	h := newDeliveries(indexFrom)
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
