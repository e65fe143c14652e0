package gateway

import (
	"context"
	"errors"
	"time"
)

// codeBadToken answers a refresh that does not count; the session goes on until its own token expires.
const codeBadToken = "bad_token"

func refreshedFrame(expires time.Time) wireFrame {
	return jsonFrame(struct {
		Type      string    `json:"type"`
		ExpiresAt time.Time `json:"expires_at"`
	}{"refreshed", expires.UTC()})
}

// refresh has a new token take the place of the session's. It does not wait; where the key set must be
// read again first, that is done aside, one at a time, and answered when it is over.
func (s *session) refresh(token string) *frameError {
	g, err := s.g.verifier.check(token)
	if !errors.Is(err, errUnknownKey) {
		return s.adopt(g, err)
	}
	if !s.refreshing.CompareAndSwap(false, true) {
		return &frameError{codeBadToken, "refresh: another one is still being looked at", false}
	}
	go func() { // ends within renewWait
		defer s.refreshing.Store(false)
		s.answer(s.adopt(s.g.verifier.verify(context.Background(), token)))
	}()
	return nil
}

func (s *session) adopt(g grant, err error) *frameError {
	switch {
	case errors.Is(err, errNoToken):
		return &frameError{codeBadToken, "refresh: token must be a JWT", false}
	case err != nil:
		return &frameError{codeBadToken, "refresh: " + err.Error(), false}
	case g.user != s.user:
		return &frameError{codeBadToken, "refresh: the token is of another user", false}
	}
	latest := s.g.cfg.Now().Add(longestSession)
	if g.until.After(latest) {
		g.expires, g.until = latest, latest
	}
	if !s.renew(g) {
		return nil // the session is closing
	}
	if s.revoked() { // just now
		s.close(closeUnauthorized, errRevoked.Error(), false)
		return nil
	}
	s.control(refreshedFrame(g.expires))
	return nil
}

// renew has the grant count from now on. false: the session is closing.
func (s *session) renew(g grant) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.login, s.expires = g.login, lastOf(g.until, s.g.cfg.Now())
	s.rearm()
	return true
}
