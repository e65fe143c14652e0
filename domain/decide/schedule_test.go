package decide

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

type appointment struct {
	at   time.Time
	name int
	slot slot
}

func (a *appointment) dueAt() time.Time           { return a.at }
func (a *appointment) setDue(at time.Time)        { a.at = at }
func (a *appointment) compare(o *appointment) int { return cmp.Compare(a.name, o.name) }
func (a *appointment) scheduleSlot() *slot        { return &a.slot }

// TestAScheduleIsASortedList compares a schedule with a slice that is sorted after each step.
func TestAScheduleIsASortedList(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		all := make([]*appointment, 8)
		for i := range all {
			all[i] = &appointment{name: i}
		}
		var schedule schedule[*appointment]
		var sorted []*appointment
		times := rapid.Int64Range(0, 5) // few, so that some are the same
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			item := rapid.SampledFrom(all).Draw(t, "item")
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				schedule.set(item, time.UnixMilli(times.Draw(t, "time")))
				if !slices.Contains(sorted, item) {
					sorted = append(sorted, item)
				}
			case 2:
				schedule.remove(item)
				sorted = slices.DeleteFunc(sorted, func(o *appointment) bool { return o == item })
			case 3:
				now := time.UnixMilli(times.Draw(t, "now"))
				first, passed := schedule.passed(now)
				if want := len(sorted) > 0 && !sorted[0].at.After(now); passed != want || want && first != sorted[0] {
					t.Fatalf("at %v, %v has passed (%v); of %v", now, first, passed, sorted)
				}
			}
			slices.SortFunc(sorted, func(a, b *appointment) int { return cmp.Or(a.at.Compare(b.at), a.compare(b)) })
			if schedule.len() != len(sorted) {
				t.Fatalf("%d are scheduled, not %d", schedule.len(), len(sorted))
			}
			first, ok := schedule.first()
			if ok != (len(sorted) > 0) || ok && first != sorted[0] {
				t.Fatalf("first is %v (%v), of %v", first, ok, sorted)
			}
			for _, item := range all {
				held := slices.Contains(sorted, item)
				if held != (item.slot > 0) || held && schedule.items[item.slot-1] != item {
					t.Fatalf("%v does not know its place", item)
				}
			}
		}
		for _, want := range sorted {
			first, _ := schedule.first()
			if schedule.remove(first); first != want {
				t.Fatalf("%v came before %v", first, want)
			}
		}
	})
}
