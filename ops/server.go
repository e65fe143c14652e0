package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"syscall"
	"time"
)

// Config of a Server.
type Config struct {
	// Addr is host:port to listen on (default 127.0.0.1:8081); port 0 takes a free one.
	Addr string
	// Pprof serves /debug/pprof. Profiles show memory contents, so it is off unless it is asked for.
	Pprof bool
	// Hosts are more names that it may be asked by, where a name is looked at: addresses, names without dots and a
	// cluster's own always pass.
	Hosts []string
	// IdleTimeout is when a connection that asks nothing is closed (2 minutes: more than between two scrapes).
	IdleTimeout time.Duration
	Logger      *slog.Logger
}

// DefaultAddr of the operations server.
const DefaultAddr = "127.0.0.1:8081"

// Validate names every problem of the settings.
func (c Config) Validate() error {
	if c.Addr == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(c.Addr); err != nil {
		return fmt.Errorf("ops-addr: %q is not host:port", c.Addr)
	}
	return nil
}

// Server answers operators while its process runs. A process that answers /livez is alive; it is ready
// when each of its components says so at the time of the question.
type Server struct {
	listener net.Listener
	mux      *http.ServeMux
	http     *http.Server

	mu         sync.Mutex
	checks     map[string]func() error
	partitions map[string]Partitions
	monitor    *HealthMonitor       // nil: the process has none
	pace       func() BroadcastPace // nil: it walks no broadcasts
}

// Listen takes the address, so that a busy port is an error before anything else has started. Run serves.
// A server that has no component yet is not ready.
func Listen(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Addr == "" {
		cfg.Addr = DefaultAddr
	}
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = 2 * time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("operations: %s is in use: stop what listens there, or choose another address with --ops-addr", cfg.Addr)
	}
	if err != nil {
		return nil, fmt.Errorf("operations: listen on %s: %w", cfg.Addr, err)
	}
	s := &Server{listener: listener, mux: http.NewServeMux(), checks: map[string]func() error{}, partitions: map[string]Partitions{}}
	s.mux.HandleFunc("GET /livez", live)
	s.mux.HandleFunc("GET /readyz", s.ready)
	s.mux.HandleFunc("GET /metrics", exposeMetrics)
	s.mux.HandleFunc("GET /v1/health", s.health)
	s.mux.HandleFunc("GET /v1/partitions", s.listStopped)
	s.mux.HandleFunc("POST /v1/partitions/retry", s.retryStopped)
	if cfg.Pprof {
		s.mux.HandleFunc("/debug/pprof/", pprof.Index)
		s.mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		s.mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		s.mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		s.mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	s.http = &http.Server{
		Handler:           guarded(s.mux, cfg.Hosts),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       cfg.IdleTimeout,
		// Above a CPU profile's default of 30 s.
		WriteTimeout: 2 * time.Minute,
		ErrorLog:     slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelWarn),
	}
	return s, nil
}

// Addr is the address it listens on.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close frees the address of a server that was never run.
func (s *Server) Close() error { return s.listener.Close() }

// Handle adds a route; the server may be running.
func (s *Server) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

// Component adds a check to /readyz: nil is ready, an error says what is missing. A second call with the
// same name replaces the first.
func (s *Server) Component(name string, ready func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks[name] = ready
}

// Remove forgets a component.
func (s *Server) Remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.checks, name)
}

// Reasons are why the process is not ready, a component each; empty: it is ready.
func (s *Server) Reasons() map[string]string {
	s.mu.Lock()
	checks := make(map[string]func() error, len(s.checks))
	for name, check := range s.checks {
		checks[name] = check
	}
	s.mu.Unlock()
	reasons := map[string]string{}
	if len(checks) == 0 {
		reasons["process"] = "starting"
	}
	for name, check := range checks {
		if err := check(); err != nil {
			reasons[name] = err.Error()
		}
	}
	return reasons
}

// Run serves until ctx ends, then lets answers under way finish for a moment.
func (s *Server) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(s.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("operations: serve on %s: %w", s.Addr(), err)
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := s.http.Shutdown(bounded); err != nil {
		_ = s.http.Close() // a profile under way ends with the process
	}
	return nil
}

func live(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]string{"status": "live"})
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	if reasons := s.Reasons(); len(reasons) > 0 {
		answer(w, http.StatusServiceUnavailable, map[string]any{"status": "not_ready", "reasons": reasons})
		return
	}
	answer(w, http.StatusOK, map[string]string{"status": "ready"})
}

// answer writes JSON; a caller who left in the middle is no error of ours.
func answer(w http.ResponseWriter, status int, doc any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(doc)
}
