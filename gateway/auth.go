package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"slices"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/golang-jwt/jwt/v5"

	"github.com/klivvr/whisper/domain"
)

// AuthConfig fixes which keys, and with them which algorithms, are accepted; a token can't choose. At least
// one of HMACSecret, PublicKeys and JWKS is required.
type AuthConfig struct {
	// HMACSecret checks HS256; from 48 bytes on also HS384, from 64 on HS512 (a key shorter than the hash
	// weakens it, RFC 7518 §3.2). At least 32 bytes. PreviousHMACSecret is accepted beside it, for a rotation.
	HMACSecret         []byte
	PreviousHMACSecret []byte
	// PublicKeys are PEM blocks (PUBLIC KEY), one after the other: RSA checks RS256, P-256 ES256, Ed25519
	// EdDSA. With several of a kind, any may have signed, so that keys can be rotated.
	PublicKeys []byte
	// JWKS is a file or an http(s) URL with a JSON Web Key Set (RFC 7517). It is read at the start, every
	// JWKSRefresh, and once when a token names a key that is not in it, at most every 5 s.
	// While it can't be read the last good set goes on; a gateway that never had one is not ready.
	JWKS        string
	JWKSRefresh time.Duration
	// Algorithms narrows what is accepted; empty: all that the keys are for.
	Algorithms []string
	// Audiences, one of which a token's aud must name, and Issuer, which its iss must be. Empty: not looked at.
	Audiences []string
	Issuer    string
	// Leeway for clocks that differ (negative: none; at most 5 minutes). A session ends that much
	// after its token's exp.
	Leeway time.Duration
}

const (
	minSecretBytes = 32
	maxLeeway      = 5 * time.Minute
)

// AuthDefaults are the settings where nothing else is said.
func AuthDefaults() AuthConfig {
	return AuthConfig{JWKSRefresh: 5 * time.Minute, Leeway: 10 * time.Second}
}

// Validate names every problem of the settings. It reads a JWKS that is a file, not one behind a URL.
func (c AuthConfig) Validate() error {
	_, err := newVerifier(c, time.Now)
	return err
}

var (
	errNoToken      = errors.New("no token: send Authorization: Bearer JWT, or the subprotocols whisper.v1, bearer.JWT")
	errBadToken     = errors.New("the token is not valid")
	errTokenExpired = errors.New("the token has expired")
	errRevoked      = errors.New("the token has been revoked")
	errUnknownKey   = errors.New("the token names a key that is not known") // never leaves verify
)

// grant is what a token allows.
type grant struct {
	user    string
	expires time.Time // the claim exp
	until   time.Time // when the session must end: exp and the leeway
	login   login
}

// login is what a revocation is held against.
type login struct {
	issuedUS int64  // the earliest that it can have been issued: the claim iat less the leeway; 0: no iat, every revocation covers it
	sid      uint64 // hash of the claim sid, the login at the identity provider; 0: none
}

var sidSeed = maphash.MakeSeed()

func hashSID(sid string) uint64 {
	if sid == "" {
		return 0
	}
	return maphash.String(sidSeed, sid) | 1
}

// verifier checks tokens, from any goroutine. Beside the key set, which renews itself, it is immutable.
type verifier struct {
	now     func() time.Time
	parser  *jwt.Parser
	leeway  time.Duration
	fixed   map[string]jwt.VerificationKeySet // by algorithm: of the configuration
	jwks    *jwks                             // nil: none
	revoked *revocations                      // nil: none
}

func newVerifier(c AuthConfig, now func() time.Time) (*verifier, error) {
	v := &verifier{now: now, leeway: c.Leeway, fixed: map[string]jwt.VerificationKeySet{}}
	v.leeway = cmp.Or(v.leeway, AuthDefaults().Leeway)
	v.leeway = max(v.leeway, 0)
	errs := []error{v.addSecrets(c), v.addKeys(c.PublicKeys), v.addSet(c), c.validateClaims()}
	methods, err := v.methods(c)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	options := []jwt.ParserOption{
		jwt.WithValidMethods(methods), jwt.WithExpirationRequired(), jwt.WithTimeFunc(now), jwt.WithLeeway(v.leeway),
		jwt.WithIssuedAt(), // one from the future would escape revocation
	}
	if len(c.Audiences) > 0 {
		options = append(options, jwt.WithAudience(c.Audiences...))
	}
	if c.Issuer != "" {
		options = append(options, jwt.WithIssuer(c.Issuer))
	}
	v.parser = jwt.NewParser(options...)
	return v, nil
}

func (c AuthConfig) validateClaims() error {
	var errs []error
	if slices.Contains(c.Audiences, "") {
		errs = append(errs, errors.New("auth-audience: is empty, so no token would match: give a value, or leave it out"))
	}
	if c.Leeway > maxLeeway {
		errs = append(errs, fmt.Errorf("auth-leeway: %s is too long: give at most %s", c.Leeway, maxLeeway))
	}
	return errors.Join(errs...)
}

// methods are the algorithms that there are keys for, as far as the configuration names them.
func (v *verifier) methods(c AuthConfig) ([]string, error) {
	wanted := c.Algorithms
	have := map[string]bool{}
	for alg := range v.fixed {
		have[alg] = true
	}
	if v.jwks != nil {
		for _, alg := range keyAlgorithms {
			have[alg] = true
		}
	}
	if len(have) == 0 && len(c.HMACSecret) == 0 && len(c.PublicKeys) == 0 {
		return nil, errors.New("auth-secret, auth-public-keys, auth-jwks: give at least one of them")
	}
	var methods []string
	var errs []error
	for alg := range have {
		if len(wanted) == 0 || slices.Contains(wanted, alg) {
			methods = append(methods, alg)
		}
	}
	for _, alg := range wanted {
		if !have[alg] {
			errs = append(errs, fmt.Errorf("auth-algorithms: no key is for %q: give such a key, or leave it out", alg))
		}
	}
	return methods, errors.Join(errs...)
}

// attach gives the verifier what only a running gateway has.
func (v *verifier) attach(r *revocations, log *slog.Logger, set *metrics.Set) {
	v.revoked = r
	if v.jwks != nil {
		v.jwks.attach(log, set)
	}
}

// run keeps the key set fresh until ctx ends.
func (v *verifier) run(ctx context.Context) error {
	if v.jwks == nil {
		<-ctx.Done()
		return nil
	}
	return v.jwks.run(ctx)
}

// ready is nil once there is a key set to check by.
func (v *verifier) ready() error {
	if v.jwks != nil {
		return v.jwks.ready()
	}
	return nil
}

// await waits until ready.
func (v *verifier) await(ctx context.Context) error {
	if v.jwks == nil {
		return nil
	}
	return v.jwks.await(ctx)
}

// renewWait bounds how long a connect waits for a key set that may know its key.
const renewWait = 3 * time.Second

// verify says what a token allows. The error is one of the above, with nothing of the token in it but how far
// its time is ahead. It may
// wait for the key set to be read again, for renewWait at most.
func (v *verifier) verify(ctx context.Context, token string) (grant, error) {
	g, err := v.check(token)
	if !errors.Is(err, errUnknownKey) {
		return g, err
	}
	ctx, cancel := context.WithTimeout(ctx, renewWait)
	defer cancel()
	v.jwks.renew(ctx)
	g, err = v.check(token) // also where it was not: another's reading may just have ended
	if errors.Is(err, errUnknownKey) {
		err = errBadToken
	}
	return g, err
}

// check is verify with the keys at hand. errUnknownKey: another look at the key set may help.
func (v *verifier) check(token string) (grant, error) {
	if token == "" {
		return grant{}, errNoToken
	}
	if checkHeader(token) != nil {
		return grant{}, errBadToken
	}
	var claims tokenClaims
	parsed, err := v.parser.ParseWithClaims(token, &claims, v.key)
	switch {
	case err == nil:
	// Claims are looked at only after a good signature.
	case errors.Is(err, jwt.ErrTokenExpired):
		return grant{}, errTokenExpired
	case errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return grant{}, v.early("iat", claims.IssuedAt)
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return grant{}, v.early("nbf", claims.NotBefore)
	case v.unknownKey(parsed):
		return grant{}, errUnknownKey
	default:
		return grant{}, errBadToken
	}
	if domain.CheckID(claims.Subject) != nil {
		return grant{}, errBadToken
	}
	g := grant{user: claims.Subject, expires: claims.ExpiresAt.Time, until: claims.ExpiresAt.Add(v.leeway)}
	g.login.sid = hashSID(claims.SID)
	if claims.IssuedAt != nil {
		// The login's clock may be ahead by the leeway: its token, issued just before a revocation, says that it was
		// issued just after. Nothing tells it from one of the next seconds, so those are refused, too.
		g.login.issuedUS = claims.IssuedAt.Add(-v.leeway).UnixMicro()
	}
	if v.revoked.covers(g.user, g.login) {
		return grant{}, errRevoked
	}
	return g, nil
}

// early names the clocks, which are all that is wrong with such a token.
func (v *verifier) early(claim string, at *jwt.NumericDate) error {
	return fmt.Errorf("%w: its %s is %s ahead of the gateway's clock; clocks may differ by %s",
		errBadToken, claim, at.Sub(v.now()).Round(100*time.Millisecond), v.leeway)
}

// key picks by the algorithm, which the parser has already held against the list, and by the key's name.
func (v *verifier) key(t *jwt.Token) (any, error) {
	alg := t.Method.Alg()
	fixed := v.fixed[alg]
	if v.jwks == nil || isHMAC(alg) {
		return fixed, nil
	}
	if found, ok := v.jwks.find(kidOf(t), alg); ok {
		if kidOf(t) == "" { // then nothing says which of all it is
			found.Keys = append(slices.Clip(found.Keys), fixed.Keys...)
		}
		return found, nil
	}
	if len(fixed.Keys) == 0 {
		return nil, errUnknownKey
	}
	return fixed, nil
}

// unknownKey says that a token names a key that the set does not have.
func (v *verifier) unknownKey(t *jwt.Token) bool {
	if v.jwks == nil || t == nil || t.Method == nil || isHMAC(t.Method.Alg()) || !slices.Contains(keyAlgorithms, t.Method.Alg()) {
		return false
	}
	kid := kidOf(t)
	return kid != "" && !v.jwks.knows(kid)
}

func kidOf(t *jwt.Token) string {
	kid, _ := t.Header["kid"].(string)
	return kid
}
