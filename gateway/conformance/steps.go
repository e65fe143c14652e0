package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Scenario is one play.
type Scenario struct {
	Name string `json:"name"`
	Why  string `json:"why"`
	// Nodes of the scenario's own; 0: it shares one that nothing happens to.
	Nodes int `json:"nodes"`
	// Limits of its nodes.
	Limits Limits `json:"limits"`
	// Needs names what a client's surroundings must be able to do, "http-status": see the answer to a
	// handshake, which browsers hide.
	Needs string `json:"needs"`
	Steps []Step `json:"steps"`
}

// Limits are settings of a gateway; 0 is its default.
type Limits struct {
	MaxConnections int `json:"max_connections,omitempty"`
	MaxUnacked     int `json:"max_unacked,omitempty"`
}

// Step is one line of a play. The interpreter of a client does these itself:
//
//	connect    a new client: with a token of ttl_seconds (1 h), renewed by a callback unless callback is
//	           false, which gives tokens of kind; ack "auto"
//	fail       its handler throws the next times that it gets id
//	hold       its handler does not return for id, until release
//	release
//	handled    wait until its handler got exactly ids, in this order, since the beginning
//	retracted  wait until it was told that ids are retracted
//	read       it reports ids as read; with of "all", each notification that its handler got under one of ids, as it
//	           got it, so that two deliveries of one id are told apart
//	state      wait until its connection is open, or not (is: "open", "down")
//	ended      wait until it has given up, because of why (unauthorized, expired, refused)
//	leave      close it
//
// and hands the others to the stage, which does them or waits for what they say.
type Step struct {
	Op string `json:"op"`

	ID         string          `json:"id,omitempty"`
	IDs        []string        `json:"ids,omitempty"`
	Of         string          `json:"of,omitempty"`
	DaysAgo    int             `json:"days_ago,omitempty"`
	Without    string          `json:"without,omitempty"`
	Lane       string          `json:"lane,omitempty"`
	Times      int             `json:"times,omitempty"`
	TTLSeconds int64           `json:"ttl_seconds,omitempty"`
	Kind       string          `json:"kind,omitempty"`
	Callback   *bool           `json:"callback,omitempty"`
	Ack        string          `json:"ack,omitempty"`
	Is         string          `json:"is,omitempty"`
	Why        string          `json:"why,omitempty"`
	Node       int             `json:"node,omitempty"`
	Code       int             `json:"code,omitempty"`
	Frame      json.RawMessage `json:"frame,omitempty"`
	Mode       string          `json:"mode,omitempty"`
	Status     int             `json:"status,omitempty"`
	RetryAfter string          `json:"retry_after,omitempty"`
	Type       string          `json:"type,omitempty"`
	Count      int             `json:"count,omitempty"`
	MS         int64           `json:"ms,omitempty"`
}

// play does one step on the server's side.
func (w *world) play(ctx context.Context, s Step) error {
	switch s.Op {
	case "notify": // a notification, sent until it is acknowledged; asked for days_ago; without "receipt", as older gateways'
		return w.notify(ctx, s)
	case "again": // the same once more
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.again(ctx, s.ID, w.routes)
	case "front": // what becomes of new connections
		w.front.note(func() { w.front.mode = frontMode{s.Mode, s.Status, s.RetryAfter} })
		return nil
	case "inject": // a frame in the server's name
		w.front.inject(s.Frame)
		return nil
	case "close": // the server closes with a code
		w.front.closeWith(s.Code)
		return nil
	case "cut": // the network resets every connection
		w.front.cut()
		return nil
	case "revoke": // the tokens that the user has until now
		return w.revoke(ctx)
	case "drain", "stopped", "kill", "restart", "crowd", "uncrowd":
		return w.direct(ctx, s)
	default:
		return w.observe(ctx, s)
	}
}

// direct is about nodes.
func (w *world) direct(ctx context.Context, s Step) error {
	if !w.own || s.Node >= len(w.nodes) {
		return fmt.Errorf("%s: the scenario has no node %d of its own", s.Op, s.Node)
	}
	n := w.nodes[s.Node]
	switch s.Op {
	case "drain":
		n.drain()
		return nil
	case "stopped":
		return n.stopped(ctx)
	case "kill":
		n.kill()
		w.silent(n.settings.Node)
		return nil
	case "crowd": // others take so many of its connections
		return w.crowd(ctx, n, s.Count)
	case "uncrowd": // and leave
		w.uncrowd()
		return nil
	default:
		return n.start()
	}
}

// observe waits for what the server's side is to see.
func (w *world) observe(ctx context.Context, s Step) error {
	what := fmt.Sprintf("%s %v%s%d", s.Op, s.IDs, s.Type, s.Count+s.Code+s.Status)
	switch s.Op {
	case "delivered": // exactly these, each once, in any order
		return w.until(ctx, what, func(got snapshot) bool { return sameIDs(got.Delivered, s.IDs) })
	case "seen": // exactly these are read, each delivery once, in any order
		return w.until(ctx, what, func(got snapshot) bool { return sameIDs(got.Read, s.IDs) })
	case "frames": // so many frames of this type
		return w.until(ctx, what, func(got snapshot) bool { return count(got.Frames, s) >= s.Count })
	case "handed_back": // every frame of this type that names the id has a receipt for it
		for _, f := range w.look().Frames {
			for i, id := range f.IDs {
				if f.Type == s.Type && id == s.ID && (len(f.Receipts) != len(f.IDs) || f.Receipts[i] == "") {
					return fmt.Errorf("handed_back: a frame without the receipt of %s: %+v", s.ID, f)
				}
			}
		}
		return nil
	case "no_receipts": // no frame has any
		for _, f := range w.look().Frames {
			if len(f.Receipts) > 0 {
				return fmt.Errorf("no_receipts: %+v", f)
			}
		}
		return nil
	case "acks": // the client acknowledged the id exactly so often
		return w.until(ctx, what, func(got snapshot) bool { return acks(got.Frames, s.ID) == s.Count })
	case "sessions": // exactly so many so far
		return w.until(ctx, what, func(got snapshot) bool { return got.Sessions == s.Count })
	case "attempts":
		return w.until(ctx, what, func(got snapshot) bool { return got.Attempts >= s.Count })
	case "tokens": // so many different ones were shown
		return w.until(ctx, what, func(got snapshot) bool { return got.Tokens >= s.Count })
	case "goodbye": // the server has closed with this code
		return w.until(ctx, what, func(got snapshot) bool { return slices.Contains(got.Goodbyes, s.Code) })
	case "answered": // a handshake with this status, at least once
		return w.until(ctx, what, func(got snapshot) bool { return slices.Contains(got.Answers, s.Status) })
	case "patient": // after each answer with a Retry-After, nobody came before that time
		return w.patient()
	case "gap": // between the last two attempts
		return w.gap(time.Duration(s.MS) * time.Millisecond)
	case "still": // nobody tries to connect for so long
		return w.still(ctx, time.Duration(s.MS)*time.Millisecond)
	default:
		return fmt.Errorf("unknown step %q", s.Op)
	}
}

func sameIDs(got, want []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want)))
}

func count(frames []clientFrame, s Step) (n int) {
	for _, f := range frames {
		if f.Type == s.Type {
			n++
		}
	}
	return n
}

func acks(frames []clientFrame, id string) (n int) {
	for _, f := range frames {
		if f.Type == "ack" && slices.Contains(f.IDs, id) {
			n++
		}
	}
	return n
}

func (w *world) gap(least time.Duration) error {
	w.front.mu.Lock()
	defer w.front.mu.Unlock()
	n := len(w.front.attempts)
	if n < 2 {
		return fmt.Errorf("gap: there were %d attempts", n)
	}
	if got := w.front.attempts[n-1].Sub(w.front.attempts[n-2]); got < least {
		return fmt.Errorf("gap: it came again after %s, told to wait %s", got, least)
	}
	return nil
}

func (w *world) patient() error {
	w.front.mu.Lock()
	defer w.front.mu.Unlock()
	if len(w.front.waits) == 0 {
		return errors.New("patient: nobody was told to wait")
	}
	for _, told := range w.front.waits {
		for _, at := range w.front.attempts {
			if at.After(told.at) && at.Before(told.until) {
				return fmt.Errorf("patient: told to wait %s, it came again after %s", told.until.Sub(told.at), at.Sub(told.at))
			}
		}
	}
	return nil
}

func (w *world) still(ctx context.Context, d time.Duration) error {
	before := w.look().Attempts
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	if w.until(ctx, "nothing", func(got snapshot) bool { return got.Attempts != before }) == nil {
		return fmt.Errorf("still: %d attempts to connect", w.look().Attempts-before)
	}
	return nil
}
