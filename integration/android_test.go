package integration

import (
	"bytes"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	fcmsimulator "github.com/klivvr/whisper/consumers/push/fcm/simulator"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// TestAnAndroidPhone: a user who has nothing else gets a push by FCM, and the phone is forgotten when FCM says that it is
// gone.
func TestAnAndroidPhone(t *testing.T) {
	const user, phone = "android-user", "dQw4w9WgXcQ:APA91bTheOnlyPhone"
	phones := func() (n int) {
		all(t, "whisper.users", func(rec *kgo.Record) {
			p := &whisperv1.Profile{}
			if string(rec.Key) == user && proto.Unmarshal(rec.Value, p) == nil {
				n = len(p.GetEndpoints())
			}
		})
		return n
	}
	profile := &kgo.Record{
		Topic: "whisper.profiles", Key: []byte(user),
		Value: []byte(`{"endpoints":{"pixel":{"channel":"fcm","token":"` + phone + `","app":"` + topicOfApp + `"}}}`),
	}
	if err := sys.kafka.ProduceSync(t.Context(), profile).FirstErr(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the phone is known", func() bool { return phones() == 1 })
	send(t, "high", request{ID: "android-1", To: to(user)})
	eventually(t, "FCM took it", func() bool {
		return number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id = 'android-1' AND status = 'sent' AND channel = 'fcm' AND settled_at IS NOT NULL`) == 1
	})
	came := 0
	for _, r := range sys.google.Received() {
		if r.Token == phone && bytes.Contains(r.Body, []byte(`"id":"android-1"`)) {
			came++
		}
	}
	if came != 1 {
		t.Errorf("it came %d times", came)
	}

	sys.google.Program(phone, 0, fcmsimulator.Answer{Status: 404, Code: "UNREGISTERED"})
	send(t, "high", request{ID: "android-2", To: to(user)})
	eventually(t, "the phone is forgotten", func() bool { return phones() == 0 })
	eventually(t, "its notification waits for a connection", func() bool {
		return number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id = 'android-2' AND status = 'deferred'`) == 1
	})
}
