package bearer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// mint makes tokens of an hour, and takes a second for each.
func mint(n *atomic.Int32, fail *atomic.Bool) func(context.Context) (Token, error) {
	return func(ctx context.Context) (Token, error) {
		made := n.Add(1)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return Token{}, ctx.Err()
		}
		if fail.Load() {
			return Token{}, errors.New("no token today")
		}
		return Token{Value: fmt.Sprint(made), Expires: time.Now().Add(time.Hour)}, nil
	}
}

func get(t *testing.T, c *Cache) *Token {
	t.Helper()
	token, err := c.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestEverybodyGetsOneToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		c := New(Config{Mint: mint(&n, new(atomic.Bool))})
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if token := get(t, c); token.Value != "1" {
					t.Errorf("got %q", token.Value)
				}
			})
		}
		all.Wait()
		if n.Load() != 1 {
			t.Errorf("%d tokens were minted", n.Load())
		}
	})
}

func TestATokenIsReplacedAheadWithoutWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		c := New(Config{Mint: mint(&n, new(atomic.Bool))})
		get(t, c)
		<-time.After(56 * time.Minute)
		start := time.Now()
		if token := get(t, c); token.Value != "1" || time.Since(start) != 0 {
			t.Errorf("got %q after %v", token.Value, time.Since(start))
		}
		synctest.Wait()
		<-time.After(time.Second)
		synctest.Wait()
		if token := get(t, c); token.Value != "2" {
			t.Errorf("got %q", token.Value)
		}
	})
}

func TestAFailingMintKeepsTheOldTokenAndIsNotAskedAllTheTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n, errs atomic.Int32
		var fail atomic.Bool
		c := New(Config{Mint: mint(&n, &fail), OnError: func(error) { errs.Add(1) }})
		get(t, c)
		fail.Store(true)
		<-time.After(58 * time.Minute)
		for range 20 {
			if token := get(t, c); token.Value != "1" {
				t.Fatalf("got %q", token.Value)
			}
		}
		<-time.After(5 * time.Minute)
		for range 20 { // it has expired
			if token, err := c.Get(t.Context()); err == nil {
				t.Fatalf("got %q", token.Value)
			}
		}
		if n.Load() != 3 || errs.Load() != 2 {
			t.Errorf("asked %d times, told of %d errors", n.Load(), errs.Load())
		}
		fail.Store(false)
		<-time.After(6 * time.Second)
		if token := get(t, c); token.Value != "4" {
			t.Errorf("got %q", token.Value)
		}
	})
}

func TestARefusedTokenIsReplacedOnceAndNotTooSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		c := New(Config{Mint: mint(&n, new(atomic.Bool)), Apart: 10 * time.Minute})
		first := get(t, c)
		if c.Refuse(first) {
			t.Error("a token that is that young is replaced")
		}
		<-time.After(11 * time.Minute)
		for range 2 { // two attempts were refused with it
			if !c.Refuse(first) {
				t.Error("an old one is not replaced")
			}
		}
		second := get(t, c)
		if second.Value != "2" || !c.Refuse(first) || get(t, c) != second || n.Load() != 2 {
			t.Errorf("got %q of %d", second.Value, n.Load())
		}
	})
}

func TestGetEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		c := New(Config{Mint: mint(&n, new(atomic.Bool))})
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := c.Get(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if token := get(t, c); token.Value != "1" || n.Load() != 1 {
			t.Errorf("the mint that the first began is lost: %q of %d", token.Value, n.Load())
		}
	})
}
