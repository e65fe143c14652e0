package decide

import (
	"slices"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// delivery is one in flight or parked.
type delivery struct {
	id      domain.DeliveryID
	request uint64           // fingerprint of the request's position
	ev      *whisperv1.Event // that it was accepted; of a broadcast's, the broadcast
	acc     *whisperv1.DeliveryAccepted
	trace   Trace
	source  LaneOffset
	walk    *walk  // of a broadcast
	member  string // of a broadcast: its user
	legs    *legs  // of one that goes out over several channels at once: they share it
	slice   *slice // holds the walk's cursor back; nil once parked

	phase   whisperv1.Phase
	attempt int32
	step    int32
	tries   int32
	waiting []waiting
	parked  bool // it is in whisper.timers, its offset is let go
	// A socket took an attempt, which nobody acknowledged: that never ends it. A provider took a push.
	socketTook, pushTook bool
	doubtful             bool // an attempt's outcome is unknown; lost at a restart, after which a read may not end the retries
	// Of the pushes of this step: is one worth another try, and what did the last failure say.
	retry      bool
	outlook    pushOutlook
	lacking    bool // it waits, or has waited, for an endpoint
	lastReason string
	pushAfter  time.Time // a provider wants no further attempt before
	// When the attempts over the socket began that follow one another since.
	sending time.Time
	bounces int
	// Since when it waits for its template, or behind a delivery that does; zero: it does not.
	untextedSince time.Time

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
	readyTo      readyTo
	// Of a broadcast: only its pause keeps it from beginning; and when the rate limit lets it go, in Unix milliseconds.
	heldByPause bool
	rateSlot    int64
	// See due.go; Unix milliseconds, 0: nothing held it but its send_at.
	readyMs int64

	content *whisperv1.Content // rendered once for the channels that share it
	variant string             // the last channel that it serves
	due     time.Time          // what it waits for comes to an end: State.due
	slot    slot
	wave    *wave // it is due with others

	ofNote, atSocket link // see deliveries
}

// pushOutlook is what can still come of pushing a delivery.
type pushOutlook int8

const (
	pushPossible    pushOutlook = iota // an endpoint may take it
	pushNewEndpoint                    // an endpoint was registered while pushes were open: it is tried when they are answered
	pushRefused                        // no endpoint will take it
)

type waiting struct {
	attempt int32
	// Of a leg's push that a restart restored: Kafka may have its record and not the push, so the leg's next try makes it
	// again.
	unmade      bool
	node        string
	incarnation uint64
	endpoint    string
}

func (d *delivery) dueAt() time.Time        { return d.due }
func (d *delivery) setDue(at time.Time)     { d.due = at }
func (d *delivery) compare(o *delivery) int { return compareArrival(d, o) }
func (d *delivery) scheduleSlot() *slot     { return &d.slot }

func (d *delivery) lane() domain.Lane          { return domain.LaneOf(d.ev.GetLane()) }
func (d *delivery) expires() time.Time         { return time.UnixMilli(d.acc.GetExpiresAtMs()) }
func (d *delivery) expired(now time.Time) bool { return !now.Before(d.expires()) }

func (d *delivery) user() string {
	if d.walk != nil {
		return d.member
	}
	return d.ev.GetUserId()
}

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

// channel is the one that d stands at, or "" past the last one.
func (d *delivery) channel() string {
	if channels := d.channels(); int(d.step) < len(channels) {
		return channels[d.step]
	}
	return ""
}
