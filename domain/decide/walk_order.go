package decide

import (
	"slices"
	"strconv"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/users"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// A walk goes twice over the partition's users, each time in the order of their ids: first over those who were
// connected when it began, then over all the others. Who is away costs two records and whoever is connected a part of
// one, so whoever can have it at once does not wait for a million records about those who can't.
//
// Who is of the first pass is fixed when the walk begins and written before anything that follows from it (see
// [State.parkFirst]); after a restart the list is the same, whoever has come or gone. So a place in the walk is the
// pass and the last user of it, everyone has exactly one, and a cursor means the same in every process. Who left before
// their turn is met all the same, and who connects after that waits for their turn in the second pass.
//
// A broadcast to those who are connected ends with the first pass: the list is its audience.
//
// It costs 16 bytes of memory a connected user and their id in whisper.timers while the walk lasts, and a comparison of
// two ids for each user of the second pass.

// firstPerRecord bounds a record of the first pass: ids have at most 128 bytes, so 512 KiB.
const firstPerRecord = 4096

// firstShare: a slice of the first pass is so much smaller, unless no alert is there to wait behind it ([WalkOn]). Each of
// its users is a socket to be written to and an answer, so 128 of them in each of 12 partitions at once are a burst that
// an alert waits behind for 50 ms; 16 are none. It makes records to the nodes of as many users, about 2 µs a delivery.
const firstShare = 8

// looksPerMet: a slice ends with so many users who are meant, or when it has lasted long enough. Of users who are not meant it
// looks at so many more at most; nothing is written about them.
const looksPerMet = 64

// findFirst are the users who are connected and have a profile, sorted. It takes some 0.5 µs for each who is connected, or,
// where those are many, 0.1 µs for each user: 50 ms for 100,000 sockets of one partition, in one go. None where nobody
// could get it at once.
func (s *State) findFirst(w *walk) []string {
	if w.connected {
		return s.findConnected(w)
	}
	if w.clock.Set || !w.acc.GetChannelsDefault() && !slices.Contains(w.acc.GetChannels(), domain.ChannelSocket) {
		return nil
	}
	var first []string
	if len(s.presence.users) > s.users.Len()/4 {
		for i := range s.users.Len() {
			user := s.users.At(i)
			if len(s.presence.live(user)) > 0 {
				first = append(first, user)
			}
		}
		return first
	}
	for user := range s.presence.users {
		if _, known := s.users.Profile(user); known && len(s.presence.live(user)) > 0 {
			first = append(first, user)
		}
	}
	slices.Sort(first)
	return first
}

// findConnected are all who have a socket, sorted; and those of whom facts tell, where the walk begins once more: an
// earlier process has dealt with them, and died before the list of its own was durable.
func (s *State) findConnected(w *walk) []string {
	var all []string
	for user := range s.presence.users {
		if len(s.presence.live(user)) > 0 {
			all = append(all, user)
		}
	}
	for _, r := range w.replay {
		all = append(all, r.user)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// audienceNow is how many users the walk is to look at.
func (s *State) audienceNow(w *walk) int64 {
	if !w.connected {
		return int64(s.users.Known)
	}
	if w.first == nil {
		return int64(len(s.findConnected(w)))
	}
	return int64(len(w.first))
}

// setFirst fixes who is of the first pass.
func (w *walk) setFirst(first []string) {
	w.first = first
	w.rest = len(first) == 0 && !w.connected
}

// parkFirst writes who is of the first pass, in the timers and before the record that says that the walk has begun: in
// one partition of one topic, so where there is the one, there is the other.
func (s *State) parkFirst(w *walk) {
	n := 0
	for users := range slices.Chunk(w.first, firstPerRecord) {
		part := &whisperv1.WalkFirst{Broadcast: w.id[:], Number: int32(n), Users: users, NotificationId: w.note()}
		if w.connected {
			part.Broadcast, part.ConnectedBroadcast = nil, w.id[:]
		}
		s.put(Park{ID: w.firstID(n), Parked: &whisperv1.Parked{WalkFirst: part}})
		n++
	}
	w.firstRecords = n
	w.firstWritten = max(w.firstWritten, n)
}

func (w *walk) firstID(n int) domain.DeliveryID { return firstID(w.id, w.note(), n) }

func firstID(broadcast domain.DeliveryID, note string, n int) domain.DeliveryID {
	return domain.NewDeliveryID(broadcast.Time(), domain.HashDelivery(note, firstMark+strconv.Itoa(n)))
}

// firstIDs are the records to be removed with the walk's.
func (w *walk) firstIDs() []domain.DeliveryID {
	var ids []domain.DeliveryID
	for n := range w.firstWritten {
		ids = append(ids, w.firstID(n))
	}
	return ids
}

// restoreFirst puts the first pass back from its records. Of a process that died in the middle of the beginning there
// may be more than the walk speaks of: those are only removed at its end.
func (w *walk) restoreFirst(records []*whisperv1.WalkFirst) {
	slices.SortFunc(records, func(a, b *whisperv1.WalkFirst) int { return int(a.GetNumber()) - int(b.GetNumber()) })
	var first []string
	for _, r := range records {
		w.firstWritten = max(w.firstWritten, int(r.GetNumber())+1)
		if int(r.GetNumber()) < w.firstRecords && !w.done {
			first = append(first, r.GetUsers()...)
		}
	}
	if w.begun.IsZero() {
		return
	}
	rest := w.rest
	w.setFirst(first)
	w.rest = w.rest || rest
}

// ofBroadcast is the broadcast of a record of the first pass.
func ofBroadcast(part *whisperv1.WalkFirst) (domain.DeliveryID, error) {
	if id := part.GetConnectedBroadcast(); len(id) > 0 {
		return domain.DeliveryIDFromBytes(id)
	}
	return domain.DeliveryIDFromBytes(part.GetBroadcast())
}

// dropFirst removes what is left of a first pass whose walk came to its end: the process before died between the
// tombstones, of which the walk's is the first.
func (s *State) dropFirst(broadcast domain.DeliveryID, records []*whisperv1.WalkFirst) {
	for _, r := range records {
		s.put(Unpark{ID: firstID(broadcast, r.GetNotificationId(), int(r.GetNumber()))})
	}
}

// passed says whether the walk has looked at the user.
func (w *walk) passed(user string) bool {
	if w.done {
		return true
	}
	if _, first := slices.BinarySearch(w.first, user); first && w.rest || !first && w.connected && !w.begun.IsZero() {
		return true // or is not in its audience
	} else if first != !w.rest {
		return false // their pass is to come
	}
	return user <= w.at
}

// extendReplay notes that replay tells of the user.
func (w *walk) extendReplay(user string) {
	if w.replayTo == "" || w.before(w.replayTo, user) {
		w.replayTo = user
	}
}

// findReplayTo looks for the last user of whom replay tells, in an order that is new.
func (w *walk) findReplayTo() {
	w.replayTo = ""
	for _, r := range w.replay {
		w.extendReplay(r.user)
	}
}

// before says whether the walk comes to a before it comes to b.
func (w *walk) before(a, b string) bool {
	_, first := slices.BinarySearch(w.first, a)
	if _, too := slices.BinarySearch(w.first, b); first != too {
		return first
	}
	return a < b
}

// catchesUp: a restart found facts about users to whom the walk comes only now. Until it does, they can't be let go: the
// next restart must read them again. So a broadcast that is paused goes on up to the last of them, and begins with
// nobody; else a pause longer than the retention of the facts would lose them.
func (w *walk) catchesUp() bool {
	return len(w.replay) > 0 && !w.done && w.flying < maxFlying && len(w.slices) < maxSlices
}

// walkUsers looks at the next users of the pass; over is true when it was the last pass's end.
func (s *State) walkUsers(w *walk, sl *slice) (over bool) {
	n, id, skip := len(w.first), func(i int) string { return w.first[i] }, []string(nil)
	i := users.After(w.first, w.at)
	if w.rest {
		n, id, skip = s.users.Len(), s.users.At, w.first
		i = s.users.After(w.at)
	}
	j := users.After(skip, w.at)
	slice := s.policy.slice()
	if !w.rest && !s.timeBox.wide {
		slice = max(1, slice/firstShare)
	}
	looks := slice
	if s.timeBox.over != nil {
		looks = slice * looksPerMet
	}
	end, enough := min(i+looks, n), w.counts.matched+int64(slice)
	for lasted := false; i < end && !lasted && w.counts.matched < enough &&
		(w.ending || w.bucket.room() > 0 && (!w.paused || !w.passed(w.replayTo))); {
		w.at = id(i)
		i++
		lasted = s.timeBox.ends(lookedUnits)
		for j < len(skip) && skip[j] < w.at { // forgotten since
			j++
		}
		if j < len(skip) && skip[j] == w.at {
			continue // was looked at in the first pass
		}
		matched := w.counts.matched
		if s.walkUser(w, sl, w.at); w.counts.matched > matched {
			lasted = s.timeBox.ends(metUnits) || lasted
		}
	}
	switch {
	case i < n:
		return false
	case w.rest || w.connected:
		return true
	default:
		w.rest, w.at = true, ""
		return false
	}
}
