package dispatch

import (
	"fmt"

	"github.com/VictoriaMetrics/metrics"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/klivvr/whisper/consumers"
)

// What can't be read of a changelog reaches itself alone: it is passed over, and a restore goes on. It may have been
// something, so it is kept as a dead letter, counted and told with what is lost with it. It stays in its changelog,
// since a later version may be able to read it; each process that restores the partition tells of it once.

// lostWith is what a partition does without when a record of the topic can't be read.
var lostWith = map[string]string{
	consumers.TopicUsers:    "the user has the profile from before it, or none",
	consumers.TopicSeen:     "ids that it remembered may be sent a second time",
	consumers.TopicCounters: "caps don't count what it counted",
	consumers.TopicTimers:   "the delivery or broadcast that it holds is not gone on with",
	consumers.TopicTokens:   "whoever had the device before may still be pushed to there",
	consumers.TopicPresence: "the user is reached when they connect again",
}

// each restores records one by one; what can't be read is passed over.
func (p *partition) each(restore func(*kgo.Record) error) func([]*kgo.Record) {
	return func(recs []*kgo.Record) {
		for _, rec := range recs {
			if err := restore(rec); err != nil {
				p.junk(rec, err)
			}
		}
	}
}

func (p *partition) junk(rec *kgo.Record, err error) {
	err = fmt.Errorf("%s/%d at %d can't be read: %w", rec.Topic, rec.Partition, rec.Offset, err)
	if !p.role.junk.add(rec, err) {
		return
	}
	metrics.GetOrCreateCounter(fmt.Sprintf(`whisper_dispatch_unreadable_records_total{topic=%q}`, rec.Topic)).Inc()
	p.role.log.Error("a record of a changelog is passed over", "partition", p.id, "key", fmt.Sprintf("%x", rec.Key),
		"lost", lostWith[rec.Topic], "error", err)
	p.role.dead.Put(p.ctx, rec, &consumers.Reason{Word: "unreadable", Err: err}, func(err error) {
		if err != nil && p.ctx.Err() == nil {
			p.role.log.Error("keep a record that can't be read", "topic", rec.Topic, "partition", rec.Partition, "offset", rec.Offset, "error", err)
		}
	})
}

// wireError says whether bytes are fields at all. What is in them is looked at when it is used, which can't fail
// worse than by a field that is not there; a whole decoding would double the time of a restore.
func wireError(b []byte) error {
	for len(b) > 0 {
		_, _, n := protowire.ConsumeField(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
	}
	return nil
}
