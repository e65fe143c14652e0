package client

import (
	"context"
	"errors"
	"sync"
	"time"
)

// inbox stands between the connection, which must go on answering pings, and the application, which may be slow. It
// hands over one notification at a time, the most urgent lane first and each lane in order. Its goroutine runs only
// while there is something to hand over. Each notification is handed over once. It is acknowledged after that, and again
// for each duplicate.
//
// An acknowledgement is sent over the connection that delivered the notification last. The server of a newer connection
// would not know the delivery before it has sent it again.
type inbox struct {
	ctx     context.Context
	handle  func(context.Context, Notification) error
	retract func(id string)
	ack     func(session int, of key)
	failed  func(Notification, error)
	channel chan Notification // nil if there is a handle
	room    chan struct{}     // one token for each notification that waits or is being handed over

	mu       sync.Mutex
	lanes    [3][]entry
	pending  map[key]int // what waits or is being handed over, and the connection that delivered it last
	seen     window
	receipts latest
	offered  int           // the lane of what is offered to the channel's receiver
	inHand   string        // its id
	passed   chan struct{} // something more urgent has arrived since
	idle     chan struct{} // closed while there is no worker
	working  bool
}

// entry is an element of a queue: a notification, or in retracted the id of one that was retracted.
type entry struct {
	note      Notification
	retracted string
}

var errPassed = errors.New("something more urgent has arrived")

func (in *inbox) init(c *Client) {
	in.ctx = c.ctx
	in.handle, in.retract = c.opts.Handle, c.opts.Retracted
	in.ack = c.acknowledge
	in.failed = func(n Notification, err error) {
		c.opts.Logger.Info("notification not handled", "notification_id", n.ID, "error", err)
	}
	if in.handle == nil {
		in.channel = make(chan Notification)
		in.handle = in.offer
	}
	in.room = make(chan struct{}, c.opts.Queue)
	in.pending = map[key]int{}
	in.seen = newWindow(c.opts.Window)
	in.receipts = latest{of: map[string]dated{}, size: c.opts.Window}
	in.passed = make(chan struct{}, 1)
	in.idle = make(chan struct{})
	close(in.idle)
}

// laneOf is 0 for the most urgent lane. A lane that only a later server knows counts as normal.
func laneOf(n Notification) int {
	switch n.Lane {
	case "high":
		return 0
	case "low":
		return 2
	default:
		return 1
	}
}

// take accepts a notification from a connection. It blocks while the queue is full, and says whether it had to.
func (in *inbox) take(session int, n Notification) (waited bool) {
	k := keyOf(n)
	in.mu.Lock()
	if in.seen.has(k) {
		in.mu.Unlock()
		in.ack(session, k)
		return false
	}
	_, known := in.pending[k]
	in.pending[k] = session
	if !known {
		in.receipts.note(n)
	}
	in.mu.Unlock()
	if known {
		return false
	}
	return in.push(laneOf(n), entry{note: n})
}

// takeBack reports a retraction: after the notification itself, if that still waits.
func (in *inbox) takeBack(id string) (waited bool) {
	if in.retract == nil {
		return false
	}
	in.mu.Lock()
	lane := 0
	for i, queue := range in.lanes {
		for _, e := range queue {
			if e.note.ID == id {
				lane = i
			}
		}
	}
	if in.channel != nil && in.inHand == id {
		lane = max(lane, in.offered) // it goes back to its lane when something more urgent arrives
	}
	in.mu.Unlock()
	return in.push(lane, entry{retracted: id})
}

func (in *inbox) push(lane int, e entry) (waited bool) {
	select {
	case in.room <- struct{}{}:
	default:
		waited = true
		select {
		case in.room <- struct{}{}:
		case <-in.ctx.Done():
			return waited // the client has ended: not acknowledged, so the server sends it again
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.lanes[lane] = append(in.lanes[lane], e)
	if lane < in.offered {
		select {
		case in.passed <- struct{}{}:
		default:
		}
	}
	if !in.working && in.ctx.Err() == nil {
		in.working, in.idle = true, make(chan struct{})
		go in.work()
	}
	return waited
}

// work hands over what waits, until nothing does.
func (in *inbox) work() {
	for {
		e, lane, ok := in.next()
		if !ok {
			return
		}
		if e.retracted != "" {
			in.retract(e.retracted)
			<-in.room
			continue
		}
		err := in.handle(in.ctx, e.note)
		if errors.Is(err, errPassed) {
			in.mu.Lock()
			in.lanes[lane] = append([]entry{e}, in.lanes[lane]...)
			in.mu.Unlock()
			continue
		}
		in.handled(e.note, err)
		<-in.room
	}
}

// next removes the first entry of the most urgent lane. It returns false, and the worker ends, if there is none or the
// client has ended.
func (in *inbox) next() (entry, int, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ctx.Err() == nil {
		for lane, queue := range in.lanes {
			if len(queue) == 0 {
				continue
			}
			e := queue[0]
			queue[0] = entry{}
			if in.lanes[lane] = queue[1:]; len(queue) == 1 {
				in.lanes[lane] = nil
			}
			in.offered, in.inHand = lane, e.note.ID
			select {
			case <-in.passed: // a signal about the entry that is taken now
			default:
			}
			return e, lane, true
		}
	}
	in.working = false
	close(in.idle)
	return entry{}, 0, false
}

func (in *inbox) handled(n Notification, err error) {
	k := keyOf(n)
	in.mu.Lock()
	session := in.pending[k]
	delete(in.pending, k)
	in.inHand = ""
	if err == nil {
		in.seen.add(k)
	}
	in.mu.Unlock()
	if err != nil {
		in.failed(n, err) // not acknowledged, so the server sends it again
		return
	}
	in.ack(session, k)
}

// offer is the handle of a client without one: the notification is handled when it was received from the channel.
func (in *inbox) offer(ctx context.Context, n Notification) error {
	select {
	case in.channel <- n:
		return nil
	case <-in.passed:
		return errPassed
	case <-ctx.Done():
		return ErrClosed
	}
}

// receipt returns the receipt of the newest notification with the id, by its own time. If none is known it is empty,
// and the server takes the newest that it knows.
func (in *inbox) receipt(id string) string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.receipts.of[id].receipt
}

// rest waits until nothing is being handed over, at most for some time.
func (in *inbox) rest(most time.Duration) {
	in.mu.Lock()
	idle := in.idle
	in.mu.Unlock()
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	}
}

// wait returns when the last callback has returned. The context must have ended before.
func (in *inbox) wait() {
	in.mu.Lock()
	idle := in.idle
	in.mu.Unlock()
	<-idle
	if in.channel != nil {
		close(in.channel)
	}
}

// window remembers the last size deliveries.
type window struct {
	keys map[key]struct{}
	ring []key
	next int
	size int
}

func newWindow(size int) window { return window{keys: map[key]struct{}{}, size: size} }

func (w *window) has(k key) bool {
	_, ok := w.keys[k]
	return ok
}

func (w *window) add(k key) {
	w.keys[k] = struct{}{}
	if len(w.ring) < w.size {
		w.ring = append(w.ring, k)
		return
	}
	delete(w.keys, w.ring[w.next])
	w.ring[w.next] = k
	w.next = (w.next + 1) % w.size
}

// latest remembers the newest delivery of each of the last size ids, by the deliveries' own times. The one that arrives
// last may be older: a delivery of last week that was not acknowledged is sent again after this week's.
type latest struct {
	of   map[string]dated
	ring []string
	next int
	size int
}

// dated is a receipt with the time of its delivery.
type dated struct {
	receipt string
	at      time.Time
}

func (l *latest) note(n Notification) {
	have, known := l.of[n.ID]
	switch {
	case known && n.At.Before(have.at):
		return
	case known:
		l.of[n.ID] = dated{n.Receipt, n.At}
		return
	case n.Receipt == "":
		return
	}
	l.of[n.ID] = dated{n.Receipt, n.At}
	if len(l.ring) < l.size {
		l.ring = append(l.ring, n.ID)
		return
	}
	delete(l.of, l.ring[l.next])
	l.ring[l.next] = n.ID
	l.next = (l.next + 1) % l.size
}
