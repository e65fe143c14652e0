package decide

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/localtime"
	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/users"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// Policy is what the decisions are made by.
type Policy struct {
	// AckTimeout is how long a client has to acknowledge before the next channel is tried.
	AckTimeout time.Duration
	// AckGrace is how long after a user left the acknowledgement of what was sent may still come.
	AckGrace time.Duration
	// HoldBack is how long a delivery may wait in memory only, holding its offset back; after it, the
	// delivery is parked. It bounds what a restart replays.
	HoldBack time.Duration
	// EndpointWait is how long a delivery that only a push can bring waits for an endpoint of its user, who has none: the
	// profile may have been written before the request, and be read after it. It is at most half of HoldBack.
	EndpointWait time.Duration
	// Retry is for attempts that failed in a way worth another one.
	Retry domain.Backoff
	// Resend is for what a socket took and nobody acknowledged.
	Resend domain.Backoff
	// Window is how long an id is told a duplicate.
	Window time.Duration
	// Slice is how many users of a broadcast one step looks at (0: [WalkSlice]).
	Slice int
	// Spread is the stretch over which what waited for the same hour (the end of quiet hours, a new day)
	// is let out.
	Spread time.Duration
}

func (p Policy) slice() int {
	if p.Slice == 0 {
		return WalkSlice
	}
	return p.Slice
}

// DefaultPolicy is for people on phones: an acknowledgement comes in seconds or not at all.
func DefaultPolicy() Policy {
	return Policy{
		AckTimeout: 10 * time.Second,
		AckGrace:   time.Second,
		HoldBack:   30 * time.Second,

		EndpointWait: 15 * time.Second,
		Retry:        domain.Backoff{Base: 2 * time.Second, Cap: 15 * time.Minute, Tries: 8},
		Resend:       domain.Backoff{Base: 30 * time.Second, Cap: 15 * time.Minute},
		Window:       24 * time.Hour,
		Spread:       15 * time.Minute,
	}
}

// State is all that dispatch knows of one user partition: a fold of its topics. It is not safe for
// concurrent use; one loop owns it. It costs, a user: the length of the id and of the encoded profile, and 30 to 50
// bytes (see Table); a delivery in flight or parked: its event (about 1 KiB with a short text) and 200 bytes.
type State struct {
	decision // the one that is being made

	policy    Policy
	partition int32

	users     *users.Table
	tokens    tokens
	presence  presence
	templates templates

	categories category.Categories
	smart      bool // a category times smartly: reads are followed
	tally      tally
	zones      localtime.Zones
	noticed    map[Notice]bool
	question   asked // of the judge at work, and its answer
	answer     verdict

	deliveries deliveries
	// changesAt is the last offset of whisper.changes that is in the users.
	changesAt   int64
	changesFrom int64 // see RestoreChangesFrom

	retractions map[string]*retraction // by notification id
	meant       []*meant               // whom broadcasts were for that came to their ends, by those
	looks       []*retraction          // of which it is being found out since when they are known
	recalls     map[domain.DeliveryHash]*recall
	recallsDue  schedule[*recall]

	walks map[string]*walk // broadcasts by notification id
	order []*walk          // by lane, then as they came
	turn  int              // whose it is among them
	// restoring are records of broadcasts, until all are there.
	restoring []*whisperv1.Parked

	seen window

	// replay is what whisper.events tells of deliveries that were in flight when the partition was last
	// let go; nil when the replay is over.
	replay map[domain.DeliveryHash]replayed

	aside    *aside
	endAside []asideParked
}

// replayed is what was told of a delivery before this State took it.
type replayed struct {
	attempt int32
	settled bool
	// Of one that goes out over several channels at once: nothing at all is left to do; an acknowledgement came over a
	// socket; providers of these channels took a push.
	ended, acked bool
	pushed       profile.ChannelMask
	note         string
	user         string
	at           time.Time // of the delivery id: whose the facts are, if the notification id was used twice
	// A socket took it at sentUS and has not acknowledged.
	socketSent bool
	sentUS     int64
}

// waits: it was put off, and nothing else is told of it.
func (r *replayed) waits() bool { return !r.settled && !r.socketSent && r.attempt == 0 }

// delivery is one in flight or parked.
type delivery struct {
	id      domain.DeliveryID
	request uint64 // fingerprint of the request's position
	ev      *whisperv1.Event
	acc     *whisperv1.DeliveryAccepted
	trace   Trace
	source  LaneOffset
	walk    *walk  // of a broadcast
	legs    *legs  // of one that goes out over several channels at once: they share it
	slice   *slice // holds the walk's cursor back; nil once parked
	parked  bool   // it is in whisper.timers, its offset is let go

	phase   whisperv1.Phase
	attempt int32
	step    int32
	tries   int32
	waiting []waiting
	// A socket took an attempt, which nobody acknowledged: that never ends it. A provider took a push.
	socketTook, pushTook bool
	doubtful             bool // an attempt's outcome is unknown; lost at a restart, after which a read may not end the retries
	// Of the pushes of this step: is one worth another try, and what did the last failure say.
	retry      bool
	lastReason string
	pushFailed bool      // no endpoint will take it
	lacking    bool      // it waits, or has waited, for an endpoint
	remake     bool      // restored with pushes that may never have been made: its next try makes them again
	pushAgain  bool      // an endpoint was registered after those that are open
	pushAfter  time.Time // a provider wants no further attempt before
	// When the attempts over the socket began that follow one another since.
	sending time.Time
	bounces int

	// What the policy said; see [asked].
	own      []string // the channels to try; nil until they are settled
	all      bool     // all of them, each by itself
	denied   profile.ChannelMask
	counted  bool
	recount  stamp // counted before a restart, and not known to be sent
	gathered bool
	timed    bool
	digest   string    // the notification that it is gathered for
	until    time.Time // held by the policy; of a digest, its window's end
	// It is due before its time, since its category has other rules.
	rulesChanged bool
	closing      bool // the digest is written, and ends this one when it comes
	// Of a broadcast: it would have begun, but for a pause; and its place in the rate, in Unix milliseconds.
	stopped bool
	place   int64
	// See due.go; Unix milliseconds, 0: nothing held it but its send_at.
	readyMs int64

	content *whisperv1.Content // rendered once for the channels that share it
	variant string             // the last channel that it serves
	due     time.Time          // what it waits for comes to an end: State.due
	slot    slot
}

type waiting struct {
	attempt     int32
	node        string
	incarnation uint64
	endpoint    string
}

// NewState is an empty partition in the state of restoring: facts seen before [State.ReplayDone] are
// kept for the deliveries that will be handed out again.
func NewState(partition int32, policy Policy) *State {
	users := users.NewTable()
	return &State{
		policy:      policy,
		partition:   partition,
		users:       users,
		tokens:      newTokens(),
		presence:    newPresence(),
		templates:   newTemplates(),
		deliveries:  newDeliveries(),
		walks:       map[string]*walk{},
		retractions: map[string]*retraction{},
		recalls:     map[domain.DeliveryHash]*recall{},
		changesAt:   -1,
		seen:        newWindow(policy.Window),
		tally:       newTally(users),
		noticed:     map[Notice]bool{},
		replay:      map[domain.DeliveryHash]replayed{},
	}
}

// RestoreUser puts a user back as whisper.users has it; nil forgets.
func (s *State) RestoreUser(user string, encoded []byte) {
	if encoded == nil {
		s.restoreReleases(user, nil)
		s.users.ForgetProfile(user)
		return
	}
	encoded, erased := s.restoreReleases(user, encoded)
	if erased {
		s.users.ForgetProfile(user)
		return
	}
	s.users.PutProfile(user, encoded)
	s.changesAt = max(s.changesAt, s.users.ProfileOf(user).Number(profile.FieldChanges))
}

// EncodedUser is what whisper.users is to have of a user; nil: nothing.
func (s *State) EncodedUser(user string) []byte {
	if encoded, ok := s.users.Profile(user); ok {
		return s.withReleases(user, []byte(encoded))
	}
	return s.withReleases(user, nil)
}

// RestoreChangesFrom says which offset of whisper.changes is read first: what was decided about earlier ones is
// acknowledged.
func (s *State) RestoreChangesFrom(offset int64) { s.changesFrom = offset }

// RestoreSeen puts a part of the window back.
func (s *State) RestoreSeen(seen ...SeenDelivery) {
	for _, d := range seen {
		s.seen.add(d)
	}
}

// RestoreParked puts a parked delivery back. It wakes with [State.Resume].
func (s *State) RestoreParked(p *whisperv1.Parked) {
	if r := p.GetRetraction(); r != nil {
		s.restoreRetraction(p)
		return
	}
	if p.GetMeant() != nil {
		s.restoreMeant(p)
		return
	}
	if p.GetRecall() != nil {
		s.restoreRecall(p)
		return
	}
	if p.GetWalk() != nil || p.GetCursor() != nil || p.GetWalkFirst() != nil || len(p.GetBroadcast()) > 0 {
		s.restoring = append(s.restoring, p)
		return
	}
	id, err := domain.DeliveryIDFromBytes(p.GetAccepted().GetDeliveryId())
	if err != nil {
		return // we never write such a record
	}
	d := &delivery{
		id:    id,
		ev:    p.GetAccepted(),
		acc:   p.GetAccepted().GetDeliveryAccepted(),
		trace: Trace{Parent: p.GetTraceparent(), State: p.GetTracestate()},
	}
	d.source = LaneOffset{Lane: d.lane(), Offset: p.GetOffset()}
	d.request = FingerprintRequest(d.acc.GetRequest())
	if s.aside.has(id, d.ev.GetNotificationId()) {
		s.restoreAside(d)
		return
	}
	s.deliveries.insert(d, nil)
	s.restoreDelivery(d, p)
	s.seen.add(s.remembered(d))
}

// restoreDelivery puts d, which is held, where it stood.
func (s *State) restoreDelivery(d *delivery, p *whisperv1.Parked) {
	s.busy = busy{delivery: d}
	d.all = p.GetAllChannels()
	if len(p.GetLegs()) > 0 {
		s.restoreLegs(d, p)
	} else {
		s.restoreOne(d, p)
	}
	s.busy = busy{}
}

func (s *State) restoreOne(d *delivery, p *whisperv1.Parked) {
	s.deliveries.park(d)
	d.phase = p.GetPhase()
	d.attempt, d.step, d.tries = p.GetAttempt(), p.GetStep(), p.GetTries()
	s.restoreAttempts(d, p)
	s.restorePolicy(d, p)
	s.deliveries.schedule(d, time.UnixMilli(p.GetDueMs()))
	if p.GetDueMs() == 0 {
		s.deliveries.schedule(d, d.expires())
	}
}

// Resume goes on with what was parked, once everything is restored: users who are connected get what
// waited for them.
func (s *State) Resume(now time.Time) []Output {
	s.begin(now, nil)
	s.out = append(s.out, s.tokens.due...)
	s.tokens.due = nil
	s.releaseAgain(s.changesFrom)
	s.seen.forget(now)
	s.users.Sort() // or the first broadcast would, in all partitions at once, and alerts wait
	s.endsAside()
	for _, d := range s.deliveries.sorted(func(d *delivery) bool { return d.parked }) {
		s.busy = busy{delivery: d}
		if s.wakeable(d) && len(s.presence.live(d.user())) > 0 {
			s.sendFromSocket(d)
		}
	}
	for _, w := range s.order {
		s.busy = busy{walk: w}
		if !w.paused && !w.ending {
			s.wakeAll(w)
		}
	}
	s.busy = busy{}
	s.resumeRecalls()
	s.tidyWalks()
	return s.out
}

// ReplayDone ends the restore: every record that was in flight has been handed out again.
func (s *State) ReplayDone() {
	s.keepForWalks()
	s.replay = nil
	s.keepCounts()
}

// ReplayHeld: facts from before the restart are still to be used, so their offset can't be let go.
func (s *State) ReplayHeld() bool {
	return slices.ContainsFunc(s.order, func(w *walk) bool { return len(w.replay) > 0 })
}

// Stats are sizes, for metrics.
type Stats struct{ Users, Connected, InFlight, Parked, Seen, Broadcasts, Away int }

// Sizes are how much the state holds.
type Sizes struct {
	// InFlight deliveries are out at a channel or about to be; Parked ones wait, and a restart does not forget them.
	InFlight, Parked int
	// Timers are what is to be looked at at a time.
	Timers int
	// Away are recipients of broadcasts who wait to be there.
	Away int
}

// Sizes costs the same however much there is, but for a look at each broadcast that runs.
func (s *State) Sizes() Sizes {
	sizes := Sizes{InFlight: s.deliveries.inFlight(), Parked: s.deliveries.parked, Timers: s.deliveries.due.len() + s.recallsDue.len()}
	for _, w := range s.order {
		sizes.Away += len(w.away) + len(w.later)
	}
	return sizes
}

// Stats costs the same however much there is, but for a look at each broadcast that runs.
func (s *State) Stats() Stats {
	st := Stats{InFlight: s.deliveries.inFlight(), Parked: s.deliveries.parked, Users: s.users.Known, Connected: len(s.presence.users), Seen: len(s.seen.seen)}
	for _, w := range s.order {
		st.Broadcasts++
		st.Away += len(w.away) + len(w.later)
	}
	return st
}

// NextDue is when TimePassed has something to do; ok is false when nothing waits.
func (s *State) NextDue() (at time.Time, ok bool) {
	if len(s.looks) > 0 {
		return s.now, true
	}
	if d, any := s.deliveries.due.first(); any {
		at, ok = d.due, true
	}
	if c, any := s.recallsDue.first(); any && (!ok || c.due.Before(at)) {
		at, ok = c.due, true
	}
	return at, ok
}

// profile decodes a user; nil when there is none.
func (s *State) profile(user string) *whisperv1.Profile {
	encoded, ok := s.users.Profile(user)
	if !ok {
		return nil
	}
	p := &whisperv1.Profile{}
	if err := proto.Unmarshal([]byte(encoded), p); err != nil {
		return nil // we wrote it; a version that can't read it treats the user as unknown
	}
	return p
}

func (d *delivery) dueAt() time.Time        { return d.due }
func (d *delivery) setDue(at time.Time)     { d.due = at }
func (d *delivery) compare(o *delivery) int { return compareArrival(d, o) }
func (d *delivery) scheduleSlot() *slot     { return &d.slot }

func (d *delivery) user() string               { return d.ev.GetUserId() }
func (d *delivery) lane() domain.Lane          { return domain.LaneOf(d.ev.GetLane()) }
func (d *delivery) expires() time.Time         { return time.UnixMilli(d.acc.GetExpiresAtMs()) }
func (d *delivery) expired(now time.Time) bool { return !now.Before(d.expires()) }

// usesSocket says whether the request allows a socket at all.
func (d *delivery) usesSocket() bool {
	return !d.denied.Has(domain.ChannelSocket) && slices.Contains(d.channels(), domain.ChannelSocket)
}

// channels are those to try, in order.
func (d *delivery) channels() []string {
	if d.own != nil {
		return d.own
	}
	return d.acc.GetChannels()
}

func (s *State) heldHash(h domain.DeliveryHash) bool {
	return s.deliveries.get(h) != nil || slices.ContainsFunc(s.order, func(w *walk) bool { return w.id.Hash() == h })
}

// remembered is what the window knows of d, which is taken up now.
func (s *State) remembered(d *delivery) SeenDelivery {
	return SeenDelivery{
		Hash:       d.id.Hash(),
		Request:    d.request,
		AcceptedMs: d.id.Time().UnixMilli(),
		TakenMs:    s.now.UnixMilli(),
		KeepMs:     d.acc.GetExpiresAtMs(),
	}
}
