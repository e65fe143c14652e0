package intake

import (
	"context"
	"errors"
	"runtime"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
)

// An outlet is one lane's own way to Kafka: a producer with its own connections, buffer and client id. What Kafka does to
// a lane (a full buffer, a quota, a partition without a leader) it does to no other lane.
type outlet struct {
	publisher *consumers.Publisher
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

func newOutlet(c consumers.ClientConfig) (*outlet, error) {
	// At once: the way to the socket begins here.
	publisher, err := consumers.NewPublisher(c, 0)
	if err != nil {
		return nil, err
	}
	return &outlet{publisher: publisher, dead: consumers.NewDeadLetters(publisher, "intake"), lists: semaphore.NewWeighted(listsBytes)}, nil
}

// costOf is a record's part of listsBytes.
func costOf(rec *kgo.Record) int64 {
	return min(listsBytes, int64(recordCost+len(rec.Key)+len(rec.Value)))
}

// outlets are those of the lanes, and one more for what has no lane.
type outlets struct {
	lanes [len(domain.Lanes)]*outlet
	rest  *outlet
}

func newOutlets(c consumers.ClientConfig) (*outlets, error) {
	o := &outlets{}
	var err error
	for _, lane := range domain.Lanes {
		if o.lanes[lane], err = newOutlet(c.ForLane(lane)); err != nil {
			o.close()
			return nil, err
		}
	}
	if o.rest, err = newOutlet(c); err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

func (o *outlets) all() (all []*outlet) {
	for _, out := range append(o.lanes[:], o.rest) {
		if out != nil {
			all = append(all, out)
		}
	}
	return all
}

func (o *outlets) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, out := range o.all() {
		g.Go(func() error { return out.publisher.Run(ctx) })
	}
	return g.Wait()
}

func (o *outlets) ready() error {
	var errs []error
	for _, out := range o.all() {
		errs = append(errs, out.publisher.Ready())
	}
	return errors.Join(errs...)
}

func (o *outlets) close() {
	for _, out := range o.all() {
		out.publisher.Close()
	}
}

// processors is how many partitions of less urgent lanes are worked on at once: half of what there is, so that an alert
// finds a processor at once.
func processors() int { return max(1, runtime.GOMAXPROCS(0)/2) }
