package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/VictoriaMetrics/metrics"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// revocations are the tokens that count no more, folded from whisper.revocations, which every gateway reads
// in full before it lets anybody in: some 150 bytes a revoked user. A time once set never goes back.
type revocations struct {
	g        *Gateway
	caughtUp <-chan struct{}
	closed   *metrics.Counter
	bad      *metrics.Counter

	mu    sync.RWMutex
	users map[string]*revoked
}

// revoked is what is revoked of one user: Unix microseconds that a token's iat must have reached.
type revoked struct {
	before int64
	logins map[uint64]int64 // by hash of the session or sid
}

func newRevocations(g *Gateway) *revocations {
	r := &revocations{
		g:      g,
		closed: g.cfg.Metrics.GetOrCreateCounter(`whisper_gateway_revoked_sessions_total`),
		bad:    g.cfg.Metrics.GetOrCreateCounter(`whisper_gateway_bad_revocations_total`),
		users:  map[string]*revoked{},
	}
	g.cfg.Metrics.GetOrCreateGauge(`whisper_gateway_revocations`, func() float64 {
		r.mu.RLock()
		defer r.mu.RUnlock()
		return float64(len(r.users))
	})
	return r
}

// follow begins to read; await waits for what was there. Between them comes nodes.announce, whose record
// wakes the reader to the new partition.
func (r *revocations) follow(ctx context.Context) (err error) {
	r.caughtUp, err = r.g.broker.Follow(ctx, consumers.TopicRevocations, 0, consumers.FromStart, r.seen)
	return err
}

func (r *revocations) await(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-r.caughtUp:
		return nil
	}
}

// covers says that a login may not go on. The nil one covers nothing.
func (r *revocations) covers(user string, l login) bool {
	if r == nil {
		return false
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	u := r.users[user]
	return u != nil && (l.issuedUS < u.before || l.sid != 0 && l.issuedUS < u.logins[l.sid])
}

// seen takes the topic's records in order.
func (r *revocations) seen(records []*kgo.Record) {
	for _, rec := range records {
		user, session, _ := strings.Cut(string(rec.Key), "\x00")
		if len(rec.Value) == 0 {
			r.lift(user, session)
			continue
		}
		var rev whisperv1.Revocation
		if err := proto.Unmarshal(rec.Value, &rev); err != nil || rev.GetUserId() != user ||
			rev.GetSession() != session || rev.GetBeforeUs() <= 0 {
			// Somebody meant to throw a user out: a person must look. No dead letter, since the record stays where
			// it is and every gateway meets it at every start.
			r.bad.Inc()
			r.g.cfg.Logger.Error("revocation can't be used: user_id and session must be those of the key, before_us a time",
				"topic", rec.Topic, "partition", rec.Partition, "offset", rec.Offset, "error", err)
			continue
		}
		r.put(&rev)
		r.enforce(&rev)
	}
}

func (r *revocations) put(rev *whisperv1.Revocation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.users[rev.GetUserId()]
	if u == nil {
		u = &revoked{}
		r.users[rev.GetUserId()] = u
	}
	if rev.GetSession() == "" {
		u.before = max(u.before, rev.GetBeforeUs())
		return
	}
	if u.logins == nil {
		u.logins = map[uint64]int64{}
	}
	hash := hashSID(rev.GetSession())
	u.logins[hash] = max(u.logins[hash], rev.GetBeforeUs())
}

// enforce closes what is open. It comes after put, and a session is checked after it is in the hub, so
// that none slips through between the two.
func (r *revocations) enforce(rev *whisperv1.Revocation) {
	sessions, _ := r.g.hub.find(nil, rev.GetUserId(), "")
	for _, s := range sessions {
		if s.id == rev.GetSession() || s.revoked() {
			r.closed.Inc()
			s.fail(refused(errRevoked))
		}
	}
}

// revoked says that the session's token counts no more.
func (s *session) revoked() bool {
	s.mu.Lock()
	l := s.login
	s.mu.Unlock()
	return s.g.revocations.covers(s.user, l)
}

func (r *revocations) lift(user, session string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.users[user]
	switch {
	case u == nil:
		return
	case session == "":
		u.before = 0
	default:
		delete(u.logins, hashSID(session))
	}
	if u.before == 0 && len(u.logins) == 0 {
		delete(r.users, user)
	}
}

// RevocationRecord is the record that has every gateway close a user's sessions, or one of them, with 4001
// and refuse tokens that were issued before a time.
func RevocationRecord(rev *whisperv1.Revocation) (*kgo.Record, error) {
	if err := checkRevocation(rev); err != nil {
		return nil, err
	}
	key := rev.GetUserId()
	if rev.GetSession() != "" {
		key += "\x00" + rev.GetSession()
	}
	return &kgo.Record{Topic: consumers.TopicRevocations, Key: []byte(key), Value: mustMarshal(rev)}, nil
}

func checkRevocation(rev *whisperv1.Revocation) error {
	var errs []error
	if err := domain.CheckKnownID(rev.GetUserId()); err != nil {
		errs = append(errs, fmt.Errorf("user: %w", err))
	}
	if rev.GetSession() != "" {
		if err := domain.CheckKnownID(rev.GetSession()); err != nil {
			errs = append(errs, fmt.Errorf("session: %w", err))
		}
	}
	if rev.GetBeforeUs() <= 0 {
		errs = append(errs, errors.New("before: must be a time"))
	}
	return errors.Join(errs...)
}
