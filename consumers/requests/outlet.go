package requests

import (
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/semaphore"

	"github.com/klivvr/whisper/consumers"
)

// An Outlet is one lane's own way to Kafka: a producer with its own connections, buffer and client id. What Kafka does to
// a lane (a full buffer, a quota, a partition without a leader) it does to no other lane.
type Outlet struct {
	Publisher *consumers.Publisher
	dead      *consumers.DeadLetters
	// lists bounds the bytes of deliveries of lists that are on their way to Kafka. What makes one record of one has
	// no part in it.
	lists *semaphore.Weighted
}

// listsBytes is what a lane may have on its way of requests that come to many records. It is what Kafka's own log, disk
// and replicas have to deal with before anything else, and what another record of the same lane and partition waits
// behind; and it is enough for 400 MB/s where Kafka takes 10 ms to acknowledge.
const listsBytes = 4 << 20

// recordCost is what a record costs beside its bytes.
const recordCost = 128

// NewOutlet writes through a publisher that the caller runs and closes, and refuses in the name of a role.
func NewOutlet(publisher *consumers.Publisher, role string) *Outlet {
	return &Outlet{Publisher: publisher, dead: consumers.NewDeadLetters(publisher, role), lists: semaphore.NewWeighted(listsBytes)}
}

// Room says whether the deliveries of lists may have so many bytes more on their way.
func (o *Outlet) Room(bytes int64) bool {
	if !o.lists.TryAcquire(bytes) {
		return false
	}
	o.lists.Release(bytes)
	return true
}

// costOf is a record's part of listsBytes.
func costOf(rec *kgo.Record) int64 {
	return min(listsBytes, int64(recordCost+len(rec.Key)+len(rec.Value)))
}
