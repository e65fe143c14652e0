package decide_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func TestDecisions(t *testing.T) {
	t.Parallel()
	retry, drop, prune := whisperv1.FailureClass_FAILURE_CLASS_RETRY, whisperv1.FailureClass_FAILURE_CLASS_DROP,
		whisperv1.FailureClass_FAILURE_CLASS_PRUNE
	n1 := decide.NodeChanged{Node: "n1", Incarnation: 1}
	n2 := decide.NodeChanged{Node: "n2", Incarnation: 1}
	pushOnly := given{channels: []string{"push"}}
	tests := map[string][]step{
		"a connected user gets it and acknowledges": {
			{0, n1, nil},
			{0, here("mona", "n1", "s1", 1), nil},
			{0, arrived("pay", "mona", 7, given{}), []string{"route pay #1 to n1"}},
			{0, socketSent("pay", "mona", 1), nil},
			{1, acked("pay", "mona"), []string{"settle 7"}},
		},
		"every node that holds the user gets it; the first acknowledgement counts": {
			{0, n1, nil},
			{0, n2, nil},
			{0, here("mona", "n1", "s1", 1), nil},
			{0, here("mona", "n2", "s2", 1), nil},
			{0, arrived("pay", "mona", 7, given{}), []string{"route pay #1 to n1", "route pay #1 to n2"}},
			{1, acked("pay", "mona"), []string{"settle 7"}},
			{2, acked("pay", "mona"), nil},
		},
		"the same request again says nothing, another request with its id is a duplicate": {
			{0, n1, nil},
			{0, here("mona", "n1", "s1", 1), nil},
			{0, arrived("pay", "mona", 7, given{}), []string{"route pay #1 to n1"}},
			{0, sameRequest(arrived("pay", "mona", 8, given{}), 7), []string{"settle 8"}},
			{0, arrived("pay", "mona", 9, given{}), []string{"duplicate_dropped", "settle 9"}},
			{1, acked("pay", "mona"), []string{"settle 7"}},
			{2, arrived("pay", "mona", 10, given{}), []string{"duplicate_dropped", "settle 10"}},
		},
		"who is away and has no endpoint is waited for": {
			{0, n1, nil},
			{0, arrived("pay", "mona", 7, given{}), []string{"deferred away", "park", "settle 7"}},
			{60, here("mona", "n1", "s1", 1), []string{"route pay #1 to n1"}},
			{61, acked("pay", "mona"), []string{"unpark", "remember"}},
		},
		"who is away and has a phone is pushed to": {
			{0, endpoint("mona", "phone"), []string{"put mona"}},
			{0, arrived("pay", "mona", 7, given{}), []string{"push pay #1 to phone"}},
			{1, pushed("pay", "mona", "phone", 1), []string{"settle 7"}},
		},
		"all phones are tried, one that takes it is enough": {
			{0, endpoint("mona", "ipad", "phone"), []string{"put mona"}},
			{0, arrived("pay", "mona", 7, given{}), []string{"push pay #1 to ipad", "push pay #2 to phone"}},
			{1, pushFailed("pay", "mona", "ipad", 1, drop), nil},
			{1, pushed("pay", "mona", "phone", 2), []string{"settle 7"}},
		},
		"no acknowledgement in time: the phone is next": {
			{0, n1, nil},
			{0, endpoint("mona", "phone"), []string{"put mona"}},
			{0, here("mona", "n1", "s1", 1), nil},
			{0, arrived("pay", "mona", 7, given{}), []string{"route pay #1 to n1"}},
			{0, socketSent("pay", "mona", 1), nil},
			{9, decide.TimePassed{}, nil},
			{10, decide.TimePassed{}, []string{"push pay #2 to phone"}},
			{11, pushed("pay", "mona", "phone", 2), []string{"settle 7"}},
		},
		"a socket took it, nobody acknowledged, and the phone is dead: it comes at the next connection": {
			{0, n1, nil},
			{0, endpoint("mona", "phone"), []string{"put mona"}},
			{0, here("mona", "n1", "s1", 1), nil},
			{0, arrived("pay", "mona", 7, given{}), []string{"route pay #1 to n1"}},
			{0, socketSent("pay", "mona", 1), nil},
			{10, decide.TimePassed{}, []string{"push pay #2 to phone"}},
			{11, pushFailed("pay", "mona", "phone", 2, prune), []string{"put mona", "releasing mona", "endpoint_pruned", "deferred unacknowledged", "park", "settle 7"}},
			{12, here("mona", "n1", "s2", 1), []string{"route pay #3 to n1"}},
			{13, acked("pay", "mona"), []string{"unpark"}},
		},
		"a socket took it, nobody acknowledged, and the provider asks for time: the push is tried again": {
			{0, n1, nil},
			{0, endpoint("mona", "phone"), []string{"put mona"}},
			{0, here("mona", "n1", "s1", 1), nil},
			{0, arrived("pay", "mona", 7, given{}), []string{"route pay #1 to n1"}},
			{0, socketSent("pay", "mona", 1), nil},
			{10, decide.TimePassed{}, []string{"push pay #2 to phone"}},
			{11, pushFailed("pay", "mona", "phone", 2, retry), []string{"deferred retry"}},
			{14, decide.TimePassed{}, []string{"push pay #3 to phone"}},
			{15, pushed("pay", "mona", "phone", 3), []string{"settle 7"}},
		},
		"a push that nobody answers keeps it from no socket; its answer counts when it comes": {
			{0, n1, nil},
			{0, endpoint("mona", "phone"), []string{"put mona"}},
			{0, arrived("pay", "mona", 7, given{}), []string{"push pay #1 to phone"}},
			{30, decide.TimePassed{}, []string{"park", "settle 7"}},
			{60, here("mona", "n1", "s1", 1), []string{"route pay #2 to n1"}},
			{61, socketSent("pay", "mona", 2), nil},
			{70, decide.TimePassed{}, []string{"park"}},
			{80, here("mona", "n1", "s2", 1), []string{"route pay #3 to n1"}},
			{81, pushed("pay", "mona", "phone", 1), []string{"unpark", "remember"}},
		},
		"a push that fails while a socket has it disturbs nothing, and is tried again when nobody acknowledges": {
			{0, n1, nil},
			{0, endpoint("mona", "phone"), []string{"put mona"}},
			{0, arrived("pay", "mona", 7, given{}), []string{"push pay #1 to phone"}},
			{1, here("mona", "n1", "s1", 1), []string{"route pay #2 to n1"}},
			{2, pushFailed("pay", "mona", "phone", 1, retry), nil},
			{11, decide.TimePassed{}, []string{"push pay #3 to phone"}},
		},
		"a push whose turn was given to a socket is tried again, also where it comes first": {
			{0, n1, nil},
			{0, endpoint("mona", "phone"), []string{"put mona"}},
			{0, arrived("pay", "mona", 7, given{channels: []string{"push", "socket"}}), []string{"push pay #1 to phone"}},
			{1, here("mona", "n1", "s1", 1), []string{"route pay #2 to n1"}},
			{2, pushFailed("pay", "mona", "phone", 1, retry), nil},
			{11, decide.TimePassed{}, []string{"deferred retry"}},
			{14, decide.TimePassed{}, []string{"push pay #3 to phone"}},
		},
		"a phone that registers late gets what waits": {
			{0, arrived("pay", "mona", 7, given{}), []string{"deferred away", "park", "settle 7"}},
			{1, endpoint("mona", "phone"), []string{"put mona", "push pay #1 to phone"}},
			{2, pushed("pay", "mona", "phone", 1), []string{"unpark"}},
		},
		"a patch that is handed out again after a crash makes good what did not follow from it": {
			{0, arrived("pay", "mona", 7, given{channels: []string{"socket"}}), []string{"deferred away", "park", "settle 7"}},
			{1, endpoint("mona", "phone"), []string{"put mona"}},
			{1, arrived("pay2", "mona", 8, given{}), []string{"push pay2 #1 to phone"}},
			{2, pushFailed("pay2", "mona", "phone", 1, drop), []string{"deferred away", "park", "settle 8"}},
			{3, endpoint("mona", "phone"), []string{"claim phone", "push pay2 #2 to phone"}},
		},
		"a phone that registers while another one's push is open is tried where that fails": {
			{0, endpoint("mona", "phone"), []string{"put mona"}},
			{0, arrived("pay", "mona", 7, given{}), []string{"push pay #1 to phone"}},
			{1, decide.ProfilePatched{User: "mona", Patch: []byte(`{"endpoints":{"phone":{"channel":"apns","token":"new"}}}`), At: at(1), Offset: 2}, []string{"put mona", "releasing mona"}},
			{2, pushFailed("pay", "mona", "phone", 1, drop), []string{"push pay #2 to phone"}},
		},
		"a phone that registers while nobody acknowledges is tried": {
			{0, n1, nil},
			{0, here("mona", "n1", "s1", 1), nil},
			{0, arrived("pay", "mona", 7, given{}), []string{"route pay #1 to n1"}},
			{0, socketSent("pay", "mona", 1), nil},
			{10, decide.TimePassed{}, []string{"deferred unacknowledged", "park", "settle 7"}},
			{12, endpoint("mona", "phone"), []string{"put mona", "push pay #2 to phone"}},
		},
		"what a provider asked for holds whoever connects meanwhile": {
			{0, n1, nil},
			{0, endpoint("mona", "phone"), []string{"put mona"}},
			{0, arrived("pay", "mona", 7, given{}), []string{"push pay #1 to phone"}},
			{
				1, failed("pay", "mona", &whisperv1.AttemptFailed{Attempt: 1, Channel: "apns", Endpoint: "phone", Class: retry, RetryAfterMs: 60_000}),
				[]string{"deferred retry", "park", "settle 7"},
			},
			{2, here("mona", "n1", "s1", 1), []string{"route pay #2 to n1"}},
			{12, decide.TimePassed{}, []string{"deferred retry", "park"}},
			{61, decide.TimePassed{}, []string{"push pay #3 to phone"}},
		},
		"a late acknowledgement settles what the phone was asked": {
			{0, n1, nil},
			{0, endpoint("mona", "phone"), []string{"put mona"}},
			{0, here("mona", "n1", "s1", 1), nil},
			{0, arrived("pay", "mona", 7, given{}), []string{"route pay #1 to n1"}},
			{10, decide.TimePassed{}, []string{"push pay #2 to phone"}},
			{11, acked("pay", "mona"), []string{"settle 7"}},
			{12, pushed("pay", "mona", "phone", 2), nil},
		},
		"no acknowledgement and no phone: it comes again later, and on the next connection": {
			{0, n1, nil},
			{0, here("mona", "n1", "s1", 1), nil},
			{0, arrived("pay", "mona", 7, given{}), []string{"route pay #1 to n1"}},
			{0, socketSent("pay", "mona", 1), nil},
			{10, decide.TimePassed{}, []string{"deferred unacknowledged", "park", "settle 7"}},
			{45, decide.TimePassed{}, []string{"route pay #2 to n1"}},
			{46, here("mona", "n1", "s2", 1), []string{"route pay #3 to n1/s2"}},
			{47, acked("pay", "mona"), []string{"unpark"}},
		},
		"a node that does not hold the user hands it back: the next channel, or waiting": {
			{0, n1, nil},
			{0, here("mona", "n1", "s1", 1), nil},
			{0, arrived("pay", "mona", 7, given{}), []string{"route pay #1 to n1"}},
			{1, bounce("pay", "mona", 1, 1), []string{"deferred away", "park", "settle 7"}},
			{2, here("mona", "n1", "s2", 1), []string{"route pay #2 to n1"}},
		},
		"an acknowledgement that was on its way when the user left still counts": {
			{0, n1, nil},
			{0, endpoint("mona", "phone"), []string{"put mona"}},
			{0, here("mona", "n1", "s1", 1), nil},
			{0, arrived("pay", "mona", 7, given{}), []string{"route pay #1 to n1"}},
			{1, gone("mona", "n1"), nil},
			{1, acked("pay", "mona"), []string{"settle 7"}},
		},
		"a user who leaves before acknowledging is not waited for much longer": {
			{0, n1, nil},
			{0, endpoint("mona", "phone"), []string{"put mona"}},
			{0, here("mona", "n1", "s1", 1), nil},
			{0, arrived("pay", "mona", 7, given{}), []string{"route pay #1 to n1"}},
			{1, gone("mona", "n1"), nil},
			{2, decide.TimePassed{}, []string{"push pay #2 to phone"}},
		},
		"a dead node's users are routed anew": {
			{0, n1, nil},
			{0, n2, nil},
			{0, here("mona", "n1", "s1", 1), nil},
			{0, arrived("pay", "mona", 7, given{}), []string{"route pay #1 to n1"}},
			{1, decide.NodeChanged{Node: "n1"}, []string{"deferred away", "park", "settle 7"}},
			{2, here("mona", "n2", "s2", 1), []string{"route pay #2 to n2"}},
		},
		"presence of an earlier incarnation captures nothing": {
			{0, decide.NodeChanged{Node: "n1", Incarnation: 2}, nil},
			{0, here("mona", "n1", "s1", 1), nil},
			{0, arrived("pay", "mona", 7, given{}), []string{"deferred away", "park", "settle 7"}},
			{1, here("mona", "n1", "s2", 2), []string{"route pay #1 to n1"}},
		},
		"presence may be read before the heartbeat that makes it count": {
			{0, here("mona", "n1", "s1", 1), nil},
			{0, arrived("pay", "mona", 7, given{}), []string{"deferred away", "park", "settle 7"}},
			{1, n1, []string{"route pay #1 to n1"}},
		},
		"a second device that connects gets what is not acknowledged": {
			{0, n1, nil},
			{0, n2, nil},
			{0, here("mona", "n1", "s1", 1), nil},
			{0, arrived("pay", "mona", 7, given{}), []string{"route pay #1 to n1"}},
			{1, here("mona", "n2", "s2", 1), []string{"route pay #2 to n2/s2"}},
			{2, acked("pay", "mona"), []string{"settle 7"}},
		},
		"a provider that asks for time is given it": {
			{0, endpoint("mona", "phone"), []string{"put mona"}},
			{0, arrived("pay", "mona", 7, pushOnly), []string{"push pay #1 to phone"}},
			{
				1, failed("pay", "mona", &whisperv1.AttemptFailed{Attempt: 1, Channel: "apns", Endpoint: "phone", Class: retry, RetryAfterMs: 60_000}),
				[]string{"deferred retry", "park", "settle 7"},
			},
			{60, decide.TimePassed{}, nil},
			{61, decide.TimePassed{}, []string{"push pay #2 to phone"}},
			{62, pushed("pay", "mona", "phone", 2), []string{"unpark", "remember"}},
		},
		"while it waits for a provider, a user who connects gets it over the socket": {
			{0, n1, nil},
			{0, endpoint("mona", "phone"), []string{"put mona"}},
			{0, arrived("pay", "mona", 7, given{}), []string{"push pay #1 to phone"}},
			{
				1, failed("pay", "mona", &whisperv1.AttemptFailed{Attempt: 1, Channel: "apns", Endpoint: "phone", Class: retry, RetryAfterMs: 60_000}),
				[]string{"deferred retry", "park", "settle 7"},
			},
			{2, here("mona", "n1", "s1", 1), []string{"route pay #2 to n1"}},
			{3, acked("pay", "mona"), []string{"unpark"}},
		},
		"a dead endpoint is forgotten; with nothing left it failed": {
			{0, endpoint("mona", "phone"), []string{"put mona"}},
			{0, arrived("pay", "mona", 7, pushOnly), []string{"push pay #1 to phone"}},
			{1, pushFailed("pay", "mona", "phone", 1, prune), []string{"put mona", "releasing mona", "endpoint_pruned", "failed because", "settle 7"}},
			{2, arrived("pay2", "mona", 8, pushOnly), nil},
			{17, decide.TimePassed{}, []string{"suppressed no_endpoint", "settle 8"}},
		},
		"an endpoint that was registered again is kept": {
			{0, endpoint("mona", "phone"), []string{"put mona"}},
			{0, arrived("pay", "mona", 7, pushOnly), []string{"push pay #1 to phone"}},
			{1, failed("pay", "mona", &whisperv1.AttemptFailed{
				Attempt: 1, Channel: "apns", Endpoint: "phone", Class: prune, Reason: "Unregistered", InvalidSinceMs: t0.UnixMilli() - 1,
			}), []string{"failed Unregistered", "settle 7"}},
		},
		"a push to nobody we know waits for a moment, is suppressed and says why": {
			{0, arrived("pay", "mona", 7, pushOnly), nil},
			{14, decide.TimePassed{}, nil},
			{15, decide.TimePassed{}, []string{"suppressed unknown_user", "settle 7"}},
		},
		"a profile that is read after the request brings the endpoint": {
			{0, arrived("pay", "mona", 7, pushOnly), nil},
			{2, decide.ProfilePatched{User: "mona", Patch: []byte(`{"locale":"en"}`), At: t0, Offset: 1}, []string{"put mona"}},
			{3, decide.ProfilePatched{User: "mona", Patch: []byte(`{"endpoints":{"phone":{"channel":"apns","token":"t","app":"a"}}}`), At: t0, Offset: 2}, []string{"put mona", "push pay #1 to phone"}},
			{4, pushed("pay", "mona", "phone", 1), []string{"settle 7"}},
		},
		"one that waits for an endpoint can be cancelled": {
			{0, arrived("pay", "mona", 7, pushOnly), nil},
			{1, decide.CancelArrived{Source: decide.LaneOffset{Offset: 8}, Event: &whisperv1.Event{NotificationId: "pay"}}, []string{"delivery_cancelled", "settle 7", "settle 8", "cancel pay"}},
			{15, decide.TimePassed{}, nil},
		},
		"one that waits for an endpoint expires": {
			{0, arrived("pay", "mona", 7, given{channels: []string{domain.ChannelPush}, ttl: 10 * time.Second}), nil},
			{15, decide.TimePassed{}, []string{"expired ttl", "settle 7"}},
		},
		"an endpoint of a channel without a push role is passed over": {
			{0, decide.ProfilePatched{User: "mona", Patch: []byte(`{"endpoints":{"a":{"channel":"webpush","token":"t","app":"a"}}}`), At: t0, Offset: 1}, []string{"put mona"}},
			{0, arrived("pay", "mona", 7, pushOnly), nil},
			{15, decide.TimePassed{}, []string{"suppressed no_endpoint", "settle 7"}},
		},
		"an answer that does not come is waited for in the timers": {
			{0, endpoint("mona", "phone"), []string{"put mona"}},
			{0, arrived("pay", "mona", 7, pushOnly), []string{"push pay #1 to phone"}},
			{30, decide.TimePassed{}, []string{"park", "settle 7"}},
			{600, pushed("pay", "mona", "phone", 1), []string{"unpark", "remember"}},
		},
		"it waits for its send_at": {
			{0, n1, nil},
			{0, here("mona", "n1", "s1", 1), nil},
			{0, arrived("pay", "mona", 7, given{sendAt: at(100)}), []string{"delivery_scheduled", "park", "settle 7"}},
			{50, here("mona", "n1", "s2", 1), nil},
			{100, decide.TimePassed{}, []string{"route pay #1 to n1"}},
		},
		"nothing is sent after its time": {
			{3600, arrived("pay", "mona", 7, given{}), []string{"expired ttl", "settle 7"}},
			{3600, arrived("pay2", "mona", 8, given{ttl: 2 * time.Hour}), []string{"deferred away", "park", "settle 8"}},
			{7200, decide.TimePassed{}, []string{"expired ttl", "unpark", "remember"}},
		},
		"what a socket took and nobody acknowledged ends as such": {
			{0, n1, nil},
			{0, here("mona", "n1", "s1", 1), nil},
			{0, arrived("pay", "mona", 7, given{ttl: 5 * time.Second}), []string{"route pay #1 to n1"}},
			{1, socketSent("pay", "mona", 1), nil},
			{5, decide.TimePassed{}, []string{"expired unacknowledged", "settle 7"}},
		},
		"a cancel reaches what waits": {
			{0, arrived("pay", "mona", 7, given{}), []string{"deferred away", "park", "settle 7"}},
			{1, decide.CancelArrived{Source: decide.LaneOffset{Offset: 8}, Event: &whisperv1.Event{NotificationId: "pay"}}, []string{"delivery_cancelled", "unpark", "settle 8", "cancel pay"}},
			{2, here("mona", "n1", "s1", 1), nil},
			{2, n1, nil},
		},
		"a profile that can't be merged is rejected, a forgotten user is forgotten": {
			{0, decide.ProfilePatched{User: "mona", Patch: []byte(`{"locale":"ar-EG"}`), At: t0, Offset: 1}, []string{"put mona"}},
			{0, decide.ProfilePatched{User: "mona", Patch: []byte(`{"locale":"ar-EG"}`), At: t0, Offset: 1}, nil},
			{0, decide.ProfilePatched{User: "mona", Offset: 2}, []string{"forget mona", "user_erased"}},
			{0, decide.ProfilePatched{User: "mona", Offset: 3}, []string{"user_erased"}},
		},
		"what was sent days after it was asked for can be taken back for a day, and asked for again": {
			{0, n1, nil},
			{0, here("mona", "n1", "s1", 1), nil},
			{0, arrived("pay", "mona", 7, given{sendAt: at(259_200), ttl: 96 * time.Hour}), []string{"delivery_scheduled", "park", "settle 7"}},
			{259_200, decide.TimePassed{}, []string{"route pay #1 to n1"}},
			{259_201, acked("pay", "mona"), []string{"unpark", "remember"}},
			{345_000, decide.TimePassed{}, []string{"remember"}},
			{345_000, asked("pay", 345_000, 8, 96*time.Hour), []string{"route pay #1 to n1"}},
			{345_000, steer("cancel", "pay"), []string{"delivery_cancelled", "settle 8", "settle 9", "cancel pay"}},
			{345_000, steer("retract", "pay"), []string{"settle 9", "retract pay", "park", "retract at n1 for mona"}},
			{345_001, here("mona", "n1", "s2", 1), []string{"retract at n1/s2 for mona"}},
		},
		"per user and lane, order is kept when the user returns": {
			{0, n1, nil},
			{0, arrived("a", "mona", 1, given{}), []string{"deferred away", "park", "settle 1"}},
			{0, arrived("b", "mona", 2, given{}), []string{"deferred away", "park", "settle 2"}},
			{0, arrived("c", "mona", 3, given{}), []string{"deferred away", "park", "settle 3"}},
			{1, here("mona", "n1", "s1", 1), []string{"route a #1 to n1", "route b #1 to n1", "route c #1 to n1"}},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := decide.NewState(0, decide.DefaultPolicy())
			s.ReplayDone()
			for i, step := range steps {
				var got []string
				for _, o := range s.Decide(step.in, at(step.at)) {
					got = append(got, said(o))
				}
				if !slices.Equal(got, step.want) {
					t.Fatalf("step %d (%T at %ds):\n got %q\nwant %q", i, step.in, step.at, got, step.want)
				}
			}
		})
	}
}

// BenchmarkDecide is one delivery to a connected user and its acknowledgement: what dispatch decides for
// the usual case, without encoding records.
func BenchmarkDecide(b *testing.B) {
	s := decide.NewState(0, decide.DefaultPolicy())
	s.ReplayDone()
	s.Decide(decide.NodeChanged{Node: "n1", Incarnation: 1}, t0)
	const users = 10_000
	for i := range users {
		s.Decide(here(fmt.Sprint("user-", i), "n1", "s", 1), t0)
	}
	b.ReportAllocs()
	i := int64(0)
	for b.Loop() {
		user := fmt.Sprint("user-", i%users)
		in := arrived(fmt.Sprint("n-", i), user, i, given{})
		s.Decide(in, t0)
		s.Decide(decide.FactArrived{Event: &whisperv1.Event{
			DeliveryId: in.Event.GetDeliveryId(), UserId: user,
			Kind: &whisperv1.Event_DeliveryDelivered{DeliveryDelivered: &whisperv1.DeliveryDelivered{Attempt: 1, Channel: "socket"}},
		}}, t0)
		i++
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
}

// TestWhatIsDueComesInSlices: a campaign whose time has come must not hold up an alert, and is not kept in
// memory once it is written.
func TestWhatIsDueComesInSlices(t *testing.T) {
	t.Parallel()
	const total = 5_000
	s := decide.NewState(0, decide.DefaultPolicy())
	s.Decide(decide.NodeChanged{Node: "n1", Incarnation: 1}, t0)
	s.Decide(here("mona", "n1", "s1", 1), t0)
	for i := range total {
		s.Decide(arrived(fmt.Sprint("c-", i), "mona", int64(i), given{sendAt: at(60)}), t0)
	}
	var got []string
	for range total {
		out := s.Decide(decide.TimePassed{}, at(60))
		if len(out) > 2*decide.DueSlice {
			t.Fatalf("%d outputs at once", len(out))
		}
		for _, o := range out {
			got = append(got, said(o))
		}
		if due, ok := s.NextDue(); !ok || due.After(at(60)) {
			break
		}
	}
	if len(got) != total {
		t.Fatalf("%d routes, want %d", len(got), total)
	}
	for i, route := range got {
		if want := fmt.Sprintf("route c-%d #1 to n1", i); route != want {
			t.Fatalf("%s, want %s: their order is lost", route, want)
		}
	}
}
