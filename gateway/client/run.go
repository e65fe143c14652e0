package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gorilla/websocket"
)

// A pause is why there is no connection now, and how to go on.
type pause struct {
	err   error
	after time.Duration // at least this long; 0: back off
	end   bool          // trying again is useless
	fresh bool          // with a new token
	moved bool          // the server asked for it: not a failure
	by    time.Time     // it had asked for it by then, and left earlier
}

func (p *pause) Error() string { return p.err.Error() }
func (p *pause) Unwrap() error { return p.err }

func unwrapEnd(err error) error {
	var p *pause
	if errors.As(err, &p) {
		return p.err
	}
	return err
}

// run is the client's goroutine.
func (c *Client) run(conn *websocket.Conn) {
	failures := 0
	for {
		began := time.Now()
		why := c.receive(conn)
		if c.opts.Disconnected != nil {
			c.opts.Disconnected(why.err)
		}
		if time.Since(began) > c.opts.MaxBackoff || why.moved || !why.by.IsZero() {
			failures = 0
		}
		if conn = c.reconnect(why, &failures); conn == nil {
			break
		}
	}
	if c.channel != nil {
		close(c.channel)
	}
	c.cancel()
	c.reads.close()
	close(c.ended)
}

// reconnect waits and tries until there is a connection; nil: the client has ended.
func (c *Client) reconnect(why *pause, failures *int) *websocket.Conn {
	for {
		if c.ctx.Err() != nil {
			why = &pause{err: ErrClosed, end: true}
		}
		if why.fresh && c.opts.Token == nil {
			why = &pause{err: ErrTokenExpired, end: true}
		}
		if why.end {
			c.mu.Lock()
			c.err = why.err
			c.mu.Unlock()
			return nil
		}
		if !why.moved {
			wait := max(why.after, c.backoff(*failures))
			if !why.by.IsZero() {
				wait = min(wait, max(0, time.Until(why.by))) // it was about to leave anyhow
			}
			c.wait(wait)
			*failures++
		}
		if c.ctx.Err() != nil {
			continue
		}
		conn, err := c.connectAgain()
		if err == nil {
			return conn
		}
		c.opts.Logger.Info("client can't connect", "error", err)
		why = pauseOf(err)
	}
}

func (c *Client) connectAgain() (*websocket.Conn, error) {
	if c.opts.Token != nil {
		token, err := c.opts.Token(c.ctx)
		if err != nil {
			return nil, fmt.Errorf("get a token: %w", err)
		}
		c.token = token
	}
	conn, err := c.connect(c.ctx)
	if err != nil {
		return nil, err
	}
	return conn, c.welcome(conn)
}

func pauseOf(err error) *pause {
	var p *pause
	if errors.As(err, &p) {
		return p
	}
	return &pause{err: err}
}

// backoff is exponential with full jitter: clients that lost their node together come back spread out.
func (c *Client) backoff(failures int) time.Duration {
	ceiling := c.opts.MinBackoff << min(failures, 20)
	if ceiling <= 0 || ceiling > c.opts.MaxBackoff {
		ceiling = c.opts.MaxBackoff
	}
	return rand.N(ceiling + 1)
}

func (c *Client) wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c.ctx.Done():
	case <-timer.C:
	}
}

func (c *Client) connect(ctx context.Context) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.HandshakeTimeout)
	defer cancel()
	header := http.Header{"Authorization": {"Bearer " + c.token}}
	conn, resp, err := c.dialer.DialContext(ctx, c.url, header)
	if resp != nil && resp.Body != nil {
		defer resp.Body.Close()
	}
	switch {
	case err == nil:
		return conn, nil
	case resp == nil:
		return nil, &pause{err: err}
	case resp.StatusCode == http.StatusUnauthorized:
		return nil, &pause{err: ErrUnauthorized, end: c.opts.Token == nil}
	case resp.StatusCode >= 400 && resp.StatusCode < 500 && !slices.Contains(passing, resp.StatusCode):
		return nil, &pause{err: fmt.Errorf("%w: HTTP %d", ErrRefused, resp.StatusCode), end: true}
	default:
		after := retryAfter(resp.Header.Get("Retry-After"), time.Now())
		return nil, &pause{err: fmt.Errorf("the server answers HTTP %d", resp.StatusCode), after: spread(after)}
	}
}

// passing are the statuses of 400 to 499 that waiting may change.
var passing = []int{http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests}

// retryAfter reads seconds or a date; 0: there is nothing to read, so the back-off decides.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(text); err == nil {
		return max(0, time.Duration(seconds)*time.Second)
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// spread adds up to a quarter, so that those who were told the same do not come at the same moment.
func spread(d time.Duration) time.Duration { return d + rand.N(d/4+1) }

// frame is any frame of the server.
type frame struct {
	Type        string  `json:"type"`
	Session     string  `json:"session"`
	PingSeconds float64 `json:"ping_seconds"`
	AfterMS     int64   `json:"after_ms"`
	Code        string  `json:"code"`
	Message     string  `json:"message"`
	Notification
}

// welcome waits for the server's first frame, which says that the token was accepted.
func (c *Client) welcome(conn *websocket.Conn) error {
	_ = conn.SetReadDeadline(time.Now().Add(c.opts.HandshakeTimeout))
	stop := context.AfterFunc(c.ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	var f frame
	err := conn.ReadJSON(&f)
	stop()
	if err != nil {
		conn.Close()
		return c.why(err)
	}
	if f.Type != "welcome" {
		conn.Close()
		return &pause{err: fmt.Errorf("the first frame is %q, not a welcome: %w", f.Type, ErrRefused), end: true}
	}
	patience := silence(f.PingSeconds)
	c.reads.alive()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	conn.SetPingHandler(func(payload string) error {
		c.reads.alive()
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		err := conn.WriteControl(websocket.PongMessage, []byte(payload), time.Now().Add(writeTimeout))
		if err != nil && !errors.Is(err, websocket.ErrCloseSent) {
			return fmt.Errorf("answer a ping: %w", err)
		}
		return nil
	})
	c.mu.Lock()
	c.conn = conn
	c.mu.Unlock()
	if c.opts.Connected != nil {
		c.opts.Connected(f.Session)
	}
	c.reads.tell()
	return nil
}

// silence is how long a server may say nothing before it is taken for dead: two pings and a bit.
func silence(pingSeconds float64) time.Duration {
	if pingSeconds <= 0 {
		pingSeconds = 25
	}
	return time.Duration(pingSeconds*2.5*float64(time.Second)) + time.Second
}

// receive handles frames until the connection ends, and says why it did.
func (c *Client) receive(conn *websocket.Conn) *pause {
	// Close and ctx both end the read.
	stop := context.AfterFunc(c.ctx, func() { hangUp(conn, websocket.CloseNormalClosure) })
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
		c.conn = nil
		c.mu.Unlock()
		conn.Close()
		c.reads.lost()
	}()
	for {
		_, text, err := conn.ReadMessage()
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
			move = time.AfterFunc(after, func() { hangUp(conn, websocket.CloseGoingAway) })
			continue
		}
		if err := c.handle(&f); err != nil {
			return pauseOf(err)
		}
	}
}

// why reads a connection's end.
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
		return &pause{err: ErrUnauthorized, end: c.opts.Token == nil}
	case 4002:
		if c.opts.Token == nil {
			return &pause{err: ErrTokenExpired, end: true}
		}
		return &pause{err: err, fresh: true}
	default:
		return &pause{err: err}
	}
}

// handle deals with one frame; an error ends the connection.
func (c *Client) handle(f *frame) error {
	switch f.Type {
	case "notification":
		return c.notify(f.Notification)
	case "retracted":
		if c.opts.Retracted != nil {
			c.opts.Retracted(f.ID)
		}
	case "error":
		c.opts.Logger.Warn("server refused a frame", "code", f.Code, "reason", f.Message)
	default: // a later version's
	}
	return nil
}

// notify hands it over once, and acknowledges it each time.
func (c *Client) notify(n Notification) error {
	if !c.seen.has(n.ID) {
		if err := c.hand(n); err != nil {
			c.opts.Logger.Info("notification not handled", "notification_id", n.ID, "error", err)
			return nil // not acknowledged: it comes again
		}
		c.seen.add(n.ID)
	}
	if c.opts.AutoAck {
		return nil
	}
	return c.send(idsFrame{"ack", []string{n.ID}})
}

func (c *Client) hand(n Notification) error {
	if c.opts.Handle != nil {
		return c.opts.Handle(c.ctx, n)
	}
	select {
	case c.channel <- n:
		return nil
	case <-c.ctx.Done():
		return ErrClosed
	}
}

// window remembers the last ids.
type window struct {
	ids  map[string]struct{}
	ring []string
	next int
	size int
}

func newWindow(size int) window { return window{ids: map[string]struct{}{}, size: size} }

func (w *window) has(id string) bool {
	_, ok := w.ids[id]
	return ok
}

func (w *window) add(id string) {
	w.ids[id] = struct{}{}
	if len(w.ring) < w.size {
		w.ring = append(w.ring, id)
		return
	}
	delete(w.ids, w.ring[w.next])
	w.ring[w.next] = id
	w.next = (w.next + 1) % w.size
}
