package decide

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/request"
	"github.com/klivvr/whisper/domain/segment"
	"github.com/klivvr/whisper/domain/users"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// audienceRule is whom a broadcast with a segment was for, for as long as it may be taken back: who was no part of it is not told
// its id. Nobody keeps who that was, so whose profile changed since the walk began counts as if they were meant: they may have
// been in the segment before. It costs a broadcast its segment, in memory and in whisper.timers, for the window's length.
type audienceRule struct {
	id       domain.DeliveryID // of its record
	asked    time.Time
	endedMs  int64
	source   string
	segment  *segment.Segment // nil: everyone
	changes  int64
	note     string
	hash     domain.DeliveryHash
	compiled bool
}

// audiences are whom broadcasts were for that have ended, for as long as those may be retracted. Each is there once, in the order
// of the ends: what ends once more after a restart takes its own place.
type audiences struct{ ended []*audienceRule }

func (a *audiences) add(m *audienceRule) {
	a.ended = slices.DeleteFunc(a.ended, func(known *audienceRule) bool { return known.id == m.id })
	a.ended = append(a.ended, m)
	slices.SortFunc(a.ended, func(a, b *audienceRule) int {
		return cmp.Or(cmp.Compare(a.endedMs, b.endedMs), a.id.Compare(b.id))
	})
}

// of are those of a notification; several broadcasts may have had one id.
func (a *audiences) of(note string) (of []*audienceRule) {
	for _, m := range a.ended {
		if m.note == note {
			of = append(of, m)
		}
	}
	return of
}

const audienceMark = "\x01meant"

func newAudienceRule(note, source string, changes int64, asked time.Time, endedMs int64) *audienceRule {
	return &audienceRule{
		id: domain.NewDeliveryID(asked, domain.HashDelivery(note, audienceMark)), asked: asked, endedMs: endedMs, note: note,
		hash: domain.HashDelivery(note, ""), source: source, changes: changes,
	}
}

// has says whether the user may have been meant. Who was made after the walk began was not; nor is who has no profile: a
// user who is erased is left alone.
func (m *audienceRule) has(users *users.Table, user string) bool {
	view, known := users.Profile(user)
	if !known {
		return false
	}
	if created := view.Number(profile.FieldCreated); created > 0 && created-1 > m.changes {
		return false
	}
	if view.Number(profile.FieldChanges) > m.changes {
		return true
	}
	if !m.compiled { // only what is taken back costs that
		// A segment that a later version took is everyone's here.
		m.segment, _ = segment.Compile(m.source)
		m.compiled = true
	}
	match, _ := m.segment.Match(user, view)
	return match
}

// audienceRule is nil where everyone may have been meant. A provider's word that a token is dead changes a profile without a
// patch, so a segment that asks about endpoints is answered for nobody after the change; nor is a walk that began once more, since
// nobody knows when it first did.
func (w *walk) audienceRule(endedMs int64) *audienceRule {
	expression := request.SegmentOf(w.spec)
	if expression == "" || strings.Contains(expression, "endpoints") || w.again {
		return nil
	}
	m := newAudienceRule(w.note(), expression, w.changesAt, w.id.Time(), endedMs)
	m.segment, m.compiled = w.segment, true
	return m
}

// keepAudience goes before the walk's end is written.
func (s *State) keepAudience(w *walk) {
	m := w.audienceRule(s.now.UnixMilli())
	if m == nil || s.earlierWasForEveryone(w) {
		return
	}
	s.audiences.add(m)
	s.put(Park{ID: m.id, Parked: &whisperv1.Parked{Meant: &whisperv1.Meant{
		NotificationId: m.note, Segment: m.source, ChangesOffset: m.changes, AskedMs: m.asked.UnixMilli(), EndedMs: m.endedMs,
	}}})
}

// earlierWasForEveryone: an earlier broadcast had the id, was for everyone, and may still be taken back with this one.
func (s *State) earlierWasForEveryone(w *walk) bool {
	e, ended := s.dedupe.ended[w.id.Hash()]
	return ended && e.acceptedMs != w.id.Time().UnixMilli() && len(s.audiences.of(w.note())) == 0
}

// forgetAudiences drops what the window has forgotten.
func (s *State) forgetAudiences() {
	for len(s.audiences.ended) > 0 {
		m := s.audiences.ended[0]
		if _, known := s.dedupe.since(m.hash); known || s.broadcasts.get(m.note) != nil {
			return
		}
		s.audiences.ended = s.audiences.ended[1:]
		s.put(Unpark{ID: m.id})
	}
}

func (s *State) restoreAudience(p *whisperv1.Parked) {
	k := p.GetMeant()
	s.audiences.add(newAudienceRule(k.GetNotificationId(), k.GetSegment(), k.GetChangesOffset(), time.UnixMilli(k.GetAskedMs()),
		k.GetEndedMs()))
}

// audience is whom the broadcasts of a notification were for.
type audience struct {
	everyone bool
	of       []*audienceRule
}

// audienceOf is asked once for all the users of whom somebody wants to know.
func (s *State) audienceOf(note string) (a audience) {
	w := s.broadcasts.get(note) // also for longer than the window
	if _, known := s.dedupe.since(domain.HashDelivery(note, "")); !known && w == nil {
		return audience{}
	}
	a.of = s.audiences.of(note)
	if w != nil {
		m := w.audienceRule(0)
		if m == nil || s.earlierWasForEveryone(w) {
			return audience{everyone: true}
		}
		a.of = append(a.of, m)
	}
	a.everyone = len(a.of) == 0 // it has no segment, or ended in an earlier version
	return a
}

func (a audience) has(users *users.Table, user string) bool {
	return a.everyone || slices.ContainsFunc(a.of, func(m *audienceRule) bool { return m.has(users, user) })
}
