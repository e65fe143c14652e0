package decide_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// TestASocketsFactDecidesAsItsEvent plays a broadcast twice: with facts as events, and as gateways' facts are handed
// over. All outputs are the same, with their causes.
func TestASocketsFactDecidesAsItsEvent(t *testing.T) {
	t.Parallel()
	play := func(hand func(ev *whisperv1.Event, offset int64) decide.Input, legs bool) (outputs []string) {
		s := decide.NewState(0, decide.DefaultPolicy())
		s.ReplayDone()
		if legs {
			s.Decide(decide.CategoryChanged{
				Name:     "default",
				Category: &category.Category{Name: "default", AllChannels: []string{domain.ChannelSocket, domain.ChannelPush}},
			}, at(0))
		}
		step := func(in decide.Input) {
			for _, o := range s.Decide(in, at(0)) {
				text := fmt.Sprintf("%T", o)
				if emit, is := o.(decide.Emit); is {
					text += emit.Event.String()
				}
				if route, is := o.(decide.RouteTo); is {
					text += route.Route.String()
				}
				if park, is := o.(decide.Park); is {
					text += park.Parked.String()
				}
				outputs = append(outputs, text)
			}
		}
		for i, user := range []string{"mona", "omar", "nour"} {
			step(decide.ProfilePatched{User: user, Patch: fmt.Appendf(nil, `{"endpoints":{"p":{"channel":"apns","token":"a%d","app":"a"}}}`, i), At: t0, Offset: int64(i)})
		}
		step(n1)
		step(here("mona", "n1", "s1", 1))
		step(here("omar", "n1", "s2", 1))
		step(with(broadcast("news", ""), func(b *whisperv1.BroadcastAccepted) { b.Accepted.ChannelsDefault = legs }))
		for range 2 {
			step(decide.WalkOn{Lane: domain.Low})
		}
		sent := func(user string) *whisperv1.Event {
			ev := proto.CloneOf(delivered("news", user, 1).Event)
			ev.Kind = &whisperv1.Event_DeliverySent{DeliverySent: &whisperv1.DeliverySent{Attempt: 1, Channel: domain.ChannelSocket, Node: "n1"}}
			return ev
		}
		for i, ev := range []*whisperv1.Event{
			sent("mona"), delivered("news", "mona", 1).Event, delivered("news", "mona", 1).Event, // told twice
			delivered("else", "mona", 1).Event, delivered("news", "nour", 1).Event, // of a process before: nour waits
			sent("omar"), delivered("news", "omar", 1).Event,
		} {
			step(hand(ev, int64(i)))
		}
		return outputs
	}
	for _, legs := range []bool{false, true} {
		want := play(func(ev *whisperv1.Event, offset int64) decide.Input {
			return decide.FactArrived{Event: ev, Cause: &whisperv1.Position{Topic: "e", Partition: 3, Offset: offset}}
		}, legs)
		got := play(func(ev *whisperv1.Event, offset int64) decide.Input {
			value, err := proto.MarshalOptions{Deterministic: true}.Marshal(ev)
			fact, ok := domain.ReadSocketFact(value)
			if err != nil || !ok {
				t.Fatalf("%v is not read: %v", ev, err)
			}
			return &decide.SocketFactArrived{Fact: fact, Value: value, Topic: "e", Partition: 3, Offset: offset}
		}, legs)
		if strings.Contains(strings.Join(want, ""), "decide.Finished") == legs { // with legs, pushes are open
			t.Errorf("legs %v: too little or too much happens: %v", legs, want)
		}
		if len(want) != len(got) {
			t.Fatalf("%d outputs, want %d:\n%v\n%v", len(got), len(want), got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("output %d is %s, want %s", i, got[i], want[i])
			}
		}
	}
}
