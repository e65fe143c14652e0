package decide_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// What grows with trouble: nights full of notifications, users who never come, nodes that die, broadcasts far ahead. Each benchmark
// is run with N and 4N, so that what grows faster than its state shows.

var (
	night   = time.Date(2026, 11, 24, 21, 0, 0, 0, time.UTC) // 23:00 in Cairo
	morning = time.Date(2026, 11, 25, 5, 20, 0, 0, time.UTC) // after the hours and their spread
)

// trouble is a State and a clock.
type trouble struct {
	tb  testing.TB
	s   *decide.State
	now time.Time
	n   int64

	category string                       // "": default
	parked   map[string]*whisperv1.Parked // nil: not kept
	routes   int
	order    []string // what went out
	most     int      // outputs of one decision
}

func newTrouble(tb testing.TB) *trouble {
	w := &trouble{tb: tb, s: decide.NewState(0, decide.DefaultPolicy()), now: night}
	w.s.ReplayDone()
	w.do(decide.NodeChanged{Node: "n1", Incarnation: 1})
	return w
}

func (w *trouble) do(in decide.Input) {
	w.took(w.s.Decide(in, w.now))
}

func (w *trouble) took(out []decide.Output) {
	w.most = max(w.most, len(out))
	for _, o := range out {
		if route, is := o.(decide.RouteTo); is {
			w.routes++
			w.order = append(w.order, route.Route.GetNotificationId())
		}
		if park, is := o.(decide.Park); is && w.parked != nil {
			w.parked[string(park.ID[:])] = proto.CloneOf(park.Parked)
		}
	}
}

// note is an id that was not used.
func (w *trouble) note() string { return fmt.Sprint("note-", w.n) }

// send takes a delivery of the normal lane.
func (w *trouble) send(note, user string) {
	w.n++
	id := domain.NewDeliveryID(w.now, domain.HashDelivery(note, user))
	w.do(decide.DeliveryArrived{Source: decide.LaneOffset{Lane: domain.Normal, Offset: w.n}, Event: &whisperv1.Event{
		DeliveryId: id[:], NotificationId: note, UserId: user, Lane: whisperv1.Lane_LANE_NORMAL,
		Kind: &whisperv1.Event_DeliveryAccepted{DeliveryAccepted: &whisperv1.DeliveryAccepted{
			Category: w.category, Channels: []string{domain.ChannelSocket}, Content: &whisperv1.Content{Title: "t", Body: "b"},
			AcceptedAtMs: w.now.UnixMilli(), ExpiresAtMs: w.now.Add(72 * time.Hour).UnixMilli(),
			Request: &whisperv1.Position{Topic: "r", Offset: w.n}, Recipients: 1,
		}},
	}})
}

// atNight are deliveries of one user who sleeps.
func (w *trouble) atNight(user string, deliveries int) {
	w.do(decide.ProfilePatched{User: user, Patch: []byte(cairo), At: w.now, Offset: 1})
	w.do(here(user, "n1", "s", 1))
	for i := range deliveries {
		w.send(fmt.Sprint("n", i), user)
	}
	if st := w.s.Stats(); st.Parked != deliveries {
		w.tb.Fatalf("%d are held", st.Parked)
	}
}

// passAll lets time pass until nothing is due.
func (w *trouble) passAll() (rounds int) {
	for rounds = 1; ; rounds++ {
		w.do(decide.TimePassed{})
		if due, ok := w.s.NextDue(); !ok || due.After(w.now) {
			return rounds
		}
	}
}

// away are deliveries of users who are not connected, one each.
func (w *trouble) away(deliveries int) {
	for i := range deliveries {
		w.send(fmt.Sprint("n", i), fmt.Sprint("user-", i))
	}
}

// benchTrouble measures run at two sizes, in CPU time for each of n.
func benchTrouble(b *testing.B, n int, prepare func(b *testing.B, n int) *trouble, run func(w *trouble, n int)) {
	for _, n := range []int{n, 4 * n} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var took time.Duration
			most := 0
			for b.Loop() {
				b.StopTimer()
				w := prepare(b, n)
				w.most = 0
				began := cpuTime(b)
				b.StartTimer()
				run(w, n)
				b.StopTimer()
				took += cpuTime(b) - began
				most = max(most, w.most)
				b.StartTimer()
			}
			b.ReportMetric(float64(took.Nanoseconds())/float64(b.N)/float64(n), "CPU-ns/each")
			b.ReportMetric(took.Seconds()*1e3/float64(b.N), "CPU-ms")
			b.ReportMetric(float64(most), "outputs/decision")
		})
	}
}

// BenchmarkRelease: the quiet hours of a user end for whom many are held.
func BenchmarkRelease(b *testing.B) {
	benchTrouble(b, 5_000, func(b *testing.B, n int) *trouble {
		w := newTrouble(b)
		w.atNight("mona", n)
		w.now = morning
		return w
	}, func(w *trouble, n int) {
		if w.passAll(); w.routes != n {
			w.tb.Fatalf("%d of %d went out", w.routes, n)
		}
	})
}

// BenchmarkReleasePassed: as BenchmarkRelease, and a newer one comes before they are let out.
func BenchmarkReleasePassed(b *testing.B) {
	benchTrouble(b, 5_000, func(b *testing.B, n int) *trouble {
		w := newTrouble(b)
		w.atNight("mona", n)
		w.now = morning
		return w
	}, func(w *trouble, n int) {
		w.send("new", "mona")
		if w.passAll(); w.routes != n+1 {
			w.tb.Fatalf("%d of %d went out", w.routes, n+1)
		}
	})
}

// BenchmarkHold: many come for a user who sleeps.
func BenchmarkHold(b *testing.B) {
	benchTrouble(b, 5_000, func(b *testing.B, _ int) *trouble { return newTrouble(b) }, func(w *trouble, n int) { w.atNight("mona", n) })
}

// BenchmarkWake: a user connects for whom many wait.
func BenchmarkWake(b *testing.B) {
	benchTrouble(b, 10_000, func(b *testing.B, n int) *trouble {
		w := newTrouble(b)
		for i := range n {
			w.send(fmt.Sprint("n", i), "mona")
		}
		return w
	}, func(w *trouble, n int) {
		w.do(here("mona", "n1", "s", 1))
		if w.passAll(); w.routes != n {
			w.tb.Fatalf("%d of %d went out", w.routes, n)
		}
	})
}

// BenchmarkRestoreOneUser: many deliveries of one user are parked.
func BenchmarkRestoreOneUser(b *testing.B) {
	var parked []*whisperv1.Parked
	benchTrouble(b, 10_000, func(b *testing.B, n int) *trouble {
		w := newTrouble(b)
		w.parked = map[string]*whisperv1.Parked{}
		for i := range n {
			w.now = w.now.Add(time.Microsecond)
			w.send(fmt.Sprint("n", i), "mona")
		}
		parked = parked[:0]
		for _, key := range slices.Sorted(mapsKeys(w.parked)) {
			parked = append(parked, w.parked[key])
		}
		w.s = decide.NewState(0, decide.DefaultPolicy())
		return w
	}, func(w *trouble, n int) {
		for _, p := range parked {
			w.s.RestoreParked(p)
		}
		w.s.ReplayDone()
		w.took(w.s.Resume(w.now))
		if st := w.s.Stats(); st.Parked != n {
			w.tb.Fatalf("%d are parked", st.Parked)
		}
	})
}

// BenchmarkCancelUnknown: a cancel names what nobody holds, and many are held.
func BenchmarkCancelUnknown(b *testing.B) {
	benchTrouble(b, 75_000, func(b *testing.B, n int) *trouble {
		w := newTrouble(b)
		w.away(n)
		return w
	}, func(w *trouble, _ int) {
		w.do(decide.CancelArrived{Event: &whisperv1.Event{
			NotificationId: "unknown",
			Kind:           &whisperv1.Event_CancelRequested{CancelRequested: &whisperv1.CancelRequested{}},
		}})
	})
}

// BenchmarkNodeDies: nobody is connected to it, and many are held.
func BenchmarkNodeDies(b *testing.B) {
	benchTrouble(b, 75_000, func(b *testing.B, n int) *trouble {
		w := newTrouble(b)
		w.away(n)
		return w
	}, func(w *trouble, _ int) { w.do(decide.NodeChanged{Node: "n1"}) })
}

// BenchmarkNodeReturns: the same node comes back.
func BenchmarkNodeReturns(b *testing.B) {
	benchTrouble(b, 75_000, func(b *testing.B, n int) *trouble {
		w := newTrouble(b)
		w.away(n)
		w.do(decide.NodeChanged{Node: "n1"})
		return w
	}, func(w *trouble, _ int) { w.do(decide.NodeChanged{Node: "n1", Incarnation: 2}) })
}

// BenchmarkIdleRound is what a round of the loop asks when nothing happens, with broadcasts that are to begin tomorrow.
func BenchmarkIdleRound(b *testing.B) {
	for _, n := range []int{0, 1_250, 5_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newTrouble(b)
			for i := range n {
				w.n++
				cast := broadcast(fmt.Sprint("cast-", i), "")
				cast.Source.Offset = w.n
				acc := cast.Event.GetBroadcastAccepted().GetAccepted()
				acc.SendAtMs, acc.ExpiresAtMs = w.now.Add(24*time.Hour).UnixMilli(), w.now.Add(48*time.Hour).UnixMilli()
				id := domain.NewDeliveryID(w.now, domain.HashDelivery(cast.Event.GetNotificationId(), ""))
				cast.Event.DeliveryId = id[:]
				w.do(cast)
			}
			began := cpuTime(b)
			for b.Loop() {
				w.do(decide.TimePassed{})
				for _, lane := range domain.Lanes {
					for range 2 { // walk, and walkIdle
						if at, due := w.s.WalkDue(lane); due && !at.After(w.now) {
							b.Fatal("one is due")
						}
					}
				}
				w.s.NextDue()
				w.s.Sizes()
				w.s.ReplayHeld()
			}
			b.ReportMetric(float64((cpuTime(b)-began).Nanoseconds())/float64(b.N), "CPU-ns/round")
		})
	}
}
