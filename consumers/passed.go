package consumers

import (
	"context"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A Passer is a Feed that keeps offsets of its own. Offsets are not records: commit and abort markers, the
// records of aborted transactions and batches that can't be read have offsets, and no Feed is handed them.
type Passer interface {
	Feed
	// Passed says that no record is left to be handed out before next. It is called from Handle's goroutine,
	// after the records before next were handled, where next is more than the last of them plus one. An error
	// ends the loop, as Handle's does.
	Passed(ctx context.Context, next int64) error
}

// maxGaps bounds what a partition whose commit is held back remembers (16 bytes a gap). Beyond it the older half is
// dropped: the commit then stops before such a gap until the record behind it is settled.
const maxGaps = 1 << 16

// gaps are the ranges of offsets of a partition that hold no record for its Feed, from what is committed to what
// was polled. The commit passes over them. Without that, lag never becomes 0 behind a transaction's marker, and
// retention that removes the marker would look like a loss.
type gaps struct {
	mu     sync.Mutex
	floor  int64 // everything before was settled by an earlier owner, or does not exist
	passed int64 // as far as a commit was moved; 0: never
	list   []gap // ascending, disjoint
}

type gap struct{ from, to int64 }

func (g *gaps) startAt(floor int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.floor = floor
}

// add notes that no record for the Feed is in [from, to).
func (g *gaps) add(from, to int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n := len(g.list); n > 0 && g.list[n-1].to == from {
		g.list[n-1].to = to
		return
	}
	if len(g.list) == maxGaps {
		g.list = append(g.list[:0], g.list[maxGaps/2:]...)
	}
	g.list = append(g.list, gap{from, to})
}

// pass is where a commit of next (-1: the Feed has said nothing yet) may be moved to.
func (g *gaps) pass(next int64) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for ; n < len(g.list); n++ {
		if g.list[n].from > max(next, g.floor) {
			break
		}
		g.floor = max(g.floor, g.list[n].to)
		g.passed = g.floor
	}
	if n > 0 {
		g.list = append(g.list[:0], g.list[n:]...)
	}
	if g.passed == 0 {
		return next
	}
	return max(next, g.passed)
}

// dataOf drops the markers of transactions from what was polled; it reuses records' array.
func dataOf(records []*kgo.Record) []*kgo.Record {
	if !slices.ContainsFunc(records, isControl) {
		return records
	}
	return slices.DeleteFunc(records, isControl)
}

func isControl(rec *kgo.Record) bool { return rec.Attrs.IsControl() }
