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

// keepFresh gives the connection a new token before the current one expires, as often as needed, until stop. It costs a
// timer, and a goroutine while a token is fetched.
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

// refresh fetches and sends a token. If that fails it tries again while the connection lasts; once the token has
// expired the server ends the connection with 4002.
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

// refreshIn returns how long to wait before the next token is fetched: until some time in the last two minutes, or the
// last two fifths, of the token's life, at random so that clients that connected together don't ask together. It is 0
// if the token has no end or is about to expire.
func refreshIn(token string, now time.Time) time.Duration {
	left := lifetime(token, now)
	margin := min(time.Minute, left/5)
	if margin < 10*time.Millisecond {
		return 0
	}
	return left - margin - rand.N(margin)
}

// lifetime returns how long a JWT is still valid. The machine's clock may be wrong: if by it more is left than the
// token's whole life, or less than nothing, the token counts as just issued.
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
