package decide

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/users"
)

// stamp is one counted delivery: 48 bits of Unix milliseconds, 16 of the category's number.
type stamp uint64

func newStamp(at time.Time, category uint16) stamp {
	return stamp(max(at.UnixMilli(), 0))<<16 | stamp(category)
}

func (s stamp) time() time.Time { return time.UnixMilli(int64(s >> 16)) }

func (s stamp) category() uint16 { return uint16(s) }

// stamps are those of one user, in order of counting, 8 bytes each: a string, since its header is the
// smaller one, and most users have a few.
type stamps string

func (s stamps) len() int { return len(s) / 8 }

func (s stamps) at(i int) stamp { return stamp(binary.LittleEndian.Uint64([]byte(s[8*i : 8*i+8]))) }

// counts are what each user was sent in categories that have caps. It costs a user 8 bytes a delivery that
// was counted in the last week or so, never more deliveries than the caps allow, and 5 more; users to whom nothing of the
// kind was sent cost nothing.
type counts struct {
	names   []string
	numbers map[string]uint16
	users   *users.Table
	// counted are the deliveries that the log knows, for telling what was counted before a restart, and
	// how; once everything that was in flight is there again (not restoring), those that broadcasts may come to
	// again, or nil. erased is how often each user was forgotten since: a count from before that is gone, and
	// must not be taken for another one of its millisecond.
	restoring bool
	counted   map[domain.DeliveryHash]countedBefore
	erased    map[users.IDRef]uint32
}

// countedBefore is one delivery's count, and how often its user had been forgotten by then.
type countedBefore struct {
	stamp  stamp
	erased uint32
}

func newCounts(table *users.Table) counts {
	return counts{
		numbers: map[string]uint16{}, users: table,
		restoring: true, counted: map[domain.DeliveryHash]countedBefore{}, erased: map[users.IDRef]uint32{},
	}
}

// replayed keeps of the log what was counted from a time on; of what is counted from now on, nothing.
func (t *counts) replayed(from time.Time) {
	kept, oldest := map[domain.DeliveryHash]countedBefore{}, newStamp(from, 0)
	for hash, b := range t.counted {
		if b.stamp >= oldest {
			kept[hash] = b
		}
	}
	t.restoring, t.counted = false, kept
}

// forgetCounted ends that.
func (t *counts) forgetCounted() { t.restoring, t.counted, t.erased = false, nil, nil }

// before is how a user's delivery was counted before a restart; 0: it was not, or the user was forgotten since.
func (t *counts) before(user string, hash domain.DeliveryHash) stamp {
	if len(t.counted) == 0 {
		return 0
	}
	b, ok := t.counted[hash]
	if !ok || b.erased != t.erasedTimes(user) {
		return 0
	}
	return b.stamp
}

func (t *counts) erasedTimes(user string) uint32 {
	if len(t.erased) == 0 {
		return 0
	}
	ref, _ := t.users.Ref(user) // whoever was erased is there
	return t.erased[ref]
}

// of are a user's.
func (t *counts) of(user string) stamps {
	if len(t.names) == 0 {
		return "" // nothing has caps
	}
	sent, _ := t.users.Get(user, users.KindStamps)
	return stamps(sent)
}

// forget drops a user's, and says whether there were any.
func (t *counts) forget(user string) bool {
	if t.counted != nil {
		t.erased[t.users.Intern(user)]++
	}
	return t.users.Forget(user, users.KindStamps)
}

// number is a category's. There are as many as were declared with caps since the start; past 65,535 they
// share one, which counts too many rather than too few.
func (t *counts) number(category string) uint16 {
	if n, ok := t.numbers[category]; ok {
		return n
	}
	if len(t.names) > math.MaxUint16 {
		return math.MaxUint16
	}
	n := uint16(len(t.names))
	t.names = append(t.names, category)
	t.numbers[category] = n
	return n
}

// add counts one delivery. Where it was counted before (a restart came between the count and what it
// counted), it counts from now on instead, but never from earlier than before. It returns from when it counts.
func (t *counts) add(user, name string, hash domain.DeliveryHash, at time.Time, before stamp) time.Time {
	if before == 0 {
		before = t.before(user, hash)
	}
	if before.time().After(at) {
		at = before.time()
	}
	now, slot := newStamp(at, t.number(name)), t.users.Add(user)
	if t.restoring {
		t.counted[hash] = countedBefore{stamp: now, erased: t.erasedTimes(user)}
	} else if len(t.counted) > 0 {
		delete(t.counted, hash)
	}
	old, oldest := t.of(user), newStamp(at.Add(-category.CountsKept), 0)
	var scratch [64]byte
	kept := scratch[:0]
	for i := range old.len() {
		s := old.at(i)
		if s == before {
			before = 0
			continue
		}
		if s >= oldest {
			kept = binary.LittleEndian.AppendUint64(kept, uint64(s))
		}
	}
	t.users.Put(slot, users.KindStamps, binary.LittleEndian.AppendUint64(kept, uint64(now)))
	return at
}

// over says whether a cap lets nothing through now, how many it has counted beside own (the delivery's own
// count from before a restart; 0: none), and until when.
func (t *counts) over(
	sent stamps, limit category.Cap, name string, own stamp, now time.Time, zone *time.Location,
) (counted int, until time.Time, over bool) {
	if sent.len() < limit.N {
		return 0, time.Time{}, false
	}
	number, known := t.numbers[name]
	if limit.By == category.ByUserCategory && !known {
		return 0, time.Time{}, false
	}
	window := limit.Per.Open(now, zone)
	counts := func(s stamp) bool {
		if s == own {
			own = 0 // once: another one of the same millisecond counts
			return false
		}
		return (limit.By == category.ByUser || s.category() == number) && window.Has(s.time())
	}
	mine := own
	for i := range sent.len() {
		if counts(sent.at(i)) {
			counted++
		}
	}
	if counted < limit.N {
		return counted, time.Time{}, false
	}
	if !window.Slides() {
		return counted, limit.Per.End(now, zone), true
	}
	// The oldest that must have left before there is room for one.
	leave := counted - limit.N
	own = mine
	for i := range sent.len() {
		if s := sent.at(i); counts(s) {
			if leave == 0 {
				return counted, s.time().Add(window.Length), true
			}
			leave--
		}
	}
	return counted, now.Add(window.Length), true
}
