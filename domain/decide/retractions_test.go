package decide

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain"
)

// TestASilentPushIsHeldAndDueTogether: what is held is looked at, and the other way round.
func TestASilentPushIsHeldAndDueTogether(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := newRetractions()
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			key := domain.HashDelivery(fmt.Sprint(rapid.IntRange(0, 5).Draw(t, "push")), "")
			c := r.push(key)
			switch rapid.IntRange(0, 1).Draw(t, "step") {
			case 0:
				if c == nil {
					c = &silentPush{id: domain.NewDeliveryID(noon, key), user: rapid.SampledFrom([]string{"mona", "ali"}).Draw(t, "user")}
				}
				r.hold(c, noon.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "due"))))
			case 1:
				if c != nil {
					r.drop(c)
				}
			}
			if len(r.pushes) != r.due.len() || len(r.to("mona"))+len(r.to("ali")) != len(r.pushes) {
				t.Fatalf("%d held, %d due, of mona %v, of ali %v", len(r.pushes), r.due.len(), r.to("mona"), r.to("ali"))
			}
			for key, c := range r.pushes {
				if c.id.Hash() != key || c.slot == 0 {
					t.Fatalf("%+v under %x", c, key)
				}
			}
		}
	})
}

// TestARetractionCountsUntilItsTime: what is remembered for longer is remembered until time passes.
func TestARetractionCountsUntilItsTime(t *testing.T) {
	t.Parallel()
	r := newRetractions()
	r.byNotification["pay"] = newRetraction("pay", domain.Normal, noon, noon.Add(time.Hour))
	if r.valid("pay", noon) == nil || r.valid("pay", noon.Add(time.Hour)) != nil || r.get("pay") == nil || r.valid("rent", noon) != nil {
		t.Fatalf("%+v", r)
	}
}

// TestAnAudienceKeepsItsPlace: one that ends again after a restart is there once, by its last end.
func TestAnAudienceKeepsItsPlace(t *testing.T) {
	t.Parallel()
	var a audiences
	a.add(newAudienceRule("pay", "true", 0, noon, 1))
	a.add(newAudienceRule("rent", "true", 0, noon, 2))
	a.add(newAudienceRule("pay", "true", 0, noon.Add(time.Hour), 4)) // the id was used again
	a.add(newAudienceRule("pay", "true", 0, noon, 3))
	if len(a.of("pay")) != 2 || a.of("pay")[0].endedMs != 3 || a.ended[0].note != "rent" || len(a.of("fine")) != 0 {
		t.Fatalf("%+v", a)
	}
}
