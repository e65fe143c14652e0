package request

import (
	"fmt"
	"time"

	"github.com/klivvr/whisper/domain/record"
)

// MaxClockSkew is how far ahead of this process's clock the time of a request may be. Kafka's default limit for
// producers (message.timestamp.after.max.ms) is the same hour.
const MaxClockSkew = time.Hour

// MaxRequestAge is the greatest age of a request whose time to live is over. Requests that an outage held up are
// younger, and each of their recipients is recorded as expired. An older record has a wrong time.
const MaxRequestAge = MaxTTL

// checkTimes checks the record's time, which is the request's, and send_at.
//
// An old record is refused only if both hold: none of it can be delivered any more, and it is older than any time to
// live. By age alone, a request for the 30th day with 30 days to live would be refused when it is replayed. By expiry
// alone, every outage would turn the requests that it held up into dead letters.
func (r *Request) checkTimes(src Source, now time.Time) error {
	var p record.Problems
	if src.At.UnixMilli() <= 0 {
		p.Add(record.WordTime, "the record has no time: let the producer set it, or set message.timestamp.type=LogAppendTime on the topic")
		return p.Err()
	}
	ahead := src.At.Sub(now)
	switch unit := otherUnit(src.At); {
	case ahead > MaxClockSkew && unit != "":
		p.Add(record.WordTime, "the record's time is %s: milliseconds? %d looks like %s since 1970", src.At.UTC().Format(time.DateOnly),
			src.At.UnixMilli(), unit)
		return p.Err()
	case ahead > MaxClockSkew:
		p.Add(record.WordTime, "the record's time is %s, %s ahead of the clock, at most %s is allowed: check the producer's clock",
			src.At.UTC().Format(time.RFC3339), ahead.Round(time.Second), MaxClockSkew)
	case ahead < -MaxRequestAge && unit != "":
		p.Add(record.WordTime, "the record's time is %s: milliseconds? %d looks like %s since 1970", src.At.UTC().Format(time.DateOnly),
			src.At.UnixMilli(), unit)
		return p.Err()
	case ahead < -MaxRequestAge && r.expires(src).Before(now):
		p.Add(record.WordTime, "the record's time is %s, %s ago, and its time to live ended at %s: nothing of it could be delivered; check the producer's clock",
			src.At.UTC().Format(time.RFC3339), days(-ahead), r.expires(src).UTC().Format(time.RFC3339))
	}
	if r.SendAt.IsZero() {
		return p.Err()
	}
	switch wait := r.SendAt.Sub(src.At); {
	case wait > MaxSchedule:
		p.Add(record.WordTime, "send_at %s is more than 30 days after the record's time %s", r.SendAt.UTC().Format(time.RFC3339),
			src.At.UTC().Format(time.RFC3339))
	case wait < -MaxSchedule:
		p.Add(record.WordTime, "send_at %s is more than 30 days before the record's time %s", r.SendAt.UTC().Format(time.RFC3339),
			src.At.UTC().Format(time.RFC3339))
	}
	return p.Err()
}

// expires is when the last delivery of the request expires.
func (r *Request) expires(src Source) time.Time {
	from := src.At
	if !r.SendAt.IsZero() {
		from = r.SendAt
	}
	if r.SendAtLocal != "" {
		from = from.Add(localSpread)
	}
	return from.Add(r.TTL)
}

// otherUnit names the unit in which a time that was read as milliseconds would be a time of our days, or "".
func otherUnit(at time.Time) string {
	const from, until = 1_262_304_000, 4_102_444_800 // the seconds of 2010 and of 2100
	ms := at.UnixMilli()
	for _, unit := range []struct {
		name   string
		second int64
	}{{"seconds", 1}, {"microseconds", 1_000_000}, {"nanoseconds", 1_000_000_000}} {
		if s := ms / unit.second; s >= from && s < until {
			return unit.name
		}
	}
	return ""
}

func days(d time.Duration) string {
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

// checkSendAt refuses times before 1970. The year 1 is also what an unset time looks like, which would mean now.
func (d *draft) checkSendAt() {
	if d.SendAt.Unix() <= 0 {
		d.Add(record.WordTime, "send_at is %s: leave it out for now", d.SendAt.UTC().Format(time.RFC3339))
		d.SendAt = time.Time{}
	}
}
