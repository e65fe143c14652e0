package gateway

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// timekeeper pings sessions, cuts off those that don't answer and closes those whose token expires: one
// heap and one ticker for all, 16 bytes a session.
type timekeeper struct {
	g    *Gateway
	mu   sync.Mutex
	heap alarms
}

// alarm is a session's place in the heap; the timekeeper's lock guards it.
type alarm struct {
	due    int64 // Unix nanoseconds
	pinged int64 // when the ping went out that waits for its pong; 0: none
	index  int   // -1: not in the heap
}

type alarms []*session

func (a alarms) Len() int           { return len(a) }
func (a alarms) Less(i, j int) bool { return a[i].alarm.due < a[j].alarm.due }
func (a alarms) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].alarm.index, a[j].alarm.index = i, j
}

func (a *alarms) Push(x any) {
	s := x.(*session)
	s.alarm.index = len(*a)
	*a = append(*a, s)
}

func (a *alarms) Pop() any {
	old := *a
	s := old[len(old)-1]
	old[len(old)-1] = nil
	*a = old[:len(old)-1]
	s.alarm.index = -1
	return s
}

// add sets the first ping somewhere within the interval, so that sessions that came together are not
// pinged together.
func (k *timekeeper) add(s *session) {
	now := k.g.cfg.Now().UnixNano()
	k.mu.Lock()
	defer k.mu.Unlock()
	s.alarm.due = min(now+rand.Int64N(int64(k.g.cfg.PingInterval)), s.expires.UnixNano())
	heap.Push(&k.heap, s)
}

// remove is idempotent.
func (k *timekeeper) remove(s *session) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s.alarm.index >= 0 {
		heap.Remove(&k.heap, s.alarm.index)
	}
}

func (k *timekeeper) run(ctx context.Context) error {
	ticker := time.NewTicker(min(time.Second, max(k.g.cfg.PongTimeout/10, time.Millisecond)))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			k.tick(k.g.cfg.Now().UnixNano())
		}
	}
}

func (k *timekeeper) tick(now int64) {
	var ping, dead, expired []*session
	k.mu.Lock()
	for len(k.heap) > 0 && k.heap[0].alarm.due <= now {
		s := k.heap[0]
		a := &s.alarm
		switch {
		case s.expires.UnixNano() <= now:
			expired = append(expired, s)
			heap.Pop(&k.heap)
			continue
		case a.pinged == 0:
			ping = append(ping, s)
			a.pinged = now
			a.due = now + int64(k.g.cfg.PongTimeout)
		case s.heard.Load() < a.pinged:
			dead = append(dead, s)
			heap.Pop(&k.heap)
			continue
		default:
			a.due = a.pinged + int64(k.g.cfg.PingInterval)
			a.pinged = 0
		}
		a.due = min(a.due, s.expires.UnixNano())
		heap.Fix(&k.heap, 0)
	}
	k.mu.Unlock()
	for _, s := range expired {
		s.close(closeExpired, errTokenExpired.Error(), false)
	}
	for _, s := range ping {
		s.control(pingFrame)
	}
	for _, s := range dead {
		s.part(closeGone, nil, false)
		_ = s.net.Close() // ends its reader, which frees it
	}
}
