package domain

import (
	"slices"
	"sort"
	"strings"
)

// roster is the order in which users are walked. It has the ids themselves, of which the map's keys are parts, and
// costs a user 5 bytes beside the id: a place in the order, and a length. Users who came since it was sorted wait at its
// end, as few at a time; those who are gone stay in it, and are passed over.
type roster struct {
	ids    idStore
	sorted []idRef
	fresh  []idRef
}

// add notes a user who was not there, and returns the id to be kept for it.
func (r *roster) add(user string) string {
	if own, known := r.own(user); known {
		return own // was there, and went
	}
	ref := r.ids.put(user)
	r.fresh = append(r.fresh, ref)
	return r.ids.get(ref)
}

// own is the roster's copy of an id that it has sorted.
func (r *roster) own(user string) (string, bool) {
	i := r.after(user) - 1
	if i < 0 || r.at(i) != user {
		return "", false
	}
	return r.at(i), true
}

func (r *roster) len() int        { return len(r.sorted) }
func (r *roster) at(i int) string { return r.ids.get(r.sorted[i]) }

// sort merges what came since. The first time costs n·log n, later n.
func (r *roster) sort() {
	if len(r.fresh) == 0 {
		return
	}
	slices.SortFunc(r.fresh, func(a, b idRef) int { return strings.Compare(r.ids.get(a), r.ids.get(b)) })
	// Who came, went and came again is there twice.
	r.fresh = slices.CompactFunc(r.fresh, func(a, b idRef) bool { return r.ids.get(a) == r.ids.get(b) })
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

// idRef is where an id is in an idStore: a block, and 14 bits of a place in it.
type idRef uint32

// idBlock is what is allocated at once. 2^18 of them are 4 GiB of ids, of one partition.
const (
	idBlockBits = 14
	idBlock     = 1 << idBlockBits
)

// idStore keeps ids one behind the other, a byte of length before each: an allocation of its own would cost each 5
// bytes of rounding, and its header in the order 12 more than a place. Nothing is ever taken out.
type idStore struct {
	blocks []string // the last one is what open has
	open   *strings.Builder
}

// put is for ids of [MaxIDBytes] at most.
func (s *idStore) put(id string) idRef {
	if s.open == nil || s.open.Len()+1+len(id) > idBlock {
		s.open = &strings.Builder{}
		s.open.Grow(idBlock) // never grows again, so what was handed out shares its memory
		s.blocks = append(s.blocks, "")
	}
	last := len(s.blocks) - 1
	ref := idRef(last<<idBlockBits | s.open.Len())
	s.open.WriteByte(byte(len(id)))
	s.open.WriteString(id)
	s.blocks[last] = s.open.String()
	return ref
}

func (s *idStore) get(ref idRef) string {
	rest := s.blocks[ref>>idBlockBits][ref&(idBlock-1):]
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
