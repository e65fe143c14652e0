package decide

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/localtime"
	"github.com/klivvr/whisper/domain/users"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// Policy holds the settings that decisions depend on. It is taken whole, so a field that is 0 means 0,
// where its comment names no default.
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
	// Window is how long another request with a known id counts as a duplicate.
	Window time.Duration
	// Slice is how many users of a broadcast's audience one step deals with at most (0: [WalkSlice]).
	Slice int
	// Due is how many deliveries that are due, or whose users connected, one step looks at (0: [DueSlice]).
	Due int
	// IndexFrom is how many deliveries a user may have before they are indexed; fewer are looked through one by one (0: 64).
	IndexFrom int
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

func (p Policy) dueSlice() int {
	if p.Due == 0 {
		return DueSlice
	}
	return p.Due
}

func (p Policy) indexFrom() int {
	if p.IndexFrom == 0 {
		return indexFrom
	}
	return p.IndexFrom
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

	// What its topics say; each is a fold of its own, with its invariants in its file.
	users       *users.Table
	tokens      tokens      // whose device a token is
	presence    presence    // who is connected where
	templates   templates   // what is rendered
	counts      counts      // what counts against caps
	dedupe      window      // the ids that make duplicates
	deliveries  deliveries  // in flight or parked
	broadcasts  broadcasts  // what is left of them
	retractions retractions // the notifications that were retracted
	audiences   audiences   // whom broadcasts were for

	// changesAt is the last offset of whisper.changes that is in the users.
	changesAt   int64
	changesFrom int64 // see RestoreChangesFrom

	// The rules, and what the checks work with.
	categories category.Categories
	smart      bool // a category times smartly: reads are followed
	zones      localtime.Zones
	noticed    map[Notice]bool
	question   asked // of the judge at work, and its answer
	answer     verdict

	// Of a restart.
	replay   replay
	aside    *aside
	endAside []asideParked
}

// NewState returns an empty partition that is being restored: facts that arrive before [State.ReplayDone] are kept for the
// deliveries that Kafka hands out again.
func NewState(partition int32, policy Policy) *State {
	users := users.NewTable()
	return &State{
		policy:      policy,
		partition:   partition,
		users:       users,
		tokens:      newTokens(),
		presence:    newPresence(),
		templates:   newTemplates(),
		deliveries:  newDeliveries(policy.indexFrom()),
		broadcasts:  newBroadcasts(),
		retractions: newRetractions(),
		changesAt:   -1,
		dedupe:      newWindow(policy.Window),
		counts:      newCounts(users),
		noticed:     map[Notice]bool{},
		replay:      replay{},
	}
}

// Stats are sizes, for metrics.
type Stats struct{ Users, Connected, InFlight, Parked, Seen, Broadcasts, Away int }

// Sizes are how much the state holds.
type Sizes struct {
	// InFlight deliveries are out at a channel or about to be; Parked ones wait, and a restart does not forget them.
	InFlight, Parked int
	// Timers are what is to be looked at at a time.
	Timers int
	// Away are recipients of broadcasts who wait until they connect.
	Away int
}

// Sizes costs the same however much there is, but for a look at each broadcast that runs.
func (s *State) Sizes() Sizes {
	sizes := Sizes{
		InFlight: s.deliveries.inFlight(), Parked: s.deliveries.parked,
		Timers: s.deliveries.due.len() + s.deliveries.waves.len() + s.retractions.due.len(),
	}
	sizes.Away = s.broadcasts.waiting()
	return sizes
}

// Stats costs the same however much there is, but for a look at each broadcast that runs.
func (s *State) Stats() Stats {
	st := Stats{
		InFlight: s.deliveries.inFlight(), Parked: s.deliveries.parked, Users: s.users.Known, Connected: len(s.presence.users),
		Seen: len(s.dedupe.seen),
	}
	st.Broadcasts, st.Away = len(s.broadcasts.order), s.broadcasts.waiting()
	return st
}

// NextDue is when TimePassed has something to do; ok is false when nothing waits.
func (s *State) NextDue() (at time.Time, ok bool) {
	if len(s.retractions.scans) > 0 || s.deliveries.ready.any() {
		return s.now, true
	}
	at, ok = s.deliveries.next()
	if c, any := s.retractions.due.first(); any && (!ok || c.due.Before(at)) {
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

func (s *State) heldHash(h domain.DeliveryHash) bool {
	return s.deliveries.has(h) || s.broadcasts.has(h)
}
