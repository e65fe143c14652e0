package domain

import (
	"fmt"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// Status is the state of a delivery. The values are ordered by how much they tell. A fact never takes a status back: of
// two facts, in whatever order they arrive, the greater status stands. So any replay or reordering of the facts of a
// delivery folds to the same status.
//
//	accepted → scheduled → deferred → unknown → cancelled | suppressed | expired | failed → sent → delivered → read
//
// An end such as `expired` gives way to `sent` and what follows it: if a provider took an attempt, that is a fact even
// if its answer came late. Not the other way round: what was sent stays sent.
type Status int8

// The statuses, ascending. Add one only with the next version of the contract. Their order is stored nowhere; their
// names are.
const (
	// Accepted: a valid request named this user.
	Accepted Status = iota
	// Scheduled: it waits for its send_at.
	Scheduled
	// Deferred: it waits for the user to connect, for a check or for a provider.
	Deferred
	// Unknown: a provider's answer never came, so it may have been sent.
	Unknown
	// Cancelled before anything was sent.
	Cancelled
	// Suppressed: not sent on purpose; the reason says why.
	Suppressed
	// Expired before anything took it.
	Expired
	// Failed: every channel was tried, and none took it.
	Failed
	// Sent: a socket or a provider took it.
	Sent
	// Delivered: the client has it.
	Delivered
	// Read: the person has seen it.
	Read
)

// Statuses are all of them, ascending.
var Statuses = [...]Status{Accepted, Scheduled, Deferred, Unknown, Cancelled, Suppressed, Expired, Failed, Sent, Delivered, Read}

// String is the status's name in tables and metrics.
func (s Status) String() string {
	switch s {
	case Accepted:
		return "accepted"
	case Scheduled:
		return "scheduled"
	case Deferred:
		return "deferred"
	case Unknown:
		return "unknown"
	case Cancelled:
		return "cancelled"
	case Suppressed:
		return "suppressed"
	case Expired:
		return "expired"
	case Failed:
		return "failed"
	case Sent:
		return "sent"
	case Delivered:
		return "delivered"
	case Read:
		return "read"
	default:
		return fmt.Sprintf("Status(%d)", int8(s))
	}
}

// ParseStatus reads a status's name.
func ParseStatus(name string) (Status, error) {
	for _, s := range Statuses {
		if s.String() == name {
			return s, nil
		}
	}
	return 0, fmt.Errorf("unknown status %q", name)
}

// Pending reports whether something is still to happen: the conservation sum counts accepted, scheduled, deferred and
// unknown as pending.
func (s Status) Pending() bool { return s < Cancelled }

// Then is the status after a fact that claims next: the greater of both.
func (s Status) Then(next Status) Status { return max(s, next) }

// StatusOf returns the status that a fact claims for its delivery. ok is false for facts that claim none (a failed
// attempt, a dropped duplicate, a pruned endpoint, a requested cancel).
func StatusOf(ev *whisperv1.Event) (status Status, ok bool) {
	switch k := ev.GetKind().(type) {
	case *whisperv1.Event_DeliveryAccepted:
		return Accepted, true
	case *whisperv1.Event_DeliveryScheduled:
		return Scheduled, true
	case *whisperv1.Event_DeliveryDeferred:
		return Deferred, true
	case *whisperv1.Event_AttemptFailed:
		return Unknown, k.AttemptFailed.GetClass() == whisperv1.FailureClass_FAILURE_CLASS_UNKNOWN
	case *whisperv1.Event_DeliveryCancelled:
		return Cancelled, true
	case *whisperv1.Event_DeliverySuppressed:
		return Suppressed, true
	case *whisperv1.Event_DeliveryExpired:
		return Expired, true
	case *whisperv1.Event_DeliveryFailed:
		return Failed, true
	case *whisperv1.Event_DeliverySent:
		return Sent, true
	case *whisperv1.Event_DeliveryDelivered:
		return Delivered, true
	case *whisperv1.Event_DeliveryRead:
		return Read, true
	case *whisperv1.Event_DuplicateDropped, *whisperv1.Event_EndpointPruned, *whisperv1.Event_CancelRequested,
		*whisperv1.Event_BroadcastAccepted, *whisperv1.Event_BroadcastProgressed, *whisperv1.Event_BroadcastDropped,
		*whisperv1.Event_PauseRequested, *whisperv1.Event_ResumeRequested, *whisperv1.Event_RetractRequested,
		*whisperv1.Event_DeliveryRetracted, *whisperv1.Event_RetractFailed,
		*whisperv1.Event_UserErased:
		return 0, false
	default: // nil, or a kind of a newer version
		return 0, false
	}
}

// KindOf returns the stable name of an event's kind, as in the header `event` and the column `timeline.kind`. It is
// empty for a kind of a newer version.
func KindOf(ev *whisperv1.Event) string {
	switch ev.GetKind().(type) {
	case *whisperv1.Event_DeliveryAccepted:
		return "delivery_accepted"
	case *whisperv1.Event_DeliveryScheduled:
		return "delivery_scheduled"
	case *whisperv1.Event_DeliveryDeferred:
		return "delivery_deferred"
	case *whisperv1.Event_DeliverySent:
		return "delivery_sent"
	case *whisperv1.Event_DeliveryDelivered:
		return "delivery_delivered"
	case *whisperv1.Event_DeliveryRead:
		return "delivery_read"
	case *whisperv1.Event_AttemptFailed:
		return "attempt_failed"
	case *whisperv1.Event_DeliveryFailed:
		return "delivery_failed"
	case *whisperv1.Event_DeliverySuppressed:
		return "delivery_suppressed"
	case *whisperv1.Event_DeliveryExpired:
		return "delivery_expired"
	case *whisperv1.Event_DeliveryCancelled:
		return "delivery_cancelled"
	case *whisperv1.Event_DuplicateDropped:
		return "duplicate_dropped"
	case *whisperv1.Event_EndpointPruned:
		return "endpoint_pruned"
	case *whisperv1.Event_CancelRequested:
		return "cancel_requested"
	case *whisperv1.Event_BroadcastAccepted:
		return "broadcast_accepted"
	case *whisperv1.Event_BroadcastProgressed:
		return "broadcast_progressed"
	case *whisperv1.Event_BroadcastDropped:
		return "broadcast_dropped"
	case *whisperv1.Event_PauseRequested:
		return "pause_requested"
	case *whisperv1.Event_ResumeRequested:
		return "resume_requested"
	case *whisperv1.Event_RetractRequested:
		return "retract_requested"
	case *whisperv1.Event_DeliveryRetracted:
		return "delivery_retracted"
	case *whisperv1.Event_RetractFailed:
		return "retract_failed"
	case *whisperv1.Event_UserErased:
		return "user_erased"
	default:
		return ""
	}
}
