package decide

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// lostAtARestart are the fields of a delivery that its parked record does not have, each with the reason why nothing
// depends on them.
var lostAtARestart = map[string]string{
	"doubtful":      "a read ends the retries of a push of which nobody knows what came; without it one more is made",
	"walk":          "the broadcast's own record has it: a delivery of one is restored by it",
	"slice":         "what is parked holds no cursor back",
	"lacking":       "a delivery that is parked may wait once more",
	"untextedSince": "its template may have come; if not, the wait begins anew",
	"sending":       "the attempts over the socket begin anew, and so does their time",
	"denied":        "asked again before each attempt, and before anything that reads it",
	"recount":       "whisper.counters has it, and what was parked before it was counted looks there",
	"readyTo":       "what is parked is woken, or due, again; what is not comes again",
	"rulesChanged":  "what is held is asked by the rules of now when its time comes; a new process has no older ones",
	"closing":       "the digest is written again under the same id, which makes it one",
	"heldByPause":   "its record says that it is due, and the pause stops it again",
	"rateSlot":      "the rate is reserved anew",
	"content":       "rendered again from the version that intake saw",
	"variant":       "with the content",
	"slot":          "a place in the schedule",
	"member":        "a broadcast's record names it",
	"wave":          "it is due by itself",
	"ofNote":        "a place in a list",
	"atSocket":      "a place in a list",
}

// TestARestartKnowsEveryFieldOfADelivery goes over all of them, so that one that is added is either parked or on the list.
func TestARestartKnowsEveryFieldOfADelivery(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_700_000_000_000)
	id := domain.NewDeliveryID(now, domain.HashDelivery("pay", "mona"))
	given := map[string]bool{}
	for name, own := range map[string][]string{
		"its own channels": {"push"}, "those of the request": {"socket", "push"},
		"one of its legs": {"push"},
	} {
		acc := &whisperv1.DeliveryAccepted{
			Channels: []string{"socket", "push"}, ChannelsDefault: true, Category: "c", Content: &whisperv1.Content{Body: "b"},
			ExpiresAtMs: now.Add(time.Hour).UnixMilli(), Request: &whisperv1.Position{Topic: "r", Offset: 9},
		}
		ev := &whisperv1.Event{
			DeliveryId: id[:], NotificationId: "pay", UserId: "mona", Lane: domain.Normal.Proto(),
			Kind: &whisperv1.Event_DeliveryAccepted{DeliveryAccepted: acc},
		}
		due := now.Add(time.Minute)
		d := &delivery{
			id: id, request: FingerprintRequest(acc.GetRequest()), ev: ev, acc: acc, trace: Trace{"p", "s"}, source: LaneOffset{domain.Normal, 7},
			parked: true, phase: whisperv1.Phase_PHASE_BACKOFF, attempt: 3, step: 1, tries: 2,
			waiting:    []waiting{{attempt: 2, node: "n", incarnation: 5}, {attempt: 3, endpoint: "phone"}},
			socketTook: true, pushTook: true, retry: true, lastReason: "because", outlook: pushNewEndpoint,
			pushAfter: now.Add(time.Second), bounces: 4, readyMs: 5,
			own: own, all: true, counted: true, gathered: true, timed: true, digest: "digest/1", until: due, due: due,
		}
		if name == "one of its legs" {
			d.outlook = pushRefused
			socket := d.newLeg()
			socket.own, socket.phase, socket.due, socket.parked, socket.attempt = []string{"socket"}, whisperv1.Phase_PHASE_AWAY,
				now.Add(time.Hour), true, 4
			d.legs = &legs{held: []*delivery{d, socket}, attempt: 4, reached: true, took: true}
			socket.legs = d.legs
		}
		s := NewState(0, DefaultPolicy())
		s.begin(now)
		s.park(d)
		var restored *delivery
		for _, o := range s.out {
			if p, ok := o.(Park); ok {
				encoded, err := proto.Marshal(p.Parked)
				if err != nil {
					t.Fatal(err)
				}
				parked := &whisperv1.Parked{}
				if err := proto.Unmarshal(encoded, parked); err != nil {
					t.Fatal(err)
				}
				after := NewState(0, DefaultPolicy())
				// The category has no channels any more: what was settled stands.
				after.RestoreParked(parked)
				restored = after.deliveries.get(id.Hash())
			}
		}
		if restored == nil {
			t.Fatal("it is not there any more")
		}
		was, is := reflect.ValueOf(d).Elem(), reflect.ValueOf(restored).Elem()
		for i := range was.NumField() {
			field := was.Type().Field(i).Name
			same := sameField(was.Field(i), is.Field(i))
			given[field] = given[field] || !was.Field(i).IsZero()
			switch _, lost := lostAtARestart[field]; {
			case lost:
			case !same:
				t.Errorf("%s, %s: %v before and %v after the restart; put it in Parked, or tell why not", name, field, was.Field(i), is.Field(i))
			}
		}
		for field := range lostAtARestart {
			if _, ok := was.Type().FieldByName(field); !ok {
				t.Errorf("no field %s", field)
			}
		}
	}
	for i := range reflect.TypeFor[delivery]().NumField() {
		if field := reflect.TypeFor[delivery]().Field(i).Name; !given[field] && lostAtARestart[field] == "" {
			t.Errorf("%s: this test gives it no value", field)
		}
	}
}

// sameLegs compares what the legs share, and where each stands; this test goes over the fields of one of them.
func sameLegs(a, b *legs) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.attempt == b.attempt && a.reached == b.reached && a.took == b.took && slices.EqualFunc(a.held, b.held, func(a, b *delivery) bool {
		return slices.Equal(a.own, b.own) && a.phase == b.phase && a.due.Equal(b.due) && a.attempt == b.attempt && a.parked == b.parked &&
			a.all == b.all
	})
}

// sameField compares what can't be read through reflection, since the fields are not exported, by copies that can.
func sameField(a, b reflect.Value) bool {
	x, y := readable(a), readable(b)
	switch x := x.(type) {
	case proto.Message:
		return proto.Equal(x, y.(proto.Message))
	case []waiting:
		return slices.EqualFunc(x, y.([]waiting), func(a, b waiting) bool {
			b.unmade = a.unmade // only a restart sets it
			return a == b
		})
	case *legs:
		return sameLegs(x, y.(*legs))
	case time.Time:
		return x.Equal(y.(time.Time))
	default:
		return reflect.DeepEqual(x, y)
	}
}

func readable(v reflect.Value) any {
	return reflect.NewAt(v.Type(), v.Addr().UnsafePointer()).Elem().Interface()
}
