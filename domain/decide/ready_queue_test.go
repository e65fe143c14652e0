package decide_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// TestALaneStaysInOrderWhereItsUserConnects while what quiet hours held is let out, slice by slice.
func TestALaneStaysInOrderWhereItsUserConnects(t *testing.T) {
	t.Parallel()
	const held = 600
	w := newTrouble(t)
	w.atNight("mona", held)
	w.do(gone("mona", "n1"))
	w.now = morning
	w.send("new", "mona")
	w.do(decide.TimePassed{}) // some had their turn: mona is offline
	w.do(here("mona", "n1", "t", 1))
	w.passAll()
	var want []string
	for i := range held {
		want = append(want, fmt.Sprint("n", i))
	}
	if want = append(want, "new"); !slices.Equal(w.order, want) {
		t.Errorf("it went out in the order %v", w.order)
	}
}

// someWait has 300 others and mona wait to connect; quiet hours hold what mona has first.
func someWait(t *testing.T) *trouble {
	w := newTrouble(t)
	w.parked = map[string]*whisperv1.Parked{}
	w.do(decide.CategoryChanged{Name: "chat", Category: passing(t)})
	w.do(decide.ProfilePatched{User: "mona", Patch: []byte(cairo), At: w.now, Offset: 1})
	for i := range 300 {
		w.send(fmt.Sprint("x", i), fmt.Sprint("user-", i))
	}
	w.send("held", "mona")
	w.category = "chat"
	w.send("waiting", "mona")
	w.category = ""
	return w
}

func passing(t *testing.T) *category.Category {
	t.Helper()
	c, err := category.Parse("chat", []byte(`{"quiet_hours":"pass"}`))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// restart has another process take over, which knows of the nodes and profiles before it is told what is parked.
func (w *trouble) restart(others int, profile string) {
	w.s = decide.NewState(0, decide.DefaultPolicy())
	w.do(decide.ProfilePatched{User: "mona", Patch: []byte(profile), At: w.now, Offset: 1})
	w.do(decide.NodeChanged{Node: "n1", Incarnation: 1})
	for i := range others {
		w.do(here(fmt.Sprint("user-", i), "n1", "s", 1))
	}
	w.do(here("mona", "n1", "s", 1))
	for _, key := range slices.Sorted(maps.Keys(w.parked)) {
		w.s.RestoreParked(w.parked[key])
	}
	w.s.ReplayDone()
}

// TestReadyDeliveriesAreSentOnce, also where another delivery lets it out before.
func TestReadyDeliveriesAreSentOnce(t *testing.T) {
	t.Parallel()
	for name, happens := range map[string]func(w *trouble){
		"a node's heartbeat comes after its presence": func(w *trouble) {
			for i := range 300 {
				w.do(here(fmt.Sprint("user-", i), "n2", "s", 1))
			}
			w.do(here("mona", "n2", "s", 1))
			w.do(decide.NodeChanged{Node: "n2", Incarnation: 1})
		},
		"a takeover": func(w *trouble) {
			w.restart(300, cairo)
			w.do(decide.CategoryChanged{Name: "chat", Category: passing(t)})
			w.took(w.s.Resume(w.now))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := someWait(t)
			w.now = morning
			happens(w)
			w.passAll()
			if n := len(slices.DeleteFunc(slices.Clone(w.order), func(s string) bool { return s != "held" })); n != 1 {
				t.Errorf("it was sent %d times", n)
			}
		})
	}
}

// TestAQueuedWakeIsNotLost: a push is to be tried again, and its time comes while a takeover wakes many; its user is
// connected, so it goes to the socket.
func TestAQueuedWakeIsNotLost(t *testing.T) {
	t.Parallel()
	const profile = `{"endpoints":{"phone":{"channel":"apns","token":"aa11","app":"x"}}}`
	for _, others := range []int{0, 300} {
		w := newTrouble(t)
		w.parked = map[string]*whisperv1.Parked{}
		w.do(decide.ProfilePatched{User: "mona", Patch: []byte(profile), At: w.now, Offset: 1})
		for i := range others {
			w.send(fmt.Sprint("x", i), fmt.Sprint("user-", i))
		}
		w.n++
		id := domain.NewDeliveryID(w.now, domain.HashDelivery("pay", "mona"))
		w.do(decide.DeliveryArrived{Source: decide.LaneOffset{Lane: domain.Normal, Offset: w.n}, Event: &whisperv1.Event{
			DeliveryId: id[:], NotificationId: "pay", UserId: "mona", Lane: whisperv1.Lane_LANE_NORMAL,
			Kind: &whisperv1.Event_DeliveryAccepted{DeliveryAccepted: &whisperv1.DeliveryAccepted{
				Channels: []string{"socket", "push"}, Content: &whisperv1.Content{Title: "t", Body: "b"},
				AcceptedAtMs: w.now.UnixMilli(), ExpiresAtMs: w.now.Add(72 * time.Hour).UnixMilli(),
				Request: &whisperv1.Position{Topic: "r", Offset: w.n}, Recipients: 1,
			}},
		}})
		w.do(decide.FactArrived{Event: &whisperv1.Event{
			DeliveryId: id[:], NotificationId: "pay", UserId: "mona", Lane: whisperv1.Lane_LANE_NORMAL,
			Kind: &whisperv1.Event_AttemptFailed{AttemptFailed: &whisperv1.AttemptFailed{
				Attempt: 1, Channel: "apns", Endpoint: "phone", Class: whisperv1.FailureClass_FAILURE_CLASS_RETRY, RetryAfterMs: 60_000, Reason: "503",
			}},
		}})
		if p := w.parked[string(id[:])]; p.GetPhase() != whisperv1.Phase_PHASE_BACKOFF {
			t.Fatalf("it is not to be tried again: %v", p)
		}
		w.now = w.now.Add(2 * time.Minute)
		w.restart(others, profile)
		w.order = nil
		w.took(w.s.Resume(w.now))
		w.passAll()
		if !slices.Contains(w.order, "pay") {
			t.Errorf("beside %d others it does not go to the socket", others)
		}
	}
}

// history plays random happenings of two users with turns of a few deliveries, and watches what goes out to sockets.
type history struct {
	*trouble
	random    *rand.Rand
	connects  int // and disconnects: something may be sent again only after one of them, or a while later
	sentAt    map[string]time.Time
	sentAfter map[string]int
	owner     map[string]string
	passes    map[string]bool // quiet hours don't hold it
	newest    map[string]int  // of the others, by user
	wrong     []string
}

func newHistory(t *testing.T, seed uint64) *history {
	random := rand.New(rand.NewPCG(seed, 1))
	policy := decide.DefaultPolicy()
	policy.Due, policy.IndexFrom = 1+random.IntN(3), 1+random.IntN(6)
	h := &history{
		trouble: &trouble{tb: t, s: decide.NewState(0, policy), now: night, parked: map[string]*whisperv1.Parked{}}, random: random,
		sentAt: map[string]time.Time{}, sentAfter: map[string]int{}, owner: map[string]string{}, passes: map[string]bool{}, newest: map[string]int{},
	}
	h.s.ReplayDone()
	h.watch(func() { h.do(decide.CategoryChanged{Name: "chat", Category: passing(t)}) })
	for i, user := range []string{"mona", "omar"} {
		h.watch(func() { h.do(decide.ProfilePatched{User: user, Patch: []byte(cairo), At: h.now, Offset: int64(1 + i)}) })
	}
	return h
}

// watch notes what is sent twice for no reason, and what passes an older one that nothing but quiet hours and absence held.
func (h *history) watch(do func()) {
	before := len(h.order)
	do()
	for _, note := range h.order[before:] {
		at, sent := h.sentAt[note]
		if sent && h.sentAfter[note] == h.connects && h.now.Sub(at) < time.Second {
			h.wrong = append(h.wrong, note+" is sent twice")
		}
		var number int
		_, _ = fmt.Sscanf(note, "d%d", &number)
		if user := h.owner[note]; !sent && !h.passes[note] {
			if number < h.newest[user] {
				h.wrong = append(h.wrong, note+" comes too late")
			}
			h.newest[user] = max(h.newest[user], number)
		}
		h.sentAt[note], h.sentAfter[note] = h.now, h.connects
	}
}

func (h *history) happens(offset int64, alive *bool) {
	user := []string{"mona", "omar"}[h.random.IntN(2)]
	switch h.random.IntN(12) {
	case 0, 1, 2, 3:
		note := fmt.Sprint("d", len(h.owner))
		h.category = []string{"", "chat"}[h.random.IntN(2)]
		h.owner[note], h.passes[note] = user, h.category == "chat"
		h.watch(func() { h.send(note, user) })
	case 4:
		h.connects++
		h.watch(func() { h.do(here(user, "n1", fmt.Sprint("s", h.connects), 1)) })
	case 5:
		h.connects++
		h.watch(func() { h.do(gone(user, "n1")) })
	case 6:
		h.connects++
		*alive = !*alive
		h.watch(func() { h.do(decide.NodeChanged{Node: "n1", Incarnation: map[bool]uint64{true: 1}[*alive]}) })
	case 7:
		if h.random.IntN(3) == 0 && h.now.Before(morning) {
			h.now = morning
		}
	case 8:
		patch := []string{`{"quiet_hours":null}`, cairo, `{"endpoints":{"x":{"channel":"apns","token":"ab","app":"y"}}}`}[h.random.IntN(3)]
		if h.random.IntN(3) == 0 {
			h.watch(func() { h.do(decide.ProfilePatched{User: user, Patch: []byte(patch), At: h.now, Offset: offset}) })
		}
	default:
		h.now = h.now.Add(time.Millisecond)
		h.watch(func() { h.do(decide.TimePassed{}) })
	}
}

// TestTheReadyQueueInAnyHistory: nothing is sent twice, is lost, or leaves its lane's order, whatever happens while turns are taken.
func TestTheReadyQueueInAnyHistory(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2_000) {
		h, alive := newHistory(t, seed), false
		for i := range 40 {
			h.happens(int64(10+i), &alive)
		}
		h.connects++
		h.watch(func() { h.do(decide.NodeChanged{Node: "n1", Incarnation: 1}) })
		for i, user := range []string{"mona", "omar"} {
			h.connects++
			h.watch(func() { h.do(here(user, "n1", fmt.Sprint("s", h.connects), 1)) })
			h.watch(func() {
				h.do(decide.ProfilePatched{User: user, Patch: []byte(`{"quiet_hours":null}`), At: h.now, Offset: int64(100 + i)})
			})
		}
		h.now = morning
		for range 20 {
			for due, ok := h.now, true; ok && !due.After(h.now); due, ok = h.s.NextDue() {
				h.watch(func() { h.do(decide.TimePassed{}) })
			}
			h.now = h.now.Add(time.Minute)
		}
		for note := range h.owner {
			if _, sent := h.sentAt[note]; !sent {
				h.wrong = append(h.wrong, note+" is lost")
			}
		}
		if len(h.wrong) > 0 {
			t.Errorf("seed %d: %v", seed, h.wrong)
		}
	}
}

// TestAPausedBroadcastHoldsUpNobodyBehindIt: of what quiet hours hold of a user for whom much is held, the oldest is a broadcast's that
// is paused when they end. What is behind it in its lane goes out, and so does what comes then; it goes when it is resumed.
func TestAPausedBroadcastHoldsUpNobodyBehindIt(t *testing.T) {
	t.Parallel()
	const held = 100
	w := newTrouble(t)
	w.do(decide.ProfilePatched{User: "mona", Patch: []byte(cairo), At: w.now, Offset: 1})
	w.do(here("mona", "n1", "s", 1))
	w.n++
	cast := broadcast("cast", "")
	id := domain.NewDeliveryID(w.now, domain.HashDelivery("cast", ""))
	cast.Event.DeliveryId, cast.Event.Lane, cast.Source = id[:], whisperv1.Lane_LANE_NORMAL, decide.LaneOffset{Lane: domain.Normal, Offset: w.n}
	acc := cast.Event.GetBroadcastAccepted().GetAccepted()
	acc.AcceptedAtMs, acc.ExpiresAtMs = w.now.UnixMilli(), w.now.Add(72*time.Hour).UnixMilli()
	w.do(cast)
	w.do(decide.WalkOn{Lane: domain.Normal})
	steer := func(ev *whisperv1.Event) {
		w.n++
		ev.NotificationId = "cast"
		w.do(decide.SteeringArrived{Event: ev, Source: decide.LaneOffset{Lane: domain.Normal, Offset: w.n}})
	}
	steer(&whisperv1.Event{Kind: &whisperv1.Event_PauseRequested{PauseRequested: &whisperv1.PauseRequested{Request: &whisperv1.Position{Topic: "r", Offset: 1}}}})
	var want []string
	for i := range held {
		want = append(want, fmt.Sprint("n", i))
		w.send(want[i], "mona")
	}
	if st := w.s.Stats(); st.Parked != held+1 {
		t.Fatalf("%d are held", st.Parked)
	}
	settles := func(what string, want ...string) {
		t.Helper()
		for rounds := 0; ; rounds++ {
			w.do(decide.TimePassed{})
			if due, ok := w.s.NextDue(); !ok || due.After(w.now) {
				break
			}
			if rounds > held {
				t.Fatalf("%s: something is due without end", what)
			}
		}
		if !slices.Equal(w.order, want) {
			t.Fatalf("%s: %d went out: %v", what, len(w.order), w.order)
		}
	}
	w.now = morning
	settles("quiet hours end", want...)
	w.send("new", "mona")
	want = append(want, "new")
	settles("a new one comes", want...)
	steer(&whisperv1.Event{Kind: &whisperv1.Event_ResumeRequested{ResumeRequested: &whisperv1.ResumeRequested{Request: &whisperv1.Position{Topic: "r", Offset: 2}}}})
	settles("it is resumed", append(want, "cast")...)
}
