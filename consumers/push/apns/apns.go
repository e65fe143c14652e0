// Package apns hands attempts to Apple's push service with sideshow/apns2: payloads, headers, provider tokens, and what its
// answers mean. [Classify] is the table of answers; this file acts on it. Connections, stops and the breaker are those
// that every provider has (packages h2 and guard).
//
// It must not wait, except for one immediate second try (dispatch waits, by the class and the delay of a
// [push.Result]), must not talk to Kafka, and must not log a device token or a text.
//
// One Provider is one (team, environment, key). Each lane has its own connections, at most Config.Connections with
// Config.Streams requests each: by default 1,000 in flight in a lane, which at 100 ms an answer is 10,000 a second. A
// push in flight costs one goroutine of net/http and about 10 KiB. For more, start more processes: Apple accepts
// hundreds of connections of one key.
package apns

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/token"

	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/consumers/push/apps"
	"github.com/klivvr/whisper/consumers/push/guard"
	"github.com/klivvr/whisper/consumers/push/h2"
	"github.com/klivvr/whisper/consumers/push/observe"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// Channel is the name of the channel, and of the provider.
const Channel = "apns"

// Provider implements [push.Provider].
type Provider struct {
	cfg   resolved
	log   *slog.Logger
	now   func() time.Time
	watch *observe.Watch
	guard *guard.Guard
	wire  *wire
	http  *http.Client
	cred  atomic.Pointer[credential]
}

// credential is an apns2 client with one provider token. The token of a client is never replaced, so that it is known
// which request used which.
type credential struct {
	bearer *bearer
	client *apns2.Client
}

var (
	_ push.Provider  = (*Provider)(nil)
	_ push.Retracter = (*Provider)(nil)
	_ apps.Defaulter = (*Provider)(nil)
)

// New makes a provider. A lane connects at its first attempt. The caller closes the provider.
func New(cfg Config) (*Provider, error) {
	r, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	p := &Provider{cfg: *r, log: r.Logger, now: r.Now, watch: observe.New(r.Metrics, Channel, r.Credential)}
	p.guard = guard.New(guard.Config{
		Provider: Channel, Scope: "topic", Key: r.KeyID, Rest: r.Rest, BreakerRest: r.BreakerRest,
		Log: r.Logger, Watch: p.watch, Now: r.Now,
	})
	p.wire = p.newWire()
	p.http = &http.Client{
		Transport:     p.wire,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return p, nil
}

func (p *Provider) newWire() *wire {
	w := &wire{now: p.now}
	for i := range w.pools {
		w.pools[i] = h2.New(h2.Config{
			Base: p.cfg.base, TLS: &tls.Config{RootCAs: p.cfg.roots, MinVersion: tls.VersionTLS12},
			Connections: p.cfg.Connections, Streams: p.cfg.Streams, ConnectTimeout: p.cfg.RequestTimeout,
			Watch: p.watch, Now: p.now,
		})
	}
	return w
}

// Channel implements push.Provider.
func (p *Provider) Channel() string { return Channel }

// Name implements push.Provider.
func (p *Provider) Name() string { return Channel }

// DefaultApp implements apps.Defaulter: the topic of endpoints that name no app, "" for none.
func (p *Provider) DefaultApp() string { return p.cfg.Topic }

// Ready returns an error while the credential is refused. All other trouble passes without help.
func (p *Provider) Ready() error {
	if why := p.guard.Stopped(); why != "" {
		return fmt.Errorf("apns: the key %s is refused (%s): check the key, its team and its environment", p.cfg.KeyID, why)
	}
	return nil
}

// Close closes all connections. Tries in flight end without an answer.
func (p *Provider) Close() {
	for _, pool := range p.wire.pools {
		pool.Close()
	}
	p.guard.Close()
}

// Send implements push.Provider: one attempt, of at most two tries.
func (p *Provider) Send(ctx context.Context, attempt *whisperv1.Push) push.Result {
	n, err := p.cfg.request(attempt)
	if err != nil {
		return p.unaskable(err)
	}
	pass, refused := p.guard.Enter(n.Topic)
	if refused != nil {
		return *refused
	}
	t := p.try(ctx, n, domain.LaneOf(attempt.GetLane()))
	if p.mend(t) && p.pause(ctx) {
		switch expired := push.Expired(attempt, p.now()); {
		case expired == nil:
			p.watch.SecondTries.Inc()
			first := t
			t = p.try(ctx, n, first.lane)
			if t.status == 0 {
				t.arrived = t.arrived || first.arrived
				t.verdict = ClassifyNoAnswer(t.arrived)
			}
		case t.verdict.Class == stop && ctx.Err() == nil:
			// A refusal of what has been mended says nothing of what would be sent now, so it stops nothing.
			p.guard.Abandon(&pass)
			return *expired
		}
	}
	if ctx.Err() != nil { // the caller gave up, which says nothing about APNs
		p.guard.Abandon(&pass)
		return push.Result{Class: t.verdict.Class, Reason: "abandoned"}
	}
	return p.settle(t, n.Topic, &pass)
}

// Retract implements push.Retracter with a background push. Apple promises nothing about these: it delays them, and
// drops them if a device gets too many.
func (p *Provider) Retract(ctx context.Context, attempt *whisperv1.Push) push.Result {
	return p.Send(ctx, attempt) // the request tells them apart
}

// unaskable returns the result of an attempt that APNs would certainly refuse.
func (p *Provider) unaskable(err error) push.Result {
	reason := refusal(err)
	if errors.Is(err, errMalformedToken) {
		return push.Result{Class: p.guard.Suspect(prune, reason), Reason: reason}
	}
	return push.Result{Class: drop, Reason: reason, Bug: true}
}

// try makes one request and returns its answer.
type try struct {
	answer
	bearer  *bearer
	verdict Verdict
	err     error
}

func (p *Provider) try(ctx context.Context, n *apns2.Notification, lane domain.Lane) *try {
	t := &try{answer: answer{lane: lane}}
	cred, err := p.authorize()
	if err != nil { // the key can't sign, which Validate has ruled out
		t.err, t.verdict = err, Verdict{Class: stop, Then: StopCredential, Listed: true}
		t.reason = "unsigned"
		return t
	}
	t.bearer = cred.bearer
	ctx, cancel := context.WithTimeout(withAnswer(ctx, &t.answer), p.cfg.RequestTimeout)
	defer cancel()
	resp, err := cred.client.PushWithContext(ctx, n)
	switch {
	case err != nil:
		t.err = err
		t.verdict = ClassifyNoAnswer(t.arrived)
	default:
		t.verdict = Classify(resp.StatusCode, t.reason)
	}
	return t
}

// authorize returns the client with the current token.
func (p *Provider) authorize() (*credential, error) {
	b, err := p.cfg.minter.at(p.now())
	if err != nil {
		return nil, err
	}
	cred := p.cred.Load()
	if cred != nil && cred.bearer == b {
		return cred, nil
	}
	// apns2 mints by itself when IssuedAt is old; this never is.
	const never = math.MaxInt64 - token.TokenTimeout
	cred = &credential{bearer: b, client: &apns2.Client{
		Host:       p.cfg.base.Scheme + "://" + p.cfg.base.Host,
		HTTPClient: p.http,
		Token:      &token.Token{Bearer: b.token, IssuedAt: never},
	}}
	p.cred.Store(cred)
	return cred, nil
}

// mend does what the verdict asks for at once, and says whether to try again.
func (p *Provider) mend(t *try) bool {
	switch t.verdict.Then {
	case Reconnect:
		if t.conn != nil {
			p.wire.pools[t.lane].Discard(t.conn)
		}
		return true
	case Refresh:
		if p.cfg.minter.refresh(t.bearer, p.now()) {
			return true
		}
		p.log.Error("apns calls a young provider token expired: check this machine's clock", "issued", t.bearer.issued)
		return false
	case Freeze:
		p.log.Error("apns refuses new provider tokens: keeping the old one", "key_id", p.cfg.KeyID)
		p.cfg.minter.freeze(t.bearer, p.now())
		return true
	case Report, DeadLetter, Guard, StopCredential, StopTopic, Trip:
		return false
	default:
		return false
	}
}

// pause spreads second tries. It is false where ctx ended before.
func (p *Provider) pause(ctx context.Context) bool {
	timer := time.NewTimer(50*time.Millisecond + rand.N(200*time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
