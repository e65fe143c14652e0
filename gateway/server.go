package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Handler serves GET /v1/socket; it may be mounted beside others. It answers 503 until Run has made
// the gateway ready, and while it drains.
func (g *Gateway) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/socket", g.serveSocket)
	return mux
}

func (g *Gateway) serveSocket(w http.ResponseWriter, r *http.Request) {
	upgrade := isUpgrade(r.Header)
	if upgrade && !g.originAllowed(r) {
		http.Error(w, "this origin may not connect", http.StatusForbidden)
		return
	}
	if upgrade {
		if status, problem := checkUpgrade(r.Header); status != 0 {
			w.Header().Set("Sec-WebSocket-Version", "13")
			http.Error(w, problem, status)
			return
		}
		if !g.admit(w, r) {
			return
		}
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
		http.Error(w, errNotUpgrade.Error(), http.StatusUpgradeRequired)
		return
	}
	auto := r.URL.RawQuery != "" && r.URL.Query().Get("ack") == "auto"
	s := newSession(g, grant, auto)
	s.address = addressOf(r.RemoteAddr)
	if failed := g.connect(s, w); failed != nil {
		g.cfg.Logger.Debug("connection lost in its handshake", "node", g.cfg.Node, "error", failed)
		g.release(s.address)
		return
	}
	g.open(s, switching(r.Header), err)
}

// connect takes the socket over for the session, out of net/http and, where it can be polled, out of net.
func (g *Gateway) connect(s *session, w http.ResponseWriter) error {
	conn, err := hijack(w)
	if err != nil {
		return err
	}
	if p := g.pollerOf(conn); p != nil {
		s.link, err = p.adopt(s, conn)
		return err
	}
	s.link = &stream{Conn: conn, s: s, timeout: g.cfg.WriteTimeout}
	return nil
}

// open welcomes the session and lets frames come, or says why not. What goes out first follows the answer
// to the handshake in the same write. The handler returns afterwards: nothing of net/http is kept.
func (g *Gateway) open(s *session, handshake []byte, refusal error) {
	switch {
	case refusal != nil:
		g.metrics.unauthorized.Inc()
		code := closeUnauthorized
		if errors.Is(refusal, errTokenExpired) {
			code = closeExpired
		}
		s.refuse(handshake, code, refusal.Error())
	case s.join(append(handshake, welcomeFrame(s.id, g.cfg.PingInterval)...)):
		s.link.start() // before anybody writes: a write that is blocked needs the poller
		s.flushNow()
		if s.revoked() { // while it was let in
			s.close(closeUnauthorized, errRevoked.Error(), false)
		}
		if !g.serving() { // drain may have passed by between admit and join
			s.close(closeRestarting, "the node is restarting", false)
		}
	default:
		s.refuse(handshake, closeTooMany, "too many connections for this user")
	}
}

// refuse tells a session that never opened why.
func (s *session) refuse(handshake []byte, code int, reason string) {
	s.mu.Lock()
	s.user = "" // not listened to, and not in the hub
	s.writer, s.urgent = waiting, true
	s.mu.Unlock()
	s.part(code, append(handshake, closeFrame(code, reason)...), false)
	s.link.start()
	s.flushNow()
}

// flushNow writes what is queued before anybody else can; writer is waiting.
func (s *session) flushNow() {
	box := outboxes.Get().(*outbox)
	s.flush(box)
	outboxes.Put(box)
}

// admit reserves a connection, or answers with a time to wait that spreads those who come again.
func (g *Gateway) admit(w http.ResponseWriter, r *http.Request) bool {
	if err := g.Ready(); err != nil {
		g.metrics.notReady.Inc()
		refuse(w, http.StatusServiceUnavailable, jitter(time.Second, 2*time.Second), err.Error())
		return false
	}
	n := g.connections.Add(1)
	if n > g.limit.Load() {
		g.connections.Add(-1)
		g.metrics.full.Inc()
		refuse(w, http.StatusServiceUnavailable, jitter(5*time.Second, 10*time.Second), "the node is full")
		return false
	}
	from := addressOf(r.RemoteAddr)
	if !g.addresses.add(from) { // first, so that one address can't take the others' turns
		g.connections.Add(-1)
		g.metrics.addressFull.Inc()
		refuse(w, http.StatusTooManyRequests, jitter(10*time.Second, 20*time.Second), fmt.Sprintf("at most %d connections from one address", g.cfg.MaxPerAddress))
		return false
	}
	if wait := g.admission.take(g.cfg.Now()); wait > 0 {
		g.connections.Add(-1)
		g.addresses.remove(from)
		g.metrics.paced.Inc()
		refuse(w, http.StatusServiceUnavailable, wait, "too many connect at once")
		return false
	}
	g.load()
	return true
}

func refuse(w http.ResponseWriter, status int, wait time.Duration, text string) {
	w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
	w.Header().Set("Connection", "close") // its place in the file table is worth more than a handshake of TCP
	http.Error(w, text, status)
}

// release gives back what admit reserved.
func (g *Gateway) release(a address) {
	g.addresses.remove(a)
	g.connections.Add(-1)
	g.load()
}

func (g *Gateway) load() {
	limit := g.limit.Load()
	if g.metrics.load(g.connections.Load, limit) {
		g.cfg.Logger.Warn("node is nearly full", "node", g.cfg.Node, "connections", g.connections.Load(), "limit", limit)
	}
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
