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
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/klivvr/whisper/domain"
)

// AuthConfig fixes which keys, and with them which algorithms, are accepted; a token can't choose.
type AuthConfig struct {
	// HMACSecret checks HS256, HS384 and HS512; at least 32 bytes, the size of the shortest hash.
	HMACSecret []byte
	// PublicKeys are PEM blocks (PUBLIC KEY), one after the other: RSA checks RS256, P-256 ES256, Ed25519
	// EdDSA. With several of a kind, any may have signed, so that keys can be rotated.
	PublicKeys []byte
}

const minSecretBytes = 32

// Validate names every problem of the settings.
func (c AuthConfig) Validate() error {
	_, err := newVerifier(c, time.Now)
	return err
}

var (
	errNoToken      = errors.New("no token: send Authorization: Bearer JWT, or the subprotocols whisper.v1, bearer.JWT")
	errBadToken     = errors.New("the token is not valid")
	errTokenExpired = errors.New("the token has expired")
)

// verifier checks tokens. It is immutable, for any goroutine.
type verifier struct {
	parser *jwt.Parser
	secret []byte
	keys   map[string]jwt.VerificationKeySet // by algorithm
}

func newVerifier(c AuthConfig, now func() time.Time) (*verifier, error) {
	v := &verifier{secret: c.HMACSecret, keys: map[string]jwt.VerificationKeySet{}}
	var errs []error
	var methods []string
	if len(c.HMACSecret) > 0 {
		methods = append(methods, "HS256", "HS384", "HS512")
		if len(c.HMACSecret) < minSecretBytes {
			errs = append(errs, fmt.Errorf("auth-secret: has %d bytes, at least %d are needed", len(c.HMACSecret), minSecretBytes))
		}
	}
	if err := v.addKeys(c.PublicKeys); err != nil {
		errs = append(errs, fmt.Errorf("auth-public-keys: %w", err))
	}
	for alg := range v.keys {
		methods = append(methods, alg)
	}
	if len(methods) == 0 && len(errs) == 0 {
		errs = append(errs, errors.New("auth-secret, auth-public-keys: give at least one of them"))
	}
	v.parser = jwt.NewParser(jwt.WithValidMethods(methods), jwt.WithExpirationRequired(), jwt.WithTimeFunc(now))
	return v, errors.Join(errs...)
}

func (v *verifier) addKeys(rest []byte) error {
	for n := 1; len(strings.TrimSpace(string(rest))) > 0; n++ {
		block, more := pem.Decode(rest)
		if block == nil {
			return fmt.Errorf("block %d is not PEM", n)
		}
		rest = more
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return fmt.Errorf("block %d (%s) is not a public key: %w", n, block.Type, err)
		}
		alg, err := algorithmOf(key)
		if err != nil {
			return fmt.Errorf("block %d: %w", n, err)
		}
		set := v.keys[alg]
		set.Keys = append(set.Keys, key)
		v.keys[alg] = set
	}
	return nil
}

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

// verify says whose token it is and until when. The error is one of the three above, with nothing of the
// token in it.
func (v *verifier) verify(token string) (user string, expires time.Time, err error) {
	if token == "" {
		return "", time.Time{}, errNoToken
	}
	var claims jwt.RegisteredClaims
	if _, err := v.parser.ParseWithClaims(token, &claims, v.key); err != nil {
		if errors.Is(err, jwt.ErrTokenExpired) {
			return "", time.Time{}, errTokenExpired
		}
		return "", time.Time{}, errBadToken
	}
	if domain.CheckID(claims.Subject) != nil {
		return "", time.Time{}, errBadToken
	}
	return claims.Subject, claims.ExpiresAt.Time, nil
}

// key picks by the algorithm, which the parser has already held against the list.
func (v *verifier) key(t *jwt.Token) (any, error) {
	if set, ok := v.keys[t.Method.Alg()]; ok {
		return set, nil
	}
	return v.secret, nil
}

const (
	subprotocol  = "whisper.v1"
	bearerPrefix = "bearer."
)

// tokenOf reads the token of a request: the header, or the subprotocol, which is all that browsers can set.
func tokenOf(r *http.Request) string {
	if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "bearer") {
		return strings.TrimSpace(token)
	}
	for _, line := range r.Header.Values("Sec-Websocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			if token, ok := strings.CutPrefix(strings.TrimSpace(p), bearerPrefix); ok {
				return token
			}
		}
	}
	return ""
}

// SignToken makes a token (HS256) that a gateway with this secret accepts from now until ttl is over.
func SignToken(secret []byte, user string, ttl time.Duration, now time.Time) (string, error) {
	if err := domain.CheckID(user); err != nil {
		return "", fmt.Errorf("user: %w", err)
	}
	if len(secret) < minSecretBytes {
		return "", fmt.Errorf("auth-secret: has %d bytes, at least %d are needed", len(secret), minSecretBytes)
	}
	if ttl <= 0 {
		return "", fmt.Errorf("ttl: %s is not a time to live", ttl)
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.RegisteredClaims{
		Subject:   user,
		IssuedAt:  jwt.NewNumericDate(now),
		ExpiresAt: jwt.NewNumericDate(now.Add(ttl)),
	}).SignedString(secret)
	if err != nil {
		return "", fmt.Errorf("sign the token of a user: %w", err)
	}
	return token, nil
}
