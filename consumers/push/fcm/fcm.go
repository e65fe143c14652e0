// Package fcm hands attempts to Google's push service, Firebase Cloud Messaging, by its HTTP v1 API: messages, access
// tokens, pacing, and what its answers mean. [Classify] is the table of answers; this file acts on it.
//
// It must not wait, except for its turn in the project's rate and for one second try (dispatch waits, by the class and the
// delay of a [push.Result]), must not talk to Kafka, and must not log a registration token or a text.
//
// One Provider is one project. Each lane has its own connections, at most Config.Connections with Config.Streams requests
// each: by default 500 in flight in a lane, which at 50 ms an answer is the whole of a project's quota.
package fcm

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/consumers/push/bearer"
	"github.com/klivvr/whisper/consumers/push/guard"
	"github.com/klivvr/whisper/consumers/push/h2"
	"github.com/klivvr/whisper/consumers/push/observe"
	"github.com/klivvr/whisper/consumers/push/pace"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// Channel is the name of the channel, and of the provider.
const Channel = "fcm"

// Provider implements [push.Provider].
type Provider struct {
	cfg     resolved
	log     *slog.Logger
	now     func() time.Time
	send    *url.URL // messages:send of the project
	watch   *observe.Watch
	guard   *guard.Guard
	pools   [len(domain.Lanes)]*h2.Pool
	tokens  *bearer.Cache
	pacer   *pace.Pacer
	line    line
	devices pace.Keys // devices whose own quota is used up
	told    atomic.Int64
}

var (
	_ push.Provider  = (*Provider)(nil)
	_ push.Retracter = (*Provider)(nil)
)

// New makes a provider. It connects, and gets an access token, at its first attempt. The caller closes it.
func New(cfg Config) (*Provider, error) {
	r, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	p := &Provider{
		cfg: *r, log: r.Logger, now: r.Now, watch: observe.New(r.Metrics, Channel, r.Credential),
		send: &url.URL{Scheme: r.base.Scheme, Host: r.base.Host, Path: "/v1/projects/" + r.Project + "/messages:send"},
	}
	p.guard = guard.New(guard.Config{
		Provider: Channel, Scope: "platform", Key: r.Project, Rest: r.Rest, BreakerRest: r.BreakerRest,
		Log: r.Logger, Watch: p.watch, Now: r.Now,
	})
	secure := &tls.Config{RootCAs: r.roots, MinVersion: tls.VersionTLS12}
	for i := range p.pools {
		p.pools[i] = h2.New(h2.Config{
			Base: r.base, TLS: secure, Connections: r.Connections, Streams: r.Streams, ConnectTimeout: r.RequestTimeout,
			Watch: p.watch, Now: r.Now,
		})
	}
	p.tokens = bearer.New(bearer.Config{
		Mint: r.minter(secure).mint, Timeout: r.RequestTimeout, Now: r.Now,
		OnError: func(err error) {
			p.log.Error("no access token for fcm could be had", "project", r.Project, "error", err)
		},
	})
	p.pacer = pace.New(pace.Config{PerSecond: float64(r.PerMinute) / 60, Ramp: ramp, MaxWait: maxTurn, Now: r.Now})
	p.line.pacer = p.pacer
	return p, nil
}

// Channel implements push.Provider.
func (p *Provider) Channel() string { return Channel }

// Name implements push.Provider.
func (p *Provider) Name() string { return Channel }

// Ready returns an error while the project's credential is refused. All other trouble passes without help.
func (p *Provider) Ready() error {
	if why := p.guard.Stopped(); why != "" {
		return fmt.Errorf("fcm: the service account of the project %s is refused (%s): check its key, and that it may send messages", p.cfg.Project, why)
	}
	return nil
}

// Close closes all connections. Tries in flight end without an answer.
func (p *Provider) Close() {
	for _, pool := range p.pools {
		pool.Close()
	}
	p.guard.Close()
}

// Send implements push.Provider: one attempt, of at most two tries.
func (p *Provider) Send(ctx context.Context, attempt *whisperv1.Push) push.Result {
	now := p.now()
	body, err := p.cfg.Format.Body(attempt, now)
	if err != nil {
		return p.unaskable(err)
	}
	message := &request{attempt: attempt, body: body, at: now}
	if left := p.devices.Left(attempt.GetToken(), now); left > 0 {
		return push.Result{Class: retry, Reason: "device_quota", RetryAfter: spread(left)}
	}
	pass, refused := p.guard.Enter("")
	if refused != nil {
		return *refused
	}
	lane := domain.LaneOf(attempt.GetLane())
	t, refused := p.try(ctx, lane, message)
	if refused == nil && t.again(p) {
		// What comes of the second try counts, and where there is none, nobody knows what would have.
		p.pause(ctx)
		p.watch.SecondTries.Inc()
		var second *try
		if second, refused = p.try(ctx, lane, message); refused == nil {
			t = second
		}
	}
	if ctx.Err() != nil { // the caller gave up, which says nothing about FCM
		p.guard.Abandon(&pass)
		return push.Result{Class: unknown, Reason: "abandoned"}
	}
	if refused != nil {
		p.guard.Abandon(&pass)
		return *refused
	}
	return p.settle(t, attempt, &pass)
}

// Retract implements push.Retracter by a data message: the app takes the notification away.
func (p *Provider) Retract(ctx context.Context, attempt *whisperv1.Push) push.Result {
	return p.Send(ctx, attempt) // the body tells them apart
}

// unaskable returns the result of an attempt that FCM would certainly refuse.
func (p *Provider) unaskable(err error) push.Result {
	reason := refusal(err)
	if errors.Is(err, errMalformedToken) {
		return push.Result{Class: p.guard.Suspect(prune, reason), Reason: reason}
	}
	return push.Result{Class: drop, Reason: reason, Bug: true}
}

// try is one request and what became of it.
type try struct {
	answer
	token   *bearer.Token
	after   time.Duration // of a Retry-After
	noToken bool
	missed  *h2.NoAnswer
	lane    domain.Lane
}

// request is an attempt with its body, whose time to live is that of the time it was made at.
type request struct {
	attempt *whisperv1.Push
	body    []byte
	at      time.Time
}

// renew makes the body anew where the wait for a turn has made its time to live too long. A result instead says that the attempt
// has expired meanwhile.
func (p *Provider) renew(m *request) *push.Result {
	now := p.now()
	if expired := push.Expired(m.attempt, now); expired != nil {
		return expired
	}
	if now.Sub(m.at) < time.Second {
		return nil
	}
	body, err := p.cfg.Format.Body(m.attempt, now)
	if err != nil { // it could be made before
		refused := p.unaskable(err)
		return &refused
	}
	m.body, m.at = body, now
	return nil
}

// try makes one request when its turn comes. A result instead of it says that the turn is too far away, or came too late.
func (p *Provider) try(ctx context.Context, lane domain.Lane, m *request) (*try, *push.Result) {
	if expired := push.Expired(m.attempt, p.now()); expired != nil { // it must not take a turn
		return nil, expired
	}
	refused, paced := p.line.turn(ctx, lane)
	if paced {
		p.watch.Paced.Inc()
	}
	if refused == nil {
		refused = p.renew(m)
	}
	if refused != nil {
		return nil, refused
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.RequestTimeout)
	defer cancel()
	token, err := p.tokens.Get(ctx)
	if err != nil {
		return &try{lane: lane, answer: unsigned(err), noToken: true}, nil
	}
	t := &try{lane: lane, token: token}
	req := (&http.Request{
		Method: http.MethodPost, URL: p.send, Host: p.send.Host,
		Header:        http.Header{"Authorization": {"Bearer " + token.Value}, "Content-Type": {"application/json; charset=utf-8"}},
		Body:          io.NopCloser(bytes.NewReader(m.body)),
		ContentLength: int64(len(m.body)),
	}).WithContext(ctx)
	reply, err := p.pools[lane].Do(req)
	if err != nil {
		errors.As(err, &t.missed) // Do returns nothing else
		t.verdict, t.reason = ClassifyNoAnswer(t.missed.Arrived), "no_answer"
		if t.missed.Conn == nil {
			t.reason = "no_connection"
		}
		return t, nil
	}
	t.answer = readAnswer(reply.Status, reply.Body, reply.Cut, m.attempt.GetAttempt())
	t.after = pace.RetryAfter(reply.Header, p.now())
	return t, nil
}

// unsigned is the answer to an attempt without an access token. If Google refuses the account, nothing can be sent; all
// else passes.
func unsigned(err error) answer {
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) && refused.Response != nil && refused.Response.StatusCode/100 == 4 &&
		refused.Response.StatusCode != http.StatusTooManyRequests {
		var said struct {
			Error string `json:"error"`
		}
		reason := "access_token_refused"
		if json.Unmarshal(refused.Body, &said) == nil && said.Error != "" {
			reason = said.Error
		}
		return answer{reason: reason, verdict: Verdict{Class: stop, Then: StopProject, Listed: true}}
	}
	if errors.Is(err, errAccount) {
		return answer{reason: "bad_credentials", verdict: Verdict{Class: stop, Then: StopProject, Listed: true}}
	}
	return answer{reason: "no_access_token", verdict: Verdict{Class: retry, Then: Trip, After: serverDelay, Listed: true}}
}

// again says whether to try once more at once: with a new access token, or on another connection where FCM did not look at the
// request.
func (t *try) again(p *Provider) bool {
	if t.missed != nil {
		if t.missed.Conn == nil {
			return false
		}
		p.pools[t.lane].Discard(t.missed.Conn)
		return !t.missed.Arrived
	}
	return t.verdict.Then == Refresh && t.token != nil && p.tokens.Refuse(t.token)
}

// pause spreads second tries.
func (p *Provider) pause(ctx context.Context) {
	timer := time.NewTimer(20*time.Millisecond + rand.N(100*time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
