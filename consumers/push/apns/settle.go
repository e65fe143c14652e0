package apns

import (
	"math/rand/v2"
	"time"

	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// passage records the gates that an attempt passed, so that a probe's answer finds its gate.
type passage struct {
	probes [3]*gate
	n      int
}

func (p *passage) abandon() {
	for _, g := range p.probes[:p.n] {
		g.abandon()
	}
}

// pass asks the gates. If one is closed it returns the result that takes the place of APNs's answer.
func (p *Provider) pass(topic string) (taken passage, refused *push.Result) {
	now := p.now()
	for i, g := range []*gate{&p.credential, p.topicGate(topic), &p.breaker} {
		if g == nil {
			continue
		}
		ok, probe, reason, wait := g.pass(now)
		switch {
		case ok && probe:
			taken.probes[taken.n] = g
			taken.n++
		case !ok && i < 2:
			taken.abandon()
			return passage{}, &push.Result{Class: stop, Reason: "stopped:" + reason, RetryAfter: wait}
		case !ok:
			taken.abandon()
			// Attempts that are held back now must not all return at once.
			wait += rand.N(p.cfg.BreakerRest + 1)
			return passage{}, &push.Result{Class: retry, Reason: "breaker:" + reason, RetryAfter: wait}
		}
	}
	return taken, nil
}

// settle acts on the last answer of an attempt, and turns it into the result.
func (p *Provider) settle(t *try, topic string, pass passage) push.Result {
	v, now := t.verdict, p.now()
	if !v.Listed {
		p.m.unclassified.Inc()
		p.log.Error("apns gave an answer that the table does not know", "status", t.status, "reason", word(t.reason))
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
			r.Reason = word(r.Reason)
		}
	}
	switch {
	case t.status == 0 && t.reason == "":
		p.failed(r.Reason, now)
		pass.abandon()
	case v.Class == stop && v.Then == StopTopic:
		p.stopTopic(topic, r.Reason, now)
		r.RetryAfter = p.cfg.Rest
	case v.Class == stop:
		p.stopCredential(r.Reason, now)
		r.RetryAfter = p.cfg.Rest
	case v.Then == Trip:
		p.failed(r.Reason, now)
		pass.abandon()
	default:
		p.answered(pass)
		r.Class = p.guardAnswer(v, r)
	}
	return r
}

// answered notes that APNs answers and accepts our key and topic.
func (p *Provider) answered(pass passage) {
	if p.streak.Load() != 0 {
		p.streak.Store(0)
	}
	for _, g := range pass.probes[:pass.n] {
		g.open()
		switch g {
		case &p.credential:
			p.m.stopped.Set(0)
			p.log.Info("apns takes the credential again", "key_id", p.cfg.KeyID)
		case &p.breaker:
			p.m.breaker.Set(0)
			p.log.Info("apns answers again")
		default:
			p.log.Info("apns takes the topic again")
		}
	}
}

// failed counts a failure for the breaker. While that is open, each failed probe keeps it open.
func (p *Provider) failed(reason string, now time.Time) {
	if p.streak.Add(1) < breakerStreak {
		return
	}
	if p.breaker.close(reason, now) {
		p.m.breaker.Set(1)
		p.log.Error("apns is failing: attempts are put off without asking it", "reason", reason, "rest", p.cfg.BreakerRest)
	}
}

func (p *Provider) stopCredential(reason string, now time.Time) {
	if p.credential.close(reason, now) {
		p.m.stopped.Set(1)
		p.log.Error("apns refuses the credential: nothing is sent until it is mended", "reason", reason, "key_id", p.cfg.KeyID, "next_probe", p.cfg.Rest)
	}
}

func (p *Provider) topicGate(topic string) *gate {
	p.topicsMu.RLock()
	defer p.topicsMu.RUnlock()
	return p.topics[topic]
}

// maxStoppedTopics bounds what is remembered: topics come from users' profiles.
const maxStoppedTopics = 1000

func (p *Provider) stopTopic(topic, reason string, now time.Time) {
	p.topicsMu.Lock()
	g := p.topics[topic]
	if g == nil && len(p.topics) < maxStoppedTopics {
		g = &gate{rest: p.cfg.Rest}
		p.topics[topic] = g
	}
	p.topicsMu.Unlock()
	if g != nil && g.close(reason, now) {
		p.log.Error("apns refuses the topic: nothing is sent to it until it is mended", "reason", reason, "topic", topic, "next_probe", p.cfg.Rest)
	}
}

// guardAnswer counts each answer about a token for the guard against mass pruning.
func (p *Provider) guardAnswer(v Verdict, r push.Result) whisperv1.FailureClass {
	if v.Then == Guard {
		return p.guard(v.Class, r.Reason)
	}
	p.spike.answered(false, p.now())
	return v.Class
}

// guard turns the class of a refused token into one that prunes nothing, while there are suspiciously many of them.
func (p *Provider) guard(class whisperv1.FailureClass, reason string) whisperv1.FailureClass {
	suspect, began := p.spike.answered(true, p.now())
	if began {
		p.log.Error("many device tokens are refused: none is forgotten; check the environment and the apps", "reason", reason)
	}
	if suspect {
		p.m.suspects.Inc()
		return drop
	}
	return class
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

// word cuts a provider's reason to what may be stored and logged.
func word(reason string) string {
	if len(reason) > 64 || !isHeaderValue(reason) {
		return "malformed_reason"
	}
	return reason
}
