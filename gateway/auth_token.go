package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/klivvr/whisper/domain"
)

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
		return "", fmt.Errorf("auth-secret: has only %d bytes: give at least %d", len(secret), minSecretBytes)
	}
	if ttl <= 0 {
		return "", fmt.Errorf("ttl: %s is not a positive duration", ttl)
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
