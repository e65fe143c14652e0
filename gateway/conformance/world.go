package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
	"github.com/klivvr/whisper/gateway"
)

// world is the stage of one play: a user, nodes and a front. It plays dispatch for that user.
type world struct {
	stage *Stage
	user  string
	front *front
	nodes []*node
	own   bool              // the nodes are this world's alone
	crew  []*websocket.Conn // others on its nodes

	mu        sync.Mutex
	changes   chan struct{} // closed and replaced at each change
	presences map[string]*whisperv1.Presence
	routes    []*whisperv1.Route // all, in order
	pending   []*whisperv1.Route // those that are not acknowledged
	attempts  int32
	tokens    int
	delivered []fact
	read      []fact
}

// fact is what a gateway told of one delivery.
type fact struct{ id, delivery string }

// names are the notifications' ids, once for each delivery.
func names(facts []fact) []string {
	ids := make([]string, len(facts))
	for i, f := range facts {
		ids[i] = f.id
	}
	return ids
}

// snapshot is what the server's side has seen, in order. Delivered and Read name a notification once for each of its
// deliveries.
type snapshot struct {
	Delivered []string      `json:"delivered"`
	Read      []string      `json:"read"`
	Frames    []clientFrame `json:"frames"`
	Sessions  int           `json:"sessions"`
	Attempts  int           `json:"attempts"`
	Tokens    int           `json:"tokens"` // different ones
	Answers   []int         `json:"answers"`
	Goodbyes  []int         `json:"goodbyes"`
}

func (w *world) look() snapshot {
	w.mu.Lock()
	s := snapshot{Delivered: names(w.delivered), Read: names(w.read)}
	w.mu.Unlock()
	w.front.mu.Lock()
	defer w.front.mu.Unlock()
	s.Frames, s.Sessions, s.Attempts = slices.Clone(w.front.frames), w.front.sessions, len(w.front.attempts)
	s.Answers, s.Goodbyes = slices.Clone(w.front.answers), slices.Clone(w.front.goodbyes)
	tokens := slices.Clone(w.front.tokens)
	slices.Sort(tokens)
	s.Tokens = len(slices.Compact(tokens))
	return s
}

func (w *world) changed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wake()
}

func (w *world) wake() {
	close(w.changes)
	w.changes = make(chan struct{})
}

// until waits for a state of things and says what it is instead when the time is over.
func (w *world) until(ctx context.Context, what string, ok func(snapshot) bool) error {
	for {
		w.mu.Lock()
		changes := w.changes
		w.mu.Unlock()
		s := w.look()
		if ok(s) {
			return nil
		}
		select {
		case <-changes:
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s: the server's side saw %+v", what, s)
		}
	}
}

// upstream is the first node that takes connections.
func (w *world) upstream() (net.Conn, error) {
	for _, n := range w.nodes {
		if conn, err := n.dial(); err == nil {
			return conn, nil
		}
	}
	return nil, errors.New("no node is up")
}

// token is good from now on for ttl, unless its signature is to be wrong. Long ones differ by a second
// each, so that they can be told apart.
func (w *world) token(ttl time.Duration, kind string) (string, error) {
	secret := Secret
	if kind == "wrong" {
		secret = "not the secret of the conformance scenarios"
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if ttl >= time.Minute {
		ttl += time.Duration(w.tokens) * time.Second
		w.tokens++
	}
	return gateway.SignToken([]byte(secret), w.user, ttl, time.Now())
}

// notify makes a notification, which is sent to the user's sessions until it is acknowledged. One that was asked for
// days ago is another delivery than a later one of the same id, and has another receipt.
func (w *world) notify(ctx context.Context, s Step) error {
	id, lane := s.ID, s.Lane
	if lane == "" {
		lane = "normal"
	}
	l, err := domain.ParseLane(lane)
	if err != nil {
		return err
	}
	now := time.Now().AddDate(0, 0, -s.DaysAgo)
	delivery := domain.NewDeliveryID(now, domain.HashDelivery(id, w.user))
	route := &whisperv1.Route{
		DeliveryId: delivery[:], NotificationId: id, Lane: l.Proto(),
		ExpiresAtMs: time.Now().Add(time.Hour).UnixMilli(),
	}
	acc := &whisperv1.DeliveryAccepted{Category: "conformance", AcceptedAtMs: now.UnixMilli(), ExpiresAtMs: route.GetExpiresAtMs()}
	content := &whisperv1.Content{Title: "Title of " + id, Body: "نص " + id, Url: "https://example.com/" + id, Data: []byte(`{"id":"` + id + `"}`)}
	if route.Frame, err = domain.NotificationFrame(id, l, acc, content); err != nil {
		return err
	}
	if s.Without == "receipt" {
		if route.Frame, err = withoutReceipt(route.Frame); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.routes, w.pending = append(w.routes, route), append(w.pending, route)
	return w.send(ctx, route)
}

// withoutReceipt is the frame of a gateway from before there were receipts.
func withoutReceipt(frame []byte) ([]byte, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(frame, &members); err != nil {
		return nil, fmt.Errorf("decode a frame: %w", err)
	}
	delete(members, "receipt")
	rest, err := json.Marshal(members)
	if err != nil {
		return nil, fmt.Errorf("encode a frame: %w", err)
	}
	return rest, nil
}

// again sends one of these once more. The lock is held.
func (w *world) again(ctx context.Context, id string, among []*whisperv1.Route) error {
	for _, route := range among {
		if route.GetNotificationId() == id {
			return w.send(ctx, route)
		}
	}
	return fmt.Errorf("there is no notification %q", id)
}

// send addresses a route to where the user's latest session is; without one it waits for the next. The
// lock is held.
func (w *world) send(ctx context.Context, route *whisperv1.Route) error {
	var at *whisperv1.Presence
	for _, p := range w.presences {
		if at == nil || p.GetAtUs() > at.GetAtUs() {
			at = p
		}
	}
	if at == nil {
		return nil
	}
	w.attempts++
	route.Attempt, route.Incarnation = w.attempts, at.GetIncarnation()
	value, err := proto.Marshal(route)
	if err != nil {
		return err
	}
	w.stage.publisher.Publish(ctx, &kgo.Record{
		Topic: consumers.TopicNode(at.GetNode()), Partition: int32(domain.LaneOf(route.GetLane())), Key: []byte(w.user), Value: value,
	}, nil)
	return nil
}

// present folds a presence record: a session that opened gets everything that was not acknowledged.
func (w *world) present(node string, p *whisperv1.Presence) {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.wake()
	before := w.presences[node].GetLatestSession()
	if p == nil {
		delete(w.presences, node)
		return
	}
	w.presences[node] = p
	if p.GetLatestSession() == before {
		return
	}
	for _, route := range w.pending {
		_ = w.send(context.Background(), route) // it was encoded before
	}
}

// silent forgets a node that was killed, as a heartbeat that stays away does.
func (w *world) silent(node string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.presences, node)
}

// fact folds an event of this user.
func (w *world) fact(ev *whisperv1.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.wake()
	id := ev.GetNotificationId()
	told := fact{id, string(ev.GetDeliveryId())}
	switch ev.GetKind().(type) {
	case *whisperv1.Event_DeliveryDelivered:
		if !slices.Contains(w.delivered, told) { // what is sent again is acknowledged again
			w.delivered = append(w.delivered, told)
		}
		w.pending = slices.DeleteFunc(w.pending, func(r *whisperv1.Route) bool { return string(r.GetDeliveryId()) == told.delivery })
	case *whisperv1.Event_DeliveryRead:
		if !slices.Contains(w.read, told) { // a client may report one twice
			w.read = append(w.read, told)
		}
	case *whisperv1.Event_AttemptFailed:
		// What bounced off a session that closed is for the session that has opened since.
		for _, p := range w.presences {
			if p.GetAtUs() > ev.GetAtUs() {
				_ = w.again(context.Background(), id, w.pending)
				return
			}
		}
	}
}

// revoke writes the event that a login writes when a device is stolen.
func (w *world) revoke(ctx context.Context) error {
	rec, err := gateway.RevocationRecord(&whisperv1.Revocation{UserId: w.user, BeforeUs: time.Now().UnixMicro(), Reason: "conformance"})
	if err != nil {
		return err
	}
	w.stage.publisher.Publish(ctx, rec, nil)
	return nil
}

// crowd connects other users until so many are in: those who just left may still be counted.
func (w *world) crowd(ctx context.Context, n *node, count int) error {
	token, err := gateway.SignToken([]byte(Secret), w.user+"-other", time.Hour, time.Now())
	if err != nil {
		return err
	}
	header := http.Header{"Authorization": {"Bearer " + token}}
	pause := time.NewTicker(5 * time.Millisecond)
	defer pause.Stop()
	for in := 0; in < count; {
		conn, resp, err := websocket.DefaultDialer.DialContext(ctx, "ws://"+n.settings.Addr+"/v1/socket", header)
		if resp != nil {
			_ = resp.Body.Close()
		}
		if err == nil {
			in++
			w.mu.Lock()
			w.crew = append(w.crew, conn)
			w.mu.Unlock()
			continue
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return fmt.Errorf("crowd: %w", err)
		}
	}
	return nil
}

func (w *world) uncrowd() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, conn := range w.crew {
		_ = conn.Close()
	}
	w.crew = nil
}

func (w *world) close() {
	w.uncrowd()
	w.front.close()
	if w.own {
		for _, n := range w.nodes {
			n.kill()
		}
	}
}
