package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// keepFresh gives the connection a new token before the one that it was made with expires, as often as
// that is due, until stop. It is a timer, and a goroutine while a token is fetched.
func (c *Client) keepFresh() (stop func()) {
	if !c.token.renewable() {
		return func() {}
	}
	ctx, cancel := context.WithCancel(c.ctx)
	f := &freshener{c: c, ctx: ctx}
	c.mu.Lock()
	token := c.current
	c.mu.Unlock()
	f.schedule(refreshIn(token, time.Now()))
	return func() {
		cancel()
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.timer != nil {
			f.timer.Stop()
		}
	}
}

type freshener struct {
	c   *Client
	ctx context.Context

	mu    sync.Mutex
	timer *time.Timer
}

func (f *freshener) schedule(in time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if in > 0 && f.ctx.Err() == nil {
		f.timer = time.AfterFunc(in, f.refresh)
	}
}

// refresh that comes to nothing is tried again while the connection lasts; when the token has expired, the
// server ends it with 4002.
func (f *freshener) refresh() {
	token, err := f.c.fetchToken(f.ctx)
	if f.ctx.Err() != nil {
		return
	}
	if errors.Is(err, ErrUnauthorized) {
		f.c.giveUp(err)
		return
	}
	if err == nil {
		err = f.c.send(refreshFrame{"refresh", token})
	}
	if err != nil {
		f.c.opts.Logger.Info("client can't refresh its token", "error", err)
		f.schedule(f.c.opts.MaxBackoff/2 + rand.N(f.c.opts.MaxBackoff/2+1))
		return
	}
	f.schedule(refreshIn(token, time.Now()))
}

// refreshIn is when to ask for the next token: within the two minutes, or two fifths of what is left, before
// the end, spread so that those who connected together don't ask together. 0: the token does not tell its
// end, or is about to.
func refreshIn(token string, now time.Time) time.Duration {
	left := lifetime(token, now)
	margin := min(time.Minute, left/5)
	if margin < 10*time.Millisecond {
		return 0
	}
	return left - margin - rand.N(margin)
}

// lifetime is how long a JWT is good for. The machine's clock may be wrong: where it says more than the whole life of
// the token, or less than nothing, the token counts as just issued.
func lifetime(token string, now time.Time) time.Duration {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return 0
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Exp float64 `json:"exp"`
		Iat float64 `json:"iat"`
	}
	const year = 365 * 24 * 3600
	if err != nil || json.Unmarshal(text, &claims) != nil || claims.Exp <= 0 {
		return 0
	}
	left := claims.Exp - float64(now.UnixMilli())/1000
	if whole := claims.Exp - claims.Iat; claims.Iat > 0 && (left > whole || left <= 0) {
		left = whole
	}
	return time.Duration(max(0, min(left, year)) * float64(time.Second))
}
