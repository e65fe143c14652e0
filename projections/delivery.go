package projections

import (
	"cmp"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/template"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// A row is one delivery as the table `deliveries` keeps it. Times are Unix microseconds, 0: not yet.
// It holds what the facts said, so that merging two rows loses nothing; what analysts read beside that
// (reason, settled_at) is derived.
type row struct {
	id             domain.DeliveryID
	notificationID string
	userID         string
	lane           whisperv1.Lane // never unspecified
	status         domain.Status

	// From the accepted record; request.topic is empty until it was read. Requests of one millisecond
	// share the id; this is the least of them.
	request position
	asked

	// The last attempt that was answered.
	attempts int32
	channel  string

	// First times.
	sentAt, deliveredAt, readAt, pushedAt, endedAt int64
	// Since when nothing but Whisper held back what was sent first.
	dueAt int64

	// What the most telling fact below sent gave as its reason.
	noted note
}

// asked is what a delivery's request said.
type asked struct {
	known              bool // false in rows from before the table kept more than the category
	category, template string
	templateVersion    int64 // 0: none
	expiresAt, sendAt  int64
	broadcast          bool
}

func askedBy(acc *whisperv1.DeliveryAccepted) asked {
	a := asked{known: true, category: acc.GetCategory()}
	if us := acc.GetExpiresAtMs() * 1000; inRange(us) {
		a.expiresAt = us
	}
	if us := acc.GetSendAtMs() * 1000; inRange(us) {
		a.sendAt = us
	}
	a.template, a.templateVersion = template.Split(acc.GetTemplate())
	return a
}

// A note is a reason with what it is about. Of two, the one of the greater status stands, then the later.
type note struct {
	known  bool
	status domain.Status
	at     int64
	reason string
}

func (n note) compare(m note) int {
	switch {
	case n.known != m.known:
		if n.known {
			return 1
		}
		return -1
	case n.status != m.status:
		return cmp.Compare(n.status, m.status)
	case n.at != m.at:
		return cmp.Compare(n.at, m.at)
	}
	return cmp.Compare(n.reason, m.reason)
}

// rowOf is what one fact says about its delivery; ok is false for facts that say nothing about it.
func rowOf(f fact) (r row, ok bool) {
	r = row{id: f.id, notificationID: f.ev.GetNotificationId(), userID: f.ev.GetUserId(), lane: domain.LaneOf(f.ev.GetLane()).Proto()}
	status, claims := domain.StatusOf(f.ev)
	if claims {
		r.status = status
	}
	at := f.ev.GetAtUs()
	reason := ""
	switch k := f.ev.GetKind().(type) {
	case *whisperv1.Event_DeliveryAccepted:
		r.request, r.asked = positionOf(k.DeliveryAccepted.GetRequest()), askedBy(k.DeliveryAccepted)
	case *whisperv1.Event_DeliveryDeferred:
		reason = k.DeliveryDeferred.GetReason()
	case *whisperv1.Event_DeliverySent:
		r.tried(k.DeliverySent.GetAttempt(), k.DeliverySent.GetChannel())
		r.sentAt, r.dueAt = at, dueOf(f.id, k.DeliverySent.GetDueMs())
		if r.channel != domain.ChannelSocket { // a socket's answer is only half: its acknowledgement is awaited
			r.pushedAt = at
		}
	case *whisperv1.Event_DeliveryDelivered:
		r.tried(k.DeliveryDelivered.GetAttempt(), k.DeliveryDelivered.GetChannel())
		r.deliveredAt, r.sentAt = at, k.DeliveryDelivered.GetSentAtUs()
		r.dueAt = dueOf(f.id, k.DeliveryDelivered.GetDueMs())
	case *whisperv1.Event_DeliveryRead:
		r.readAt = at
	case *whisperv1.Event_AttemptFailed:
		r.tried(k.AttemptFailed.GetAttempt(), k.AttemptFailed.GetChannel())
		reason = k.AttemptFailed.GetReason()
	case *whisperv1.Event_DeliveryFailed:
		r.endedAt, reason = at, k.DeliveryFailed.GetReason()
	case *whisperv1.Event_DeliverySuppressed:
		r.endedAt, reason = at, k.DeliverySuppressed.GetReason()
	case *whisperv1.Event_DeliveryExpired:
		r.endedAt, reason = at, k.DeliveryExpired.GetReason()
	case *whisperv1.Event_DeliveryCancelled:
		r.endedAt = at
	case *whisperv1.Event_DeliveryScheduled:
	case *whisperv1.Event_DuplicateDropped, *whisperv1.Event_EndpointPruned, *whisperv1.Event_CancelRequested,
		*whisperv1.Event_BroadcastProgressed, *whisperv1.Event_BroadcastDropped, *whisperv1.Event_DeliveryRetracted,
		*whisperv1.Event_RetractFailed, *whisperv1.Event_UserErased:
		return row{}, false
	default: // a kind from a later version: only the timeline has it
		return row{}, false
	}
	if claims && status < domain.Sent {
		r.noted = note{known: true, status: status, at: at, reason: reason}
	}
	return r, true
}

func (r *row) tried(attempt int32, channel string) { r.attempts, r.channel = attempt, channel }

// merge adds what another row of the same delivery knows.
func (r *row) merge(o row) {
	r.lane = max(r.lane, o.lane)
	r.status = r.status.Then(o.status)
	r.mergeRequest(o)
	if o.attempts > r.attempts || o.attempts == r.attempts && o.channel > r.channel {
		r.attempts, r.channel = o.attempts, o.channel
	}
	r.dueAt = r.mergedDue(o)
	r.sentAt = first(r.sentAt, o.sentAt)
	r.deliveredAt = first(r.deliveredAt, o.deliveredAt)
	r.readAt = first(r.readAt, o.readAt)
	r.pushedAt = first(r.pushedAt, o.pushedAt)
	r.endedAt = first(r.endedAt, o.endedAt)
	if o.noted.compare(r.noted) > 0 {
		r.noted = o.noted
	}
}

// dueOf is a time that a fact gives in milliseconds, 0 standing for the request's.
func dueOf(id domain.DeliveryID, ms int64) int64 {
	if us := ms * 1000; ms > 0 && inRange(us) {
		return us
	}
	return id.Time().UnixMicro()
}

// mergedDue is that of the row that was sent first, the later one of two that were sent at once.
func (r *row) mergedDue(o row) int64 {
	switch {
	case r.sentAt == o.sentAt:
		return max(r.dueAt, o.dueAt)
	case first(r.sentAt, o.sentAt) == r.sentAt:
		return r.dueAt
	default:
		return o.dueAt
	}
}

func (r *row) mergeRequest(o row) {
	if o.accepted() && (!r.accepted() || o.request.compare(r.request) < 0 || o.request == r.request && o.known && !r.known) {
		r.request, r.asked = o.request, o.asked
	}
}

// accepted says whether the accepted record was read.
func (r *row) accepted() bool { return r.request.topic != "" }

func first(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// reason is why the delivery stands where it does. What was acknowledged needs none; what was sent
// keeps the reason of an end that was called all the same (expired: unacknowledged).
func (r *row) reason() string {
	switch {
	case r.status >= domain.Delivered, r.status == domain.Sent && r.noted.status < domain.Cancelled:
		return ""
	default:
		return r.noted.reason
	}
}

// settledAt is when it reached an end: taken by a push provider, acknowledged by a client, or ended
// without either.
func (r *row) settledAt() int64 {
	switch {
	case r.status >= domain.Delivered:
		return first(first(r.deliveredAt, r.readAt), r.pushedAt)
	case r.status == domain.Sent:
		return first(r.pushedAt, r.endedAt)
	case r.status >= domain.Cancelled:
		return r.endedAt
	default:
		return 0
	}
}

// reachedAt is when it came to the status where it stands; 0 while it is pending.
func (r *row) reachedAt() int64 {
	switch {
	case r.status == domain.Read:
		return r.readAt
	case r.status == domain.Delivered:
		return r.deliveredAt
	case r.status == domain.Sent:
		return r.sentAt
	case r.status.Pending():
		return 0
	default:
		return r.endedAt
	}
}
