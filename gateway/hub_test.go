package gateway

import (
	"fmt"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// Sessions come and go at once, and so do those who publish: the records of each user are in order of time,
// each is later than every one before it, and the last tells how it is.
func TestPresenceIsInOrder(t *testing.T) {
	t.Parallel()
	n := prepare(t, func(c *Config, _ *fakeBroker) { c.MaxPerUser = 1000 })
	const users, sessions, rounds = 5, 8, 200
	var changing, publishing sync.WaitGroup
	done := make(chan struct{})
	for range 2 { // the loop's own, and the drain's
		publishing.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					n.presence.publish()
				}
			}
		})
	}
	for i := range users * sessions {
		changing.Go(func() {
			s := &session{g: n.Gateway, id: fmt.Sprint(i), user: fmt.Sprint("user-", i%users)}
			for range rounds {
				n.hub.add(s)
				n.hub.remove(s)
				n.hub.remove(s)
			}
			if i < users*sessions/2 {
				n.hub.add(s) // stays
			}
		})
	}
	changing.Wait()
	close(done)
	publishing.Wait()
	n.presence.publish()

	last, here := map[string]int64{}, map[string]int32{}
	for _, rec := range n.broker.published(consumers.TopicPresence) {
		var p whisperv1.Presence
		if err := proto.Unmarshal(rec.Value, &p); err != nil {
			t.Fatal(err)
		}
		key := string(rec.Key)
		if here[key] = p.GetSessions(); len(rec.Value) == 0 {
			continue
		}
		if p.GetAtUs() <= last[key] {
			t.Fatalf("%q: at %d after %d", key, p.GetAtUs(), last[key])
		}
		last[key] = p.GetAtUs()
	}
	for u := range users {
		if got := here[fmt.Sprintf("user-%d\x00n1", u)]; got != sessions/2 {
			t.Errorf("user-%d: %d sessions, want %d", u, got, sessions/2)
		}
	}
}
