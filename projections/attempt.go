package projections

import (
	"strings"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

type attemptKey struct {
	id     domain.DeliveryID
	number int32
	// target is the endpoint's name, or the node for sockets.
	target string
}

// An attempt is one try on one endpoint or node. Of several facts about it the most telling stands.
type attempt struct {
	attemptKey
	channel, provider string
	outcome, reason   string
	status            int32
	latencyUS         int64
	at                int64
}

// The outcomes, by how much they tell; the SQL of writeAttempts ranks them alike. A failure tells more than an answer
// that never came; that something took it or acknowledged it tells more than any failure.
func outcomeRank(outcome string) int {
	switch outcome {
	case "delivered":
		return 4
	case "sent":
		return 3
	case "unknown":
		return 1
	default:
		return 2
	}
}

func attemptOf(f fact) (a attempt, ok bool) {
	a.id, a.at = f.id, f.ev.GetAtUs()
	switch k := f.ev.GetKind().(type) {
	case *whisperv1.Event_DeliverySent:
		s := k.DeliverySent
		a.number, a.target, a.outcome = s.GetAttempt(), target(s.GetEndpoint(), s.GetNode()), "sent"
		a.channel, a.provider, a.latencyUS = s.GetChannel(), s.GetProvider(), s.GetLatencyUs()
	case *whisperv1.Event_DeliveryDelivered:
		d := k.DeliveryDelivered
		a.number, a.target, a.outcome = d.GetAttempt(), d.GetNode(), "delivered"
		a.channel, a.provider, a.latencyUS = d.GetChannel(), d.GetProvider(), d.GetLatencyUs()
		if d.GetSentAtUs() > 0 {
			a.at = d.GetSentAtUs()
		}
	case *whisperv1.Event_AttemptFailed:
		t := k.AttemptFailed
		a.number, a.target, a.outcome = t.GetAttempt(), target(t.GetEndpoint(), t.GetNode()), className(t.GetClass())
		a.channel, a.provider, a.latencyUS = t.GetChannel(), t.GetProvider(), t.GetLatencyUs()
		a.reason, a.status = t.GetReason(), t.GetStatus()
	default:
		return attempt{}, false
	}
	return a, a.number > 0
}

func target(endpoint, node string) string {
	if endpoint != "" {
		return endpoint
	}
	return node
}

// className is the name of a failure's class in the column outcome.
func className(c whisperv1.FailureClass) string {
	return strings.ToLower(strings.TrimPrefix(c.String(), "FAILURE_CLASS_"))
}

// merge adds another fact about the same attempt: the most telling outcome with its reason, the first
// answer's time, and whatever latency is known.
func (a *attempt) merge(b attempt) {
	if b.beats(*a) {
		a.outcome, a.reason, a.status, a.channel, a.provider = b.outcome, b.reason, b.status, b.channel, b.provider
	}
	a.latencyUS = max(a.latencyUS, b.latencyUS)
	a.at = first(a.at, b.at)
}

// beats is a total order, so that the order of arrival does not matter.
func (a attempt) beats(b attempt) bool {
	if x, y := outcomeRank(a.outcome), outcomeRank(b.outcome); x != y {
		return x > y
	}
	if a.outcome != b.outcome {
		return a.outcome > b.outcome
	}
	if a.reason != b.reason {
		return a.reason > b.reason
	}
	return a.status > b.status
}
