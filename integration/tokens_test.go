package integration

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// TestAPhoneChangesHands: alerts go to the user who registered the phone last, and none to the earlier one. An erased
// owner's id leaves the log of claims.
func TestAPhoneChangesHands(t *testing.T) {
	apns := strings.Repeat("c7", 32)
	const alice, bob = "hands-alice", "hands-bob"
	register := func(user, patch string) {
		t.Helper()
		rec := &kgo.Record{Topic: "whisper.profiles", Key: []byte(user)}
		if patch != "" {
			rec.Value = []byte(patch)
		}
		if err := sys.kafka.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	phone := fmt.Sprintf(`{"endpoints":{"iphone":{"channel":"apns","token":%q,"app":%q}}}`, apns, topicOfApp)
	status := func(id, user, status string) {
		t.Helper()
		eventually(t, id+" of "+user+" is "+status, func() bool {
			return number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id = $1 AND user_id = $2 AND status::text = $3`, id, user, status) == 1
		})
	}
	owner := func() (user string) {
		hash := decide.HashToken("apns", apns)
		all(t, "whisper.tokens", func(rec *kgo.Record) {
			c := &whisperv1.TokenClaim{}
			if bytes.Equal(rec.Key, hash[:]) && proto.Unmarshal(rec.Value, c) == nil {
				user = c.GetUserId()
			}
		})
		return user
	}
	phones := func(user string) (n int) {
		all(t, "whisper.users", func(rec *kgo.Record) {
			p := &whisperv1.Profile{}
			if string(rec.Key) == user && proto.Unmarshal(rec.Value, p) == nil {
				n = len(p.GetEndpoints())
			}
		})
		return n
	}

	register(alice, phone)
	eventually(t, "alice has the phone", func() bool { return phones(alice) == 1 && owner() == alice })
	send(t, "high", request{ID: "hands-1", To: to(alice)})
	status("hands-1", alice, "sent")

	register(bob, phone)
	eventually(t, "bob has the phone, and alice does not", func() bool { return phones(bob) == 1 && phones(alice) == 0 && owner() == bob })
	send(t, "high", request{ID: "hands-2", To: to(alice, bob)})
	status("hands-2", bob, "sent")
	status("hands-2", alice, "deferred")

	register(bob, "")
	eventually(t, "nothing says that it was bob's", func() bool { return owner() == "" && phones(bob) == 0 })
	send(t, "high", request{ID: "hands-3", To: to(alice)})
	status("hands-3", alice, "deferred")
}
