package profile

import (
	"time"

	"github.com/klivvr/whisper/domain/localtime"
	"github.com/klivvr/whisper/domain/record"
)

// QuietHours are a user's quiet hours, in minutes of their local day. If from equals to, there are none.
type QuietHours struct{ from, to int }

// ReadQuiet reads the quiet hours of a profile. Merging writes `{"from":"22:00","to":"07:00"}`; any other JSON is
// searched. With one end missing, there are none.
func ReadQuiet(text string) (q QuietHours, ok bool) {
	const shape = `{"from":"22:00","to":"07:00"}`
	if text == "" {
		return q, false
	}
	if len(text) == len(shape) && text[:9] == shape[:9] && text[14:22] == shape[14:22] && localtime.IsClock(text[9:14]) &&
		localtime.IsClock(text[22:27]) {
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

// Has reports whether a minute of the day is quiet. Quiet hours may go over midnight.
func (q QuietHours) Has(minute int) bool {
	if q.from < q.to {
		return q.from <= minute && minute < q.to
	}
	return minute >= q.from || minute < q.to
}

// End is the first moment after now that is not quiet; now is quiet. It follows local time. If the clock is put forward
// over the end, it is quiet until then. If it is put back behind the end, it is quiet until the end has come again.
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
