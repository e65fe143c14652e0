package apns

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func newKey(t testing.TB) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// slot is the start of one of the slots that all processes share.
var slot = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC).Truncate(tokenSlot)

func use(t *testing.T, m *minter, now time.Time) *bearer {
	t.Helper()
	b, err := m.at(now)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestProviderTokenIsWhatAppleReads(t *testing.T) {
	t.Parallel()
	key, _ := newKey(t)
	m := &minter{key: key, keyID: "KEY1234567", teamID: "TEAM123456"}
	b := use(t, m, slot.Add(10*time.Minute))
	claims := jwt.MapClaims{}
	parsed, err := jwt.NewParser(jwt.WithoutClaimsValidation(), jwt.WithValidMethods([]string{"ES256"})).
		ParseWithClaims(b.token, claims, func(*jwt.Token) (any, error) { return &key.PublicKey, nil })
	if err != nil {
		t.Fatal(err)
	}
	if parsed.Header["kid"] != "KEY1234567" || claims["iss"] != "TEAM123456" || claims["iat"] != float64(slot.Unix()) {
		t.Errorf("got %v %v", parsed.Header, claims)
	}
}

func TestProviderTokenIsOneForAllProcesses(t *testing.T) {
	t.Parallel()
	key, _ := newKey(t)
	tokens := map[string]time.Time{}
	// Processes that start at any time and run on; clocks up to half a minute apart.
	for started := time.Duration(0); started < 3*time.Hour; started += 13 * time.Minute {
		m := &minter{key: key, keyID: "K", teamID: "T"}
		for at := started; at < 3*time.Hour; at += 59 * time.Second {
			now := slot.Add(at + started%(30*time.Second))
			b := use(t, m, now)
			if age := now.Sub(b.issued); age < tokenLag || age >= tokenSlot+tokenLag {
				t.Fatalf("a token of age %s is in use", age)
			}
			tokens[b.token] = b.issued
		}
	}
	if len(tokens) != 5 { // 3 hours are four slots, and the one before
		t.Errorf("Apple saw %d tokens in 3 hours", len(tokens))
	}
}

func TestProviderTokenRefresh(t *testing.T) {
	t.Parallel()
	key, _ := newKey(t)
	minterAt := func() *minter { return &minter{key: key, keyID: "K", teamID: "T"} }

	m, other := minterAt(), minterAt()
	young := use(t, m, slot.Add(15*time.Minute))
	if m.refresh(young, slot.Add(15*time.Minute)) {
		t.Error("a token of 15 minutes was replaced")
	}
	now := slot.Add(25 * time.Minute)
	old := use(t, m, now)
	if !m.refresh(old, now) {
		t.Fatal("a token of 25 minutes was not replaced")
	}
	fresh := use(t, m, now)
	if fresh.issued.Sub(old.issued) != minRefresh {
		t.Errorf("the new token is %s younger", fresh.issued.Sub(old.issued))
	}
	if !m.refresh(old, now) || use(t, m, now) != fresh {
		t.Error("a second attempt with the old token made another")
	}
	if m.refresh(fresh, now) || m.refresh(fresh, slot.Add(44*time.Minute)) {
		t.Error("the slot got a third token")
	}
	if o := use(t, other, now); !other.refresh(o, now.Add(time.Minute)) || use(t, other, now.Add(time.Minute)).token != fresh.token {
		t.Error("another process made another token")
	}
	next := use(t, m, slot.Add(tokenSlot+2*time.Minute))
	if next.issued.Sub(fresh.issued) < minRefresh {
		t.Errorf("the next slot's token came %s after", next.issued.Sub(fresh.issued))
	}
}

func TestProviderTokenFreeze(t *testing.T) {
	t.Parallel()
	key, _ := newKey(t)
	m := &minter{key: key, keyID: "K", teamID: "T"}
	before := use(t, m, slot.Add(40*time.Minute))
	now := slot.Add(tokenSlot + 90*time.Second)
	refused := use(t, m, now)
	if refused == before {
		t.Fatal("the slot made no token")
	}
	m.freeze(refused, now)
	if use(t, m, now) != before || m.refresh(before, now) {
		t.Error("the old token is not kept")
	}
	if got := use(t, m, slot.Add(59*time.Minute)); got.token != refused.token {
		t.Error("a token that Apple takes no more was kept")
	}
}

func TestParseKey(t *testing.T) {
	t.Parallel()
	_, good := newKey(t)
	if _, err := parseKey(good); err != nil {
		t.Error(err)
	}
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	der, _ := x509.MarshalPKCS8PrivateKey(p384)
	for name, pemText := range map[string][]byte{
		"not PEM":     []byte("hello"),
		"not PKCS #8": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}),
		"P-384":       pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	} {
		if _, err := parseKey(pemText); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
