package decide

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/record"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// A push token is one device, and a device has one owner: the user who registered it last. Users are on different
// partitions, so each registration of a token that is new to its user claims it, on the partition that the token's
// hash makes. That partition knows the owner of each of its tokens, and tells the earlier owner's partition, by a change
// of that user's profile, that the endpoint moved. Nothing is asked when a push goes out.
//
// Claims and releases have the registration's time, and the latest stands: they may come late, twice, or in another
// order. A release is remembered for [ClaimsKept] without the user's id, so that an earlier claim that comes later takes
// nothing back; then a tombstone follows. What the log of claims says is enough to do everything again: after a restart
// everyone who lost a token within the last day is told once more, and the log keeps replaced claims for as long.
//
// A claim that was not written when the process ended is written when its change is read again. What was released is no
// longer in the profile then, so the profile's record lists it (Profile.releases), and an erased user's tombstone
// follows only when Kafka has acknowledged the releases (see [Releasing]).

// TokenHash identifies a token: 128 bits of SHA-256(channel, 0x00, token).
type TokenHash [16]byte

// HashToken is the hash of a channel's token. Those of APNs are hexadecimal: upper and lower case are one device.
func HashToken(channel, token string) TokenHash {
	if channel == domain.ChannelAPNs {
		token = strings.ToLower(token)
	}
	sum := sha256.Sum256([]byte(channel + "\x00" + token))
	return TokenHash(sum[:16])
}

// ClaimsKept is how long a claim that was replaced stays in the log, and a release is remembered: a dispatch that is down
// for longer may miss that a token moved.
const ClaimsKept = 24 * time.Hour

// tokens is what a partition knows of claims.
type tokens struct {
	// Of this partition's tokens: some 80 bytes each.
	owners map[TokenHash]ownedBy
	// The releases among them, in the order in which they are forgotten.
	released []keptRelease
	due      []Output // of the restore: nothing may be written before Resume

	// Of this partition's users: what they have released, until Kafka has it.
	releasing map[string][]*whisperv1.TokenRelease
	erased    map[string]bool // of the restore: users whose tombstone is not written
}

func newTokens() tokens {
	return tokens{owners: map[TokenHash]ownedBy{}, releasing: map[string][]*whisperv1.TokenRelease{}, erased: map[string]bool{}}
}

type keptRelease struct {
	token   TokenHash
	release ownedBy
	at      time.Time // of the record
}

// ownedBy is a claim in one string: 8 bytes of time, then the endpoint, 0x00, the user. Of a release,
// the endpoint is empty, and for the user stands released_by.
type ownedBy string

func newOwnedBy(c *whisperv1.TokenClaim) ownedBy {
	endpoint, user := c.GetEndpoint(), c.GetUserId()
	if c.GetReleased() {
		endpoint, user = "", string(c.GetReleasedBy())
	}
	var b strings.Builder
	b.Grow(8 + len(endpoint) + 1 + len(user))
	var at [8]byte
	binary.BigEndian.PutUint64(at[:], uint64(c.GetAtMs()))
	b.Write(at[:])
	b.WriteString(endpoint)
	b.WriteByte(0) // in no name: see [domain.CheckID]
	b.WriteString(user)
	return ownedBy(b.String())
}

func (o ownedBy) claim() *whisperv1.TokenClaim {
	endpoint, user, _ := strings.Cut(string(o[8:]), "\x00")
	if endpoint == "" {
		return &whisperv1.TokenClaim{AtMs: o.at(), Released: true, ReleasedBy: []byte(user)}
	}
	return &whisperv1.TokenClaim{UserId: user, Endpoint: endpoint, AtMs: o.at()}
}

func (o ownedBy) at() int64      { return int64(binary.BigEndian.Uint64([]byte(o[:8]))) }
func (o ownedBy) released() bool { return len(o) > 8 && o[8] == 0 }

// releaser tells who released a token, without the id: 8 bytes of a hash that only those can confirm who have the token.
func releaser(token TokenHash, user string) []byte {
	sum := sha256.Sum256([]byte(string(token[:]) + "\x00" + user))
	return sum[:8]
}

// ClaimArrived is a record of whisper.tokens; Claim nil: a tombstone. At is the record's time. With Stray, whoever wrote it
// had lost the partition: it says nothing, but is the last record of its token.
type ClaimArrived struct {
	Token TokenHash
	Claim *whisperv1.TokenClaim
	At    time.Time
	Stray bool
}

func (ClaimArrived) input() {}

type (
	// PutClaim writes a claim to whisper.tokens; nil: a tombstone. With Own, it is the word of the token's partition on
	// what stands; else a user's, of any partition.
	PutClaim struct {
		Token TokenHash
		Claim *whisperv1.TokenClaim
		Own   bool
	}
	// TokenMoved tells a user's partition, by a record of whisper.changes, that the user's endpoint is somebody else's
	// device since At, unless it was registered again later.
	TokenMoved struct {
		User  string
		Patch []byte
		Moved Moved
	}
	// Releasing says that the outputs before it release tokens of a user: [State.Released] is to be called when they are
	// acknowledged.
	Releasing struct {
		User   string
		Tokens []TokenHash
	}
)

func (PutClaim) output()   {}
func (TokenMoved) output() {}
func (Releasing) output()  {}

// Moved is the condition of a change that takes an endpoint from its user: it has this token and was registered until
// then.
type Moved struct {
	Token TokenHash
	AtMs  int64
}

// String is the value of the header that carries it.
func (m Moved) String() string { return fmt.Sprintf("%x %d", m.Token[:], m.AtMs) }

// ParseMoved reads what String wrote.
func ParseMoved(s string) (m Moved, err error) {
	var token []byte
	if _, err = fmt.Sscanf(s, "%x %d", &token, &m.AtMs); err != nil || len(token) != len(m.Token) || m.AtMs <= 0 {
		return Moved{}, fmt.Errorf("%q does not say which token moved and when", record.Cut(s))
	}
	m.Token = TokenHash(token)
	return m, nil
}

// RestoreClaim puts back what whisper.tokens has, in its order; now is the time of the restart.
func (s *State) RestoreClaim(in ClaimArrived, now time.Time) {
	s.now = now
	s.claimArrived(in)
	s.tokens.due = append(s.tokens.due, s.out...)
	s.out = s.out[:0]
}

// claimArrived folds a record of the log of claims. Whoever lost the token is told so. Where the record is not what stands,
// that is written behind it: compaction keeps the last record of a token.
func (s *State) claimArrived(in ClaimArrived) {
	old, known := s.tokens.owners[in.Token]
	switch c := in.Claim; {
	case in.Stray:
		s.rewriteClaim(in.Token)
	case c == nil && known && old.released():
		delete(s.tokens.owners, in.Token)
	case c == nil:
		if known { // claimed between a release and its tombstone
			s.rewriteClaim(in.Token)
		}
	case c.GetReleased():
		s.releaseArrived(in)
	case !known || old.released() && outlasts(in.Token, c, old.claim()):
		s.tokens.owners[in.Token] = newOwnedBy(c)
	case !old.released() && newerClaim(c, old.claim()):
		s.tokens.owners[in.Token] = newOwnedBy(c)
		s.tellLoser(in, old.claim(), c)
	case old != newOwnedBy(c):
		s.tellLoser(in, c, old.claim())
		s.rewriteClaim(in.Token)
	}
}

// outlasts says whether a claim stands beside a release: it is later, or another user's of the same time.
func outlasts(token TokenHash, claim, release *whisperv1.TokenClaim) bool {
	return claim.GetAtMs() > release.GetAtMs() ||
		claim.GetAtMs() == release.GetAtMs() && !bytes.Equal(releaser(token, claim.GetUserId()), release.GetReleasedBy())
}

// releaseArrived: a user who releases a token had claimed it at that time, also where nothing else says so. This partition
// writes it behind that once more, without the user's id.
func (s *State) releaseArrived(in ClaimArrived) {
	user := in.Claim.GetUserId()
	release := &whisperv1.TokenClaim{AtMs: in.Claim.GetAtMs(), Released: true, ReleasedBy: in.Claim.GetReleasedBy()}
	if user != "" {
		release.ReleasedBy = releaser(in.Token, user)
	}
	now := newOwnedBy(release)
	old, known := s.tokens.owners[in.Token]
	switch {
	case !known:
	case old == now:
		if user != "" {
			s.rewriteClaim(in.Token)
		}
		return
	case old.released() && old > now, // by the time, or any order
		!old.released() && outlasts(in.Token, old.claim(), release):
		s.rewriteClaim(in.Token)
		return
	case !old.released() && !bytes.Equal(releaser(in.Token, old.claim().GetUserId()), release.GetReleasedBy()):
		s.tellLoser(in, old.claim(), release)
	}
	s.tokens.owners[in.Token] = now
	s.tokens.released = append(s.tokens.released, keptRelease{in.Token, now, in.At})
	if user != "" {
		s.rewriteClaim(in.Token)
	}
}

// forgetReleases writes the tombstones of what was released long ago, some at a time.
func (s *State) forgetReleases() {
	const most = 100
	all, n := s.tokens.released, 0
	for ; n < min(len(all), most) && s.now.Sub(all[n].at) > ClaimsKept; n++ {
		if s.tokens.owners[all[n].token] == all[n].release {
			delete(s.tokens.owners, all[n].token)
			s.put(PutClaim{Token: all[n].token, Own: true})
		}
	}
	if s.tokens.released = all[n:]; len(s.tokens.released) == 0 {
		s.tokens.released = nil
	}
}

// newerClaim is a total order, so that it does not matter in which order claims come.
func newerClaim(a, b *whisperv1.TokenClaim) bool {
	switch {
	case a.GetAtMs() != b.GetAtMs():
		return a.GetAtMs() > b.GetAtMs()
	case a.GetUserId() != b.GetUserId():
		return a.GetUserId() > b.GetUserId()
	}
	return a.GetEndpoint() > b.GetEndpoint()
}

// rewriteClaim writes what stands behind a record that does not.
func (s *State) rewriteClaim(token TokenHash) {
	stands, known := s.tokens.owners[token]
	if !known {
		s.put(PutClaim{Token: token, Own: true})
		return
	}
	s.put(PutClaim{Token: token, Claim: stands.claim(), Own: true})
}

// tellLoser tells the loser; of two endpoints of one user, both stay ([State.sendPush] sends once).
func (s *State) tellLoser(in ClaimArrived, loser, winner *whisperv1.TokenClaim) {
	if loser.GetUserId() == winner.GetUserId() || s.now.Sub(in.At) > ClaimsKept && s.replay != nil {
		return // after a restart, what is old was told by whoever owned the partition then
	}
	patch, err := json.Marshal(map[string]any{"endpoints": map[string]any{loser.GetEndpoint(): nil}})
	if err != nil {
		return // a map of strings always encodes
	}
	s.put(TokenMoved{User: loser.GetUserId(), Patch: patch, Moved: Moved{Token: in.Token, AtMs: winner.GetAtMs()}})
}
