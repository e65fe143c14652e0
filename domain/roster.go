package domain

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
	sorted []idRef
	fresh  []idRef
}

// add notes an id that is not there.
func (r *roster) add(user string) idRef {
	ref := r.ids.put(user)
	r.fresh = append(r.fresh, ref)
	return ref
}

func (r *roster) len() int        { return len(r.sorted) }
func (r *roster) at(i int) string { return r.ids.get(r.sorted[i]) }

// sort merges what came since. The first time costs n·log n, later n.
func (r *roster) sort() {
	if len(r.fresh) == 0 {
		return
	}
	slices.SortFunc(r.fresh, func(a, b idRef) int { return strings.Compare(r.ids.get(a), r.ids.get(b)) })
	merged := make([]idRef, 0, len(r.sorted)+len(r.fresh))
	i := 0
	for _, ref := range r.fresh {
		user := r.ids.get(ref)
		n := sort.Search(len(r.sorted)-i, func(j int) bool { return r.at(i+j) >= user })
		merged = append(merged, r.sorted[i:i+n]...)
		merged = append(merged, ref)
		i += n
	}
	r.sorted, r.fresh = append(merged, r.sorted[i:]...), nil
}

// after is the place of the first user behind this one.
func (r *roster) after(user string) int {
	return sort.Search(len(r.sorted), func(i int) bool { return r.at(i) > user })
}

// idRef is where an id is in an idStore.
type idRef textRef

// idStore keeps ids, a byte of length before each. Nothing is ever taken out.
type idStore struct{ blocks }

// put is for ids of [MaxIDBytes] at most.
func (s *idStore) put(id string) idRef {
	return idRef(s.blocks.put([]byte{byte(len(id))}, []byte(id)))
}

func (s *idStore) get(ref idRef) string {
	rest := s.from(textRef(ref))
	return rest[1 : 1+rest[0]]
}

// after is the place of the first of the sorted that is behind this one.
func after(sorted []string, user string) int {
	i, found := slices.BinarySearch(sorted, user)
	if found {
		i++
	}
	return i
}
