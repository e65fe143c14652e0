package localtime

import (
	"fmt"
	"sync"
	"time"
	_ "time/tzdata" // the rules are part of the program, also where the machine has none
)

// zoneRules are the rules of all zones that this process asked for. They come from the machine's database or the one
// that is built in. Like the names in timezones.txt they are a fixed table, and the only thing that the domain reads.
var zoneRules sync.Map

// RulesOf reads the rules of a zone, once in a process.
func RulesOf(name string) (*time.Location, error) {
	if zone, ok := zoneRules.Load(name); ok {
		return zone.(*time.Location), nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("load the time zone: %w", err)
	}
	zoneRules.Store(name, zone)
	return zone, nil
}

// Zones are a partition's time zones by name, found without a lock.
type Zones struct {
	known map[string]*time.Location
	// unknown are names without rules: they come from profiles of a newer version with a longer list of zones.
	unknown map[string]bool
}

// Load returns the zone of a name; "" is UTC. If the rules are unknown it returns UTC and known is false: quiet hours
// at a wrong time are better than none, and better than getting no notifications.
func (z *Zones) Load(name string) (zone *time.Location, known bool) {
	if name == "" {
		return time.UTC, true
	}
	if zone, ok := z.known[name]; ok {
		return zone, !z.unknown[name]
	}
	if z.known == nil {
		z.known, z.unknown = map[string]*time.Location{}, map[string]bool{}
	}
	if len(z.known) > 4096 { // more than there are: somebody invents names
		clear(z.known)
		clear(z.unknown)
	}
	zone, err := RulesOf(name)
	if known = err == nil && name != "Local"; !known { // the machine's own zone is nobody's
		zone = time.UTC
		z.unknown[name] = true
	}
	z.known[name] = zone
	return zone, known
}

const daySeconds = 24 * 60 * 60

// localSeconds is the local date and time as seconds since 1970.
func localSeconds(at time.Time, zone *time.Location) int64 {
	_, offset := at.In(zone).Zone()
	return at.Unix() + int64(offset)
}

// Day is the local date, as days since 1970.
func Day(at time.Time, zone *time.Location) int {
	s := localSeconds(at, zone)
	if s < 0 {
		return int((s+1)/daySeconds - 1)
	}
	return int(s / daySeconds)
}

// MinuteOfDay is the local time, as minutes since midnight.
func MinuteOfDay(at time.Time, zone *time.Location) int {
	return int(((localSeconds(at, zone)%daySeconds)+daySeconds)%daySeconds) / 60
}

// MondayOf is the first day of a day's week. 1970-01-01 was a Thursday.
func MondayOf(day int) int {
	return day - ((day+3)%7+7)%7
}

// NextDay is the first moment of the next local date.
func NextDay(at time.Time, zone *time.Location) time.Time {
	day := Day(at, zone)
	return WallReaches(at, zone, func(at time.Time) time.Duration {
		left := int64(day+1)*daySeconds - localSeconds(at, zone)
		return time.Duration(left) * time.Second
	})
}

// WallReaches is the first moment after at when left returns 0 or less; left says how far the local clock still has to
// go. It follows the clock from one change of its offset to the next. If the clock is put forward over the time, the
// moment of the change is the result.
func WallReaches(at time.Time, zone *time.Location, left func(time.Time) time.Duration) time.Time {
	at = at.Truncate(time.Second)
	for {
		wait := left(at)
		if wait <= 0 {
			return at
		}
		_, change := at.In(zone).ZoneBounds()
		if change.IsZero() || at.Add(wait).Before(change) {
			return at.Add(wait)
		}
		at = change.In(time.UTC)
	}
}
