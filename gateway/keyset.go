package gateway

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"github.com/klivvr/whisper/domain/record"
)

// keySet is a JWKS as it was read once; immutable.
type keySet struct {
	named    map[kidAlg]jwt.VerificationKeySet
	kids     map[string]bool
	nameless map[string]jwt.VerificationKeySet // by algorithm: all, for tokens without a kid
	keys     int
	skipped  int // of a kind, use or algorithm that is not ours
}

type kidAlg struct{ kid, alg string }

// parseKeySet keeps the keys that tokens can be checked by and passes over the others, as RFC 7517 §5
// wants. A set that has none is an error: it never takes a good one's place.
func parseKeySet(raw []byte) (*keySet, error) {
	doc, err := record.StrictMembers(raw, "the key set", "keys")
	if err != nil {
		return nil, err
	}
	var keys []json.RawMessage
	if list, ok := doc["keys"]; !ok {
		return nil, errors.New("the key set has no member keys")
	} else if err := json.Unmarshal(list, &keys); err != nil {
		return nil, errors.New("the key set's keys are not a list")
	}
	s := &keySet{named: map[kidAlg]jwt.VerificationKeySet{}, kids: map[string]bool{}, nameless: map[string]jwt.VerificationKeySet{}}
	for _, one := range keys {
		var key jose.JSONWebKey
		if err := key.UnmarshalJSON(one); err != nil {
			s.skipped++
			continue
		}
		if !s.add(key) {
			s.skipped++
		}
	}
	switch {
	case s.keys == 0:
		return nil, fmt.Errorf("the key set has no key that can check RS256, ES256 or EdDSA (%d others)", s.skipped)
	case s.keys > maxSetKeys:
		return nil, fmt.Errorf("the key set has %d keys, at most %d", s.keys, maxSetKeys)
	}
	return s, nil
}

func (s *keySet) add(key jose.JSONWebKey) bool {
	alg, err := algorithmOf(key.Key)
	if err != nil || !key.Valid() || key.Use != "" && key.Use != "sig" {
		return false // also private and symmetric keys, which have no place in such a set
	}
	if key.Algorithm != "" && key.Algorithm != alg && (alg != "EdDSA" || key.Algorithm != "Ed25519") {
		return false
	}
	s.keys++
	all := s.nameless[alg]
	all.Keys = append(all.Keys, key.Key)
	s.nameless[alg] = all
	if key.KeyID != "" {
		named := s.named[kidAlg{key.KeyID, alg}]
		named.Keys = append(named.Keys, key.Key)
		s.named[kidAlg{key.KeyID, alg}] = named
		s.kids[key.KeyID] = true
	}
	return true
}
