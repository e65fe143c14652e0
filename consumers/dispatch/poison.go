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
)

// A record whose decision meets a bug is poison: the partition stops, is restored anew, and when its loop comes to the
// record again, that is set aside: a dead letter with the reason, and let go as if it were settled. It is remembered
// in memory only. Another process that comes to it before it was let go meets the bug itself, stops and restores in
// the same way, and no process ends. Once it is let go, nobody meets it again.
//
// The state is never mended in place: a decision changes several structures, and a half of one is worse than a restore.
type poison struct {
	any     atomic.Bool // nearly always false, and then nobody takes the lock
	mu      sync.Mutex
	records map[position]error
}

type position struct {
	topic     string
	partition int32
	offset    int64
}

// maxPoison bounds what is remembered. With so many the bug is not a record's, and the partition waits for a version
// that has it no more.
const maxPoison = 1_000

func newPoison() *poison { return &poison{records: map[position]error{}} }

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

func (q *poison) reason(rec *kgo.Record) error {
	if !q.any.Load() {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.records[positionOf(rec)]
}

// decide decides about a record and writes what follows.
func (p *partition) decide(rec *kgo.Record, in domain.Input, now time.Time) {
	p.deciding = rec
	p.write(rec, p.state.Decide(in, now))
	p.deciding = nil
}

// poisoned is the failure of a partition that met a bug.
func (p *partition) poisoned(err error) error {
	rec := p.deciding
	if rec == nil {
		return fmt.Errorf("decide what is due in partition %d: %w", p.id, err)
	}
	failure := &consumers.Failure{
		Reach: consumers.ReachPartition, Help: consumers.HelpFor(err),
		Err: fmt.Errorf("decide about %s/%d at %d: %w", rec.Topic, rec.Partition, rec.Offset, errors.Unwrap(err)),
	}
	failure.Contained = p.role.poison.add(rec, failure.Err)
	return failure
}

// setAside says whether the record is poison, which goes to the dead letters.
func (p *partition) setAside(rec *kgo.Record) bool {
	reason := p.role.poison.reason(rec)
	if reason == nil {
		return false
	}
	p.role.log.Error("a record that met a bug goes to the dead letters", "topic", rec.Topic, "partition", rec.Partition, "offset", rec.Offset, "error", reason)
	p.reject(rec, &consumers.Reason{Word: "panic", Err: reason})
	return true
}
