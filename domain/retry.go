package domain

import (
	"encoding/binary"
	"time"
)

// Backoff is a retry schedule: Base, doubled each time, never over Cap, with the upper half of each
// delay jittered ("equal jitter") so that deliveries that failed together do not return together.
type Backoff struct {
	Base time.Duration
	Cap  time.Duration
	// Tries bounds the retries. 0 means that only the expiry of the delivery bounds them.
	Tries int32
}

// Delay is the pause before retry number try (from 0). Its jitter is derived from the delivery's id, so that a decision
// that is made again is the same.
func (b Backoff) Delay(id DeliveryID, try int32) time.Duration {
	delay := b.Cap
	if shift := uint(max(try, 0)); shift < 32 {
		if d := b.Base << shift; d > 0 && d < b.Cap {
			delay = d
		}
	}
	seed := binary.BigEndian.Uint64(id[8:]) + uint64(try)*0x9e3779b97f4a7c15
	// The finalizer of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
	seed = (seed ^ seed>>30) * 0xbf58476d1ce4e5b9
	seed = (seed ^ seed>>27) * 0x94d049bb133111eb
	seed ^= seed >> 31
	half := delay / 2
	return delay - half + time.Duration(seed%uint64(half+1))
}

// Exhausted reports whether retry number try is one too many.
func (b Backoff) Exhausted(try int32) bool { return b.Tries > 0 && try >= b.Tries }
