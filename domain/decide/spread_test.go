package decide

import (
	"fmt"
	"testing"
	"time"
)

func TestDeliveriesHeldToTheSameHourAreSpread(t *testing.T) {
	t.Parallel()
	end := time.Date(2026, 11, 25, 7, 0, 0, 0, time.UTC)
	minutes := map[int]int{}
	for i := range 1500 {
		q := asked{user: fmt.Sprint("user-", i), expires: end.Add(time.Hour).UnixMilli()}
		at := q.spread(end, 15*time.Minute)
		if at.Before(end) || !at.Before(end.Add(15*time.Minute)) || !at.Equal(q.spread(end, 15*time.Minute)) {
			t.Fatalf("%s is let out at %s", q.user, at)
		}
		minutes[at.Minute()]++
	}
	for m := range 15 {
		if minutes[m] < 60 || minutes[m] > 140 {
			t.Errorf("%d of 1500 in minute %d, want about 100", minutes[m], m)
		}
	}
	q := asked{user: "mona", expires: end.Add(time.Minute).UnixMilli()}
	if at := q.spread(end, 15*time.Minute); !at.Before(end.Add(30 * time.Second)) {
		t.Errorf("spread to %s, too close to its expiry", at)
	}
	q.expires = end.Add(-time.Minute).UnixMilli()
	if at := q.spread(end, 15*time.Minute); !at.Equal(end) {
		t.Errorf("what expires before the end is spread to %s", at)
	}
}
