package pace

import (
	"maps"
	"sync"
	"time"
)

// Keys are freezes of single keys: a device that gets too much, an origin that asks for a pause. It holds a bounded number. The
// zero Keys is ready.
type Keys struct {
	mu     sync.Mutex
	frozen map[string]time.Time
	swept  time.Time
}

const (
	maxKeys = 10_000
	// Looking for freezes that have ended costs a pass over all.
	sweepRest = time.Second
)

// Freeze lets nothing go to the key until then. If too many keys are frozen it is not remembered, and the provider says it
// again.
func (k *Keys) Freeze(key string, until, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.frozen == nil {
		k.frozen = map[string]time.Time{}
	}
	if _, has := k.frozen[key]; !has && len(k.frozen) >= maxKeys {
		if now.Sub(k.swept) >= sweepRest {
			k.swept = now
			maps.DeleteFunc(k.frozen, func(_ string, end time.Time) bool { return !now.Before(end) })
		}
		if len(k.frozen) >= maxKeys {
			return
		}
	}
	if until.After(k.frozen[key]) {
		k.frozen[key] = until
	}
}

// Left returns how long the key's freeze still lasts, or 0.
func (k *Keys) Left(key string, now time.Time) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	end, has := k.frozen[key]
	if !has {
		return 0
	}
	if !now.Before(end) {
		delete(k.frozen, key)
		return 0
	}
	return end.Sub(now)
}
