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

// readBack is a fact that was asked for by a Recall.
func readBack(f decide.FactArrived) decide.FactRecalled { return decide.FactRecalled{Event: f.Event} }

func takenBack(n, user, name string) decide.FactArrived {
	return about(n, user, &whisperv1.Event{Kind: &whisperv1.Event_DeliveryRetracted{DeliveryRetracted: &whisperv1.DeliveryRetracted{
		Channel: "apns", Provider: "apns", Endpoint: name, ProviderId: "id",
	}}})
}

func notTakenBack(n, user, name string, attempt int32, class whisperv1.FailureClass, retryAfter time.Duration) decide.FactArrived {
	return about(n, user, &whisperv1.Event{Kind: &whisperv1.Event_RetractFailed{RetractFailed: &whisperv1.AttemptFailed{
		Attempt: attempt, Channel: "apns", Endpoint: name, Class: class, Reason: "because", RetryAfterMs: retryAfter.Milliseconds(),
	}}})
}

func phone(user, token string, offset int64) decide.ProfilePatched {
	return decide.ProfilePatched{User: user, Patch: fmt.Appendf(nil, `{"endpoints":{"a":{"channel":"apns","token":%q,"app":"x"}}}`, token), At: t0, Offset: offset}
}

func TestARetractionReachesPhones(t *testing.T) {
	t.Parallel()
	pushOnly := given{channels: []string{"push"}}
	retry, drop, prune := whisperv1.FailureClass_FAILURE_CLASS_RETRY, whisperv1.FailureClass_FAILURE_CLASS_DROP,
		whisperv1.FailureClass_FAILURE_CLASS_PRUNE
	unknown, expired := whisperv1.FailureClass_FAILURE_CLASS_UNKNOWN, whisperv1.FailureClass_FAILURE_CLASS_EXPIRED
	sent := []step{
		{0, phone("mona", "one", 1), []string{"put mona"}},
		{0, arrived("pay", "mona", 7, pushOnly), []string{"push pay #1 to a"}},
	}
	taken := append(slices.Clone(sent), step{1, pushed("pay", "mona", "a", 1), []string{"settle 7"}})
	retracted := append(slices.Clone(taken), step{
		2, steer("retract", "pay"),
		[]string{"settle 9", "retract pay", "park", "recall pay from 0"},
	})
	asked := append(slices.Clone(retracted), step{3, readBack(pushed("pay", "mona", "a", 1)), []string{"take back pay #1 from a one"}})
	then := func(before []step, more ...step) []step { return append(slices.Clone(before), more...) }
	tests := map[string][]step{
		"what was taken before is read back, once": then(
			asked,
			step{3, readBack(pushed("pay", "mona", "a", 1)), nil},
			step{3, pushed("pay", "mona", "a", 1), nil}, // the same fact, redelivered
			step{3, decide.RecallRead{Notification: "pay"}, []string{"park after"}},
			step{3, decide.RecallRead{Notification: "pay"}, nil},
			step{4, takenBack("pay", "mona", "a"), nil},
			step{4, readBack(pushed("pay", "mona", "a", 1)), nil},
			step{90_000, decide.TimePassed{}, []string{"unpark"}},
		),
		"what is in flight is taken back when it was taken": then(
			sent,
			step{1, steer("retract", "pay"), []string{"delivery_cancelled", "settle 7", "settle 9", "retract pay", "park", "recall pay from 0"}},
			step{1, decide.RecallRead{Notification: "pay"}, []string{"park after"}},
			step{2, pushed("pay", "mona", "a", 1), []string{"take back pay #1 from a one"}},
			step{2, takenBack("pay", "mona", "a"), nil},
		),
		"what is in flight and fails shows nothing": then(
			sent,
			step{1, steer("retract", "pay"), []string{"delivery_cancelled", "settle 7", "settle 9", "retract pay", "park", "recall pay from 0"}},
			step{2, pushFailed("pay", "mona", "a", 1, retry), nil},
			step{2, pushFailed("pay", "mona", "a", 1, drop), nil},
		),
		"what may have been shown is taken back, and again when a later attempt was taken": then(
			sent,
			step{1, steer("retract", "pay"), []string{"delivery_cancelled", "settle 7", "settle 9", "retract pay", "park", "recall pay from 0"}},
			step{2, pushFailed("pay", "mona", "a", 1, unknown), []string{"take back pay #1 from a one"}},
			step{3, takenBack("pay", "mona", "a"), nil},
			step{4, pushed("pay", "mona", "a", 2), []string{"take back pay #1 from a one"}},
		),
		"another notification is not touched": then(
			retracted,
			step{3, arrived("other", "mona", 8, pushOnly), []string{"push other #1 to a"}},
			step{3, pushFailed("other", "mona", "a", 1, retry), []string{"deferred retry"}},
			step{9, decide.TimePassed{}, []string{"push other #2 to a"}},
			step{9, pushed("other", "mona", "a", 2), []string{"settle 8"}},
			step{9, readBack(pushed("other", "mona", "a", 2)), nil},
		),
		"what a socket took is no phone's": then(
			retracted,
			step{3, readBack(socketSent("pay", "mona", 1)), nil},
			step{3, socketSent("pay", "mona", 1), nil},
		),
		"who is erased is left alone": then(
			retracted,
			step{3, decide.ProfilePatched{User: "mona", Offset: 2}, []string{"forget mona", "releasing mona", "user_erased"}},
			step{3, readBack(pushed("pay", "mona", "a", 1)), nil},
		),
		"a phone that got a new token is reached by it": then(
			retracted,
			step{3, phone("mona", "two", 2), []string{"put mona", "releasing mona"}},
			step{3, readBack(pushed("pay", "mona", "a", 1)), []string{"take back pay #1 from a two"}},
		),
		"a phone that is gone is not": then(
			retracted,
			step{3, decide.ProfilePatched{User: "mona", Patch: []byte(`{"endpoints":{"a":null}}`), Offset: 2}, []string{"put mona", "releasing mona"}},
			step{3, readBack(pushed("pay", "mona", "a", 1)), nil},
		),
		"a dead token is forgotten": then(
			asked,
			step{4, notTakenBack("pay", "mona", "a", 1, prune, 0), []string{"put mona", "releasing mona", "endpoint_pruned"}},
			step{4, readBack(pushed("pay", "mona", "a", 1)), nil},
		),
		"it is tried again, parked, and ends when it was taken": then(
			asked,
			step{4, notTakenBack("pay", "mona", "a", 1, retry, 0), []string{"park"}},
			step{4, notTakenBack("pay", "mona", "a", 1, retry, 0), nil}, // redelivered
			step{4, readBack(pushed("pay", "mona", "a", 1)), nil},
			step{7, decide.TimePassed{}, []string{"take back pay #2 from a one"}},
			step{7, decide.TimePassed{}, nil},
			step{7, notTakenBack("pay", "mona", "a", 1, retry, 0), nil}, // of the earlier attempt
			step{8, notTakenBack("pay", "mona", "a", 2, unknown, time.Minute), []string{"park"}},
			step{30, decide.TimePassed{}, nil}, // the provider asked for time
			step{69, decide.TimePassed{}, []string{"take back pay #3 from a one"}},
			step{70, takenBack("pay", "mona", "a"), []string{"unpark"}},
			step{70, notTakenBack("pay", "mona", "a", 3, retry, 0), nil},
		),
		"it is not tried for ever": then(
			asked,
			step{4, notTakenBack("pay", "mona", "a", 9, retry, 0), nil},
			step{4, readBack(pushed("pay", "mona", "a", 1)), nil},
		),
		"nor after the retraction's time": then(
			asked,
			step{4, notTakenBack("pay", "mona", "a", 1, retry, 25*time.Hour), nil},
		),
		"what waits goes with the retraction": then(
			asked,
			step{4, decide.RecallRead{Notification: "pay"}, []string{"park after"}},
			step{4, notTakenBack("pay", "mona", "a", 1, retry, 23*time.Hour), []string{"park"}},
			step{90_000, decide.TimePassed{}, []string{"unpark", "unpark"}},
		),
		"what can't be helped ends with its fact": then(
			asked,
			step{4, notTakenBack("pay", "mona", "a", 1, drop, 0), nil},
			step{4, readBack(pushed("pay", "mona", "a", 1)), nil},
		),
		"nor what came too late": then(asked, step{4, notTakenBack("pay", "mona", "a", 1, expired, 0), nil}),
		"who is erased while it waits is forgotten there, too": then(
			asked,
			step{4, notTakenBack("pay", "mona", "a", 1, retry, 0), []string{"park"}},
			step{5, decide.ProfilePatched{User: "mona", Offset: 2}, []string{"unpark", "forget mona", "releasing mona", "user_erased"}},
			step{9, decide.TimePassed{}, nil},
		),
		"nothing is read where nobody knows of it": {
			{0, phone("mona", "one", 1), []string{"put mona"}},
			{2, steer("retract", "pay"), []string{"settle 9", "retract pay", "park"}},
			{3, decide.RecallRead{Notification: "pay"}, nil},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := decide.NewState(0, decide.DefaultPolicy())
			s.ReplayDone()
			for i, step := range steps {
				var got []string
				for _, o := range s.Decide(step.in, at(step.at)) {
					got = append(got, said(o))
				}
				if !slices.Equal(got, step.want) {
					t.Fatalf("step %d (%T at %ds):\n got %q\nwant %q", i, step.in, step.at, got, step.want)
				}
			}
		})
	}
}

// TestASilentPushShowsNothing: it has what the provider needs and nothing of the notification but its name.
func TestASilentPushShowsNothing(t *testing.T) {
	t.Parallel()
	s := decide.NewState(0, decide.DefaultPolicy())
	s.ReplayDone()
	s.Decide(phone("mona", "one", 1), at(0))
	s.Decide(arrived("pay", "mona", 7, given{channels: []string{"push"}}), at(0))
	s.Decide(steer("retract", "pay"), at(1))
	out := s.Decide(about("pay", "mona", &whisperv1.Event{Lane: whisperv1.Lane_LANE_HIGH, Kind: pushed("pay", "mona", "a", 1).Event.Kind}),
		at(2))
	id := domain.NewDeliveryID(t0, domain.HashDelivery("pay", "mona"))
	want := &whisperv1.Push{
		DeliveryId: id[:], NotificationId: "pay", UserId: "mona", Lane: whisperv1.Lane_LANE_HIGH, Attempt: 1, Channel: "apns", Endpoint: "a",
		Token: "one", App: "x", ExpiresAtMs: at(1).Add(24 * time.Hour).UnixMilli(), Retract: true,
	}
	if got := out[0].(decide.PushTo).Push; len(out) != 1 || !proto.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

// TestARestartReadsBackAgain until the mark is there, and goes on with what waits.
func TestARestartReadsBackAgain(t *testing.T) {
	t.Parallel()
	s := decide.NewState(0, decide.DefaultPolicy())
	s.ReplayDone()
	parked := map[domain.DeliveryID]*whisperv1.Parked{}
	profile := []byte(nil)
	keep := func(outputs []decide.Output) (all []string) {
		for _, o := range outputs {
			all = append(all, said(o))
			switch o := o.(type) {
			case decide.Park:
				parked[o.ID] = proto.CloneOf(o.Parked)
			case decide.ParkAfter:
				parked[o.ID] = proto.CloneOf(o.Parked)
			case decide.Unpark:
				delete(parked, o.ID)
			case decide.PutUser:
				profile, _ = proto.Marshal(o.Profile)
			case decide.Advanced, decide.Count, decide.Deliver, decide.Emit, decide.Finished, decide.Notice, decide.PushTo, decide.PutPresence, decide.Recall,
				decide.Reject, decide.Remember, decide.RouteTo, decide.Settle, decide.SliceTaken, decide.Steered, decide.Uncount, decide.PutClaim, decide.TokenMoved, decide.Releasing:
			}
		}
		return all
	}
	restart := func(now int) []string {
		s = decide.NewState(0, decide.DefaultPolicy())
		s.RestoreUser("mona", profile)
		for _, p := range parked {
			s.RestoreParked(proto.CloneOf(p))
		}
		said := keep(s.Resume(at(now)))
		s.ReplayDone()
		return append(said, keep(s.Decide(decide.TimePassed{}, at(now)))...)
	}
	expect := func(what string, got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Fatalf("%s:\n got %q\nwant %q", what, got, want)
		}
	}
	keep(s.Decide(phone("mona", "one", 1), at(0)))
	keep(s.Decide(arrived("pay", "mona", 7, given{channels: []string{"push"}}), at(0)))
	keep(s.Decide(pushed("pay", "mona", "a", 1), at(1)))
	keep(s.Decide(steer("retract", "pay"), at(2)))
	expect("without the mark", restart(3), "park", "recall pay from 0")
	keep(s.Decide(readBack(pushed("pay", "mona", "a", 1)), at(4)))
	keep(s.Decide(notTakenBack("pay", "mona", "a", 1, whisperv1.FailureClass_FAILURE_CLASS_RETRY, time.Minute), at(4)))
	keep(s.Decide(decide.RecallRead{Notification: "pay"}, at(5)))
	expect("with it", restart(6))
	if next, ok := s.NextDue(); !ok || !next.Equal(at(64)) {
		t.Errorf("it is tried again at %v, %v", next, ok)
	}
	expect("what waits is tried again", keep(s.Decide(decide.TimePassed{}, at(64))), "take back pay #2 from a one")
	expect("also by a third process", restart(65), "take back pay #2 from a one")
	expect("until it was taken", keep(s.Decide(takenBack("pay", "mona", "a"), at(66))), "unpark")
	expect("whatever is told again", keep(s.Decide(notTakenBack("pay", "mona", "a", 2, whisperv1.FailureClass_FAILURE_CLASS_RETRY, 0),
		at(66))))
}

// TestAScanIsDoneInSlices: with many users the loop has its turn between.
func TestAScanIsDoneInSlices(t *testing.T) {
	t.Parallel()
	s := decide.NewState(0, decide.DefaultPolicy())
	for i := range 2*decide.ScanSlice + 10 {
		s.RestoreUser(fmt.Sprintf("u%06d", i), nil)
		s.RestoreUser(fmt.Sprintf("u%06d", i), []byte{})
	}
	s.RestoreSeen(
		decide.SeenDelivery{Hash: domain.HashDelivery("pay", "u002049"), AcceptedMs: at(-100).UnixMilli()},
		decide.SeenDelivery{Hash: domain.HashDelivery("pay", "u000001"), AcceptedMs: at(-50).UnixMilli()},
	)
	s.ReplayDone()
	for i, want := range [][]string{{"settle 9", "retract pay", "park"}, {}, {"park", "recall pay from -100"}, {}} {
		var in decide.Input = decide.TimePassed{}
		if i == 0 {
			in = steer("retract", "pay")
		}
		var got []string
		for _, o := range s.Decide(in, at(0)) {
			got = append(got, said(o))
		}
		if !slices.Equal(got, want) && len(got)+len(want) > 0 {
			t.Fatalf("step %d: got %q, want %q", i, got, want)
		}
		if next, ok := s.NextDue(); (i < 2) != (ok && !next.After(at(0))) {
			t.Errorf("step %d: next due at %v, %v", i, next, ok)
		}
	}
}
