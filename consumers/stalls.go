package consumers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// stallCheck is how often partitions that stand still are compared with the log's end. It costs two requests a
// broker.
const stallCheck = 5 * time.Second

// stallsFor is how many checks a partition with a readable record must stand still before it counts as stalled: the
// client may just be slow.
const stallsFor = 3

type topicPartition struct {
	topic string
	id    int32
}

// stalls finds the partitions of a consumer that do not move though there is something to read, sees why, and gets
// them past what can't be read. The client library tells of some such batches and is silent about others, so both its
// errors and the ends of the log are looked at.
type stalls struct {
	skipper *skipper

	mu        sync.Mutex
	suspects  map[topicPartition]bool
	wake      chan struct{}
	reasons   map[topicPartition]error
	checks    map[topicPartition]standstill
	skips     map[topicPartition]func() // to be done between two polls
	interrupt context.CancelFunc
}

// standstill is where a partition stood, and for how many checks.
type standstill struct {
	at     int64
	checks int
}

func newStalls(s *skipper) *stalls {
	return &stalls{
		skipper: s, suspects: map[topicPartition]bool{}, wake: make(chan struct{}, 1),
		reasons: map[topicPartition]error{}, checks: map[topicPartition]standstill{}, skips: map[topicPartition]func(){},
	}
}

// reason says why a partition does not move, nil where it does.
func (s *stalls) reason(topic string, id int32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reasons[topicPartition{topic, id}]
}

// suspect notes partitions whose fetch failed in a way that fetching again may not help.
func (s *stalls) suspect(fetches kgo.Fetches) {
	fetches.EachError(func(topic string, id int32, err error) {
		if topic == "" || id < 0 || !suspicious(err) {
			return
		}
		s.mu.Lock()
		s.suspects[topicPartition{topic, id}] = true
		s.mu.Unlock()
		select {
		case s.wake <- struct{}{}:
		default:
		}
	})
}

// nextPoll is the context of the next poll, which ends early when there is something to skip.
func (s *stalls) nextPoll(ctx context.Context) (context.Context, context.CancelFunc) {
	poll, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.interrupt = cancel
	if len(s.skips) > 0 {
		cancel()
	}
	return poll, cancel
}

// later has the goroutine that polls do something between two polls, when nothing is assigned or revoked.
func (s *stalls) later(p topicPartition, do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skips[p] = do
	if s.interrupt != nil {
		s.interrupt()
	}
}

// skip does what is to be done between two polls.
func (s *stalls) skip() {
	s.mu.Lock()
	skips := maps.Clone(s.skips)
	s.mu.Unlock()
	for p, do := range skips {
		do()
		s.mu.Lock()
		delete(s.skips, p) // after it was done: until then standing tells the offset before
		s.mu.Unlock()
	}
}

// watch runs until ctx ends. standing are the partitions that wait for records, with their offsets (-1: not known,
// nothing was read); skipTo moves one of them on.
func (s *stalls) watch(
	ctx context.Context, every time.Duration, standing func() map[topicPartition]int64, skipTo func(p topicPartition, from, next int64),
) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		var suspects map[topicPartition]bool
		all := false
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			all = true
		case <-s.wake:
			s.mu.Lock()
			suspects, s.suspects = s.suspects, map[topicPartition]bool{}
			s.mu.Unlock()
		}
		at := s.unmoved(standing, suspects, all)
		if err := s.check(ctx, at, all, skipTo); err != nil && ctx.Err() == nil {
			s.skipper.cfg.logger().Warn("compare what was read with the log", "error", err)
		}
		if !all { // the client fetches what failed again and again; the next look comes with the tick, or after a pause
			select {
			case <-ctx.Done():
				return
			case <-time.After(min(every, time.Second)):
			}
		}
	}
}

// unmoved are the partitions to look at. One that is about to be moved is none: it would have a second dead letter.
func (s *stalls) unmoved(standing func() map[topicPartition]int64, suspects map[topicPartition]bool, all bool) map[topicPartition]int64 {
	s.mu.Lock()
	moving := maps.Clone(s.skips)
	s.mu.Unlock()
	at := standing()
	maps.DeleteFunc(at, func(p topicPartition, _ int64) bool {
		_, moves := moving[p]
		return moves || !all && !suspects[p]
	})
	return at
}

func (s *stalls) check(ctx context.Context, at map[topicPartition]int64, all bool, skipTo func(p topicPartition, from, next int64)) error {
	if all {
		s.forget(at)
	}
	if len(at) == 0 {
		return nil
	}
	starts, ends, err := s.bounds(ctx, at)
	if err != nil {
		return err
	}
	for p, from := range at {
		start, ok := starts.Lookup(p.topic, p.id)
		end, known := ends.Lookup(p.topic, p.id)
		if !ok || !known || start.Err != nil || end.Err != nil {
			continue
		}
		from, was := max(from, start.Offset), from
		if from >= end.Offset {
			s.tell(p, was, nil)
			continue
		}
		stood := s.stood(p, was, all)
		if all && stood < 2 {
			continue // it may just have come
		}
		next, there, err := s.skipper.pass(ctx, p.topic, p.id, from)
		switch {
		case next > from:
			skipTo(p, was, next)
			s.tell(p, was, nil)
		case err != nil && ctx.Err() == nil:
			s.skipper.cfg.logger().Warn("a partition does not move",
				"topic", p.topic, "partition", p.id, "offset", from, "end", end.Offset, "error", err)
			s.tell(p, was, err)
		case there && stood >= stallsFor:
			s.tell(p, was, fmt.Errorf("there are records from offset %d to %d, and none arrives", from, end.Offset))
		}
	}
	return nil
}

// stood is for how many checks a partition has stood at an offset.
func (s *stalls) stood(p topicPartition, at int64, more bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.checks[p]
	if c.at != at {
		c = standstill{at: at}
	}
	if more {
		c.checks++
	}
	s.checks[p] = c
	return c.checks
}

// forget drops what is known of partitions that have moved, are busy or are gone.
func (s *stalls) forget(standing map[topicPartition]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, c := range s.checks {
		if at, ok := standing[p]; !ok || at != c.at {
			delete(s.checks, p)
			delete(s.reasons, p)
		}
	}
}

func (s *stalls) tell(p topicPartition, at int64, reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if reason == nil {
		delete(s.reasons, p)
		return
	}
	s.reasons[p] = reason
	if c := s.checks[p]; c.at != at { // so that it is forgotten when it moves
		s.checks[p] = standstill{at: at}
	}
}

func (s *stalls) bounds(ctx context.Context, at map[topicPartition]int64) (starts, ends kadm.ListedOffsets, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	seen := map[string]bool{}
	var topics []string
	for p := range at {
		if !seen[p.topic] {
			seen[p.topic], topics = true, append(topics, p.topic)
		}
	}
	if starts, err = s.skipper.adm.ListStartOffsets(ctx, topics...); err != nil {
		return nil, nil, err
	}
	ends, err = s.skipper.adm.ListCommittedOffsets(ctx, topics...)
	return starts, ends, err
}

// standing are the loop's partitions that wait for records.
func (l *Loop) standing() map[topicPartition]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := map[topicPartition]int64{}
	for topic, parts := range l.workers {
		for id, w := range parts {
			w.mu.Lock()
			if len(w.queue) == 0 && !w.paused && !w.stopped.Load() {
				at[topicPartition{topic, id}] = w.position
			}
			w.mu.Unlock()
		}
	}
	return at
}

// skipTo has the loop go on at next, where the partition is still its own and has not moved.
func (l *Loop) skipTo(p topicPartition, from, next int64) {
	l.stalls.later(p, func() {
		l.commits.Lock() // the client wants no commit meanwhile
		defer l.commits.Unlock()
		w := l.worker(p.topic, p.id)
		if w == nil || w.stopped.Load() {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.position != from {
			return
		}
		w.passTo(next)
		w.signal()
		l.cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{p.topic: {p.id: {Epoch: -1, Offset: next}}})
	})
}

// standing are the reader's partitions; it has no queue, so all of them may.
func (r *Reader) standing() map[topicPartition]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := map[topicPartition]int64{}
	for topic, parts := range r.following {
		for id, f := range parts {
			at[topicPartition{topic, id}] = f.next.Load()
		}
	}
	return at
}

// skipTo has the reader go on at next, where the partition is still followed and has not moved.
func (r *Reader) skipTo(p topicPartition, from, next int64) {
	r.stalls.later(p, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		f := r.following[p.topic][p.id]
		if f == nil || !f.next.CompareAndSwap(from, next) {
			return
		}
		// Unfollow takes mu before it has the client let go, so this can't reach a partition that is followed anew.
		r.cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{p.topic: {p.id: {Epoch: -1, Offset: next}}})
		if next >= f.end {
			f.done()
		}
	})
}

// SkipOversized has a client that consumes by itself go on behind batches that expand to more than is taken, and
// says which those are. Loop and Reader do so on their own, with dead letters.
func SkipOversized(cl *kgo.Client, fetches kgo.Fetches) (skipped []*kgo.ErrDecompressTooLarge) {
	fetches.EachError(func(topic string, id int32, err error) {
		var big *kgo.ErrDecompressTooLarge
		if errors.As(err, &big) {
			cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{topic: {id: {Epoch: -1, Offset: big.NextOffset}}})
			skipped = append(skipped, big)
		}
	})
	return skipped
}
