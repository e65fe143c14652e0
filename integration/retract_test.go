package integration

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers/push/apns/simulator"
)

// TestRetractReachesPhones: what Apple accepted is retracted by a background push to the same phone, although dispatch is
// killed as the retraction arrives. A phone that never got the notification gets no push.
func TestRetractReachesPhones(t *testing.T) {
	phones := map[string]string{"back-had-it": fmt.Sprintf("%064x", 0xbac001), "back-other": fmt.Sprintf("%064x", 0xbac002)}
	before := endOf(t, "whisper.users")
	for user, phone := range phones {
		profile := fmt.Sprintf(`{"endpoints":{"iphone":{"channel":"apns","token":%q,"app":%q}}}`, phone, topicOfApp)
		if err := sys.kafka.ProduceSync(t.Context(), &kgo.Record{Topic: "whisper.profiles", Key: []byte(user), Value: []byte(profile)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the profiles are known", func() bool { return endOf(t, "whisper.users") >= before+2 })
	send(t, "high", request{ID: "back-1", To: to("back-had-it")})
	send(t, "high", request{ID: "back-2", To: to("back-other")})
	eventually(t, "Apple took both", func() bool {
		return number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id IN ('back-1', 'back-2') AND status = 'sent' AND channel = 'apns'`) == 2
	})

	cast(t, map[string]any{"retract": "back-1"})
	sys.kill(t, "dispatch")
	sys.restart(t, "dispatch")
	eventually(t, "the phone was asked to take it back, and a fact says so", func() bool {
		return len(backgroundPushes(phones["back-had-it"])) > 0 &&
			number(t, `SELECT count(DISTINCT t.delivery_id) FROM whisper.timeline t JOIN whisper.deliveries d USING (delivery_id)
				WHERE t.kind = 'delivery_retracted' AND d.notification_id = 'back-1' AND t.detail->>'channel' = 'apns'`) == 1
	})
	for _, got := range backgroundPushes(phones["back-had-it"]) {
		var payload struct {
			ID        string `json:"id"`
			Retracted bool   `json:"retracted"`
		}
		if err := json.Unmarshal(got.Payload, &payload); err != nil || payload.ID != "back-1" || !payload.Retracted || got.Priority != 5 || got.Topic != topicOfApp {
			t.Errorf("got %+v with %s, %v", got, got.Payload, err)
		}
	}
	if n := number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id = 'back-1' AND status = 'sent'`); n != 1 {
		t.Errorf("%d deliveries are still sent, want the one", n)
	}
	if others := backgroundPushes(phones["back-other"]); len(others) > 0 {
		t.Errorf("a phone that never had it got %d pushes", len(others))
	}
}

func backgroundPushes(phone string) (got []simulator.Received) {
	for _, r := range sys.apple.Received() {
		if r.PushType == "background" && r.Token == phone {
			got = append(got, r)
		}
	}
	return got
}
