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

// after is the first such time of day in the zone that is not before from. Where a change to daylight-saving time
// leaves the time out, it is as much later as the clock was put forward; where it comes twice, the first counts.
func (c localClock) after(from time.Time, zone *time.Location) time.Time {
	local := from.In(zone)
	at := time.Date(local.Year(), local.Month(), local.Day(), c.hour, c.minute, 0, 0, local.Location())
	if at.Before(from) {
		at = time.Date(local.Year(), local.Month(), local.Day()+1, c.hour, c.minute, 0, 0, local.Location())
	}
	return at
}
