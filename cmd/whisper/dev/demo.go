package dev

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/cmd/whisper/operate"
	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/consumers/push/apns/simulator"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/gateway"
	"github.com/klivvr/whisper/gateway/client"
	"github.com/klivvr/whisper/projections/query"
)

// scene is one run of the demo. Its ids are new each time, because the ids of an earlier run would be dropped
// as duplicates.
type scene struct {
	*system
	tag   string
	began time.Time

	mu       sync.Mutex
	produced map[string]time.Time // notification → when it was handed to Kafka
	arrived  chan string          // who it arrived at
}

// play lets two users connect, sends three notifications, waits until each has arrived, and shows them in
// Postgres.
func (d *system) play(ctx context.Context) error {
	s := &scene{
		system: d, tag: strings.ToLower(rand.Text()[:4]), began: d.p.Now(),
		produced: map[string]time.Time{}, arrived: make(chan string, 16),
	}
	defer d.apple.Watch(s.pushed)()
	s.say("\nThe scene: mona and omar are online, lina is not, but has an iPhone.\n\n")
	if err := s.profile(ctx); err != nil {
		return err
	}
	mona, err := s.connect(ctx, "mona")
	if err != nil {
		return err
	}
	defer closed(mona)
	omar, err := s.connect(ctx, "omar")
	if err != nil {
		return err
	}
	defer closed(omar)
	if err := s.perform(ctx); err != nil {
		return err
	}
	if err := mona.Read(s.id("card")); err != nil {
		return err
	}
	s.note("mona has read hers")
	return s.epilogue(ctx)
}

// note prints one line of the scene.
func (s *scene) note(format string, args ...any) {
	s.say("  %7.1f ms  %s\n", float64(s.p.Now().Sub(s.began).Microseconds())/1000, fmt.Sprintf(format, args...))
}

// demoCategory is that of all that the scene sends.
const demoCategory = "demo"

func (s *scene) id(name string) string { return "demo-" + s.tag + "-" + name }

func (s *scene) profile(ctx context.Context) error {
	value := `{"locale":"en-EG","attributes":{"name":"Lina"},` +
		`"endpoints":{"iphone":{"channel":"apns",` +
		`"token":"a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90","app":"com.example.app"}}}`
	return s.produce(ctx, &kgo.Record{Topic: consumers.TopicProfiles, Key: []byte("lina"), Value: []byte(value)})
}

func (s *scene) produce(ctx context.Context, rec *kgo.Record) error {
	cl, err := kgo.NewClient(append(s.base.Client.Options(), kgo.ProducerLinger(0))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	return cl.ProduceSync(ctx, rec).FirstErr()
}

// connect is one user's app: it acknowledges by taking a notification.
func (s *scene) connect(ctx context.Context, user string) (*client.Client, error) {
	token, err := gateway.SignToken([]byte(s.secret), user, time.Hour, s.p.Now())
	if err != nil {
		return nil, err
	}
	conn, err := client.Dial(ctx, "ws://"+s.sockets+"/v1/socket", client.StaticToken(token), client.Options{
		Handle: func(_ context.Context, n client.Notification) error {
			s.received(user, n)
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	s.note("%s connects", user)
	return conn, nil
}

// closed ends a user's app and waits for its last note.
func closed(conn *client.Client) {
	_ = conn.Close()
	<-conn.Done()
}

// pause waits between two acts, for the person who reads along and for consumers that have just joined.
func (s *scene) pause(ctx context.Context) error {
	select {
	case <-time.After(700 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *scene) received(user string, n client.Notification) {
	s.note("%s's socket: %s %q (%s)", user, n.Lane, n.Title+": "+n.Body, s.since(n.ID))
	s.arrive(user, n.ID)
}

func (s *scene) pushed(r simulator.Received) {
	var payload struct {
		APS struct {
			Alert struct{ Title, Body string } `json:"alert"`
		} `json:"aps"`
	}
	_ = json.Unmarshal(r.Payload, &payload) // an empty text shows that it is not what we think
	s.note("lina's iPhone, by APNs: %q (%s)", payload.APS.Alert.Title+": "+payload.APS.Alert.Body, s.since(s.id("refund")))
	s.arrive("lina", s.id("refund"))
}

// since is the latency since the request was handed to Kafka; deliveries of an earlier run have none.
func (s *scene) since(id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.produced[id]
	if !ok {
		return "asked for earlier"
	}
	return fmt.Sprintf("%.1f ms after its request", float64(s.p.Now().Sub(at).Microseconds())/1000)
}

func (s *scene) arrive(user, id string) {
	s.mu.Lock()
	_, ours := s.produced[id]
	s.mu.Unlock()
	if ours {
		select {
		case s.arrived <- user:
		default: // nobody waits any more
		}
	}
}

// request produces one as any upstream service would.
func (s *scene) request(ctx context.Context, lane domain.Lane, id, user, title, body string) error {
	value, err := json.Marshal(operate.Request{
		ID: id, Category: demoCategory, To: &operate.Audience{Users: []string{user}}, Content: &operate.Content{Title: title, Body: body},
	})
	if err != nil {
		return err
	}
	s.note("upstream asks, lane %s: %q for %s", lane, title, user)
	s.mu.Lock()
	s.produced[id] = s.p.Now()
	s.mu.Unlock()
	_, err = operate.ProduceRequest(ctx, s.base.Client, lane, id, "", value)
	return err
}

func (s *scene) perform(ctx context.Context) error {
	for _, act := range []struct {
		lane                  domain.Lane
		name, user, say, body string
	}{
		{domain.High, "card", "mona", "Card payment", "You paid EGP 120.50 at Cilantro"},
		{domain.Normal, "salary", "omar", "Salary", "Your salary has arrived"},
		{domain.Normal, "refund", "lina", "Refund", "EGP 40.00 are on their way to you"},
	} {
		if err := s.pause(ctx); err != nil {
			return err
		}
		if err := s.request(ctx, act.lane, s.id(act.name), act.user, act.say, act.body); err != nil {
			return err
		}
		for arrived := ""; arrived != act.user; {
			select {
			case arrived = <-s.arrived:
			case <-time.After(30 * time.Second):
				return fmt.Errorf("the notification for %s did not arrive within 30 s; `whisper events --notification %s` tells where it stands",
					act.user, s.id(act.name))
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// epilogue waits until Postgres has all of the scene, then shows the timeline of mona's alert.
func (s *scene) epilogue(ctx context.Context) error {
	if !s.await(ctx, func(string) bool { return true }) {
		return nil
	}
	reader, err := query.Open(ctx, s.postgresURL())
	if err != nil {
		return err
	}
	defer reader.Close()
	if err := s.toEverybody(ctx, reader); err != nil {
		return err
	}
	alert, err := s.settled(ctx, reader)
	if err != nil {
		return err
	}
	id, err := domain.ParseDeliveryID(alert.DeliveryID)
	if err != nil {
		return err
	}
	timeline, err := reader.Timeline(ctx, id)
	if err != nil {
		return err
	}
	s.say("\nThe story of mona's alert, from Postgres (delivery %s):\n\n", alert.DeliveryID)
	if err := operate.PrintTimeline(s.p.Stdout, timeline); err != nil {
		return err
	}
	counts, err := reader.StatusCounts(ctx)
	if err != nil {
		return err
	}
	s.say("\nAll deliveries so far: %s\n", countsText(counts))
	return nil
}

// countsText is in the order of statuses.
func countsText(counts []query.StatusCount) string {
	var parts []string
	for _, status := range domain.Statuses {
		for _, c := range counts {
			if c.Status == status.String() {
				parts = append(parts, fmt.Sprintf("%d %s", c.Count, c.Status))
			}
		}
	}
	return strings.Join(parts, ", ")
}

// settled waits until Postgres has the end of all three deliveries, and returns mona's.
func (s *scene) settled(ctx context.Context, reader *query.Reader) (query.Delivery, error) {
	want := map[string]domain.Status{s.id("card"): domain.Read, s.id("salary"): domain.Delivered, s.id("refund"): domain.Sent}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for {
		var alert query.Delivery
		missing := 0
		for notification, status := range want {
			rows, err := reader.Deliveries(ctx, query.Filter{NotificationID: notification})
			if err != nil {
				return alert, err
			}
			if len(rows) != 1 || !reached(rows[0].Status, status) {
				missing++
				continue
			}
			if notification == s.id("card") {
				alert = rows[0]
			}
		}
		if missing == 0 {
			return alert, nil
		}
		select {
		case <-tick.C:
		case <-late:
			return alert, errors.New("postgres did not follow within 30 s; `whisper deliveries list` shows how far it is")
		case <-ctx.Done():
			return alert, ctx.Err()
		}
	}
}

func reached(name string, status domain.Status) bool {
	got, err := domain.ParseStatus(name)
	return err == nil && got >= status
}
