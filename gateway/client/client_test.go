package client_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/klivvr/whisper/gateway/client"
)

// server plays one script a connection, in order; the last one again and again.
type server struct {
	*httptest.Server
	t       *testing.T
	mu      sync.Mutex
	scripts []func(*peer)
	tokens  []string
	acks    []string
}

// peer is the server's side of one connection.
type peer struct {
	*websocket.Conn
	s *server
}

func serve(t *testing.T, scripts ...func(*peer)) *server {
	t.Helper()
	s := &server{t: t, scripts: scripts}
	s.Server = httptest.NewServer(http.HandlerFunc(s.accept))
	t.Cleanup(s.Close)
	return s
}

func (s *server) accept(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	script := s.scripts[0]
	if len(s.scripts) > 1 {
		s.scripts = s.scripts[1:]
	}
	s.tokens = append(s.tokens, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	s.mu.Unlock()
	if script == nil {
		w.Header().Set("Retry-After", "0")
		http.Error(w, "full", http.StatusServiceUnavailable)
		return
	}
	conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	p := &peer{conn, s}
	script(p)
}

func (s *server) address() string { return "ws" + strings.TrimPrefix(s.URL, "http") + "/v1/socket" }

func (s *server) acked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.acks)
}

func (p *peer) send(format string, args ...any) {
	_ = p.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, format, args...))
}

func (p *peer) welcome() { p.send(`{"type":"welcome","session":"s","ping_seconds":25}`) }

func (p *peer) notify(ids ...string) {
	for _, id := range ids {
		p.send(`{"type":"notification","id":%q,"lane":"high","title":"t","data":{"a":1},"at":"2026-11-23T09:00:00Z"}`, id)
	}
}

// listen keeps what the client sends until it hangs up.
func (p *peer) listen() {
	for p.hear() {
	}
}

// hear keeps the next frame of the client; false: it has hung up.
func (p *peer) hear() bool {
	var f struct {
		Type string   `json:"type"`
		IDs  []string `json:"ids"`
	}
	if p.ReadJSON(&f) != nil {
		return false
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	for _, id := range f.IDs {
		p.s.acks = append(p.s.acks, f.Type+" "+id)
	}
	return true
}

func (p *peer) close(code int) {
	_ = p.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""))
	p.listen()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(3 * time.Minute)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

func dial(t *testing.T, s *server, opts client.Options) *client.Client {
	t.Helper()
	return dialWith(t, s, client.StaticToken("token"), opts)
}

func dialWith(t *testing.T, s *server, token client.Token, opts client.Options) *client.Client {
	t.Helper()
	opts.MinBackoff, opts.MaxBackoff = time.Millisecond, 10*time.Millisecond
	c, err := client.Dial(t.Context(), s.address(), token, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(c) })
	return c
}

// end closes the client and waits until none of its callbacks runs.
func end(c *client.Client) {
	_ = c.Close()
	<-c.Done()
}

// tokens gives these, and then the last one again and again.
func tokens(of ...string) client.Token {
	return client.TokenFunc(func(context.Context) (string, error) {
		token := of[0]
		if len(of) > 1 {
			of = of[1:]
		}
		return token, nil
	})
}

func TestAcknowledgesAfterTheHandlerAndDropsDuplicates(t *testing.T) {
	t.Parallel()
	s := serve(t, func(p *peer) {
		p.welcome()
		p.notify("a")
		p.hear()
		p.notify("a", "fails", "b")
		p.listen()
	})
	var mu sync.Mutex
	var got []string
	c := dial(t, s, client.Options{Handle: func(_ context.Context, n client.Notification) error {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, n.ID)
		if n.Lane != "high" || n.Title != "t" || string(n.Data) != `{"a":1}` || n.At.Year() != 2026 {
			t.Errorf("got %+v", n)
		}
		if n.ID == "fails" {
			return errors.New("not now")
		}
		return nil
	}})
	eventually(t, "the acks", func() bool { return len(s.acked()) == 3 })
	if want := []string{"ack a", "ack a", "ack b"}; !slices.Equal(s.acked(), want) {
		t.Errorf("the server got %v, want %v", s.acked(), want)
	}
	mu.Lock()
	if want := []string{"a", "fails", "b"}; !slices.Equal(got, want) {
		t.Errorf("the handler got %v, want %v", got, want)
	}
	mu.Unlock()
	if err := c.Read("a"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the read", func() bool { return slices.Contains(s.acked(), "read a") })
}

func TestDeliversOnTheChannel(t *testing.T) {
	t.Parallel()
	s := serve(t, func(p *peer) {
		p.welcome()
		p.notify("a", "b")
		p.listen()
	})
	c := dial(t, s, client.Options{})
	for _, want := range []string{"a", "b"} {
		if n := <-c.Notifications(); n.ID != want {
			t.Errorf("got %s, want %s", n.ID, want)
		}
	}
	eventually(t, "the acks", func() bool { return len(s.acked()) == 2 })
	end(c)
	if _, open := <-c.Notifications(); open {
		t.Error("the channel is open after Close")
	}
	if !errors.Is(c.Err(), client.ErrClosed) {
		t.Errorf("ended with %v", c.Err())
	}
}

func TestReconnects(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*peer){
		"after a cut":         func(p *peer) { p.Close() },
		"after a restart":     func(p *peer) { p.close(1012) },
		"when it was slow":    func(p *peer) { p.close(4004) },
		"when asked to":       func(p *peer) { p.send(`{"type":"reconnect","after_ms":5}`); p.listen() },
		"asked to, then shut": func(p *peer) { p.send(`{"type":"reconnect","after_ms":3600000}`); p.close(1012) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t,
				func(p *peer) { p.welcome(); p.notify("a"); leave(p) },
				nil, // full
				func(p *peer) { p.welcome(); p.notify("a", "b"); p.listen() },
			)
			var sessions, gone int
			c := dial(t, s, client.Options{
				Connected:    func(string) { sessions++ },
				Disconnected: func(error) { gone++ },
			})
			if n := <-c.Notifications(); n.ID != "a" {
				t.Fatal(n.ID)
			}
			if n := <-c.Notifications(); n.ID != "b" {
				t.Fatalf("got %s, want b: a came before", n.ID)
			}
			if sessions != 2 || gone != 1 {
				t.Errorf("%d connections, %d disconnections", sessions, gone)
			}
		})
	}
}

func TestARefusedTokenEndsTheClient(t *testing.T) {
	t.Parallel()
	s := serve(t, func(p *peer) { p.close(4001) })
	if _, err := client.Dial(t.Context(), s.address(), client.StaticToken("token"), client.Options{}); !errors.Is(err,
		client.ErrUnauthorized) {
		t.Errorf("Dial: %v", err)
	}
	later := serve(t, func(p *peer) { p.welcome(); p.close(4002) })
	c := dial(t, later, client.Options{})
	<-c.Done()
	if !errors.Is(c.Err(), client.ErrTokenExpired) {
		t.Errorf("ended with %v", c.Err())
	}
}

func TestAnExpiredTokenIsReplaced(t *testing.T) {
	t.Parallel()
	s := serve(t,
		func(p *peer) { p.welcome(); p.close(4002) },
		func(p *peer) { p.welcome(); p.notify("a"); p.listen() },
	)
	c := dialWith(t, s, tokens("token", "fresh"), client.Options{})
	<-c.Notifications()
	s.mu.Lock()
	defer s.mu.Unlock()
	if want := []string{"token", "fresh"}; !slices.Equal(s.tokens, want) {
		t.Errorf("tokens %v, want %v", s.tokens, want)
	}
}

func TestFramesOfALaterServerAreIgnored(t *testing.T) {
	t.Parallel()
	s := serve(t, func(p *peer) {
		p.welcome()
		p.send(`{"type":"fireworks"}`)
		p.send(`not json`)
		p.send(`{"type":"error","code":"unknown_id","message":"m"}`)
		p.send(`{"type":"retracted","id":"old"}`)
		p.notify("a")
		p.listen()
	})
	retracted := make(chan string, 1)
	c := dial(t, s, client.Options{Retracted: func(id string) { retracted <- id }})
	if n := <-c.Notifications(); n.ID != "a" {
		t.Errorf("got %s", n.ID)
	}
	if id := <-retracted; id != "old" {
		t.Errorf("retracted %s", id)
	}
}

func TestTheWindowIsBounded(t *testing.T) {
	t.Parallel()
	s := serve(t, func(p *peer) {
		p.welcome()
		p.notify("a", "b", "a", "c")
		for !slices.Contains(p.s.acked(), "ack c") && p.hear() {
		}
		p.notify("a")
		p.listen()
	})
	c := dial(t, s, client.Options{Window: 2})
	var got []string
	for range 4 {
		n := <-c.Notifications()
		got = append(got, n.ID)
	}
	if want := []string{"a", "b", "c", "a"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestBadAddresses(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "http://127.0.0.1/v1/socket", "ws://127.0.0.1:1/v1/socket"} {
		if _, err := client.Dial(t.Context(), address, client.StaticToken("token"), client.Options{}); err == nil {
			t.Errorf("%q was dialled", address)
		}
	}
}

// jwt is a token that tells its end; nothing checks its signature here.
func jwt(left time.Duration) string {
	now := time.Now()
	claims := fmt.Sprintf(`{"iat":%d,"exp":%d}`, now.Unix(), now.Add(left).Unix()+1)
	return "h." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".s"
}

// serving stands for a real gateway in the examples: it sends these to whoever connects.
func serving(ids ...string) (address string, done func()) {
	s := &server{scripts: []func(*peer){func(p *peer) { p.welcome(); p.notify(ids...); p.listen() }}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.accept))
	return s.address(), s.Close
}
