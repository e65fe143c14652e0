package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

const writeTimeout = 10 * time.Second

// goodbyeWait is how long Close keeps the connection open so that what was handed over can be acknowledged.
const goodbyeWait = time.Second

// link is one connection.
type link struct {
	conn     *websocket.Conn
	session  int    // counts from 1
	name     string // the server's for the session
	patience time.Duration
	leaving  atomic.Bool
}

// write sends a text frame; one writer at a time. A failed write ends the connection.
func (l *link) write(frame []byte) error {
	_ = l.conn.SetWriteDeadline(time.Now().Add(writeTimeout)) // on a closed socket the write fails
	if err := l.conn.WriteMessage(websocket.TextMessage, frame); err != nil {
		_ = l.conn.Close()
		return fmt.Errorf("send a frame: %w", err)
	}
	return nil
}

// hangUp sends a close frame and gives the server a second to answer it, after which the reader returns.
func (l *link) hangUp(code int) {
	l.leaving.Store(true)
	_ = l.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(time.Second))
	_ = l.conn.SetReadDeadline(time.Now().Add(time.Second)) // a socket that is already closed has no reader
}

// alive restarts the time that the server may be silent for.
func (l *link) alive() {
	if !l.leaving.Load() {
		_ = l.conn.SetReadDeadline(time.Now().Add(l.patience))
	}
}

// connect gets a token, connects and waits for the welcome, until the client's context ends.
func (c *Client) connect() (*link, error) {
	token := c.token.static
	if c.token.get != nil {
		var err error
		if token, err = c.fetchToken(c.ctx); err != nil {
			return nil, &pause{err: fmt.Errorf("get a token: %w", err), end: errors.Is(err, ErrUnauthorized)}
		}
	}
	conn, err := c.handshake(token)
	if err != nil {
		return nil, err
	}
	l, err := c.welcome(conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	c.mu.Lock()
	c.current = token
	c.mu.Unlock()
	return l, nil
}

// fetchToken calls the TokenFunc, never twice at once and with a deadline, since applications may not expect otherwise.
func (c *Client) fetchToken(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.HandshakeTimeout)
	defer cancel()
	select {
	case c.fetching <- struct{}{}:
		defer func() { <-c.fetching }()
		return c.token.get(ctx)
	case <-ctx.Done():
		return "", fmt.Errorf("another question for a token is not answered: %w", ctx.Err())
	}
}

func (c *Client) handshake(token string) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(c.ctx, c.opts.HandshakeTimeout)
	defer cancel()
	header := c.opts.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	header.Set("Authorization", "Bearer "+token)
	if header.Get("User-Agent") == "" {
		header.Set("User-Agent", userAgent())
	}
	conn, resp, err := c.dialer.DialContext(ctx, c.url, header)
	if resp != nil && resp.Body != nil {
		defer resp.Body.Close()
	}
	switch {
	case err == nil:
		conn.SetReadLimit(c.opts.ReadLimit)
		return conn, nil
	case resp == nil:
		return nil, &pause{err: err}
	case resp.StatusCode == http.StatusUnauthorized:
		return nil, &pause{err: ErrUnauthorized, end: !c.token.renewable()}
	case resp.StatusCode >= 400 && resp.StatusCode < 500 && !slices.Contains(passing, resp.StatusCode):
		return nil, &pause{err: fmt.Errorf("%w: HTTP %d", ErrRefused, resp.StatusCode), end: true}
	default:
		after := retryAfter(resp.Header.Get("Retry-After"), time.Now())
		return nil, &pause{err: fmt.Errorf("the server answers HTTP %d", resp.StatusCode), after: spread(after)}
	}
}

// userAgent is what operators see of the client: with this module's version, if the program knows it.
var userAgent = sync.OnceValue(func() string {
	const module = "github.com/klivvr/whisper/gateway/client"
	build, ok := debug.ReadBuildInfo()
	if ok {
		for _, dep := range build.Deps {
			if dep.Path == module && strings.HasPrefix(dep.Version, "v") {
				return "whisper-go/" + dep.Version
			}
		}
	}
	return "whisper-go"
})

// passing are the statuses from 400 to 499 that may be gone at the next attempt.
var passing = []int{http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests}

// retryAfter reads seconds or a date. It returns 0 if the header has neither; then the back-off decides.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(text); err == nil {
		return max(0, time.Duration(seconds)*time.Second)
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// spread adds up to a quarter, so that clients that were told the same time don't reconnect at the same moment.
func spread(d time.Duration) time.Duration { return d + rand.N(d/4+1) }

// welcome waits for the server's first frame, which says that the token was accepted.
func (c *Client) welcome(conn *websocket.Conn) (*link, error) {
	_ = conn.SetReadDeadline(time.Now().Add(c.opts.HandshakeTimeout))
	stop := context.AfterFunc(c.ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	var f frame
	err := conn.ReadJSON(&f)
	stop()
	if err != nil {
		return nil, c.why(err)
	}
	if f.Type != "welcome" {
		return nil, &pause{err: fmt.Errorf("the first frame is %q, not a welcome: %w", f.Type, ErrRefused), end: true}
	}
	c.session++
	l := &link{conn: conn, session: c.session, name: f.Session, patience: silence(f.PingSeconds)}
	l.alive()
	conn.SetPingHandler(func(payload string) error {
		c.reads.alive()
		l.alive()
		err := conn.WriteControl(websocket.PongMessage, []byte(payload), time.Now().Add(writeTimeout))
		if err != nil && !errors.Is(err, websocket.ErrCloseSent) {
			return fmt.Errorf("answer a ping: %w", err)
		}
		return nil
	})
	return l, nil
}

// silence is how long a server may be silent before the connection counts as dead: a little more than two pings.
func silence(pingSeconds float64) time.Duration {
	if pingSeconds <= 0 {
		pingSeconds = 25
	}
	return time.Duration(pingSeconds*2.5*float64(time.Second)) + time.Second
}

// open makes l the client's current connection.
func (c *Client) open(l *link) {
	c.reads.alive()
	c.mu.Lock()
	c.link = l
	c.mu.Unlock()
	if c.opts.Connected != nil {
		c.opts.Connected(l.name)
	}
	c.reads.tell()
}

// receive handles frames until the connection ends, and returns the reason.
func (c *Client) receive(l *link) *pause {
	stop := context.AfterFunc(c.ctx, func() { // Close ends the read
		c.inbox.rest(goodbyeWait)
		c.reads.tell()
		l.hangUp(websocket.CloseNormalClosure)
	})
	stopRefreshing := c.keepFresh()
	var move *time.Timer
	var moveAt time.Time
	defer func() {
		stop()
		stopRefreshing()
		if move != nil {
			move.Stop()
		}
		c.mu.Lock()
		c.link = nil
		c.mu.Unlock()
		_ = l.conn.Close()
		c.reads.lost()
	}()
	for {
		_, text, err := l.conn.ReadMessage()
		if err != nil {
			why := c.why(err)
			if move != nil {
				why.moved = !time.Now().Before(moveAt)
				why.by = moveAt
			}
			return why
		}
		c.reads.alive()
		var f frame
		if err := json.Unmarshal(text, &f); err != nil {
			c.opts.Logger.Warn("frame does not decode", "error", err)
			continue
		}
		if f.Type == "reconnect" && move == nil {
			after := max(0, time.Duration(f.AfterMS)*time.Millisecond)
			moveAt = time.Now().Add(after)
			move = time.AfterFunc(after, func() { l.hangUp(websocket.CloseGoingAway) })
			continue
		}
		if c.take(l, &f) {
			l.alive() // nothing was read during the wait, so its silence was ours
		}
	}
}

// take handles one frame, and says whether it had to wait for the application.
func (c *Client) take(l *link, f *frame) (waited bool) {
	switch f.Type {
	case "notification":
		return c.inbox.take(l.session, f.Notification)
	case "retracted":
		return c.inbox.takeBack(f.ID)
	case "error":
		c.opts.Logger.Warn("server refused a frame", "code", f.Code, "reason", f.Message)
	default: // a later version's
	}
	return false
}

// acknowledge reports that a delivery is handled, over the connection that delivered it.
func (c *Client) acknowledge(session int, of key) {
	if c.opts.AutoAck {
		return
	}
	if err := c.sendOver(session, newIDsFrame("ack", []key{of})); err != nil {
		c.opts.Logger.Info("acknowledgement not sent: the notification comes again", "notification_id", of.id, "error", err)
	}
}

// why translates the error that ended a connection.
func (c *Client) why(err error) *pause {
	if c.ctx.Err() != nil {
		return &pause{err: ErrClosed, end: true}
	}
	var closed *websocket.CloseError
	if !errors.As(err, &closed) {
		return &pause{err: err}
	}
	switch closed.Code {
	case 4001:
		return &pause{err: ErrUnauthorized, end: !c.token.renewable()}
	case 4002:
		if !c.token.renewable() {
			return &pause{err: ErrTokenExpired, end: true}
		}
		return &pause{err: err}
	default:
		return &pause{err: err}
	}
}
