package integration

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/gateway/client"
)

// TestTheWholeWay: on each lane, a request becomes a frame on a socket, is acknowledged and read, and Postgres has the
// whole history.
func TestTheWholeWay(t *testing.T) {
	for _, lane := range []string{"high", "normal", "low"} {
		t.Run(lane, func(t *testing.T) {
			user, id := "way-"+lane, "way-note-"+lane
			notes := make(chan client.Notification, 1)
			c, err := client.Dial(t.Context(), sys.socketURL("gateway-1"), client.StaticToken(token(user)), client.Options{
				Handle: func(_ context.Context, n client.Notification) error { notes <- n; return nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
			send(t, lane, request{
				ID: id, Category: "transactions.card", To: to(user),
				Content: map[string]any{"title": "Paid", "body": "120.50 EGP", "url": "app://card", "data": map[string]any{"card": 4417}},
			}, kgo.RecordHeader{Key: "traceparent", Value: []byte(trace)})
			var n client.Notification
			select {
			case n = <-notes:
			case <-time.After(patience):
				t.Fatal("nothing arrived")
			}
			if n.ID != id || n.Lane != lane || n.Category != "transactions.card" || n.Title != "Paid" || n.Body != "120.50 EGP" || string(n.Data) != `{"card":4417}` {
				t.Errorf("got %+v", n)
			}
			if err := c.Read(id); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the row says read", func() bool {
				return number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id = $1 AND user_id = $2 AND status = 'read'`, id, user) == 1
			})
			story(t, id, user, lane, trace)
		})
	}
}

// story checks what Postgres and `whisper events` say about a delivery that was read.
func story(t *testing.T, id, user, lane, trace string) {
	t.Helper()
	var ordered bool
	var attempts int
	var gotLane, channel, delivery string
	err := sys.db.QueryRow(t.Context(), `
		SELECT accepted_at <= sent_at AND sent_at <= delivered_at AND delivered_at <= read_at AND settled_at IS NOT NULL,
		       attempts, lane::text, channel, delivery_id::text
		FROM whisper.deliveries WHERE notification_id = $1 AND user_id = $2`, id, user).Scan(&ordered, &attempts, &gotLane, &channel, &delivery)
	if err != nil {
		t.Fatal(err)
	}
	if !ordered || attempts != 1 || gotLane != lane || channel != "socket" {
		t.Errorf("ordered %v, attempts %d, lane %s, channel %s", ordered, attempts, gotLane, channel)
	}
	rows, err := sys.db.Query(t.Context(), `SELECT kind FROM whisper.timeline WHERE delivery_id = $1 ORDER BY at, "offset"`, delivery)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for rows.Next() {
		var k string
		if err := rows.Scan(&k); err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, k)
	}
	if rows.Err() != nil || kinds[0] != "delivery_accepted" || !slices.Contains(kinds, "delivery_delivered") || kinds[len(kinds)-1] != "delivery_read" {
		t.Errorf("timeline %v, %v", kinds, rows.Err())
	}
	if n := number(t, `SELECT delivered + read FROM whisper.notifications WHERE notification_id = $1 AND recipients = 1`, id); n != 1 {
		t.Errorf("the notification counts %d", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := sys.command(ctx, "events", "--notification", id, "--json").CombinedOutput()
	if err != nil || strings.Count(string(out), trace[:35]) < 3 {
		t.Errorf("whisper events: %v\n%s", err, out)
	}
}

// TestAnAwayUserWithAPhoneGetsAPush, and one without gets it when they connect.
func TestAwayUsers(t *testing.T) {
	profile := `{"endpoints":{"iphone":{"channel":"apns","token":"` + strings.Repeat("ab", 32) + `","app":"` + topicOfApp + `"}}}`
	if err := sys.kafka.ProduceSync(t.Context(), &kgo.Record{Topic: "whisper.profiles", Key: []byte("away-phone"), Value: []byte(profile)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	// The profile is in another topic than the request: wait until dispatch has it.
	eventually(t, "the profile is known", func() bool { return endOf(t, "whisper.users") > 0 })
	send(t, "high", request{ID: "away-1", To: to("away-phone", "away-nobody")})
	eventually(t, "Apple took it", func() bool {
		return number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id = 'away-1' AND user_id = 'away-phone' AND status = 'sent' AND channel = 'apns' AND settled_at IS NOT NULL`) == 1
	})
	eventually(t, "the other is deferred", func() bool {
		return number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id = 'away-1' AND user_id = 'away-nobody' AND status = 'deferred' AND reason = 'away'`) == 1
	})
	c, err := client.Dial(t.Context(), sys.socketURL("gateway-2"), client.StaticToken(token("away-nobody")), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	select {
	case n := <-c.Notifications():
		if n.ID != "away-1" {
			t.Errorf("got %+v", n)
		}
	case <-time.After(patience):
		t.Fatal("what waited did not come with the connection")
	}
}

func endOf(t *testing.T, topic string) (end int64) {
	t.Helper()
	offsets, err := admin().ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range offsets[topic] {
		end += p.Offset
	}
	return end
}

// TestKcat: another language's client writes the record.
func TestKcat(t *testing.T) {
	kcat, err := exec.LookPath("kcat")
	if err != nil {
		const sentence = "kcat shows that librdkafka's records arrive; install it (Debian: apt-get install kcat): %v"
		if os.Getenv("WHISPER_REQUIRE_REAL") == "1" {
			t.Fatalf(sentence, err)
		}
		t.Skipf(sentence, err)
	}
	c, err := client.Dial(t.Context(), sys.socketURL("gateway-1"), client.StaticToken(token("kcat-user")), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	cmd := exec.CommandContext(t.Context(), kcat, "-P", "-b", sys.cluster.Kafka[0], "-t", "whisper.requests.high")
	cmd.Stdin = strings.NewReader(`{"id":"kcat-1","to":{"users":["kcat-user"]},"content":{"title":"مرحبا","body":"from librdkafka"}}`)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("kcat: %v\n%s", err, out)
	}
	select {
	case n := <-c.Notifications():
		if n.ID != "kcat-1" || n.Title != "مرحبا" {
			t.Errorf("got %+v", n)
		}
	case <-time.After(patience):
		t.Fatal("nothing arrived")
	}
}

// TestABadRecordIsADeadLetterOnRealKafka: with its reason and place, and the next one goes on.
func TestABadRecordIsADeadLetterOnRealKafka(t *testing.T) {
	for _, value := range []string{`{"id":"dead-1","to":{"users":["x"]},"colour":"red"}`, `{"id":"dead-2"`} {
		if err := sys.kafka.ProduceSync(t.Context(), &kgo.Record{Topic: "whisper.requests.normal", Key: []byte("dead"), Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	a := connect(t, "dead", 1)
	send(t, "normal", request{ID: "dead-3", To: to("dead-0")})
	eventually(t, "the good one arrives", func() bool { return a.count() == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := sys.command(ctx, "deadletters", "list", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	letters := 0
	for line := range strings.Lines(string(out)) {
		var letter map[string]any
		if err := json.Unmarshal([]byte(line), &letter); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		letters++
	}
	if letters != 2 || !strings.Contains(string(out), "colour") {
		t.Errorf("%d dead letters:\n%s", letters, out)
	}
}
