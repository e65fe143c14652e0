package dispatch

import (
	"context"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
)

// changelogs are the topics that a partition is restored from and that only its owner writes. The compacted ones are
// repaired after a stray record: one that an earlier owner wrote when it had lost the partition already. To
// whisper.tokens others write, too; it is followed anyway, and the state itself writes anew what a stray stands in front of.
var changelogs = changelogTopics()

type changelog struct {
	topic    string
	repaired bool // by repairs
}

func changelogTopics() (logs []changelog) {
	for _, topic := range consumers.Changelogs() {
		logs = append(logs, changelog{topic, topic == consumers.TopicUsers || topic == consumers.TopicTimers})
	}
	return logs
}

// takeover is how a process becomes the owner of a partition: it reads the changelogs to their end, writes its mark
// behind that, and reads on up to the mark. What earlier owners write from then on does not count, whenever it lands.
type takeover struct {
	mu     sync.Mutex
	logs   map[string]*takenLog
	own    consumers.Epoch // once it is chosen
	latest consumers.Epoch // of any owner so far
}

type takenLog struct {
	owners consumers.Owners
	strays map[string]bool // keys whose last record does not count
	marked chan struct{}   // closed when our own mark is read
	end    int64           // our mark's offset
}

func newTakeover() *takeover {
	t := &takeover{logs: map[string]*takenLog{}}
	for _, c := range changelogs {
		t.logs[c.topic] = &takenLog{strays: map[string]bool{}, marked: make(chan struct{}), end: -1}
	}
	return t
}

// current hands on the records of a changelog that count.
func (t *takeover) current(topic string, to func([]*kgo.Record)) func([]*kgo.Record) {
	log := t.logs[topic]
	return func(recs []*kgo.Record) {
		if kept := t.keep(log, recs); len(kept) > 0 {
			to(kept)
		}
	}
}

func (t *takeover) keep(log *takenLog, recs []*kgo.Record) []*kgo.Record {
	kept := make([]*kgo.Record, 0, len(recs))
	for _, rec := range recs {
		switch stale, mark, _ := t.judge(log, rec); {
		case mark:
		case stale:
			log.strays[string(rec.Key)] = true
		default:
			delete(log.strays, string(rec.Key))
			kept = append(kept, rec)
		}
	}
	return kept
}

// judge says whether a record does not count, and whether it is a mark; taken: it stands behind our own.
func (t *takeover) judge(log *takenLog, rec *kgo.Record) (stale, mark, taken bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	stale, mark = log.owners.Stale(rec)
	t.latest = max(t.latest, log.owners.Latest())
	if epoch := consumers.EpochOf(rec); mark && epoch == t.own && epoch != consumers.NoEpoch && log.end < 0 {
		log.end = rec.Offset
		close(log.marked)
	}
	return stale, mark, log.end >= 0
}

// takeOver chooses the epoch and writes the marks, once the changelogs are read to their end. It returns when they
// are read up to the marks.
func (p *partition) takeOver(ctx context.Context, t *takeover) error {
	source := p.sources[queueEvents]
	t.mu.Lock()
	epoch, again := t.latest.Next(source.Generation)
	t.mu.Unlock()
	if again { // the group counts anew, or we are late: then it is no longer ours
		if err := p.role.loop.Confirm(ctx, source); err != nil {
			return err
		}
	}
	t.mu.Lock()
	t.own = epoch
	t.mu.Unlock()
	p.ownedAs = epoch
	p.owner = []kgo.RecordHeader{epoch.Header()}
	marks := make([]*kgo.Record, 0, len(changelogs))
	for _, c := range changelogs {
		marks = append(marks, epoch.Mark(c.topic, p.id))
	}
	if err := p.role.direct.PublishSync(ctx, marks...); err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	for _, log := range t.logs {
		select {
		case <-log.marked:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if p.role.cfg.Client.Instance == "" {
		return nil
	}
	// Two processes of one instance may have the partition in one generation, and both may have chosen this epoch. Whoever
	// the group confirms behind its marks is the later one: whoever comes after it reads them, and chooses a greater one.
	return p.role.loop.Confirm(ctx, source)
}

// stale says whether a fact is the word of an owner who had lost the partition when it was written: it ends nothing.
// What an earlier owner committed was acknowledged before the takeover, so it stands before the end that was found
// then.
func (p *partition) stale(fact *kgo.Record) bool {
	epoch := consumers.EpochOf(fact)
	return epoch != consumers.NoEpoch && epoch < p.ownedAs && fact.Offset >= p.eventsEnd
}

// leads says whether the loop may decide: the group has confirmed this process lately, and nobody has taken over.
func (p *partition) leads() bool { return !p.repairs.overtaken.Load() && p.role.loop.Leads() }
