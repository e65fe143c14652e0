package dispatch

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/domain/decide"
)

// item is one decoded record on its way to the partition's loop, or, without a record, how far its topic was
// passed over.
type item struct {
	rec   *kgo.Record
	next  int64        // where rec is nil: there are no records before this offset
	input decide.Input // nil: nothing to decide, or bad
	bad   error
}

// The queues of a partition, in the order in which they are served.
const (
	queueEvents = iota
	queueChanges
	queueHigh
	queueNormal
	queueLow
	queues
)

// queueBound is how many decoded records of one topic may wait for the loop; Handle blocks over it, so
// the consumers' bounds and pauses take over. Small, since a full fetch must not sit before an alert.
const queueBound = 2_000

// mailbox is between the feeds (one goroutine a topic) and the loop of a partition.
type mailbox struct {
	mu      sync.Mutex
	control []decide.Input // presence, nodes, templates: never blocks, its writers serve all partitions
	queue   [queues][]item
	space   [queues]chan struct{} // one token: room was made
	arrived chan struct{}         // one token: something is there
}

func newMailbox() *mailbox {
	m := &mailbox{arrived: make(chan struct{}, 1)}
	for i := range m.space {
		m.space[i] = make(chan struct{}, 1)
	}
	return m
}

func (m *mailbox) signal() {
	select {
	case m.arrived <- struct{}{}:
	default:
	}
}

// tell adds a control input.
func (m *mailbox) tell(in ...decide.Input) {
	m.mu.Lock()
	m.control = append(m.control, in...)
	m.mu.Unlock()
	m.signal()
}

// after is the offset that comes after the item.
func (it item) after() int64 {
	if it.rec == nil {
		return it.next
	}
	return it.rec.Offset + 1
}

// put adds items of a topic, waiting for room. It gives up when ctx ends and says so: nothing may be put
// after that, or the commit would pass what is missing.
func (m *mailbox) put(ctx context.Context, q int, items []item) (ok bool) {
	for {
		m.mu.Lock()
		if len(m.queue[q]) < queueBound {
			m.queue[q] = append(m.queue[q], items...)
			m.mu.Unlock()
			m.signal()
			return true
		}
		m.mu.Unlock()
		select {
		case <-m.space[q]:
		case <-ctx.Done():
			return false
		}
	}
}

// takeControl empties the control inputs.
func (m *mailbox) takeControl() []decide.Input {
	m.mu.Lock()
	defer m.mu.Unlock()
	in := m.control
	m.control = nil
	return in
}

// take removes up to n items of a topic.
func (m *mailbox) take(q, n int) []item {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.queue[q]
	if len(all) == 0 {
		return nil
	}
	if len(all) > n {
		m.queue[q] = all[n:]
		all = all[:n:n]
	} else {
		m.queue[q] = nil
	}
	select {
	case m.space[q] <- struct{}{}:
	default:
	}
	return all
}
