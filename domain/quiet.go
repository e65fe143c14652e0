package domain

import "time"

// quietHours are a user's, in minutes of the day by the user's own clock. from == to is none at all.
type quietHours struct{ from, to int }

// readQuiet reads what a profile holds. `{"from":"22:00","to":"07:00"}` is how merging writes it; anything
// else is looked through. Hours of which one end is missing are none.
func readQuiet(text string) (q quietHours, ok bool) {
	const shape = `{"from":"22:00","to":"07:00"}`
	if text == "" {
		return q, false
	}
	if len(text) == len(shape) && text[:9] == shape[:9] && text[14:22] == shape[14:22] && isClock(text[9:14]) && isClock(text[22:27]) {
		q = quietHours{clock(text[9:14]), clock(text[22:27])}
		return q, q.from != q.to
	}
	seen := 0
	c := newCursor(text)
	for key, raw, ok := c.member(); ok; key, raw, ok = c.member() {
		name, _ := jsonText(key)
		at, err := jsonText(raw)
		if err != nil || !isClock(at) {
			continue
		}
		switch name {
		case "from":
			q.from = clock(at)
			seen |= 1
		case "to":
			q.to = clock(at)
			seen |= 2
		}
	}
	return q, seen == 3 && q.from != q.to
}

// has says whether a minute of the day is quiet; from 22:00 to 07:00 goes over midnight.
func (q quietHours) has(minute int) bool {
	if q.from < q.to {
		return q.from <= minute && minute < q.to
	}
	return minute >= q.from || minute < q.to
}

// end is the first moment after now, which is quiet, that is not. It is what the clock on the wall shows
// that counts: where the clock is put forward over the end, it is quiet until it is put forward; where it is
// put back behind the end, it is quiet again until it has passed it once more.
func (q quietHours) end(now time.Time, zone *time.Location) time.Time {
	return wallReaches(now, zone, func(at time.Time) time.Duration {
		minute := minuteOfDay(at, zone)
		if !q.has(minute) {
			return 0
		}
		left := (q.to - minute + 24*60) % (24 * 60)
		return time.Duration(left)*time.Minute - time.Duration(at.Second())*time.Second
	})
}
