package gateway

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
)

// provider is an identity provider: it signs tokens and publishes its keys, for as long as it is well.
type provider struct {
	t       testing.TB
	url     string
	fetches atomic.Int64
	answer  atomic.Pointer[func(http.ResponseWriter)]
}

func newProvider(t testing.TB, keys ...jose.JSONWebKey) *provider {
	t.Helper()
	p := &provider{t: t}
	p.publish(keys...)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.fetches.Add(1)
		(*p.answer.Load())(w)
	}))
	t.Cleanup(server.Close)
	p.url = server.URL + "/.well-known/jwks.json"
	return p
}

func (p *provider) publish(keys ...jose.JSONWebKey) {
	p.say(http.StatusOK, string(keySetJSON(p.t, keys...)))
}

func (p *provider) say(status int, body string) {
	f := func(w http.ResponseWriter) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
	p.answer.Store(&f)
}

func keySetJSON(t testing.TB, keys ...jose.JSONWebKey) []byte {
	t.Helper()
	public := jose.JSONWebKeySet{}
	for _, k := range keys {
		if signer, ok := k.Key.(crypto.Signer); ok {
			k.Key = signer.Public()
		}
		public.Keys = append(public.Keys, k)
	}
	b, err := json.Marshal(public)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// newKey makes a private key for one of keyAlgorithms.
func newKey(t testing.TB, kid, alg string) jose.JSONWebKey {
	t.Helper()
	var key any
	var err error
	switch alg {
	case "RS256":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return jose.JSONWebKey{Key: key, KeyID: kid, Algorithm: alg, Use: "sig"}
}

// tokenBy signs as the holder of a key would, a name of it in the header.
func tokenBy(t testing.TB, key jose.JSONWebKey, kid string, c jwt.Claims) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.GetSigningMethod(key.Algorithm), c)
	if kid != "" {
		token.Header["kid"] = kid
	}
	signed, err := token.SignedString(key.Key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func withJWKS(source string) func(*Config, *fakeBroker) {
	return func(c *Config, _ *fakeBroker) { c.Auth = AuthConfig{JWKS: source} }
}

func TestKeySetOfAnIdentityProvider(t *testing.T) {
	t.Parallel()
	rs, es, ed := newKey(t, "rs", "RS256"), newKey(t, "es", "ES256"), newKey(t, "ed", "EdDSA")
	forged := newKey(t, "ed", "EdDSA")
	encrypts := newKey(t, "enc", "ES256")
	encrypts.Use = "enc"
	p := newProvider(t, rs, es, ed, encrypts)
	// Keys of kinds that are not ours, and one that is broken, cost the others nothing.
	set := strings.Replace(string(keySetJSON(t, rs, es, ed, encrypts)), `"keys":[`, `"keys":[{"kty":"AKP","alg":"ML-DSA-65","pub":"AAAA","kid":"pq"},
		{"kty":"oct","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY","kid":"secret"},{"kty":"EC","crv":"P-256","x":"AA","y":"AA","kid":"broken"},7,`, 1)
	p.say(http.StatusOK, set)
	n := setup(t, withJWKS(p.url))
	if got := n.verifier.jwks.count(); got != 3 {
		t.Errorf("%d keys, want 3", got)
	}
	hmac := jwt.NewWithClaims(jwt.SigningMethodHS256, claims("mona", time.Hour))
	hmac.Header["kid"] = "secret"
	symmetric, err := hmac.SignedString([]byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		token string
		err   error
	}{
		"RS256":                  {tokenBy(t, rs, "rs", claims("mona", time.Hour)), nil},
		"ES256":                  {tokenBy(t, es, "es", claims("mona", time.Hour)), nil},
		"EdDSA":                  {tokenBy(t, ed, "ed", claims("mona", time.Hour)), nil},
		"without a kid":          {tokenBy(t, es, "", claims("mona", time.Hour)), nil},
		"another key's kid":      {tokenBy(t, es, "rs", claims("mona", time.Hour)), errBadToken},
		"forged":                 {tokenBy(t, forged, "ed", claims("mona", time.Hour)), errBadToken},
		"forged without a kid":   {tokenBy(t, forged, "", claims("mona", time.Hour)), errBadToken},
		"a key that encrypts":    {tokenBy(t, encrypts, "enc", claims("mona", time.Hour)), errBadToken},
		"a secret in the set":    {symmetric, errBadToken},
		"expired":                {tokenBy(t, ed, "ed", claims("mona", -time.Hour)), errTokenExpired},
		"expired and forged":     {tokenBy(t, forged, "ed", claims("mona", -time.Hour)), errBadToken},
		"none with the kid":      {tokenBy(t, jose.JSONWebKey{Key: jwt.UnsafeAllowNoneSignatureType, Algorithm: "none"}, "ed", claims("mona", time.Hour)), errBadToken},
		"a kid that is a number": {numberedKid(t, ed), nil}, // as if it had none
	} {
		got, err := n.verifier.verify(t.Context(), c.token)
		if !errors.Is(err, c.err) || err == nil && got.user != "mona" {
			t.Errorf("%s: %+v, %v, want %v", name, got, err, c.err)
		}
	}
	c := n.dial("", bearer(tokenBy(t, ed, "ed", claims("mona", time.Hour))))
	if f := c.frame(); f["type"] != "welcome" {
		t.Errorf("got %v", f)
	}
}

func numberedKid(t *testing.T, key jose.JSONWebKey) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims("mona", time.Hour))
	token.Header["kid"] = 7
	signed, err := token.SignedString(key.Key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestAnUnknownKeyHasTheSetReadOnce(t *testing.T) {
	t.Parallel()
	first, second, stranger := newKey(t, "1", "EdDSA"), newKey(t, "2", "EdDSA"), newKey(t, "x", "EdDSA")
	p := newProvider(t, first)
	n := setup(t, withJWKS(p.url))
	p.publish(first, second)
	n.clock.advance(renewPause)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := n.verifier.verify(t.Context(), tokenBy(t, second, "2", claims("mona", time.Hour))); err != nil {
				t.Errorf("the new key: %v", err)
			}
		})
	}
	all.Wait()
	if got := p.fetches.Load(); got != 2 {
		t.Errorf("%d readings, want the first and one", got)
	}
	// Invented names do not become requests.
	for range 20 {
		if _, err := n.verifier.verify(t.Context(), tokenBy(t, stranger, "x", claims("mona", time.Hour))); !errors.Is(err, errBadToken) {
			t.Errorf("a stranger's key: %v", err)
		}
	}
	if got := p.fetches.Load(); got != 2 {
		t.Errorf("%d readings after strangers came", got)
	}
	// A key that is taken out stops counting with the next reading.
	p.publish(second)
	n.clock.advance(renewPause)
	if _, err := n.verifier.verify(t.Context(), tokenBy(t, stranger, "x", claims("mona", time.Hour))); !errors.Is(err, errBadToken) {
		t.Error(err)
	}
	if _, err := n.verifier.check(tokenBy(t, first, "1", claims("mona", time.Hour))); err == nil {
		t.Error("the key that was taken out still counts")
	}
}

func TestTheLastGoodSetSurvivesTheProvider(t *testing.T) {
	t.Parallel()
	key, stranger := newKey(t, "1", "EdDSA"), newKey(t, "x", "EdDSA")
	p := newProvider(t, key)
	n := setup(t, withJWKS(p.url))
	for i, broken := range []struct {
		status int
		body   string
	}{
		{http.StatusInternalServerError, "down"},
		{http.StatusOK, "<html>maintenance</html>"},
		{http.StatusOK, `{"keys":[]}`},
		{http.StatusOK, `{}`},
		{http.StatusOK, `{"keys":[` + strings.Repeat(" ", maxJWKSBytes) + `]}`},
		{http.StatusNoContent, ""},
	} {
		p.say(broken.status, broken.body)
		n.clock.advance(renewPause)
		if _, err := n.verifier.verify(t.Context(), tokenBy(t, stranger, "x", claims("mona", time.Hour))); !errors.Is(err, errBadToken) {
			t.Errorf("%q: %v", broken.body[:min(20, len(broken.body))], err)
		}
		eventually(t, "the failure to be counted", func() bool { return n.verifier.jwks.failed.Get() == uint64(i)+1 })
		if _, err := n.verifier.verify(t.Context(), tokenBy(t, key, "1", claims("mona", time.Hour))); err != nil || n.Ready() != nil {
			t.Fatalf("%.20q: %v, ready: %v", broken.body, err, n.Ready())
		}
	}
}

func TestAGatewayWithoutAKeySetIsNotReady(t *testing.T) {
	t.Parallel()
	key := newKey(t, "1", "EdDSA")
	p := newProvider(t, key)
	p.say(http.StatusServiceUnavailable, "")
	cfg := config()
	cfg.Auth = AuthConfig{JWKS: p.url}
	g, err := newGateway(cfg.withDefaults(), newFakeBroker())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	eventually(t, "it to say what it waits for", func() bool {
		err := g.Ready()
		return err != nil && strings.Contains(err.Error(), "key set of auth-jwks") && strings.Contains(err.Error(), "503")
	})
	p.publish(key)
	eventually(t, "ready", func() bool { return g.Ready() == nil })
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestAKeySetInAFile(t *testing.T) {
	t.Parallel()
	first, second := newKey(t, "1", "ES256"), newKey(t, "2", "RS256")
	path := filepath.Join(t.TempDir(), "jwks.json")
	write := func(keys ...jose.JSONWebKey) {
		t.Helper()
		if err := os.WriteFile(path, keySetJSON(t, keys...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(first)
	n := setup(t, withJWKS(path), func(c *Config, _ *fakeBroker) { c.Auth.HMACSecret = secret })
	write(second)
	n.clock.advance(renewPause)
	if _, err := n.verifier.verify(t.Context(), tokenBy(t, second, "2", claims("mona", time.Hour))); err != nil {
		t.Error(err)
	}
	if _, err := n.verifier.verify(t.Context(), n.token("mona", time.Hour)); err != nil {
		t.Errorf("the secret beside it: %v", err)
	}
}

func TestInvalidKeySetsAreRefused(t *testing.T) {
	t.Parallel()
	private, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{newKey(t, "1", "EdDSA")}})
	if err != nil {
		t.Fatal(err)
	}
	many := make([]jose.JSONWebKey, maxSetKeys+1)
	for i := range many {
		many[i] = newKey(t, string(rune('a'+i)), "EdDSA")
	}
	for name, c := range map[string]struct{ text, want string }{
		"not JSON":     {"<html>", "is not JSON"},
		"private keys": {string(private), "has no key"},
		"too many":     {string(keySetJSON(t, many...)), "at most 64"},
	} {
		if _, err := parseKeySet([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Which of many keys it was would cost a try each.
	set, err := parseKeySet(keySetJSON(t, many[:maxNameless+1]...))
	if err != nil {
		t.Fatal(err)
	}
	j := &jwks{}
	j.good.Store(set)
	if _, ok := j.find("", "EdDSA"); ok {
		t.Error("a token without a kid is held against many keys")
	}
	for _, source := range []string{"ftp://idp.example.com/keys", "https://", "/nowhere/jwks.json"} {
		if err := (AuthConfig{JWKS: source}).Validate(); err == nil || !strings.HasPrefix(err.Error(), "auth-jwks: ") {
			t.Errorf("%s: %v", source, err)
		}
	}
}
