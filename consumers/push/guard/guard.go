// Package guard is what stands between a provider's attempts and its answers, the same for every provider: it stops a refused
// credential and scopes of it (an app's topic, an origin), puts attempts off while the provider fails, and keeps a
// spike of refused endpoints from being pruned. It changes metrics and writes one log line for each change of state.
//
// A provider asks [Guard.Enter] before an attempt, and tells its answer by exactly one of Answered, Dead, Failed, StopCredential,
// StopScope and Abandon. What an answer means is the provider's: see its Classify. The guard does not wait, and asks nobody.
package guard

import (
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/consumers/push/gate"
	"github.com/klivvr/whisper/consumers/push/observe"
	"github.com/klivvr/whisper/domain/whisperv1"
)

const (
	retry = whisperv1.FailureClass_FAILURE_CLASS_RETRY
	drop  = whisperv1.FailureClass_FAILURE_CLASS_DROP
	stop  = whisperv1.FailureClass_FAILURE_CLASS_STOP
)

// Config is one credential's.
type Config struct {
	// Provider is the name in logs; Scope what a scope is called there ("topic", "origin"); Key identifies the credential and is
	// no secret.
	Provider, Scope, Key string
	// Rest is how long a stopped credential or scope is left alone before an attempt probes it. BreakerRest is the same for a
	// provider that fails.
	Rest, BreakerRest time.Duration
	// Streak is how many failures in a row trip the breaker (default [gate.Streak]).
	Streak int
	Log    *slog.Logger
	Watch  *observe.Watch
	Now    func() time.Time
}

// Guard guards one credential. It is safe for concurrent use.
type Guard struct {
	cfg        Config
	credential *gate.Gate
	scopes     *gate.Keyed
	breaker    *gate.Breaker
	spike      gate.Spike

	// A guard that takes the place of another has the same gauges, so each adds and takes back only its own.
	mu               sync.Mutex
	stopped, failing bool
	closed           bool
	strange          time.Time // when an answer that the table does not know was told
}

// strangeRest is the least time between two lines about answers that the table does not know. The metric counts all.
const strangeRest = time.Minute

// New makes a guard that lets everything pass.
func New(cfg Config) *Guard {
	log := cfg.Log.With("provider", cfg.Provider, "credential", cfg.Key)
	g := &Guard{cfg: cfg}
	g.cfg.Log = log
	g.credential = gate.New(gate.Config{
		Rest: cfg.Rest,
		OnClose: func(reason string) {
			g.mark(&g.stopped, cfg.Watch.Stopped, true)
			log.Error("the provider refuses the credential: nothing is sent until it is mended", "reason", reason, "next_probe", cfg.Rest)
		},
		OnOpen: func() {
			g.mark(&g.stopped, cfg.Watch.Stopped, false)
			log.Info("the provider takes the credential again")
		},
	})
	g.scopes = gate.NewKeyed(
		cfg.Rest,
		func(key, reason string) {
			log.Error("the provider refuses a scope: nothing is sent to it until it is mended",
				"reason", reason, cfg.Scope, key, "next_probe", cfg.Rest)
		},
		func(key string) { log.Info("the provider takes the scope again", cfg.Scope, key) },
	)
	g.breaker = gate.NewBreaker(cfg.Streak, gate.Config{
		Rest: cfg.BreakerRest,
		OnClose: func(reason string) {
			g.mark(&g.failing, cfg.Watch.Breaker, true)
			log.Error("the provider is failing: attempts are put off without asking it", "reason", reason, "rest", cfg.BreakerRest)
		},
		OnOpen: func() {
			g.mark(&g.failing, cfg.Watch.Breaker, false)
			log.Info("the provider answers again")
		},
	})
	return g
}

// Enter asks whether an attempt may go on. If not, it returns the result that takes the place of the provider's answer.
func (g *Guard) Enter(scope string) (gate.Passage, *push.Result) {
	pass, refused, ok := gate.Enter(g.cfg.Now(), g.credential, g.scopes.Of(scope), g.breaker.Gate)
	if ok {
		return pass, nil
	}
	const breaker = 2 // its place among the gates
	if refused.Gate == breaker {
		// Attempts that are held back now must not all return at once.
		wait := refused.Wait + rand.N(g.cfg.BreakerRest+1)
		return pass, &push.Result{Class: retry, Reason: "breaker:" + refused.Reason, RetryAfter: wait}
	}
	return pass, &push.Result{Class: stop, Reason: "stopped:" + refused.Reason, RetryAfter: refused.Wait}
}

// Answered notes an answer that shows that the provider works and takes our credential: also a refusal of this one attempt
// that says nothing of its endpoint.
func (g *Guard) Answered(pass *gate.Passage) {
	g.breaker.Answered()
	pass.Answered()
	g.spike.Answered(false, g.cfg.Now())
}

// Dead notes an answer that the endpoint is dead, where a wrong environment or credential of ours would be answered alike.
// It returns the class, or one that prunes nothing while there are suspiciously many such answers. A word of the provider that is
// beyond doubt is told as Answered instead.
func (g *Guard) Dead(pass *gate.Passage, class whisperv1.FailureClass, reason string) whisperv1.FailureClass {
	g.breaker.Answered()
	pass.Answered()
	return g.Suspect(class, reason)
}

// Suspect is Dead for an endpoint that the provider was not asked about, since its token can't be one.
func (g *Guard) Suspect(class whisperv1.FailureClass, reason string) whisperv1.FailureClass {
	suspect, began := g.spike.Answered(true, g.cfg.Now())
	if began {
		g.cfg.Log.Error("many device tokens are refused: none is forgotten; check the environment and the apps", "reason", reason)
	}
	if suspect {
		g.cfg.Watch.Suspects.Inc()
		return drop
	}
	return class
}

// Failed notes that the provider answered nothing, or that it fails.
func (g *Guard) Failed(pass *gate.Passage, reason string) {
	g.breaker.Failed(reason, g.cfg.Now())
	pass.Abandon()
}

// StopCredential stops everything: the provider answers, and refuses the credential. It returns how long until the next probe.
func (g *Guard) StopCredential(pass *gate.Passage, reason string) time.Duration {
	g.refused(pass)
	g.credential.Close(reason, g.cfg.Now())
	return g.cfg.Rest
}

// StopScope stops one scope. That says nothing of the credential, whose probe is for the next attempt.
func (g *Guard) StopScope(pass *gate.Passage, scope, reason string) time.Duration {
	g.refused(pass)
	g.scopes.Close(scope, reason, g.cfg.Now())
	return g.cfg.Rest
}

// refused ends the passage of an attempt that the provider answered and refused.
func (g *Guard) refused(pass *gate.Passage) {
	g.breaker.Answered()
	pass.AnsweredAt(g.breaker.Gate)
}

// Abandon ends an attempt that its caller gave up, or that was not made after all. It says nothing about the provider.
func (g *Guard) Abandon(pass *gate.Passage) { pass.Abandon() }

// Unclassified counts an answer that the provider's table does not know, and tells of one a minute: a provider that begins to give
// a new one gives it to many attempts. The line of each attempt has its reason as well.
func (g *Guard) Unclassified(status int, reason string) {
	g.cfg.Watch.Unclassified.Inc()
	now := g.cfg.Now()
	g.mu.Lock()
	tell := now.Sub(g.strange) >= strangeRest
	if tell {
		g.strange = now
	}
	g.mu.Unlock()
	if !tell {
		return
	}
	g.cfg.Log.Error("the provider gave an answer that the table does not know", "status", status, "reason", reason)
}

// Close takes the guard's own out of the metrics; the credential may have another already.
func (g *Guard) Close() {
	g.mark(&g.stopped, g.cfg.Watch.Stopped, false)
	g.mark(&g.failing, g.cfg.Watch.Breaker, false)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

func (g *Guard) mark(is *bool, gauge *metrics.Gauge, now bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed || *is == now:
	case now:
		gauge.Inc()
	default:
		gauge.Dec()
	}
	*is = now
}

// Stopped returns why the credential is stopped, or "".
func (g *Guard) Stopped() string { return g.credential.Why() }

// Failures is how many failures there were in a row.
func (g *Guard) Failures() int { return g.breaker.Failures() }

// Word cuts a provider's reason to what may be stored and logged.
func Word(reason string) string {
	if reason == "" || len(reason) > 64 {
		return "malformed_reason"
	}
	for i := range len(reason) {
		if reason[i] <= 0x20 || reason[i] >= 0x7f {
			return "malformed_reason"
		}
	}
	return reason
}
