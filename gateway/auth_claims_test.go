package gateway

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func TestClaims(t *testing.T) {
	t.Parallel()
	now := time.Now()
	at := func(d time.Duration) *jwt.NumericDate { return jwt.NewNumericDate(now.Add(d)) }
	v, err := newVerifier(AuthConfig{
		HMACSecret: secret, Audiences: []string{"whisper", "alerts"}, Issuer: "https://login.example.com",
	}, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	good := jwt.RegisteredClaims{
		Subject: "mona", Audience: []string{"other", "alerts"}, Issuer: "https://login.example.com",
		ExpiresAt: at(time.Hour),
	}
	for name, c := range map[string]struct {
		change func(*jwt.RegisteredClaims)
		err    error
	}{
		"good":                     {func(*jwt.RegisteredClaims) {}, nil},
		"another audience":         {func(c *jwt.RegisteredClaims) { c.Audience = []string{"other"} }, errBadToken},
		"no audience":              {func(c *jwt.RegisteredClaims) { c.Audience = nil }, errBadToken},
		"an empty audience":        {func(c *jwt.RegisteredClaims) { c.Audience = []string{""} }, errBadToken},
		"another issuer":           {func(c *jwt.RegisteredClaims) { c.Issuer = "https://login.example.com.evil.com" }, errBadToken},
		"no issuer":                {func(c *jwt.RegisteredClaims) { c.Issuer = "" }, errBadToken},
		"no exp":                   {func(c *jwt.RegisteredClaims) { c.ExpiresAt = nil }, errBadToken},
		"expired within leeway":    {func(c *jwt.RegisteredClaims) { c.ExpiresAt = at(-9 * time.Second) }, nil},
		"expired":                  {func(c *jwt.RegisteredClaims) { c.ExpiresAt = at(-11 * time.Second) }, errTokenExpired},
		"not before, within":       {func(c *jwt.RegisteredClaims) { c.NotBefore = at(9 * time.Second) }, nil},
		"not before":               {func(c *jwt.RegisteredClaims) { c.NotBefore = at(15 * time.Second) }, errBadToken},
		"issued in the future":     {func(c *jwt.RegisteredClaims) { c.IssuedAt = at(15 * time.Second) }, errBadToken},
		"a clock a little ahead":   {func(c *jwt.RegisteredClaims) { c.IssuedAt = at(9 * time.Second) }, nil},
		"expired, wrong audience":  {func(c *jwt.RegisteredClaims) { c.ExpiresAt, c.Audience = at(-time.Hour), nil }, errTokenExpired},
		"a user that can't be one": {func(c *jwt.RegisteredClaims) { c.Subject = "mona\x00omar" }, errBadToken},
	} {
		claims := good
		c.change(&claims)
		g, err := v.verify(t.Context(), sign(t, jwt.SigningMethodHS256, secret, claims))
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", name, err, c.err)
		}
		if err == nil && g.until.Sub(g.expires) != AuthDefaults().Leeway {
			t.Errorf("%s: the session ends %s after the token", name, g.until.Sub(g.expires))
		}
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	of := func(n int) []byte { return []byte(strings.Repeat("s", n)) }
	for _, c := range []struct {
		cfg    AuthConfig
		method jwt.SigningMethod
		key    []byte
		ok     bool
	}{
		{AuthConfig{HMACSecret: of(32)}, jwt.SigningMethodHS256, of(32), true},
		{AuthConfig{HMACSecret: of(47)}, jwt.SigningMethodHS384, of(47), false}, // shorter than the hash
		{AuthConfig{HMACSecret: of(48)}, jwt.SigningMethodHS384, of(48), true},
		{AuthConfig{HMACSecret: of(64)}, jwt.SigningMethodHS512, of(64), true},
		{AuthConfig{HMACSecret: of(64), Algorithms: []string{"HS256"}}, jwt.SigningMethodHS512, of(64), false},
		{AuthConfig{HMACSecret: of(32), PreviousHMACSecret: of(40)}, jwt.SigningMethodHS256, of(40), true},
		{AuthConfig{HMACSecret: of(32), PreviousHMACSecret: of(40)}, jwt.SigningMethodHS256, of(32), true},
		{AuthConfig{HMACSecret: of(32)}, jwt.SigningMethodHS256, of(40), false},
	} {
		v, err := newVerifier(c.cfg, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.check(sign(t, c.method, c.key, claims("mona", time.Hour))); (err == nil) != c.ok {
			t.Errorf("%s with %d bytes: %v", c.method.Alg(), len(c.key), err)
		}
	}
	for want, cfg := range map[string]AuthConfig{
		"auth-secret-previous: has only 3 bytes":            {HMACSecret: of(32), PreviousHMACSecret: of(3)},
		"auth-secret-previous: needs auth-secret":           {PreviousHMACSecret: of(32), PublicKeys: []byte(" ")},
		`auth-algorithms: no key is for "RS256": give such`: {HMACSecret: of(32), Algorithms: []string{"RS256"}},
		"auth-audience: is empty":                           {HMACSecret: of(32), Audiences: []string{""}},
		"auth-leeway: 1h0m0s is too long: give at most":     {HMACSecret: of(32), Leeway: time.Hour},
		"auth-jwks-refresh: -1s is negative":                {JWKS: "https://idp.example.com/keys", JWKSRefresh: -time.Second},
		"auth-secret, auth-public-keys, auth-jwks: give at": {Issuer: "x"},
	} {
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func (n *node) tokenOf(user, sid string, issued time.Time, ttl time.Duration) string {
	n.t.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, tokenClaims{
		jwt.RegisteredClaims{Subject: user, IssuedAt: jwt.NewNumericDate(issued), ExpiresAt: jwt.NewNumericDate(n.clock.now().Add(ttl))}, sid,
	}).SignedString(secret)
	if err != nil {
		n.t.Fatal(err)
	}
	return token
}

func (c *client) refresh(token string) { c.write(`{"type":"refresh","token":"` + token + `"}`) }

func TestARefreshExtendsTheSession(t *testing.T) {
	t.Parallel()
	n := setup(t)
	c := n.dial("", bearer(n.token("mona", time.Minute)))
	c.frame()
	expires := n.clock.now().Add(time.Hour).Truncate(time.Second)
	c.refresh(n.token("mona", time.Hour))
	f := c.frame()
	at, err := time.Parse(time.RFC3339, f["expires_at"].(string))
	if f["type"] != "refreshed" || err != nil || at.Before(expires) || at.After(expires.Add(2*time.Second)) {
		t.Errorf("got %v, want expires_at %s", f, expires)
	}
	n.clock.advance(30 * time.Minute)
	n.timekeeper.tick(n.clock.now().UnixNano())
	n.broker.put(0, route(n, "mona", "a"))
	c.wantNotification("a")
	n.clock.advance(31 * time.Minute)
	n.timekeeper.tick(n.clock.now().UnixNano())
	c.wantClose(closeExpired)
}

func TestABadRefreshChangesNothing(t *testing.T) {
	t.Parallel()
	n := setup(t)
	c := n.dial("", bearer(n.token("mona", time.Minute)))
	c.frame()
	for name, frame := range map[string]string{
		"another user":    `{"type":"refresh","token":"` + n.token("omar", time.Hour) + `"}`,
		"expired":         `{"type":"refresh","token":"` + n.token("mona", time.Second) + `"}`,
		"forged":          `{"type":"refresh","token":"` + sign(t, jwt.SigningMethodHS256, []byte("another secret of thirty-two bytes.."), claims("mona", time.Hour)) + `"}`,
		"without a token": `{"type":"refresh"}`,
		"an empty token":  `{"type":"refresh","token":""}`,
		"a number":        `{"type":"refresh","token":7}`,
		"an object":       `{"type":"refresh","token":{}}`,
	} {
		if name == "expired" {
			n.clock.advance(15 * time.Second)
		}
		c.write(frame)
		f := c.frame()
		if text, _ := f["message"].(string); f["type"] != "error" || f["code"] != codeBadToken || text == "" || strings.Contains(text, "eyJ") {
			t.Errorf("%s: got %v", name, f)
		}
	}
	n.clock.advance(2 * time.Minute)
	n.timekeeper.tick(n.clock.now().UnixNano())
	c.wantClose(closeExpired)
}

func TestATokenOfAThousandYearsRefreshes(t *testing.T) {
	t.Parallel()
	n := setup(t)
	c := n.connect("mona")
	c.refresh(sign(t, jwt.SigningMethodHS256, secret, jwt.RegisteredClaims{
		Subject:   "mona",
		ExpiresAt: jwt.NewNumericDate(time.Date(30026, 1, 1, 0, 0, 0, 0, time.UTC)),
	}))
	if f := c.frame(); f["type"] != "refreshed" {
		t.Errorf("got %v", f)
	}
}

// A refresh by a key that is too new waits for the key set without holding up the session.
func TestARefreshByANewKey(t *testing.T) {
	t.Parallel()
	first, second, stranger := newKey(t, "1", "EdDSA"), newKey(t, "2", "EdDSA"), newKey(t, "x", "EdDSA")
	p := newProvider(t, first)
	n := setup(t, withJWKS(p.url))
	c := n.dial("", bearer(tokenBy(t, first, "1", claims("mona", time.Minute))))
	c.frame()
	p.publish(second)
	n.clock.advance(renewPause)
	c.refresh(tokenBy(t, second, "2", claims("mona", time.Hour)))
	if f := c.frame(); f["type"] != "refreshed" {
		t.Errorf("got %v", f)
	}
	c.refresh(tokenBy(t, stranger, "x", claims("mona", time.Hour)))
	c.wantError(codeBadToken)
}

// A ping that waits for its pong when the token is refreshed still has all its time.
func TestARefreshDoesNotCutAPingShort(t *testing.T) {
	t.Parallel()
	n := setup(t)
	c := n.dial("", bearer(n.token("mona", n.cfg.PingInterval+time.Second)))
	c.session = c.frame()["session"].(string)
	s := n.session(c)
	n.clock.advance(n.cfg.PingInterval)
	n.timekeeper.tick(n.clock.now().UnixNano())
	if !s.renew(grant{user: "mona", until: n.clock.now().Add(time.Hour)}) {
		t.Fatal("the session is closing")
	}
	n.clock.advance(n.cfg.PongTimeout / 2)
	n.timekeeper.tick(n.clock.now().UnixNano())
	if s.deaf() || n.connections.Load() != 1 {
		t.Error("the session was cut off")
	}
	n.broker.put(0, route(n, "mona", "a"))
	c.wantNotification("a")
}

// logBuffer collects everything that is logged, from any goroutine.
type logBuffer struct {
	lines chan string
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.lines <- string(p)
	return len(p), nil
}

func TestTokensAreNeverLogged(t *testing.T) {
	t.Parallel()
	logs := &logBuffer{lines: make(chan string, 10_000)}
	first, second := newKey(t, "1", "EdDSA"), newKey(t, "2", "EdDSA")
	p := newProvider(t, first)
	n := setup(t, withJWKS(p.url), func(c *Config, _ *fakeBroker) {
		c.Auth.HMACSecret = secret
		c.Logger = slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	tokens := []string{
		n.token("mona", time.Hour),
		sign(t, jwt.SigningMethodHS256, secret, claims("mona", -time.Hour)),
		tokenBy(t, first, "1", claims("mona", time.Hour)),
		tokenBy(t, second, "2", claims("mona", time.Hour)),
		sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims("mona", time.Hour)),
		sign(t, jwt.SigningMethodHS256, []byte("another secret of thirty-two bytes.."), claims("mona", time.Hour)),
		"garbage-that-is-no-token",
	}
	p.say(500, "down")
	n.clock.advance(renewPause)
	for _, token := range tokens {
		c := n.dial("", bearer(token))
		_, _, _ = c.ReadMessage()
		c.Close()
		_ = get(t, n, bearer(token))
	}
	c := n.connect("mona")
	for _, token := range tokens {
		c.refresh(token)
		c.frame()
	}
	c.write(`{"type":"` + tokens[0] + `"}`)
	c.frame()
	c.write(tokens[0])
	c.wantClose(closeBadFrame)
	raw := dialRaw(t, n.Addr().String())
	raw.send([]byte("GET /v1/socket?token=" + tokens[0] + " HTTP/1.1\r\nAuthorization: Bearer " + tokens[0] + "\r\nbroken\r\n\r\n"))
	raw.toEnd()
	n.stop()
	<-n.ended
	var all bytes.Buffer
	for len(logs.lines) > 0 {
		all.WriteString(<-logs.lines)
	}
	if !strings.Contains(all.String(), "gateway is ready") || !strings.Contains(all.String(), "key set can't be read") {
		t.Fatalf("nothing was captured: %s", &all)
	}
	for _, token := range tokens {
		for part := range strings.SplitSeq(token, ".") {
			if len(part) > 8 && strings.Contains(all.String(), part) {
				t.Errorf("%q is in the logs: %s", part, &all)
			}
		}
	}
	if strings.Contains(all.String(), string(secret)) {
		t.Error("the secret is in the logs")
	}
}
