package apns

import (
	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/consumers/push/gate"
	"github.com/klivvr/whisper/consumers/push/guard"
)

// settle acts on the last answer of an attempt, and turns it into the result.
func (p *Provider) settle(t *try, topic string, pass *gate.Passage) push.Result {
	v := t.verdict
	if !v.Listed {
		p.guard.Unclassified(t.status, guard.Word(t.reason))
	}
	r := push.Result{
		Class: v.Class, Reason: t.reason, Status: t.status, ProviderID: t.apnsID,
		RetryAfter: v.After, InvalidSince: t.timestamp, Bug: v.Then == DeadLetter,
	}
	if !r.Sent() {
		r.RetryAfter = max(r.RetryAfter, t.after)
		if r.Reason == "" {
			r.Reason = noAnswer(t)
		} else {
			r.Reason = guard.Word(r.Reason)
		}
	}
	switch {
	case t.status == 0 && t.reason == "":
		p.guard.Failed(pass, r.Reason)
	case v.Class == stop && v.Then == StopTopic:
		r.RetryAfter = p.guard.StopScope(pass, topic, r.Reason)
	case v.Class == stop:
		r.RetryAfter = p.guard.StopCredential(pass, r.Reason)
	case v.Then == Trip:
		p.guard.Failed(pass, r.Reason)
	case v.Then == Guard:
		r.Class = p.guard.Dead(pass, v.Class, r.Reason)
	default:
		p.guard.Answered(pass)
	}
	return r
}

// noAnswer is our reason for an attempt that got no answer with a reason.
func noAnswer(t *try) string {
	switch {
	case t.status != 0:
		return "no_reason"
	case t.conn == nil:
		return "no_connection"
	default:
		return "no_answer"
	}
}
