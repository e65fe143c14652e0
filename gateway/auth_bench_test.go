package gateway

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// tokensByAlgorithm are a token of each algorithm and how it is checked, a key set for those with public keys.
func tokensByAlgorithm(b *testing.B, run func(b *testing.B, token string, cfg AuthConfig, set *keySet)) {
	issued := jwt.RegisteredClaims{
		Subject: "user-1", IssuedAt: jwt.NewNumericDate(time.Now()),
		ExpiresAt: jwt.NewNumericDate(time.Now().Add(24 * time.Hour)),
	}
	hmac, err := jwt.NewWithClaims(jwt.SigningMethodHS256, issued).SignedString(secret)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("HS256", func(b *testing.B) { run(b, hmac, AuthConfig{HMACSecret: secret}, nil) })
	for _, alg := range []string{"EdDSA", "ES256", "RS256"} {
		key := newKey(b, "1", alg)
		set, err := parseKeySet(keySetJSON(b, key))
		if err != nil {
			b.Fatal(err)
		}
		token := tokenBy(b, key, "1", issued)
		b.Run(alg, func(b *testing.B) { run(b, token, AuthConfig{JWKS: newProvider(b, key).url}, set) })
	}
}

func BenchmarkVerify(b *testing.B) {
	tokensByAlgorithm(b, func(b *testing.B, token string, cfg AuthConfig, set *keySet) {
		v, err := newVerifier(cfg, time.Now)
		if err != nil {
			b.Fatal(err)
		}
		if v.jwks != nil {
			v.jwks.good.Store(set)
		}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.verify(context.Background(), token); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkConnectByAlgorithm is a whole connect, until the welcome is read and the socket closed, over loopback; the
// CPU of the raw client is in it.
func BenchmarkConnectByAlgorithm(b *testing.B) {
	tokensByAlgorithm(b, func(b *testing.B, token string, cfg AuthConfig, _ *keySet) {
		n := setup(b, func(c *Config, br *fakeBroker) { c.Auth = cfg; br.discard = true; c.MaxPerUser = 1000 })
		began := cpu()
		for b.Loop() {
			c := n.rawWith(b, token)
			_ = c.halfConn.(*net.TCPConn).SetLinger(0) // a port each would soon be too many
			c.Close()
		}
		b.ReportMetric(float64((cpu()-began).Microseconds())/float64(b.N), "cpu-µs/connect")
	})
}
