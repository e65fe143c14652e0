package apns

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"time"
)

// Apple accepts a provider token for 60 minutes from its `iat`, and answers
// TooManyProviderTokenUpdates to more than one new token in 20 minutes. Several processes, and one
// that restarts, must keep to that together, without talking to each other.
//
// So time is cut into slots of 45 minutes (time.Truncate), the same for everybody, and a token's
// `iat` is the start of its slot. With deterministic signatures (RFC 6979) all processes that hold the
// key then make the same bytes: for Apple there is one token, and one new one every 45 minutes. A
// restart makes no new token.
//
//	slot start S            S+1 min                    S+20 … S+45 min               S+46 min
//	nobody uses S's yet     everybody's token is S's   ExpiredProviderToken: S+20's   the next slot's
//
// A slot's token is taken up one minute after its start, so that a clock up to a minute ahead of
// Apple's makes no token of the future; the oldest in use is 46 minutes old, so a clock may be 14
// minutes behind. A token that Apple calls expired is replaced once a slot, by one whose `iat` is 20
// minutes into the slot, once that is over: the same again for everybody, and 20 minutes from either
// neighbour. A younger one that is called expired means that a clock is wrong, and minting would not
// help.
const (
	tokenSlot  = 45 * time.Minute
	tokenLag   = time.Minute
	minRefresh = 20 * time.Minute
	// maxTokenAge is Apple's hour less a margin.
	maxTokenAge = 59 * time.Minute
)

// bearer is one provider token. It never changes.
type bearer struct {
	token  string
	issued time.Time
}

// minter makes provider tokens and remembers which to use. Safe for concurrent use.
type minter struct {
	key           *ecdsa.PrivateKey
	keyID, teamID string

	mu          sync.Mutex
	current     *bearer
	previous    *bearer
	frozenUntil time.Time
}

// at is the token to use now.
func (m *minter) at(now time.Time) (*bearer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	slot := now.Add(-tokenLag).Truncate(tokenSlot)
	switch {
	case m.current == nil:
	case now.Before(m.frozenUntil) && now.Sub(m.current.issued) < maxTokenAge:
		return m.current, nil
	case !m.current.issued.Before(slot) && m.current.issued.Before(slot.Add(tokenSlot)):
		return m.current, nil
	}
	return m.mint(slot)
}

// refresh replaces a token that Apple called expired. It says false where no other may be made: used
// is too young, or minting is frozen.
func (m *minter) refresh(used *bearer, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current != nil && m.current.issued.After(used.issued) {
		return true // somebody else's attempt has already replaced it
	}
	next := now.Add(-tokenLag).Truncate(tokenSlot)
	if !next.After(used.issued) { // used is this slot's
		next = next.Add(minRefresh)
	}
	if now.Before(m.frozenUntil) || next.Sub(used.issued) < minRefresh || now.Sub(next) < tokenLag {
		return false
	}
	_, err := m.mint(next)
	return err == nil
}

// freeze goes back to the token before used, where Apple still takes that one, and makes no new one
// for 20 minutes.
func (m *minter) freeze(used *bearer, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now.Before(m.frozenUntil) {
		return
	}
	m.frozenUntil = now.Add(minRefresh)
	if m.previous != nil && m.current == used && now.Sub(m.previous.issued) < maxTokenAge {
		m.current, m.previous = m.previous, nil
	}
}

func (m *minter) mint(issued time.Time) (*bearer, error) {
	token, err := sign(m.key, m.keyID, m.teamID, issued)
	if err != nil {
		return nil, err
	}
	m.previous, m.current = m.current, &bearer{token: token, issued: issued}
	return m.current, nil
}

// sign makes a JWT with ES256. The signature is deterministic (RFC 6979: no random source), so the
// same inputs give the same token everywhere; golang-jwt's are different every time.
func sign(key *ecdsa.PrivateKey, keyID, teamID string, issued time.Time) (string, error) {
	head, err := json.Marshal(struct {
		Alg string `json:"alg"`
		Kid string `json:"kid"`
	}{"ES256", keyID})
	if err != nil {
		return "", fmt.Errorf("encode the provider token: %w", err)
	}
	claims, err := json.Marshal(struct {
		Iss string `json:"iss"`
		Iat int64  `json:"iat"`
	}{teamID, issued.Unix()})
	if err != nil {
		return "", fmt.Errorf("encode the provider token: %w", err)
	}
	enc := base64.RawURLEncoding
	text := enc.EncodeToString(head) + "." + enc.EncodeToString(claims)
	digest := sha256.Sum256([]byte(text))
	der, err := key.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("sign the provider token: %w", err)
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		return "", fmt.Errorf("sign the provider token: %w", err)
	}
	var raw [64]byte
	sig.R.FillBytes(raw[:32])
	sig.S.FillBytes(raw[32:])
	return text + "." + enc.EncodeToString(raw[:]), nil
}

// parseKey reads Apple's .p8 file: a PKCS #8 key on P-256 in PEM.
func parseKey(p8 []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(p8)
	if block == nil {
		return nil, errors.New("not a PEM file (the .p8 that Apple lets one download once)")
	}
	if strings.Contains(block.Type, "CERTIFICATE") {
		return nil, errors.New("is a certificate, not a key (the .p8 of a token signing key is needed)")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("not a PKCS #8 key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("not an ECDSA key on P-256, which APNs's tokens need")
	}
	return key, nil
}
