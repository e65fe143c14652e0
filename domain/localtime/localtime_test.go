package localtime

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestATimeOfDayOverClockChanges(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ zone, from, clock, want string }{
		{"UTC", "2026-11-26T09:00:00Z", "09:00", "2026-11-26T09:00:00Z"},
		{"UTC", "2026-11-26T09:00:00.5Z", "09:00", "2026-11-27T09:00:00Z"},
		{"Asia/Kathmandu", "2026-11-26T00:00:00Z", "09:00", "2026-11-26T03:15:00Z"},
		{"America/New_York", "2026-03-08T00:00:00Z", "02:30", "2026-03-08T07:00:00Z"},    // 02:00 becomes 03:00
		{"America/New_York", "2026-03-08T00:00:00Z", "02:00", "2026-03-08T07:00:00Z"},    // it does not show 02:00
		{"America/New_York", "2026-03-08T00:00:00Z", "03:00", "2026-03-08T07:00:00Z"},    // it shows 03:00
		{"America/New_York", "2026-03-08T08:00:00Z", "02:30", "2026-03-09T06:30:00Z"},    // the gap is over
		{"Europe/Berlin", "2026-10-24T22:00:00Z", "02:30", "2026-10-25T00:30:00Z"},       // the first of two
		{"Europe/Berlin", "2026-10-25T00:45:00Z", "02:30", "2026-10-25T01:30:00Z"},       // the second
		{"Africa/Cairo", "2026-10-29T20:45:00Z", "23:30", "2026-10-29T21:30:00Z"},        // midnight becomes 23:00
		{"Australia/Lord_Howe", "2026-10-03T12:00:00Z", "02:15", "2026-10-03T15:30:00Z"}, // by half an hour
		{"Pacific/Apia", "2011-12-30T08:00:00Z", "12:00", "2011-12-30T10:00:00Z"},        // a day that was left out
	} {
		zone, err := time.LoadLocation(tc.zone)
		if err != nil {
			t.Fatal(err)
		}
		from, err := time.Parse(time.RFC3339Nano, tc.from)
		if err != nil {
			t.Fatal(err)
		}
		clock, err := ParseClock(tc.clock)
		if err != nil {
			t.Fatal(err)
		}
		if got := clock.After(from, zone).UTC().Format(time.RFC3339Nano); got != tc.want {
			t.Errorf("%s in %s after %s: %s, want %s", tc.clock, tc.zone, tc.from, got, tc.want)
		}
	}
}

// TestATimeOfDayIsTheFirstThatAClockShows compares with a clock that is watched minute by minute.
func TestATimeOfDayIsTheFirstThatAClockShows(t *testing.T) {
	t.Parallel()
	zones := []string{
		"UTC", "Africa/Cairo", "Europe/Berlin", "America/New_York", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu",
		"America/Santiago",
	}
	rapid.Check(t, func(t *rapid.T) {
		zone, err := time.LoadLocation(rapid.SampledFrom(zones).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		from := time.Date(2026, 1, 1, 0, rapid.IntRange(0, 365*24*60).Draw(t, "minute"), 0, 0, time.UTC)
		minute := rapid.IntRange(0, 24*60-1).Draw(t, "clock")
		clock := Clock{Set: true, hour: minute / 60, minute: minute % 60}
		got := clock.After(from, zone)
		at := from
		for ; MinuteOfDay(at, zone) != minute; at = at.Add(time.Minute) {
			before, then := MinuteOfDay(at, zone), MinuteOfDay(at.Add(time.Minute), zone)
			if jumped := (then - before + 24*60) % (24 * 60); jumped > 1 && jumped < 12*60 && (minute-before+24*60)%(24*60) < jumped {
				at = at.Add(time.Minute)
				break
			}
		}
		if !got.Equal(at) {
			t.Fatalf("%02d:%02d in %s after %s: %s, but the clock says %s", clock.hour, clock.minute, zone, from, got.UTC(), at)
		}
	})
}
