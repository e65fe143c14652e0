package dispatch

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
)

// A record whose decision meets a bug is poison: the partition stops, is restored anew, and when its loop comes to the
// record again, that is set aside: a dead letter with the reason, and let go as if it were settled. It is remembered
// in memory only. Another process that comes to it before it was let go meets the bug itself, stops and restores in
// the same way, and no process ends. Once it is let go, nobody meets it again.
//
// Where the decision was about one delivery or broadcast (State.Busy), that is what is set aside, and not the record that
// came: a delivery ends with the reason internal_error. So the profile that was being taken still counts, and a delivery
// that is due, for which no record came, can be set aside, too. Each costs its partition a restore, so of a notification that has met
// it three times the rest is ended with it. A broadcast is paused, and where it meets the bug all the same it is left as it
// is parked, for a later version.
//
// The state is never mended in place: a decision changes several structures, and a half of one is worse than a restore.
type poison struct {
	any      atomic.Bool // nearly always false, and then nobody takes the lock
	mu       sync.Mutex
	records  map[position]error
	subjects map[domain.DeliveryID]*poisoned
	notes    map[string]int // how many subjects of a notification there were
}

// poisoned is a delivery or broadcast that met a bug.
type poisoned struct {
	reason  error
	told    bool // it is among the dead letters
	leftOut bool // a broadcast that met it though it was paused
}

// maxBlamed is how many deliveries of a notification are set aside one by one.
const maxBlamed = 3

type position struct {
	topic     string
	partition int32
	offset    int64
}

// maxPoison bounds what is remembered. With so many the bug is not a record's, and the partition waits for a version
// that has it no more.
const maxPoison = 1_000

func newPoison() *poison {
	return &poison{records: map[position]error{}, subjects: map[domain.DeliveryID]*poisoned{}, notes: map[string]int{}}
}

func positionOf(rec *kgo.Record) position { return position{rec.Topic, rec.Partition, rec.Offset} }

// add remembers a record and says whether that is news.
func (q *poison) add(rec *kgo.Record, err error) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	at := positionOf(rec)
	if _, known := q.records[at]; known || len(q.records) >= maxPoison {
		return false
	}
	q.records[at] = err
	q.any.Store(true)
	return true
}

// addSubject remembers a delivery or broadcast and says whether that is news. Of too many all are forgotten: their ends have
// long been told, and what is still parked meets the bug once more.
func (q *poison) addSubject(of decide.Subject, err error) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if known := q.subjects[of.ID]; known != nil {
		again := of.User == "" && !known.leftOut
		known.leftOut = known.leftOut || again
		return again
	}
	if len(q.subjects) >= maxPoison {
		clear(q.subjects)
	}
	if len(q.notes) >= maxPoison {
		clear(q.notes)
	}
	q.subjects[of.ID] = &poisoned{reason: err}
	q.notes[of.Notification]++
	q.any.Store(true)
	return true
}

// aside is what a restore does not take up.
func (q *poison) aside() (a decide.Aside) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for id, p := range q.subjects {
		if p.leftOut {
			a.LeftOut = append(a.LeftOut, id)
		} else {
			a.IDs = append(a.IDs, id)
		}
	}
	for note, n := range q.notes {
		if n >= maxBlamed {
			a.Notifications = append(a.Notifications, note)
		}
	}
	return a
}

// untold is why a delivery or broadcast is set aside, for who has something to tell of it: once.
func (q *poison) untold(id []byte) error {
	if !q.any.Load() {
		return nil
	}
	of, err := domain.DeliveryIDFromBytes(id)
	if err != nil {
		return nil // a record of something else
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if known := q.subjects[of]; known != nil && !known.told {
		known.told = true
		return known.reason
	}
	return nil
}

func (q *poison) reason(rec *kgo.Record) error {
	if !q.any.Load() {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.records[positionOf(rec)]
}

// decide decides about a record and writes what follows.
func (p *partition) decide(rec *kgo.Record, in decide.Input, now time.Time) {
	p.deciding = rec
	p.write(rec, p.state.Decide(in, now))
	p.deciding = nil
}

// poisoned is the failure of a partition that met a bug.
func (p *partition) poisoned(err error) error {
	failure := &consumers.Failure{Reach: consumers.ReachPartition, Help: consumers.HelpFor(err)}
	rec, bug := p.deciding, errors.Unwrap(err)
	if of, ok := p.busy(); ok {
		failure.Err = fmt.Errorf("decide about the notification %q to %q in partition %d: %w", of.Notification, of.User, p.id, bug)
		if failure.Contained = p.role.poison.addSubject(of, failure.Err); failure.Contained {
			return failure
		}
	}
	if rec == nil {
		return fmt.Errorf("decide what is due in partition %d: %w", p.id, err)
	}
	failure.Err = fmt.Errorf("decide about %s/%d at %d: %w", rec.Topic, rec.Partition, rec.Offset, bug)
	failure.Contained = p.role.poison.add(rec, failure.Err)
	return failure
}

func (p *partition) busy() (decide.Subject, bool) {
	if p.state == nil {
		return decide.Subject{}, false
	}
	return p.state.Busy()
}

// tellAside keeps what is set aside as a dead letter: what arrives, or what was parked.
func (p *partition) tellAside(rec *kgo.Record, id []byte) {
	if reason := p.role.poison.untold(id); reason != nil {
		p.role.log.Error("what met a bug goes to the dead letters", "topic", rec.Topic, "partition", rec.Partition, "error", reason)
		p.reject(rec, &consumers.Reason{Word: "panic", Err: reason})
	}
}

func (p *partition) tellParkedAside(key string, encoded []byte) {
	if p.role.poison.any.Load() {
		p.tellAside(&kgo.Record{Topic: consumers.TopicTimers, Partition: p.id, Key: []byte(key), Value: encoded}, []byte(key))
	}
}

// asideID is the delivery or broadcast that a lane's record asks for.
func asideID(in decide.Input) []byte {
	if d, ok := in.(decide.DeliveryArrived); ok {
		return d.Event.GetDeliveryId()
	}
	if b, ok := in.(decide.BroadcastArrived); ok {
		return b.Event.GetDeliveryId()
	}
	return nil
}

// setAside says whether the record is poison, which goes to the dead letters.
func (p *partition) setAside(rec *kgo.Record) bool {
	reason := p.role.poison.reason(rec)
	if reason == nil {
		return false
	}
	p.role.log.Error("a record that met a bug goes to the dead letters", "topic", rec.Topic, "partition", rec.Partition, "offset", rec.Offset,
		"error", reason)
	p.reject(rec, &consumers.Reason{Word: "panic", Err: reason})
	return true
}
