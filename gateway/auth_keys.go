package gateway

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// keyAlgorithms are those of public keys, one a kind of key, so that a key's kind fixes its algorithm.
var keyAlgorithms = []string{"RS256", "ES256", "EdDSA"}

// hmacAlgorithms and the bytes that each one's secret must have.
var hmacAlgorithms = []struct {
	name  string
	bytes int
}{{"HS256", 32}, {"HS384", 48}, {"HS512", 64}}

func isHMAC(alg string) bool { return strings.HasPrefix(alg, "HS") }

func (v *verifier) addSecrets(c AuthConfig) error {
	var errs []error
	for _, s := range []struct {
		setting string
		secret  []byte
	}{{"auth-secret", c.HMACSecret}, {"auth-secret-previous", c.PreviousHMACSecret}} {
		if len(s.secret) == 0 {
			continue
		}
		if len(s.secret) < minSecretBytes {
			errs = append(errs, fmt.Errorf("%s: has only %d bytes: give at least %d", s.setting, len(s.secret), minSecretBytes))
		}
		for _, alg := range hmacAlgorithms {
			if len(s.secret) >= alg.bytes {
				v.addKey(alg.name, s.secret)
			}
		}
	}
	if len(c.HMACSecret) == 0 && len(c.PreviousHMACSecret) > 0 {
		errs = append(errs, errors.New("auth-secret-previous: needs auth-secret: give both, or this one as auth-secret"))
	}
	return errors.Join(errs...)
}

func (v *verifier) addKey(alg string, key jwt.VerificationKey) {
	set := v.fixed[alg]
	set.Keys = append(set.Keys, key)
	v.fixed[alg] = set
}

func (v *verifier) addKeys(rest []byte) error {
	for n := 1; len(strings.TrimSpace(string(rest))) > 0; n++ {
		block, more := pem.Decode(rest)
		if block == nil {
			return fmt.Errorf("auth-public-keys: block %d is not PEM", n)
		}
		rest = more
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return fmt.Errorf("auth-public-keys: block %d (%s) is not a public key: %w", n, block.Type, err)
		}
		alg, err := algorithmOf(key)
		if err != nil {
			return fmt.Errorf("auth-public-keys: block %d: %w", n, err)
		}
		v.addKey(alg, key)
	}
	return nil
}

// algorithmOf is the one algorithm that a public key is for.
func algorithmOf(key any) (string, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return "", fmt.Errorf("an RSA key of %d bits is too short, at least 2048", k.N.BitLen())
		}
		return "RS256", nil
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return "", fmt.Errorf("the curve %s is not supported, only P-256", k.Curve.Params().Name)
		}
		return "ES256", nil
	case ed25519.PublicKey:
		return "EdDSA", nil
	default:
		return "", fmt.Errorf("a key of type %T is not supported: RSA, P-256 or Ed25519", key)
	}
}
