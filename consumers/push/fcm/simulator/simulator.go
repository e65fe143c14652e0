// Package simulator is a Firebase Cloud Messaging for tests, `whisper dev` and benchmarks: the HTTP v1 API and Google's token
// endpoint over HTTP/2 and TLS, with their checks and answers, quotas, faults on demand, and a memory of what it was sent.
// Devices do not exist: what it accepts, it has delivered.
//
// It differs from Google: any token of letters, digits and `-_:.` is a device of its project; topics and conditions have no
// subscribers; nothing is stored, collapsed or expired.
package simulator

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/klivvr/whisper/consumers/push/localca"
	"github.com/klivvr/whisper/consumers/push/standin"
)

// Config says how the simulator behaves.
type Config struct {
	// Addr to listen on (default 127.0.0.1:0: a free port).
	Addr string
	// Project is the only one that it knows (default "simulated").
	Project string
	// Hosts are further names and addresses that clients know it by, for its certificate. The first is that of the token endpoint
	// in the credentials (default: the host of Addr).
	Hosts []string
	// CAFile, where it is set, gets the certificate that clients must trust, in PEM.
	CAFile string
	// CredentialsFile, where it is set, gets a service account for clients. The key of one that is there already is kept.
	CredentialsFile string
	// MaxConcurrentStreams of a connection (default 100, as Google's).
	MaxConcurrentStreams int
	// TokenLife is how long access tokens are good for (default 1 h).
	TokenLife time.Duration
	// Quota is how many requests a minute are served (0: any number), DeviceQuota how many of them to one device.
	Quota, DeviceQuota int
	// Latency of every answer about a message (default 0). An [Answer] may add to it.
	Latency time.Duration
	// Remember is how many of the last accepted messages are kept (default 1,000).
	Remember int
	Logger   *slog.Logger
	Now      func() time.Time
}

// Received is one message that was accepted.
type Received struct {
	At time.Time
	// Token is the device, by whichever field named it.
	Token string
	// Name is the id that it got.
	Name string
	// Body is the request's.
	Body []byte
}

// Counts are totals since the start.
type Counts struct {
	Connections int64
	Open        int64
	Accepted    int64
	Refused     map[string]int64 // by FCM's code, else Google's
	Unanswered  int64            // faults
	Tokens      int64            // access tokens that were given out
}

// Simulator is a running one.
type Simulator struct {
	cfg      Config
	log      *slog.Logger
	now      func() time.Time
	listener net.Listener
	server   *http.Server
	ca       []byte
	roots    *x509.CertPool
	key      *rsa.PrivateKey
	serving  sync.WaitGroup

	mu       sync.Mutex
	access   map[string]time.Time // access tokens and their end
	programs standin.ByToken[Answer]
	minting  standin.Answers[Answer]
	counts   Counts
	quota    window
	devices  map[string]*window
	kept     *standin.Record[Received]
	sequence int64
}

// Start listens and serves until Close; ctx bounds only the beginning.
func Start(ctx context.Context, cfg Config) (*Simulator, error) {
	cfg.setDefaults()
	host, _, err := net.SplitHostPort(cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("fcm simulator: its address: %w", err)
	}
	pair, ca, err := localca.New("FCM simulator", append(cfg.Hosts, host), cfg.Now())
	if err != nil {
		return nil, err
	}
	if cfg.CAFile != "" {
		if err := os.WriteFile(cfg.CAFile, ca, 0o600); err != nil {
			return nil, fmt.Errorf("fcm simulator: keep its certificate: %w", err)
		}
	}
	key, err := signingKey(cfg.CredentialsFile)
	if err != nil {
		return nil, err
	}
	s := &Simulator{
		cfg: cfg, log: cfg.Logger, now: cfg.Now, ca: ca, roots: x509.NewCertPool(), key: key,
		access: map[string]time.Time{}, programs: standin.ByToken[Answer]{},
		kept: standin.NewRecord[Received](cfg.Remember), devices: map[string]*window{}, counts: Counts{Refused: map[string]int64{}},
	}
	s.roots.AppendCertsFromPEM(ca)
	var lc net.ListenConfig
	if s.listener, err = lc.Listen(ctx, "tcp", cfg.Addr); err != nil {
		return nil, fmt.Errorf("fcm simulator: %w", err)
	}
	if cfg.CredentialsFile != "" {
		if err := os.WriteFile(cfg.CredentialsFile, s.Credentials(), 0o600); err != nil {
			_ = s.listener.Close()
			return nil, fmt.Errorf("fcm simulator: keep its credentials: %w", err)
		}
	}
	s.serve(pair)
	return s, nil
}

func (c *Config) setDefaults() {
	if c.Addr == "" {
		c.Addr = "127.0.0.1:0"
	}
	if c.Project == "" {
		c.Project = "simulated"
	}
	if c.MaxConcurrentStreams == 0 {
		c.MaxConcurrentStreams = 100
	}
	if c.TokenLife == 0 {
		c.TokenLife = time.Hour
	}
	if c.Remember == 0 {
		c.Remember = 1000
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
}

func (s *Simulator) serve(pair tls.Certificate) {
	mux := http.NewServeMux()
	mux.HandleFunc("/token", s.token)
	mux.HandleFunc("/v1/projects/", s.messages)
	mux.HandleFunc("POST /simulator/answers", s.controlAnswers)
	mux.HandleFunc("DELETE /simulator/answers", s.controlForget)
	mux.HandleFunc("POST /simulator/revoke", func(w http.ResponseWriter, _ *http.Request) { s.Revoke(); w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("GET /simulator/received", s.controlReceived)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { // as Google answers what it does not know
		w.Header().Set("Content-Type", "text/html; charset=UTF-8")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte("<!DOCTYPE html><html lang=en><title>Error 404 (Not Found)!!1</title></html>\n")) // the client is gone
	})
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	s.server = &http.Server{
		Handler: mux, Protocols: protocols, ReadHeaderTimeout: 10 * time.Second,
		HTTP2:     &http.HTTP2Config{MaxConcurrentStreams: s.cfg.MaxConcurrentStreams},
		ErrorLog:  slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		ConnState: s.connState,
	}
	s.serving.Go(func() {
		if err := s.server.ServeTLS(s.listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("fcm simulator ended", "error", err)
		}
	})
}

type connKey struct{}

func (s *Simulator) connState(_ net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.counts.Connections++
		s.counts.Open++
	case http.StateClosed, http.StateHijacked:
		s.counts.Open--
	case http.StateActive, http.StateIdle:
	}
}

// Run starts a simulator as a process of its own: it serves until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	s, err := Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer s.Close()
	s.log.Info("fcm simulator listening", "url", s.URL(), "project", s.Project(),
		"ca_file", cfg.CAFile, "credentials_file", cfg.CredentialsFile)
	defer s.Watch(func(r Received) { s.log.Info("message received", "name", r.Name, "bytes", len(r.Body)) })()
	<-ctx.Done()
	return nil
}

// URL is what a provider is given as its base URL.
func (s *Simulator) URL() string { return "https://" + s.Addr() }

// Addr is the address it listens on.
func (s *Simulator) Addr() string { return s.listener.Addr().String() }

// Project is the id of its project.
func (s *Simulator) Project() string { return s.cfg.Project }

// RootCAs are what a client must trust.
func (s *Simulator) RootCAs() *x509.CertPool { return s.roots }

// CAPEM is the same as text.
func (s *Simulator) CAPEM() []byte { return s.ca }

// Close cuts all connections and waits for what serves them.
func (s *Simulator) Close() {
	_ = s.server.Close() // a second Close finds it closed
	s.serving.Wait()
}

// Watch calls f with each accepted message; f must not block, nor call the simulator. The returned function ends it.
func (s *Simulator) Watch(f func(Received)) (cancel func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.kept.Watch(f)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.kept.Unwatch(id)
	}
}

// Received are the last accepted messages, oldest first.
func (s *Simulator) Received() []Received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept.All()
}

// Counts are the totals of now.
func (s *Simulator) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts
	c.Refused = make(map[string]int64, len(s.counts.Refused))
	for reason, n := range s.counts.Refused {
		c.Refused[reason] = n
	}
	return c
}

// accepted remembers a message and gives it its name.
func (s *Simulator) accepted(token string, body []byte) (name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sequence++
	s.counts.Accepted++
	at := s.now()
	r := Received{
		At: at, Token: token, Body: body,
		Name: fmt.Sprintf("projects/%s/messages/0:%d%%%016x", s.cfg.Project, at.UnixMicro(), s.sequence),
	}
	s.kept.Add(r)
	return r.Name
}

func (s *Simulator) unanswered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Unanswered++
}

// controlAnswers lets a person ask for answers: a JSON [Answer] with the token that it is for and how often.
func (s *Simulator) controlAnswers(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Token  string `json:"token"`
		Times  int    `json:"times"`
		Delay  string `json:"delay"` // as 1.5s
		Answer        // its own fields
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if in.Delay != "" {
		d, err := time.ParseDuration(in.Delay)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		in.Answer.Delay = d
	}
	s.Program(in.Token, in.Times, in.Answer)
	w.WriteHeader(http.StatusNoContent)
}

func (s *Simulator) controlForget(w http.ResponseWriter, r *http.Request) {
	s.Forget(r.URL.Query().Get("token"))
	w.WriteHeader(http.StatusNoContent)
}

func (s *Simulator) controlReceived(w http.ResponseWriter, _ *http.Request) {
	type shown struct {
		At   time.Time       `json:"at"`
		Name string          `json:"name"`
		Body json.RawMessage `json:"body"`
	}
	all := []shown{}
	for _, r := range s.Received() {
		all = append(all, shown{r.At, r.Name, r.Body})
	}
	writeJSON(w, http.StatusOK, all)
}
