package decide

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// retraction takes a notification back: connected users are told at once, others when they connect, as long
// as the window of duplicates knows the notification. What each socket was shown is not kept. So every recipient is told, and
// of a broadcast everyone who may have been one (see audienceRule); a client ignores an id that it does not have. Phones are
// told by push: see silentPush.
type retraction struct {
	id    domain.DeliveryID
	note  string
	lane  domain.Lane
	until time.Time
	frame []byte
	// restored: this process did not tell those who were connected.
	restored bool

	from      time.Time // since when facts may tell of it; zero: nobody here knows of it, or not yet
	scannedTo string    // the last user whom the window was asked about
	recalled  bool      // the log was read back
	asked     map[domain.DeliveryHash]askedEndpoint
}

const retractMark = "\x01retract"

// retractedUsers bounds one record to a node.
const retractedUsers = 1000

func newRetraction(note string, lane domain.Lane, at, until time.Time) *retraction {
	frame, _ := json.Marshal(map[string]string{"type": "retracted", "id": note}) // two strings always encode
	return &retraction{
		id: domain.NewDeliveryID(at, domain.HashDelivery(note, retractMark)), note: note, lane: lane, until: until,
		frame: frame,
	}
}

// retract cancels what was not sent, and tells those who may have the rest.
func (s *State) retract(in SteeringArrived) {
	note, lane := in.Event.GetNotificationId(), domain.LaneOf(in.Event.GetLane())
	r := newRetraction(note, lane, time.UnixMicro(in.Event.GetAtUs()), s.now.Add(s.policy.Window))
	s.knownSince(r)
	s.put(Steered{
		Command: "retract", Notification: note,
		Known: s.cancelHeld(note, in.Event.GetRetractRequested().GetRequest(), in.Event.GetAtUs(), in.Source),
	})
	if known := s.retractions.get(note); known != nil {
		if known.restored && s.now.Before(known.until) { // the crash may have come before they were told
			known.restored = false
			s.tellConnected(known)
		}
		return
	}
	s.retractions.byNotification[note] = r
	s.startScan(r)
	if len(s.retractions.scans) == 1 {
		s.scanUsers() // most partitions are done with it
	}
	if slices.Contains(s.retractions.scans, r) {
		s.put(Park{ID: r.id, Parked: r.parked()})
	}
	s.tellConnected(r)
}

// knownSince looks at what is known without a user. It comes before what is held is cancelled.
func (s *State) knownSince(r *retraction) {
	if at, ok := s.dedupe.since(domain.HashDelivery(r.note, "")); ok {
		r.since(at)
	}
	w := s.broadcasts.get(r.note)
	if w != nil { // also for longer than the window
		r.since(w.id.Time())
	}
	for _, d := range s.deliveries.ofNote(r.note, w) {
		r.since(d.id.Time())
	}
}

func (r *retraction) parked() *whisperv1.Parked {
	m := &whisperv1.Retraction{
		NotificationId: r.note, Lane: r.lane.Proto(), AtMs: r.id.Time().UnixMilli(), UntilMs: r.until.UnixMilli(), Recalled: r.recalled,
	}
	if !r.from.IsZero() {
		m.FromMs = r.from.UnixMilli()
	}
	return &whisperv1.Parked{Retraction: m}
}

// tellConnected looks at everyone who is connected: some 300 ns each.
func (s *State) tellConnected(r *retraction) {
	byNode := map[place][]string{}
	to := s.audienceOf(r.note)
	for user := range s.presence.users {
		if !s.wasFor(r.note, user, to) {
			continue
		}
		for _, p := range s.presence.live(user) {
			at := place{node: p.node, incarnation: p.incarnation}
			byNode[at] = append(byNode[at], user)
		}
	}
	nodes := make([]place, 0, len(byNode))
	for at := range byNode {
		nodes = append(nodes, at)
	}
	slices.SortFunc(nodes, func(a, b place) int { return compareNodes(a, b) })
	for _, at := range nodes {
		slices.Sort(byNode[at])
		for users := range slices.Chunk(byNode[at], retractedUsers) {
			s.put(RouteTo{Node: at.node, Route: s.retractRoute(r, at, "", users)})
		}
	}
}

func compareNodes(a, b place) int {
	switch {
	case a.node < b.node:
		return -1
	case a.node > b.node:
		return 1
	default:
		return cmp.Compare(a.incarnation, b.incarnation)
	}
}

// retractRoute names no time of a delivery: of several requests with one id, all are taken back.
func (s *State) retractRoute(r *retraction, at place, session string, users []string) *whisperv1.Route {
	timeless := domain.NewDeliveryID(time.UnixMilli(0), domain.HashDelivery(r.note, ""))
	return &whisperv1.Route{
		DeliveryId: timeless[:], NotificationId: r.note, Lane: r.lane.Proto(), Incarnation: at.incarnation, Session: session,
		ExpiresAtMs: r.until.UnixMilli(), Frame: r.frame, Users: users, Retract: true,
	}
}

// tellOpened tells a new session of what was taken back.
func (s *State) tellOpened(user string, opened place) {
	notes := make([]string, 0, len(s.retractions.byNotification))
	for note, r := range s.retractions.byNotification {
		if s.now.Before(r.until) && s.wasFor(note, user, s.audienceOf(note)) {
			notes = append(notes, note)
		}
	}
	slices.Sort(notes)
	for _, note := range notes {
		s.put(RouteTo{Node: opened.node, User: user, Route: s.retractRoute(s.retractions.get(note), opened, opened.latest, []string{user})})
	}
}

// wasFor: the user was a recipient, or may have been one of a broadcast.
func (s *State) wasFor(note, user string, to audience) bool {
	if _, ok := s.dedupe.since(domain.HashDelivery(note, user)); ok {
		return true
	}
	return to.has(s.users, user)
}

// forgetRetractions drops those whose notification nobody remembers.
func (s *State) forgetRetractions() {
	for note, r := range s.retractions.byNotification {
		if !s.now.Before(r.until) {
			delete(s.retractions.byNotification, note)
			s.put(Unpark{ID: r.id})
		}
	}
}

func (s *State) restoreRetraction(p *whisperv1.Parked) {
	m := p.GetRetraction()
	r := newRetraction(m.GetNotificationId(), domain.LaneOf(m.GetLane()), time.UnixMilli(m.GetAtMs()), time.UnixMilli(m.GetUntilMs()))
	r.restored, r.recalled = true, m.GetRecalled()
	if ms := m.GetFromMs(); ms > 0 {
		r.from = time.UnixMilli(ms)
	}
	s.retractions.byNotification[r.note] = r
}
