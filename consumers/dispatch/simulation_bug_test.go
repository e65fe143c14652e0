package dispatch

import (
	"runtime"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// A bug in a decision: what the simulation breaks is a parked record, so that whatever is decided about the delivery
// panics from the next restart on. The partition then stops, sets it aside and is restored anew, as in poison.go.

// contain runs a decision. After a bug the process counts as crashed; what it was about must be known, and never meet
// the bug again.
func (w *world) contain(do func()) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if _, bug := v.(runtime.Error); !bug { // a test that fails
			panic(v)
		}
		of, ok := w.state.Busy()
		switch {
		case !ok:
			w.t.Logf("%v", v)
			panic(v)
		case slices.Contains(w.aside, of.ID):
			w.t.Fatalf("%s to %q was set aside and met the bug again: %v", of.Notification, of.User, v)
		case !w.broken[of.ID]:
			panic(v)
		}
		w.aside = append(w.aside, of.ID)
		w.crashed, w.bug = true, true
	}()
	do()
}

// breakParked breaks what is parked of one delivery.
func (w *world) breakParked(t *rapid.T) {
	var keys []string
	for _, key := range sortedKeys(w.timers) {
		if m := w.timers[key]; m.GetAccepted() != nil || len(m.GetBroadcast()) > 0 && m.GetUserId() != "" {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return
	}
	key := rapid.SampledFrom(keys).Draw(t, "parked")
	m := w.timers[key]
	if len(m.GetLegs()) > 0 {
		m = m.GetLegs()[rapid.IntRange(0, len(m.GetLegs())-1).Draw(t, "leg")]
	}
	m.Step, m.Attempt, m.Phase, m.DueMs = -5, max(m.GetAttempt(), 1), whisperv1.Phase_PHASE_BACKOFF, w.now.Add(time.Second).UnixMilli()
	id, err := domain.DeliveryIDFromBytes([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	w.broken[id] = true
	w.restore()
}
