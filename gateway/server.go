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
// the gateway ready, and while it drains. Whatever is no upgrade ends its connection.
func (g *Gateway) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/socket", g.serveSocket)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close") // a place in the file table is worth more than a handshake of TCP
		hs := g.handshakes.of(r)
		defer hs.answered()
		switch hs.asked() {
		case http.StatusTooManyRequests:
			g.addressFull(w)
		case http.StatusServiceUnavailable:
			g.metrics.handshakes.Inc()
			refuse(w, http.StatusServiceUnavailable, jitter(time.Second, 4*time.Second), "too many connect at once")
		default:
			mux.ServeHTTP(w, r)
		}
	})
}

// serveSocket lets a client in, or says why not. Nothing of a stranger's costs the others more than looking at it:
// the token is verified before the connection takes a turn of the admission.
func (g *Gateway) serveSocket(w http.ResponseWriter, r *http.Request) {
	hs := g.handshakes.of(r)
	from := g.proxies.client(r, hs.conn)
	upgrade := isUpgrade(r)
	if upgrade && !g.originAllowed(r) {
		g.metrics.origin.Inc()
		g.refusals.tell("origin", from)
		http.Error(w, "this origin may not connect", http.StatusForbidden)
		return
	}
	if upgrade {
		if status, problem := checkUpgrade(r.Header); status != 0 {
			w.Header().Set("Sec-WebSocket-Version", "13")
			http.Error(w, problem, status)
			return
		}
		if err := g.Ready(); err != nil {
			g.metrics.notReady.Inc()
			refuse(w, http.StatusServiceUnavailable, jitter(time.Second, 2*time.Second), err.Error())
			return
		}
	}
	grant, err := g.verify(r)
	if err != nil && !g.mayTryTokens(w, from, err) {
		return
	}
	switch {
	case !upgrade && err != nil:
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	case !upgrade:
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, errNotUpgrade.Error(), http.StatusUpgradeRequired)
		return
	}
	if !hs.count(from) {
		g.addressFull(w)
		return
	}
	if !g.admit(w, err == nil) {
		return
	}
	auto, client := optionsOf(r)
	s := newSession(g, grant, auto)
	s.client = client
	s.address = hs.handOver()
	if failed := g.connect(s, w); failed != nil {
		g.cfg.Logger.Debug("connection lost in its handshake", "node", g.cfg.Node, "error", failed)
		g.release(s.address)
		return
	}
	g.open(s, switching(r.Header), err)
}

var errKeysBusy = errors.New("too many wait for the key set")

// verify checks the token of a request. Of those whose key is not known, a few wait until the key set is read again.
func (g *Gateway) verify(r *http.Request) (grant, error) {
	token := tokenOf(r)
	got, err := g.verifier.check(token)
	if !errors.Is(err, errUnknownKey) {
		return got, err
	}
	select {
	case g.renewals <- struct{}{}:
		defer func() { <-g.renewals }()
		return g.verifier.verify(r.Context(), token)
	default:
		return grant{}, errKeysBusy
	}
}

// mayTryTokens counts a token that does not let its bearer in. false: it is answered already, since there were too
// many from that address; otherwise the client is told what is wrong with it.
func (g *Gateway) mayTryTokens(w http.ResponseWriter, from address, err error) bool {
	if errors.Is(err, errKeysBusy) {
		g.metrics.paced.Inc()
		refuse(w, http.StatusServiceUnavailable, jitter(renewWait, renewWait), err.Error())
		return false
	}
	g.metrics.unauthorized.Inc()
	reason, cost := "bad token", priceBadToken
	switch {
	case errors.Is(err, errNoToken):
		reason = "no token"
	case errors.Is(err, errTokenExpired):
		reason, cost = "expired token", priceOldToken
	case errors.Is(err, errRevoked):
		reason, cost = "revoked token", priceOldToken
	}
	g.refusals.tell(reason, from)
	if g.badTokens.allow(from, g.now(), cost) {
		return true
	}
	g.metrics.badTokens.Inc()
	refuse(w, http.StatusTooManyRequests, jitter(10*time.Second, 20*time.Second), "too many tokens that are not valid from this address")
	return false
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
	if refusal != nil {
		s.refuse(handshake, refused(refusal))
		return
	}
	if displaced := s.join(append(handshake, welcomeFrame(s.id, g.cfg.PingInterval)...)); displaced != nil {
		displaced.close(closeTooMany, "too many connections of this user: this one was silent longest", false)
	}
	// Asked before anything is written, which takes a while: who has joined before the drain is asked to leave by it.
	late := !g.serving()
	s.link.start() // before anybody writes: a write that is blocked needs the poller
	s.flushNow()
	if s.revoked() { // while it was let in
		s.fail(refused(errRevoked))
	}
	if late { // drain may have passed by between admit and join
		s.close(closeRestarting, "the node is restarting", false)
	}
}

// refuse tells a session that never opened why.
func (s *session) refuse(handshake []byte, why *protocolError) {
	s.mu.Lock()
	s.user = "" // not listened to, and not in the hub
	s.writer, s.urgent = waiting, true
	s.mu.Unlock()
	s.part(why.close, append(handshake, closeFrame(why.close, why.reason())...), false)
	s.link.start()
	s.flushNow()
}

// flushNow writes what is queued before anybody else can; writer is waiting.
func (s *session) flushNow() {
	box := outboxes.Get().(*outbox)
	s.flush(box)
	outboxes.Put(box)
}

// admit reserves a connection, or answers with a time to wait that spreads those who come again. Who is only
// told what is wrong with its token takes no turn of the admission.
func (g *Gateway) admit(w http.ResponseWriter, welcome bool) bool {
	if g.connections.Add(1) > g.limit.Load() {
		g.connections.Add(-1)
		g.metrics.full.Inc()
		refuse(w, http.StatusServiceUnavailable, jitter(5*time.Second, 10*time.Second), "the node is full")
		return false
	}
	if welcome {
		if wait := g.admission.take(g.now()); wait > 0 {
			g.connections.Add(-1)
			g.metrics.paced.Inc()
			refuse(w, http.StatusServiceUnavailable, wait, "too many connect at once")
			return false
		}
	}
	g.load()
	return true
}

func (g *Gateway) addressFull(w http.ResponseWriter) {
	g.metrics.addressFull.Inc()
	refuse(w, http.StatusTooManyRequests, jitter(10*time.Second, 20*time.Second), fmt.Sprintf(
		"at most %d connections from one address", g.cfg.MaxPerAddress))
}

func refuse(w http.ResponseWriter, status int, wait time.Duration, text string) {
	w.Header().Set("Retry-After", strconv.Itoa(seconds(wait)))
	http.Error(w, text, status)
}

// seconds rounds up.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

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
		return slices.Contains(g.cfg.Origins, "*") ||
			slices.ContainsFunc(g.cfg.Origins, func(o string) bool { return strings.EqualFold(o, origin) })
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}
