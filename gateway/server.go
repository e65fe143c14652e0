package gateway

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// Handler serves GET /v1/socket; it may be mounted beside others. It answers 503 until Run has made
// the gateway ready, and while it drains.
func (g *Gateway) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/socket", g.serveSocket)
	return mux
}

func newUpgrader() *websocket.Upgrader {
	return &websocket.Upgrader{
		HandshakeTimeout: 10 * time.Second,
		ReadBufferSize:   256, // an acknowledgement; longer frames are read past the buffer
		WriteBufferSize:  256,
		WriteBufferPool:  writeBufferPool{}, // its writer is never used: frames go to the socket whole
		Subprotocols:     []string{subprotocol},
		CheckOrigin:      func(*http.Request) bool { return true }, // checked before, with our own answer
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			http.Error(w, reason.Error(), status)
		},
	}
}

type writeBufferPool struct{}

func (writeBufferPool) Get() any { return nil }
func (writeBufferPool) Put(any)  {}

func (g *Gateway) serveSocket(w http.ResponseWriter, r *http.Request) {
	upgrade := websocket.IsWebSocketUpgrade(r)
	if upgrade && !g.originAllowed(r) {
		http.Error(w, "this origin may not connect", http.StatusForbidden)
		return
	}
	if upgrade && !g.admit(w) {
		return
	}
	grant, err := g.verifier.verify(r.Context(), tokenOf(r))
	switch {
	case !upgrade && err != nil:
		g.metrics.unauthorized.Inc()
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	case !upgrade:
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "this is a WebSocket: connect with the headers of an upgrade", http.StatusUpgradeRequired)
		return
	}
	conn, upErr := g.upgrader.Upgrade(w, r, nil)
	if upErr != nil {
		g.release() // the upgrader has answered
		return
	}
	s := newSession(g, conn, grant, r.URL.Query().Get("ack") == "auto")
	// The handler returns and the reader goes on alone, so that nothing of net/http is kept.
	defer func() { go s.read() }()
	if err != nil {
		g.metrics.unauthorized.Inc()
		code := closeUnauthorized
		if errors.Is(err, errTokenExpired) {
			code = closeExpired
		}
		s.close(code, err.Error(), false)
		return
	}
	g.open(s)
}

// open welcomes the session and lets frames come.
func (g *Gateway) open(s *session) {
	if !s.join() {
		s.close(closeTooMany, "too many connections for this user", false)
		return
	}
	g.timekeeper.add(s)
	if s.revoked() { // while it was let in
		s.close(closeUnauthorized, errRevoked.Error(), false)
		return
	}
	if !g.serving() { // drain may have passed by between admit and add
		s.close(closeRestarting, "the node is restarting", false)
	}
}

// forget takes the session out of everything that could find it; idempotent.
func (g *Gateway) forget(s *session) {
	if s.user == "" {
		return
	}
	g.hub.remove(s)
	g.timekeeper.remove(s)
}

// admit reserves a connection, or answers 503 with a time to wait that spreads those who come again.
func (g *Gateway) admit(w http.ResponseWriter) bool {
	if err := g.Ready(); err != nil {
		g.metrics.notReady.Inc()
		refuse(w, 1, 3, err.Error())
		return false
	}
	limit := int64(g.cfg.MaxConnections)
	n := g.connections.Add(1)
	if n > limit {
		g.connections.Add(-1)
		g.metrics.full.Inc()
		refuse(w, 5, 15, "the node is full")
		return false
	}
	if g.metrics.load(n, limit) {
		g.cfg.Logger.Warn("node is nearly full", "node", g.cfg.Node, "connections", n, "limit", limit)
	}
	return true
}

func refuse(w http.ResponseWriter, least, most int, text string) {
	w.Header().Set("Retry-After", strconv.Itoa(least+rand.IntN(most-least+1)))
	http.Error(w, text, http.StatusServiceUnavailable)
}

// release gives back what admit reserved.
func (g *Gateway) release() {
	g.metrics.load(g.connections.Add(-1), int64(g.cfg.MaxConnections))
}

// originAllowed: programs send no Origin and are let through; the token is what protects.
func (g *Gateway) originAllowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	if len(g.cfg.Origins) > 0 {
		return slices.Contains(g.cfg.Origins, "*") || slices.ContainsFunc(g.cfg.Origins, func(o string) bool { return strings.EqualFold(o, origin) })
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}
