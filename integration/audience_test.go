package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/gateway/client"
)

// audience is a set of connected users who acknowledge and count what they receive.
type audience struct {
	t     *testing.T
	users []string

	mu  sync.Mutex
	got map[string]map[string]time.Time // user → notification → when the client handed it on; it passes over what comes again
}

// connect connects users u-0…, half of them to each gateway. A client whose gateway is gone goes to the other one only
// if the address does not answer; a killed gateway is restarted at its own address.
func connect(t *testing.T, prefix string, n int) *audience {
	t.Helper()
	a := &audience{t: t, got: map[string]map[string]time.Time{}}
	clients := make([]*client.Client, n)
	for i := range n {
		user := fmt.Sprintf("%s-%d", prefix, i)
		a.users = append(a.users, user)
		a.got[user] = map[string]time.Time{}
		c, err := client.Dial(t.Context(), sys.socketURL(fmt.Sprintf("gateway-%d", 1+i%2)), client.StaticToken(token(user)), client.Options{
			Window: 20_000, MinBackoff: 50 * time.Millisecond, MaxBackoff: time.Second,
			Handle: func(_ context.Context, note client.Notification) error {
				a.mu.Lock()
				defer a.mu.Unlock()
				a.got[user][note.ID] = time.Now()
				return nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		clients[i] = c
	}
	t.Cleanup(func() {
		for _, c := range clients {
			if c != nil {
				_ = c.Close()
			}
		}
		for _, c := range clients {
			if c != nil {
				<-c.Done()
			}
		}
	})
	return a
}

// end closes a client and waits until none of its callbacks runs.
func end(c *client.Client) {
	_ = c.Close()
	<-c.Done()
}

// during returns how many notifications the clients got between two times.
func (a *audience) during(from, to time.Time) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, notes := range a.got {
		for _, at := range notes {
			if at.After(from) && at.Before(to) {
				n++
			}
		}
	}
	return n
}

// sentTwice returns how many deliveries of a notification were sent over a socket again after one of the kills. It fails
// if the acknowledgement of one was in the log a second before the kill (gateways gather receipts for a moment). Some
// must have been acknowledged before the last kill, or the test shows nothing; an earlier kill may precede all.
func sentTwice(t *testing.T, id string, kills ...time.Time) (n int64) {
	t.Helper()
	told := func(kind, when string) string {
		return fmt.Sprintf("EXISTS (SELECT FROM whisper.timeline WHERE delivery_id = d.delivery_id AND kind = '%s' AND at %s)", kind, when)
	}
	count := func(where string, times ...any) int64 {
		t.Helper()
		return number(t, "SELECT count(*) FROM whisper.deliveries AS d WHERE notification_id = $1 AND "+where, append([]any{id}, times...)...)
	}
	again := " AND " + told("delivery_sent", "> $3")
	for _, kill := range kills {
		n += count(told("delivery_sent", "< $2")+again, kill, kill)
		if acked := count(told("delivery_delivered", "< $2")+again, kill.Add(-time.Second), kill); acked > 0 {
			t.Errorf("%d were acknowledged a second before a kill, and sent again after it", acked)
		}
	}
	if count(told("delivery_delivered", "< $2"), kills[len(kills)-1].Add(-time.Second)) == 0 {
		t.Error("nothing was acknowledged a second before any of the kills")
	}
	return n
}

// count returns how many different notifications arrived.
func (a *audience) count() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, got := range a.got {
		n += len(got)
	}
	return n
}

// request is a record of whisper.requests.
type request struct {
	ID       string         `json:"id"`
	Category string         `json:"category,omitempty"`
	To       map[string]any `json:"to"`
	Content  map[string]any `json:"content"`
	Channels []string       `json:"channels,omitempty"`
	TTL      string         `json:"ttl,omitempty"`
}

func to(users ...string) map[string]any { return map[string]any{"users": users} }

// send produces one request and waits until Kafka has it.
func send(t *testing.T, lane string, r request, headers ...kgo.RecordHeader) {
	t.Helper()
	if r.Content == nil {
		r.Content = map[string]any{"title": "Hello", "body": "World"}
	}
	value, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	rec := &kgo.Record{Topic: "whisper.requests." + lane, Value: value, Headers: headers}
	if err := sys.kafka.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// flood produces n requests of one user each, at a rate that leaves time for faults in the middle.
func flood(t *testing.T, prefix string, users []string, n, perSecond int) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	batch := max(1, perSecond/100)
	var wg sync.WaitGroup
	for i := 0; i < n; {
		for range batch {
			if i == n {
				break
			}
			value := fmt.Appendf(nil, `{"id":"%s-%d","to":{"users":[%q]},"content":{"body":"b"}}`, prefix, i, users[i%len(users)])
			lane := []string{"high", "normal", "low"}[i%3]
			wg.Add(1)
			sys.kafka.Produce(context.Background(), &kgo.Record{Topic: "whisper.requests." + lane, Key: []byte(users[i%len(users)]), Value: value}, func(_ *kgo.Record, err error) {
				defer wg.Done()
				if err != nil {
					t.Errorf("produce: %v", err)
				}
			})
			i++
		}
		<-tick.C
	}
	wg.Wait()
}

// eventually waits for a condition; it fails the test after a time that no healthy run needs.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// number returns the first column of the first row of a query.
func number(t *testing.T, sql string, args ...any) (n int64) {
	t.Helper()
	if err := sys.db.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// allSettled checks what must hold after any fault: each of n deliveries is in Postgres once, delivered,
// and every notification adds up.
func allSettled(t *testing.T, prefix string, n int) {
	t.Helper()
	like := prefix + "-%"
	eventually(t, fmt.Sprintf("%d deliveries of %s are delivered in Postgres", n, prefix), func() bool {
		var delivered int64
		err := sys.db.QueryRow(t.Context(), `SELECT count(*) FROM whisper.deliveries WHERE notification_id LIKE $1 AND status IN ('delivered', 'read')`, like).Scan(&delivered)
		return err == nil && delivered == int64(n) // Postgres may be away
	})
	if all := number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id LIKE $1`, like); all != int64(n) {
		t.Errorf("%d rows of deliveries, want %d", all, n)
	}
	if open := number(t, `SELECT count(*) FROM whisper.conservation`); open != 0 {
		t.Errorf("%d notifications do not add up", open)
	}
}
