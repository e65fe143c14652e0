package dispatch

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// world is everything around one partition, held in memory: the logs, two gateways, a push provider and
// the clock. A dispatch that crashes is made anew from the logs alone.
type world struct {
	t   *rapid.T
	now time.Time

	lanes     [3][]*whisperv1.Event
	events    []*whisperv1.Event
	timers    map[string]*whisperv1.Parked
	seen      []decide.SeenDelivery
	profiles  map[string][]byte
	presence  map[string]*whisperv1.Presence // user \x00 node
	committed offsets
	counts    []simCount // as whisper.counters has them
	policy    *simPolicy // nil: everything goes out
	phones    simPhones
	templates simTemplates
	owed      map[string]simOwed // of this process
	attempted map[string]bool    // over a socket, by this process
	pushed    map[string]bool    // of any
	allDigest bool               // of a world with categories: digests go to all channels
	opened    map[string]string  // the last session that dispatch was told of, by user \x00 node

	alive    map[string]uint64          // node → incarnation; what it is now
	sessions map[string]map[string]bool // node → user → connected
	told     map[string]uint64          // what dispatch was told of nodes
	routes   []routed
	pushes   []*whisperv1.Push
	serial   uint64
	requests int64
	asked    map[string]int // notification/user → how often

	casts      map[string]*whisperv1.Event // broadcasts asked for
	tombstones []domain.DeliveryID
	marks      []decide.ParkAfter
	remember   []decide.SeenDelivery
	recalls    []simRecall
	silent     map[simShown]int // pushes that take back
	walks      *walks
	slices     int
	connected  bool // every broadcast is for those who are

	state       *decide.State
	ledgers     [3]*ledger
	taken       [3]int64
	eventsAt    int64
	eventsStart int64
	laneEnds    [3]int64
	presenceAt  []decide.PresenceChanged // not yet told
	crashAfter  int                      // outputs still written before the crash; -1: no crash
	crashed     bool
	ended       map[string]bool // by the facts that were there at the last restore

	resumed bool // all feedback was read
	few     int  // how many deliveries are few: of a user, and of those that one step looks at; 0: as many as by default

	broken map[domain.DeliveryID]bool // what a decision meets a bug with
	aside  []domain.DeliveryID        // and of these, what is known
	bug    bool                       // a restore met one
}

type routed struct {
	node string
	user string
	r    *whisperv1.Route
}

var (
	simUsers = []string{"mona", "omar", "nour"}
	simNodes = []string{"n1", "n2"}
	simTTL   = 10 * time.Minute
	// By the length of the notification's id.
	simChannels = [][]string{{domain.ChannelSocket, domain.ChannelPush}, {domain.ChannelPush, domain.ChannelSocket}, {domain.ChannelPush}, {domain.ChannelSocket}}
)

func simID(n int) string { return "pay" + strings.Repeat("-", n) }

func newWorld(t *rapid.T) *world {
	w := &world{
		t: t, now: time.UnixMilli(1_700_000_000_000),
		timers: map[string]*whisperv1.Parked{}, profiles: map[string][]byte{}, presence: map[string]*whisperv1.Presence{},
		alive: map[string]uint64{}, sessions: map[string]map[string]bool{}, told: map[string]uint64{}, asked: map[string]int{},
		crashAfter: -1, casts: map[string]*whisperv1.Event{}, silent: map[simShown]int{},
		phones: simPhones{tried: map[string]int{}}, broken: map[domain.DeliveryID]bool{}, pushed: map[string]bool{},
		few: rapid.SampledFrom([]int{0, 0, 1, 2}).Draw(t, "few deliveries"),
	}
	for i, user := range simUsers[:2] { // nour has no endpoint
		p := &whisperv1.Profile{}
		for e := range i + 1 {
			p.Endpoints = append(p.Endpoints, &whisperv1.Endpoint{Name: fmt.Sprint("phone", e), Channel: domain.ChannelAPNs, Token: "t", App: "a"})
		}
		w.profiles[user], _ = proto.Marshal(p)
	}
	for _, node := range simNodes {
		w.startNode(node)
	}
	w.restore()
	return w
}

func (w *world) startNode(node string) {
	w.serial++
	w.alive[node] = w.serial
	w.sessions[node] = map[string]bool{}
}

// restore makes a dispatch from the logs, and again while it meets bugs.
func (w *world) restore() {
	for w.bug = true; w.bug; {
		w.bug = false
		w.contain(w.restoreOnce)
	}
}

// restoreOnce is what restore.go does.
func (w *world) restoreOnce() {
	w.crashed, w.crashAfter, w.resumed = false, -1, false
	w.phones.told = w.phones.committed
	policy := decide.DefaultPolicy()
	policy.Slice = []int{1, 2, 16}[w.requests%3] // another one may be set after a restart
	policy.IndexFrom, policy.Due = w.few, w.few
	w.state = decide.NewState(0, policy)
	w.state.SetAside(decide.Aside{IDs: w.aside})
	w.walks, w.tombstones, w.marks, w.remember, w.recalls = newWalks(), nil, nil, nil, nil
	for user, encoded := range w.profiles {
		w.state.RestoreUser(user, encoded)
	}
	w.state.RestoreSeen(w.seen...)
	w.restorePolicy()
	for _, key := range sortedKeys(w.timers) {
		w.state.RestoreParked(proto.CloneOf(w.timers[key]))
	}
	w.ended, w.owed, w.attempted = map[string]bool{}, map[string]simOwed{}, map[string]bool{}
	for _, ev := range w.events {
		w.noteEnd(ev)
	}
	w.eventsAt, w.eventsStart = w.committed.events, w.committed.events
	for lane := range w.ledgers {
		w.ledgers[lane] = newLedger()
		w.laneEnds[lane] = int64(len(w.lanes[lane]))
		w.taken[lane] = w.committed.lanes[lane]
	}
	w.tellTemplate()
	end := int64(len(w.events))
	for w.eventsAt < end && !w.crashed {
		w.feedEvent()
	}
	w.presenceAt, w.opened, w.told = nil, map[string]string{}, map[string]uint64{}
	for _, p := range w.presence {
		w.decide(decide.PresenceChanged{User: p.GetUserId(), Node: p.GetNode(), Presence: p})
	}
	w.tellNodes()
	if !w.crashed {
		w.write(w.state.Resume(w.now))
		w.resumed = true
		w.passTurns()
	}
	w.replayed()
}

// replayed is partition.replayed.
func (w *world) replayed() {
	for lane, end := range w.laneEnds {
		if w.taken[lane] < end {
			return
		}
	}
	w.state.ReplayDone()
}

// decide writes what is decided, unless the process dies in the middle of it.
func (w *world) decide(in decide.Input) {
	if w.crashed {
		return
	}
	routed, pushed := len(w.routes), len(w.pushes)
	open, away := w.openFor(in), w.awayFor(in)
	w.contain(func() { w.write(w.state.Decide(in, w.now)) })
	w.passTurns()
	if st, sizes := w.state.Stats(), w.state.Sizes(); st.InFlight != sizes.InFlight || st.Parked != sizes.Parked || st.Away != sizes.Away {
		w.t.Fatalf("sizes %+v, counted %+v", sizes, st)
	}
	w.checkOrder(w.routes[routed:])
	w.checkAllGetIt(in, w.routes[routed:])
	w.checkWoken(in, open, w.routes[routed:])
	w.checkPushed(away, w.pushes[pushed:])
}

// passTurns lets those who wait for their turn have it, as the loop does at once: what may go may be more than one step looks at.
func (w *world) passTurns() {
	if w.few == 0 || !w.resumed {
		return
	}
	for steps := 0; ; steps++ {
		due, any := w.state.NextDue()
		switch {
		case !any || due.After(w.now) || w.crashed:
			return
		case steps > 10_000:
			w.t.Fatalf("there is always something due: %+v", w.state.Stats())
		}
		w.contain(func() { w.write(w.state.Decide(decide.TimePassed{}, w.now)) })
	}
}

func (w *world) write(outputs []decide.Output) {
	for _, o := range outputs {
		if w.crashAfter == 0 {
			w.crashed = true
			return
		}
		if w.crashAfter > 0 {
			w.crashAfter--
		}
		switch o := o.(type) {
		case decide.Reject:
			w.t.Fatalf("rejected: %v", o.Reason)
		case decide.Emit:
			w.checkFact(o.Event)
			w.events = append(w.events, proto.CloneOf(o.Event))
		case decide.SliceTaken:
			from := w.eventsAt
			if o.Replays {
				from = w.eventsStart
			}
			w.walks.take(o, from)
		case decide.Advanced:
			o.Cursor = proto.CloneOf(o.Cursor)
			w.walks.advance(o)
		case decide.Finished:
			delete(w.walks.cursors, o.Broadcast)
			delete(w.walks.open, o.Broadcast)
			w.tombstones = append(append(w.tombstones, o.Broadcast, o.CursorID), o.FirstIDs...)
		case decide.Steered:
		case decide.RouteTo:
			if o.Route.GetExpiresAtMs() <= w.now.UnixMilli() {
				w.t.Fatalf("routed after its expiry: %v", o.Route)
			}
			if o.Route.GetRetract() { // clients are told; nothing comes of it here
				continue
			}
			if !strings.Contains(string(o.Route.GetFrame()), `"body":"b"`) {
				w.t.Fatalf("routed without its content: %s", o.Route.GetFrame())
			}
			w.route(o)
		case decide.Notice:
		case decide.Count:
			w.counts = append(w.counts, simCount{count: o})
		case decide.Uncount:
			w.counts = append(w.counts, simCount{erased: o.User})
		case decide.Deliver:
			lane := domain.LaneOf(o.Event.GetLane())
			w.lanes[lane] = append(w.lanes[lane], proto.CloneOf(o.Event))
		case decide.PushTo:
			if o.Push.GetExpiresAtMs() <= w.now.UnixMilli() {
				w.t.Fatalf("pushed after its expiry: %v", o.Push)
			}
			if o.Push.GetRetract() {
				w.takeBack(o.Push)
				continue
			}
			if w.ended[string(o.Push.GetDeliveryId())] || w.ended[string(o.Push.GetDeliveryId())+domain.ChannelPush] {
				w.t.Fatalf("pushed again, though the facts said before the restart that it ended: %v", o.Push)
			}
			if o.Push.GetContent().GetBody() != "b" {
				w.t.Fatalf("pushed without its content: %v", o.Push)
			}
			w.checkSend(o.Push.GetNotificationId(), o.Push.GetUserId())
			w.checkBegun(o.Push.GetNotificationId(), o.Push.GetUserId(), o.Push.GetAttempt())
			w.phones.tried[string(o.Push.GetDeliveryId())] = len(w.events)
			w.pushed[string(o.Push.GetDeliveryId())] = true
			delete(w.owed, string(o.Push.GetDeliveryId()))
			w.pushes = append(w.pushes, proto.CloneOf(o.Push))
		case decide.Park:
			w.timers[string(o.ID[:])] = proto.CloneOf(o.Parked)
		case decide.ParkAfter:
			w.marks = append(w.marks, decide.ParkAfter{ID: o.ID, Parked: proto.CloneOf(o.Parked)})
		case decide.Recall:
			w.recall(o)
		case decide.Unpark:
			w.tombstones = append(w.tombstones, o.ID)
		case decide.PutPresence: // the log of presence is not played here
		case decide.PutUser:
			if o.Profile == nil {
				delete(w.profiles, o.User)
				continue
			}
			w.profiles[o.User], _ = proto.Marshal(o.Profile)
		case decide.PutClaim, decide.TokenMoved, decide.Releasing: // of other partitions; see domain's TestADeviceHasOneOwner
		case decide.Settle:
			w.ledgers[o.Source.Lane].settle(o.Source.Offset, o.Seen)
		case decide.Remember:
			w.remember = append(w.remember, o.Seen)
		}
	}
}

// route takes a route apart as a gateway does: each user has a delivery.
func (w *world) route(o decide.RouteTo) {
	for _, user := range append(o.Route.GetUsers(), o.User) {
		if user == "" {
			continue
		}
		r := proto.CloneOf(o.Route)
		if len(o.Route.GetUsers()) > 0 {
			id := domain.NewDeliveryID(domain.DeliveryID(r.GetDeliveryId()).Time(), domain.HashDelivery(r.GetNotificationId(), user))
			r.DeliveryId = id[:]
		}
		if w.ended[string(r.GetDeliveryId())] || w.ended[string(r.GetDeliveryId())+domain.ChannelSocket] {
			w.t.Fatalf("routed again, though the facts said before the restart that it ended: %v", r)
		}
		w.checkSend(r.GetNotificationId(), user)
		w.checkBegun(r.GetNotificationId(), user, r.GetAttempt())
		w.phones.tried[string(r.GetDeliveryId())] = len(w.events)
		w.routes = append(w.routes, routed{o.Node, user, r})
	}
}

// commit is partition.seal and partition.commit with a broker that acknowledges at once; the process may
// die between the window's record and the offsets.
func (w *world) commit(die int) {
	o := offsets{events: w.eventsAt}
	cursors, from := w.walks.seal()
	for _, id := range sortedIDs(cursors) {
		if ev := w.state.Progress(id); ev != nil {
			w.events = append(w.events, proto.CloneOf(ev))
		}
	}
	if from >= 0 {
		o.events = min(o.events, from)
	}
	if w.state.ReplayHeld() {
		o.events = w.eventsStart
	}
	var seen []decide.SeenDelivery
	for lane, l := range w.ledgers {
		var next, from int64
		seen, next, from = l.advance(seen)
		o.lanes[lane] = max(next, w.committed.lanes[lane])
		if from >= 0 {
			o.events = min(o.events, from)
		}
	}
	for lane, end := range w.laneEnds {
		if w.taken[lane] < end { // as partition.replayed
			o.events = w.eventsStart
		}
	}
	if die == 1 {
		return
	}
	for _, id := range sortedIDs(cursors) {
		a := cursors[id]
		w.timers[string(a.CursorID[:])] = a.Cursor
		for _, id := range a.FirstIDs {
			delete(w.timers, string(id[:]))
		}
	}
	for _, mark := range w.marks {
		w.timers[string(mark.ID[:])] = mark.Parked
	}
	w.marks = nil
	for _, id := range w.tombstones {
		delete(w.timers, string(id[:]))
	}
	w.tombstones = nil
	w.seen = append(append(w.seen, w.remember...), seen...)
	w.remember = nil
	w.checkFirst()
	if die != 2 {
		w.committed, w.phones.committed = o, w.phones.told
	}
}

func (w *world) feedEvent() {
	if w.eventsAt >= int64(len(w.events)) {
		return
	}
	ev := w.events[w.eventsAt]
	w.eventsAt++
	w.decide(w.factInput(ev))
}

// factInput is what the feed makes of a fact.
func (w *world) factInput(ev *whisperv1.Event) decide.Input {
	value, err := proto.Marshal(ev)
	if err != nil {
		w.t.Fatal(err)
	}
	return (&feed{queue: queueEvents, part: &partition{}}).decode(&kgo.Record{Topic: consumers.TopicEvents, Offset: w.eventsAt, Value: value}).input
}

func (w *world) feedLane(lane int) {
	if w.taken[lane] >= int64(len(w.lanes[lane])) {
		return
	}
	at := w.taken[lane]
	w.taken[lane]++
	defer w.replayed()
	// As in partition.take: feedback of what is replayed may be older than this process.
	w.ledgers[lane].take(at, w.eventsStart)
	source := decide.LaneOffset{Lane: domain.Lane(lane), Offset: at}
	ev := proto.CloneOf(w.lanes[lane][at])
	switch ev.GetKind().(type) {
	case *whisperv1.Event_CancelRequested:
		w.decide(decide.CancelArrived{Event: ev, Source: source})
	case *whisperv1.Event_BroadcastAccepted:
		w.decide(decide.BroadcastArrived{Event: ev, Source: source})
	case *whisperv1.Event_PauseRequested, *whisperv1.Event_ResumeRequested, *whisperv1.Event_RetractRequested:
		w.decide(decide.SteeringArrived{Event: ev, Source: source})
	default:
		w.decide(decide.DeliveryArrived{Event: ev, Source: source})
	}
	w.replayed()
}

func (w *world) tellNodes() {
	for _, node := range simNodes {
		if w.told[node] != w.alive[node] {
			w.told[node] = w.alive[node]
			w.decide(decide.NodeChanged{Node: node, Incarnation: w.alive[node]})
		}
	}
}

// ask is upstream and intake: the same notification may be asked for twice, and intake may repeat itself.
func (w *world) ask(lane int, notification, user string, redelivered bool) {
	if !redelivered {
		w.requests++
		w.asked[notification+"/"+user]++
	}
	w.now = w.now.Add(time.Millisecond)
	id := domain.NewDeliveryID(w.now, domain.HashDelivery(notification, user))
	w.lanes[lane] = append(w.lanes[lane], &whisperv1.Event{
		DeliveryId: id[:], NotificationId: notification, UserId: user, Lane: domain.Lane(lane).Proto(),
		Kind: &whisperv1.Event_DeliveryAccepted{DeliveryAccepted: &whisperv1.DeliveryAccepted{
			Category: w.categoryOf(notification), CollapseKey: w.collapseKeyOf(notification), ChannelsDefault: w.toAll(notification),
			Channels: simChannels[len(notification)%len(simChannels)], Content: &whisperv1.Content{Body: "b"},
			AcceptedAtMs: w.now.UnixMilli(), ExpiresAtMs: w.now.Add(w.ttl()).UnixMilli(),
			Request: &whisperv1.Position{Topic: "r", Offset: w.requests}, Recipients: 1,
		}},
	})
}

func (w *world) setPresence(node, user string, connected bool) {
	w.serial++
	key := user + "\x00" + node
	in := decide.PresenceChanged{User: user, Node: node, Incarnation: w.alive[node]}
	if connected {
		w.sessions[node][user] = true
		in.Presence = &whisperv1.Presence{
			UserId: user, Node: node, Incarnation: w.alive[node], Sessions: 1,
			LatestSession: fmt.Sprint(w.serial), AtUs: w.now.UnixMicro(),
		}
		w.presence[key] = in.Presence
	} else {
		delete(w.sessions[node], user)
		delete(w.presence, key)
	}
	w.presenceAt = append(w.presenceAt, in)
}

func (w *world) fact(r routed, ev *whisperv1.Event) {
	ev.DeliveryId, ev.NotificationId, ev.UserId, ev.AtUs = r.r.GetDeliveryId(), r.r.GetNotificationId(), r.user, w.now.UnixMicro()
	w.events = append(w.events, ev)
}

// gateway takes one route.
func (w *world) gateway(ack bool) {
	if len(w.routes) == 0 {
		return
	}
	r := w.routes[0]
	w.routes = w.routes[1:]
	if r.r.GetIncarnation() != w.alive[r.node] || !w.sessions[r.node][r.user] {
		w.fact(r, &whisperv1.Event{Kind: &whisperv1.Event_AttemptFailed{AttemptFailed: &whisperv1.AttemptFailed{
			Attempt: r.r.GetAttempt(), Channel: domain.ChannelSocket, Node: r.node, Incarnation: r.r.GetIncarnation(),
			Class: whisperv1.FailureClass_FAILURE_CLASS_UNREACHABLE,
		}}})
		return
	}
	if r.r.GetExpiresAtMs() <= w.now.UnixMilli() {
		return
	}
	w.fact(r, &whisperv1.Event{Kind: &whisperv1.Event_DeliverySent{DeliverySent: &whisperv1.DeliverySent{
		Attempt: r.r.GetAttempt(), Channel: domain.ChannelSocket, Node: r.node,
	}}})
	if ack {
		w.fact(r, &whisperv1.Event{Kind: &whisperv1.Event_DeliveryDelivered{DeliveryDelivered: &whisperv1.DeliveryDelivered{
			Attempt: r.r.GetAttempt(), Channel: domain.ChannelSocket, Node: r.node,
		}}})
	}
}

// push answers one attempt.
func (w *world) push(class whisperv1.FailureClass) {
	if len(w.pushes) == 0 {
		return
	}
	p := w.pushes[0]
	w.pushes = w.pushes[1:]
	ev := &whisperv1.Event{DeliveryId: p.GetDeliveryId(), NotificationId: p.GetNotificationId(), UserId: p.GetUserId(), AtUs: w.now.UnixMicro()}
	if p.GetRetract() {
		w.answerSilent(p, ev, class)
	} else if class == whisperv1.FailureClass_FAILURE_CLASS_UNSPECIFIED {
		ev.Kind = &whisperv1.Event_DeliverySent{DeliverySent: &whisperv1.DeliverySent{Attempt: p.GetAttempt(), Channel: p.GetChannel(), Endpoint: p.GetEndpoint()}}
	} else {
		ev.Kind = &whisperv1.Event_AttemptFailed{AttemptFailed: &whisperv1.AttemptFailed{
			Attempt: p.GetAttempt(), Channel: p.GetChannel(), Endpoint: p.GetEndpoint(), Class: class,
		}}
	}
	w.events = append(w.events, ev)
}

// simClasses is what a push comes to: 0, it is taken.
var simClasses = []whisperv1.FailureClass{
	whisperv1.FailureClass_FAILURE_CLASS_UNSPECIFIED, whisperv1.FailureClass_FAILURE_CLASS_UNSPECIFIED, whisperv1.FailureClass_FAILURE_CLASS_RETRY,
	whisperv1.FailureClass_FAILURE_CLASS_DROP, whisperv1.FailureClass_FAILURE_CLASS_PRUNE, whisperv1.FailureClass_FAILURE_CLASS_STOP,
	whisperv1.FailureClass_FAILURE_CLASS_UNKNOWN, whisperv1.FailureClass_FAILURE_CLASS_EXPIRED,
}

// lostPushes: the push role is gone, and nobody answers.
const lostPushes = -1

// lastPush answers one attempt as all are in the end; silent ones are taken.
func (w *world) lastPush(answer whisperv1.FailureClass) {
	switch {
	case len(w.pushes) == 0:
	case w.pushes[0].GetRetract():
		w.push(whisperv1.FailureClass_FAILURE_CLASS_UNSPECIFIED)
	case answer == lostPushes:
		w.pushes = w.pushes[1:]
	default:
		w.push(answer)
	}
}

// settleAll lets everything run to its end: time passes until nothing waits. Providers give one answer to everything, or
// none.
func (w *world) settleAll() {
	answer := rapid.SampledFrom(append([]whisperv1.FailureClass{lostPushes}, simClasses...)).Draw(w.t, "providers in the end")
	if w.crashed {
		w.restore()
	}
	w.crashAfter = -1
	for range 400 {
		if w.crashed { // by a bug
			w.restore()
		}
		w.tellNodes()
		for _, in := range w.presenceAt {
			w.decide(in)
		}
		w.presenceAt = nil
		w.readTemplates()
		w.register()
		for lane := range w.lanes {
			w.feedLane(lane)
		}
		w.gateway(false)
		for range 3 {
			w.lastPush(answer)
		}
		w.readBack(20)
		for range 4 {
			w.feedEvent()
		}
		w.walk()
		w.now = w.now.Add(5 * time.Second)
		w.now = w.now.Add(w.ttl() / 120) // three times as long as anything may wait
		w.decide(decide.TimePassed{})
	}
	w.commit(0)
	for w.eventsAt < int64(len(w.events)) {
		w.feedEvent()
	}
	w.commit(0)
}

func (w *world) check() {
	status := map[string]domain.Status{}
	ends := map[string]int{}
	over := map[string]bool{}
	reached := map[string]bool{}
	duplicates := map[string]map[int64]bool{}
	for _, lane := range w.lanes {
		for _, ev := range lane {
			if ev.GetDeliveryAccepted() != nil {
				status[ev.GetNotificationId()+"/"+ev.GetUserId()] = domain.Accepted
			}
		}
	}
	for _, ev := range w.events {
		key := ev.GetNotificationId() + "/" + ev.GetUserId()
		reached[key] = reached[key] || mayHaveReached(ev)
		if s, ok := domain.StatusOf(ev); ok && (reached[key] || !unprovenRead(ev)) { // what a client made up is no end
			status[key] = status[key].Then(s)
		}
		over[key] = over[key] || endedBy(ev)
		if d := ev.GetDuplicateDropped(); d != nil {
			if duplicates[key] == nil {
				duplicates[key] = map[int64]bool{}
			}
			duplicates[key][d.GetRequest().GetOffset()] = true
		}
		switch ev.GetKind().(type) {
		case *whisperv1.Event_DeliveryExpired, *whisperv1.Event_DeliveryFailed, *whisperv1.Event_DeliverySuppressed, *whisperv1.Event_DeliveryCancelled:
			ends[key]++
		}
	}
	w.checkDigests()
	w.checkBroadcasts(duplicates)
	for key, s := range status { // digests are asked for by nobody
		if (s.Pending() || !over[key]) && w.asked[key] == 0 {
			w.t.Errorf("%s never ended: it is %s", key, s)
		}
	}
	for key, asked := range w.asked {
		opened := !w.broadcastHas(key, duplicates[key])
		if opened && (status[key].Pending() || !over[key]) {
			w.t.Errorf("%s never ended: it is %s", key, status[key])
		}
		got := w.direct(duplicates[key])
		if opened {
			got++
		}
		if got != asked {
			w.t.Errorf("%s: asked for %d times, accounted for %d", key, asked, got)
		}
	}
	w.checkTakenBack()
	w.checkRetractions()
	if len(w.timers) > 0 {
		w.t.Errorf("%d deliveries are still parked: %v", len(w.timers), w.timers)
	}
	for lane := range w.lanes {
		if w.committed.lanes[lane] != int64(len(w.lanes[lane])) {
			w.t.Errorf("lane %d is committed up to %d of %d", lane, w.committed.lanes[lane], len(w.lanes[lane]))
		}
	}
	if st := w.state.Stats(); st.InFlight+st.Parked+st.Broadcasts+st.Away > 0 {
		w.t.Errorf("still held: %+v", st)
	}
}

// TestFeedbackOutlivesARestart: the second of two deliveries is acknowledged, the first is still open.
// The events that say so must be read again after a restart, or the second would be sent again.
func TestFeedbackOutlivesARestart(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.setPresence("n1", "mona", true)
		w.decide(w.presenceAt[0])
		w.presenceAt = nil
		w.ask(0, "first", "mona", false)
		w.ask(0, "second", "mona", false)
		w.feedLane(0)
		w.feedLane(0)
		w.gateway(false)
		w.gateway(true)
		for range 5 {
			w.feedEvent()
		}
		w.commit(0)
		w.restore()
		w.settleAll()
		w.check()
	})
}

// TestAnyInterleavingSettlesEveryDeliveryOnce: whatever happens in whatever order, with redeliveries,
// nodes that die and dispatch dying between any two records it writes, every delivery comes to an end,
// every request is accounted for, and nothing is sent after its time.
func TestAnyInterleavingSettlesEveryDeliveryOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		user := rapid.SampledFrom(simUsers)
		node := rapid.SampledFrom(simNodes)
		lane := rapid.IntRange(0, 2)
		actions := map[string]func(*rapid.T){
			"ask": func(t *rapid.T) {
				id := rapid.IntRange(0, 5).Draw(t, "notification")
				w.ask(id%3, simID(id), user.Draw(t, "user"), false)
			},
			"ask with a template": func(t *rapid.T) {
				id := rapid.IntRange(0, 5).Draw(t, "notification")
				w.askTemplated(id%3, simID(id), user.Draw(t, "user"))
			},
			"dispatch reads templates": func(*rapid.T) { w.readTemplates() },
			"intake repeats itself": func(t *rapid.T) {
				l := lane.Draw(t, "lane")
				if n := len(w.lanes[l]); n > 0 && w.lanes[l][n-1].GetDeliveryAccepted() != nil {
					w.lanes[l] = append(w.lanes[l], w.lanes[l][n-1])
				}
			},
			"cancel": func(t *rapid.T) {
				id := rapid.IntRange(0, 5).Draw(t, "notification")
				w.lanes[id%3] = append(w.lanes[id%3], &whisperv1.Event{
					NotificationId: simID(id), Kind: &whisperv1.Event_CancelRequested{CancelRequested: &whisperv1.CancelRequested{}},
				})
			},
			"broadcast": func(t *rapid.T) {
				id := rapid.IntRange(0, 5).Draw(t, "notification")
				w.broadcast(id%3, simID(id))
			},
			"steer": func(t *rapid.T) {
				id := rapid.IntRange(0, 5).Draw(t, "notification")
				w.steer(id%3, simID(id), rapid.Bool().Draw(t, "pause"))
			},
			"retract": func(t *rapid.T) {
				id := rapid.IntRange(0, 5).Draw(t, "notification")
				w.retract(id%3, simID(id))
			},
			"dispatch reads back": func(t *rapid.T) { w.readBack(rapid.IntRange(1, 20).Draw(t, "facts")) },
			"a phone registers": func(t *rapid.T) {
				w.phones.users = append(w.phones.users, user.Draw(t, "user"))
				w.register()
			},
			"dispatch sees phones": func(*rapid.T) { w.register() },
			"a client makes up a read": func(t *rapid.T) {
				w.makeUpRead(simID(rapid.IntRange(0, 5).Draw(t, "notification")), user.Draw(t, "user"), rapid.IntRange(0, 3).Draw(t, "receipt"))
			},
			"somebody new":              func(t *rapid.T) { w.newUser() },
			"dispatch walks":            func(*rapid.T) { w.walk() },
			"dispatch takes a delivery": func(t *rapid.T) { w.feedLane(lane.Draw(t, "lane")) },
			"everything flows": func(t *rapid.T) {
				w.tellNodes()
				for _, in := range w.presenceAt {
					w.decide(in)
				}
				w.presenceAt = nil
				w.feedLane(lane.Draw(t, "lane"))
				w.gateway(rapid.Bool().Draw(t, "ack"))
				for range 4 {
					w.feedEvent()
				}
			},
			"dispatch takes feedback": func(*rapid.T) { w.feedEvent() },
			"dispatch sees presence": func(*rapid.T) {
				if len(w.presenceAt) > 0 {
					in := w.presenceAt[0]
					w.presenceAt = w.presenceAt[1:]
					w.decide(in)
				}
			},
			"dispatch sees nodes": func(*rapid.T) { w.tellNodes() },
			"connect":             func(t *rapid.T) { w.setPresence(node.Draw(t, "node"), user.Draw(t, "user"), true) },
			"disconnect":          func(t *rapid.T) { w.setPresence(node.Draw(t, "node"), user.Draw(t, "user"), false) },
			"node restarts":       func(t *rapid.T) { w.startNode(node.Draw(t, "node")) },
			"gateway":             func(t *rapid.T) { w.gateway(rapid.Bool().Draw(t, "ack")) },
			"push": func(t *rapid.T) {
				w.push(rapid.SampledFrom(simClasses).Draw(t, "class"))
			},
			"time passes": func(t *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(1, 40).Draw(t, "seconds")) * time.Second)
				w.decide(decide.TimePassed{})
			},
			"commit": func(*rapid.T) {
				if !w.crashed {
					w.commit(0)
				}
			},
			"a parked delivery breaks": w.breakParked,
			"crash soon":               func(t *rapid.T) { w.crashAfter = rapid.IntRange(0, 3).Draw(t, "outputs") },
			"crash in a commit": func(t *rapid.T) {
				if !w.crashed {
					w.commit(rapid.IntRange(1, 2).Draw(t, "after"))
				}
				w.restore()
			},
			"": func(*rapid.T) {
				if w.crashed {
					w.restore()
				}
			},
		}
		for range 6 { // what goes wrong takes a while to come about, and one Repeat has 30 steps
			t.Repeat(actions)
		}
		w.settleAll()
		w.check()
	})
}
