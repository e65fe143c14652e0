package simulator

import (
	"strings"
	"time"
)

// Fault is something that happens instead of an answer, or beside it.
type Fault int8

const (
	// Answered: no fault.
	Answered Fault = iota
	// Silent: it was taken, and no answer ever comes.
	Silent
	// Cut: the connection ends without a word.
	Cut
	// Refuse: the stream is refused unread (RST_STREAM REFUSED_STREAM).
	Refuse
	// Reset: the stream is reset in the middle (RST_STREAM INTERNAL_ERROR).
	Reset
	// GoAwayBefore: GOAWAY that does not cover the stream: it was not taken.
	GoAwayBefore
	// GoAwayAfter: the answer, then GOAWAY.
	GoAwayAfter
)

// Answer is what a push gets in place of what it deserves.
type Answer struct {
	// Status and Reason; Status 0 is the ordinary answer.
	Status int
	Reason string
	// Timestamp goes with a 410.
	Timestamp time.Time
	// Body, where it is set, is sent as it is instead of APNs's JSON.
	Body []byte
	// RetryAfter is the header of that name.
	RetryAfter string
	Delay      time.Duration
	Fault      Fault
}

// Program gives the next times pushes to a token this answer instead of their own (times < 1: all, until
// Forget). Several programs of a token follow each other. The token "" stands for every device that has
// no program.
func (s *Simulator) Program(token string, times int, a Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.programs.Add(token, times, a)
}

// Forget drops the programs of a token.
func (s *Simulator) Forget(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.programs, token)
}

// prefixes of tokens that need no program, for trying things out by hand.
var prefixes = map[string]Answer{
	"bad-":     {Status: 400, Reason: "BadDeviceToken"},
	"foreign-": {Status: 400, Reason: "DeviceTokenNotForTopic"},
	"gone-":    {Status: 410, Reason: "Unregistered"},
	"expired-": {Status: 410, Reason: "ExpiredToken"},
	"busy-":    {Status: 429, Reason: "TooManyRequests"},
	"error-":   {Status: 500, Reason: "InternalServerError"},
	"down-":    {Status: 503, Reason: "ServiceUnavailable"},
	"slow-":    {Delay: 2 * time.Second},
	"dead-":    {Fault: Silent},
	"cut-":     {Fault: Cut},
	"goaway-":  {Fault: GoAwayAfter},
}

// programmed is the answer that was asked for this token.
func (s *Simulator) programmed(token string) (Answer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a, ok := s.programs.Next(token); ok {
		return a, true
	}
	if i := strings.IndexByte(token, '-'); i >= 0 {
		a, ok := prefixes[token[:i+1]]
		return a, ok
	}
	return Answer{}, false
}
