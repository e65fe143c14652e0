package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/klivvr/whisper/gateway/client"
)

func TestQuickReadsShareAFrame(t *testing.T) {
	t.Parallel()
	frames := make(chan []string, 100)
	s := serve(t, func(p *peer) {
		p.welcome()
		for {
			var f struct{ IDs []string }
			if p.ReadJSON(&f) != nil {
				return
			}
			frames <- f.IDs
		}
	})
	c := dial(t, s, client.Options{})
	var want, got []string
	for i := range 300 {
		want = append(want, fmt.Sprint("n", i))
		if err := c.Read(want[i]); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for ; len(got) < len(want); n++ {
		got = append(got, <-frames...)
	}
	if !slices.Equal(got, want) || n > 20 {
		t.Errorf("%d frames told %v", n, got)
	}
}

func TestReadsThatMayBeLostAreSentAgain(t *testing.T) {
	t.Parallel()
	cut := make(chan struct{})
	s := serve(t,
		func(p *peer) { p.welcome(); <-cut }, // it was sent, and nobody took it
		func(p *peer) { p.welcome(); p.listen() },
	)
	gone := make(chan struct{}, 2) // here, and by Close
	c := dial(t, s, client.Options{Disconnected: func(error) { gone <- struct{}{} }})
	if err := c.Read("a", "b"); err != nil {
		t.Fatal(err)
	}
	close(cut)
	<-gone
	if err := c.Read("c"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "they are told", func() bool { return slices.Equal(s.acked(), []string{"read a", "read b", "read c"}) })
	if err := c.Close(); err != nil || !errors.Is(c.Read("d"), client.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// What was gathered when Close was called is told before the connection is closed.
func TestCloseSendsTheReadsThatWait(t *testing.T) {
	t.Parallel()
	s := serve(t, func(p *peer) { p.welcome(); p.listen() })
	c := dial(t, s, client.Options{})
	for i := range 50 { // those after the first wait for the gathering
		if err := c.Read(fmt.Sprint("n", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	eventually(t, "all of them are told", func() bool { return len(s.acked()) == 50 })
}

// The application's function for tokens has a deadline.
func TestTheTokenFuncHasADeadline(t *testing.T) {
	t.Parallel()
	s := serve(t, func(p *peer) { p.welcome(); p.listen() })
	token := client.TokenFunc(func(ctx context.Context) (string, error) {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("it may take for ever")
		}
		return "token", nil
	})
	c := dialWith(t, s, token, client.Options{})
	_ = c.Close()
	<-c.Done()
}

// TestTheTokenFuncNeverRunsTwiceAtOnce: a connection ends while a token is got to refresh it, by a function that does not heed its context.
func TestTheTokenFuncNeverRunsTwiceAtOnce(t *testing.T) {
	t.Parallel()
	refreshing, twice, again := make(chan struct{}), make(chan struct{}), make(chan struct{})
	s := serve(t,
		func(p *peer) { p.welcome(); <-refreshing },
		func(p *peer) { close(again); p.welcome(); p.listen() },
	)
	var asked, running atomic.Int32
	token := client.TokenFunc(func(context.Context) (string, error) {
		defer running.Add(-1)
		if running.Add(1) > 1 {
			close(twice)
		}
		switch asked.Add(1) {
		case 1:
			return jwt(time.Second), nil
		case 2:
			close(refreshing)
			select {
			case <-twice:
			case <-time.After(300 * time.Millisecond): // for the next to come in; a slow machine may miss a fault, never make one up
			}
		}
		return jwt(time.Hour), nil
	})
	dialWith(t, s, token, client.Options{MinBackoff: time.Millisecond, MaxBackoff: 2 * time.Millisecond, HandshakeTimeout: 3 * time.Minute})
	<-again
	select {
	case <-twice:
		t.Error("it was asked while it had not answered")
	default:
	}
}

// TestGivingUpSendsTheReadsThatWait: the person has logged out, and saw something just before.
func TestGivingUpSendsTheReadsThatWait(t *testing.T) {
	t.Parallel()
	s := serve(t, func(p *peer) { p.welcome(); p.listen() })
	clients := make(chan *client.Client, 1)
	asked := 0
	token := client.TokenFunc(func(context.Context) (string, error) {
		if asked++; asked == 1 {
			return jwt(time.Second), nil
		}
		c := <-clients
		for _, id := range []string{"a", "b", "c"} { // those after the first wait for the gathering
			if err := c.Read(id); err != nil {
				t.Error(err)
			}
		}
		return "", fmt.Errorf("logged out: %w", client.ErrUnauthorized)
	})
	c := dialWith(t, s, token, client.Options{})
	clients <- c
	if err := ended(t, c); !errors.Is(err, client.ErrUnauthorized) {
		t.Errorf("it ended with %v", err)
	}
	eventually(t, "all of them are told", func() bool { return slices.Equal(s.acked(), []string{"read a", "read b", "read c"}) })
}

// refusing answers handshakes with a status, and then lets clients in.
func refusing(t *testing.T, status int, retryAfter string) (address string, gap func() time.Duration) {
	t.Helper()
	var n, first, second atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n.Add(1) {
		case 2:
			first.Store(time.Now().UnixNano())
			w.Header().Set("Retry-After", retryAfter)
			http.Error(w, "no", status)
			return
		case 3:
			second.Store(time.Now().UnixNano())
		}
		conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		_ = conn.WriteMessage(websocket.TextMessage, []byte(`{"type":"welcome"}`))
		if n.Load() > 1 {
			_, _, _ = conn.ReadMessage()
		}
	}))
	t.Cleanup(s.Close)
	return "ws" + strings.TrimPrefix(s.URL, "http"), func() time.Duration { return time.Duration(second.Load() - first.Load()) }
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	one := client.StaticToken("token")
	for name, tt := range map[string]struct {
		status     int
		retryAfter string
		token      client.Token
		least      time.Duration
		end        error
	}{
		"full, with seconds":         {503, "1", one, time.Second, nil},
		"too many, with seconds":     {429, "1", one, time.Second, nil},
		"restarting, without a time": {502, "", one, 0, nil},
		"a time that is over":        {503, "Mon, 23 Nov 2026 09:00:00 GMT", one, 0, nil},
		"too early":                  {425, "", one, 0, nil},
		"another token, please":      {401, "", tokens("token", "fresh"), 0, nil},
		"no other token":             {401, "", one, 0, client.ErrUnauthorized},
		"not from here":              {403, "", tokens("token", "fresh"), 0, client.ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, gap := refusing(t, tt.status, tt.retryAfter)
			sessions := make(chan string, 2)
			c, err := client.Dial(t.Context(), address, tt.token, client.Options{
				MinBackoff: time.Millisecond, MaxBackoff: 2 * time.Millisecond,
				Connected: func(session string) { sessions <- session },
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { end(c) })
			<-sessions
			if tt.end != nil {
				<-c.Done()
				if !errors.Is(c.Err(), tt.end) {
					t.Errorf("it ended with %v", c.Err())
				}
				return
			}
			<-sessions
			if gap() < tt.least {
				t.Errorf("it came again after %s", gap())
			}
		})
	}
}
