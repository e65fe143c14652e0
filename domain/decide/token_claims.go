package decide

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// claimOf is the record by which a user claims, or releases, an endpoint's token. A release has the registration's time,
// too: one that was decided before a later registration, and lands after it, takes nothing away.
func claimOf(user string, e *whisperv1.Endpoint, released bool) PutClaim {
	return PutClaim{Token: HashToken(e.GetChannel(), e.GetToken()), Claim: &whisperv1.TokenClaim{
		UserId: user, Endpoint: e.GetName(), AtMs: e.GetRegisteredAtMs(), Released: released,
	}}
}

// claims are what a change of a profile claims and releases; what is claimed is marked in merged, whose list may be
// the old profile's and is not changed.
//
// A token that is registered in the millisecond in which its user released it, is registered a millisecond later.
func (s *State) claims(user string, old, merged *whisperv1.Profile) (all []PutClaim) {
	for _, e := range old.GetEndpoints() {
		if isDevice(e) && !hasToken(merged, e) {
			all = append(all, claimOf(user, e, true))
		}
	}
	if !unclaimed(merged) {
		return all
	}
	merged.Endpoints = slices.Clone(merged.GetEndpoints())
	for i, e := range merged.GetEndpoints() {
		if e.GetClaimed() || !isDevice(e) {
			continue
		}
		marked := proto.CloneOf(e)
		marked.Claimed = true
		token := HashToken(e.GetChannel(), e.GetToken())
		for _, r := range s.tokens.releasing[user] {
			if bytes.Equal(r.GetToken(), token[:]) {
				marked.RegisteredAtMs = max(marked.GetRegisteredAtMs(), r.GetAtMs()+1)
			}
		}
		all = append(all, claimOf(user, marked, false))
		merged.Endpoints[i] = marked
	}
	return all
}

func unclaimed(p *whisperv1.Profile) bool {
	return slices.ContainsFunc(p.GetEndpoints(), func(e *whisperv1.Endpoint) bool { return !e.GetClaimed() && isDevice(e) })
}

// isDevice: an address or a number may be several people's, a device is one's.
func isDevice(e *whisperv1.Endpoint) bool {
	return slices.Contains(domain.DeviceChannels, e.GetChannel())
}

// claimNow claims what a version before this one registered, when it is first pushed to. It is marked in memory only:
// after a restart it may be claimed once more.
func (s *State) claimNow(user string, p *whisperv1.Profile) {
	if !unclaimed(p) {
		return
	}
	for _, c := range s.claims(user, nil, p) {
		s.put(c)
	}
	if encoded, err := (proto.MarshalOptions{Deterministic: true}).Marshal(p); err == nil {
		s.users.PutProfile(user, encoded)
	}
}

func hasToken(p *whisperv1.Profile, e *whisperv1.Endpoint) bool {
	return slices.ContainsFunc(p.GetEndpoints(), func(o *whisperv1.Endpoint) bool { return sameToken(o, e) })
}

func sameToken(a, b *whisperv1.Endpoint) bool {
	return a.GetChannel() == b.GetChannel() &&
		(a.GetToken() == b.GetToken() || a.GetChannel() == domain.ChannelAPNs && strings.EqualFold(a.GetToken(), b.GetToken()))
}

// claimAgain claims once more what a change named that is told again: its claim may not have been written.
func (s *State) claimAgain(user string, p *whisperv1.Profile, at time.Time) {
	for _, e := range p.GetEndpoints() {
		if e.GetRegisteredAtMs() >= at.UnixMilli() && isDevice(e) {
			s.put(claimOf(user, e, false))
		}
	}
}

// tokenMoved takes from a user the endpoints whose token is somebody else's now. Who registered theirs since claims it
// again: that registration looked like none, since the token was still there.
func (s *State) tokenMoved(in ProfilePatched) {
	old := s.profile(in.User)
	if old == nil {
		return
	}
	merged := profile.Copy(old, in.Offset)
	merged.Endpoints = nil
	var again []PutClaim
	for _, e := range old.GetEndpoints() {
		if HashToken(e.GetChannel(), e.GetToken()) == in.Moved.Token {
			if e.GetRegisteredAtMs() <= in.Moved.AtMs {
				continue
			}
			again = append(again, claimOf(in.User, e, false))
		}
		merged.Endpoints = append(merged.Endpoints, e)
	}
	if in.Offset <= old.GetChangesOffset() { // a redelivery: the claims may not have been written
		for _, c := range again {
			s.put(c)
		}
		return
	}
	s.putUser(in.User, merged, again...)
}
