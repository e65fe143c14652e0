package projections

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// TestAMadeUpReadClaimsNothing: whoever has a user's token can name ids that were never sent, or are still to be; with
// receipts that they made up, too.
func TestAMadeUpReadClaimsNothing(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	rapid.Check(t, func(t *rapid.T) {
		f.empty(t)
		s := tell("pay-1", "mona", now, 1)
		bounced := s.attemptFailed(time.Second, 1, whisperv1.FailureClass_FAILURE_CLASS_UNREACHABLE, "not here")
		truth := []*whisperv1.Event{s.accepted(), s.deferred(time.Second, "away"), bounced}
		made := func() *whisperv1.Event {
			ev := claimed(tell(rapid.SampledFrom([]string{"pay-1", "pay-2"}).Draw(t, "id"), "mona",
				now.Add(time.Duration(rapid.IntRange(-23, 1).Draw(t, "hours"))*time.Hour), 0).read(time.Duration(rapid.IntRange(-60, 60).Draw(t,
				"seconds")) * time.Second))
			if rapid.Bool().Draw(t, "without a receipt") {
				return timelessly(ev)
			}
			return ev
		}
		var facts []*whisperv1.Event
		for _, ev := range truth {
			for range rapid.IntRange(0, 3).Draw(t, "lies") {
				facts = append(facts, made())
			}
			facts = append(facts, ev)
		}
		for len(facts) > 0 {
			n := rapid.IntRange(1, len(facts)).Draw(t, "batch")
			f.write(t, facts[:n])
			facts = facts[n:]
		}
		rows := queryTexts(f.t, f.db, "SELECT notification_id || ' ' || status || ' ' || coalesce(read_at::text, 'unread') FROM whisper.deliveries")
		if len(rows) != 1 || rows[0] != "pay-1 deferred unread" {
			t.Fatalf("deliveries %v", rows)
		}
		if got := queryTexts(f.t, f.db, "SELECT kind FROM whisper.timeline WHERE kind = 'delivery_read'"); len(got) != 0 {
			t.Fatalf("the timeline tells of %v", got)
		}
	})
}

// TestReadsThatWaitAreBounded: a user has room for so many, and none waits for long. The newest are kept.
func TestReadsThatWaitAreBounded(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	rapid.Check(t, func(t *rapid.T) {
		f.empty(t)
		var flood []*whisperv1.Event
		n := rapid.IntRange(earlyPerUser+1, 3*earlyPerUser).Draw(t, "reads")
		for i := range n {
			flood = append(flood, timelessly(tell(fmt.Sprint("made-up-", i), "mona", now, 0).read(time.Duration(i)*time.Millisecond)))
		}
		flood = append(flood, timelessly(tell("n", "omar", now, 0).read(time.Second)))
		cut := rapid.IntRange(0, n).Draw(t, "first batch")
		f.write(t, flood[:cut])
		f.write(t, flood[cut:])
		got := queryTexts(f.t, f.db, "SELECT user_id || ' ' || count(*) || ' ' || bool_or(notification_id = 'made-up-"+fmt.Sprint(n-1)+"') FROM whisper.early_facts GROUP BY user_id ORDER BY user_id")
		if len(got) != 2 || got[0] != fmt.Sprintf("mona %d true", earlyPerUser) || got[1] != "omar 1 false" {
			t.Fatalf("waiting: %v", got)
		}
		late := tell("late", "nour", now, 1)
		f.write(t, []*whisperv1.Event{late.deferred(earlyFor+2*time.Second, "away")})
		if got := queryTexts(f.t, f.db, "SELECT notification_id FROM whisper.early_facts"); len(got) != 0 {
			t.Fatalf("still waiting: %v", got)
		}
	})
}

// TestAReadIsOfTheUseThatItNames: a notification id that is used each week, and reads of last week's.
func TestAReadIsOfTheUseThatItNames(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	rapid.Check(t, func(t *rapid.T) {
		f.empty(t)
		last, this := tell("reminder", "mona", now.Add(-20*time.Hour), 1), tell("reminder", "mona", now, 2)
		f.write(t, []*whisperv1.Event{last.accepted(), last.sent(time.Second, 1, "apns"), this.accepted()})
		read := claimed(last.read(20*time.Hour + time.Minute))
		if rapid.Bool().Draw(t, "without a receipt") {
			read = timelessly(read)
		}
		facts := []*whisperv1.Event{read, this.sent(10*time.Minute, 1, "apns")}
		if rapid.Bool().Draw(t, "together") {
			f.write(t, facts)
		} else {
			f.write(t, facts[:1])
			f.write(t, facts[1:])
		}
		got := queryTexts(f.t, f.db, "SELECT status::text FROM whisper.deliveries ORDER BY delivery_id")
		if len(got) != 2 || got[0] != "read" || got[1] != "sent" {
			t.Fatalf("last week's and this week's are %v", got)
		}
	})
}
