package decide

import (
	"math"
	"slices"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// A retraction reaches phones by a silent push to each endpoint that took the notification. Nobody keeps who that was,
// since almost nothing is ever retracted: the log of facts is read back for it ([Recall]), each fact of a push that was
// taken comes as [FactRecalled], and what is taken later comes as feedback always does. A phone may delay such a push
// or drop it, so a fact about one says what the provider did and claims no status.

// silentPush is one that waits to be tried again, or for its answer after it was: one that is taken at once
// is not held. It costs 300 bytes, as long as the provider does not take it.
type silentPush struct {
	id       domain.DeliveryID // of its record in whisper.timers
	delivery domain.DeliveryID
	note     string
	user     string
	channel  string
	endpoint string
	lane     whisperv1.Lane
	attempt  int32     // made so far
	shown    int32     // the attempt that is taken back
	open     bool      // the last one's answer is to come
	due      time.Time // State.retractionsDue
	slot     slot
}

// askedEndpoint is what a retraction remembers of an endpoint that it asked, in this process: some 40 bytes each.
type askedEndpoint struct {
	attempt int32 // of the silent push; askSettled when nothing more is to be done
	shown   int32 // an attempt that is taken later is taken back once more
}

const askSettled = math.MaxInt32

const recallMark = "\x01recall"

// silentPushHash tells the silent pushes of one delivery to one endpoint. It is no delivery's: see cursorMark.
func silentPushHash(delivery domain.DeliveryHash, channel, endpoint string) domain.DeliveryHash {
	return domain.HashDelivery(recallMark+string(delivery[:]), channel+"\x00"+endpoint)
}

// ScanSlice is how many users one step looks at to find out since when a notification is known: 0.2 ms.
const ScanSlice = 1024

// scanUsers asks the window about the next users: a direct notification's deliveries are known by their users only, and only
// who has a profile can have been pushed to. Requests may share an id, so all are looked at.
func (s *State) scanUsers() {
	r := s.retractions.scans[0]
	if s.retractions.get(r.note) != r {
		s.retractions.scans = s.retractions.scans[1:]
		return
	}
	i := s.users.After(r.scannedTo)
	end := min(i+ScanSlice, s.users.Len())
	for ; i < end; i++ {
		user := s.users.At(i)
		if at, ok := s.dedupe.since(domain.HashDelivery(r.note, user)); ok {
			r.since(at)
		}
		r.scannedTo = user
	}
	if end < s.users.Len() {
		return
	}
	s.retractions.scans = s.retractions.scans[1:]
	r.recalled = r.from.IsZero() // nobody here was sent it
	s.put(Park{ID: r.id, Parked: r.parked()})
	if !r.recalled {
		s.put(Recall{Notification: r.note, From: r.from})
	}
}

// since notes that the notification was known at a time.
func (r *retraction) since(at time.Time) {
	if r.from.IsZero() || at.Before(r.from) {
		r.from = at
	}
}

// resumeRetractions goes on where a restart came between a retraction and the end of what it caused.
func (s *State) resumeRetractions() {
	for _, r := range s.retractions.sorted() {
		if !r.recalled && s.now.Before(r.until) {
			s.knownSince(r)
			s.startScan(r)
		}
	}
}

func (s *State) startScan(r *retraction) {
	s.users.Sort()
	s.retractions.scans = append(s.retractions.scans, r)
}

// recalled: the log was read back up to where feedback began to come by itself. The mark is written when
// Kafka has all that came of it; until then a restart reads again, which sends again under the same provider ids.
func (s *State) recalled(note string) {
	if r := s.retractions.get(note); r != nil && !r.recalled {
		r.recalled = true
		s.put(ParkAfter{ID: r.id, Parked: r.parked()})
	}
}

// retractPush sends a silent push to the endpoint of a push that was taken, if its notification was retracted: also of one
// whose answer never came, since it may have been shown.
func (s *State) retractPush(ev *whisperv1.Event) {
	r := s.retractions.valid(ev.GetNotificationId(), s.now)
	if r == nil {
		return
	}
	channel, endpoint, attempt := shownBy(ev)
	if endpoint == "" {
		return
	}
	id := domain.DeliveryID(ev.GetDeliveryId())
	key := silentPushHash(id.Hash(), channel, endpoint)
	if r.asked[key].shown >= attempt {
		return
	}
	c := s.retractions.push(key)
	switch {
	case c == nil:
		c = &silentPush{
			id: domain.NewDeliveryID(id.Time(), key), delivery: id, note: r.note, user: ev.GetUserId(), channel: channel, endpoint: endpoint,
			lane: ev.GetLane(), attempt: r.made(key), shown: attempt,
		}
	case c.shown >= attempt:
		return
	default:
		if c.shown = attempt; !c.open {
			return // it waits for its turn, which comes after this one
		}
	}
	s.sendSilentPush(r, c)
}

// MayHaveShown says of a fact whether it tells of a push that a person may have seen.
func MayHaveShown(ev *whisperv1.Event) bool {
	_, endpoint, _ := shownBy(ev)
	return endpoint != ""
}

// shownBy is the push by which a fact says that a person may have seen the notification; no endpoint: none.
func shownBy(ev *whisperv1.Event) (channel, endpoint string, attempt int32) {
	if sent := ev.GetDeliverySent(); sent != nil && sent.GetChannel() != domain.ChannelSocket {
		return sent.GetChannel(), sent.GetEndpoint(), sent.GetAttempt()
	}
	failed := ev.GetAttemptFailed()
	if failed.GetClass() == whisperv1.FailureClass_FAILURE_CLASS_UNKNOWN && failed.GetChannel() != domain.ChannelSocket {
		return failed.GetChannel(), failed.GetEndpoint(), failed.GetAttempt()
	}
	return "", "", 0
}

// made is how many attempts of the key there were, as far as this process knows.
func (r *retraction) made(key domain.DeliveryHash) int32 {
	if n := r.asked[key].attempt; n < askSettled {
		return n
	}
	return 0
}

// sendSilentPush makes one attempt with the token that the user has now; false where the endpoint is gone.
func (s *State) sendSilentPush(r *retraction, c *silentPush) bool {
	endpoints := s.profile(c.user).GetEndpoints()
	i := slices.IndexFunc(endpoints, func(e *whisperv1.Endpoint) bool {
		return e.GetName() == c.endpoint && e.GetChannel() == c.channel
	})
	if i < 0 || !slices.Contains(domain.PushChannels, c.channel) {
		return false
	}
	e := endpoints[i]
	c.attempt++
	c.open = true
	if r.asked == nil {
		r.asked = map[domain.DeliveryHash]askedEndpoint{}
	}
	r.asked[c.id.Hash()] = askedEndpoint{attempt: c.attempt, shown: c.shown}
	s.put(PushTo{Push: &whisperv1.Push{
		DeliveryId: c.delivery[:], NotificationId: c.note, UserId: c.user, Lane: c.lane, Attempt: c.attempt,
		Channel: c.channel, Endpoint: c.endpoint, Token: e.GetToken(), App: e.GetApp(),
		ExpiresAtMs: r.until.UnixMilli(), Retract: true,
	}})
	return true
}

// pushRetracted: the provider took a silent push. Sockets' own facts are for others to count.
func (s *State) pushRetracted(ev *whisperv1.Event, k *whisperv1.DeliveryRetracted) {
	if k.GetEndpoint() != "" {
		s.settleSilentPush(ev.GetNotificationId(), silentPushHash(domain.DeliveryID(ev.GetDeliveryId()).Hash(), k.GetChannel(), k.GetEndpoint()))
	}
}

// settleSilentPush: nothing more is to be done about a silent push.
func (s *State) settleSilentPush(note string, key domain.DeliveryHash) {
	if r := s.retractions.get(note); r != nil {
		if a, asked := r.asked[key]; asked {
			r.asked[key] = askedEndpoint{attempt: askSettled, shown: a.shown}
		}
	}
	if c := s.retractions.push(key); c != nil {
		s.dropSilentPush(c)
	}
}

func (s *State) dropSilentPush(c *silentPush) {
	s.retractions.drop(c)
	s.put(Unpark{ID: c.id})
}

// silentPushFailed: a provider did not take a silent push. It is tried again where that may help, and parked meanwhile.
func (s *State) silentPushFailed(ev *whisperv1.Event, k *whisperv1.AttemptFailed) {
	if k.GetClass() == whisperv1.FailureClass_FAILURE_CLASS_PRUNE {
		s.prune(ev, k)
	}
	id := domain.DeliveryID(ev.GetDeliveryId())
	key := silentPushHash(id.Hash(), k.GetChannel(), k.GetEndpoint())
	r, c := s.retractions.get(ev.GetNotificationId()), s.retractions.push(key)
	if r == nil || r.asked[key].attempt > k.GetAttempt() || c != nil && (c.attempt > k.GetAttempt() || !c.open) {
		return // of an earlier attempt, or told again
	}
	due := s.now.Add(max(time.Duration(k.GetRetryAfterMs())*time.Millisecond,
		s.policy.Retry.Delay(domain.NewDeliveryID(id.Time(), key), k.GetAttempt()-1)))
	if !worthAnother(k.GetClass()) || s.policy.Retry.Exhausted(k.GetAttempt()-1) || !due.Before(r.until) {
		s.settleSilentPush(r.note, key)
		return
	}
	if c == nil {
		c = &silentPush{
			id: domain.NewDeliveryID(id.Time(), key), delivery: id, note: r.note, user: ev.GetUserId(),
			channel: k.GetChannel(), endpoint: k.GetEndpoint(),
			lane: ev.GetLane(), shown: r.asked[key].shown,
		}
	}
	c.attempt, c.open = k.GetAttempt(), false
	s.retractions.hold(c, due)
	s.put(Park{ID: c.id, Parked: &whisperv1.Parked{DueMs: due.UnixMilli(), Recall: &whisperv1.Recall{
		NotificationId: c.note, DeliveryId: c.delivery[:], UserId: c.user, Channel: c.channel, Endpoint: c.endpoint,
		Lane: c.lane, Attempt: c.attempt, Shown: c.shown,
	}}})
}

func (c *silentPush) dueAt() time.Time          { return c.due }
func (c *silentPush) setDue(at time.Time)       { c.due = at }
func (c *silentPush) compare(o *silentPush) int { return c.id.Compare(o.id) }
func (c *silentPush) scheduleSlot() *slot       { return &c.slot }

// retractionsDue tries again what is due. Its record stays until the answer: a restart before that tries again.
func (s *State) retractionsDue() {
	for range DueSlice {
		c, passed := s.retractions.due.passed(s.now)
		if !passed {
			break
		}
		r := s.retractions.valid(c.note, s.now)
		if r == nil || !s.sendSilentPush(r, c) {
			s.dropSilentPush(c)
			continue
		}
		s.retractions.hold(c, r.until)
	}
	if len(s.retractions.scans) > 0 {
		s.scanUsers()
	}
}

func (s *State) restoreSilentPush(p *whisperv1.Parked) {
	m := p.GetRecall()
	id, err := domain.DeliveryIDFromBytes(m.GetDeliveryId())
	if err != nil {
		return // we never write such a record
	}
	key := silentPushHash(id.Hash(), m.GetChannel(), m.GetEndpoint())
	c := &silentPush{
		id: domain.NewDeliveryID(id.Time(), key), delivery: id, note: m.GetNotificationId(), user: m.GetUserId(),
		channel: m.GetChannel(), endpoint: m.GetEndpoint(),
		lane: m.GetLane(), attempt: m.GetAttempt(), shown: m.GetShown(),
	}
	s.retractions.hold(c, time.UnixMilli(p.GetDueMs()))
}

// eraseSilentPushes: the user's endpoints are gone.
func (s *State) eraseSilentPushes(user string) {
	for _, c := range s.retractions.to(user) {
		s.dropSilentPush(c)
	}
}
