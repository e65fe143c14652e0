package fcm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/consumers/push/fcm/simulator"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// logBuffer is written by a provider's goroutines and read by a test.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// fixture is a provider with a simulator; both have the same clock, which a test can put forward.
type fixture struct {
	*Provider
	t     *testing.T
	fcm   *simulator.Simulator
	ahead atomic.Int64
	logs  logBuffer
}

func (f *fixture) now() time.Time          { return time.Now().Add(time.Duration(f.ahead.Load())) }
func (f *fixture) forward(d time.Duration) { f.ahead.Add(int64(d)) }
func (f *fixture) asked() (n int64) {
	c := f.fcm.Counts()
	return c.Accepted + c.Unanswered + sum(c.Refused)
}
func (f *fixture) send(token string) (r push.Result) { return f.Send(f.t.Context(), f.push(token)) }

func sum(counts map[string]int64) (n int64) {
	for _, c := range counts {
		n += c
	}
	return n
}

func (f *fixture) push(token string) *whisperv1.Push {
	p := pushOf("120.50 EGP at Café Riche")
	p.Token, p.ExpiresAtMs = token, f.now().Add(time.Hour).UnixMilli()
	return p
}

func setup(t *testing.T, sim simulator.Config, change func(*Config)) *fixture {
	t.Helper()
	f := &fixture{t: t}
	sim.Now = f.now
	var err error
	if f.fcm, err = simulator.Start(t.Context(), sim); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.fcm.Close)
	cfg := Config{
		CredentialsJSON: f.fcm.Credentials(), BaseURL: f.fcm.URL(), RootCAs: f.fcm.RootCAs(), Metrics: metrics.NewSet(),
		Logger: slog.New(slog.NewTextHandler(&f.logs, nil)), Now: f.now, RequestTimeout: time.Minute,
	}
	if change != nil {
		change(&cfg)
	}
	if f.Provider, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func TestAPushArrives(t *testing.T) {
	t.Parallel()
	f := setup(t, simulator.Config{}, nil)
	r := f.send("phone")
	got := f.fcm.Received()
	if !r.Sent() || r.Status != 200 || len(got) != 1 || got[0].Name != r.ProviderID || got[0].Token != "phone" || r.Reason != "" {
		t.Fatalf("got %+v, received %+v", r, got)
	}
	back := f.push("phone")
	back.Content, back.Retract = nil, true
	if r := f.Retract(t.Context(), back); !r.Sent() {
		t.Fatalf("got %+v", r)
	}
	if got := f.fcm.Received(); !bytes.Contains(got[1].Body, []byte(`"retracted":"true"`)) || bytes.Contains(got[1].Body, []byte("notification\":")) {
		t.Errorf("got %s", got[1].Body)
	}
	if f.Ready() != nil || f.logs.count("level") != 0 {
		t.Errorf("ready: %v, log: %s", f.Ready(), f.logs.b.String())
	}
}

func TestReactions(t *testing.T) {
	t.Parallel()
	f := setup(t, simulator.Config{}, func(c *Config) { c.RequestTimeout = 2 * time.Second })
	page, empty, inside := "<html>hotel wifi</html>", "", `{"error":{"code":503,"status":"UNAVAILABLE"}}`
	for name, a := range map[string]simulator.Answer{
		"page": {Body: &page}, "empty": {Body: &empty}, "inside": {Body: &inside},
		"page502": {Status: 502, Body: &page}, "half404": {Status: 404, Fault: simulator.Half}, "later": {Status: 503, RetryAfter: "77"},
		"teapot": {Status: 418, Code: "TEAPOT", Message: "short"}, "field": {Status: 400, Code: "INVALID_ARGUMENT", Field: "message.android.ttl"},
	} {
		f.fcm.Program(name, 0, a)
	}
	for token, c := range map[string]struct {
		class  whisperv1.FailureClass
		reason string
		status int
		least  time.Duration
	}{
		"gone-1":    {prune, "UNREGISTERED", 404, 0},
		"bad-1":     {prune, "INVALID_ARGUMENT", 400, 0},
		"foreign-1": {prune, "SENDER_ID_MISMATCH", 403, 0},
		"apple-1":   {stop, "THIRD_PARTY_AUTH_ERROR", 401, 5 * time.Minute},
		"busy-1":    {retry, "DEVICE_QUOTA_EXCEEDED", 429, 30 * time.Second},
		"error-1":   {retry, "INTERNAL", 500, 10 * time.Second},
		"down-1":    {retry, "UNAVAILABLE", 503, 20 * time.Second},
		"later":     {retry, "UNAVAILABLE", 503, 77 * time.Second},
		"goaway-1":  {accepted, "", 200, 0},
		"half-1":    {accepted, "", 200, 0},
		"half404":   {retry, "half_an_answer", 404, 5 * time.Second},
		"dead-1":    {unknown, "no_answer", 0, 0},
		"cut-1":     {unknown, "no_answer", 0, 0},
		"page":      {retry, "not_an_answer", 200, time.Minute},
		"empty":     {retry, "not_an_answer", 200, time.Minute},
		"inside":    {retry, "not_an_answer", 200, time.Minute},
		"page502":   {retry, "no_reason", 502, 10 * time.Second},
		"teapot":    {retry, "TEAPOT", 418, time.Minute},
		"field":     {drop, "INVALID_ARGUMENT", 400, 0},
		"a/b":       {prune, "malformed_token", 0, 0},
	} {
		r := f.send(token)
		if r.Class != c.class || r.Reason != c.reason || r.Status != c.status || r.RetryAfter < c.least || c.least == 0 && r.RetryAfter != 0 {
			t.Errorf("%s: got %+v, want %+v", token, r, c)
		}
		if r.Bug != (token == "field") {
			t.Errorf("%s: a dead letter: %t", token, r.Bug)
		}
	}
	if n := f.watch.Unclassified.Get(); n != 5 {
		t.Errorf("%d answers that the table does not know, want 5: page, empty, inside, page502, teapot", n)
	}
}

func TestAnExpiredAccessTokenIsReplacedOnce(t *testing.T) {
	t.Parallel()
	f := setup(t, simulator.Config{}, nil)
	if r := f.send("phone"); !r.Sent() {
		t.Fatalf("got %+v", r)
	}
	f.forward(2 * time.Minute)
	f.fcm.Revoke()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if r := f.send("phone"); !r.Sent() {
				t.Errorf("got %+v", r)
			}
		})
	}
	all.Wait()
	if n := f.fcm.Counts().Tokens; n != 2 {
		t.Errorf("%d access tokens were made", n)
	}
}

func TestAProjectThatIsRefusedIsStopped(t *testing.T) {
	t.Parallel()
	for name, a := range map[string]simulator.Answer{
		"401 again and again": {Status: 401}, "403": {Status: 403}, "404": {Status: 404},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, simulator.Config{}, nil)
			f.send("phone")
			f.forward(2 * time.Minute) // the access token is old enough to be replaced
			f.fcm.Program("", 0, a)
			before, most := f.asked(), int64(1)
			if a.Status == 401 {
				most = 2
			}
			if r := f.send("phone"); r.Class != stop || r.RetryAfter < 4*time.Minute || r.Status != a.Status {
				t.Fatalf("got %+v", r)
			}
			for range 10 {
				if r := f.send("phone"); r.Class != stop || !strings.HasPrefix(r.Reason, "stopped:") {
					t.Fatalf("got %+v", r)
				}
			}
			if n := f.asked() - before; n != most {
				t.Errorf("FCM was asked %d times, want %d", n, most)
			}
			if f.Ready() == nil || f.logs.count("refuses the credential") != 1 {
				t.Errorf("ready: %v", f.Ready())
			}
			f.fcm.Forget("")
			f.forward(6 * time.Minute)
			if r := f.send("phone"); !r.Sent() || f.Ready() != nil {
				t.Errorf("after it was mended: %+v, %v", r, f.Ready())
			}
		})
	}
}

func TestTheQuotaOfAProjectStopsAllOfIt(t *testing.T) {
	t.Parallel()
	f := setup(t, simulator.Config{Quota: 3}, nil)
	for range 3 {
		if r := f.send("phone"); !r.Sent() {
			t.Fatalf("got %+v", r)
		}
	}
	if r := f.send("phone"); r.Class != retry || r.Reason != "QUOTA_EXCEEDED" || r.RetryAfter < 50*time.Second {
		t.Fatalf("got %+v", r)
	}
	before := f.asked()
	for range 10 {
		if r := f.send("other"); r.Class != retry || r.Reason != "quota" || r.RetryAfter < 45*time.Second {
			t.Fatalf("got %+v", r)
		}
	}
	if f.asked() != before {
		t.Error("FCM was asked while the quota was used up")
	}
	f.forward(62 * time.Second)
	if r := f.send("phone"); !r.Sent() {
		t.Errorf("a minute later: %+v", r)
	}
}

func TestTheQuotaOfADeviceStopsItAlone(t *testing.T) {
	t.Parallel()
	f := setup(t, simulator.Config{DeviceQuota: 1}, nil)
	f.send("busy")
	if r := f.send("busy"); r.Class != retry || r.Reason != "DEVICE_QUOTA_EXCEEDED" {
		t.Fatalf("got %+v", r)
	}
	before := f.asked()
	if r := f.send("busy"); r.Class != retry || r.Reason != "device_quota" || r.RetryAfter < 30*time.Second || f.asked() != before {
		t.Fatalf("got %+v", r)
	}
	if r := f.send("other"); !r.Sent() {
		t.Fatalf("got %+v", r)
	}
	f.forward(2 * time.Minute)
	if r := f.send("busy"); !r.Sent() {
		t.Errorf("later: %+v", r)
	}
}

func TestASpikeOfDeadTokensPrunesNobody(t *testing.T) {
	t.Parallel()
	f := setup(t, simulator.Config{}, nil)
	pruned := 0
	for i := range 100 {
		if r := f.send(fmt.Sprintf("gone-%d", i)); r.Class == prune {
			pruned++
		} else if r.Class != drop || r.Reason != "UNREGISTERED" {
			t.Fatalf("got %+v", r)
		}
	}
	if pruned > 10 || f.logs.count("none is forgotten") != 1 {
		t.Errorf("%d were pruned", pruned)
	}
}

func TestAProviderThatIsDownIsLeftAlone(t *testing.T) {
	t.Parallel()
	f := setup(t, simulator.Config{}, nil)
	f.fcm.Program("", 0, simulator.Answer{Status: 503})
	for range 20 {
		if r := f.send("phone"); r.Class != retry || r.Reason != "UNAVAILABLE" || r.RetryAfter < 10*time.Second {
			t.Fatalf("got %+v", r)
		}
	}
	before := f.asked()
	for range 10 {
		if r := f.send("phone"); r.Class != retry || r.Reason != "breaker:UNAVAILABLE" {
			t.Fatalf("got %+v", r)
		}
	}
	if f.asked() != before || f.Ready() != nil {
		t.Errorf("asked %d more times, ready: %v", f.asked()-before, f.Ready())
	}
	f.fcm.Forget("")
	f.forward(31 * time.Second)
	if r := f.send("phone"); !r.Sent() {
		t.Errorf("got %+v", r)
	}
}

func TestWithoutAnAccessToken(t *testing.T) {
	t.Parallel()
	t.Run("the account is refused", func(t *testing.T) {
		t.Parallel()
		f := setup(t, simulator.Config{}, nil)
		f.fcm.ProgramTokens(0, simulator.Answer{Status: 400})
		if r := f.send("phone"); r.Class != stop || r.Reason != "invalid_grant" || r.Status != 0 {
			t.Fatalf("got %+v", r)
		}
		if err := f.Ready(); err == nil || !strings.Contains(err.Error(), "invalid_grant") {
			t.Errorf("ready: %v", err)
		}
	})
	nothing := ""
	for name, a := range map[string]simulator.Answer{
		"the endpoint is down": {Status: 503}, "it is cut": {Fault: simulator.Cut}, "it says nothing": {Body: &nothing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, simulator.Config{}, nil)
			f.fcm.ProgramTokens(1, a)
			if r := f.send("phone"); r.Class != retry || r.Reason != "no_access_token" || r.RetryAfter < 10*time.Second {
				t.Fatalf("got %+v", r)
			}
			f.forward(10 * time.Second)
			if r := f.send("phone"); !r.Sent() {
				t.Errorf("got %+v", r)
			}
		})
	}
}

// change is the credentials with a field changed.
func change(t *testing.T, text []byte, name, value string) []byte {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	all[name] = value
	changed, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func TestAFileThatBecomesBadIsToldAndTheKeyBeforeStays(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "account.json")
	f := setup(t, simulator.Config{}, func(c *Config) {
		if err := os.WriteFile(file, c.CredentialsJSON, 0o600); err != nil {
			t.Fatal(err)
		}
		c.CredentialsFile, c.CredentialsJSON = file, nil
	})
	for name, text := range map[string][]byte{
		"not JSON": []byte("{"), "another project's": change(t, f.fcm.Credentials(), "project_id", "another"),
		"another kind": change(t, f.fcm.Credentials(), "type", "authorized_user"),
	} {
		before := f.logs.count("the key before stays")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		f.forward(2 * time.Minute)
		f.fcm.Revoke()
		if r := f.send("phone"); !r.Sent() {
			t.Errorf("%s: got %+v", name, r)
		}
		if f.logs.count("the key before stays") != before+1 {
			t.Errorf("%s: nobody was told", name)
		}
	}
	// A good one is taken: its account is not the simulator's, so that shows.
	if err := os.WriteFile(file, change(t, f.fcm.Credentials(), "client_email", "new@example.com"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.forward(2 * time.Minute)
	f.fcm.Revoke()
	if r := f.send("phone"); r.Class != stop || r.Reason != "invalid_grant" {
		t.Errorf("with the new account: %+v", r)
	}
	if f.logs.count("PRIVATE KEY") != 0 {
		t.Error("the log has the key")
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	s, err := simulator.Start(t.Context(), simulator.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	good := s.Credentials()
	for name, c := range map[string]struct {
		cfg  Config
		want []string
	}{
		"good":              {Config{CredentialsJSON: good}, nil},
		"no file":           {Config{}, []string{"fcm-credentials-file: give the path"}},
		"both":              {Config{CredentialsFile: "x", CredentialsJSON: good}, []string{"not both"}},
		"a missing file":    {Config{CredentialsFile: "/nowhere/account.json"}, []string{"fcm-credentials-file: open /nowhere/account.json"}},
		"no JSON":           {Config{CredentialsJSON: []byte("-----BEGIN")}, []string{"not a service account's key: it is not JSON"}},
		"an app's file":     {Config{CredentialsJSON: []byte(`{"project_info":{}}`)}, []string{"google-services.json"}},
		"an OAuth client":   {Config{CredentialsJSON: []byte(`{"installed":{}}`)}, []string{"OAuth client"}},
		"a person's":        {Config{CredentialsJSON: change(t, good, "type", "authorized_user")}, []string{`its type is "authorized_user"`}},
		"nothing in it":     {Config{CredentialsJSON: []byte(`{"type":"service_account"}`)}, []string{"project_id is missing", "client_email is missing", "token_uri is missing", "private_key: it is missing"}},
		"half a key":        {Config{CredentialsJSON: change(t, good, "private_key", "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n")}, []string{"private_key: it can't be read"}},
		"a key on a curve":  {Config{CredentialsJSON: change(t, good, "private_key", ecKey)}, []string{"it is not an RSA key"}},
		"a plain token_uri": {Config{CredentialsJSON: change(t, good, "token_uri", "http://example.com/token")}, []string{"token_uri is not an https address"}},
		"64 KiB":            {Config{CredentialsJSON: bytes.Repeat([]byte(" "), 65<<10)}, []string{"the file has 66560 bytes"}},
		"a bad project":     {Config{CredentialsJSON: good, Project: "a/b"}, []string{`fcm-project: "a/b" is not a project's id`}},
		"all the rest": {
			Config{
				CredentialsJSON: good, BaseURL: "http://x", RootCAFile: "/nowhere", PerMinute: 1, Connections: 51, Streams: -1, RequestTimeout: -1,
				Rest: -1, BreakerRest: -1, Format: Format{Target: "topic", DataCategories: []string{""}, ChannelID: strings.Repeat("x", 300)},
			},
			[]string{
				"fcm-url", "fcm-ca-file", "fcm-per-minute", "fcm-connections", "fcm-streams", "fcm-request-timeout", "fcm-rest", "fcm-breaker-rest",
				"fcm-target: unknown \"topic\": token or fid", "fcm-data-categories", "fcm-channel-id",
			},
		},
		"in a file of apps": {Config{CredentialsJSON: good, Credential: "bank", PerMinute: 1}, []string{"per_minute: 1 is not between"}},
	} {
		err := c.cfg.Validate()
		if (err == nil) != (c.want == nil) {
			t.Errorf("%s: got %v", name, err)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, without %s", name, err, want)
			}
		}
		if err != nil && strings.Contains(err.Error(), "MII") {
			t.Errorf("%s: the error has the key", name)
		}
	}
}

// ecKey is made for this test and opens nothing.
const ecKey = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2
OF/2NxApJCzGCEDdfSp6VQO30hyhRANCAAQRWz+jn65BtOMvdyHKcvjBeBSDZH2r
1RTwjmYSi9R/zpBnuQ4EiMnCqfMPWiZqB4QdbAd0E7oH50VpuZ1P087G
-----END PRIVATE KEY-----
`

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	f := setup(t, simulator.Config{Latency: 20 * time.Millisecond}, func(c *Config) { c.Connections, c.Streams = 2, 10 })
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			if r := f.send("phone"); !r.Sent() {
				t.Errorf("got %+v", r)
			}
		})
	}
	all.Wait()
	// One more is the token endpoint's.
	if n := f.fcm.Counts(); n.Connections > 3 || n.Accepted != 200 || n.Tokens != 1 {
		t.Errorf("got %+v", n)
	}
}

func TestSendEndsWithItsContext(t *testing.T) {
	t.Parallel()
	f := setup(t, simulator.Config{}, nil)
	f.send("phone")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan push.Result)
	go func() { done <- f.Send(ctx, f.push("dead-1")) }()
	cancel()
	if r := <-done; r.Sent() {
		t.Errorf("got %+v", r)
	}
}
