package projections

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain/whisperv1"
	"github.com/klivvr/whisper/migrations"
)

func (s story) erased(after time.Duration) *whisperv1.Event {
	return &whisperv1.Event{
		UserId: s.user, AtUs: s.requested.Add(after).UnixMicro(), Cause: s.request,
		Kind: &whisperv1.Event_UserErased{UserErased: &whisperv1.UserErased{ChangesOffset: 7}},
	}
}

// TestAnErasedUserIsOutOfEveryRowAndTheCountsStay: whichever comes first, the erasure or a fact from before
// it; and a rebuild, which reads the topics in another order, gives the same rows.
func TestAnErasedUserIsOutOfEveryRowAndTheCountsStay(t *testing.T) {
	t.Parallel()
	db, l := database(t), startLog(t)
	r := start(t, config(l, db))
	pushed, acked := tell("n-push", "mona@example.com", now, 1), tell("n-ack", "mona@example.com", now.Add(time.Second), 2)
	late := tell("n-late", "mona@example.com", now.Add(2*time.Second), 3)
	again := tell("n-push", "mona@example.com", now.Add(3*time.Second), 4)
	other := tell("n-other", "omar", now, 5)
	for _, s := range []story{pushed, acked, other} {
		l.put(record(s.accepted()), record(s.sent(time.Second, 1, "apns")))
	}
	l.put(
		record(pushed.attemptFailed(2*time.Second, 2, whisperv1.FailureClass_FAILURE_CLASS_RETRY, "busy")),
		record(again.accepted()), record(again.duplicate(pushed, 3*time.Second)),
		record(timelessly(tell("n-unknown", "mona@example.com", now, 9).read(time.Second))),
	)
	caughtUp(t, l, db)
	counts := queryTexts(t, db, "SELECT to_jsonb(n)::text FROM whisper.notifications n WHERE notification_id <> 'n-late' ORDER BY 1")
	l.put(record(pushed.erased(time.Minute)))
	caughtUp(t, l, db)
	// From before the erasure, read after it; and of a time after it: somebody new of that name.
	l.put(record(late.accepted()), record(late.sent(time.Second, 1, "apns")), record(acked.read(2*time.Minute)),
		record(timelessly(pushed.read(2*time.Minute))))
	anew := tell("n-new", "mona@example.com", now.Add(time.Hour), 6)
	l.put(record(anew.accepted()), record(pushed.erased(2*time.Hour))) // the erasure is told again, by a dispatch that was restarted
	caughtUp(t, l, db)

	rows := dump(t, db, migrations.Schema)
	for _, r := range rows {
		if strings.Contains(r, "mona") && !strings.Contains(r, "n-new") {
			t.Errorf("still told of: %s", r)
		}
		for _, personal := range []string{"iphone", "E1B2"} {
			if strings.Contains(r, personal) && !strings.Contains(r, other.id().String()) {
				t.Errorf("%s is still told: %s", personal, r)
			}
		}
	}
	aliases := queryTexts(t, db, "SELECT DISTINCT user_id FROM whisper.deliveries WHERE notification_id IN ('n-push', 'n-ack', 'n-late')")
	if len(aliases) != 1 || !strings.HasPrefix(aliases[0], "erased:") {
		t.Errorf("the erased user's deliveries go under %v, want one alias", aliases)
	}
	after := queryTexts(t, db, "SELECT notification_id || ' ' || recipients || ' ' || read FROM whisper.notifications ORDER BY 1")
	if want := []string{"n-ack 1 1", "n-late 1 0", "n-new 1 0", "n-other 1 0", "n-push 2 1"}; !slices.Equal(after, want) {
		t.Errorf("notifications, recipients, read: %v, want %v (before the erasure: %v)", after, want, counts)
	}
	if got := queryTexts(t, db, "SELECT notification_id FROM whisper.conservation"); len(got) != 0 {
		t.Errorf("conservation %v", got)
	}

	r.stop()
	if err := Rebuild(t.Context(), RebuildConfig{Config: config(l, db)}); err != nil {
		t.Fatal(err)
	}
	if again := dump(t, db, migrations.Schema); !slices.Equal(rows, again) {
		t.Errorf("a rebuild changes rows:%s", differences(again, rows))
	}
}

// TestAHashOfAnErasedUserHasAKey: a guess of the id finds nothing without it; and hashes of the version before, which are
// given the key later, are found all the time.
func TestAHashOfAnErasedUserHasAKey(t *testing.T) {
	t.Parallel()
	db, l := database(t), startLog(t)
	start(t, config(l, db))
	const guess = "SELECT count(*)::text FROM whisper.erasures WHERE user_hash = substr(sha256('mona@example.com'), 1, 16)"
	s := tell("n", "mona@example.com", now, 1)
	l.put(record(s.accepted()), record(s.erased(time.Minute)))
	caughtUp(t, l, db)
	if got := queryTexts(t, db, guess); got[0] != "1" {
		t.Errorf("in the first hour %s hashes are as the version before looks for them, want 1", got[0])
	}
	st, err := openStore(db, migrations.Schema, 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.close)
	execSQL(t, db, "UPDATE whisper.erasure_keys SET made_at = now() - interval '2 hours'")
	if err := maintained(t, st, now, retention{days: 30, most: 3}); err != nil {
		t.Fatal(err)
	}
	late, other := tell("n-late", "mona@example.com", now.Add(time.Second), 2), tell("n-omar", "omar", now, 3)
	omar := other.erased(time.Minute)
	omar.GetUserErased().ChangesOffset = 8
	l.put(record(late.accepted()), record(other.accepted()), record(omar))
	caughtUp(t, l, db)
	if got := queryTexts(t, db, guess); got[0] != "0" {
		t.Errorf("%s hashes are confirmed by a guess", got[0])
	}
	if got := queryTexts(t, db, "SELECT count(*)::text FROM whisper.erasures WHERE keyed"); got[0] != "2" {
		t.Errorf("%s hashes have the key, want 2", got[0])
	}
	if got := queryTexts(t, db, "SELECT DISTINCT notification_id FROM whisper.deliveries WHERE user_id NOT LIKE 'erased:%'"); len(got) != 0 {
		t.Errorf("deliveries of erased users under their own names: %v", got)
	}
}
