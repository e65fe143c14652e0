package decide

import (
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/segment"
	"github.com/klivvr/whisper/domain/template"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// walkUser looks at one user: are they in the audience, and what is to be done about them? Only what goes out becomes a
// [delivery]; who can't be reached, or only later, costs a fact and a few bytes.
func (s *State) walkUser(w *walk, sl *slice, user string) {
	s.busy = busy{walk: w, user: user}
	view, known := s.users.Profile(user)
	if !known && !w.connected {
		return // forgotten since
	}
	if created := view.Number(profile.FieldCreated); created > 0 && created-1 > w.changesAt {
		if !w.connected {
			return // came after it began
		}
		known = false // to a segment
	}
	w.counts.walked++
	if s.aside.hasUser(w, user) {
		hash := domain.HashDelivery(w.note(), user)
		r, told := s.replayedOf(w, hash)
		delete(w.replay, hash)
		if w.counts.matched++; !told || !r.settled {
			s.emitFor(w, user, w.idOf(user), internalFailure())
		}
		return
	}
	waited := false
	if len(w.replay) > 0 || len(s.replay) > 0 {
		hash := domain.HashDelivery(w.note(), user)
		r, told := s.replayedOf(w, hash)
		delete(w.replay, hash)
		if waited = told && r.waits(); told && !waited {
			w.counts.matched++
			s.walkReplayed(w, sl, user, hash, r)
			return
		}
	}
	answer := segment.Answer{}
	if known || w.segment == nil {
		answer = w.segment.Ask(user, view)
	}
	s.timeBox.units += answer.Units
	if answer.Failed {
		w.counts.errors++
	}
	match := answer.Match
	if !match && !w.restored && !waited {
		return
	}
	hash := domain.HashDelivery(w.note(), user)
	if w.restored && s.restoredOf(w, user, hash) {
		w.counts.matched++
		return
	}
	if !match && !waited {
		return
	}
	w.counts.matched++
	if !match {
		why := &whisperv1.DeliverySuppressed{Reason: domain.ReasonSegment}
		s.emitFor(w, user, w.idOf(user), &whisperv1.Event{Kind: &whisperv1.Event_DeliverySuppressed{DeliverySuppressed: why}})
		return
	}
	id := domain.NewDeliveryID(w.id.Time(), hash)
	if first, dup := s.dedupe.lookup(hash, w.request, w.id.Time()); dup { // a request for single users had the same id
		s.emitFor(w, user, first.ID(), &whisperv1.Event{Kind: &whisperv1.Event_DuplicateDropped{DuplicateDropped: &whisperv1.DuplicateDropped{
			Request: w.acc.GetRequest(), Recipients: 1, RequestedAtMs: w.id.Time().UnixMilli(),
		}}})
		return
	}
	s.meet(w, sl, user, id, view)
}

// restoredOf: the user's was parked before the restart.
func (s *State) restoredOf(w *walk, user string, hash domain.DeliveryHash) bool {
	if w.waitsFor(user) {
		return true
	}
	held := s.deliveries.get(hash)
	return held != nil && held.walk == w
}

// meet decides about a user who is meant.
func (s *State) meet(w *walk, sl *slice, user string, id domain.DeliveryID, profile profile.View) {
	if w.ending {
		s.emitFor(w, user, id, w.endFact(domain.ReasonTTL))
		return
	}
	if w.clock.Set {
		if at := w.clock.After(w.starts(), s.zone(profile)); at.After(s.now) {
			s.scheduleUser(w, user, id, at)
			return
		}
	}
	if w.paused { // it only catches up: nobody is begun with, and when it is resumed the checks are asked
		s.scheduleUser(w, user, id, s.now)
		return
	}
	q := s.askFor(w, user, id, profile)
	v := s.judge(q)
	switch v.action {
	case drop:
		s.emitFor(w, user, id, &whisperv1.Event{Kind: &whisperv1.Event_DeliverySuppressed{DeliverySuppressed: suppression(q.category, v)}})
	case send:
		s.sendWalked(w, sl, user, id, q, v.denied)
	case hold, gather, lapse, waitFor: // it waits, as any delivery does
		s.advance(s.openDelivery(w, sl, user, id))
	}
}

func suppression(c *category.Category, v *verdict) *whisperv1.DeliverySuppressed {
	out := &whisperv1.DeliverySuppressed{Reason: v.reason, Category: c.Name}
	if v.limit.N > 0 {
		out.Cap, out.Count = v.limit.String(), int32(v.counted)
	}
	return out
}

// askFor is the checks' question about a user for whom there is no delivery.
func (s *State) askFor(w *walk, user string, id domain.DeliveryID, profile profile.View) *asked {
	named := w.acc.GetCategory()
	if named == "" {
		named = domain.DefaultCategory
	}
	q := &s.question
	*q = asked{
		category: s.category(named), named: named, user: user, profile: profile, channels: w.acc.GetChannels(),
		hash: id.Hash(), expires: w.acc.GetExpiresAtMs(), now: s.now, own: s.counts.before(user, id.Hash()),
	}
	if w.acc.GetChannelsDefault() && len(q.category.EffectiveChannels()) > 0 {
		q.channels = q.category.EffectiveChannels()
	}
	return q
}

// sendWalked sends now, or parks, or says why not.
func (s *State) sendWalked(w *walk, sl *slice, user string, id domain.DeliveryID, q *asked, denied profile.ChannelMask) {
	socket, push, first := false, false, ""
	for _, c := range q.channels {
		switch {
		case denied.Has(c):
			continue
		case c == domain.ChannelSocket:
			socket = true
		default:
			push = true
		}
		if first == "" {
			first = c
		}
	}
	var live []place
	if socket {
		live = s.presence.live(user)
	}
	push = push && hasEndpoint(q.profile, q.channels, denied)
	collapses := w.acc.GetCollapseKey() != "" && q.category.Collapse
	// Nothing older is to be let out or replaced first, or waits for its turn.
	simple := !collapses && !s.deliveries.resting[user] && !s.deliveries.ready.waits(userLane{user, w.lane()})
	switch {
	case len(live) == 0 && !push && socket && !collapses:
		s.keepAway(w, user, id)
		return
	case len(live) == 0 && !push && !socket:
		why := &whisperv1.DeliverySuppressed{Reason: domain.ReasonNoEndpoint}
		s.emitFor(w, user, id, &whisperv1.Event{Kind: &whisperv1.Event_DeliverySuppressed{DeliverySuppressed: why}})
		return
	}
	if len(live) > 0 || push {
		w.bucket.spend(1)
	}
	all := s.goesToAll(w.acc)
	var text *sharedText
	if simple && len(live) > 0 && (!push || first == domain.ChannelSocket || all) {
		text = s.sharedText(w, q.profile.Locale())
	}
	if text != nil && !all && len(live) == 1 && denied == 0 && q.own == 0 {
		s.fly(w, sl, user, id.Hash(), live[0], text, q.category)
		return
	}
	d := s.openDelivery(w, sl, user, id)
	if text == nil {
		s.advance(d)
		return
	}
	s.settleChannels(d)
	d.denied = denied
	if !all {
		s.group(d, live, text)
		return
	}
	for _, leg := range s.split(d) {
		if leg.usesSocket() {
			s.group(leg, live, text)
		} else {
			s.advance(leg)
		}
	}
}

// openDelivery makes one that is held: in flight, and of the slice until it is settled or parked.
func (s *State) openDelivery(w *walk, sl *slice, user string, id domain.DeliveryID) *delivery {
	d := w.newDelivery(sl, user, id)
	d.recount = s.counts.before(user, id.Hash())
	if w.timed() {
		s.noteReadyNow(d)
	}
	if sl != nil {
		sl.open++
		w.flying++
	}
	w.open++
	s.deliveries.add(d)
	return d
}

// newDelivery is a user's, of which nothing is known yet.
func (w *walk) newDelivery(sl *slice, user string, id domain.DeliveryID) *delivery {
	return &delivery{
		id: id, request: w.request, ev: w.ev, acc: w.acc, member: user, trace: w.trace, source: w.source, walk: w, slice: sl,
	}
}

// keepAway parks what waits for the user to connect: a small record, and the user's id here.
func (s *State) keepAway(w *walk, user string, id domain.DeliveryID) {
	r := &awayRecords{id: id}
	r.fact.Reason = domain.ReasonAway
	r.kind.DeliveryDeferred = &r.fact
	r.ev.Kind = &r.kind
	r.ev.DeliveryId, r.ev.NotificationId, r.ev.UserId, r.ev.Lane = r.id[:], w.note(), user, w.ev.GetLane()
	r.ev.AtUs, r.ev.Cause = s.now.UnixMicro(), s.causedBy()
	r.parked.Broadcast, r.parked.UserId, r.parked.Phase = w.id[:], user, whisperv1.Phase_PHASE_AWAY
	s.put(Emit{Event: &r.ev, Trace: w.trace})
	s.put(Park{ID: id, Parked: &r.parked})
	w.setAway(user)
}

// awayRecords are what is written of a user who is away, in one piece: most of a broadcast's users are.
type awayRecords struct {
	ev     whisperv1.Event
	kind   whisperv1.Event_DeliveryDeferred
	fact   whisperv1.DeliveryDeferred
	parked whisperv1.Parked
	id     domain.DeliveryID
}

// scheduleUser parks what waits for the user's own time of day.
func (s *State) scheduleUser(w *walk, user string, id domain.DeliveryID, at time.Time) {
	ms := at.UnixMilli()
	why := &whisperv1.DeliveryScheduled{UntilMs: ms}
	s.emitFor(w, user, id, &whisperv1.Event{Kind: &whisperv1.Event_DeliveryScheduled{DeliveryScheduled: why}})
	s.put(Park{ID: id, Parked: &whisperv1.Parked{Broadcast: w.id[:], UserId: user, Phase: whisperv1.Phase_PHASE_SCHEDULED, DueMs: ms}})
	w.setScheduled(user, ms)
}

func (w *walk) idOf(user string) domain.DeliveryID {
	return domain.NewDeliveryID(w.id.Time(), domain.HashDelivery(w.note(), user))
}

// emitFor writes a fact about a delivery that is not held.
func (s *State) emitFor(w *walk, user string, id domain.DeliveryID, ev *whisperv1.Event) {
	ev.DeliveryId, ev.NotificationId, ev.UserId, ev.Lane = id[:], w.note(), user, w.ev.GetLane()
	ev.AtUs, ev.Cause = s.now.UnixMicro(), s.causedBy()
	s.put(Emit{Event: ev, Trace: w.trace})
}

// sharedText is what everyone of a locale gets, rendered and encoded once for a broadcast.
type sharedText struct {
	content *whisperv1.Content
	frame   []byte
}

// textsReady: the template that intake saw is here, or will never be.
func (s *State) textsReady(w *walk) bool {
	if w.acc.GetTemplate() == "" {
		return true
	}
	tmpl, gone := s.templates.of(w.acc)
	return tmpl != nil || gone
}

// sharedText is nil where the text is the user's own, or can't be rendered: then each delivery says so.
func (s *State) sharedText(w *walk, locale string) *sharedText {
	var tmpl *template.Template
	if w.acc.GetTemplate() == "" {
		locale = ""
	} else {
		if tmpl, _ = s.templates.of(w.acc); tmpl == nil {
			return nil
		}
		locale = tmpl.Locale(locale) // all who fall back to it get the same
	}
	if text, known := w.texts[locale]; known {
		return text
	}
	text := s.renderShared(w, tmpl, locale)
	w.texts[locale] = text
	return text
}

func (s *State) renderShared(w *walk, tmpl *template.Template, locale string) *sharedText {
	content := w.acc.GetContent()
	if tmpl != nil {
		if tmpl.PerUser(locale) {
			return nil
		}
		var err error
		content, _, err = tmpl.Render(template.Rendering{
			Variables: w.acc.GetVariables(), Locale: locale, Channel: domain.ChannelSocket,
			Now: s.now,
		})
		if err != nil {
			return nil
		}
	}
	frame, err := domain.NotificationFrame(w.note(), w.lane(), w.acc, content)
	if err != nil {
		return nil
	}
	return &sharedText{content: content, frame: frame}
}

// group is one record to one node: everyone there whose frame is the same.
type group struct {
	node        string
	incarnation uint64
	attempt     int32
	text        *sharedText
	users       []string
	states      []flightState // of the users
	dueMs       int64
	number      int32 // of the wave's
}

func (g *group) add(user string, state flightState, dueMs int64) {
	g.users, g.states, g.dueMs = append(g.users, user), append(g.states, state), dueMs
}

// group adds a delivery to the records of its slice.
func (s *State) group(d *delivery, live []place, text *sharedText) {
	d.content, d.variant, d.step = text.content, domain.ChannelSocket, d.socketStep()
	s.count(d)
	d.sending, d.phase = s.now, whisperv1.Phase_PHASE_SENDING
	d.nextAttempt()
	v := s.waveOf(d.walk, d.slice)
	for _, p := range live {
		d.waiting = append(d.waiting, waiting{attempt: d.attempt, node: p.node, incarnation: p.incarnation})
		v.groupOf(p, d.attempt, text).add(d.user(), noFlight, d.dueMs())
	}
	s.deliveries.scheduleIn(v, d)
}

// groupOf finds the record; a slice has a handful (nodes × locales).
func (v *wave) groupOf(p place, attempt int32, text *sharedText) *group {
	for _, g := range v.groups {
		if g.node == p.node && g.incarnation == p.incarnation && g.attempt == attempt && g.text == text {
			return g
		}
	}
	g := &group{
		node: p.node, incarnation: p.incarnation, attempt: attempt, text: text, number: int32(len(v.groups)),
		users: make([]string, 0, WalkSlice/firstShare), states: make([]flightState, 0, WalkSlice/firstShare),
	}
	v.groups = append(v.groups, g)
	return g
}

// sendGroups writes the slice's records.
func (s *State) sendGroups(w *walk) {
	if w.wave == nil {
		return
	}
	for _, g := range w.wave.groups {
		s.put(RouteTo{Node: g.node, Trace: w.trace, Route: &whisperv1.Route{
			DeliveryId: w.id[:], NotificationId: w.note(), Lane: w.ev.GetLane(), Attempt: g.attempt, Incarnation: g.incarnation,
			ExpiresAtMs: w.acc.GetExpiresAtMs(), Frame: g.text.frame, Users: g.users,
			ExplicitAck: s.explicitAck(w.acc.GetCategory()), DueMs: g.dueMs,
		}})
	}
	w.wave = nil
}
