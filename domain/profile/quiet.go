package profile

import (
	"time"

	"github.com/klivvr/whisper/domain/localtime"
	"github.com/klivvr/whisper/domain/record"
)

// QuietHours are a user's, in minutes of the day by the user's own clock. from == to is none at all.
type QuietHours struct{ from, to int }

// ReadQuiet reads what a profile holds. `{"from":"22:00","to":"07:00"}` is how merging writes it; anything
// else is looked through. Hours of which one end is missing are none.
func ReadQuiet(text string) (q QuietHours, ok bool) {
	const shape = `{"from":"22:00","to":"07:00"}`
	if text == "" {
		return q, false
	}
	if len(text) == len(shape) && text[:9] == shape[:9] && text[14:22] == shape[14:22] && localtime.IsClock(text[9:14]) && localtime.IsClock(text[22:27]) {
		q = QuietHours{localtime.Minutes(text[9:14]), localtime.Minutes(text[22:27])}
		return q, q.from != q.to
	}
	seen := 0
	c := record.NewCursor(text)
	for key, raw, ok := c.Member(); ok; key, raw, ok = c.Member() {
		name, _ := record.Text(key)
		at, err := record.Text(raw)
		if err != nil || !localtime.IsClock(at) {
			continue
		}
		switch name {
		case "from":
			q.from = localtime.Minutes(at)
			seen |= 1
		case "to":
			q.to = localtime.Minutes(at)
			seen |= 2
		}
	}
	return q, seen == 3 && q.from != q.to
}

// Has says whether a minute of the day is quiet; from 22:00 to 07:00 goes over midnight.
func (q QuietHours) Has(minute int) bool {
	if q.from < q.to {
		return q.from <= minute && minute < q.to
	}
	return minute >= q.from || minute < q.to
}

// End is the first moment after now, which is quiet, that is not. It is what the clock on the wall shows
// that counts: where the clock is put forward over the end, it is quiet until it is put forward; where it is
// put back behind the end, it is quiet again until it has passed it once more.
func (q QuietHours) End(now time.Time, zone *time.Location) time.Time {
	return localtime.WallReaches(now, zone, func(at time.Time) time.Duration {
		minute := localtime.MinuteOfDay(at, zone)
		if !q.Has(minute) {
			return 0
		}
		left := (q.to - minute + 24*60) % (24 * 60)
		return time.Duration(left)*time.Minute - time.Duration(at.Second())*time.Second
	})
}
