package decide_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// asked is a request whose record has the time of t0 plus seconds.
func asked(notification string, seconds int, offset int64, ttl time.Duration) decide.DeliveryArrived {
	in := arrived(notification, "mona", offset, given{channels: []string{"socket"}})
	id := domain.NewDeliveryID(at(seconds), domain.HashDelivery(notification, "mona"))
	acc := in.Event.GetDeliveryAccepted()
	in.Event.DeliveryId, acc.AcceptedAtMs, acc.ExpiresAtMs = id[:], at(seconds).UnixMilli(), at(seconds).Add(ttl).UnixMilli()
	return in
}

// logged is a State whose window is restored from its log, of which Kafka keeps the window's length and an hour.
type logged struct {
	*decide.State
	log   []decide.SeenDelivery
	again int // how often something was written again
}

func newLogged(now time.Time) *logged {
	l := &logged{}
	l.restart(now)
	return l
}

func (l *logged) restart(now time.Time) {
	policy := decide.DefaultPolicy()
	l.State = decide.NewState(0, policy)
	l.log = slices.DeleteFunc(l.log, func(d decide.SeenDelivery) bool {
		return time.UnixMilli(d.TakenMs).Add(policy.Window + time.Hour).Before(now)
	})
	l.RestoreSeen(l.log...)
	l.Resume(now)
	l.ReplayDone()
	l.do(decide.NodeChanged{Node: "n1", Incarnation: 1}, now)
	l.do(here("mona", "n1", fmt.Sprint(now), 1), now)
}

func (l *logged) do(in decide.Input, now time.Time) (words []string) {
	for _, o := range l.Decide(in, now) {
		var seen *decide.SeenDelivery
		if settled, is := o.(decide.Settle); is {
			seen = settled.Seen
		} else if remembered, is := o.(decide.Remember); is {
			seen = &remembered.Seen
			l.again++
		} else {
			words = append(words, said(o))
		}
		if seen != nil {
			written := *seen
			written.TakenMs = now.UnixMilli() // the time of its record
			l.log = append(l.log, written)
		}
	}
	return words
}

// TestTheWindowIsMeasuredBetweenRequests, not from the clock: dispatch was down for longer than the window lasts, and
// reads what was asked for in between.
func TestTheWindowIsMeasuredBetweenRequests(t *testing.T) {
	t.Parallel()
	const hour = 3600
	now := at(25 * hour)
	for _, restart := range []bool{false, true} {
		l := newLogged(now)
		if got := l.do(asked("pay", 0, 7, 72*time.Hour), now); !slices.Equal(got, []string{"route pay #1 to n1"}) {
			t.Fatalf("asked for 25 hours ago: %q", got)
		}
		l.do(acked("pay", "mona"), now)
		l.do(decide.TimePassed{}, now)
		if restart {
			l.restart(now.Add(time.Minute))
		}
		for what, in := range map[string]struct {
			in   decide.Input
			want []string
		}{
			"the same record again":                        {asked("pay", 0, 7, 72*time.Hour), nil},
			"asked for again an hour later":                {asked("pay", hour, 8, 72*time.Hour), []string{"duplicate_dropped"}},
			"asked for again a moment before the window's": {asked("pay", 24*hour-1, 9, 72*time.Hour), []string{"duplicate_dropped"}},
		} {
			if got := l.do(in.in, now.Add(2*time.Minute)); !slices.Equal(got, in.want) {
				t.Errorf("%s: %q, want %q (restart: %t)", what, got, in.want, restart)
			}
		}
		if got := l.do(asked("pay", 24*hour, 10, 72*time.Hour), now.Add(3*time.Minute)); !slices.Equal(got, []string{"route pay #1 to n1"}) {
			t.Errorf("asked for again a window later: %q (restart: %t)", got, restart)
		}
		if got := l.do(asked("pay", 0, 7, 72*time.Hour), now.Add(4*time.Minute)); !slices.Equal(got, []string{"duplicate_dropped"}) {
			t.Errorf("the first one handed out again after the second: %q (restart: %t)", got, restart)
		}
	}
}

// TestARedeliveryIsRecognisedUntilItExpires, with restarts, and with a log that forgets after the window.
func TestARedeliveryIsRecognisedUntilItExpires(t *testing.T) {
	t.Parallel()
	for _, restarts := range []bool{false, true} {
		l := newLogged(t0)
		l.do(asked("pay", 0, 7, 20*24*time.Hour), t0)
		l.do(acked("pay", "mona"), t0)
		l.do(asked("brief", 0, 8, time.Hour), t0)
		l.do(acked("brief", "mona"), t0)
		for hours := 6; hours < 20*24; hours += 6 {
			now := t0.Add(time.Duration(hours) * time.Hour)
			l.do(decide.TimePassed{}, now)
			if restarts {
				l.restart(now)
			}
			if got := l.do(asked("pay", 0, 7, 20*24*time.Hour), now); len(got) > 0 {
				t.Fatalf("handed out again after %d hours: %q (restarts: %t)", hours, got, restarts)
			}
		}
		if n := l.Stats().Seen; n != 1 {
			t.Errorf("%d are remembered after 20 days, want the one that could be sent again", n)
		}
		l.do(decide.TimePassed{}, t0.Add(20*24*time.Hour+time.Second))
		if n := l.Stats().Seen; n != 0 {
			t.Errorf("%d are remembered for ever", n)
		}
		if !restarts && l.again > 2*20 { // two a window; a restart goes by the oldest record, and writes once more
			t.Errorf("it was written again %d times", l.again)
		}
	}
}

// TestLongEntriesOfTheWindowDelayNoOthers: an id that is used every day, once with a long ttl.
func TestLongEntriesOfTheWindowDelayNoOthers(t *testing.T) {
	t.Parallel()
	const day = 24 * 3600
	l := newLogged(t0)
	for n := range 5 {
		ttl := time.Hour
		if n == 1 {
			ttl = 20 * 24 * time.Hour
		}
		now := at(n * day)
		if got := l.do(asked("daily", n*day, int64(n), ttl), now); !slices.Equal(got, []string{"route daily #1 to n1"}) {
			t.Fatalf("day %d: %q", n, got)
		}
		id := domain.NewDeliveryID(now, domain.HashDelivery("daily", "mona"))
		l.do(decide.FactArrived{Event: &whisperv1.Event{
			DeliveryId: id[:], NotificationId: "daily", UserId: "mona", AtUs: now.UnixMicro(),
			Kind: &whisperv1.Event_DeliveryDelivered{DeliveryDelivered: &whisperv1.DeliveryDelivered{Attempt: 1, Channel: "socket"}},
		}}, now)
		l.do(asked(fmt.Sprint("other", n), n*day, int64(100+n), time.Hour), now)
		l.do(acked(fmt.Sprint("other", n), "mona"), now)
		l.do(decide.TimePassed{}, now)
	}
	l.do(decide.TimePassed{}, at(6*day))
	if n := l.Stats().Seen; n > 1 {
		t.Errorf("%d are remembered", n)
	}
}
