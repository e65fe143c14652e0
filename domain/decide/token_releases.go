package decide

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// release notes what a user releases until Kafka has it. A provider's answer may release, too, when the changes up to here
// are committed: so it counts as the next change's.
func (s *State) release(user string, claims []PutClaim) *Releasing {
	var told *Releasing
	for _, c := range claims {
		if !c.Claim.GetReleased() {
			continue
		}
		if told == nil {
			told = &Releasing{User: user}
		}
		told.Tokens = append(told.Tokens, c.Token)
		s.tokens.releasing[user] = append(s.tokens.releasing[user], &whisperv1.TokenRelease{
			Token: c.Token[:], Endpoint: c.Claim.GetEndpoint(), AtMs: c.Claim.GetAtMs(), ChangesOffset: s.changesAt + 1,
		})
	}
	return told
}

// Released says that Kafka has a user's releases, and all that was decided before them.
func (s *State) Released(in Releasing) []Output {
	s.out = s.out[:0]
	left := s.tokens.releasing[in.User]
	for _, token := range in.Tokens {
		if i := slices.IndexFunc(left, func(r *whisperv1.TokenRelease) bool { return TokenHash(r.GetToken()) == token }); i >= 0 {
			left = slices.Delete(left, i, i+1)
		}
	}
	if len(left) > 0 {
		s.tokens.releasing[in.User] = left
		return nil
	}
	delete(s.tokens.releasing, in.User)
	if _, known := s.users.Profile(in.User); !known {
		s.put(PutUser{User: in.User})
	}
	return s.out
}

// restoreReleases takes out of an encoded profile what its user was releasing; erased says that nothing else is in it.
func (s *State) restoreReleases(user string, encoded []byte) (rest []byte, erased bool) {
	delete(s.tokens.releasing, user)
	delete(s.tokens.erased, user)
	if profile.View(encoded).Field(profile.FieldReleases) == "" {
		return encoded, false
	}
	p := &whisperv1.Profile{}
	if err := proto.Unmarshal(encoded, p); err != nil {
		return encoded, false
	}
	for _, r := range p.GetReleases() {
		if len(r.GetToken()) == len(TokenHash{}) {
			s.tokens.releasing[user] = append(s.tokens.releasing[user], r)
		}
	}
	p.Releases = nil
	if p.GetErased() {
		s.tokens.erased[user] = true
		return nil, true
	}
	rest, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	if err != nil {
		return encoded, false
	}
	return rest, false
}

// releaseAgain writes the releases of which the earlier process may have known only that they were due: those of changes
// that are read again, and of erased users without a tombstone. from is the first change that is read.
func (s *State) releaseAgain(from int64) {
	for _, user := range slices.Sorted(maps.Keys(s.tokens.releasing)) {
		due := s.tokens.releasing[user]
		if !s.tokens.erased[user] {
			due = slices.DeleteFunc(due, func(r *whisperv1.TokenRelease) bool { return r.GetChangesOffset() < from })
		}
		if s.tokens.releasing[user] = due; len(due) == 0 {
			delete(s.tokens.releasing, user)
			continue
		}
		told := Releasing{User: user}
		for _, r := range due {
			token := TokenHash(r.GetToken())
			told.Tokens = append(told.Tokens, token)
			s.put(PutClaim{Token: token, Claim: &whisperv1.TokenClaim{UserId: user, Endpoint: r.GetEndpoint(), AtMs: r.GetAtMs(), Released: true}})
		}
		s.put(told)
	}
	clear(s.tokens.erased)
}

// withReleases is the user's record as whisper.users has it.
func (s *State) withReleases(user string, encoded []byte) []byte {
	due := s.tokens.releasing[user]
	if len(due) == 0 {
		return encoded
	}
	p := &whisperv1.Profile{Erased: encoded == nil}
	if err := proto.Unmarshal(encoded, p); err != nil {
		return encoded
	}
	p.Releases = due
	if all, err := (proto.MarshalOptions{Deterministic: true}).Marshal(p); err == nil {
		return all
	}
	return encoded
}
