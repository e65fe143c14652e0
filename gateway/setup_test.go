package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/gorilla/websocket"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

var secret = []byte("a secret of at least thirty-two bytes")

// fakeBroker keeps what is published and hands out what tests put into the node's topic.
type fakeBroker struct {
	mu        sync.Mutex
	facts     []*whisperv1.Event
	traces    [][]kgo.RecordHeader
	records   []*kgo.Record
	dead      []string
	sinks     map[string]map[int32]func([]*kgo.Record)
	past      []*kgo.Record // what whisper.nodes holds before the start
	revoked   []*kgo.Record // and whisper.revocations
	offsets   [3]int64
	committed map[int32]int64
	started   map[int32]int64 // where Follow began
	hold      bool            // facts are not acknowledged by Kafka
	fail      chan error
	discard   bool // for benchmarks
	onFact    func(*whisperv1.Event)
	full      chan struct{} // Kafka takes no facts until it is closed
	givenUp   chan struct{}
	renew     func()      // the node's topic is a new one
	remakes   func(error) // why it is not there
	once      sync.Once
}

func newFakeBroker() *fakeBroker {
	return &fakeBroker{
		sinks:     map[string]map[int32]func([]*kgo.Record){},
		committed: map[int32]int64{},
		started:   map[int32]int64{},
		fail:      make(chan error, 1),
		givenUp:   make(chan struct{}),
	}
}

func (b *fakeBroker) Prepare(context.Context) error { return nil }

func (b *fakeBroker) Publish(rec *kgo.Record, done func(error)) {
	b.mu.Lock()
	b.records = append(b.records, rec)
	sink := b.sinks[rec.Topic][rec.Partition]
	b.mu.Unlock()
	if sink != nil {
		sink([]*kgo.Record{rec})
	}
	if done != nil {
		done(nil)
	}
}

func (b *fakeBroker) Fact(ev *whisperv1.Event, trace []kgo.RecordHeader, done func(error)) {
	b.mu.Lock()
	if !b.discard {
		b.facts = append(b.facts, ev)
		b.traces = append(b.traces, trace)
	}
	hold, full := b.hold, b.full
	b.mu.Unlock()
	if full != nil {
		select {
		case <-full:
		case <-b.givenUp:
			if done != nil {
				done(errors.New("given up"))
			}
			return
		}
	}
	if b.onFact != nil {
		b.onFact(ev)
	}
	if done != nil && !hold {
		done(nil)
	}
}

func (b *fakeBroker) Attempt(shared *domain.AttemptFacts, fact domain.AttemptFact, trace []kgo.RecordHeader, done func(error)) {
	b.Fact(shared.Event(fact), trace, done)
}

func (b *fakeBroker) DeadLetter(_ *kgo.Record, reason error, done func(error)) {
	b.mu.Lock()
	b.dead = append(b.dead, reason.Error())
	b.mu.Unlock()
	done(nil)
}

func (b *fakeBroker) Follow(_ context.Context, topic string, partition int32, from int64, sink func([]*kgo.Record)) (<-chan struct{},
	error,
) {
	b.mu.Lock()
	if b.sinks[topic] == nil {
		b.sinks[topic] = map[int32]func([]*kgo.Record){}
	}
	b.sinks[topic][partition] = sink
	past := b.past
	switch topic {
	case consumers.TopicNodes:
		b.past = nil
	case consumers.TopicRevocations:
		past = b.revoked
	default:
		past = nil
		b.started[partition] = from
	}
	b.mu.Unlock()
	if len(past) > 0 {
		sink(past)
	}
	caughtUp := make(chan struct{})
	close(caughtUp)
	return caughtUp, nil
}

func (b *fakeBroker) Remade(renew func(), state func(error), _ ...func([]*kgo.Record)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.renew, b.remakes = renew, state
}

func (b *fakeBroker) Committed(context.Context) (map[int32]int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return map[int32]int64{0: 7}, nil
}

func (b *fakeBroker) Commit(_ context.Context, next map[int32]int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for p, at := range next {
		b.committed[p] = at
	}
	return nil
}

func (b *fakeBroker) Flush(context.Context) error { return nil }

func (b *fakeBroker) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-b.fail:
		return err
	}
}

func (b *fakeBroker) GiveUp() { b.once.Do(func() { close(b.givenUp) }) }

func (b *fakeBroker) Close() {}

// put appends records to a lane of the node's topic, and returns the last one's offset.
func (b *fakeBroker) put(lane domain.Lane, recs ...*kgo.Record) int64 {
	b.mu.Lock()
	sink := b.sinks[consumers.TopicNode("n1")][int32(lane)]
	for _, rec := range recs {
		rec.Topic, rec.Partition, rec.Offset = consumers.TopicNode("n1"), int32(lane), b.offsets[lane]
		b.offsets[lane]++
	}
	last := b.offsets[lane] - 1
	b.mu.Unlock()
	sink(recs)
	return last
}

func (b *fakeBroker) allFacts() []*whisperv1.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]*whisperv1.Event(nil), b.facts...)
}

// kinds are the names of a notification's facts, in order.
func (b *fakeBroker) kinds(notification string) (kinds []string) {
	for _, ev := range b.allFacts() {
		if ev.GetNotificationId() == notification {
			kinds = append(kinds, domain.KindOf(ev))
		}
	}
	return kinds
}

func (b *fakeBroker) published(topic string) []*kgo.Record {
	b.mu.Lock()
	defer b.mu.Unlock()
	var recs []*kgo.Record
	for _, rec := range b.records {
		if rec.Topic == topic {
			recs = append(recs, rec)
		}
	}
	return recs
}

func (b *fakeBroker) presences(t testing.TB) (states []*whisperv1.Presence) {
	t.Helper()
	for _, rec := range b.published(consumers.TopicPresence) {
		p := &whisperv1.Presence{}
		if rec.Value == nil {
			p = nil
		} else if err := proto.Unmarshal(rec.Value, p); err != nil {
			t.Fatal(err)
		}
		states = append(states, p)
	}
	return states
}

func (b *fakeBroker) heartbeats(t testing.TB) (beats []*whisperv1.Node) {
	t.Helper()
	for _, rec := range b.published(consumers.TopicNodes) {
		var n whisperv1.Node
		if err := proto.Unmarshal(rec.Value, &n); err != nil {
			t.Fatal(err)
		}
		beats = append(beats, &n)
	}
	return beats
}

// clock is a clock that tests can advance.
type clock struct {
	mu  sync.Mutex
	add time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.add)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add += d
}

// node is a running gateway on a fake broker.
type node struct {
	*Gateway
	t      testing.TB
	broker *fakeBroker
	clock  *clock
	url    string
	stop   context.CancelFunc
	ended  chan struct{}
	err    error // of Run, after ended
}

func config() Config {
	return Config{
		Node: "n1", Partitions: 4, Addr: "127.0.0.1:0",
		Kafka:        consumers.ClientConfig{Brokers: []string{"127.0.0.1:1"}},
		Auth:         AuthConfig{HMACSecret: secret},
		DrainTimeout: 2 * time.Second,
		ReceiptHold:  -1,
		Metrics:      metrics.NewSet(),
	}
}

func setup(t testing.TB, change ...func(*Config, *fakeBroker)) *node {
	t.Helper()
	n := prepare(t, change...)
	n.start()
	return n
}

func prepare(t testing.TB, change ...func(*Config, *fakeBroker)) *node {
	t.Helper()
	n := &node{t: t, broker: newFakeBroker(), clock: &clock{}, ended: make(chan struct{})}
	cfg := config()
	cfg.Now = n.clock.now
	for _, f := range change {
		f(&cfg, n.broker)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	g, err := newGateway(cfg.withDefaults(), n.broker)
	if err != nil {
		t.Fatal(err)
	}
	n.Gateway = g
	return n
}

func (n *node) start() {
	n.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	go func() {
		defer close(n.ended)
		n.err = n.Run(ctx)
	}()
	n.t.Cleanup(func() {
		stop()
		<-n.ended
	})
	eventually(n.t, "ready", func() bool { return n.Ready() == nil && n.Addr() != nil })
	scheme := "ws://"
	if n.certificate != nil {
		scheme = "wss://"
	}
	n.url = scheme + n.Addr().String() + "/v1/socket"
}

// change is what a test sets apart from the defaults.
type change = func(*Config, *fakeBroker)

// eachLink runs a test on every way of reading and writing sockets: they must not differ in anything that a
// client or Kafka can see.
func eachLink(t *testing.T, test func(t *testing.T, link change)) {
	t.Parallel()
	certFile, keyFile := pairOf(t)
	for name, link := range map[string]change{
		"polled":   func(*Config, *fakeBroker) {},
		"unpolled": func(c *Config, _ *fakeBroker) { c.Unpolled = true },
		"TLS":      func(c *Config, _ *fakeBroker) { c.TLSCert, c.TLSKey = certFile, keyFile },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, link)
		})
	}
}

// pairOf is a certificate and its key, in files.
func pairOf(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	files := t.TempDir()
	certFile, keyFile = filepath.Join(files, "tls.crt"), filepath.Join(files, "tls.key")
	writePair(t, certFile, keyFile, "127.0.0.1", x509.NewCertPool())
	return certFile, keyFile
}

// trusting takes any certificate: what is tested here is what goes over it.
var trusting = &websocket.Dialer{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}

// eventually waits for a condition; it fails the test after a time that no healthy run needs.
func eventually(t testing.TB, what string, ok func() bool) {
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

func (n *node) token(user string, ttl time.Duration) string {
	n.t.Helper()
	token, err := SignToken(secret, user, ttl, n.clock.now())
	if err != nil {
		n.t.Fatal(err)
	}
	return token
}

func bearer(token string) http.Header {
	return http.Header{"Authorization": {"Bearer " + token}}
}

// client is a raw WebSocket client.
type client struct {
	*websocket.Conn
	t       testing.TB
	session string
}

func (n *node) dial(query string, header http.Header) *client {
	n.t.Helper()
	conn, resp, err := trusting.Dial(n.url+query, header)
	if err != nil {
		n.t.Fatalf("dial: %v (%v)", err, resp)
	}
	n.t.Cleanup(func() { conn.Close() })
	_ = conn.SetReadDeadline(time.Now().Add(3 * time.Minute))
	return &client{Conn: conn, t: n.t}
}

// connect dials as a user and reads the welcome.
func (n *node) connect(user string, query ...string) *client {
	n.t.Helper()
	c := n.dial(strings.Join(query, ""), bearer(n.token(user, time.Hour)))
	f := c.frame()
	if f["type"] != "welcome" {
		n.t.Fatalf("the first frame is %v, not a welcome", f)
	}
	c.session = f["session"].(string)
	return c
}

// tryFrame is frame for goroutines: its error is how the socket ended.
func (c *client) tryFrame() (f map[string]any, err error) {
	_, b, err := c.ReadMessage()
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	return f, err
}

// closeCode of how a socket ended; 1006: without a close frame.
func closeCode(err error) int {
	var closed *websocket.CloseError
	if errors.As(err, &closed) {
		return closed.Code
	}
	return closeGone
}

// framesOf are the types of the server's small text frames.
func framesOf(b []byte) (types []string) {
	for len(b) >= 2 {
		size := int(b[1])
		var f struct{ Type string }
		if b[0] == finBit|opText && json.Unmarshal(b[2:2+size], &f) == nil {
			types = append(types, f.Type)
		}
		b = b[2+size:]
	}
	return types
}

func (c *client) frame() map[string]any {
	c.t.Helper()
	kind, b, err := c.ReadMessage()
	if err != nil {
		c.t.Fatalf("read a frame: %v", err)
	}
	if kind != websocket.TextMessage {
		c.t.Fatalf("a frame of kind %d", kind)
	}
	var f map[string]any
	if err := json.Unmarshal(b, &f); err != nil {
		c.t.Fatalf("frame %q: %v", b, err)
	}
	return f
}

func (c *client) write(text string) {
	c.t.Helper()
	if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) ack(ids ...string)  { c.verb("ack", ids) }
func (c *client) read(ids ...string) { c.verb("read", ids) }

func (c *client) verb(verb string, ids []string) {
	c.t.Helper()
	b, err := json.Marshal(map[string]any{"type": verb, "ids": ids})
	if err != nil {
		c.t.Fatal(err)
	}
	c.write(string(b))
}

// wantNotification reads the next frame, which must be of this notification.
func (c *client) wantNotification(id string) {
	c.t.Helper()
	if f := c.frame(); f["type"] != "notification" || f["id"] != id {
		c.t.Fatalf("got %v, want notification %s", f, id)
	}
}

func (c *client) wantError(code string) {
	c.t.Helper()
	f := c.frame()
	if f["type"] != "error" || f["code"] != code || f["message"] == "" {
		c.t.Fatalf("got %v, want an error frame %s", f, code)
	}
}

// wantClose reads until the socket is closed, which must be with this code.
func (c *client) wantClose(code int) (reason string) {
	c.t.Helper()
	for {
		_, _, err := c.ReadMessage()
		if err == nil {
			continue
		}
		var closed *websocket.CloseError
		if !errors.As(err, &closed) || closed.Code != code {
			c.t.Fatalf("the socket ended with %v, want close code %d", err, code)
		}
		return closed.Text
	}
}

func route(n *node, user, notification string, change ...func(*whisperv1.Route)) *kgo.Record {
	n.t.Helper()
	id := domain.NewDeliveryID(n.clock.now(), domain.HashDelivery(notification, user))
	r := &whisperv1.Route{
		DeliveryId:     id[:],
		NotificationId: notification,
		Attempt:        1,
		Incarnation:    n.incarnation.Load(),
		ExpiresAtMs:    n.clock.now().Add(time.Hour).UnixMilli(),
		Frame:          []byte(`{"type":"notification","id":"` + notification + `","title":"t"}`),
	}
	for _, f := range change {
		f(r)
	}
	value, err := proto.Marshal(r)
	if err != nil {
		n.t.Fatal(err)
	}
	return &kgo.Record{Key: []byte(user), Value: value}
}

func (n *node) wantKinds(notification string, want ...string) {
	n.t.Helper()
	got := ""
	defer func() {
		if n.t.Failed() {
			n.t.Logf("facts of %s: %s", notification, got)
		}
	}()
	eventually(n.t, notification+" to be "+strings.Join(want, ", "), func() bool {
		got = strings.Join(n.broker.kinds(notification), " ")
		return got == strings.Join(want, " ")
	})
}
