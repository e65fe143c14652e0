package dispatch

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
)

// A record that meets a bug stops its partition once; the next time it is known.
func TestARecordThatMeetsABugIsKnownTheNextTime(t *testing.T) {
	t.Parallel()
	role := &Role{poison: newPoison()}
	p := &partition{role: role, id: 3} // no state: any decision is a bug
	rec := &kgo.Record{Topic: "whisper.deliveries.high", Partition: 3, Offset: 7}
	met := func() error {
		err := consumers.Contain(func() error { p.decide(rec, decide.TimePassed{}, time.Time{}); return nil })
		return p.poisoned(err)
	}
	err := met()
	var f *consumers.Failure
	if !errors.As(err, &f) || f.Reach != consumers.ReachPartition || !f.Contained || !strings.Contains(err.Error(), "whisper.deliveries.high/3 at 7: panic: ") {
		t.Fatalf("the failure: %v", err)
	}
	if role.poison.reason(rec) == nil || role.poison.reason(&kgo.Record{Topic: rec.Topic, Partition: 3, Offset: 8}) != nil {
		t.Error("the record is not known, or another one is")
	}
	if errors.As(met(), &f); f.Contained {
		t.Error("a record that was to be set aside and met the bug again is tried again without a longer wait")
	}
	p.deciding = nil
	if err := p.poisoned(errors.New("x")); consumers.ReachOf(err) != consumers.ReachPartition {
		t.Errorf("what is due: %v", err)
	}
}

// A notification that meets a bug again and again costs a restore three times, not one for each of its users; a broadcast
// is paused, then left out.
func TestABugOfAWholeNotificationIsBoundedInRestores(t *testing.T) {
	t.Parallel()
	q, bug := newPoison(), errors.New("bug")
	subject := func(user string) decide.Subject {
		return decide.Subject{ID: domain.NewDeliveryID(time.UnixMilli(1), domain.HashDelivery("news", user)), Notification: "news", User: user}
	}
	for i, user := range []string{"a", "b", "c"} {
		if got := q.aside(); len(got.IDs) != i || len(got.Notifications) > 0 {
			t.Fatalf("after %d: %+v", i, got)
		}
		if !q.addSubject(subject(user), bug) || q.addSubject(subject(user), bug) {
			t.Fatalf("%s is news, and only once", user)
		}
	}
	if got := q.aside(); len(got.IDs) != 3 || len(got.Notifications) != 1 || got.Notifications[0] != "news" || len(got.LeftOut) > 0 {
		t.Errorf("set aside: %+v", got)
	}
	for i, news := range []bool{true, true, false} {
		if q.addSubject(subject(""), bug) != news {
			t.Errorf("time %d: a broadcast is paused, then left out, then nothing helps", i+1)
		}
	}
	if got := q.aside(); len(got.LeftOut) != 1 || len(got.IDs) != 3 {
		t.Errorf("set aside: %+v", got)
	}
	for i := range 2 * maxPoison {
		q.addSubject(subject(strings.Repeat("x", 1+i%50)+string(rune('a'+i%26))+time.Duration(i).String()), bug)
	}
	if len(q.subjects) > maxPoison {
		t.Errorf("%d are remembered", len(q.subjects))
	}
}
