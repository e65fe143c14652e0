package simulator

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Scope is what a client must ask for.
const Scope = "https://www.googleapis.com/auth/firebase.messaging"

// wider is another scope that allows to send messages.
const wider = "https://www.googleapis.com/auth/cloud-platform"

// account is a service account's file, as Google's console hands it out.
type account struct {
	Type         string `json:"type"`
	ProjectID    string `json:"project_id"`
	PrivateKeyID string `json:"private_key_id"`
	PrivateKey   string `json:"private_key"`
	ClientEmail  string `json:"client_email"`
	ClientID     string `json:"client_id"`
	AuthURI      string `json:"auth_uri"`
	TokenURI     string `json:"token_uri"`
}

// Credentials is the text of a service account's file that works here.
func (s *Simulator) Credentials() []byte {
	der, err := x509.MarshalPKCS8PrivateKey(s.key)
	if err != nil { // an RSA key can be
		panic(err)
	}
	text, err := json.MarshalIndent(account{
		Type: "service_account", ProjectID: s.cfg.Project, PrivateKeyID: "simulator",
		PrivateKey:  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		ClientEmail: s.email(), ClientID: "100000000000000000000",
		AuthURI: "https://accounts.google.com/o/oauth2/auth", TokenURI: s.tokenURI(),
	}, "", "  ")
	if err != nil { // plain texts
		panic(err)
	}
	return append(text, '\n')
}

func (s *Simulator) email() string {
	return "firebase-adminsdk@" + s.cfg.Project + ".iam.gserviceaccount.com"
}

// tokenURI is the token endpoint by the name that clients know.
func (s *Simulator) tokenURI() string {
	if len(s.cfg.Hosts) == 0 {
		return s.URL() + "/token"
	}
	_, port, _ := net.SplitHostPort(s.Addr()) // of a listener
	return "https://" + net.JoinHostPort(s.cfg.Hosts[0], port) + "/token"
}

// Revoke makes every access token that was given out invalid.
func (s *Simulator) Revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.access)
}

func (s *Simulator) authorized(header string) bool {
	scheme, token, _ := strings.Cut(header, " ")
	s.mu.Lock()
	defer s.mu.Unlock()
	end, has := s.access[token]
	return has && strings.EqualFold(scheme, "bearer") && s.now().Before(end)
}

// token is Google's token endpoint for service accounts.
func (s *Simulator) token(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, word, text string) {
		writeJSON(w, status, map[string]string{"error": word, "error_description": text})
	}
	s.mu.Lock()
	a, asked := s.minting.Next()
	s.mu.Unlock()
	if asked && !s.wait(r, a.Delay) {
		return
	}
	switch {
	case asked && (a.Fault == Silent || a.Fault == Cut || a.Fault == Reset):
		if a.Fault == Silent {
			<-r.Context().Done()
		}
		panic(http.ErrAbortHandler)
	case asked && a.Body != nil:
		w.WriteHeader(max(a.Status, http.StatusOK))
		_, _ = w.Write([]byte(*a.Body)) // the client is gone
		return
	case asked && a.Status == http.StatusBadRequest:
		refuse(a.Status, "invalid_grant", "Invalid JWT Signature.")
		return
	case asked && a.Status >= 300:
		refuse(a.Status, "internal_failure", "")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if r.Method != http.MethodPost || r.ParseForm() != nil || r.PostForm.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		refuse(http.StatusBadRequest, "unsupported_grant_type", "Invalid grant_type")
		return
	}
	if word, text := s.grant(r.PostForm.Get("assertion")); word != "" {
		refuse(http.StatusBadRequest, word, text)
		return
	}
	access := "ya29.simulated." + rand.Text()
	s.mu.Lock()
	now := s.now()
	for token, end := range s.access {
		if !now.Before(end) {
			delete(s.access, token)
		}
	}
	s.access[access] = now.Add(s.cfg.TokenLife)
	s.counts.Tokens++
	s.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": access, "expires_in": int(s.cfg.TokenLife.Seconds()), "token_type": "Bearer",
	})
}

// grant checks an assertion; word is empty if it is good.
func (s *Simulator) grant(assertion string) (word, text string) {
	var claims struct {
		jwt.RegisteredClaims
		Scope string `json:"scope"`
	}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithTimeFunc(s.now), jwt.WithLeeway(time.Minute), jwt.WithExpirationRequired(),
		jwt.WithIssuer(s.email()), jwt.WithIssuedAt(),
	)
	_, err := parser.ParseWithClaims(assertion, &claims, func(*jwt.Token) (any, error) { return &s.key.PublicKey, nil })
	switch {
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return "invalid_grant", "Invalid grant: account not found"
	case errors.Is(err, jwt.ErrTokenExpired), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return "invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."
	case err != nil:
		return "invalid_grant", "Invalid JWT Signature."
	case !slices.Contains(claims.Audience, s.tokenURI()):
		return "invalid_grant", "Invalid JWT: Failed audience check."
	}
	scopes := strings.Fields(claims.Scope)
	if !slices.Contains(scopes, Scope) && !slices.Contains(scopes, wider) {
		return "invalid_scope", "Invalid OAuth scope or ID token audience provided."
	}
	return "", ""
}

// sharedKey is the signing key of simulators without a file: making one takes a while.
var sharedKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// signingKey is the key of an account in a file, or a new one.
func signingKey(path string) (*rsa.PrivateKey, error) {
	if path == "" {
		return sharedKey()
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		return nil, fmt.Errorf("fcm simulator: its credentials: %w", err)
	}
	var a account
	if json.Unmarshal(text, &a) == nil {
		if block, _ := pem.Decode([]byte(a.PrivateKey)); block != nil {
			if parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
				if key, is := parsed.(*rsa.PrivateKey); is {
					return key, nil
				}
			}
		}
	}
	return nil, fmt.Errorf("fcm simulator: %s is not a service account's file", path)
}
