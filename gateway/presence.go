package gateway

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// HeaderIncarnation is on every presence record, since a tombstone has no value to tell whose it is.
const HeaderIncarnation = "incarnation"

// presencePace gathers the changes of one user (a page that reloads closes and opens) and of many.
const presencePace = 5 * time.Millisecond

// presence publishes what the hub knows of each user: the last state wins, and none is skipped forever.
// One user costs one record per change and 5 ms at most.
type presence struct {
	g *Gateway

	mu    sync.Mutex
	dirty []*user
	wake  chan struct{}

	publishing sync.Mutex // one at a time, so that the records of a user keep their order
}

func newPresence(g *Gateway) *presence {
	return &presence{g: g, wake: make(chan struct{}, 1)}
}

// changed is called under the lock of the user's shard.
func (p *presence) changed(u *user) {
	p.mu.Lock()
	p.dirty = append(p.dirty, u)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *presence) run(ctx context.Context) error {
	pace := time.NewTimer(0)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		}
		p.publish()
		pace.Reset(presencePace)
		select {
		case <-ctx.Done():
			return nil
		case <-pace.C:
		}
	}
}

// publish hands every change so far to the publisher.
func (p *presence) publish() {
	p.publishing.Lock()
	defer p.publishing.Unlock()
	p.mu.Lock()
	users := p.dirty
	p.dirty = nil
	p.mu.Unlock()
	if p.g.superseded() {
		return // the keys belong to the next incarnation now
	}
	for _, u := range users {
		if rec := p.snapshot(u); rec != nil {
			p.g.broker.Publish(rec, func(err error) {
				if err != nil {
					p.again(u)
				}
			})
		}
	}
}

// presenceAgain is how soon a state is told again that Kafka refused: the topic is mended or made anew meanwhile.
const presenceAgain = time.Second

// again has a user's state told once more, as it is by then.
func (p *presence) again(u *user) {
	time.AfterFunc(presenceAgain, func() {
		sh := p.g.hub.shard(u.id)
		sh.mu.Lock()
		defer sh.mu.Unlock()
		if now := sh.users[u.id]; now != nil {
			u = now // connected again: the old state would deny it
		}
		sh.users[u.id] = u
		u.gone = false // it was not told
		p.g.hub.mark(u)
	})
}

// snapshot is the record of the user's state now; nil where the last one still tells it.
func (p *presence) snapshot(u *user) *kgo.Record {
	sh := p.g.hub.shard(u.id)
	sh.mu.Lock()
	u.dirty = false
	state := &whisperv1.Presence{
		UserId:        u.id,
		Node:          p.g.cfg.Node,
		Incarnation:   p.g.incarnation.Load(),
		Sessions:      int32(len(u.sessions)),
		LatestSession: u.latest,
		AtUs:          u.changedUS,
	}
	if state.Sessions == 0 {
		delete(sh.users, u.id)
	}
	gone := state.Sessions == 0
	repeated := gone && u.gone
	u.gone = gone
	sh.mu.Unlock()
	if repeated {
		return nil
	}
	return p.record(state, gone)
}

func (p *presence) record(state *whisperv1.Presence, gone bool) *kgo.Record {
	key := make([]byte, 0, len(state.UserId)+1+len(state.Node))
	key = append(append(append(key, state.UserId...), 0), state.Node...)
	rec := &kgo.Record{
		Topic:     consumers.TopicPresence,
		Partition: consumers.PartitionOf(state.UserId, p.g.cfg.Partitions),
		Key:       key,
		Headers:   []kgo.RecordHeader{{Key: HeaderIncarnation, Value: strconv.AppendUint(nil, state.Incarnation, 10)}},
	}
	if !gone {
		rec.Value = mustMarshal(state)
	}
	return rec
}

// mustMarshal encodes our own structs; only text that is not UTF-8 fails, and ids are checked when they
// come in.
func mustMarshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic("gateway: a record that can't be encoded: " + err.Error())
	}
	return b
}
