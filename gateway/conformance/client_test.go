package conformance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klivvr/whisper/gateway/client"
	"github.com/klivvr/whisper/gateway/conformance"
)

func TestMain(m *testing.M) {
	conformance.RunIfNode()
	os.Exit(m.Run())
}

// TestConformance plays the list that every client of Whisper plays.
func TestConformance(t *testing.T) {
	t.Parallel()
	stage, err := conformance.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stage.Close)
	server := httptest.NewServer(stage.Handler())
	t.Cleanup(server.Close)
	var scenarios []conformance.Scenario
	if err := json.Unmarshal(conformance.Scenarios, &scenarios); err != nil {
		t.Fatal(err)
	}
	for _, scenario := range scenarios {
		t.Run(scenario.Name, func(t *testing.T) {
			t.Parallel()
			p := &player{t: t, control: server.URL, failing: map[string]int{}, release: make(chan struct{})}
			var world struct{ World, URL string }
			if err := p.post("/worlds", map[string]any{"nodes": scenario.Nodes, "limits": scenario.Limits}, &world); err != nil {
				t.Fatal(err)
			}
			p.world, p.url = "/worlds/"+world.World, world.URL
			t.Cleanup(p.leave)
			for i, step := range scenario.Steps {
				if err := p.play(step); err != nil {
					t.Fatalf("step %d, %s: %v; the handler got %v", i+1, step.Op, err, p.handled())
				}
			}
		})
	}
}

// player interprets the steps that are the client's.
type player struct {
	t                   *testing.T
	control, world, url string
	client              *client.Client
	dialled             error

	mu        sync.Mutex
	got       []string
	notes     []client.Notification // what got names
	retracted []string
	failing   map[string]int
	holding   string
	release   chan struct{}
	open      bool
}

func (p *player) handled() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

func (p *player) post(path string, body, into any) error {
	p.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		p.t.Fatal(err)
	}
	resp, err := http.Post(p.control+path, "application/json", bytes.NewReader(text)) //nolint:noctx // the stage bounds it
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	if resp.StatusCode >= 300 {
		return errors.New(strings.TrimSpace(string(answer)))
	}
	switch v := into.(type) {
	case nil:
	case *string:
		*v = string(answer)
	default:
		if err := json.Unmarshal(answer, v); err != nil {
			p.t.Fatalf("%s: %v in %s", path, err, answer)
		}
	}
	return nil
}

func (p *player) leave() {
	p.mu.Lock()
	if p.holding != "" {
		p.holding = ""
		close(p.release)
	}
	p.mu.Unlock()
	if p.client != nil {
		end(p.client)
	}
}

func (p *player) play(s conformance.Step) error {
	switch s.Op {
	case "connect":
		return p.connect(s)
	case "fail":
		p.mu.Lock()
		defer p.mu.Unlock()
		p.failing[s.ID] = s.Times
	case "hold":
		p.mu.Lock()
		defer p.mu.Unlock()
		p.holding = s.ID
	case "release":
		p.mu.Lock()
		defer p.mu.Unlock()
		p.holding = ""
		close(p.release)
	case "handled":
		return p.until(func() bool { return slices.Equal(p.got, s.IDs) })
	case "retracted":
		return p.until(func() bool { return slices.Equal(p.retracted, s.IDs) })
	case "read":
		if s.Of == "all" {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.client.ReadNotification(slices.DeleteFunc(slices.Clone(p.notes),
				func(n client.Notification) bool { return !slices.Contains(s.IDs, n.ID) })...)
		}
		return p.client.Read(s.IDs...)
	case "state":
		return p.until(func() bool { return p.open == (s.Is == "open") })
	case "ended":
		return p.ended(s.Why)
	case "leave":
		return p.client.Close()
	default:
		return p.post(p.world+"/steps", s, nil)
	}
	return nil
}

func (p *player) connect(s conformance.Step) error {
	ttl := s.TTLSeconds
	if ttl == 0 {
		ttl = 3600
	}
	token := func(context.Context) (string, error) {
		var token string
		err := p.post(p.world+"/token", map[string]any{"ttl_seconds": ttl, "kind": s.Kind}, &token)
		return token, err
	}
	opts := client.Options{
		Handle:     p.handle,
		Retracted:  func(id string) { p.change(func() { p.retracted = append(p.retracted, id) }) },
		Connected:  func(string) { p.change(func() { p.open = true }) },
		AutoAck:    s.Ack == "auto",
		MinBackoff: 20 * time.Millisecond, MaxBackoff: 200 * time.Millisecond, HandshakeTimeout: time.Second,
		Disconnected: func(error) { p.change(func() { p.open = false }) },
	}
	source := client.TokenFunc(token)
	if s.Callback != nil && !*s.Callback {
		static, err := token(p.t.Context())
		if err != nil {
			return err
		}
		source = client.StaticToken(static)
	}
	p.client, p.dialled = client.Dial(p.t.Context(), p.url, source, opts)
	if p.dialled != nil && reasonOf(p.dialled) == "" {
		return p.dialled
	}
	return nil
}

var reasons = map[error]string{
	client.ErrUnauthorized: "unauthorized",
	client.ErrTokenExpired: "expired",
	client.ErrRefused:      "refused",
}

func reasonOf(err error) string {
	for reason, name := range reasons {
		if errors.Is(err, reason) {
			return name
		}
	}
	return ""
}

func (p *player) ended(why string) error {
	err := p.dialled
	if err == nil {
		select {
		case <-p.client.Done():
			err = p.client.Err()
		case <-time.After(3 * time.Minute):
			return errors.New("it goes on")
		}
	}
	if reasonOf(err) != why {
		return fmt.Errorf("it ended because of %w, not %s", err, why)
	}
	return nil
}

func (p *player) handle(ctx context.Context, n client.Notification) error {
	p.mu.Lock()
	p.got, p.notes = append(p.got, n.ID), append(p.notes, n)
	fails := p.failing[n.ID] > 0
	p.failing[n.ID]--
	holds := p.holding == n.ID
	p.mu.Unlock()
	if n.Title != "Title of "+n.ID || n.Body != "نص "+n.ID || string(n.Data) != `{"id":"`+n.ID+`"}` || n.At.IsZero() {
		p.t.Errorf("got %+v", n)
	}
	if fails {
		return errors.New("not now")
	}
	if holds {
		select {
		case <-p.release:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (p *player) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func (p *player) until(ok func() bool) error {
	deadline := time.After(3 * time.Minute)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		p.mu.Lock()
		yes := ok()
		p.mu.Unlock()
		if yes {
			return nil
		}
		select {
		case <-deadline:
			return errors.New("waited in vain")
		case <-tick.C:
		}
	}
}

// end closes the client and waits until none of its callbacks runs.
func end(c *client.Client) {
	_ = c.Close()
	<-c.Done()
}
