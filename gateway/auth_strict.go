package gateway

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"github.com/klivvr/whisper/domain/record"
)

// A token is read by the login that made it, by gateways and perhaps by proxies between them, and all must
// read the same. The library reads with encoding/json, which takes "SUB" for "sub", lets the last of two claims
// win, takes "exp" as text and puts U+FFFD for half of a surrogate pair. So claims are read here, strictly.

// tokenClaims are what is read of a token; all other claims are passed over.
type tokenClaims struct {
	jwt.RegisteredClaims
	SID string `json:"sid,omitempty"`
}

// latestSecond bounds times in tokens: the year 33658. Milliseconds in the place of seconds are more.
const latestSecond = 1e12

// UnmarshalJSON implements json.Unmarshaler.
func (c *tokenClaims) UnmarshalJSON(raw []byte) error {
	members, err := record.StrictMembers(raw, "the token", "sub", "iss", "sid", "aud", "exp", "iat", "nbf")
	if err != nil {
		return err
	}
	read := map[string]func(json.RawMessage) error{
		"sub": intoText(&c.Subject), "iss": intoText(&c.Issuer), "sid": intoText(&c.SID),
		"aud": func(raw json.RawMessage) error { return c.Audience.UnmarshalJSON(raw) },
		"exp": intoTime(&c.ExpiresAt), "iat": intoTime(&c.IssuedAt), "nbf": intoTime(&c.NotBefore),
	}
	for name, value := range members {
		if into := read[name]; into != nil {
			if err := into(value); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

func intoText(s *string) func(json.RawMessage) error {
	return func(raw json.RawMessage) error { return json.Unmarshal(raw, s) }
}

func intoTime(at **jwt.NumericDate) func(json.RawMessage) error {
	return func(raw json.RawMessage) error {
		seconds, err := strconv.ParseFloat(string(raw), 64) // text has its quotes yet
		if err != nil {
			return errors.New("is not a number of seconds")
		}
		if math.Abs(seconds) > latestSecond {
			return errors.New("is too large for seconds: milliseconds?")
		}
		*at = new(jwt.NumericDate)
		return (*at).UnmarshalJSON(raw)
	}
}

// checkHeader refuses a header that is ambiguous, or that names extensions (crit): a reader must refuse those
// that it does not know (RFC 7515 §4.1.11), and a gateway knows none.
func checkHeader(token string) error {
	text, _, _ := strings.Cut(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return errors.New("the header is not base64url")
	}
	members, err := record.StrictMembers(raw, "the header", "alg", "kid", "crit")
	if err != nil {
		return err
	}
	if _, ok := members["crit"]; ok {
		return errors.New("the header names extensions that must be understood (crit)")
	}
	return nil
}
