package gateway

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func revocation(t testing.TB, user, session string, before time.Time) *kgo.Record {
	t.Helper()
	rec, err := RevocationRecord(&whisperv1.Revocation{UserId: user, Session: session, BeforeUs: before.UnixMicro(), Reason: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// revoke is what `whisper revoke` comes to here.
func (n *node) revoke(user, session string, before time.Time) {
	n.t.Helper()
	n.broker.Publish(revocation(n.t, user, session, before), nil)
}

func (n *node) login(token string) *client {
	n.t.Helper()
	c := n.dial("", bearer(token))
	f := c.frame()
	if f["type"] != "welcome" {
		n.t.Fatalf("got %v", f)
	}
	c.session = f["session"].(string)
	return c
}

func TestRevokingAUser(t *testing.T) {
	t.Parallel()
	n := setup(t)
	now := n.clock.now().Add(-time.Minute) // of the revocation, so that there can be a token well after it
	old, newer, other := n.tokenOf("mona", "", now.Add(-time.Minute), time.Hour),
		n.tokenOf("mona", "", now.Add(n.verifier.leeway+time.Second), time.Hour), n.tokenOf("omar", "", now.Add(-time.Minute), time.Hour)
	ahead := n.login(n.tokenOf("mona", "", now.Add(n.verifier.leeway-time.Second), time.Hour)) // issued before, by a login whose clock is ahead
	phone, laptop, omar := n.login(old), n.login(old), n.login(other)
	timeless := n.login(sign(t, jwt.SigningMethodHS256, secret, claims("mona", time.Hour))) // no iat: before everything
	fresh := n.login(newer)
	n.revoke("mona", "", now)
	for _, c := range []*client{phone, laptop, timeless, ahead} {
		if reason := c.wantClose(closeUnauthorized); !strings.Contains(reason, "revoked") {
			t.Errorf("the reason is %q", reason)
		}
	}
	n.dial("", bearer(old)).wantClose(closeUnauthorized)
	fresh.refresh(old)
	fresh.wantError(codeBadToken)
	n.broker.put(0, route(n, "mona", "a"), route(n, "omar", "b"))
	fresh.wantNotification("a")
	omar.wantNotification("b")
	n.login(newer)
	// What is told again, or late, takes nothing back.
	n.revoke("mona", "", now.Add(-time.Hour))
	n.dial("", bearer(old)).wantClose(closeUnauthorized)
	if got := n.revocations.closed.Get(); got != 4 {
		t.Errorf("%d sessions revoked, want 4", got)
	}
	n.broker.Publish(&kgo.Record{Topic: consumers.TopicRevocations, Key: []byte("mona")}, nil)
	n.login(old)
}

func TestRevokingASession(t *testing.T) {
	t.Parallel()
	n := setup(t)
	now := n.clock.now()
	stolen, kept := n.tokenOf("mona", "login-1", now.Add(-time.Minute), time.Hour),
		n.tokenOf("mona", "login-2", now.Add(-time.Minute), time.Hour)
	first, second, laptop := n.login(stolen), n.login(stolen), n.login(kept)
	// The session of a welcome: that socket alone.
	n.revoke("mona", first.session, now)
	first.wantClose(closeUnauthorized)
	// The claim sid: all sockets of that login, and its tokens from now on.
	n.revoke("mona", "login-1", now)
	second.wantClose(closeUnauthorized)
	n.dial("", bearer(stolen)).wantClose(closeUnauthorized)
	n.broker.put(0, route(n, "mona", "a"))
	laptop.wantNotification("a")
	n.login(kept)
	// Another user's session of that name is not meant.
	n.login(n.tokenOf("omar", "login-1", now.Add(-time.Minute), time.Hour))
}

func TestRevocationsAreKnownFromTheStart(t *testing.T) {
	t.Parallel()
	now := time.Now()
	n := setup(t, func(_ *Config, b *fakeBroker) {
		b.revoked = []*kgo.Record{
			revocation(t, "mona", "", now),
			{Topic: consumers.TopicRevocations, Key: []byte("omar"), Value: []byte("\xffnot protobuf")},
			{Topic: consumers.TopicRevocations, Key: []byte("omar"), Value: revocation(t, "lina", "", now).Value},
			revocation(t, "adam", "login-1", now),
		}
	})
	n.dial("", bearer(n.tokenOf("mona", "", now.Add(-time.Second), time.Hour))).wantClose(closeUnauthorized)
	n.login(n.tokenOf("omar", "", now.Add(-time.Second), time.Hour))
	n.login(n.tokenOf("lina", "", now.Add(-time.Second), time.Hour))
	n.dial("", bearer(n.tokenOf("adam", "login-1", now.Add(-time.Second), time.Hour))).wantClose(closeUnauthorized)
	if got := n.revocations.bad.Get(); got != 2 {
		t.Errorf("%d records could not be used, want 2", got)
	}
}

// Whoever connects while a revocation comes is closed by it or refused for it, never missed.
func TestNoSessionSlipsThroughARevocation(t *testing.T) {
	t.Parallel()
	n := setup(t)
	now := n.clock.now()
	const users, each = 20, 3
	var all sync.WaitGroup
	for i := range users {
		user := fmt.Sprint("user-", i)
		token := n.tokenOf(user, "", now.Add(-time.Minute), time.Hour)
		for range each {
			all.Go(func() { n.dial("", bearer(token)).wantClose(closeUnauthorized) })
		}
		all.Go(func() { n.revoke(user, "", now) })
	}
	all.Wait()
	eventually(t, "all to be freed", func() bool { return n.connections.Load() == 0 })
}

// What comes between the check of a token and the session's place in the hub is met after it.
func TestARevocationBetweenCheckAndOpen(t *testing.T) {
	t.Parallel()
	now := time.Now()
	n := prepare(t, func(_ *Config, b *fakeBroker) { b.revoked = []*kgo.Record{revocation(t, "mona", "", now)} })
	n.verifier.revoked = nil // as if the token had been checked before
	n.start()
	n.dial("", bearer(n.tokenOf("mona", "", now.Add(-time.Minute), time.Hour))).wantClose(closeUnauthorized)
	eventually(t, "it to be freed", func() bool { return n.connections.Load() == 0 })
}

func TestRevocationRecordsAreChecked(t *testing.T) {
	t.Parallel()
	for want, rev := range map[string]*whisperv1.Revocation{
		"user":    {BeforeUs: 1},
		"session": {UserId: "mona", Session: "a\x00b", BeforeUs: 1},
		"before":  {UserId: "mona"},
	} {
		if _, err := RevocationRecord(rev); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want a complaint about %s", err, want)
		}
	}
}
