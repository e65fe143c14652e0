package dispatch

import (
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// An attempt that can't be handed over, since its node's or its channel's topic takes none, reaches its delivery and
// nothing else. The fact that the node or the push role would have written says so, in the attempt's own epoch: it
// comes back as feedback, and the delivery goes on to its next place or channel. A crash before the fact is durable
// decides the delivery again, one after it reads the fact.

// bounces tells of topics that take no attempts, once in a while.
type bounces struct {
	role   *Role
	routes *metrics.Counter
	pushes *metrics.Counter

	mu   sync.Mutex
	told map[string]time.Time
}

const bounceLog = 10 * time.Second

func newBounces(r *Role) *bounces {
	return &bounces{
		role: r, told: map[string]time.Time{},
		routes: metrics.GetOrCreateCounter(`whisper_dispatch_bounced_attempts_total{channel="socket"}`),
		pushes: metrics.GetOrCreateCounter(`whisper_dispatch_bounced_attempts_total{channel="push"}`),
	}
}

func (b *bounces) tell(topic string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := time.Now(); now.Sub(b.told[topic]) > bounceLog {
		b.told[topic] = now
		b.role.log.Error("attempts can't be handed over, their deliveries go on elsewhere", "topic", topic, "error", err,
			"mend", consumers.HelpFor(err))
	}
}

// routed is told what became of a route's record, which is part of e.
func (p *partition) routed(e *epoch, o decide.RouteTo) func(error) {
	return func(err error) {
		if !p.bounces(err) {
			e.acked(err)
			return
		}
		p.role.bounces.tell(consumers.TopicNode(o.Node), err)
		if o.Route.GetRetract() { // nobody acknowledges it; whoever connects is told again
			e.acked(nil)
			return
		}
		at := p.role.cfg.Now()
		users := o.Route.GetUsers()
		shared, _ := domain.DeliveryIDFromBytes(o.Route.GetDeliveryId())
		if len(users) == 0 {
			users = []string{o.User}
		}
		p.role.bounces.routes.Add(len(users))
		facts := make([]*whisperv1.Event, 0, len(users))
		for _, user := range users {
			id := shared
			if len(o.Route.GetUsers()) > 0 {
				id = domain.NewDeliveryID(shared.Time(), domain.HashDelivery(o.Route.GetNotificationId(), user))
			}
			facts = append(facts, &whisperv1.Event{
				DeliveryId: id[:], NotificationId: o.Route.GetNotificationId(), UserId: user, Lane: o.Route.GetLane(), AtUs: at.UnixMicro(),
				Kind: &whisperv1.Event_AttemptFailed{AttemptFailed: &whisperv1.AttemptFailed{
					Attempt: o.Route.GetAttempt(), Channel: domain.ChannelSocket, Node: o.Node, Incarnation: o.Route.GetIncarnation(),
					Class: bounceClass(err, whisperv1.FailureClass_FAILURE_CLASS_UNREACHABLE), Reason: "the node's topic does not take it",
				}},
			})
		}
		p.tellBounce(e, facts, o.Trace)
	}
}

// pushed is told what became of a push's record, which is part of e.
func (p *partition) pushed(e *epoch, o decide.PushTo) func(error) {
	return func(err error) {
		if !p.bounces(err) {
			e.acked(err)
			return
		}
		p.role.bounces.tell(consumers.TopicPush(o.Push.GetChannel(), domain.LaneOf(o.Push.GetLane())), err)
		p.role.bounces.pushes.Inc()
		failed := &whisperv1.AttemptFailed{
			Attempt: o.Push.GetAttempt(), Channel: o.Push.GetChannel(), Endpoint: o.Push.GetEndpoint(),
			Class: bounceClass(err, whisperv1.FailureClass_FAILURE_CLASS_RETRY), Reason: "the channel's topic does not take it",
		}
		ev := &whisperv1.Event{
			DeliveryId: o.Push.GetDeliveryId(), NotificationId: o.Push.GetNotificationId(), UserId: o.Push.GetUserId(),
			Lane: o.Push.GetLane(), AtUs: p.role.cfg.Now().UnixMicro(),
		}
		if o.Push.GetRetract() {
			ev.Kind = &whisperv1.Event_RetractFailed{RetractFailed: failed}
		} else {
			ev.Kind = &whisperv1.Event_AttemptFailed{AttemptFailed: failed}
		}
		p.tellBounce(e, []*whisperv1.Event{ev}, o.Trace)
	}
}

// bounces: the error is the attempt's alone. Neither a process that can't write at all nor a partition that goes
// says anything about it.
func (p *partition) bounces(err error) bool {
	return err != nil && p.ctx.Err() == nil && consumers.ReachOf(err) < consumers.ReachProcess
}

// bounceClass: what is too large is so at the next try, too.
func bounceClass(err error, otherwise whisperv1.FailureClass) whisperv1.FailureClass {
	if consumers.ReachOf(err) == consumers.ReachRecord {
		return whisperv1.FailureClass_FAILURE_CLASS_DROP
	}
	return otherwise
}

// tellBounce writes the facts in place of the record that e waits for. Elsewhere: the publisher's own goroutine, which
// tells of the record, must not wait for room in the other publisher.
func (p *partition) tellBounce(e *epoch, facts []*whisperv1.Event, trace decide.Trace) {
	e.outstanding.Add(int64(len(facts)) - 1)
	go func() {
		for _, ev := range facts {
			rec := p.factRecord(ev, trace)
			if err := p.encode(rec, ev); err != nil {
				e.acked(err)
				continue
			}
			p.role.bulk.Publish(p.ctx, rec, e.acked)
		}
	}()
}
