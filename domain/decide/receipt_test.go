package decide_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// readElsewhere is a client's word about an id that its gateway does not hold; with at it names the delivery.
func readElsewhere(notification, user string, at time.Time) decide.FactArrived {
	id := domain.NewDeliveryID(at, domain.HashDelivery(notification, user))
	return decide.FactArrived{Event: &whisperv1.Event{
		DeliveryId: id[:], NotificationId: notification, UserId: user, AtUs: t0.UnixMicro(),
		Kind: &whisperv1.Event_DeliveryRead{DeliveryRead: &whisperv1.DeliveryRead{Node: "n2"}},
	}}
}

// lastWeek gives a fact the id of a delivery of the same notification that is over.
func lastWeek(f decide.FactArrived) decide.FactArrived {
	ev := f.Event
	id := domain.NewDeliveryID(t0.Add(-7*24*time.Hour), domain.HashDelivery(ev.GetNotificationId(), ev.GetUserId()))
	ev.DeliveryId = id[:]
	return f
}

func TestWhoseReadCounts(t *testing.T) {
	t.Parallel()
	timeless := time.UnixMilli(0)
	unknown := whisperv1.FailureClass_FAILURE_CLASS_UNKNOWN
	later := given{sendAt: at(40), ttl: time.Hour}
	waits := step{0, arrived("pay", "mona", 7, later), []string{"delivery_scheduled", "park", "settle 7"}}
	goesOut := step{40, decide.TimePassed{}, []string{"route pay #1 to n1"}}
	connected := []step{{0, n1, nil}, {0, here("mona", "n1", "s1", 1), nil}}
	sent := []step{{0, arrived("pay", "mona", 7, given{}), []string{"route pay #1 to n1"}}, {0, socketSent("pay", "mona", 1), nil}}
	for name, steps := range map[string][]step{
		"what was never sent can't be read":            {waits, {1, readElsewhere("pay", "mona", timeless), nil}, goesOut},
		"nor with the right receipt":                   {waits, {1, readElsewhere("pay", "mona", t0), nil}, goesOut},
		"an earlier delivery's read is not this one's": {waits, {1, lastWeek(readElsewhere("pay", "mona", t0)), nil}, goesOut},
		"nor are its other facts": {
			waits,
			{1, lastWeek(acked("pay", "mona")), nil},
			{1, lastWeek(bounce("pay", "mona", 1, 1)), nil},
			{1, lastWeek(pushed("pay", "mona", "phone", 1)), nil},
			{1, lastWeek(about("pay", "mona", &whisperv1.Event{Kind: &whisperv1.Event_DeliveryExpired{DeliveryExpired: &whisperv1.DeliveryExpired{}}})), nil},
			goesOut,
		},
		"what a socket took may be read elsewhere": append(slices.Clone(sent), step{1, readElsewhere("pay", "mona", timeless), []string{"settle 7"}}),
		"with its receipt, too":                    append(slices.Clone(sent), step{1, readElsewhere("pay", "mona", t0), []string{"settle 7"}}),
		"not with another one": append(slices.Clone(sent),
			step{1, lastWeek(readElsewhere("pay", "mona", t0)), nil}, step{2, acked("pay", "mona"), []string{"settle 7"}}),
		"a read that is quicker than the attempt's fact": {
			sent[0], {0, readElsewhere("pay", "mona", t0), nil}, {0, socketSent("pay", "mona", 1), nil}, {1, acked("pay", "mona"), []string{"settle 7"}},
		},
		"a read of an attempt that was handed back": {
			sent[0],
			{0, readElsewhere("pay", "mona", t0), nil},
			{1, bounce("pay", "mona", 1, 1), []string{"deferred away", "park", "settle 7"}},
			{2, readElsewhere("pay", "mona", t0), nil},
			{3, here("mona", "n1", "s2", 1), []string{"route pay #2 to n1"}},
			{3, socketSent("pay", "mona", 2), nil},
			{4, acked("pay", "mona"), []string{"unpark"}},
		},
		"a push of which nobody knows what came may have been read": {
			{0, endpoint("mona", "phone"), []string{"put mona"}},
			{0, arrived("pay", "mona", 7, given{channels: []string{"push"}}), []string{"push pay #1 to phone"}},
			{1, pushFailed("pay", "mona", "phone", 1, unknown), []string{"deferred retry"}},
			{2, readElsewhere("pay", "mona", t0), []string{"settle 7"}},
		},
		"of what waits for the user nothing was sent": {
			{0, gone("mona", "n1"), nil},
			{0, arrived("pay", "mona", 7, given{}), []string{"deferred away", "park", "settle 7"}},
			{1, readElsewhere("pay", "mona", t0), nil},
			{2, here("mona", "n1", "s2", 1), []string{"route pay #1 to n1"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := decide.NewState(0, decide.DefaultPolicy())
			s.ReplayDone()
			playSteps(t, s, append(slices.Clone(connected), steps...))
		})
	}
}

func playSteps(t *testing.T, s *decide.State, steps []step) {
	t.Helper()
	for i, st := range steps {
		if got := sayings(s.Decide(st.in, at(st.at))); !slices.Equal(got, st.want) {
			t.Fatalf("step %d, %T: got %q, want %q", i, st.in, got, st.want)
		}
	}
}

func sayings(outputs []decide.Output) (all []string) {
	for _, o := range outputs {
		all = append(all, said(o))
	}
	return all
}

// TestAReadInTheReplayCounts only after the attempt that it can be of.
func TestAReadInTheReplay(t *testing.T) {
	t.Parallel()
	timeless, sends := time.UnixMilli(0), "route pay #1 to n1"
	for name, c := range map[string]struct {
		facts []decide.FactArrived
		want  []string
	}{
		"alone":                            {[]decide.FactArrived{readElsewhere("pay", "mona", timeless)}, []string{sends}},
		"alone, with the right receipt":    {[]decide.FactArrived{readElsewhere("pay", "mona", t0)}, []string{sends}},
		"of an earlier delivery":           {[]decide.FactArrived{lastWeek(acked("pay", "mona")), lastWeek(readElsewhere("pay", "mona", t0))}, []string{sends}},
		"after the attempt":                {[]decide.FactArrived{socketSent("pay", "mona", 1), readElsewhere("pay", "mona", timeless)}, []string{"settle 7"}},
		"with its receipt":                 {[]decide.FactArrived{socketSent("pay", "mona", 1), readElsewhere("pay", "mona", t0)}, []string{"settle 7"}},
		"after the attempt, of an earlier": {[]decide.FactArrived{socketSent("pay", "mona", 1), lastWeek(readElsewhere("pay", "mona", t0))}, nil},
		"before an earlier one's end":      {[]decide.FactArrived{acked("pay", "mona"), lastWeek(bounce("pay", "mona", 1, 1))}, []string{"settle 7"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := decide.NewState(0, decide.DefaultPolicy())
			for _, f := range c.facts {
				s.Decide(f, at(1))
			}
			s.Decide(n1, at(1))
			s.Decide(here("mona", "n1", "s1", 1), at(1))
			s.Resume(at(1))
			if got := sayings(s.Decide(arrived("pay", "mona", 7, given{}), at(2))); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestAGuessedReadTakesNobodyOutOfABroadcast: a read that somebody guessed ends nothing for users whom the broadcast has not
// reached yet, nor for those who wait.
func TestAGuessedReadTakesNobodyOutOfABroadcast(t *testing.T) {
	t.Parallel()
	s := decide.NewState(0, decide.DefaultPolicy())
	s.ReplayDone()
	playSteps(t, s, []step{
		{0, decide.ProfilePatched{User: "ann", Patch: []byte(`{"locale":"en"}`), At: t0, Offset: 1}, []string{"put ann"}},
		{0, n1, nil},
		{0, broadcast("news", ""), []string{"park", "running 0/0 for 0", "settle 1"}},
		{0, readElsewhere("news", "ann", t0), nil},
		{0, decide.WalkOn{Lane: domain.Low}, []string{"park", "running 0/1 for 0", "slice 1", "deferred away", "park", "advanced to ann"}},
		{1, readElsewhere("news", "ann", t0), nil},
		{2, here("ann", "n1", "s1", 1), []string{"route news #1 to n1"}},
		{3, delivered("news", "ann", 1), []string{"unpark", "walked settled 1/1 for 1", "finished"}},
	})
}

func TestReceipts(t *testing.T) {
	t.Parallel()
	id := domain.NewDeliveryID(t0, domain.HashDelivery("pay", "mona"))
	got, err := domain.ReceiptOf(domain.Receipt(id), "pay", "mona")
	if err != nil || got != id {
		t.Errorf("the receipt %q of %s is one of %s: %v", domain.Receipt(id), id, got, err)
	}
	for _, bad := range []string{"", "0", "00000001", "LOIA5TS0", "-1", "+1", "zzzzzzzzzz", "loia5ts0 ", "é", "1_0", "11111111111"} {
		if _, err := domain.ReceiptOf(bad, "pay", "mona"); !errors.Is(err, domain.ErrReceipt) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
