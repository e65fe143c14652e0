package simulator

import (
	"fmt"
	"strings"
	"time"

	"github.com/klivvr/whisper/consumers/push/standin"
)

// Fault is something that happens instead of an answer, or beside it.
type Fault string

const (
	// Silent: it was taken, and no answer ever comes.
	Silent Fault = "silent"
	// Cut: the connection ends without a word.
	Cut Fault = "cut"
	// Reset: the stream is reset in the middle.
	Reset Fault = "reset"
	// Half: the answer's body ends in the middle.
	Half Fault = "half"
	// GoAway: the answer, then GOAWAY.
	GoAway Fault = "goaway"
)

// Answer is what a message gets in place of what it deserves.
type Answer struct {
	// Status is HTTP's; 0 is the ordinary answer.
	Status int `json:"status,omitempty"`
	// Code is FCM's error code, such as UNREGISTERED; empty: the error has none, as where another part of Google answers.
	Code string `json:"code,omitempty"`
	// Message is the error's text.
	Message string `json:"message,omitempty"`
	// Field is the field that a google.rpc.BadRequest names.
	Field string `json:"field,omitempty"`
	// Quota is what a google.rpc.QuotaFailure describes.
	Quota string `json:"quota,omitempty"`
	// Body, where it is set, is sent as it is instead of Google's JSON.
	Body *string `json:"body,omitempty"`
	// RetryAfter is the header of that name.
	RetryAfter string        `json:"retry_after,omitempty"`
	Delay      time.Duration `json:"delay,omitempty"`
	Fault      Fault         `json:"fault,omitempty"`
}

// Program gives the next times messages to a token this answer instead of their own (times < 1: all, until Forget).
// Several programs of a token follow each other. The token "" stands for every device that has no program.
func (s *Simulator) Program(token string, times int, a Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.programs.Add(token, times, a)
}

// ProgramTokens does the same for the token endpoint; only Status, Body, Delay and Fault count there.
func (s *Simulator) ProgramTokens(times int, a Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.minting.Add(times, a)
}

// Forget drops the programs of a token, and of the token endpoint for "".
func (s *Simulator) Forget(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.programs, token)
	if token == "" {
		s.minting = standin.Answers[Answer]{}
	}
}

// prefixes of tokens that need no program, for trying things out by hand.
var prefixes = map[string]Answer{
	"gone-":    {Status: 404, Code: "UNREGISTERED", Message: "Requested entity was not found."},
	"bad-":     {Status: 400, Code: "INVALID_ARGUMENT", Message: "The registration token is not a valid FCM registration token"},
	"foreign-": {Status: 403, Code: "SENDER_ID_MISMATCH", Message: "SenderId mismatch"},
	"apple-":   {Status: 401, Code: "THIRD_PARTY_AUTH_ERROR", Message: "Auth error from APNS or Web Push Service"},
	"busy-": {
		Status: 429, Code: "QUOTA_EXCEEDED", Message: "Device message rate exceeded.",
		Quota: "Device message rate exceeded", RetryAfter: "30",
	},
	"error-":    {Status: 500, Code: "INTERNAL", Message: "Internal error encountered."},
	"down-":     {Status: 503, Code: "UNAVAILABLE", Message: "The service is currently unavailable.", RetryAfter: "20"},
	"slow-":     {Delay: 2 * time.Second},
	"dead-":     {Fault: Silent},
	"cut-":      {Fault: Cut},
	"goaway-":   {Fault: GoAway},
	"half-":     {Fault: Half},
	"rotating-": {Delay: 10 * time.Millisecond, Fault: GoAway},
}

// programmed is the answer that was asked for this token. The mutex is held.
func (s *Simulator) programmed(token string) (Answer, bool) {
	if a, ok := s.programs.Next(token); ok {
		return a, true
	}
	if i := strings.IndexByte(token, '-'); i >= 0 {
		a, ok := prefixes[token[:i+1]]
		return a, ok
	}
	return Answer{}, false
}

// window counts requests of the last minute, which begins with the first of them: not the clock's.
type window struct {
	began time.Time
	n     int
}

// take counts one; left is how long the minute still lasts if it is one too many.
func (w *window) take(limit int, now time.Time) (left time.Duration) {
	if limit <= 0 {
		return 0
	}
	if now.Sub(w.began) >= time.Minute {
		w.began, w.n = now, 0
	}
	if w.n >= limit {
		return max(w.began.Add(time.Minute).Sub(now), time.Second)
	}
	w.n++
	return 0
}

// limited is the answer of a quota that is used up. The mutex is held.
func (s *Simulator) limited(token string) (Answer, bool) {
	now := s.now()
	over := func(left time.Duration, what string) (Answer, bool) {
		return Answer{
			Status: 429, Code: "QUOTA_EXCEEDED", Message: what + ".", Quota: what,
			RetryAfter: fmt.Sprint(int(left.Seconds()) + 1),
		}, true
	}
	if left := s.quota.take(s.cfg.Quota, now); left > 0 {
		return over(left, "Message rate exceeded")
	}
	if s.cfg.DeviceQuota > 0 {
		w := s.devices[token]
		if w == nil {
			if len(s.devices) > 100_000 {
				clear(s.devices)
			}
			w = &window{}
			s.devices[token] = w
		}
		if left := w.take(s.cfg.DeviceQuota, now); left > 0 {
			return over(left, "Device message rate exceeded")
		}
	}
	return Answer{}, false
}
