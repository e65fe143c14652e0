package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/golang-jwt/jwt/v5"
)

const (
	// renewPause bounds what strangers with invented key names can ask of the identity provider.
	renewPause = 5 * time.Second
	// fetchTimeout bounds one reading of the set, retryFirst the pause after the first that fails.
	fetchTimeout = 5 * time.Second
	retryFirst   = time.Second
	maxJWKSBytes = 1 << 20
	// maxSetKeys bounds a set, and maxNameless how many of its keys are tried on a token that names none:
	// each try costs as much as a connect.
	maxSetKeys  = 64
	maxNameless = 4
)

// jwks keeps the last good set of a file or URL and renews it. The library reads keys; fetching is ours, since
// its peers replace a good set by an empty one, fail a whole set for one key of a new kind, or fetch once a waiter.
type jwks struct {
	source string
	url    bool
	every  time.Duration
	now    func() time.Time
	client *http.Client
	log    *slog.Logger
	good   atomic.Pointer[keySet]

	renewed, failed *metrics.Counter

	mu    sync.Mutex
	tried time.Time     // when the last reading began
	busy  bool          // it still goes on
	done  chan struct{} // closed when it, or the next one, is over
	err   error         // of the last
	ask   chan struct{}
}

func (v *verifier) addSet(c AuthConfig) error {
	if c.JWKS == "" {
		return nil
	}
	if c.JWKSRefresh < 0 {
		return fmt.Errorf("auth-jwks-refresh: %s is negative", c.JWKSRefresh)
	}
	j := &jwks{source: c.JWKS, every: c.JWKSRefresh, now: v.now, done: make(chan struct{}), ask: make(chan struct{}, 1)}
	j.every = cmp.Or(j.every, AuthDefaults().JWKSRefresh)
	v.jwks = j
	j.attach(slog.New(slog.DiscardHandler), metrics.NewSet())
	if u, err := url.Parse(c.JWKS); err == nil && strings.Contains(c.JWKS, "://") {
		if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("auth-jwks: %q is neither a file nor an http(s) URL", u.Redacted())
		}
		j.url = true
		j.client = newJWKSClient()
		return nil
	}
	// A file is there from the start or never.
	if err := j.readFile(); err != nil {
		return fmt.Errorf("auth-jwks: %w", err)
	}
	return nil
}

func newJWKSClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true // minutes pass between two requests
	return &http.Client{
		Timeout:   fetchTimeout,
		Transport: transport,
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			switch {
			case len(via) >= 3:
				return errors.New("more than 3 redirects")
			case via[0].URL.Scheme == "https" && req.URL.Scheme != "https":
				return errors.New("a redirect away from https")
			}
			return nil
		},
	}
}

func (j *jwks) attach(log *slog.Logger, set *metrics.Set) {
	j.log = log
	j.renewed = set.GetOrCreateCounter(`whisper_gateway_jwks_refreshes_total{outcome="ok"}`)
	j.failed = set.GetOrCreateCounter(`whisper_gateway_jwks_refreshes_total{outcome="failed"}`)
	set.GetOrCreateGauge(`whisper_gateway_jwks_keys`, func() float64 {
		if s := j.good.Load(); s != nil {
			return float64(s.keys)
		}
		return 0
	})
}

// run reads the set at once and again whenever it is due or asked for, until ctx ends.
func (j *jwks) run(ctx context.Context) error {
	retry := retryFirst
	for {
		wait := j.every - rand.N(j.every/10+1) // so that gateways started together do not ask together
		if err := j.round(ctx); err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // a stop is not an error
			}
			wait = min(retry/2+rand.N(retry/2+1), j.every)
			retry = min(retry*2, time.Minute)
		} else {
			retry = retryFirst
		}
		if err := j.pause(ctx, wait); err != nil {
			return nil //nolint:nilerr // a stop is not an error
		}
	}
}

// pause waits, or less if a token asks for a key that is not known and the last reading is long enough ago.
func (j *jwks) pause(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case <-j.ask:
			j.mu.Lock()
			due := j.due()
			j.mu.Unlock()
			if due {
				return nil
			}
		}
	}
}

func (j *jwks) due() bool { return j.now().Sub(j.tried) >= renewPause }

// round reads once and tells those who wait. A failure is logged when it begins and when it is over, not
// with every try.
func (j *jwks) round(ctx context.Context) error {
	j.mu.Lock()
	j.tried, j.busy = j.now(), true
	before := j.err
	j.mu.Unlock()
	err := j.read(ctx)
	j.mu.Lock()
	j.busy, j.err = false, err
	close(j.done)
	j.done = make(chan struct{})
	j.mu.Unlock()
	switch {
	case ctx.Err() != nil:
	case err != nil:
		j.failed.Inc()
		if before == nil {
			j.log.Warn("key set can't be read; the last good one goes on", "keys", j.count(), "error", err)
		}
	default:
		j.renewed.Inc()
		if before != nil {
			j.log.Info("key set is read again", "keys", j.count())
		}
	}
	return err
}

func (j *jwks) count() int {
	if s := j.good.Load(); s != nil {
		return s.keys
	}
	return 0
}

// renew has the set read again, unless that was tried just now, and waits for it or for ctx. A reading that is
// under way may have begun before the key was there, so it is waited for and then the same is asked again.
func (j *jwks) renew(ctx context.Context) {
	for again := true; again; {
		j.mu.Lock()
		again = j.busy
		if !j.busy && !j.due() {
			j.mu.Unlock()
			return
		}
		done := j.done
		j.mu.Unlock()
		select {
		case j.ask <- struct{}{}:
		default: // is asked already
		}
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
}

func (j *jwks) ready() error {
	if j.good.Load() != nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return fmt.Errorf("waits for the key set of auth-jwks: %w", j.err)
	}
	return errors.New("waits for the key set of auth-jwks")
}

// await waits for the first good set, while run runs.
func (j *jwks) await(ctx context.Context) error {
	for {
		j.mu.Lock()
		done := j.done
		j.mu.Unlock()
		if j.good.Load() != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-done:
		}
	}
}

// read replaces the set if what is read is one.
func (j *jwks) read(ctx context.Context) error {
	if !j.url {
		return j.readFile()
	}
	raw, err := j.fetch(ctx)
	if err != nil {
		return err
	}
	return j.replace(raw)
}

func (j *jwks) readFile() error {
	raw, err := os.ReadFile(j.source)
	if err != nil {
		return err
	}
	return j.replace(raw)
}

func (j *jwks) replace(raw []byte) error {
	set, err := parseKeySet(raw)
	if err != nil {
		return err
	}
	j.good.Store(set)
	return nil
}

func (j *jwks) fetch(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, j.source, nil)
	if err != nil {
		return nil, fmt.Errorf("ask for the key set: %w", err)
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := j.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask for the key set: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask for the key set: the answer is HTTP %d", resp.StatusCode)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxJWKSBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the key set: %w", err)
	}
	if len(raw) > maxJWKSBytes {
		return nil, fmt.Errorf("read the key set: it has more than %d bytes", maxJWKSBytes)
	}
	return raw, nil
}

// find is the key of that name and algorithm; without a name, all of the algorithm unless they are many.
func (j *jwks) find(kid, alg string) (jwt.VerificationKeySet, bool) {
	s := j.good.Load()
	if s == nil {
		return jwt.VerificationKeySet{}, false
	}
	if kid == "" {
		set, ok := s.nameless[alg]
		return set, ok && len(set.Keys) <= maxNameless
	}
	set, ok := s.named[kidAlg{kid, alg}]
	return set, ok
}

func (j *jwks) knows(kid string) bool {
	s := j.good.Load()
	return s != nil && s.kids[kid]
}
