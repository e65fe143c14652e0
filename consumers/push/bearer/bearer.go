// Package bearer holds the access token that a credential authenticates with: minted once for everybody who needs it,
// minted anew in the background before it expires, and never twice within a short time.
//
// It knows no provider: Mint makes the token, by an OAuth request or a signature. x/oauth2's ReuseTokenSource makes everybody wait
// while it refreshes, asks again for each attempt when that fails, and can't be told that a provider refused a token.
//
// APNs's tokens are not made here: there all processes must make the same one without talking to each other
// (consumers/push/apns/token.go).
package bearer

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Token is what is sent, and how long it may be. It never changes.
type Token struct {
	Value   string
	Expires time.Time // zero: never
}

// Config is one credential's.
type Config struct {
	// Mint makes a token. It runs once at a time, and not in the context of any attempt.
	Mint func(context.Context) (Token, error)
	// Timeout bounds one Mint (default 10 s).
	Timeout time.Duration
	// Ahead is how long before its end a token is replaced in the background (default 5 min). Until then, and if that
	// fails until its end, the old one is used.
	Ahead time.Duration
	// Apart is the least time between two Mints (default 1 min), FailedApart after one that failed (default 5 s).
	Apart, FailedApart time.Duration
	// OnError is called with the error of each Mint that fails; may be nil.
	OnError func(error)
	Now     func() time.Time
}

// Cache holds one token. It is safe for concurrent use.
type Cache struct {
	cfg Config

	mu      sync.Mutex
	token   *Token
	err     error         // of the last Mint, nil if it made token
	next    time.Time     // no Mint before
	minting chan struct{} // closed when the Mint under way ends
}

// New makes an empty cache: the first Get mints.
func New(cfg Config) *Cache {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Ahead <= 0 {
		cfg.Ahead = 5 * time.Minute
	}
	if cfg.Apart <= 0 {
		cfg.Apart = time.Minute
	}
	if cfg.FailedApart <= 0 {
		cfg.FailedApart = 5 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Cache{cfg: cfg}
}

// Get returns the token to use. It waits only where there is none that is valid. If none could be minted, it returns that error
// until the next Mint is allowed.
func (c *Cache) Get(ctx context.Context) (*Token, error) {
	for {
		c.mu.Lock()
		now := c.cfg.Now()
		valid := c.token != nil && (c.token.Expires.IsZero() || now.Before(c.token.Expires))
		if valid {
			t := c.token
			if !t.Expires.IsZero() && now.After(t.Expires.Add(-c.cfg.Ahead)) && c.minting == nil && !now.Before(c.next) {
				c.start()
			}
			c.mu.Unlock()
			return t, nil
		}
		if c.minting == nil {
			if now.Before(c.next) {
				err := c.err
				c.mu.Unlock()
				if err == nil {
					err = errTooSoon
				}
				return nil, err
			}
			c.start()
		}
		done := c.minting
		c.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for an access token: %w", ctx.Err())
		}
	}
}

var errTooSoon = fmt.Errorf("the access token has expired and the one before is too young to mint another")

// Refuse takes out a token that the provider refused, and says whether another attempt makes sense: there is a newer
// token, or one may be minted. A token younger than Apart stays, because minting another would not help.
func (c *Cache) Refuse(used *Token) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token != used {
		return true
	}
	if c.cfg.Now().Before(c.next) {
		return false
	}
	c.token = nil
	return true
}

// start begins a Mint. The mutex is held.
//
//nolint:contextcheck // a token is for all who wait for one, so it is not minted in the context of any
func (c *Cache) start() {
	done := make(chan struct{})
	c.minting = done
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), c.cfg.Timeout)
		defer cancel()
		t, err := c.cfg.Mint(ctx)
		c.mu.Lock()
		c.minting = nil
		c.err = err
		now := c.cfg.Now()
		if err == nil {
			c.token, c.next = &t, now.Add(c.cfg.Apart)
		} else {
			c.next = now.Add(c.cfg.FailedApart)
		}
		c.mu.Unlock()
		if err != nil && c.cfg.OnError != nil {
			c.cfg.OnError(err)
		}
		close(done)
	}()
}
