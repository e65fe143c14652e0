package simulator_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/klivvr/whisper/consumers/push/apns/simulator"
)

const (
	keyID, teamID = "KEY1234567", "TEAM123456"
	device        = "00ff00ff"
	apnsID        = "123e4567-e89b-12d3-a456-426655440000"
)

type fixture struct {
	*simulator.Simulator
	t      *testing.T
	key    *ecdsa.PrivateKey
	client *http.Client
	now    time.Time
}

func setup(t *testing.T, change ...func(*simulator.Config)) *fixture {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, key: key, now: time.Now()}
	cfg := simulator.Config{Key: &key.PublicKey, KeyID: keyID, TeamID: teamID}
	for _, c := range change {
		c(&cfg)
	}
	if f.Simulator, err = simulator.Start(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	transport := f.transport()
	t.Cleanup(transport.CloseIdleConnections)
	f.client = &http.Client{Transport: transport, Timeout: 20 * time.Second}
	return f
}

func (f *fixture) transport() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	return &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{RootCAs: f.RootCAs(), MinVersion: tls.VersionTLS12}}
}

func (f *fixture) token(issued time.Time, kid, iss string, key *ecdsa.PrivateKey) string {
	f.t.Helper()
	tok := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": iss, "iat": issued.Unix()})
	tok.Header["kid"] = kid
	s, err := tok.SignedString(key)
	if err != nil {
		f.t.Fatal(err)
	}
	return "bearer " + s
}

// request is one that APNs takes; tests break it.
func (f *fixture) request(token, payload string) *http.Request {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), http.MethodPost, f.URL()+"/3/device/"+token, strings.NewReader(payload))
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header = http.Header{
		"Apns-Topic": {"com.klivvr.app"}, "Apns-Push-Type": {"alert"}, "Apns-Id": {apnsID},
		"Authorization": {f.token(f.now, keyID, teamID, f.key)},
	}
	return req
}

type reply struct {
	status    int
	header    http.Header
	body      string
	Reason    string `json:"reason"`
	Timestamp int64  `json:"timestamp"`
}

func (f *fixture) do(req *http.Request) reply {
	f.t.Helper()
	resp, err := f.client.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	r := reply{status: resp.StatusCode, header: resp.Header, body: string(b)}
	_ = json.Unmarshal(b, &r) // some bodies are not JSON, on purpose
	return r
}

const payload = `{"aps":{"alert":"hello"}}`

func TestAcceptsAndRemembers(t *testing.T) {
	t.Parallel()
	f := setup(t, func(c *simulator.Config) { c.Remember = 2 })
	seen := make(chan simulator.Received, 10)
	defer f.Watch(func(r simulator.Received) { seen <- r })()
	for _, id := range []string{"a1", "a2", "a3"} {
		req := f.request(id, payload)
		req.Header.Set("apns-priority", "5")
		req.Header.Set("apns-expiration", "1790000000")
		req.Header.Set("apns-collapse-id", "c")
		if r := f.do(req); r.status != 200 || r.body != "" || r.header.Get("apns-id") != apnsID {
			t.Fatalf("got %+v", r)
		}
	}
	got := f.Received()
	if len(got) != 2 || got[0].Token != "a2" || got[1].Token != "a3" {
		t.Fatalf("remembers %+v", got)
	}
	r := got[1]
	if r.Priority != 5 || r.Expiration != 1790000000 || r.CollapseID != "c" || r.Topic != "com.klivvr.app" || string(r.Payload) != payload {
		t.Errorf("got %+v", r)
	}
	if len(seen) != 3 || f.Counts().Accepted != 3 {
		t.Errorf("watched %d, counted %d", len(seen), f.Counts().Accepted)
	}
	req := f.request("a4", payload)
	req.Header.Del("apns-id")
	if r := f.do(req); len(r.header.Get("apns-id")) != 36 {
		t.Errorf("made the id %q", r.header.Get("apns-id"))
	}
}

func TestRefusesWhatAppleRefuses(t *testing.T) {
	t.Parallel()
	other, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	set := func(name, value string) func(*fixture, *http.Request) {
		return func(_ *fixture, r *http.Request) { r.Header.Set(name, value) }
	}
	body := func(n int) func(*fixture, *http.Request) {
		return func(_ *fixture, r *http.Request) {
			s := `{"aps":"` + strings.Repeat("x", n-len(`{"aps":""}`)) + `"}`
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(s)), int64(len(s))
		}
	}
	background := func(body string) func(*fixture, *http.Request) {
		return func(_ *fixture, r *http.Request) {
			r.Header.Set("apns-push-type", "background")
			r.Header.Set("apns-priority", "5")
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		}
	}
	for name, c := range map[string]struct {
		change func(*fixture, *http.Request)
		status int
		reason string
	}{
		"method":         {func(_ *fixture, r *http.Request) { r.Method = http.MethodPut }, 405, "MethodNotAllowed"},
		"path":           {func(_ *fixture, r *http.Request) { r.URL.Path = "/2/device/" + device }, 404, "BadPath"},
		"deep path":      {func(_ *fixture, r *http.Request) { r.URL.Path += "/x" }, 404, "BadPath"},
		"no device":      {func(_ *fixture, r *http.Request) { r.URL.Path = "/3/device/" }, 400, "MissingDeviceToken"},
		"odd device":     {func(_ *fixture, r *http.Request) { r.URL.Path = "/3/device/a.b" }, 400, "BadDeviceToken"},
		"no token":       {func(_ *fixture, r *http.Request) { r.Header.Del("authorization") }, 403, "MissingProviderToken"},
		"basic auth":     {set("authorization", "Basic abc"), 403, "InvalidProviderToken"},
		"no JWT":         {set("authorization", "bearer abc"), 403, "InvalidProviderToken"},
		"another key":    {func(f *fixture, r *http.Request) { r.Header.Set("authorization", f.token(f.now, keyID, teamID, other)) }, 403, "InvalidProviderToken"},
		"another key id": {func(f *fixture, r *http.Request) { r.Header.Set("authorization", f.token(f.now, "K", teamID, f.key)) }, 403, "InvalidProviderToken"},
		"another team":   {func(f *fixture, r *http.Request) { r.Header.Set("authorization", f.token(f.now, keyID, "T", f.key)) }, 403, "InvalidProviderToken"},
		"an old token": {func(f *fixture, r *http.Request) {
			r.Header.Set("authorization", f.token(f.now.Add(-61*time.Minute), keyID, teamID, f.key))
		}, 403, "ExpiredProviderToken"},
		"a future token": {func(f *fixture, r *http.Request) {
			r.Header.Set("authorization", f.token(f.now.Add(10*time.Minute), keyID, teamID, f.key))
		}, 403, "InvalidProviderToken"},
		"two topics":        {func(_ *fixture, r *http.Request) { r.Header["Apns-Topic"] = []string{"a", "b"} }, 400, "DuplicateHeaders"},
		"no topic":          {func(_ *fixture, r *http.Request) { r.Header.Del("apns-topic") }, 400, "MissingTopic"},
		"another topic":     {set("apns-topic", "com.other"), 400, "TopicDisallowed"},
		"apns-id":           {set("apns-id", "123"), 400, "BadMessageId"},
		"expiration":        {set("apns-expiration", "tomorrow"), 400, "BadExpirationDate"},
		"priority":          {set("apns-priority", "7"), 400, "BadPriority"},
		"push type":         {set("apns-push-type", "loud"), 400, "InvalidPushType"},
		"no push type":      {func(_ *fixture, r *http.Request) { r.Header.Del("apns-push-type") }, 400, "InvalidPushType"},
		"background at 10":  {func(_ *fixture, r *http.Request) { r.Header.Set("apns-push-type", "background") }, 400, "BadPriority"},
		"in the background": {background(`{"aps":{"content-available":1},"id":"x"}`), 200, ""},
		"nothing for it":    {background(`{"aps":{},"id":"x"}`), 400, "InvalidPushType"},
		"no object":         {background(`[1]`), 400, "InvalidPushType"},
		"it would show":     {background(`{"aps":{"content-available":1,"alert":{"body":"b"}}}`), 400, "InvalidPushType"},
		"it would sound":    {background(`{"aps":{"content-available":1,"sound":"default"}}`), 400, "InvalidPushType"},
		"collapse id":       {set("apns-collapse-id", strings.Repeat("c", 65)), 400, "BadCollapseId"},
		"4097 bytes":        {body(4097), 413, "PayloadTooLarge"},
		"20,000 bytes":      {body(20_000), 413, "PayloadTooLarge"},
		"4096 bytes":        {body(4096), 200, ""},
		"collapse id of 64": {set("apns-collapse-id", strings.Repeat("c", 64)), 200, ""},
		"no payload":        {func(_ *fixture, r *http.Request) { r.Body, r.ContentLength = nil, 0 }, 400, "PayloadEmpty"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, func(c *simulator.Config) { c.Topics = []string{"com.klivvr.app"} })
			req := f.request(device, payload)
			c.change(f, req)
			if r := f.do(req); r.status != c.status || r.Reason != c.reason {
				t.Errorf("got %+v", r)
			}
			if c.reason != "" && f.Counts().Refused[c.reason] != 1 {
				t.Errorf("counted %+v", f.Counts())
			}
		})
	}
}

func TestTooManyProviderTokens(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for _, c := range []struct {
		age    time.Duration
		status int
	}{{30 * time.Minute, 200}, {15 * time.Minute, 429}, {30 * time.Minute, 200}, {9 * time.Minute, 200}} {
		req := f.request(device, payload)
		req.Header.Set("authorization", f.token(f.now.Add(-c.age), keyID, teamID, f.key))
		if r := f.do(req); r.status != c.status {
			t.Errorf("a token of %s: %+v", c.age, r)
		}
	}
}

func TestProgramsAndPrefixes(t *testing.T) {
	t.Parallel()
	f := setup(t)
	at := time.UnixMilli(1_790_000_000_123)
	f.Program(device, 2, simulator.Answer{Status: 410, Reason: "Unregistered", Timestamp: at})
	f.Program(device, 1, simulator.Answer{Status: 502, Body: []byte("<html>"), RetryAfter: "7"})
	for i, want := range []struct {
		status int
		body   string
	}{
		{410, `{"reason":"Unregistered","timestamp":1790000000123}`},
		{410, `{"reason":"Unregistered","timestamp":1790000000123}`},
		{502, "<html>"},
		{200, ""},
	} {
		if r := f.do(f.request(device, payload)); r.status != want.status || r.body != want.body {
			t.Errorf("push %d: %+v", i, r)
		}
	}
	for token, reason := range map[string]string{
		"bad-1": "BadDeviceToken", "foreign-1": "DeviceTokenNotForTopic", "gone-1": "Unregistered", "expired-1": "ExpiredToken",
		"busy-1": "TooManyRequests", "error-1": "InternalServerError", "down-1": "ServiceUnavailable", "good-1": "", "badly": "",
	} {
		if r := f.do(f.request(token, payload)); r.Reason != reason {
			t.Errorf("%s: %+v", token, r)
		}
	}
	f.Program("", 0, simulator.Answer{Status: 503, Reason: "Shutdown"})
	f.do(f.request("any", payload))
	if r := f.do(f.request("any", payload)); r.status != 503 {
		t.Errorf("got %+v", r)
	}
	f.Forget("")
	if r := f.do(f.request("any", payload)); r.status != 200 {
		t.Errorf("got %+v", r)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]simulator.Fault{
		"silent": simulator.Silent, "cut": simulator.Cut, "reset": simulator.Reset,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			f.Program(device, 1, simulator.Answer{Fault: fault})
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			req := f.request(device, payload).WithContext(ctx)
			req.GetBody = nil // or the client tries again by itself
			resp, err := f.client.Do(req)
			if err == nil {
				_ = resp.Body.Close() // there should be none
				t.Fatalf("answered %d", resp.StatusCode)
			}
			if r := f.do(f.request(device, payload)); r.status != 200 {
				t.Errorf("the next one: %+v", r)
			}
			if f.Counts().Unanswered != 1 {
				t.Errorf("counted %+v", f.Counts())
			}
		})
	}
	t.Run("goaway after the answer", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		f.Program(device, 1, simulator.Answer{Fault: simulator.GoAwayAfter})
		for range 2 {
			if r := f.do(f.request(device, payload)); r.status != 200 {
				t.Fatalf("got %+v", r)
			}
		}
		if f.Counts().Connections != 2 {
			t.Errorf("counted %+v", f.Counts())
		}
	})
}

// TestOneStreamUntilTrusted looks at what is allowed before and after the first valid request.
func TestOneStreamUntilTrusted(t *testing.T) {
	t.Parallel()
	f := setup(t)
	cc, err := f.transport().NewClientConn(t.Context(), "https", f.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	// net/http takes 100 until it has read the settings.
	for cc.Available() != 1 {
		runtime.Gosched()
	}
	resp, err := cc.RoundTrip(f.request(device, payload))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close() // it is empty
	for cc.Available() != 1000 {
		runtime.Gosched()
	}
}

func TestKeepsWhatOtherProcessesNeed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, key := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "key.p8")
	files := func(c *simulator.Config) { c.CAFile, c.KeyFile, c.Hosts = ca, key, []string{"apns-simulator"} }
	f := setup(t, files)
	if b, err := os.ReadFile(ca); err != nil || string(b) != string(f.CAPEM()) {
		t.Errorf("%v", err)
	}
	if r := f.do(f.request(device, payload)); r.Reason != "InvalidProviderToken" {
		t.Errorf("the key is not the file's: %+v", r)
	}
	first, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	setup(t, files)
	if second, err := os.ReadFile(key); err != nil || string(first) != string(second) {
		t.Errorf("a restart changed the key: %v", err)
	}
	if err := os.WriteFile(key, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := simulator.Start(t.Context(), simulator.Config{KeyFile: key}); err == nil {
		s.Close()
		t.Error("took a file that is no key")
	}
}

func TestAddressInUse(t *testing.T) {
	t.Parallel()
	f := setup(t)
	if s, err := simulator.Start(t.Context(), simulator.Config{Addr: f.Addr()}); err == nil {
		s.Close()
		t.Error("two on one address")
	}
}
