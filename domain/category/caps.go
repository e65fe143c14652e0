package category

import (
	"fmt"
	"time"

	"github.com/klivvr/whisper/domain/localtime"
)

// Cap allows a user N notifications in a window.
type Cap struct {
	N   int
	Per CapWindow
	By  CapScope
}

// CapWindow is the time over which a cap counts.
type CapWindow int8

// Minutes and hours slide: any 60 seconds, any 60 minutes. Days and weeks follow the calendar in the user's zone: the
// same date, or the same week from Monday on. So a day that daylight saving makes 23 or 25 hours long is one day.
const (
	PerMinute CapWindow = iota
	PerHour
	PerDay
	PerWeek
)

// CapScope is what a cap counts.
type CapScope int8

// ByUserCategory counts what the user was sent in the declared category, including its undeclared children. ByUser
// counts over all categories that have caps: a category without caps (a security alert) is neither counted nor held.
const (
	ByUserCategory CapScope = iota
	ByUser
)

var (
	capWindows = []string{"minute", "hour", "day", "week"}
	capScopes  = []string{"user_category", "user"}
)

// String is the window as records spell it.
func (w CapWindow) String() string { return capWindows[w] }

// String is the scope as records spell it.
func (s CapScope) String() string { return capScopes[s] }

// String is the cap as facts have it: "3 per day by user_category".
func (c Cap) String() string { return fmt.Sprintf("%d per %s by %s", c.N, c.Per, c.By) }

// Span is a cap's window at one moment.
type Span struct {
	after  time.Time // slides: everything after it counts, also times ahead of now, which a clock that was put back leaves
	Length time.Duration

	zone      *time.Location
	from, end int // the days (since 1970, of the user's own calendar) that count; to the day after
}

// Open is the window that holds at a moment, in the user's zone.
func (w CapWindow) Open(now time.Time, zone *time.Location) Span {
	switch w {
	case PerMinute:
		return Span{after: now.Add(-time.Minute), Length: time.Minute}
	case PerHour:
		return Span{after: now.Add(-time.Hour), Length: time.Hour}
	case PerDay:
		today := localtime.Day(now, zone)
		return Span{zone: zone, from: today, end: today + 1}
	case PerWeek:
		monday := localtime.MondayOf(localtime.Day(now, zone))
		return Span{zone: zone, from: monday, end: monday + 7}
	default:
		return Span{after: now.Add(-CountsKept), Length: CountsKept}
	}
}

// Slides reports whether the window moves with time. Days and weeks stay the same until they end.
func (w *Span) Slides() bool { return w.Length > 0 }

// Has reports whether what was sent at this time counts.
func (w *Span) Has(at time.Time) bool {
	if w.Slides() {
		return at.After(w.after)
	}
	day := localtime.Day(at, w.zone)
	return day >= w.from && day < w.end
}

// End is when the window of the calendar ends: the first moment of the next day, or of the next Monday.
func (w CapWindow) End(now time.Time, zone *time.Location) time.Time {
	last := localtime.Day(now, zone)
	if w == PerWeek {
		last = localtime.MondayOf(last) + 6
	}
	for localtime.Day(now, zone) <= last {
		now = localtime.NextDay(now, zone)
	}
	return now
}

// CountsKept is how long a counted delivery may matter: the longest window, in any time zone, and a day.
const CountsKept = 9 * 24 * time.Hour
