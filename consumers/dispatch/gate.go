package dispatch

import (
	"slices"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
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
	counts []domain.Output
	users  map[string]struct{}
	sends  []heldRecord
	acked  atomic.Bool
}

type heldRecord struct {
	rec  *kgo.Record
	done func(error)
}

// note takes a count, which the end of the round writes.
func (g *gate) note(o domain.Output) {
	if g.open == nil {
		g.open = &turn{users: map[string]struct{}{}}
	}
	switch o := o.(type) {
	case domain.Count:
		g.open.users[o.User] = struct{}{}
	case domain.Uncount: // a record's erased users go before its counts
		g.open.counts = slices.DeleteFunc(g.open.counts, func(c domain.Output) bool {
			count, ok := c.(domain.Count)
			return ok && count.User == o.User
		})
	}
	g.open.counts = append(g.open.counts, o)
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
// durable.
func (p *partition) send(user string, shared []string, rec *kgo.Record, m proto.Message) {
	if p.gate.idle() {
		p.publish(p.role.direct, rec, m)
		return
	}
	users := shared
	if len(users) == 0 {
		users = []string{user}
	}
	if !p.gate.shut(users) {
		p.publish(p.role.direct, rec, m)
		return
	}
	if !p.encode(rec, m) {
		return
	}
	if p.gate.open == nil {
		p.gate.open = &turn{users: map[string]struct{}{}}
	}
	for _, user := range users {
		p.gate.open.users[user] = struct{}{}
	}
	e := p.epoch() // of when it was decided: nothing it lets go is committed before it is written
	e.outstanding.Add(1)
	p.gate.open.sends = append(p.gate.open.sends, heldRecord{rec, e.acked})
}

// count ends a round: its counts are written, and what waits for them is sent when they are acknowledged.
func (p *partition) count() {
	t := p.gate.open
	if t == nil {
		return
	}
	p.gate.open = nil
	p.gate.waiting = append(p.gate.waiting, t)
	m := countedOf(t.counts)
	if m == nil {
		t.acked.Store(true)
		return
	}
	rec := &kgo.Record{Topic: consumers.TopicCounters, Partition: p.id}
	if !p.encode(rec, m) {
		return
	}
	e := p.epoch()
	e.outstanding.Add(1)
	p.role.direct.Publish(p.ctx, rec, func(err error) {
		e.acked(err)
		if err == nil { // otherwise the process ends
			t.acked.Store(true)
			p.mail.signal()
		}
	})
}

// release sends what waited for counts that Kafka has, in order.
func (p *partition) release() {
	for len(p.gate.waiting) > 0 && p.gate.waiting[0].acked.Load() {
		t := p.gate.waiting[0]
		p.gate.waiting = p.gate.waiting[1:]
		for _, s := range t.sends {
			p.role.direct.Publish(p.ctx, s.rec, s.done)
		}
	}
	if len(p.gate.waiting) == 0 {
		p.gate.waiting = nil
	}
}

// countedOf gathers counts into a record; nil where there are none.
func countedOf(outputs []domain.Output) *whisperv1.Counted {
	if len(outputs) == 0 {
		return nil
	}
	m := &whisperv1.Counted{}
	index := map[string]int32{}
	for _, o := range outputs {
		switch o := o.(type) {
		case domain.Uncount:
			m.Erased = append(m.Erased, o.User)
		case domain.Count:
			at, ok := index[o.Category]
			if !ok {
				at = int32(len(m.Categories))
				index[o.Category] = at
				m.Categories = append(m.Categories, o.Category)
			}
			m.Users = append(m.Users, o.User)
			m.Hashes = append(m.Hashes, o.Hash[:]...)
			m.AtMs = append(m.AtMs, uint64(o.At.UnixMilli()))
			m.Category = append(m.Category, at)
		}
	}
	return m
}
