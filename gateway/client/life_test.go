package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/klivvr/whisper/gateway/client"
)

// ended waits for the client's end.
func ended(t *testing.T, c *client.Client) error {
	t.Helper()
	select {
	case <-c.Done():
		return c.Err()
	case <-time.After(3 * time.Minute):
		t.Fatal("it goes on")
		return nil
	}
}

func TestDialsContextBoundsOnlyDial(t *testing.T) {
	t.Parallel()
	s := serve(t,
		func(p *peer) { p.welcome(); p.hear() },
		func(p *peer) { p.welcome(); p.notify("a"); p.listen() },
	)
	ctx, cancel := context.WithCancel(t.Context())
	c, err := client.Dial(ctx, s.address(), client.StaticToken("token"), client.Options{MinBackoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := c.Read("x"); err != nil { // the server cuts the connection then
		t.Fatal(err)
	}
	if n := <-c.Notifications(); n.ID != "a" {
		t.Errorf("got %+v", n)
	}
	_ = c.Close()
	if err := ended(t, c); !errors.Is(err, client.ErrClosed) {
		t.Errorf("ended with %v", err)
	}
}

func TestDialCanBeCancelled(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]func(*peer){
		"before the welcome": func(p *peer) { p.listen() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, script)
			ctx, cancel := context.WithCancel(t.Context())
			token := client.TokenFunc(func(context.Context) (string, error) {
				time.AfterFunc(20*time.Millisecond, cancel)
				return "token", nil
			})
			_, err := client.Dial(ctx, s.address(), token, client.Options{HandshakeTimeout: time.Hour})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Dial: %v", err)
			}
		})
	}
	t.Run("while a token is got", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		token := client.TokenFunc(func(ctx context.Context) (string, error) {
			cancel()
			<-ctx.Done()
			return "", ctx.Err()
		})
		if _, err := client.Dial(ctx, "ws://127.0.0.1:1/v1/socket", token, client.Options{}); !errors.Is(err, context.Canceled) {
			t.Errorf("Dial: %v", err)
		}
	})
}

// TestCloseWithinCallbacks: no callback waits for itself.
func TestCloseWithinCallbacks(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]func(end func()) client.Options{
		"Handle": func(end func()) client.Options {
			return client.Options{Handle: func(context.Context, client.Notification) error { end(); return nil }}
		},
		"Retracted":    func(end func()) client.Options { return client.Options{Retracted: func(string) { end() }} },
		"Disconnected": func(end func()) client.Options { return client.Options{Disconnected: func(error) { end() }} },
		"Connected": func(end func()) client.Options {
			n := 0
			return client.Options{Connected: func(string) {
				if n++; n == 2 { // the first time, Dial has not returned
					end()
				}
			}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			goOn := make(chan struct{})
			s := serve(t, func(p *peer) {
				p.welcome()
				<-goOn
				p.notify("a")
				p.send(`{"type":"retracted","id":"b"}`)
				if strings.HasSuffix(name, "onnected") {
					return
				}
				p.listen()
			})
			var c *client.Client
			opts := options(func() { _ = c.Close() })
			if opts.Handle == nil {
				opts.Handle = func(context.Context, client.Notification) error { return nil }
			}
			c = dial(t, s, opts)
			close(goOn)
			if err := ended(t, c); !errors.Is(err, client.ErrClosed) {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

// TestCloseCancelsTheHandlersContext, so that one that takes long can stop; Done waits for it.
func TestCloseCancelsTheHandlersContext(t *testing.T) {
	t.Parallel()
	s := serve(t, func(p *peer) { p.welcome(); p.notify("a", "b"); p.listen() })
	began, over := make(chan struct{}), atomic.Int32{}
	c := dial(t, s, client.Options{Handle: func(ctx context.Context, _ client.Notification) error {
		close(began) // b would close it again
		<-ctx.Done()
		over.Add(1)
		return nil
	}})
	<-began
	end(c)
	if n := over.Load(); n != 1 {
		t.Errorf("%d handlers are over", n)
	}
	if acks := s.acked(); len(acks) > 1 {
		t.Errorf("the server got %v", acks)
	}
}

// TestPingsAreAnsweredWhileAHandlerRuns: the server pings, goes on sending and is heard all the time.
func TestPingsAreAnsweredWhileAHandlerRuns(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	pongs := make(chan struct{}, 100)
	s := serve(t, func(p *peer) {
		p.welcome()
		p.SetPongHandler(func(string) error { pongs <- struct{}{}; return nil })
		p.notify("slow", "next")
		for range 5 {
			_ = p.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Minute))
		}
		p.listen()
	})
	var got atomic.Int32
	var gone atomic.Int32
	dial(t, s, client.Options{
		Handle: func(ctx context.Context, _ client.Notification) error {
			got.Add(1)
			select {
			case <-release:
			case <-ctx.Done():
			}
			return nil
		},
		Disconnected: func(error) { gone.Add(1) },
	})
	for range 5 {
		select {
		case <-pongs:
		case <-time.After(3 * time.Minute):
			t.Fatal("a ping was not answered while the handler ran")
		}
	}
	if len(s.acked()) > 0 || gone.Load() > 0 || got.Load() > 1 {
		t.Errorf("acknowledged %v, cut %d times, handed over %d", s.acked(), gone.Load(), got.Load())
	}
	close(release)
	eventually(t, "both are acknowledged", func() bool { return slices.Equal(s.acked(), []string{"ack slow", "ack next"}) })
}

// TestAFullQueueStopsReading: what does not fit stays with the server, and if that closes the connection, nothing is lost
// or handed over twice.
func TestAFullQueueStopsReading(t *testing.T) {
	t.Parallel()
	var all []string
	for i := range 20 {
		all = append(all, fmt.Sprint("n", i))
	}
	release := make(chan struct{})
	pongs := make(chan struct{}, 1)
	s := serve(t,
		func(p *peer) {
			p.welcome()
			p.SetPongHandler(func(string) error { pongs <- struct{}{}; return nil })
			p.notify(all[:10]...)
			_ = p.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Minute)) // behind what does not fit
			<-release
		},
		func(p *peer) { p.welcome(); p.notify(all...); p.listen() },
	)
	var mu sync.Mutex
	var got []string
	c := dial(t, s, client.Options{Queue: 3, Handle: func(ctx context.Context, n client.Notification) error {
		select {
		case <-release:
		case <-ctx.Done():
			return ctx.Err()
		}
		mu.Lock()
		defer mu.Unlock()
		got = append(got, n.ID)
		return nil
	}})
	select {
	case <-pongs:
		t.Error("it read on with a full queue")
	case <-time.After(100 * time.Millisecond):
	}
	close(release) // the handler is quick from here on; the server closes
	eventually(t, "all are acknowledged over the second connection", func() bool {
		acks := map[string]bool{}
		for _, a := range s.acked() {
			acks[a] = true
		}
		return len(acks) == len(all)
	})
	end(c)
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(got)
	if slices.Sort(all); !slices.Equal(got, all) {
		t.Errorf("handed over %v", got)
	}
}

// TestAnAlertOvertakesWhatWaits, with a handler and with the channel.
func TestAnAlertOvertakesWhatWaits(t *testing.T) {
	t.Parallel()
	serveLanes := func(began <-chan struct{}) (s *server, all chan struct{}) {
		all = make(chan struct{})
		return serve(t, func(p *peer) {
			p.welcome()
			p.SetPongHandler(func(string) error { close(all); return nil })
			for _, n := range [][2]string{{"l1", "low"}, {"l2", "low"}, {"n", "normal"}, {"h", "high"}} {
				p.send(`{"type":"notification","id":%q,"lane":%q,"at":"2026-11-23T09:00:00Z"}`, n[0], n[1])
				<-began
			}
			_ = p.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Minute)) // answered when it has read all of them
			p.listen()
		}), all
	}
	t.Run("handler", func(t *testing.T) {
		t.Parallel()
		began := make(chan struct{})
		begin := sync.OnceFunc(func() { close(began) })
		s, all := serveLanes(began)
		var mu sync.Mutex
		var got []string
		dial(t, s, client.Options{Handle: func(_ context.Context, n client.Notification) error {
			begin()
			<-all
			mu.Lock()
			defer mu.Unlock()
			got = append(got, n.ID)
			return nil
		}})
		eventually(t, "all are handled", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == 4 })
		if want := []string{"l1", "h", "n", "l2"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
	t.Run("channel", func(t *testing.T) {
		t.Parallel()
		began := make(chan struct{})
		close(began)
		s, all := serveLanes(began)
		c := dial(t, s, client.Options{})
		<-all
		var got []string
		for range 4 {
			got = append(got, (<-c.Notifications()).ID)
		}
		// The one on offer may be taken in the moment in which the alert comes.
		if slices.Index(got, "h") > 1 || slices.Index(got, "l1") > slices.Index(got, "l2") {
			t.Errorf("got %v", got)
		}
	})
}

// TestARetractionComesAfterItsNotification, also where that still waits.
func TestARetractionComesAfterItsNotification(t *testing.T) {
	t.Parallel()
	all := make(chan struct{})
	s := serve(t, func(p *peer) {
		p.welcome()
		p.SetPongHandler(func(string) error { close(all); return nil })
		p.send(`{"type":"notification","id":"first","lane":"low","at":"2026-11-23T09:00:00Z"}`)
		p.send(`{"type":"notification","id":"taken","lane":"low","at":"2026-11-23T09:00:00Z"}`)
		p.send(`{"type":"retracted","id":"taken"}`)
		_ = p.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Minute))
		p.listen()
	})
	var mu sync.Mutex
	var got []string
	add := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, what)
	}
	dial(t, s, client.Options{
		Handle:    func(_ context.Context, n client.Notification) error { <-all; add(n.ID); return nil },
		Retracted: func(id string) { add("retracted " + id) },
	})
	eventually(t, "all are told", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == 3 })
	if want := []string{"first", "taken", "retracted taken"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAFrameThatIsTooLargeEndsTheConnection(t *testing.T) {
	t.Parallel()
	s := serve(t,
		func(p *peer) {
			p.welcome()
			p.send(`{"type":"later","text":%q}`, strings.Repeat("x", 5000))
			p.listen()
		},
		func(p *peer) { p.welcome(); p.notify("a"); p.listen() },
	)
	why := make(chan error, 2)
	c := dial(t, s, client.Options{ReadLimit: 4096, Disconnected: func(err error) { why <- err }})
	if n := <-c.Notifications(); n.ID != "a" {
		t.Errorf("got %+v", n)
	}
	if err := <-why; !errors.Is(err, websocket.ErrReadLimit) {
		t.Errorf("it ended with %v", err)
	}
}

// TestATokenFuncThatIsUnauthorizedEndsTheClient: before a connection, and to refresh.
func TestATokenFuncThatIsUnauthorizedEndsTheClient(t *testing.T) {
	t.Parallel()
	out := fmt.Errorf("logged out: %w", client.ErrUnauthorized)
	for name, tt := range map[string]struct {
		left   time.Duration // of the first token, from when it is got
		script func(*peer)
	}{
		"before a connection": {time.Hour, func(p *peer) { p.welcome() }},
		"to refresh":          {time.Second, func(p *peer) { p.welcome(); p.listen() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := 0
			token := client.TokenFunc(func(context.Context) (string, error) {
				if asked++; asked > 1 {
					return "", out
				}
				return jwt(tt.left), nil
			})
			c := dialWith(t, serve(t, tt.script), token, client.Options{})
			if err := ended(t, c); !errors.Is(err, client.ErrUnauthorized) {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

func TestValidationNamesEveryProblem(t *testing.T) {
	t.Parallel()
	_, err := client.Dial(t.Context(), "ws://127.0.0.1:1/v1/socket", client.Token{}, client.Options{
		Window: -1, ReadLimit: -1, Header: map[string][]string{"Authorization": {"x"}},
	})
	for _, want := range []string{"token", "Window", "ReadLimit", "Authorization"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

// TestAReusedIDIsAnotherNotification, and what was read says of which.
func TestAReusedIDIsAnotherNotification(t *testing.T) {
	t.Parallel()
	frames := make(chan string, 10)
	s := serve(t, func(p *peer) {
		p.welcome()
		for _, receipt := range []string{"w1", "w2", "w1"} {
			p.send(`{"type":"notification","id":"r","lane":"high","at":"2026-11-23T09:00:00Z","receipt":%q}`, receipt)
		}
		for {
			_, text, err := p.ReadMessage()
			if err != nil {
				return
			}
			frames <- string(text)
		}
	})
	c := dial(t, s, client.Options{})
	var notes []client.Notification
	for range 2 {
		notes = append(notes, <-c.Notifications())
	}
	want := []string{`{"type":"ack","ids":["r"],"receipts":["w1"]}`, `{"type":"ack","ids":["r"],"receipts":["w2"]}`}
	for len(want) > 0 {
		f := <-frames
		if f == want[0] {
			want = want[1:]
		} else if f != `{"type":"ack","ids":["r"],"receipts":["w1"]}` {
			t.Fatalf("the server got %s", f)
		}
	}
	if err := c.Read("r", "older"); err != nil {
		t.Fatal(err)
	}
	read := func(want string) {
		t.Helper()
		f := <-frames
		for strings.HasPrefix(f, `{"type":"ack"`) {
			f = <-frames
		}
		if f != want {
			t.Errorf("the server got %s, want %s", f, want)
		}
	}
	read(`{"type":"read","ids":["r","older"],"receipts":["w2",""]}`)
	if err := c.ReadNotification(notes[0]); err != nil {
		t.Fatal(err)
	}
	read(`{"type":"read","ids":["r"],"receipts":["w1"]}`)
	if err := c.Read("older"); err != nil {
		t.Fatal(err)
	}
	read(`{"type":"read","ids":["older"]}`)
}
