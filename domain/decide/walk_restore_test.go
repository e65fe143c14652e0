package decide_test

import (
	"testing"
	"time"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// TestARestartKeepsWhatTheChecksSaid: of those who wait in a broadcast, what was decided is not decided anew.
func TestARestartKeepsWhatTheChecksSaid(t *testing.T) {
	t.Parallel()
	t.Run("a newer broadcast replaces an older one", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.user("mona", `{"locale":"en"}`)
		collapse := func(b *whisperv1.BroadcastAccepted) { b.Accepted.CollapseKey = "k" }
		d.want(d.cast("old", "", collapse), "old deferred away")
		d.restart()
		d.now = d.now.Add(time.Second)
		d.want(d.cast("new", "", collapse), "old suppressed collapsed", "new deferred away")
		d.restart()
		d.connect("mona")
		if d.sent("old") != 0 || d.sent("new") != 1 {
			t.Errorf("%d and %d were sent", d.sent("old"), d.sent("new"))
		}
	})
	t.Run("what was held for its hour is not held again", func(t *testing.T) {
		t.Parallel()
		const rules = `{"smart_timing":{"max_delay":"24h"}}`
		d := newDesk(t)
		d.category("promo", rules)
		d.user("mona", `{"timezone":"UTC"}`)
		d.learn("mona")
		d.want(d.cast("news", "promo", nil), "news deferred smart_timing")
		d.want(d.pass(13*time.Hour), "news deferred away")
		d.restart()
		d.category("promo", rules)
		d.connect("mona")
		if d.sent("news") != 1 {
			t.Errorf("it was sent %d times when she came", d.sent("news"))
		}
	})
}
