package apps

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/VictoriaMetrics/metrics"

	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// router is one channel's provider: it hands each attempt to the credential of its endpoint's app.
type router struct {
	channel string
	log     *slog.Logger
	missing *metrics.Counter
	table   atomic.Pointer[table]

	mu   sync.Mutex
	told map[string]bool // apps without a credential, since the last change
}

// table is what the file says of one channel. It never changes.
type table struct {
	byApp    map[string]*held
	others   *held  // of apps that byApp does not have; may be nil
	fallback string // the app of endpoints that name none; may be ""
}

func (t *table) all() []*held {
	seen, all := map[*held]bool{}, []*held(nil)
	for _, h := range t.byApp {
		if !seen[h] {
			seen[h] = true
			all = append(all, h)
		}
	}
	if t.others != nil && !seen[t.others] {
		all = append(all, t.others)
	}
	return all
}

func (t *table) of(app string) *held {
	if h := t.byApp[app]; h != nil {
		return h
	}
	return t.others
}

// held is a provider that may be replaced while attempts are under way in it.
type held struct {
	push.Provider
	credential *Credential // nil: given by flags

	mu      sync.Mutex
	users   int
	retired bool
}

func (h *held) acquire() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.retired {
		return false
	}
	h.users++
	return true
}

func (h *held) release() {
	h.mu.Lock()
	h.users--
	last := h.retired && h.users == 0
	h.mu.Unlock()
	if last {
		h.Close()
	}
}

// retire closes the provider once its last attempt has ended.
func (h *held) retire() {
	h.mu.Lock()
	idle := !h.retired && h.users == 0
	h.retired = true
	h.mu.Unlock()
	if idle {
		h.Close()
	}
}

// Channel implements push.Provider.
func (r *router) Channel() string { return r.channel }

// Name implements push.Provider. Which credential was used is in the log.
func (r *router) Name() string { return r.channel }

// Ready is nil as long as one credential can send: apps don't wait for each other's operators.
func (r *router) Ready() error {
	var errs []error
	for _, h := range r.table.Load().all() {
		err := h.Ready()
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Close closes all providers.
func (r *router) Close() {
	for _, h := range r.table.Load().all() {
		h.retire()
	}
}

// Send implements push.Provider.
func (r *router) Send(ctx context.Context, p *whisperv1.Push) push.Result {
	return r.through(p, func(to push.Provider) push.Result { return to.Send(ctx, p) })
}

// Retract implements push.Retracter.
func (r *router) Retract(ctx context.Context, p *whisperv1.Push) push.Result {
	return r.through(p, func(to push.Provider) push.Result { return push.Retract(ctx, to, p) })
}

func (r *router) through(p *whisperv1.Push, do func(push.Provider) push.Result) push.Result {
	for {
		t := r.table.Load()
		app := p.GetApp()
		if app == "" {
			app = t.fallback
		}
		h := t.of(app)
		if h == nil {
			return r.nobody(app)
		}
		if !h.acquire() {
			if r.table.Load() == t { // closed, not replaced
				return push.Result{Class: whisperv1.FailureClass_FAILURE_CLASS_RETRY, Reason: "closed"}
			}
			continue
		}
		defer h.release()
		p.App = app // the attempt's own copy
		return do(h.Provider)
	}
}

// maxTold bounds the memory of apps that were told: they come from users' profiles.
const maxTold = 1000

// nobody is the result for an app that has no credential. The log says so once an app, until the file changes.
func (r *router) nobody(app string) push.Result {
	r.missing.Inc()
	r.mu.Lock()
	tell := !r.told[app] && len(r.told) < maxTold
	if tell {
		r.told[app] = true
	}
	r.mu.Unlock()
	if tell {
		r.log.Error("an app has no credential: nothing is sent to its endpoints", "channel", r.channel, "app", app)
	}
	return push.Result{Class: whisperv1.FailureClass_FAILURE_CLASS_STOP, Reason: "no_credential"}
}

func (r *router) replace(t *table) {
	before := r.table.Swap(t)
	r.mu.Lock()
	r.told = map[string]bool{}
	r.mu.Unlock()
	if before == nil {
		return
	}
	kept := map[*held]bool{}
	for _, h := range t.all() {
		kept[h] = true
	}
	for _, h := range before.all() {
		if !kept[h] {
			h.retire()
		}
	}
}
