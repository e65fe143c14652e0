package gateway

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// signText signs a header and claims exactly as they are written.
func signText(t testing.TB, header, claims string) string {
	t.Helper()
	enc := base64.RawURLEncoding.EncodeToString
	text := enc([]byte(header)) + "." + enc([]byte(claims))
	sig, err := jwt.SigningMethodHS256.Sign(text, secret)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + enc(sig)
}

// What two readers of one token could understand differently opens nothing, however well it is signed.
func TestAmbiguousTokensAreRefused(t *testing.T) {
	t.Parallel()
	now := time.Now()
	v, err := newVerifier(AuthConfig{HMACSecret: secret}, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	const header = `{"alg":"HS256","typ":"JWT"}`
	exp, past := fmt.Sprint(now.Add(time.Hour).Unix()), fmt.Sprint(now.Add(-time.Hour).Unix())
	for claims, user := range map[string]string{
		`{"sub":"mona","exp":` + exp + `}`:                                                               "mona",
		` {"sub":"mona","exp":` + exp + `.5,"x":{"sub":"omar","EXP":1}} `:                                "mona", // another object's members are another's
		`{"sub":"mona","exp":` + exp + `,"iat":` + past + `,"nbf":0}`:                                    "mona",
		`{"sub":"mona \ud83d\ude00","exp":` + exp + `}`:                                                  "mona \U0001F600",
		`{"sub":"mona","exp":` + exp + `,"permissions":["a"],"aud":"x"}`:                                 "mona",
		`{"sub":"mona","exp":` + exp + `,"SUB":"omar"}`:                                                  "",
		`{"SUB":"omar","sub":"mona","exp":` + exp + `}`:                                                  "",
		`{"SUB":"omar","exp":` + exp + `}`:                                                               "",
		`{"sub":"mona","sub":"omar","exp":` + exp + `}`:                                                  "",
		`{"sub":"mona","\u0073ub":"omar","exp":` + exp + `}`:                                             "",
		`{"sub":"mona","exp":` + past + `,"EXP":` + exp + `}`:                                            "",
		`{"sub":"mona","EXP":` + exp + `}`:                                                               "",
		`{"sub":"mona","exp":` + past + `,"exp":` + exp + `}`:                                            "",
		`{"sub":"mona","exp":` + exp + `,"sid":"a","Sid":"b"}`:                                           "",
		`{"sub":"mona","exp":` + exp + `,"x":{"a":1,"a":2}}`:                                             "",
		`{"sub":"mona","exp":"` + exp + `"}`:                                                             "",
		`{"sub":"mona","exp":null}`:                                                                      "",
		`{"sub":"mona","exp":` + exp + `,"iat":"` + past + `"}`:                                          "",
		`{"sub":"mona","exp":` + exp + `,"iat":null}`:                                                    "",
		`{"sub":"mona","exp":` + exp + `,"nbf":"` + past + `"}`:                                          "",
		`{"sub":"mona","exp":` + exp + `,"nbf":true}`:                                                    "",
		`{"sub":"mona","exp":` + exp + `000}`:                                                            "", // milliseconds: it would be good for 50,000 years
		`{"sub":"mona","exp":1e300}`:                                                                     "",
		`{"sub":"mona\ud800","exp":` + exp + `}`:                                                         "",
		`{"sub":"\udc00mona","exp":` + exp + `}`:                                                         "",
		`{"sub":"mona","exp":` + exp + `,"sid":"\ud800"}`:                                                "",
		"{\"sub\":\"mona\xff\",\"exp\":" + exp + `}`:                                                     "",
		`{"sub":["mona"],"exp":` + exp + `}`:                                                             "",
		`{"sub":"mona","exp":` + exp + `}{}`:                                                             "",
		`{"sub":"mona","exp":` + exp + `,"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`: "",
		`[]`:   "",
		`null`: "",
	} {
		g, err := v.verify(t.Context(), signText(t, header, claims))
		if user == "" && !errors.Is(err, errBadToken) || user != "" && (err != nil || g.user != user) {
			t.Errorf("%s: user %q, error %v", claims, g.user, err)
		}
	}
	good := `{"sub":"mona","exp":` + exp + `}`
	for header, ok := range map[string]bool{
		`{"alg":"HS256"}`: true,
		`{"alg":"HS256","x5t":"abc","jku":"https://x"}`: true,
		`{"alg":"HS256","crit":["b64"],"b64":true}`:     false,
		`{"alg":"HS256","crit":["exp"]}`:                false,
		`{"alg":"HS256","crit":[]}`:                     false,
		`{"alg":"HS256","crit":"x"}`:                    false,
		`{"alg":"none","alg":"HS256"}`:                  false,
		`{"alg":"HS256","ALG":"none"}`:                  false,
		`{"alg":"HS256","kid":"\ud800"}`:                false,
		`{"alg":"HS256","kid":"a","kid":"b"}`:           false,
		`{"alg":"HS256"} {}`:                            false,
	} {
		if _, err := v.verify(t.Context(), signText(t, header, good)); (err == nil) != ok {
			t.Errorf("header %s: %v", header, err)
		}
	}
}

// A token that only comes too early says by which clock: else nobody looks there.
func TestATokenFromTheFutureNamesTheClock(t *testing.T) {
	t.Parallel()
	now := time.Now()
	v, err := newVerifier(AuthConfig{HMACSecret: secret}, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	soon := jwt.NewNumericDate(now.Add(15 * time.Second))
	for claim, c := range map[string]jwt.RegisteredClaims{"iat": {IssuedAt: soon}, "nbf": {NotBefore: soon}} {
		c.Subject, c.ExpiresAt = "mona", jwt.NewNumericDate(now.Add(time.Hour))
		_, err := v.verify(t.Context(), sign(t, jwt.SigningMethodHS256, secret, c))
		if !errors.Is(err, errBadToken) || !strings.Contains(err.Error(), claim) || !strings.Contains(err.Error(), "clock") ||
			!strings.Contains(err.Error(), "by 10s") {
			t.Errorf("%s: %v", claim, err)
		}
		if err != nil && len(err.Error()) > maxReasonBytes {
			t.Errorf("%q is cut in a close frame", err)
		}
		if _, err := v.verify(t.Context(), sign(t, jwt.SigningMethodHS256, []byte("another secret of thirty-two bytes.."), c)); err == nil ||
			strings.Contains(err.Error(), "clock") {
			t.Errorf("forged: %v", err)
		}
	}
}

func TestAmbiguousKeySetsAreRefused(t *testing.T) {
	t.Parallel()
	whole := string(keySetJSON(t, newKey(t, "1", "EdDSA")))
	key := strings.TrimSuffix(strings.TrimPrefix(whole, `{"keys":[`), `]}`)
	for set, ok := range map[string]bool{
		`{"keys":[` + key + `]}`:           true,
		`{"keys":[` + key + `],"x":1}`:     true,
		`{"Keys":[` + key + `]}`:           false,
		`{"keys":[],"keys":[` + key + `]}`: false,
		`{"keys":[` + strings.Replace(key, `"kid"`, `"kid":"0","kid"`, 1) + `]}`: false,
		`{"keys":{}}`: false,
	} {
		if _, err := parseKeySet([]byte(set)); (err == nil) != ok {
			t.Errorf("%s: %v", set, err)
		}
	}
}
