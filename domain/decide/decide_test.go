package decide_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

var t0 = time.UnixMilli(1_700_000_000_000)

// at is t0 plus seconds.
func at(seconds int) time.Time { return t0.Add(time.Duration(seconds) * time.Second) }

type given struct {
	channels []string
	sendAt   time.Time
	ttl      time.Duration
	template string
}

func arrived(notification, user string, offset int64, g given) decide.DeliveryArrived {
	if g.channels == nil {
		g.channels = []string{domain.ChannelSocket, domain.ChannelPush}
	}
	if g.ttl == 0 {
		g.ttl = time.Hour
	}
	id := domain.NewDeliveryID(t0, domain.HashDelivery(notification, user))
	acc := &whisperv1.DeliveryAccepted{
		Category: "default", Channels: g.channels, Content: &whisperv1.Content{Title: "T", Body: "B"}, Template: g.template,
		AcceptedAtMs: t0.UnixMilli(), ExpiresAtMs: t0.Add(g.ttl).UnixMilli(),
		Request: &whisperv1.Position{Topic: "whisper.requests.high", Offset: offset}, Recipients: 1,
	}
	if !g.sendAt.IsZero() {
		acc.SendAtMs = g.sendAt.UnixMilli()
	}
	return decide.DeliveryArrived{
		Source: decide.LaneOffset{Lane: domain.High, Offset: offset},
		Event: &whisperv1.Event{
			DeliveryId: id[:], NotificationId: notification, UserId: user, Lane: whisperv1.Lane_LANE_HIGH,
			Kind: &whisperv1.Event_DeliveryAccepted{DeliveryAccepted: acc},
		},
	}
}

func here(user, node, session string, incarnation uint64) decide.PresenceSeen {
	return decide.PresenceSeen{User: user, Node: node, Presence: &whisperv1.Presence{
		UserId: user, Node: node, Incarnation: incarnation, Sessions: 1, LatestSession: session, AtUs: t0.UnixMicro(),
	}}
}

func gone(user, node string) decide.PresenceSeen { return decide.PresenceSeen{User: user, Node: node} }

func endpoint(user string, names ...string) decide.ProfilePatched {
	var list []string
	for _, n := range names {
		list = append(list, fmt.Sprintf(`%q:{"channel":"apns","token":"tok-%s","app":"a"}`, n, n))
	}
	return decide.ProfilePatched{User: user, Patch: []byte(`{"endpoints":{` + strings.Join(list, ",") + `}}`), At: t0, Offset: 1}
}

func about(notification, user string, ev *whisperv1.Event) decide.FactSeen {
	id := domain.NewDeliveryID(t0, domain.HashDelivery(notification, user))
	ev.DeliveryId, ev.NotificationId, ev.UserId, ev.AtUs = id[:], notification, user, t0.UnixMicro()+1
	return decide.FactSeen{Event: ev}
}

func socketSent(n, user string, attempt int32) decide.FactSeen {
	return about(n, user, &whisperv1.Event{Kind: &whisperv1.Event_DeliverySent{DeliverySent: &whisperv1.DeliverySent{Attempt: attempt, Channel: "socket", Node: "n1"}}})
}

func acked(n, user string) decide.FactSeen {
	return about(n, user, &whisperv1.Event{Kind: &whisperv1.Event_DeliveryDelivered{DeliveryDelivered: &whisperv1.DeliveryDelivered{Attempt: 1, Channel: "socket"}}})
}

func pushed(n, user, name string, attempt int32) decide.FactSeen {
	return about(n, user, &whisperv1.Event{Kind: &whisperv1.Event_DeliverySent{DeliverySent: &whisperv1.DeliverySent{Attempt: attempt, Channel: "apns", Endpoint: name}}})
}

func failed(n, user string, f *whisperv1.AttemptFailed) decide.FactSeen {
	return about(n, user, &whisperv1.Event{Kind: &whisperv1.Event_AttemptFailed{AttemptFailed: f}})
}

func pushFailed(n, user, name string, attempt int32, class whisperv1.FailureClass) decide.FactSeen {
	return failed(n, user, &whisperv1.AttemptFailed{Attempt: attempt, Channel: "apns", Endpoint: name, Class: class, Reason: "because"})
}

func bounce(n, user string, attempt int32, incarnation uint64) decide.FactSeen {
	return failed(n, user, &whisperv1.AttemptFailed{
		Attempt: attempt, Channel: "socket", Node: "n1", Incarnation: incarnation, Class: whisperv1.FailureClass_FAILURE_CLASS_UNREACHABLE,
	})
}

// said is an output in a few words.
func said(o decide.Output) string {
	switch o := o.(type) {
	case decide.Emit:
		switch k := o.Event.GetKind().(type) {
		case *whisperv1.Event_DeliverySuppressed:
			return "suppressed " + k.DeliverySuppressed.GetReason()
		case *whisperv1.Event_DeliveryDeferred:
			return "deferred " + k.DeliveryDeferred.GetReason()
		case *whisperv1.Event_DeliveryFailed:
			return "failed " + k.DeliveryFailed.GetReason()
		case *whisperv1.Event_DeliveryExpired:
			return "expired " + k.DeliveryExpired.GetReason()
		case *whisperv1.Event_BroadcastProgressed:
			p := k.BroadcastProgressed
			state := strings.ToLower(strings.TrimPrefix(p.GetState().String(), "BROADCAST_STATE_"))
			if p.GetSettled() {
				state += " settled"
			}
			return fmt.Sprintf("%s %d/%d for %d", state, p.GetWalked(), p.GetAudience(), p.GetMatched())
		default:
			return domain.KindOf(o.Event)
		}
	case decide.RouteTo:
		to := o.Node
		if s := o.Route.GetSession(); s != "" {
			to += "/" + s
		}
		if users := o.Route.GetUsers(); len(users) > 0 {
			to += " for " + strings.Join(users, ",")
		}
		if o.Route.GetRetract() {
			return "retract at " + to
		}
		return fmt.Sprintf("route %s #%d to %s", o.Route.GetNotificationId(), o.Route.GetAttempt(), to)
	case decide.PushTo:
		if o.Push.GetRetract() {
			return fmt.Sprintf("take back %s #%d from %s %s", o.Push.GetNotificationId(), o.Push.GetAttempt(), o.Push.GetEndpoint(), o.Push.GetToken())
		}
		return fmt.Sprintf("push %s #%d to %s", o.Push.GetNotificationId(), o.Push.GetAttempt(), o.Push.GetEndpoint())
	case decide.Park:
		if first := o.Parked.GetWalkFirst(); first != nil {
			return "park first " + strings.Join(first.GetUsers(), ",")
		}
		if o.Parked.GetMeant() != nil {
			return "park meant"
		}
		return "park"
	case decide.ParkAfter:
		return "park after"
	case decide.Recall:
		return fmt.Sprintf("recall %s from %d", o.Notification, o.From.Unix()-t0.Unix())
	case decide.Unpark:
		return "unpark"
	case decide.PutPresence:
		return fmt.Sprintf("presence of %s on %s", o.User, o.Node)
	case decide.PutClaim:
		return "claim " + o.Claim.GetEndpoint()
	case decide.PutUser:
		if o.Profile == nil || o.Profile.GetErased() {
			return "forget " + o.User
		}
		return "put " + o.User
	case decide.Releasing:
		return "releasing " + o.User
	case decide.TokenMoved:
		return "moved from " + o.User
	case decide.Reject:
		return "reject: " + o.Reason.Error()
	case decide.Steered:
		return o.Command + " " + o.Notification
	case decide.SliceTaken:
		return fmt.Sprintf("slice %d", o.Slice)
	case decide.Advanced:
		return fmt.Sprintf("advanced to %s", o.Cursor.GetCursor().GetUser())
	case decide.Finished:
		return "finished"
	case decide.Settle:
		return fmt.Sprintf("settle %d", o.Source.Offset)
	case decide.Remember:
		return "remember"
	case decide.Count:
		return "count " + o.User
	case decide.Uncount:
		return "uncount " + o.User
	case decide.Deliver:
		return "deliver " + o.Event.GetNotificationId()
	case decide.Notice:
		return "notice " + o.What + " " + o.Name
	default:
		return fmt.Sprintf("%T", o)
	}
}

// step is an input at a time and what it makes dispatch say.
type step struct {
	at   int
	in   decide.Input
	want []string
}

func TestDecisions(t *testing.T) {
	t.Parallel()
	retry, drop, prune := whisperv1.FailureClass_FAILURE_CLASS_RETRY, whisperv1.FailureClass_FAILURE_CLASS_DROP, whisperv1.FailureClass_FAILURE_CLASS_PRUNE
	n1 := decide.NodeSeen{Node: "n1", Incarnation: 1}
	n2 := decide.NodeSeen{Node: "n2", Incarnation: 1}
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
			{1, decide.NodeSeen{Node: "n1"}, []string{"deferred away", "park", "settle 7"}},
			{2, here("mona", "n2", "s2", 1), []string{"route pay #2 to n2"}},
		},
		"presence of an earlier incarnation captures nothing": {
			{0, decide.NodeSeen{Node: "n1", Incarnation: 2}, nil},
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
			{0, decide.ProfilePatched{User: "mona", Patch: []byte(`{"endpoints":{"a":{"channel":"fcm","token":"t","app":"a"}}}`), At: t0, Offset: 1}, []string{"put mona"}},
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

func sameRequest(in decide.DeliveryArrived, offset int64) decide.DeliveryArrived {
	in.Event.GetDeliveryAccepted().Request.Offset = offset
	return in
}

// TestABouncingNodeIsNotAskedInCircles: a node that keeps claiming a user and keeps handing deliveries
// back is asked a few times at once, then after a while.
func TestABouncingNodeIsNotAskedInCircles(t *testing.T) {
	t.Parallel()
	s := decide.NewState(0, decide.DefaultPolicy())
	s.Decide(decide.NodeSeen{Node: "n1", Incarnation: 1}, t0)
	later := here("mona", "n1", "s1", 1)
	later.Presence.AtUs = t0.Add(time.Hour).UnixMicro() // always newer than any bounce
	s.Decide(later, t0)
	s.Decide(arrived("pay", "mona", 7, given{}), t0)
	for attempt := int32(1); attempt < 100; attempt++ {
		out := s.Decide(bounce("pay", "mona", attempt, 1), t0)
		if len(out) > 0 && said(out[0]) == "deferred away" {
			return
		}
	}
	t.Fatal("asked a hundred times without a pause")
}

// TestParkedDeliveriesComeBackAsTheyWere: what Park wrote restores to a state that goes on.
func TestParkedDeliveriesComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	before := decide.NewState(0, decide.DefaultPolicy())
	var parked *whisperv1.Parked
	in := arrived("pay", "mona", 7, given{})
	in.Trace = decide.Trace{Parent: "00-a-b-01", State: "x=y"}
	for _, o := range before.Decide(in, t0) {
		if p, ok := o.(decide.Park); ok {
			parked = proto.CloneOf(p.Parked)
		}
	}
	after := decide.NewState(0, decide.DefaultPolicy())
	after.RestoreParked(parked)
	after.Decide(decide.NodeSeen{Node: "n1", Incarnation: 1}, t0)
	out := after.Decide(here("mona", "n1", "s1", 1), t0)
	if len(out) != 1 {
		t.Fatalf("got %v", out)
	}
	route, ok := out[0].(decide.RouteTo)
	if !ok || route.Trace != in.Trace || route.Route.GetAttempt() != 1 {
		t.Fatalf("got %#v", out[0])
	}
	// And it is still told as a duplicate.
	if out := after.Decide(arrived("pay", "mona", 9, given{}), t0); said(out[0]) != "duplicate_dropped" {
		t.Fatalf("got %v", said(out[0]))
	}
}

func TestBackoffGrowsIsJitteredAndBounded(t *testing.T) {
	t.Parallel()
	b := domain.Backoff{Base: time.Second, Cap: time.Minute, Tries: 3}
	id := domain.NewDeliveryID(t0, domain.HashDelivery("a", "b"))
	other := domain.NewDeliveryID(t0, domain.HashDelivery("a", "c"))
	for try, full := range map[int32]time.Duration{0: time.Second, 1: 2 * time.Second, 5: 32 * time.Second, 6: time.Minute, 60: time.Minute} {
		d := b.Delay(id, try)
		if d < full/2 || d > full {
			t.Errorf("try %d: %s is not between half and all of %s", try, d, full)
		}
		if d != b.Delay(id, try) {
			t.Errorf("try %d: not the same twice", try)
		}
		if d == b.Delay(other, try) {
			t.Errorf("try %d: two deliveries wait equally long", try)
		}
	}
	if b.Exhausted(2) || !b.Exhausted(3) {
		t.Error("three tries are three")
	}
}

// BenchmarkDecide is one delivery to a connected user and its acknowledgement: what dispatch decides for
// the usual case, without encoding records.
func BenchmarkDecide(b *testing.B) {
	s := decide.NewState(0, decide.DefaultPolicy())
	s.ReplayDone()
	s.Decide(decide.NodeSeen{Node: "n1", Incarnation: 1}, t0)
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
		s.Decide(decide.FactSeen{Event: &whisperv1.Event{
			DeliveryId: in.Event.GetDeliveryId(), UserId: user,
			Kind: &whisperv1.Event_DeliveryDelivered{DeliveryDelivered: &whisperv1.DeliveryDelivered{Attempt: 1, Channel: "socket"}},
		}}, t0)
		i++
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
}

// restarted is a state as after a restart that lost everything but what is given.
func restarted(t *testing.T, facts ...decide.FactSeen) *decide.State {
	t.Helper()
	s := decide.NewState(0, decide.DefaultPolicy())
	for _, f := range facts {
		s.Decide(f, at(1))
	}
	s.Decide(decide.NodeSeen{Node: "n1", Incarnation: 1}, at(1))
	s.Decide(here("mona", "n1", "s1", 1), at(1))
	return s
}

// TestAReplayedDeliveryIsSentWithItsContent: a socket took it before a restart and the user connects anew
// before acknowledging. What comes again must say the same; an empty frame would also make the client drop
// the full one.
func TestAReplayedDeliveryIsSentWithItsContent(t *testing.T) {
	t.Parallel()
	s := restarted(t, socketSent("pay", "mona", 1))
	if out := s.Decide(arrived("pay", "mona", 7, given{}), at(2)); len(out) != 0 {
		t.Fatalf("a socket has it: %v", out)
	}
	out := s.Decide(here("mona", "n1", "s2", 1), at(3))
	if len(out) != 1 {
		t.Fatalf("a new session: %v", out)
	}
	if frame := string(out[0].(decide.RouteTo).Route.GetFrame()); !strings.Contains(frame, `"body":"B"`) {
		t.Errorf("sent again without its content: %s", frame)
	}
}

// TestAReplayedDeliveryStandsAtTheSocket, also where the socket is not the first channel: the time to
// acknowledge counts, and a new session gets it.
func TestAReplayedDeliveryStandsAtTheSocket(t *testing.T) {
	t.Parallel()
	for _, in := range []decide.Input{here("mona", "n1", "s2", 1), decide.TimePassed{}} {
		s := restarted(t, socketSent("pay", "mona", 1))
		s.Decide(arrived("pay", "mona", 7, given{channels: []string{"push", "socket"}}), at(2))
		out := s.Decide(in, at(12))
		if len(out) == 0 {
			t.Fatalf("%T: nothing follows", in)
		}
		if got := said(out[0]); got != "route pay #2 to n1/s2" && got != "deferred unacknowledged" {
			t.Errorf("%T: %s", in, got)
		}
	}
}

// TestADeliveryThatOutlivesTheWindowIsStillOurs: scheduled for longer than ids are remembered and asked for
// again meanwhile, it is one delivery all the same.
func TestADeliveryThatOutlivesTheWindowIsStillOurs(t *testing.T) {
	t.Parallel()
	s := decide.NewState(0, decide.DefaultPolicy())
	s.Decide(decide.NodeSeen{Node: "n1", Incarnation: 1}, t0)
	s.Decide(here("mona", "n1", "s1", 1), t0)
	days := func(n int) time.Time { return t0.Add(time.Duration(n) * 24 * time.Hour) }
	s.Decide(arrived("pay", "mona", 7, given{sendAt: days(3), ttl: 4 * 24 * time.Hour}), t0)
	s.Decide(decide.TimePassed{}, days(2))
	var got []string
	for _, o := range s.Decide(arrived("pay", "mona", 8, given{}), days(2)) {
		got = append(got, said(o))
	}
	if want := []string{"duplicate_dropped", "settle 8"}; !slices.Equal(got, want) {
		t.Errorf("asked again: %q, want %q", got, want)
	}
	var routes []string
	for _, o := range s.Decide(decide.TimePassed{}, days(3)) {
		routes = append(routes, said(o))
	}
	if want := []string{"route pay #1 to n1"}; !slices.Equal(routes, want) {
		t.Errorf("its time has come: %q, want %q", routes, want)
	}
}

// TestAnswersToAParkedDeliveryOutliveARestart: facts about a parked delivery are let go once they are
// folded, so what they told must be in its record.
func TestAnswersToAParkedDeliveryOutliveARestart(t *testing.T) {
	t.Parallel()
	drop := whisperv1.FailureClass_FAILURE_CLASS_DROP
	s := decide.NewState(0, decide.DefaultPolicy())
	s.Decide(endpoint("mona", "ipad", "phone"), t0)
	s.Decide(arrived("pay", "mona", 7, given{}), t0)
	var parked *whisperv1.Parked
	keep := func(out []decide.Output) {
		for _, o := range out {
			if p, ok := o.(decide.Park); ok {
				parked = proto.CloneOf(p.Parked)
			}
		}
	}
	keep(s.Decide(decide.TimePassed{}, at(30)))
	keep(s.Decide(pushFailed("pay", "mona", "ipad", 1, drop), at(31)))

	s = decide.NewState(0, decide.DefaultPolicy())
	s.RestoreParked(parked)
	out := s.Decide(pushFailed("pay", "mona", "phone", 2, drop), at(32))
	if len(out) == 0 || said(out[0]) != "deferred away" {
		t.Errorf("after the last answer: %v", out)
	}
}

// TestResendingSlowsDown: who is connected and never acknowledges is not sent it every half minute for a
// day, whichever channels could be tried in between.
func TestResendingSlowsDown(t *testing.T) {
	t.Parallel()
	for _, channels := range [][]string{{"socket"}, {"socket", "push"}} {
		s := decide.NewState(0, decide.DefaultPolicy())
		s.Decide(decide.NodeSeen{Node: "n1", Incarnation: 1}, t0)
		s.Decide(here("mona", "n1", "s1", 1), t0)
		s.Decide(arrived("pay", "mona", 7, given{channels: channels, ttl: 24 * time.Hour}), t0)
		routes := 1
		for now := t0; now.Before(t0.Add(24 * time.Hour)); now = now.Add(time.Second) {
			for _, o := range s.Decide(decide.TimePassed{}, now) {
				if _, ok := o.(decide.RouteTo); ok {
					routes++
				}
			}
		}
		if routes > 200 { // 15 minutes apart it is 96 to 192
			t.Errorf("%v: sent %d times in a day", channels, routes)
		}
	}
}

// TestOnlyItsOwnIncarnationTakesPresenceBack: an earlier start of a node that has not noticed yet, or whose
// last records come late, says nothing about the sessions of the one that lives.
func TestOnlyItsOwnIncarnationTakesPresenceBack(t *testing.T) {
	t.Parallel()
	tombstone := func(incarnation uint64) decide.PresenceSeen {
		return decide.PresenceSeen{User: "mona", Node: "n1", Incarnation: incarnation}
	}
	for name, tt := range map[string]struct {
		after decide.Input
		want  string
	}{
		"a tombstone of an earlier start": {tombstone(1), "route pay #1 to n1"},
		"presence of an earlier start":    {here("mona", "n1", "s0", 1), "route pay #1 to n1"},
		"its own tombstone":               {tombstone(2), "deferred away"},
		"a tombstone that says nothing":   {gone("mona", "n1"), "deferred away"},
	} {
		s := decide.NewState(0, decide.DefaultPolicy())
		s.Decide(decide.NodeSeen{Node: "n1", Incarnation: 2}, t0)
		s.Decide(here("mona", "n1", "s1", 2), t0)
		s.Decide(tt.after, t0)
		if out := s.Decide(arrived("pay", "mona", 7, given{}), t0); len(out) == 0 || said(out[0]) != tt.want {
			t.Errorf("%s: %v, want %s", name, out, tt.want)
		}
	}
}

// TestPresenceOfDeadIncarnationsIsForgotten: a node that was killed leaves its presence behind; it must not
// pile up with every start.
func TestPresenceOfDeadIncarnationsIsForgotten(t *testing.T) {
	t.Parallel()
	s := decide.NewState(0, decide.DefaultPolicy())
	s.Decide(decide.NodeSeen{Node: "n1", Incarnation: 1}, t0)
	for i := range 10 {
		s.Decide(here(fmt.Sprint("u", i), "n1", "s", 1), t0)
	}
	s.Decide(here("late", "n1", "s", 2), t0) // read before the heartbeat that makes it count
	s.Decide(decide.NodeSeen{Node: "n1"}, t0)
	if n := s.Stats().Connected; n != 11 {
		t.Errorf("%d users after a silence, want 11: it may only have been slow", n)
	}
	s.Decide(decide.NodeSeen{Node: "n1", Incarnation: 2}, t0)
	s.Decide(here("u0", "n1", "s", 1), t0)
	if n := s.Stats().Connected; n != 1 {
		t.Errorf("%d users after the next start, want 1", n)
	}
}

// TestWhatIsDueComesInSlices: a campaign whose time has come must not hold up an alert, and is not kept in
// memory once it is written.
func TestWhatIsDueComesInSlices(t *testing.T) {
	t.Parallel()
	const total = 5_000
	s := decide.NewState(0, decide.DefaultPolicy())
	s.Decide(decide.NodeSeen{Node: "n1", Incarnation: 1}, t0)
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

// TestReconnectingDoesNotPutThePhoneOff: who connects again and again and never acknowledges is on a bad
// network; the time to acknowledge does not begin anew each time for ever.
func TestReconnectingDoesNotPutThePhoneOff(t *testing.T) {
	t.Parallel()
	s := decide.NewState(0, decide.DefaultPolicy())
	s.Decide(decide.NodeSeen{Node: "n1", Incarnation: 1}, t0)
	s.Decide(endpoint("mona", "phone"), t0)
	s.Decide(here("mona", "n1", "s", 1), t0)
	s.Decide(arrived("pay", "mona", 7, given{}), t0)
	for i := 5; i <= 60; i += 5 {
		for _, o := range s.Decide(decide.TimePassed{}, at(i)) {
			if _, ok := o.(decide.PushTo); ok {
				return
			}
		}
		s.Decide(here("mona", "n1", fmt.Sprint("s", i), 1), at(i))
	}
	t.Error("the phone was not tried in a minute")
}

func TestARestartKnowsWhatEndedLate(t *testing.T) {
	t.Parallel()
	s := decide.NewState(0, decide.DefaultPolicy())
	seen := func(n string, ended time.Time) decide.SeenDelivery {
		d := decide.SeenDelivery{Hash: domain.HashDelivery(n, "mona"), Request: 1, AcceptedMs: at(0).UnixMilli()}
		if !ended.IsZero() {
			d.EndedMs = ended.UnixMilli()
		}
		return d
	}
	s.RestoreSeen(seen("early", time.Time{}), seen("late", time.Time{}), seen("late", at(200_000)), seen("late", at(200_001)))
	s.ReplayDone()
	s.Decide(n1, at(1))
	// From the second retraction on the command itself is one of the window's.
	for _, step := range []struct {
		at     int
		told   bool // that it was taken back
		window int
	}{{1, true, 2}, {100_000, true, 0}, {286_401, true, 0}, {286_402, false, 1}} {
		s.Decide(decide.TimePassed{}, at(step.at))
		got := s.Stats().Seen
		s.Decide(steer("retract", "late"), at(step.at))
		told := s.Decide(here("mona", "n1", fmt.Sprint(step.at), 1), at(step.at))
		if got != step.window || len(told) > 0 != step.told {
			t.Errorf("after %d s %d are duplicates, want %d; told %t", step.at, got, step.window, len(told) > 0)
		}
	}
}

// TestAReplayedDeliveryGoesByItsCategory: it was in flight when the partition moved, so only the facts tell of it. Its
// category still says that no phone gets it.
func TestAReplayedDeliveryGoesByItsCategory(t *testing.T) {
	t.Parallel()
	chat, err := category.Parse("default", []byte(`{"channels":["socket"]}`))
	if err != nil {
		t.Fatal(err)
	}
	s := decide.NewState(0, decide.DefaultPolicy())
	s.Decide(decide.CategorySeen{Name: "default", Category: chat}, at(1))
	s.Decide(endpoint("mona", "phone"), at(1))
	s.Decide(socketSent("pay", "mona", 1), at(1))
	s.Decide(decide.NodeSeen{Node: "n1", Incarnation: 1}, at(1))
	s.Decide(here("mona", "n1", "s1", 1), at(1))
	in := arrived("pay", "mona", 7, given{})
	in.Event.GetDeliveryAccepted().ChannelsDefault = true
	s.Decide(in, at(2))
	s.ReplayDone()
	if out := s.Decide(decide.TimePassed{}, at(20)); len(out) == 0 || said(out[0]) != "deferred unacknowledged" {
		t.Errorf("nobody acknowledged: %v", out)
	}
}
