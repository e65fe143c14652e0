package fcm

import (
	"bytes"
	"encoding/json"
	"net/http"
	"time"

	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/consumers/push/gate"
	"github.com/klivvr/whisper/consumers/push/guard"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// answer is what one request got.
type answer struct {
	status  int // 0: no answer came
	reason  string
	name    string // FCM's id of the message
	verdict Verdict
}

// readAnswer turns an HTTP answer into what it means. cut says that its body ended too early.
func readAnswer(status int, body []byte, cut bool, attempt int32) answer {
	a := answer{status: status}
	if status == http.StatusOK {
		var took struct {
			Name string `json:"name"`
		}
		switch err := json.Unmarshal(body, &took); {
		case err == nil && took.Name != "":
			a.name, a.verdict = took.Name, Classify(status, Refusal{}, attempt)
		case cut && bytes.HasPrefix(bytes.Join(bytes.Fields(body), nil), []byte(`{"name"`)): // it was taken
			a.verdict = Classify(status, Refusal{}, attempt)
		case cut: // it may have been
			a.reason, a.verdict = "half_an_answer", ClassifyNoAnswer(true)
		default: // an error inside, a page, nothing: whoever that was, it was not FCM
			a.reason, a.verdict = "not_an_answer", Verdict{Class: retry, Then: Trip, After: strangerDelay}
		}
		return a
	}
	if cut { // half an error may be any error: nothing is stopped or forgotten for it
		a.reason, a.verdict = "half_an_answer", Verdict{Class: retry, Then: Trip, After: reconnectDelay, Listed: true}
		return a
	}
	refused := ParseRefusal(body)
	a.verdict = Classify(status, refused, attempt)
	if a.reason = refused.Reason(); a.reason == "" {
		a.reason = "no_reason"
	}
	if refused.DeviceQuota {
		a.reason = "DEVICE_" + a.reason
	}
	return a
}

// settle acts on the last answer of an attempt, and turns it into the result.
func (p *Provider) settle(t *try, attempt *whisperv1.Push, pass *gate.Passage) push.Result {
	v := t.verdict
	r := push.Result{Class: v.Class, Status: t.status, ProviderID: t.name, Bug: v.Then == DeadLetter}
	if !r.Sent() {
		r.Reason = guard.Word(t.reason)
		if r.RetryAfter = t.after; r.RetryAfter == 0 {
			r.RetryAfter = spread(v.After)
		}
	}
	if !v.Listed {
		p.guard.Unclassified(t.status, r.Reason)
	}
	switch v.Then {
	case Trip:
		p.guard.Failed(pass, r.Reason)
	case StopProject, Refresh:
		r.RetryAfter = p.guard.StopCredential(pass, r.Reason)
	case Guard:
		r.Class = p.guard.Dead(pass, v.Class, r.Reason)
	case Slow:
		p.guard.Answered(pass)
		p.slow(r.RetryAfter)
	case StopPlatform:
		p.guard.Answered(pass)
		p.tellOfPlatform(r.Reason)
		r.RetryAfter = p.cfg.Rest
	case Report, DeadLetter:
		p.guard.Answered(pass)
		if r.Class == retry { // a device's own quota
			now := p.now()
			p.devices.Freeze(attempt.GetToken(), now.Add(r.RetryAfter), now)
		}
	}
	return r
}

// slow keeps the project away from FCM for as long as it asked, after which the rate rises anew.
func (p *Provider) slow(wait time.Duration) {
	if p.pacer.Frozen() == 0 {
		p.log.Warn("fcm's quota of the project is used up: attempts are put off", "project", p.cfg.Project, "wait", wait)
	}
	p.pacer.Freeze(wait)
}

// tellOfPlatform logs, once a rest, that FCM can't reach other platforms than Android.
func (p *Provider) tellOfPlatform(reason string) {
	now, before := p.now().UnixMilli(), p.told.Load()
	if now-before >= p.cfg.Rest.Milliseconds() && p.told.CompareAndSwap(before, now) {
		p.log.Error("fcm can't reach the platform of an app: give the project its key for APNs or Web Push", "reason", reason, "project", p.cfg.Project)
	}
}
