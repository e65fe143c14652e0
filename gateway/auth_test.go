package gateway

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/gorilla/websocket"
)

func claims(user string, ttl time.Duration) jwt.RegisteredClaims {
	return jwt.RegisteredClaims{Subject: user, ExpiresAt: jwt.NewNumericDate(time.Now().Add(ttl))}
}

func sign(t *testing.T, method jwt.SigningMethod, key any, c jwt.Claims) string {
	t.Helper()
	token, err := jwt.NewWithClaims(method, c).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestBadTokensGetTheirOwnCloseCode(t *testing.T) {
	t.Parallel()
	n := setup(t)
	good := n.token("mona", time.Hour)
	for name, c := range map[string]struct {
		token string
		code  int
	}{
		"missing":          {"", closeUnauthorized},
		"garbage":          {"not.a.token", closeUnauthorized},
		"wrong signature":  {sign(t, jwt.SigningMethodHS256, []byte("another secret of thirty-two bytes.."), claims("mona", time.Hour)), closeUnauthorized},
		"tampered":         {good[:len(good)-4] + "AAAA", closeUnauthorized},
		"alg none":         {sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims("mona", time.Hour)), closeUnauthorized},
		"without exp":      {sign(t, jwt.SigningMethodHS256, secret, jwt.RegisteredClaims{Subject: "mona"}), closeUnauthorized},
		"without sub":      {sign(t, jwt.SigningMethodHS256, secret, claims("", time.Hour)), closeUnauthorized},
		"sub of 129 bytes": {sign(t, jwt.SigningMethodHS256, secret, claims(strings.Repeat("x", 129), time.Hour)), closeUnauthorized},
		"sub with a NUL":   {sign(t, jwt.SigningMethodHS256, secret, claims("mona\x00n1", time.Hour)), closeUnauthorized},
		"expired":          {sign(t, jwt.SigningMethodHS256, secret, claims("mona", -time.Minute)), closeExpired},
		"expired, forged":  {sign(t, jwt.SigningMethodHS256, []byte("another secret of thirty-two bytes.."), claims("mona", -time.Minute)), closeUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			header := http.Header{}
			if c.token != "" {
				header = bearer(c.token)
			}
			if reason := n.dial("", header).wantClose(c.code); reason == "" || strings.Contains(reason, "eyJ") {
				t.Errorf("the reason is %q", reason)
			}
			resp := get(t, n, header)
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("without an upgrade: HTTP %d, want 401", resp.StatusCode)
			}
		})
	}
	if resp := get(t, n, bearer(good)); resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("a good token without an upgrade: HTTP %d, want 426", resp.StatusCode)
	}
	if len(n.broker.presences(t)) > 0 {
		t.Error("a refused socket made presence")
	}
}

func get(t *testing.T, n *node, header http.Header) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http"+strings.TrimPrefix(n.url, "ws"), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); len(body) < 10 {
		t.Errorf("the body %q is no sentence", body)
	}
	return resp
}

func TestATokenOfAThousandYearsIsAccepted(t *testing.T) {
	t.Parallel()
	n := setup(t)
	exp := jwt.NewNumericDate(time.Date(3026, 1, 1, 0, 0, 0, 0, time.UTC)) // over what 64 bits of nanoseconds hold
	c := n.dial("", bearer(sign(t, jwt.SigningMethodHS256, secret, jwt.RegisteredClaims{Subject: "mona", ExpiresAt: exp})))
	if f := c.frame(); f["type"] != "welcome" {
		t.Fatalf("got %v", f)
	}
	n.timekeeper.tick(n.clock.now().UnixNano())
	n.broker.put(0, route(n, "mona", "a"))
	c.wantNotification("a")
}

func TestBrowsersSendTheTokenAsASubprotocol(t *testing.T) {
	t.Parallel()
	n := setup(t)
	dialer := websocket.Dialer{Subprotocols: []string{"whisper.v1", "bearer." + n.token("mona", time.Hour)}}
	conn, _, err := dialer.Dial(n.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if conn.Subprotocol() != "whisper.v1" {
		t.Errorf("subprotocol %q, want whisper.v1", conn.Subprotocol())
	}
	if f := (&client{Conn: conn, t: t}).frame(); f["type"] != "welcome" || f["ping_seconds"] != 25.0 {
		t.Errorf("got %v", f)
	}
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	strict := setup(t)
	listed := setup(t, func(c *Config, _ *fakeBroker) { c.Origins = []string{"https://app.example.com"} })
	open := setup(t, func(c *Config, _ *fakeBroker) { c.Origins = []string{"*"} })
	for _, c := range []struct {
		n      *node
		origin string
		ok     bool
	}{
		{strict, "http://" + strict.Addr().String(), true},
		{strict, "https://evil.example.com", false},
		{listed, "https://app.example.com", true},
		{listed, "https://app.example.com.evil.com", false},
		{open, "https://evil.example.com", true},
	} {
		header := bearer(c.n.token("mona", time.Hour))
		header.Set("Origin", c.origin)
		conn, resp, err := websocket.DefaultDialer.Dial(c.n.url, header)
		if err == nil {
			conn.Close()
		}
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.origin, err)
		}
		if err != nil && resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: HTTP %d, want 403", c.origin, resp.StatusCode)
		}
	}
}

func publicPEM(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func TestPublicKeys(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edPublic, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edPublic2, edKey2, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var keys []byte
	for _, k := range []any{&rsaKey.PublicKey, &ecKey.PublicKey, edPublic, edPublic2} {
		keys = append(keys, publicPEM(t, k)...)
	}
	v, err := newVerifier(AuthConfig{PublicKeys: keys}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method jwt.SigningMethod
		key    any
		ok     bool
	}{
		{jwt.SigningMethodRS256, rsaKey, true},
		{jwt.SigningMethodES256, ecKey, true},
		{jwt.SigningMethodEdDSA, edKey, true},
		{jwt.SigningMethodEdDSA, edKey2, true},
		{jwt.SigningMethodRS512, rsaKey, false},
		{jwt.SigningMethodPS256, rsaKey, false},
		// The old confusion: the public key taken for an HMAC secret.
		{jwt.SigningMethodHS256, publicPEM(t, &rsaKey.PublicKey), false},
		{jwt.SigningMethodHS256, []byte{}, false},
	} {
		got, err := v.verify(t.Context(), sign(t, c.method, c.key, claims("mona", time.Hour)))
		if (err == nil) != c.ok || c.ok && got.user != "mona" {
			t.Errorf("%s: user %q, error %v", c.method.Alg(), got.user, err)
		}
	}
}

func TestAuthConfigNamesEveryProblem(t *testing.T) {
	t.Parallel()
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		cfg  AuthConfig
		want string
	}{
		{AuthConfig{}, "auth-secret, auth-public-keys, auth-jwks: give at least one"},
		{AuthConfig{HMACSecret: []byte("short")}, "has only 5 bytes: give at least 32"},
		{AuthConfig{PublicKeys: []byte("no pem")}, "block 1 is not PEM"},
		{AuthConfig{PublicKeys: publicPEM(t, &small.PublicKey)}, "1024 bits is too short"},
	} {
		if err := c.cfg.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}
