package consumers_test

import (
	"fmt"
	"maps"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/klivvr/whisper/consumers"
)

func TestAnEpochIsGreaterThanItsPredecessors(t *testing.T) {
	t.Parallel()
	first, again := consumers.NoEpoch.Next(1)
	if again || first <= consumers.NoEpoch {
		t.Fatalf("the first owner has %s, again %t", first, again)
	}
	second, again := first.Next(7)
	if again || second <= first {
		t.Errorf("generation 7 after 1 gives %s, again %t", second, again)
	}
	for _, generation := range []int32{7, 6, 1, 0} { // a group that counts anew, or the same owner once more
		next, again := second.Next(generation)
		if !again || next <= second {
			t.Errorf("generation %d after 7 gives %s, again %t: it must be greater than %s, once the group confirms", generation, next, again,
				second)
		}
		if after, again := next.Next(generation + 1); again || after <= next {
			t.Errorf("generation %d after that gives %s, again %t", generation+1, after, again)
		}
	}
}

func TestRecordsOfEarlierVersionsCount(t *testing.T) {
	t.Parallel()
	epoch, _ := consumers.NoEpoch.Next(3)
	var o consumers.Owners
	for _, rec := range []*kgo.Record{
		{Key: []byte("u")},
		epoch.Mark("t", 0),
		{Key: []byte("u")},
		{Key: []byte("u"), Headers: []kgo.RecordHeader{{Key: consumers.HeaderOwner, Value: []byte("short")}}},
	} {
		if stale, _ := o.Stale(rec); stale {
			t.Errorf("%v does not count", rec)
		}
	}
}

// changelog is a compacted topic to which owners write that overlap, as a broker keeps it.
type changelog struct {
	records []*kgo.Record
	// What every record says that the owner of its time wrote: what a restore must give.
	truth map[string]string
}

func (c *changelog) write(epoch consumers.Epoch, key, value string) {
	rec := &kgo.Record{Offset: int64(len(c.records)), Key: []byte(key), Headers: []kgo.RecordHeader{epoch.Header()}}
	if value != "" {
		rec.Value = []byte(value)
	}
	c.records = append(c.records, rec)
}

func (c *changelog) set(key, value string) {
	if c.truth[key] = value; value == "" {
		delete(c.truth, key)
	}
}

// restore is what a new owner reads, and the keys that it has to write anew.
func (c *changelog) restore() (values map[string]string, strays map[string]bool) {
	var o consumers.Owners
	values, strays = map[string]string{}, map[string]bool{}
	for _, rec := range c.records {
		if rec == nil {
			continue
		}
		stale, mark := o.Stale(rec)
		key := string(rec.Key)
		switch {
		case mark:
		case stale:
			strays[key] = true
		default:
			delete(strays, key)
			if values[key] = string(rec.Value); rec.Value == nil {
				delete(values, key)
			}
		}
	}
	return values, strays
}

// compact keeps the last record of each key of all that a compaction may look at.
func (c *changelog) compact(upTo int) {
	last := map[string]int{}
	for i, rec := range c.records[:upTo] {
		if rec != nil {
			last[string(rec.Key)] = i
		}
	}
	for i, rec := range c.records[:upTo] {
		if rec != nil && last[string(rec.Key)] != i {
			c.records[i] = nil
		}
	}
}

// Any number of owners that were stopped write whatever they like whenever they wake up; the present one repairs what
// it finds before compaction gets there, which is what min.compaction.lag.ms is for.
func TestWhatAnEarlierOwnerWritesNeverComesBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		log := &changelog{truth: map[string]string{}}
		key := rapid.SampledFrom([]string{"mona", "omar", "sara"})
		owner, generation := consumers.NoEpoch, int32(0)
		var earlier []consumers.Epoch
		repaired := 0 // up to here the present owner has repaired: compaction may have come so far
		takeOver := func() {
			if owner != consumers.NoEpoch {
				earlier = append(earlier, owner)
			}
			if generation++; rapid.IntRange(0, 9).Draw(t, "anew") == 0 {
				generation = 1
			}
			log.restore()
			owner, _ = owner.Next(generation)
			mark := owner.Mark("t", 0)
			mark.Offset = int64(len(log.records))
			log.records = append(log.records, mark)
			values, strays := log.restore()
			if !maps.Equal(values, log.truth) {
				t.Fatalf("restored %v, the owners wrote %v", values, log.truth)
			}
			for k := range strays {
				log.write(owner, k, log.truth[k])
			}
			repaired = len(log.records)
		}
		takeOver()
		serial := 0
		t.Repeat(map[string]func(*rapid.T){
			"the owner writes": func(t *rapid.T) {
				serial++
				k, v := key.Draw(t, "key"), fmt.Sprint(serial)
				if rapid.Bool().Draw(t, "removes") {
					v = ""
				}
				log.set(k, v)
				log.write(owner, k, v)
			},
			"an earlier owner writes": func(t *rapid.T) {
				if len(earlier) == 0 {
					t.Skip()
				}
				serial++
				log.write(rapid.SampledFrom(earlier).Draw(t, "zombie"), key.Draw(t, "key"), fmt.Sprint("stray ", serial))
			},
			"an earlier owner's mark comes late": func(t *rapid.T) {
				if len(earlier) == 0 {
					t.Skip()
				}
				mark := rapid.SampledFrom(earlier).Draw(t, "zombie").Mark("t", 0)
				mark.Offset = int64(len(log.records))
				log.records = append(log.records, mark)
			},
			"the owner repairs": func(*rapid.T) {
				for i, rec := range log.records {
					if rec != nil && i >= repaired && consumers.EpochOf(rec) < owner { // also the mark
						log.write(owner, string(rec.Key), log.truth[string(rec.Key)])
					}
				}
				repaired = len(log.records)
			},
			"compaction": func(t *rapid.T) { log.compact(rapid.IntRange(0, repaired).Draw(t, "up to")) },
			"takeover":   func(*rapid.T) { takeOver() },
		})
	})
}
