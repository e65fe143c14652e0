package gateway

import "sync"

// progress is one lane's low watermark: everything before it is settled. A ticket is a record's place
// in the order of arrival. 16 bytes a record in flight.
type progress struct {
	mu      sync.Mutex
	open    []pendingOffset
	base    int64 // ticket of open[0]
	next    int64 // to be committed
	written int64 // committed
}

type pendingOffset struct {
	offset int64
	done   bool
}

func (p *progress) take(offset int64) (ticket int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = append(p.open, pendingOffset{offset: offset})
	return p.base + int64(len(p.open)) - 1
}

func (p *progress) done(ticket int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ticket < p.base {
		return // of the topic before
	}
	p.open[ticket-p.base].done = true
	n := 0
	for n < len(p.open) && p.open[n].done {
		p.next = p.open[n].offset + 1
		n++
	}
	p.open = p.open[n:]
	p.base += int64(n)
}

// renew: from now on offsets are those of a new topic. What is open of the old one is not committed any more.
func (p *progress) renew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.base += int64(len(p.open))
	p.open, p.next, p.written = nil, 0, 0
}

func (p *progress) unsettled() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open)
}

func (p *progress) advanced() (next int64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next, p.next > p.written
}

func (p *progress) committed(next int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next >= next { // else it was of the topic before
		p.written = next
	}
}
