package dispatch

import (
	"slices"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// gate holds back what is sent to users whose counters changed until Kafka has the change: a crash between
// the two would otherwise forget a delivery that was sent, and a cap would let one too many through. One
// round of the loop writes one record of counts, so it costs a user in a category with caps one way to Kafka
// and back, and everybody else nothing. It belongs to the loop's goroutine, but for acked.
type gate struct {
	open    *turn   // what this round counted, and what waits for it
	waiting []*turn // in order
}

// turn is one round's counts and the records that wait for them.
type turn struct {
	counts []decide.Count
	erased []string // whose counts from before are gone
	users  map[string]struct{}
	sends  []heldRecord
	acked  atomic.Bool
}

type heldRecord struct {
	to   *consumers.Publisher
	rec  *kgo.Record
	done func(error)
}

// count takes a count, which the end of the round writes.
func (g *gate) count(c decide.Count) {
	t := g.round()
	t.users[c.User] = struct{}{}
	t.counts = append(t.counts, c)
}

// uncount drops a user's counts. A record's erased users go before its counts, so those of this round go here.
func (g *gate) uncount(user string) {
	t := g.round()
	t.counts = slices.DeleteFunc(t.counts, func(c decide.Count) bool { return c.User == user })
	t.erased = append(t.erased, user)
}

func (g *gate) round() *turn {
	if g.open == nil {
		g.open = &turn{users: map[string]struct{}{}}
	}
	return g.open
}

func (g *gate) idle() bool { return g.open == nil && len(g.waiting) == 0 }

// shut says whether something of these users waits: what follows must wait behind it, to stay in order.
func (g *gate) shut(users []string) bool {
	return slices.ContainsFunc(users, func(user string) bool {
		if g.open != nil {
			if _, ok := g.open.users[user]; ok {
				return true
			}
		}
		return slices.ContainsFunc(g.waiting, func(t *turn) bool { _, ok := t.users[user]; return ok })
	})
}

// send writes an attempt to the user, or to those who share the record, at once or when their counts are
// durable. done is told what became of it, and tells the epoch.
func (p *partition) send(lane domain.Lane, user string, shared []string, rec *kgo.Record, m proto.Message, done func(error)) {
	to := p.role.toChannel(lane)
	e := p.epoch() // of when it was decided: nothing it lets go is committed before it is written
	if p.gate.idle() {
		p.publishTo(e, to, rec, m, p.timed(lane, done))
		return
	}
	users := shared
	if len(users) == 0 {
		users = []string{user}
	}
	if !p.gate.shut(users) {
		p.publishTo(e, to, rec, m, p.timed(lane, done))
		return
	}
	e.outstanding.Add(1)
	if err := p.encode(rec, m); err != nil {
		e.acked(err)
		return
	}
	t := p.gate.round()
	for _, user := range users {
		t.users[user] = struct{}{}
	}
	t.sends = append(t.sends, heldRecord{to, rec, done})
}

// timed is done, and tells of an alert how long Kafka took for it. What a broadcast of the high lane sends is none: a pace
// must not follow from what it paces.
func (p *partition) timed(lane domain.Lane, done func(error)) func(error) {
	if lane != domain.High || p.deciding == nil {
		return done
	}
	begin := p.role.cfg.Now()
	return func(err error) {
		if err == nil {
			now := p.role.cfg.Now()
			p.role.pace.acked(now, now.Sub(begin))
		}
		done(err)
	}
}

// count ends a round: its counts are written, and what waits for them is sent when they are acknowledged.
func (p *partition) count() {
	t := p.gate.open
	if t == nil {
		return
	}
	p.gate.open = nil
	p.gate.waiting = append(p.gate.waiting, t)
	records := countedOf(t)
	if len(records) == 0 {
		t.acked.Store(true)
		return
	}
	e := p.epoch()
	left := &atomic.Int64{}
	left.Store(int64(len(records)))
	for _, m := range records {
		p.publishTo(e, p.role.urgent, &kgo.Record{Topic: consumers.TopicCounters, Partition: p.id, Headers: p.owner}, m, func(err error) {
			e.acked(err)
			if err == nil && left.Add(-1) == 0 { // on an error the partition stops
				t.acked.Store(true)
				p.mail.signal()
			}
		})
	}
}

// release sends what waited for counts that Kafka has, in order.
func (p *partition) release() {
	for len(p.gate.waiting) > 0 && p.gate.waiting[0].acked.Load() {
		t := p.gate.waiting[0]
		p.gate.waiting = p.gate.waiting[1:]
		for _, s := range t.sends {
			s.to.Publish(p.ctx, s.rec, s.done)
		}
	}
	if len(p.gate.waiting) == 0 {
		p.gate.waiting = nil
	}
}

// countedBytes keeps a record of counts far below the record limit: a round may count for a whole digest or slice.
const countedBytes = 512 << 10

// countedOf are a round's records, in their order; none where it counted nothing. What is erased goes before what is
// counted anew.
func countedOf(t *turn) (records []*whisperv1.Counted) {
	var m *whisperv1.Counted
	var index map[string]int32
	size := 0
	room := func(n int) {
		if m == nil || size+n > countedBytes {
			m, index, size = &whisperv1.Counted{}, map[string]int32{}, 0
			records = append(records, m)
		}
		size += n
	}
	for _, user := range t.erased {
		room(len(user) + countedOverhead)
		m.Erased = append(m.Erased, user)
	}
	for _, c := range t.counts {
		room(len(c.User) + len(c.Hash) + len(c.Category) + countedOverhead)
		at, ok := index[c.Category]
		if !ok {
			at = int32(len(m.Categories))
			index[c.Category] = at
			m.Categories = append(m.Categories, c.Category)
		}
		m.Users = append(m.Users, c.User)
		m.Hashes = append(m.Hashes, c.Hash[:]...)
		m.AtMs = append(m.AtMs, uint64(c.At.UnixMilli()))
		m.Category = append(m.Category, at)
	}
	return records
}

// countedOverhead is what a count costs beside its text and its hash, at most: tags, lengths, time and category.
const countedOverhead = 24
