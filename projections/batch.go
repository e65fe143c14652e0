package projections

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/template"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// A source is one partition of one topic as the writer follows it. Only the writer touches it but for
// what is atomic.
type source struct {
	topic     string
	partition int32
	// at is the checkpoint that the writer expects in Postgres: everything before it is in the tables.
	at int64
	// gone: the partition is somebody else's now, what is still queued is dropped.
	gone func() bool
	// moved is told each new checkpoint.
	moved func(next int64)
	// written is at, for others to read; lastMs is the time of the last record that was written.
	written, lastMs atomic.Int64
}

// moveTo takes up a new checkpoint.
func (s *source) moveTo(next int64) {
	s.at = next
	s.written.Store(next)
	s.moved(next)
}

// A chunk is a run of one source's facts in order. next is the offset behind its last record, facts or
// not.
type chunk struct {
	src   *source
	facts []fact
	next  int64
	// lastMs is the time of its last record; gaps are what the log had lost before it.
	lastMs int64
	gaps   []gap
	// begins is its first record, where one was missing before it or it is the first of its feed; else none.
	begins struct{ offset, ms int64 }
	// done is called once: when the chunk is in Postgres, or was dropped.
	done func()
}

// A gap is what retention removed before it was read: the offsets from one to another.
type gap struct{ from, to int64 }

// from cuts what lies before an offset, which somebody else has written.
func (c *chunk) from(at int64) {
	i := 0
	for i < len(c.facts) && c.facts[i].rec.Offset < at {
		i++
	}
	c.facts = c.facts[i:]
}

// weight counts facts over chunks.
func weight(chunks []*chunk) int {
	n := 0
	for _, c := range chunks {
		n += len(c.facts)
	}
	return n
}

// split halves the facts; a chunk in the middle is cut in two, of which only the second reports done.
func split(chunks []*chunk) (a, b []*chunk) {
	half := weight(chunks) / 2
	for i, c := range chunks {
		if len(c.facts) < half {
			half -= len(c.facts)
			a = append(a, c)
			continue
		}
		if half == 0 {
			return a, append(b, chunks[i:]...)
		}
		if half == len(c.facts) {
			return append(a, c), append(b, chunks[i+1:]...)
		}
		head := &chunk{src: c.src, gaps: c.gaps, begins: c.begins, facts: c.facts[:half], next: c.facts[half].rec.Offset, done: func() {}}
		tail := &chunk{src: c.src, facts: c.facts[half:], next: c.next, lastMs: c.lastMs, done: c.done}
		return append(a, head), append(append(b, tail), chunks[i+1:]...)
	}
	return a, b
}

// A duplicate is one recipient of a request that was dropped because the delivery exists.
type duplicate struct {
	notificationID, userID string
	request                position
}

// An acceptedRequest is one accepted request record.
type acceptedRequest struct {
	notificationID, category, template string
	lane                               whisperv1.Lane
	acceptedAt                         int64 // Unix microseconds
	recipients                         int64
	templateVersion                    int64 // 0: none
}

type requestKey struct {
	day int32
	at  position
}

// A folded batch is what its facts say, one value a row.
type folded struct {
	rows       map[domain.DeliveryID]*foldedRow
	attempts   map[attemptKey]*attempt
	requests   map[requestKey]acceptedRequest
	duplicates map[duplicate]fact
	answers    map[answerKey]int64
	// broadcasts by the last that was told of them, and what the first fact of each says.
	progress map[castKey]fact
	casts    map[castKey]*cast
	specs    []fact
	// timeline are the facts that have a row there.
	timeline []fact
	// unproven facts are to be resolved before they count.
	unproven []fact
	// reachedUS is the latest time that each source's facts tell of.
	reachedUS map[*source]int64
}

type foldedRow struct {
	row
	partition int32
}

func fold(chunks []*chunk) *folded {
	n := weight(chunks)
	b := &folded{
		rows:       make(map[domain.DeliveryID]*foldedRow, n/2),
		attempts:   make(map[attemptKey]*attempt, n/2),
		requests:   map[requestKey]acceptedRequest{},
		duplicates: map[duplicate]fact{},
		answers:    map[answerKey]int64{},
		progress:   map[castKey]fact{},
		casts:      map[castKey]*cast{},
		timeline:   make([]fact, 0, n),
		reachedUS:  map[*source]int64{},
	}
	for _, c := range chunks {
		latest := int64(0)
		for _, f := range c.facts {
			if f.ev.GetUserErased() != nil {
				continue // about a user, no delivery: see erasures.go
			}
			latest = max(latest, f.ev.GetAtUs())
			if f.unproven() {
				b.unproven = append(b.unproven, f)
				continue
			}
			b.add(f)
		}
		b.reachedUS[c.src] = max(b.reachedUS[c.src], latest)
	}
	return b
}

// add folds one fact whose delivery is known.
func (b *folded) add(f fact) {
	if p := f.ev.GetBroadcastProgressed(); p != nil {
		b.progressed(f, p)
		if p.GetBroadcast() == nil {
			return // twice a second and partition: no story that anybody reads
		}
	}
	b.timeline = append(b.timeline, f)
	switch k := f.ev.GetKind().(type) {
	case *whisperv1.Event_DeliveryAccepted:
		b.register(f, k.DeliveryAccepted)
	case *whisperv1.Event_DuplicateDropped:
		b.duplicates[duplicate{f.ev.GetNotificationId(), f.ev.GetUserId(), positionOf(k.DuplicateDropped.GetRequest())}] = f
	}
	if r, ok := rowOf(f); ok {
		if old := b.rows[f.id]; old != nil {
			old.merge(r)
		} else {
			b.rows[f.id] = &foldedRow{row: r, partition: f.userPartition()}
		}
	}
	if a, ok := attemptOf(f); ok {
		if key, ok := answerOf(f, a); ok {
			b.answers[key]++
		}
		if old := b.attempts[a.attemptKey]; old != nil {
			old.merge(a)
		} else {
			b.attempts[a.attemptKey] = &a
		}
	}
}

// register keeps the request of an accepted delivery. Every recipient's record of one request says the
// same, so which of them stands does not matter. A dropped duplicate's request comes here as well: its
// accepted records are what dispatch dropped.
func (b *folded) register(f fact, acc *whisperv1.DeliveryAccepted) {
	template, version := template.Split(acc.GetTemplate())
	b.requests[requestKey{dayOf(f.id), positionOf(acc.GetRequest())}] = acceptedRequest{
		notificationID:  f.ev.GetNotificationId(),
		category:        acc.GetCategory(),
		template:        template,
		templateVersion: version,
		lane:            f.ev.GetLane(),
		acceptedAt:      f.id.Time().UnixMicro(),
		recipients:      int64(acc.GetRecipients()),
	}
}

// partitions are the user partitions that the batch writes, ascending.
func partitions(chunks []*chunk) []int32 {
	var ids []int32
	for _, c := range chunks {
		ids = append(ids, c.src.partition)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// sorted are a map's keys in a fixed order: transactions that touch the same rows take them in one
// order, so that they wait for each other and never deadlock.
func sorted[K comparable, V any](m map[K]V, compare func(a, b K) int) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compare)
	return keys
}

func compareRequests(a, b requestKey) int {
	if c := cmp.Compare(a.day, b.day); c != 0 {
		return c
	}
	return a.at.compare(b.at)
}

func compareAttempts(a, b attemptKey) int {
	if c := a.id.Compare(b.id); c != 0 {
		return c
	}
	if c := cmp.Compare(a.number, b.number); c != 0 {
		return c
	}
	return cmp.Compare(a.target, b.target)
}

func compareStats(a, b statKey) int {
	return cmp.Or(
		cmp.Compare(a.minute, b.minute), cmp.Compare(a.lane, b.lane), cmp.Compare(a.category, b.category),
		cmp.Compare(a.channel, b.channel), cmp.Compare(a.status, b.status), cmp.Compare(a.partition, b.partition),
	)
}
