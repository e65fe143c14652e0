package fcm

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
	"golang.org/x/oauth2/jwt"

	"github.com/klivvr/whisper/consumers/push/bearer"
)

// scope is what an access token is for.
const scope = "https://www.googleapis.com/auth/firebase.messaging"

// errAccount: the text is not that of a service account that can sign.
var errAccount = errors.New("not a service account's key")

// account is a service account's key, as Google's console hands it out.
type account struct {
	project string
	email   string
	jwt     *jwt.Config
}

// maxAccountBytes is far over any such file.
const maxAccountBytes = 64 << 10

// parseAccount reads a service account's file, and says what is wrong with another one. Its errors have nothing of the text.
func parseAccount(text []byte) (*account, error) {
	if len(text) > maxAccountBytes {
		return nil, fmt.Errorf("%w: the file has %d bytes", errAccount, len(text))
	}
	var f struct {
		Type       string `json:"type"`
		Project    string `json:"project_id"`
		Email      string `json:"client_email"`
		PrivateKey string `json:"private_key"`
		TokenURI   string `json:"token_uri"`
		Info       any    `json:"project_info"` // of google-services.json, which apps have
		Installed  any    `json:"installed"`
	}
	if json.Unmarshal(text, &f) != nil {
		return nil, fmt.Errorf("%w: it is not JSON", errAccount)
	}
	const where = "the Firebase console makes one under Project settings, Service accounts"
	switch {
	case f.Info != nil:
		return nil, fmt.Errorf("%w but an app's google-services.json: %s", errAccount, where)
	case f.Installed != nil:
		return nil, fmt.Errorf("%w but an OAuth client's: %s", errAccount, where)
	case f.Type != "service_account":
		return nil, fmt.Errorf("%w: its type is %q: %s", errAccount, f.Type, where)
	}
	var errs []error
	for _, field := range []struct{ name, value string }{{"project_id", f.Project}, {"client_email", f.Email}, {"token_uri", f.TokenURI}} {
		if field.value == "" {
			errs = append(errs, fmt.Errorf("%w: %s is missing", errAccount, field.name))
		}
	}
	if err := checkKey(f.PrivateKey); err != nil {
		errs = append(errs, fmt.Errorf("%w: private_key: %w", errAccount, err))
	}
	if u, err := url.Parse(f.TokenURI); f.TokenURI != "" && (err != nil || u.Host == "" ||
		u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname()))) {
		errs = append(errs, fmt.Errorf("%w: token_uri is not an https address", errAccount))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	cfg, err := google.JWTConfigFromJSON(text, scope)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errAccount, err)
	}
	return &account{project: f.Project, email: f.Email, jwt: cfg}, nil
}

func checkKey(text string) error {
	if text == "" {
		return errors.New("it is missing")
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return errors.New("it is not PEM")
	}
	if _, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return errors.New("it can't be read: is it whole?")
	}
	if _, is := parsed.(*rsa.PrivateKey); !is {
		return errors.New("it is not an RSA key")
	}
	return nil
}

// minter makes access tokens. It reads the file again each time, so that a new key needs no restart. A file that has become bad,
// or another project's, is told, and the key before stays.
type minter struct {
	file    string // empty: the account never changes
	project string // the provider's; empty: that of the first file
	client  *http.Client
	log     *slog.Logger
	now     func() time.Time

	mu      sync.Mutex
	account *account
}

func (r *resolved) minter(secure *tls.Config) *minter {
	return &minter{
		file: r.CredentialsFile, project: r.account.project, account: r.account, log: r.Logger, now: r.Now,
		client: &http.Client{
			Timeout:       r.RequestTimeout, // x/oauth2 has no context for its request
			Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: secure, MaxIdleConns: 1, IdleConnTimeout: time.Minute},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// mint implements bearer.Config.Mint.
func (m *minter) mint(ctx context.Context) (bearer.Token, error) {
	a := m.current()
	token, err := a.jwt.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, m.client)).Token()
	if err != nil {
		return bearer.Token{}, &noTokenError{email: a.email, err: err}
	}
	if token.AccessToken == "" {
		return bearer.Token{}, fmt.Errorf("get an access token for %s: the answer has none", a.email)
	}
	return bearer.Token{Value: token.AccessToken, Expires: token.Expiry}, nil
}

// noTokenError tells why there is no access token. Of an answer it has the beginning: that may be any page.
type noTokenError struct {
	email string
	err   error
}

// maxErrorBytes has room for what Google says.
const maxErrorBytes = 512

func (e *noTokenError) Unwrap() error { return e.err }
func (e *noTokenError) Error() string {
	text := e.err.Error()
	if len(text) > maxErrorBytes {
		text = strings.ToValidUTF8(text[:maxErrorBytes], "") + "…"
	}
	return "get an access token for " + e.email + ": " + text
}

// current is the account in the file, or the one before if that can't be used.
func (m *minter) current() *account {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.file == "" {
		return m.account
	}
	text, err := os.ReadFile(m.file)
	var a *account
	if err == nil {
		a, err = parseAccount(text)
	}
	if err == nil && a.project != m.project {
		err = fmt.Errorf("it is of the project %s, not of %s", a.project, m.project)
	}
	if err != nil {
		m.log.Error("the service account's file can't be used: the key before stays", "file", m.file, "error", err)
		return m.account
	}
	m.account = a
	return a
}

// isLoopback: nobody else hears what is sent there.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}
