package domain

import (
	"fmt"
	"time"
)

// localClock is a time of day in each user's own zone.
type localClock struct {
	set          bool
	hour, minute int
}

func parseLocalClock(s string) (localClock, error) {
	if s == "" {
		return localClock{}, nil
	}
	if !isClock(s) {
		return localClock{}, fmt.Errorf(`%s is not a time of day such as "09:00"`, cited(s))
	}
	return localClock{set: true, hour: int(s[0]-'0')*10 + int(s[1]-'0'), minute: int(s[3]-'0')*10 + int(s[4]-'0')}, nil
}

// after is the first moment, not before from, when the clock on the wall shows the time of day. Where a change to
// daylight-saving time leaves the time out, it is the moment of the change; where it comes twice, the first counts.
func (c localClock) after(from time.Time, zone *time.Location) time.Time {
	at := from.In(zone)
	for {
		shown := at.Add(c.left(at))
		_, change := at.ZoneBounds()
		if change.IsZero() || shown.Before(change) {
			return shown
		}
		_, before := at.Zone()
		_, then := change.Zone()
		if left := time.Duration(then-before) * time.Second; shown.Before(change.Add(left)) { // out
			return change
		}
		at = change
	}
}

// left is how long it takes until a clock that nobody changes shows the time of day.
func (c localClock) left(at time.Time) time.Duration {
	const day = 24 * time.Hour
	shows := time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute + time.Duration(at.Second())*time.Second + time.Duration(at.Nanosecond())
	wants := time.Duration(c.hour)*time.Hour + time.Duration(c.minute)*time.Minute
	return (wants - shows + day) % day
}

// isClock: 00:00 to 23:59.
func isClock(s string) bool {
	if len(s) != 5 || s[2] != ':' {
		return false
	}
	for _, i := range [...]int{0, 1, 3, 4} {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s[:2] <= "23" && s[3] <= '5'
}

// clock reads what isClock has checked.
func clock(s string) int {
	return (int(s[0]-'0')*10+int(s[1]-'0'))*60 + int(s[3]-'0')*10 + int(s[4]-'0')
}
