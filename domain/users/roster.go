package users

import (
	"slices"
	"sort"
	"strings"
)

// roster is the order in which users are walked, with their ids. It costs 5 bytes a user beside the id: a place in the
// order, and a length. Users who were added since the last Sort are at its end, unsorted. Users who were forgotten stay
// in it; a walk finds no profile for them.
type roster struct {
	ids    idStore
	sorted []IDRef
	fresh  []IDRef
}

// enter adds an id that is not there yet.
func (r *roster) enter(user string) IDRef {
	ref := r.ids.put(user)
	r.fresh = append(r.fresh, ref)
	return ref
}

// Len is the number of users in the order. Users who were added since the last Sort are not in it.
func (r *roster) Len() int { return len(r.sorted) }

// At is the user at index i of the order, from 0 to Len()-1.
func (r *roster) At(i int) string { return r.ids.get(r.sorted[i]) }

// Sort merges the users who were added since the last Sort. The first time costs n·log n, each further time n.
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

// After is the index of the first user behind this one.
func (r *roster) After(user string) int {
	return sort.Search(len(r.sorted), func(i int) bool { return r.At(i) > user })
}

// IDRef is the position of an id in an idStore.
type IDRef textRef

// idStore stores ids, each with a byte of length before it. Nothing is ever removed.
type idStore struct{ blocks }

// put stores an id of at most [domain.MaxIDBytes].
func (s *idStore) put(id string) IDRef {
	return IDRef(s.blocks.put([]byte{byte(len(id))}, []byte(id)))
}

func (s *idStore) get(ref IDRef) string {
	rest := s.from(textRef(ref))
	return rest[1 : 1+rest[0]]
}

// After is the index of the first of the sorted that is behind this one.
func After(sorted []string, user string) int {
	i, found := slices.BinarySearch(sorted, user)
	if found {
		i++
	}
	return i
}
