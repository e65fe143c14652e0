package apns

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/consumers/push/apns/simulator"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// clock is a time that a test moves.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// logs keeps log lines.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), text)
}

type fixture struct {
	*Provider
	sim   *simulator.Simulator
	clock *clock
	logs  *logs
	set   *metrics.Set
}

func setup(t testing.TB, change ...func(*Config, *simulator.Config)) *fixture {
	t.Helper()
	f := &fixture{clock: &clock{}, logs: &logs{}, set: metrics.NewSet()}
	key, p8 := newKey(t)
	cfg := Config{
		KeyPEM: p8, KeyID: "KEY1234567", TeamID: "TEAM123456", RequestTimeout: 5 * time.Second,
		Logger: slog.New(slog.NewTextHandler(f.logs, nil)), Metrics: f.set, Now: f.clock.now,
	}
	sim := simulator.Config{Key: &key.PublicKey, KeyID: "KEY1234567", TeamID: "TEAM123456", Now: f.clock.now}
	for _, c := range change {
		c(&cfg, &sim)
	}
	var err error
	if f.sim, err = simulator.Start(t.Context(), sim); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.sim.Close)
	if cfg.BaseURL == "" {
		cfg.BaseURL, cfg.RootCAs = f.sim.URL(), f.sim.RootCAs()
	}
	if f.Provider, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

var deliveries atomic.Uint32

func attemptTo(token string) *whisperv1.Push {
	p := pushOf("120.50 EGP")
	p.Token = token
	id := sha256.Sum256(fmt.Append(nil, deliveries.Add(1)))
	p.DeliveryId = id[:16]
	return p
}

// device is a token as Apple makes them.
func device(n int) string {
	sum := sha256.Sum256(fmt.Append(nil, n))
	return hex.EncodeToString(sum[:])
}

func (f *fixture) send(t *testing.T, token string) push.Result {
	t.Helper()
	return f.Send(t.Context(), attemptTo(token))
}

func (f *fixture) counter(name string) uint64 { return f.set.GetOrCreateCounter(name).Get() }

func TestSendAsksAsAppleWants(t *testing.T) {
	t.Parallel()
	f := setup(t)
	p := attemptTo(device(1))
	p.ExpiresAtMs = f.clock.now().Add(time.Hour).UnixMilli()
	p.CollapseKey = "card-4417"
	r := f.Send(t.Context(), p)
	if !r.Sent() || r.Status != 200 || r.ProviderID != apnsID(p.DeliveryId, 1) || r.Reason != "" {
		t.Fatalf("got %+v", r)
	}
	got := f.sim.Received()[0]
	if got.Topic != "com.klivvr.app" || got.CollapseID != "card-4417" || got.PushType != "alert" || got.Priority != 10 ||
		got.Expiration != p.ExpiresAtMs/1000 || got.ApnsID != r.ProviderID || got.Token != p.Token {
		t.Errorf("got %+v", got)
	}
	want, _ := encodePayload(p, "default")
	if !bytes.Equal(got.Payload, want) {
		t.Errorf("got %s\nwant %s", got.Payload, want)
	}
}

func TestRequestHeaders(t *testing.T) {
	t.Parallel()
	cfg := Config{Topic: "com.klivvr.app"}
	p := attemptTo(device(1))
	p.App, p.Lane, p.CollapseKey = "", whisperv1.Lane_LANE_LOW, strings.Repeat("k", 65)
	n, err := cfg.request(p)
	if err != nil {
		t.Fatal(err)
	}
	if n.Topic != "com.klivvr.app" || n.Priority != 5 || len(n.CollapseID) != 64 || !n.Expiration.IsZero() {
		t.Errorf("got %+v", n)
	}
	p.CollapseKey = ""
	if n, _ = cfg.request(p); n.CollapseID != p.NotificationId {
		t.Errorf("collapse id %q", n.CollapseID)
	}
	p.NotificationId = "دفع-1"
	if n, _ = cfg.request(p); len(n.CollapseID) != 64 {
		t.Errorf("collapse id %q", n.CollapseID)
	}
	again, _ := cfg.request(p)
	p.Attempt = 2
	second, _ := cfg.request(p)
	if again.ApnsID != n.ApnsID || second.ApnsID == n.ApnsID {
		t.Error("the apns-id does not follow the attempt")
	}
}

// TestEveryAnswer has APNs give each answer for good, and looks at the result of one attempt.
func TestEveryAnswer(t *testing.T) {
	t.Parallel()
	for key, want := range verdicts {
		t.Run(fmt.Sprint(key.status, key.reason), func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			since := time.UnixMilli(1_790_000_000_123)
			f.sim.Program("", 0, simulator.Answer{Status: key.status, Reason: key.reason, Timestamp: since})
			r := f.send(t, device(1))
			if r.Class != want.Class || r.Status != key.status || r.Reason != key.reason || r.Bug != (want.Then == DeadLetter) {
				t.Fatalf("got %+v, want %+v", r, want)
			}
			if r.Class == retry && r.RetryAfter != want.After || r.Class == stop && r.RetryAfter != 5*time.Minute {
				t.Errorf("retry after %s", r.RetryAfter)
			}
			if key.status == 410 && !r.InvalidSince.Equal(since) {
				t.Errorf("invalid since %s, want %s", r.InvalidSince, since)
			}
			if r.ProviderID == "" {
				t.Error("the apns-id is missing")
			}
			if stopped := want.Class == stop && want.Then != StopTopic; stopped != (f.Ready() != nil) {
				t.Errorf("ready: %v", f.Ready())
			}
			if f.counter(`whisper_push_unclassified_total{provider="apns"}`) != 0 {
				t.Error("counted as unclassified")
			}
		})
	}
}

func TestAnswersOutsideTheTable(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer simulator.Answer
		class  whisperv1.FailureClass
		reason string
	}{
		"a new reason":         {simulator.Answer{Status: 400, Reason: "Surprise"}, drop, "Surprise"},
		"a page of a proxy":    {simulator.Answer{Status: 502, Body: []byte("<html>bad gateway</html>")}, retry, "no_reason"},
		"an unknown status":    {simulator.Answer{Status: 418, Body: []byte("teapot")}, retry, "no_reason"},
		"a reason with a text": {simulator.Answer{Status: 400, Body: []byte(`{"reason":"a long\nstory"}`)}, drop, "malformed_reason"},
		"another shape":        {simulator.Answer{Status: 410, Body: []byte(`["Unregistered"]`)}, prune, "no_reason"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			f.sim.Program("", 1, c.answer)
			r := f.send(t, device(1))
			if r.Class != c.class || r.Reason != c.reason || r.Status != c.answer.Status {
				t.Errorf("got %+v", r)
			}
			if f.counter(`whisper_push_unclassified_total{provider="apns"}`) != 1 || !f.logs.has("the table does not know") {
				t.Error("nobody hears of it")
			}
		})
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.sim.Program("", 1, simulator.Answer{Status: 429, Reason: "TooManyRequests", RetryAfter: "300"})
	if r := f.send(t, device(1)); r.RetryAfter != 5*time.Minute {
		t.Errorf("got %+v", r)
	}
	if r := f.send(t, device(2)); !r.Sent() {
		t.Errorf("another device waits too: %+v", r)
	}
}

// TestSecondTry: what a second try at once can mend, is mended, with the same apns-id.
func TestSecondTry(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]simulator.Answer{
		"idle timeout":        {Status: 400, Reason: "IdleTimeout"},
		"unrelated key":       {Status: 403, Reason: "UnrelatedKeyIdInToken"},
		"token updates":       {Status: 429, Reason: "TooManyProviderTokenUpdates"},
		"cut":                 {Fault: simulator.Cut},
		"reset":               {Fault: simulator.Reset},
		"refused stream":      {Fault: simulator.Refuse},
		"goaway before":       {Fault: simulator.GoAwayBefore},
		"silence":             {Fault: simulator.Silent},
		"goaway with answer":  {Fault: simulator.GoAwayAfter},
		"slow, but an answer": {Delay: 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, func(c *Config, _ *simulator.Config) { c.RequestTimeout = time.Second })
			f.sim.Program("", 1, first)
			p := attemptTo(device(1))
			r := f.Send(t.Context(), p)
			if !r.Sent() || r.ProviderID != apnsID(p.DeliveryId, 1) {
				t.Fatalf("got %+v", r)
			}
			if r := f.send(t, device(2)); !r.Sent() {
				t.Errorf("the next one: %+v", r)
			}
		})
	}
}

func TestNoAnswerTwice(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer simulator.Answer
		class  whisperv1.FailureClass
		after  time.Duration
	}{
		"silence":        {simulator.Answer{Fault: simulator.Silent}, unknown, 0},
		"cut":            {simulator.Answer{Fault: simulator.Cut}, unknown, 0},
		"reset":          {simulator.Answer{Fault: simulator.Reset}, unknown, 0},
		"refused stream": {simulator.Answer{Fault: simulator.Refuse}, retry, reconnectDelay},
		"goaway before":  {simulator.Answer{Fault: simulator.GoAwayBefore}, retry, reconnectDelay},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timeout := time.Minute
			if c.answer.Fault == simulator.Silent {
				timeout = 3 * time.Second // which both tries wait for
			}
			f := setup(t, func(c *Config, _ *simulator.Config) { c.RequestTimeout = timeout })
			f.sim.Program("", 0, c.answer)
			r := f.send(t, device(1))
			if r.Class != c.class || r.RetryAfter != c.after || r.Reason != "no_answer" || r.Status != 0 {
				t.Errorf("got %+v", r)
			}
			if f.sim.Counts().Unanswered != 2 {
				t.Errorf("%d tries", f.sim.Counts().Unanswered)
			}
		})
	}
}

func TestServerIsDown(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.sim.Close()
	r := f.send(t, device(1))
	if r.Class != retry || r.Reason != "no_connection" || r.RetryAfter != reconnectDelay {
		t.Errorf("got %+v", r)
	}
	if f.Ready() != nil {
		t.Error("a provider that is away makes the role unready")
	}
}

func TestSecondTryNotPastExpiry(t *testing.T) {
	t.Parallel()
	f := setup(t, func(c *Config, _ *simulator.Config) { c.RequestTimeout = 300 * time.Millisecond })
	f.sim.Program("", 0, simulator.Answer{Fault: simulator.Silent})
	p := attemptTo(device(1))
	p.ExpiresAtMs = f.clock.now().Add(200 * time.Millisecond).UnixMilli()
	if r := f.Send(t.Context(), p); r.Class != unknown || f.sim.Counts().Unanswered > 1 {
		t.Errorf("got %+v after %d tries", r, f.sim.Counts().Unanswered)
	}
}

func TestUnaskable(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for name, c := range map[string]struct {
		change func(*whisperv1.Push)
		class  whisperv1.FailureClass
		reason string
	}{
		"a token that is a path": {func(p *whisperv1.Push) { p.Token = "../../3/device/00" }, prune, "malformed_token"},
		"no token":               {func(p *whisperv1.Push) { p.Token = "" }, prune, "malformed_token"},
		"no app":                 {func(p *whisperv1.Push) { p.App = "" }, drop, "no_topic"},
		"an app of two lines":    {func(p *whisperv1.Push) { p.App = "a\r\nb" }, drop, "malformed_topic"},
		"bad data":               {func(p *whisperv1.Push) { p.Content.Data = []byte("{") }, drop, "malformed_data"},
		"a title of 5 KB":        {func(p *whisperv1.Push) { p.Content.Title = strings.Repeat("t", 5000) }, drop, "payload_too_large"},
	} {
		p := attemptTo(device(1))
		c.change(p)
		if r := f.Send(t.Context(), p); r.Class != c.class || r.Reason != c.reason || r.Bug != (c.class == drop) {
			t.Errorf("%s: got %+v", name, r)
		}
	}
	if c := f.sim.Counts(); c.Connections != 0 {
		t.Error("APNs was asked")
	}
}

func TestNothingSecretIsLogged(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.sim.Program(device(1), 1, simulator.Answer{Status: 400, Reason: "Surprise"})
	f.sim.Program(device(1), 1, simulator.Answer{Status: 403, Reason: "Forbidden"})
	f.send(t, device(1))
	f.send(t, device(1))
	if f.logs.has(device(1)) || f.logs.has("120.50") || f.logs.has("bearer") || !f.logs.has("refuses the credential") {
		t.Error("logged what it must not, or nothing")
	}
}

func TestValidateNamesEverything(t *testing.T) {
	t.Parallel()
	err := Config{KeyFile: "/nowhere/key.p8", Environment: "staging", Topic: "two words", Connections: 99, Streams: -1, RequestTimeout: -1, RootCAFile: "/nowhere/ca.pem"}.Validate()
	if err == nil {
		t.Fatal("taken")
	}
	for _, name := range []string{"apns-key-file", "apns-key-id", "apns-team-id", "apns-topic", "apns-environment", "apns-connections", "apns-streams", "apns-request-timeout", "apns-ca-file"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named in:\n%v", name, err)
		}
	}
	_, p8 := newKey(t)
	if err := (Config{KeyPEM: p8, KeyID: "K", TeamID: "T"}).Validate(); err != nil {
		t.Error(err)
	}
	if err := (Config{KeyPEM: p8, KeyID: "K", TeamID: "T", BaseURL: "http://127.0.0.1:1"}).Validate(); err == nil || !strings.Contains(err.Error(), "apns-url") {
		t.Errorf("plain http: %v", err)
	}
}
