package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/gateway/client"
)

// people gives n users a profile each that only this test's segments match, and waits until dispatch has them.
func people(t *testing.T, prefix string, n int) (segment string) {
	t.Helper()
	before := endOf(t, "whisper.users")
	var wg sync.WaitGroup
	for i := range n {
		locale := []string{"ar-EG", "en"}[i%2]
		value := fmt.Appendf(nil, `{"locale":%q,"timezone":"Africa/Cairo","attributes":{"name":"N%d","run":%q}}`, locale, i, prefix)
		wg.Add(1)
		sys.kafka.Produce(t.Context(), &kgo.Record{Topic: "whisper.profiles", Key: fmt.Appendf(nil, "%s-%d", prefix, i), Value: value}, func(_ *kgo.Record, err error) {
			defer wg.Done()
			if err != nil {
				t.Errorf("produce: %v", err)
			}
		})
	}
	wg.Wait()
	eventually(t, "the profiles are known", func() bool { return endOf(t, "whisper.users") >= before+int64(n) })
	return fmt.Sprintf("has(user.attributes.run) && user.attributes.run == '%s'", prefix)
}

// cast produces a record of the low lane.
func cast(t *testing.T, fields map[string]any) {
	t.Helper()
	value, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	if err := sys.kafka.ProduceSync(t.Context(), &kgo.Record{Topic: "whisper.requests.low", Value: value}).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// finished waits for the end of a broadcast and checks that it adds up.
func finished(t *testing.T, id, state string, total int) {
	t.Helper()
	eventually(t, "the broadcast "+id+" ends", func() bool {
		return number(t, "SELECT count(*) FROM whisper.broadcasts WHERE notification_id = $1 AND finished_at IS NOT NULL", id) == 1
	})
	var gotState string
	var gotTotal, pending, rows int64
	err := sys.db.QueryRow(t.Context(), `SELECT state, total, pending, (SELECT count(*) FROM whisper.deliveries AS d WHERE d.notification_id = b.notification_id)
		FROM whisper.broadcasts AS b WHERE notification_id = $1`, id).Scan(&gotState, &gotTotal, &pending, &rows)
	if err != nil || gotState != state || pending != 0 || total >= 0 && gotTotal != int64(total) || rows != gotTotal {
		t.Errorf("%s is %s for %d with %d rows, %d pending, %v; want %s for %d", id, gotState, gotTotal, rows, pending, err, state, total)
	}
	if open := number(t, `SELECT count(*) FROM whisper.conservation`); open != 0 {
		t.Errorf("%d notifications do not add up", open)
	}
}

// TestABroadcastSurvives: dispatch is killed in the middle, and a second one takes half of the partitions and gives them
// back. No user is missed, each delivery is settled once, and only unacknowledged deliveries are sent twice.
func TestABroadcastSurvives(t *testing.T) {
	const users, online = 8_000, 400
	a := connect(t, "cast", online)
	segment := people(t, "cast", users)
	cast(t, map[string]any{"id": "cast-1", "to": map[string]any{"segment": segment}, "rate": 100, "ttl": "75s", "content": map[string]any{"title": "News", "body": "for everyone"}})
	eventuallyCount(a, online/8)
	kills := []time.Time{time.Now()}
	sys.kill(t, "dispatch")
	sys.restart(t, "dispatch")
	eventuallyCount(a, online/4)
	sys.restart(t, "dispatch-b")
	eventuallyCount(a, online/2)
	sys.stop(t, "dispatch-b")
	eventuallyCount(a, 3*online/4)
	kills = append(kills, time.Now())
	sys.kill(t, "dispatch")
	sys.restart(t, "dispatch")
	eventually(t, "everybody who is connected has it", func() bool { return a.count() == online })
	finished(t, "cast-1", "finished", users)
	if n := number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id = 'cast-1' AND status IN ('delivered', 'read')`); n != online {
		t.Errorf("%d are delivered, %d were connected", n, online)
	}
	t.Logf("%d of %d were sent to again after a kill", sentTwice(t, "cast-1", kills...), online)
}

// TestABroadcastSurvivesTheEndOfEverything: intake is killed as the request reaches it, and every role at once in the middle.
func TestABroadcastSurvivesTheEndOfEverything(t *testing.T) {
	const users, online = 2_000, 400
	a := connect(t, "all", online)
	segment := people(t, "all", users)
	cast(t, map[string]any{"id": "all-1", "to": map[string]any{"segment": segment}, "rate": 100, "ttl": "60s", "content": map[string]any{"title": "News", "body": "for everyone"}})
	sys.kill(t, "intake")
	sys.restart(t, "intake")
	eventuallyCount(a, 3*online/4)
	killed := time.Now()
	roles := []string{"intake", "dispatch", "gateway-1", "gateway-2", "project"}
	var wg sync.WaitGroup
	for _, does := range []func(*testing.T, string){sys.kill, sys.restart} {
		for _, role := range roles {
			wg.Go(func() { does(t, role) })
		}
		wg.Wait()
	}
	eventually(t, "everybody who is connected has it", func() bool { return a.count() == online })
	finished(t, "all-1", "finished", users)
	if n := number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id = 'all-1' AND status IN ('delivered', 'read')`); n != online {
		t.Errorf("%d are delivered, %d were connected", n, online)
	}
	t.Logf("%d of %d were sent to again after the kill", sentTwice(t, "all-1", killed), online)
}

// TestABroadcastIsSteered: it is paused and resumed within a second, cancelled, retracted; a repeated id sends nothing.
func TestABroadcastIsSteered(t *testing.T) {
	const users, online = 400, 200
	a := connect(t, "steer", online)
	segment := people(t, "steer", users)
	content := map[string]any{"title": "News", "body": "b"}
	cast(t, map[string]any{"id": "steer-1", "to": map[string]any{"segment": segment}, "rate": 40, "ttl": "10m", "content": content})
	eventuallyCount(a, 10)
	asked := time.Now()
	cast(t, map[string]any{"pause": "steer-1"})
	state := func(id string) (state string) {
		_ = sys.db.QueryRow(t.Context(), "SELECT state FROM whisper.broadcasts WHERE notification_id = $1", id).Scan(&state) // none yet: ""
		return state
	}
	eventually(t, "it is paused everywhere, and nothing of it is on its way", func() bool {
		return state("steer-1") == "paused" &&
			number(t, "SELECT count(*) FROM whisper.broadcast_shards WHERE notification_id = 'steer-1' AND state = 'paused'") == partitions &&
			number(t, "SELECT count(*) FROM whisper.broadcasts WHERE notification_id = 'steer-1' AND total = delivered") == 1 // it is in its first pass
	})
	paused := time.Now()
	t.Logf("the last partition was paused %d ms after it was asked", number(t, "SELECT (extract(epoch FROM max(progressed_at) - $1) * 1000)::bigint FROM whisper.broadcast_shards WHERE notification_id = 'steer-1'", asked))
	cast(t, map[string]any{"id": "steer-1", "to": map[string]any{"all": true}, "content": content}) // the id is taken
	cast(t, map[string]any{"cancel": "steer-2"})                                                    // comes before what it is about
	eventually(t, "the repeated id is told of", func() bool {
		return number(t, "SELECT count(*) FROM whisper.timeline WHERE kind = 'broadcast_dropped' AND detail->>'reason' = 'duplicate'") == partitions
	})
	if during := a.during(paused, time.Now()); during > 0 {
		t.Errorf("%d arrived while it was paused", during)
	}
	cast(t, map[string]any{"resume": "steer-1"})
	eventually(t, "everybody has it", func() bool { return a.count() == online })
	cast(t, map[string]any{"cancel": "steer-1"})
	finished(t, "steer-1", "cancelled", -1)
	// Connected users came first. Some of the others were not scanned and have no delivery.
	if met := number(t, "SELECT total FROM whisper.broadcasts WHERE notification_id = 'steer-1'"); met < online || met > users {
		t.Errorf("%d were met, want %d to %d", met, online, users)
	}

	cast(t, map[string]any{"id": "steer-2", "to": map[string]any{"segment": segment}, "content": content})
	finished(t, "steer-2", "cancelled", 0)

	cast(t, map[string]any{"retract": "steer-1"})
	eventually(t, "apps are told to take it back", func() bool {
		return number(t, "SELECT count(DISTINCT delivery_id) FROM whisper.timeline WHERE kind = 'delivery_retracted'") >= online
	})
	retracted := make(chan string, 8)
	c, err := client.Dial(t.Context(), sys.socketURL("gateway-2"), client.StaticToken(token("steer-300")), client.Options{
		Retracted: func(id string) { retracted <- id },
		Handle:    func(context.Context, client.Notification) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	select {
	case id := <-retracted:
		if id != "steer-1" {
			t.Errorf("%s was taken back", id)
		}
	case <-time.After(patience):
		t.Error("who connects later is not told")
	}
}

// TestAnAlertPassesABroadcast logs what a broadcast does to alerts.
func TestAnAlertPassesABroadcast(t *testing.T) {
	const users = 20_000
	segment := people(t, "fair", users)
	times := make(chan time.Duration, 1)
	sent := map[string]time.Time{}
	var mu sync.Mutex
	c, err := client.Dial(t.Context(), sys.socketURL("gateway-1"), client.StaticToken(token("fair-alert")), client.Options{
		Handle: func(_ context.Context, n client.Notification) error {
			if strings.HasPrefix(n.ID, "alert-") {
				mu.Lock()
				at := sent[n.ID]
				mu.Unlock()
				times <- time.Since(at)
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	p99 := func(prefix string) time.Duration {
		var all []time.Duration
		for i := range 100 {
			id := fmt.Sprintf("alert-%s-%d", prefix, i)
			mu.Lock()
			sent[id] = time.Now()
			mu.Unlock()
			send(t, "high", request{ID: id, To: to("fair-alert")})
			select {
			case took := <-times:
				all = append(all, took)
			case <-time.After(patience):
				t.Fatal("an alert did not arrive")
			}
		}
		slices.Sort(all)
		return all[len(all)*99/100]
	}
	p99("warm")
	quiet := p99("quiet")
	cast(t, map[string]any{"id": "fair-1", "to": map[string]any{"segment": segment}, "ttl": "20s", "content": map[string]any{"body": "b"}})
	during := p99("during")
	t.Logf("p99 of an alert: %s quiet, %s during a broadcast to %d users (%.1f)", quiet, during, users, float64(during)/float64(quiet))
	finished(t, "fair-1", "finished", users)
}
