package gateway

import (
	"context"
	"errors"
	"time"
)

func refreshedFrame(expires time.Time) wireFrame {
	return jsonFrame(struct {
		Type      string    `json:"type"`
		ExpiresAt time.Time `json:"expires_at"`
	}{"refreshed", expires.UTC()})
}

// refresh has a new token take the place of the session's. It does not wait; where the key set must be
// read again first, that is done aside, one at a time, and answered when it is over.
//
//nolint:contextcheck // a refresh that waits has its own bound, renewWait, and no round of a poller may end it
func (s *session) refresh(token string) *protocolError {
	g, err := s.g.verifier.check(token)
	if !errors.Is(err, errUnknownKey) {
		return s.adopt(g, err)
	}
	if !s.refreshing.CompareAndSwap(false, true) {
		return badFrame(codeBadToken, "refresh: another one is still being looked at")
	}
	go func() { // ends within renewWait
		defer s.refreshing.Store(false)
		s.fail(s.adopt(s.g.verifier.verify(context.Background(), token)))
	}()
	return nil
}

func (s *session) adopt(g grant, err error) *protocolError {
	switch {
	case errors.Is(err, errNoToken):
		return badFrame(codeBadToken, "refresh: token must be a JWT")
	case err != nil:
		return badFrame(codeBadToken, "refresh: %s", err)
	case g.user != s.user:
		return badFrame(codeBadToken, "refresh: the token is of another user")
	}
	latest := s.g.cfg.Now().Add(longestSession)
	if g.until.After(latest) {
		g.expires, g.until = latest, latest
	}
	if !s.renew(g) {
		return nil // the session is closing
	}
	if s.revoked() { // just now
		s.fail(refused(errRevoked))
		return nil
	}
	s.control(refreshedFrame(g.expires))
	return nil
}

// renew has the grant count from now on. false: the session is closing.
func (s *session) renew(g grant) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != open {
		return false
	}
	s.login, s.expires = g.login, lastOf(g.until, s.g.cfg.Now())
	s.rearm()
	return true
}
