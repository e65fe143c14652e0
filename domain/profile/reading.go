package profile

import (
	"encoding/binary"
	"time"

	"github.com/klivvr/whisper/domain/localtime"
)

// A user's reading is 24 weights, one for each hour of their local day, and the day of the last decay: 26 bytes in the
// profile. A read adds readWeight to its hour. Each day takes an eighth off all weights, so a read of two weeks ago
// counts a sixth. The weights are approximate: a restart may count a read twice, or forget those of a day.
const (
	readingBytes = 24 + 2
	readWeight   = 16
	// About three recent reads: less is no habit.
	readEnough = 40
)

// AddRead returns the reading with one more read at a time, and whether a day has begun since the last one. The reading
// is persisted then.
func AddRead(reading string, at time.Time, zone *time.Location) (after string, newDay bool) {
	var r [readingBytes]byte
	if len(reading) == readingBytes {
		copy(r[:], reading)
	}
	day := localtime.Day(at, zone)
	last := int(binary.LittleEndian.Uint16(r[24:]))
	if newDay = day > last; newDay {
		for i := range r[:24] {
			r[i] = byte(decayed(int(r[i]), day-last))
		}
		binary.LittleEndian.PutUint16(r[24:], uint16(day))
	}
	hour := localtime.MinuteOfDay(at, zone) / 60
	if r[hour] > 255-readWeight { // room for more: what matters is how they compare
		for i := range r[:24] {
			r[i] /= 2
		}
	}
	r[hour] += readWeight
	return string(r[:]), newDay
}

func decayed(weight, days int) int {
	for ; days > 0 && weight > 0; days-- {
		weight -= (weight + 7) / 8
	}
	return weight
}

// UsualHour is the hour at which a user reads most; known is false without a habit.
func UsualHour(reading string, now time.Time) (hour int, known bool) {
	if len(reading) != readingBytes {
		return 0, false
	}
	last := int(binary.LittleEndian.Uint16([]byte{reading[24], reading[25]}))
	days := max(localtime.Day(now, time.UTC)-last, 0)
	total, most := 0, -1
	for h := range 24 {
		w := decayed(int(reading[h]), days)
		if total += w; w > most {
			hour, most = h, w
		}
	}
	return hour, total >= readEnough
}

// NextHour is now if the local time is within that hour, else the next time that the hour begins.
func NextHour(now time.Time, zone *time.Location, hour int) time.Time {
	return localtime.WallReaches(now, zone, func(at time.Time) time.Duration {
		minute := localtime.MinuteOfDay(at, zone)
		if minute/60 == hour {
			return 0
		}
		left := (hour*60 - minute + 24*60) % (24 * 60)
		return time.Duration(left)*time.Minute - time.Duration(at.Second())*time.Second
	})
}
