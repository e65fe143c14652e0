package domain

import (
	"fmt"
	"time"
)

// Cap allows N notifications of a window to one user.
type Cap struct {
	N   int
	Per CapWindow
	By  CapScope
}

// CapWindow is the time over which a cap counts.
type CapWindow int8

// Minutes and hours slide: any 60 seconds, any 60 minutes. Days and weeks are the user's own calendar's: the
// same date, or the same week from Monday on, by the clock of the user's zone. So a day that a daylight
// saving change makes 23 or 25 hours long is one day.
const (
	PerMinute CapWindow = iota
	PerHour
	PerDay
	PerWeek
)

// CapScope is what a cap counts.
type CapScope int8

// ByUserCategory counts what the user was sent in the declared category, its undeclared children
// included. ByUser counts over all categories that have caps: one that has none (a security alert) neither
// takes of the allowance nor is held by it.
const (
	ByUserCategory CapScope = iota
	ByUser
)

var (
	capWindows = []string{"minute", "hour", "day", "week"}
	capScopes  = []string{"user_category", "user"}
)

func (w CapWindow) String() string { return capWindows[w] }
func (s CapScope) String() string  { return capScopes[s] }

// String is the cap in facts: "3 per day by user_category".
func (c Cap) String() string { return fmt.Sprintf("%d per %s by %s", c.N, c.Per, c.By) }

// capSpan is a cap's window at one moment.
type capSpan struct {
	after  time.Time // slides: what is later counts, also what a clock that was put back says is still to come
	length time.Duration

	zone      *time.Location
	from, end int // the days (since 1970, of the user's own calendar) that count; to the day after
}

func (w CapWindow) open(now time.Time, zone *time.Location) capSpan {
	switch w {
	case PerMinute:
		return capSpan{after: now.Add(-time.Minute), length: time.Minute}
	case PerHour:
		return capSpan{after: now.Add(-time.Hour), length: time.Hour}
	case PerDay:
		today := localDay(now, zone)
		return capSpan{zone: zone, from: today, end: today + 1}
	case PerWeek:
		monday := mondayOf(localDay(now, zone))
		return capSpan{zone: zone, from: monday, end: monday + 7}
	default:
		return capSpan{after: now.Add(-CountsKept), length: CountsKept}
	}
}

func (w *capSpan) slides() bool { return w.length > 0 }

func (w *capSpan) has(at time.Time) bool {
	if w.slides() {
		return at.After(w.after)
	}
	day := localDay(at, w.zone)
	return day >= w.from && day < w.end
}

// end is when the calendar's window ends: the first moment of another day, or of a Monday.
func (w CapWindow) end(now time.Time, zone *time.Location) time.Time {
	last := localDay(now, zone)
	if w == PerWeek {
		last = mondayOf(last) + 6
	}
	for localDay(now, zone) <= last {
		now = nextDay(now, zone)
	}
	return now
}

// CountsKept is how long a counted delivery may matter: the longest window, wherever on earth, and a day.
const CountsKept = 9 * 24 * time.Hour
