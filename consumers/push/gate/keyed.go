package gate

import (
	"sync"
	"time"
)

// Keyed holds one gate for each key that was ever closed: an app, a topic, an origin. Keys come from users' profiles, so it
// remembers at most a bounded number; a key beyond them has no gate, and each of its attempts asks the provider.
type Keyed struct {
	rest    time.Duration
	onClose func(key, reason string)
	onOpen  func(key string)

	mu    sync.RWMutex
	gates map[string]*Gate
}

const maxKeys = 1000

// NewKeyed makes an empty set. onClose and onOpen are called as in [Config], and may be nil.
func NewKeyed(rest time.Duration, onClose func(key, reason string), onOpen func(key string)) *Keyed {
	return &Keyed{rest: rest, onClose: onClose, onOpen: onOpen, gates: map[string]*Gate{}}
}

// Of returns the key's gate, or nil if there is none.
func (k *Keyed) Of(key string) *Gate {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.gates[key]
}

// Close closes the key's gate.
func (k *Keyed) Close(key, reason string, now time.Time) {
	k.mu.Lock()
	g := k.gates[key]
	if g == nil && len(k.gates) < maxKeys {
		cfg := Config{Rest: k.rest}
		if k.onClose != nil {
			cfg.OnClose = func(reason string) { k.onClose(key, reason) }
		}
		if k.onOpen != nil {
			cfg.OnOpen = func() { k.onOpen(key) }
		}
		g = New(cfg)
		k.gates[key] = g
	}
	k.mu.Unlock()
	if g != nil {
		g.Close(reason, now)
	}
}
