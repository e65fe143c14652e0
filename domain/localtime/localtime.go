package localtime

import (
	"fmt"
	"time"

	"github.com/klivvr/whisper/domain/record"
)

// Clock is a time of day in each user's own zone.
type Clock struct {
	Set          bool
	hour, minute int
}

// ParseClock reads a time of day such as "09:00". The empty text is a Clock that is not Set.
func ParseClock(s string) (Clock, error) {
	if s == "" {
		return Clock{}, nil
	}
	if !IsClock(s) {
		return Clock{}, fmt.Errorf(`%s is not a time of day such as "09:00"`, record.Cited(s))
	}
	return Clock{Set: true, hour: int(s[0]-'0')*10 + int(s[1]-'0'), minute: int(s[3]-'0')*10 + int(s[4]-'0')}, nil
}

// After is the first moment, not before from, at which the local time is c. If daylight saving time leaves that time
// out, it is the moment of the change. If the time comes twice, the first counts.
func (c Clock) After(from time.Time, zone *time.Location) time.Time {
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

// left is the time until a clock that nobody changes shows c.
func (c Clock) left(at time.Time) time.Duration {
	const day = 24 * time.Hour
	shows := time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute +
		time.Duration(at.Second())*time.Second + time.Duration(at.Nanosecond())
	wants := time.Duration(c.hour)*time.Hour + time.Duration(c.minute)*time.Minute
	return (wants - shows + day) % day
}

// IsClock reports whether s is a time of day, 00:00 to 23:59.
func IsClock(s string) bool {
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

// Minutes returns the minute of the day of a text that IsClock accepted.
func Minutes(s string) int {
	return (int(s[0]-'0')*10+int(s[1]-'0'))*60 + int(s[3]-'0')*10 + int(s[4]-'0')
}
