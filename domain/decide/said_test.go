package decide_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/klivvr/whisper/domain"
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

func here(user, node, session string, incarnation uint64) decide.PresenceChanged {
	return decide.PresenceChanged{User: user, Node: node, Presence: &whisperv1.Presence{
		UserId: user, Node: node, Incarnation: incarnation, Sessions: 1, LatestSession: session, AtUs: t0.UnixMicro(),
	}}
}

func gone(user, node string) decide.PresenceChanged {
	return decide.PresenceChanged{User: user, Node: node}
}

func endpoint(user string, names ...string) decide.ProfilePatched {
	var list []string
	for _, n := range names {
		list = append(list, fmt.Sprintf(`%q:{"channel":"apns","token":"tok-%s","app":"a"}`, n, n))
	}
	return decide.ProfilePatched{User: user, Patch: []byte(`{"endpoints":{` + strings.Join(list, ",") + `}}`), At: t0, Offset: 1}
}

func about(notification, user string, ev *whisperv1.Event) decide.FactArrived {
	id := domain.NewDeliveryID(t0, domain.HashDelivery(notification, user))
	ev.DeliveryId, ev.NotificationId, ev.UserId, ev.AtUs = id[:], notification, user, t0.UnixMicro()+1
	return decide.FactArrived{Event: ev}
}

func socketSent(n, user string, attempt int32) decide.FactArrived {
	return about(n, user, &whisperv1.Event{Kind: &whisperv1.Event_DeliverySent{DeliverySent: &whisperv1.DeliverySent{
		Attempt: attempt,
		Channel: "socket", Node: "n1",
	}}})
}

func acked(n, user string) decide.FactArrived {
	return about(n, user, &whisperv1.Event{Kind: &whisperv1.Event_DeliveryDelivered{DeliveryDelivered: &whisperv1.DeliveryDelivered{Attempt: 1, Channel: "socket"}}})
}

func pushed(n, user, name string, attempt int32) decide.FactArrived {
	return about(n, user, &whisperv1.Event{Kind: &whisperv1.Event_DeliverySent{DeliverySent: &whisperv1.DeliverySent{
		Attempt: attempt,
		Channel: "apns", Endpoint: name,
	}}})
}

func failed(n, user string, f *whisperv1.AttemptFailed) decide.FactArrived {
	return about(n, user, &whisperv1.Event{Kind: &whisperv1.Event_AttemptFailed{AttemptFailed: f}})
}

func pushFailed(n, user, name string, attempt int32, class whisperv1.FailureClass) decide.FactArrived {
	return failed(n, user, &whisperv1.AttemptFailed{Attempt: attempt, Channel: "apns", Endpoint: name, Class: class, Reason: "because"})
}

func bounce(n, user string, attempt int32, incarnation uint64) decide.FactArrived {
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
			return fmt.Sprintf("take back %s #%d from %s %s", o.Push.GetNotificationId(), o.Push.GetAttempt(), o.Push.GetEndpoint(),
				o.Push.GetToken())
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

func sameRequest(in decide.DeliveryArrived, offset int64) decide.DeliveryArrived {
	in.Event.GetDeliveryAccepted().Request.Offset = offset
	return in
}
