package users

import (
	"slices"
	"sort"
	"strings"
)

// roster is the order in which users are walked. It has the ids themselves and costs a user 5 bytes beside the id: a
// place in the order, and a length. Users who came since it was sorted wait at its end, as few at a time; those who are
// gone stay in it, and are passed over.
type roster struct {
	ids    idStore
	sorted []IDRef
	fresh  []IDRef
}

// add notes an id that is not there.
func (r *roster) enter(user string) IDRef {
	ref := r.ids.put(user)
	r.fresh = append(r.fresh, ref)
	return ref
}

// Len is how many users stand in the order; users who came since the last Sort do not.
func (r *roster) Len() int { return len(r.sorted) }

// At is the user at a place of the order, from 0 to Len()-1.
func (r *roster) At(i int) string { return r.ids.get(r.sorted[i]) }

// Sort merges what came since. The first time costs n·log n, later n.
func (r *roster) Sort() {
	if len(r.fresh) == 0 {
		return
	}
	slices.SortFunc(r.fresh, func(a, b IDRef) int { return strings.Compare(r.ids.get(a), r.ids.get(b)) })
	merged := make([]IDRef, 0, len(r.sorted)+len(r.fresh))
	i := 0
	for _, ref := range r.fresh {
		user := r.ids.get(ref)
		n := sort.Search(len(r.sorted)-i, func(j int) bool { return r.At(i+j) >= user })
		merged = append(merged, r.sorted[i:i+n]...)
		merged = append(merged, ref)
		i += n
	}
	r.sorted, r.fresh = append(merged, r.sorted[i:]...), nil
}

// After is the place of the first user behind this one.
func (r *roster) After(user string) int {
	return sort.Search(len(r.sorted), func(i int) bool { return r.At(i) > user })
}

// IDRef is where an id is in an idStore.
type IDRef textRef

// idStore keeps ids, a byte of length before each. Nothing is ever taken out.
type idStore struct{ blocks }

// put is for ids of [domain.MaxIDBytes] at most.
func (s *idStore) put(id string) IDRef {
	return IDRef(s.blocks.put([]byte{byte(len(id))}, []byte(id)))
}

func (s *idStore) get(ref IDRef) string {
	rest := s.from(textRef(ref))
	return rest[1 : 1+rest[0]]
}

// After is the place of the first of the sorted that is behind this one.
func After(sorted []string, user string) int {
	i, found := slices.BinarySearch(sorted, user)
	if found {
		i++
	}
	return i
}
