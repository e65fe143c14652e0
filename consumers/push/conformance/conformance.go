// Package conformance is what every provider must do, whatever its network: run against the provider and its simulator. A
// provider's own tests say what its answers mean; these say what may never happen: an endpoint pruned for a fault of ours, a
// provider that is asked while it fails, a secret in the log, an attempt that is lost without a class.
//
// A new provider calls [Run] from a test of its folder.
package conformance

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// Behavior is what a simulator does with every request that follows.
type Behavior string

const (
	// Accept is the ordinary answer.
	Accept Behavior = "accept"
	// Outage is the provider's own word that it fails, without a Retry-After.
	Outage Behavior = "outage"
	// Later is an outage with a Retry-After header of [RetryAfter].
	Later Behavior = "later"
	// Dead says that the endpoint is dead, in the way that it also would to a wrong environment or credential of ours.
	Dead Behavior = "dead"
	// RefuseCredential refuses the credential, until told otherwise.
	RefuseCredential Behavior = "refuse key"
	// HTML is a 502 with a page of something in between.
	HTML Behavior = "html"
	// Empty is a 503 without a body.
	Empty Behavior = "empty"
	// Half is an error whose body is cut in the middle.
	Half Behavior = "half"
	// ErrorInside is a 200 with an error inside.
	ErrorInside Behavior = "error inside"
	// Cut ends the connection instead of an answer.
	Cut Behavior = "cut"
	// Silent takes requests and never answers.
	Silent Behavior = "silent"
)

// RetryAfter is what [Later] asks for.
const RetryAfter = 7 * time.Minute

// Settings are what a subject must be made with.
type Settings struct {
	Credential     string // its name in metrics
	RequestTimeout time.Duration
	Rest           time.Duration // of a refused credential
	BreakerRest    time.Duration
	// Connections and Streams bound each lane.
	Connections, Streams int
	Logger               *slog.Logger
	Metrics              *metrics.Set
	Now                  func() time.Time
}

// Subject is a provider with its simulator.
type Subject struct {
	Provider push.Provider
	// Behave changes what the simulator does.
	Behave func(Behavior)
	// Asked is how many requests about attempts reached the simulator, answered or not.
	Asked func() int
	// Connections is how many connections the simulator has seen.
	Connections func() int
	// Attempt is one that the simulator accepts: always the same for a device of this number.
	Attempt func(device int) *whisperv1.Push
}

// Start makes a subject; it cleans up with t.
type Start func(t *testing.T, s Settings) Subject

const (
	prune   = whisperv1.FailureClass_FAILURE_CLASS_PRUNE
	stop    = whisperv1.FailureClass_FAILURE_CLASS_STOP
	retry   = whisperv1.FailureClass_FAILURE_CLASS_RETRY
	unknown = whisperv1.FailureClass_FAILURE_CLASS_UNKNOWN
	drop    = whisperv1.FailureClass_FAILURE_CLASS_DROP
)

// fixture is a subject with its clock and log.
type fixture struct {
	Subject
	t      *testing.T
	s      Settings
	ahead  atomic.Int64
	number int32

	mu  sync.Mutex
	log bytes.Buffer
}

// Write implements io.Writer for the log.
func (f *fixture) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.Write(p)
}

func (f *fixture) logged() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.String()
}

func (f *fixture) now() time.Time          { return time.Now().Add(time.Duration(f.ahead.Load())) }
func (f *fixture) advance(d time.Duration) { f.ahead.Add(int64(d)) }

func setup(t *testing.T, start Start, change ...func(*Settings)) *fixture {
	t.Helper()
	t.Parallel()
	f := &fixture{t: t}
	f.s = Settings{
		Credential: "conformance", RequestTimeout: time.Minute, Rest: 5 * time.Minute, BreakerRest: 30 * time.Second,
		Connections: 2, Streams: 50, Metrics: metrics.NewSet(), Now: f.now,
		Logger: slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&f.s)
	}
	f.Subject = start(t, f.s)
	t.Cleanup(func() { // whatever happened
		p := f.Attempt(1)
		for what, secret := range map[string]string{"token": p.GetToken(), "body": p.GetContent().GetBody(), "title": p.GetContent().GetTitle()} {
			if secret != "" && strings.Contains(f.logged(), secret) {
				t.Errorf("the log has a %s", what)
			}
		}
	})
	return f
}

// attempt is a new one.
func (f *fixture) attempt(device int) *whisperv1.Push {
	p := f.Attempt(device)
	p.Attempt = 1 + f.number%1000
	f.number++
	p.ExpiresAtMs = f.now().Add(time.Hour).UnixMilli()
	return p
}

func (f *fixture) send() push.Result {
	f.t.Helper()
	return f.Provider.Send(f.t.Context(), f.attempt(1))
}

// accepted sends, which must succeed.
func (f *fixture) accepted(when string) {
	f.t.Helper()
	if r := f.send(); !r.Sent() || r.Status < 200 || r.Status > 299 || r.ProviderID == "" || r.Reason != "" {
		f.t.Fatalf("%s: got %+v", when, r)
	}
}

// eventually sends until it succeeds: a time limit that is short for a test's sake may be too short for a busy machine.
func (f *fixture) eventually(when string) {
	f.t.Helper()
	ctx := bounded(f.t)
	for r := f.send(); !r.Sent(); r = f.send() {
		if ctx.Err() != nil {
			f.t.Fatalf("%s: got %+v", when, r)
		}
		f.advance(time.Minute)
		<-time.After(10 * time.Millisecond)
	}
}

// failed sends, which must fail with one of the classes, and say why in a word.
func (f *fixture) failed(when string, classes ...whisperv1.FailureClass) push.Result {
	f.t.Helper()
	r := f.send()
	for _, class := range classes {
		if r.Class == class {
			if r.Reason == "" || len(r.Reason) > 80 || strings.ContainsAny(r.Reason, " \n\"<") {
				f.t.Errorf("%s: the reason %q is no word", when, r.Reason)
			}
			return r
		}
	}
	f.t.Fatalf("%s: got %+v, want one of %v", when, r, classes)
	return r
}

func (f *fixture) counter(name string) uint64 {
	return f.s.Metrics.GetOrCreateCounter(fmt.Sprintf("whisper_push_%s{provider=%q,credential=%q}", name, f.Provider.Name(), f.s.Credential)).Get()
}

func (f *fixture) gauge(name string) float64 {
	return f.s.Metrics.GetOrCreateGauge(fmt.Sprintf("whisper_push_%s{provider=%q,credential=%q}", name, f.Provider.Name(), f.s.Credential), nil).Get()
}

// bounded is a context that ends a test which would hang.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}
