package dispatch

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/VictoriaMetrics/metrics"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
)

// repairs writes anew what a stray record stands in front of: a restore passes strays over, but compaction keeps the
// last record of a key, whoever wrote it. The tails of the compacted changelogs are followed for them as long as the
// partition is owned; a process that was stopped may wake up at any time.
//
// A user is written as the state has it. What whisper.timers should have of a key is in the log alone, so it is read
// back; whatever the loop itself writes of the key meanwhile is later, and ends the search.
type repairs struct {
	overtaken atomic.Bool // a later owner's record was seen: the group will say so, too
	any       atomic.Bool // there may be something to do; what add sets only take clears, before it looks

	mu     sync.Mutex
	users  map[string]bool
	timers map[string]bool
	marks  map[string]bool // topics in which ours is not the last mark: compaction would leave the other

	// Of the loop's goroutine.
	open      map[string]bool // keys of whisper.timers that are searched for
	before    *epoch          // the search begins when this one is acknowledged
	found     chan map[string][]byte
	searching sync.WaitGroup
}

func newRepairs() *repairs {
	return &repairs{users: map[string]bool{}, timers: map[string]bool{}, marks: map[string]bool{}, open: map[string]bool{}}
}

// strayRecords counts them by topic.
func strayRecords(topic string) *metrics.Counter {
	return metrics.GetOrCreateCounter(fmt.Sprintf(`whisper_dispatch_stray_records_total{topic=%q}`, topic))
}

// followTails looks for strays behind our marks, until stopTails.
func (p *partition) followTails(ctx context.Context, t *takeover) error {
	var tails []consumers.Followed
	for _, c := range changelogs {
		if c.repaired {
			tails = append(tails, consumers.Followed{Topic: c.topic, From: t.logs[c.topic].end + 1, Sink: p.tail})
		}
	}
	_, err := p.role.tails.FollowAll(ctx, p.id, tails...)
	return err
}

func (p *partition) stopTails() {
	for _, c := range changelogs {
		if c.repaired {
			p.role.tails.Unfollow(c.topic, p.id)
		}
	}
}

// tail takes what is behind our mark; nearly all of it is our own.
func (p *partition) tail(recs []*kgo.Record) {
	r := p.repairs
	for _, rec := range recs {
		switch epoch := consumers.EpochOf(rec); {
		case epoch == p.ownedAs || epoch == consumers.NoEpoch: // an earlier version writes none
		case epoch > p.ownedAs:
			if !r.overtaken.Swap(true) {
				p.role.log.Error("another process has taken the partition over; nothing more is decided here", "partition", p.id, "owner", epoch,
					"own", p.ownedAs)
			}
		default:
			r.add(rec)
		}
	}
	if r.any.Load() {
		p.mail.signal()
	}
}

func (r *repairs) add(rec *kgo.Record) {
	strayRecords(rec.Topic).Inc()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case string(rec.Key) == consumers.OwnerMark:
		r.marks[rec.Topic] = true
	case rec.Topic == consumers.TopicUsers:
		r.users[string(rec.Key)] = true
	default:
		r.timers[string(rec.Key)] = true
	}
	r.any.Store(true)
}

// repair does what there is to do, a step each round of the loop.
func (p *partition) repair() {
	r := p.repairs
	if !r.any.Load() {
		return
	}
	users, marks, search := r.take()
	for topic := range marks {
		p.publishRaw(p.ownedAs.Mark(topic, p.id))
	}
	for user := range users {
		p.putUser(user, p.state.EncodedUser(user))
	}
	if search {
		r.before = p.epoch()
	}
	if r.before != nil && p.acknowledged(r.before) {
		r.before, r.found = nil, make(chan map[string][]byte, 1)
		keys, found := maps.Clone(r.open), r.found
		r.searching.Go(func() { p.search(p.ctx, keys, found) })
	}
	select {
	case values := <-r.found:
		r.found = nil
		keys := r.open
		r.open = map[string]bool{}
		for key := range keys {
			p.putTimer(key, values[key])
		}
		p.role.log.Warn("stray records of an earlier owner were written over", "partition", p.id, "topic", consumers.TopicTimers,
			"records", len(keys))
	default:
	}
	if len(users) > 0 {
		p.role.log.Warn("stray records of an earlier owner were written over", "partition", p.id, "topic", consumers.TopicUsers,
			"records", len(users))
	}
	if r.before != nil || r.found != nil {
		r.any.Store(true)
	}
}

// take hands over the users and marks to be written, and whether to begin a search for the keys that are now open.
// What is added from here on asks for another round, however long this one takes.
func (r *repairs) take() (users, marks map[string]bool, search bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	users, marks = r.users, r.marks
	r.users, r.marks = map[string]bool{}, map[string]bool{}
	if search = r.before == nil && r.found == nil && len(r.timers) > 0; search {
		r.open, r.timers = r.timers, map[string]bool{}
	}
	r.any.Store(len(r.timers) > 0)
	return users, marks, search
}

// acknowledged says whether Kafka has everything that was written up to the end of an epoch.
func (p *partition) acknowledged(last *epoch) bool {
	for _, e := range p.epochs {
		switch {
		case e == p.epoch(): // being filled
			return e != last
		case !e.complete():
			return false
		case e == last:
			return true
		}
	}
	return true
}

// search reads what whisper.timers has of the keys, strays passed over; nil where it has nothing.
func (p *partition) search(ctx context.Context, wanted map[string]bool, found chan<- map[string][]byte) {
	values := map[string][]byte{}
	var owners consumers.Owners
	caughtUp, err := p.role.reader.Follow(ctx, consumers.TopicTimers, p.id, consumers.FromStart, func(recs []*kgo.Record) {
		for _, rec := range recs {
			if stale, mark := owners.Stale(rec); !stale && !mark && wanted[string(rec.Key)] {
				values[string(rec.Key)] = rec.Value
			}
		}
	})
	if err != nil {
		if ctx.Err() == nil {
			p.fail(fmt.Errorf("read back what partition %d waits for: %w", p.id, err))
		}
		return
	}
	select {
	case <-caughtUp:
	case <-ctx.Done():
	}
	p.role.reader.Unfollow(consumers.TopicTimers, p.id) // before values is read
	if ctx.Err() == nil {
		found <- values
		p.mail.signal()
	}
}

// putUser writes a user; nil: a tombstone.
func (p *partition) putUser(user string, encoded []byte) {
	p.publishRaw(&kgo.Record{Topic: consumers.TopicUsers, Partition: p.id, Key: []byte(user), Value: encoded})
}

// putTimer writes what whisper.timers is to have of a key; nil: a tombstone.
func (p *partition) putTimer(key string, encoded []byte) {
	p.publishRaw(&kgo.Record{Topic: consumers.TopicTimers, Partition: p.id, Key: []byte(key), Value: encoded})
}

// publishRaw writes a changelog's record that is encoded already.
func (p *partition) publishRaw(rec *kgo.Record) {
	rec.Headers = p.owner
	p.publishIn(p.epoch(), p.role.bulk, rec, nil)
}

// repairRestored writes anew what strays stand in front of that were there before us.
func (p *partition) repairRestored(t *takeover, parked map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for topic, log := range t.logs {
		if n := len(log.strays); n > 0 {
			strayRecords(topic).Add(n)
			p.role.log.Warn("records of an owner who had lost the partition are passed over", "partition", p.id, "topic", topic, "keys", n)
		}
	}
	for user := range t.logs[consumers.TopicUsers].strays {
		p.putUser(user, p.state.EncodedUser(user))
	}
	for key := range t.logs[consumers.TopicTimers].strays {
		var encoded []byte
		if value, is := parked[key]; is {
			encoded = []byte(value)
		}
		p.putTimer(key, encoded)
	}
}

// ownWord says whether a fact ends a delivery by dispatch's own decision: it carries the owner's epoch.
func ownWord(kind string) bool {
	switch kind {
	case "delivery_failed", "delivery_suppressed", "delivery_expired", "delivery_cancelled":
		return true
	default:
		return false
	}
}
