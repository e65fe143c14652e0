package client

import (
	"slices"
	"sync"
	"time"
)

const (
	// maxReads bounds the reads that are kept while there is no connection.
	maxReads = 1000
	// readsGather is the shortest time between two frames of reads: servers count frames (100 a second).
	readsGather = 20 * time.Millisecond
	// inDoubt: a read that was sent within this time before the server's last sign of life may have been lost with its
	// connection.
	inDoubt = 5 * time.Second
	// maxReadAge is how long a read without a receipt may wait: the window within which an id names one notification,
	// unless dispatch was told otherwise. After it the server would take it for the read of a later one.
	maxReadAge = 24 * time.Hour
)

// reads keeps what the person has seen until the server very likely knows it. The server does not answer reads, and a
// repeated one costs it nothing. So reads that were sent shortly before a connection ended are sent again over the next.
type reads struct {
	send   func(of []key) error // nil: the socket took it
	forgot func(n int)          // this many will never be sent
	now    func() time.Time

	mu      sync.Mutex
	waiting []seenAt
	sent    []sentReads // of this connection
	last    time.Time   // when a frame of reads was sent
	heard   time.Time   // the server's last sign of life
	timer   *time.Timer // runs while reads are gathered
	over    bool
}

// seenAt is a delivery and when the person saw it, by the wall clock: the monotonic one stops while a machine sleeps.
type seenAt struct {
	of key
	at time.Time
}

type sentReads struct {
	at time.Time
	of []seenAt
}

// add keeps the reads and sends them: at once, or together with others that follow quickly.
func (r *reads) add(of []key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return
	}
	now := r.now().Round(0)
	seen := make([]seenAt, len(of))
	for i, k := range of {
		seen[i] = seenAt{k, now}
	}
	r.keep(seen)
	if r.timer != nil {
		return
	}
	if wait := readsGather - time.Since(r.last); wait > 0 {
		r.timer = time.AfterFunc(wait, r.tell)
		return
	}
	r.flush()
}

// keep adds to what waits, and drops the oldest beyond maxReads. The lock is held.
func (r *reads) keep(of []seenAt) {
	r.waiting = append(r.waiting, of...)
	r.forget(max(0, len(r.waiting)-maxReads))
}

// forget drops the n oldest that wait. The lock is held.
func (r *reads) forget(n int) {
	if n > 0 {
		r.waiting = r.waiting[n:]
		r.forgot(n)
	}
}

// dropStale drops reads without a receipt that are too old to be sent. The lock is held.
func (r *reads) dropStale() {
	oldest, before := r.now().Add(-maxReadAge), len(r.waiting)
	r.waiting = slices.DeleteFunc(r.waiting, func(s seenAt) bool { return s.of.receipt == "" && s.at.Before(oldest) })
	if n := before - len(r.waiting); n > 0 {
		r.forgot(n)
	}
}

// tell sends what waits: the time for gathering is over, or there is a new connection.
func (r *reads) tell() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopTimer()
	if !r.over {
		r.flush()
	}
}

func (r *reads) flush() {
	r.dropStale()
	of := r.waiting
	r.waiting = nil
	r.sent = slices.DeleteFunc(r.sent, func(s sentReads) bool { return !r.doubtful(s) })
	ids := make([]key, len(of))
	for i, s := range of {
		ids[i] = s.of
	}
	for _, chunk := range chunks(ids) {
		part := of[:len(chunk)]
		of = of[len(chunk):]
		if r.send(chunk) != nil {
			r.keep(part)
			continue
		}
		r.last = time.Now()
		r.sent = append(r.sent, sentReads{r.last, part})
	}
}

func (r *reads) doubtful(s sentReads) bool { return s.at.After(r.heard.Add(-inDoubt)) }

// alive notes a sign of life of the server.
func (r *reads) alive() {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard = now
}

// lost is called when a connection ended: reads that may not have arrived wait for the next.
func (r *reads) lost() {
	r.mu.Lock()
	defer r.mu.Unlock()
	waiting := r.waiting
	r.waiting = nil
	for _, s := range r.sent {
		if r.doubtful(s) {
			r.keep(s.of)
		}
	}
	r.keep(waiting)
	r.sent = nil
}

// close drops all reads.
func (r *reads) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over, r.waiting, r.sent = true, nil, nil
	r.stopTimer()
}

func (r *reads) stopTimer() {
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
}
