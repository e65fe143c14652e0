package profile

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain/localtime"
)

func zoneOf(t testing.TB, name string) *time.Location {
	t.Helper()
	var z localtime.Zones
	zone, known := z.Load(name)
	if !known {
		t.Fatalf("no rules for %s", name)
	}
	return zone
}

func TestQuietHours(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		zone, hours, now, end string // end "": not quiet
	}{
		"in the evening":                         {"Africa/Cairo", `{"from":"22:00","to":"07:00"}`, "2026-11-24 23:30:10", "2026-11-25 07:00:00"},
		"after midnight":                         {"Africa/Cairo", `{"from":"22:00","to":"07:00"}`, "2026-11-25 00:00:00", "2026-11-25 07:00:00"},
		"the first minute":                       {"Africa/Cairo", `{"from":"22:00","to":"07:00"}`, "2026-11-24 22:00:00", "2026-11-25 07:00:00"},
		"the last second":                        {"Africa/Cairo", `{"from":"22:00","to":"07:00"}`, "2026-11-25 06:59:59", "2026-11-25 07:00:00"},
		"the end itself":                         {"Africa/Cairo", `{"from":"22:00","to":"07:00"}`, "2026-11-25 07:00:00", ""},
		"within a day":                           {"UTC", `{"from":"12:30","to":"14:00"}`, "2026-11-25 13:59:00", "2026-11-25 14:00:00"},
		"before":                                 {"UTC", `{"from":"12:30","to":"14:00"}`, "2026-11-25 12:29:59", ""},
		"in any order of fields":                 {"UTC", `{ "to":"07:00", "from":"22:00" }`, "2026-11-25 23:00:00", "2026-11-26 07:00:00"},
		"one end is none":                        {"UTC", `{"from":"22:00"}`, "2026-11-25 23:00:00", ""},
		"from and to are one":                    {"UTC", `{"from":"22:00","to":"22:00"}`, "2026-11-25 22:00:00", ""},
		"half an hour off":                       {"Asia/Kolkata", `{"from":"22:00","to":"07:00"}`, "2026-11-25 03:00:00", "2026-11-25 07:00:00"},
		"the night is shorter in spring":         {"Europe/Berlin", `{"from":"22:00","to":"07:00"}`, "2026-03-28 23:00:00", "2026-03-29 07:00:00"},
		"the night is longer in autumn":          {"Europe/Berlin", `{"from":"22:00","to":"07:00"}`, "2026-10-24 23:00:00", "2026-10-25 07:00:00"},
		"the end is jumped over in spring":       {"Europe/Berlin", `{"from":"22:00","to":"02:30"}`, "2026-03-29 01:00:00", "2026-03-29 03:00:00"},
		"the beginning is jumped over in spring": {"Europe/Berlin", `{"from":"02:30","to":"07:00"}`, "2026-03-29 03:00:00", "2026-03-29 07:00:00"},
		"before the beginning that is jumped":    {"Europe/Berlin", `{"from":"02:30","to":"07:00"}`, "2026-03-29 01:59:59", ""},
		"midnight is jumped over in Cairo":       {"Africa/Cairo", `{"from":"20:00","to":"00:30"}`, "2026-04-23 23:30:00", "2026-04-24 01:00:00"},
		"half an hour of change, on Lord Howe":   {"Australia/Lord_Howe", `{"from":"22:00","to":"02:15"}`, "2026-10-04 01:50:00", "2026-10-04 02:30:00"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			zone := zoneOf(t, c.zone)
			now, err := time.ParseInLocation(time.DateTime, c.now, zone)
			if err != nil {
				t.Fatal(err)
			}
			q, any := ReadQuiet(c.hours)
			if quiet := any && q.Has(localtime.MinuteOfDay(now, zone)); quiet != (c.end != "") {
				t.Fatalf("quiet: %v", quiet)
			}
			if c.end == "" {
				return
			}
			if got := q.End(now, zone).In(zone).Format(time.DateTime); got != c.end {
				t.Errorf("it ends at %s, want %s", got, c.end)
			}
		})
	}
}

// TestTheHourThatComesTwiceIsQuietTwice: quiet hours are what the clock on the wall shows.
func TestTheHourThatComesTwiceIsQuietTwice(t *testing.T) {
	t.Parallel()
	zone := zoneOf(t, "Europe/Berlin")
	q, _ := ReadQuiet(`{"from":"22:00","to":"02:30"}`)
	first := q.End(time.Date(2026, 10, 24, 22, 0, 0, 0, time.UTC), zone) // 00:00 there
	if want := time.Date(2026, 10, 25, 0, 30, 0, 0, time.UTC); !first.Equal(want) {
		t.Fatalf("the first 02:30 is %s, want %s", first.UTC(), want)
	}
	again := time.Date(2026, 10, 25, 1, 10, 0, 0, time.UTC) // 02:10, for the second time
	if !q.Has(localtime.MinuteOfDay(again, zone)) {
		t.Fatal("not quiet at the second 02:10")
	}
	if end, want := q.End(again, zone), time.Date(2026, 10, 25, 1, 30, 0, 0, time.UTC); !end.Equal(want) {
		t.Errorf("the second 02:30 is %s, want %s", end.UTC(), want)
	}
}

// TestTheEndOfQuietHoursIsTheFirstMomentOutsideThem: in any zone, at any time, over any change.
func TestTheEndOfQuietHoursIsTheFirstMomentOutsideThem(t *testing.T) {
	t.Parallel()
	names := []string{
		"UTC", "Africa/Cairo", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Santiago",
		"Africa/Casablanca", "Pacific/Apia", "Europe/Dublin",
	}
	rapid.Check(t, func(t *rapid.T) {
		var z localtime.Zones
		zone, _ := z.Load(rapid.SampledFrom(names).Draw(t, "zone"))
		minute := rapid.IntRange(0, 24*60-1)
		q := QuietHours{minute.Draw(t, "from"), minute.Draw(t, "to")}
		now := time.Unix(rapid.Int64Range(1_767_225_600, 1_798_761_600).Draw(t, "now"), 0) // 2026
		if q.from == q.to || !q.Has(localtime.MinuteOfDay(now, zone)) {
			return
		}
		end := q.End(now, zone)
		if q.Has(localtime.MinuteOfDay(end, zone)) {
			t.Fatalf("%+v in %s: still quiet at the end %s", q, zone, end.In(zone))
		}
		for at := now; at.Before(end); at = at.Add(30 * time.Second) {
			if !q.Has(localtime.MinuteOfDay(at, zone)) {
				t.Fatalf("%+v in %s: from %s, not quiet at %s, before the end %s", q, zone, now.In(zone), at.In(zone), end.In(zone))
			}
		}
		if day := localtime.NextDay(now, zone); localtime.Day(day, zone) == localtime.Day(now, zone) ||
			localtime.Day(day.Add(-time.Second), zone) != localtime.Day(now, zone) {
			t.Fatalf("the day of %s ends at %s", now.In(zone), day.In(zone))
		}
	})
}
