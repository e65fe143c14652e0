package client

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/gorilla/websocket"
)

// A pause says why there is no connection, and how to go on.
type pause struct {
	err   error
	after time.Duration // at least this long; 0: back off
	end   bool          // trying again is useless
	moved bool          // the server asked for it, so it is no failure
	by    time.Time     // the server asked to leave by then, and ended earlier
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

// run is the client's goroutine: it reads one connection after another. The inbox has its own for handing over.
func (c *Client) run(l *link) {
	failures := 0
	for {
		began := time.Now()
		why := c.receive(l)
		if c.opts.Disconnected != nil {
			c.opts.Disconnected(why.err)
		}
		if time.Since(began) > c.opts.MaxBackoff || why.moved || !why.by.IsZero() {
			failures = 0
		}
		if l = c.reconnect(why, &failures); l == nil {
			break
		}
		c.open(l)
	}
	c.cancel()
	c.reads.close()
	c.inbox.wait()
	close(c.ended)
}

// reconnect tries until there is a connection. It returns nil if the client has ended.
func (c *Client) reconnect(why *pause, failures *int) *link {
	for {
		if c.ctx.Err() != nil {
			why = &pause{err: ErrClosed, end: true}
		}
		c.mu.Lock()
		if c.useless != nil {
			why = &pause{err: c.useless, end: true}
		}
		if why.end {
			c.err = why.err
		}
		c.mu.Unlock()
		if why.end {
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
		l, err := c.connect()
		if err == nil {
			return l
		}
		c.opts.Logger.Info("client can't connect", "error", err)
		why = pauseOf(err)
	}
}

// giveUp ends the client although it has a connection, because another will not be possible.
func (c *Client) giveUp(err error) {
	c.mu.Lock()
	c.useless = err
	l := c.link
	c.mu.Unlock()
	if l != nil {
		c.reads.tell()
		l.hangUp(websocket.CloseNormalClosure)
	}
}

func pauseOf(err error) *pause {
	var p *pause
	if errors.As(err, &p) {
		return p
	}
	return &pause{err: err}
}

// backoff is exponential with full jitter, so that clients that lost their node together return spread out.
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
