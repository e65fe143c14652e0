package decide

import (
	"cmp"
	"slices"
	"time"

	"github.com/klivvr/whisper/domain"
)

// retractions are the notifications that were retracted while the window knows them, and the silent pushes that are still
// to be answered. Its invariants:
//
//   - A silent push is in pushes exactly as long as it is in due and in whisper.timers: see [silentPush].
//   - scans may have a retraction that is over; it is passed over.
type retractions struct {
	byNotification map[string]*retraction
	scans          []*retraction // whose users are still to be looked at: since when do facts tell of it?
	pushes         map[domain.DeliveryHash]*silentPush
	due            schedule[*silentPush]
}

func newRetractions() retractions {
	return retractions{byNotification: map[string]*retraction{}, pushes: map[domain.DeliveryHash]*silentPush{}}
}

// get is the retraction of a notification, or nil.
func (t *retractions) get(note string) *retraction { return t.byNotification[note] }

// valid is the retraction of a notification that still counts, or nil.
func (t *retractions) valid(note string, now time.Time) *retraction {
	if r := t.byNotification[note]; r != nil && now.Before(r.until) {
		return r
	}
	return nil
}

// push is the silent push that is held under a key, or nil.
func (t *retractions) push(key domain.DeliveryHash) *silentPush { return t.pushes[key] }

// hold holds a silent push until it is looked at at a time.
func (t *retractions) hold(c *silentPush, due time.Time) {
	t.pushes[c.id.Hash()] = c
	t.due.set(c, due)
}

// drop lets go of a silent push.
func (t *retractions) drop(c *silentPush) {
	delete(t.pushes, c.id.Hash())
	t.due.remove(c)
}

// to are the silent pushes to a user's endpoints, in the order of their ids.
func (t *retractions) to(user string) (all []*silentPush) {
	for _, c := range t.pushes {
		if c.user == user {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b *silentPush) int { return a.id.Compare(b.id) })
	return all
}

// sorted are all retractions, in the order of their notifications' ids.
func (t *retractions) sorted() []*retraction {
	all := make([]*retraction, 0, len(t.byNotification))
	for _, r := range t.byNotification {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *retraction) int { return cmp.Compare(a.note, b.note) })
	return all
}
