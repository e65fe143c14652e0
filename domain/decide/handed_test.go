package decide_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// Only an attempt that says how long the way to a socket is has a time: the first, of a delivery that did not wait for its user, until
// a gateway tells of it.
func TestWhenAnAttemptWasHandedOver(t *testing.T) {
	t.Parallel()
	idOf := func(notification, user string) domain.DeliveryID {
		return domain.NewDeliveryID(t0, domain.HashDelivery(notification, user))
	}
	s := decide.NewState(0, decide.DefaultPolicy())
	s.ReplayDone()
	s.Decide(n1, at(0))
	s.Decide(here("mona", "n1", "s1", 1), at(0))
	s.Decide(arrived("pay", "mona", 1, given{}), at(1))
	s.Decide(arrived("away", "omar", 2, given{channels: []string{domain.ChannelSocket}}), at(1))
	s.Decide(here("omar", "n1", "s2", 1), at(2)) // it waited for omar
	s.Decide(endpoint("nour", "iphone"), at(2))
	s.Decide(arrived("phone", "nour", 3, given{channels: []string{domain.ChannelPush}}), at(2))
	s.Decide(broadcast("news", ""), at(2))
	s.Decide(decide.WalkOn{Lane: domain.Low}, at(2))
	for what, c := range map[string]struct {
		notification, user string
		attempt            int32
		want               time.Time
	}{
		"the first attempt":                  {"pay", "mona", 1, at(1)},
		"another attempt":                    {"pay", "mona", 2, time.Time{}},
		"another notification":               {"else", "mona", 1, time.Time{}},
		"a user who was away":                {"away", "omar", 1, time.Time{}},
		"a push":                             {"phone", "nour", 1, time.Time{}},
		"a broadcast, which paces by others": {"news", "mona", 1, time.Time{}},
	} {
		got, nodes := s.Handed(idOf(c.notification, c.user), c.attempt)
		if nodes > 0 == c.want.IsZero() || nodes > 1 || !got.Equal(c.want) {
			t.Errorf("%s: %s, to %d nodes", what, got, nodes)
		}
	}
	sent := proto.CloneOf(delivered("pay", "mona", 1).Event)
	sent.Kind = &whisperv1.Event_DeliverySent{DeliverySent: &whisperv1.DeliverySent{Attempt: 1, Channel: domain.ChannelSocket, Node: "n1"}}
	s.Decide(decide.FactArrived{Event: sent}, at(3))
	if _, nodes := s.Handed(idOf("pay", "mona"), 1); nodes > 0 {
		t.Error("a gateway has told of it, and it is asked for again")
	}
	s.Decide(decide.NodeChanged{Node: "n2", Incarnation: 1}, at(3))
	s.Decide(here("mona", "n2", "s3", 1), at(3))
	s.Decide(arrived("both", "mona", 4, given{}), at(4))
	if _, nodes := s.Handed(idOf("both", "mona"), 1); nodes != 2 {
		t.Errorf("it was handed to %d of the two nodes", nodes)
	}
}
