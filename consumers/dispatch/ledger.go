package dispatch

import (
	"sort"

	"github.com/klivvr/whisper/domain/decide"
)

// ledger knows of one lane of one partition which records are settled, so that the committed offset
// stays behind the oldest that is not.
type ledger struct {
	entries []entry
	head    int
	next    int64 // one past the last offset taken or passed; -1: none yet
}

type entry struct {
	offset int64
	// events is where feedback about this delivery begins at the earliest.
	events  int64
	settled bool
	seen    *decide.SeenDelivery
}

func newLedger() *ledger { return &ledger{next: -1} }

// take notes a record; offsets ascend.
func (l *ledger) take(offset, events int64) {
	l.entries = append(l.entries, entry{offset: offset, events: events})
	l.next = offset + 1
}

// pass notes that there are no records before next.
func (l *ledger) pass(next int64) { l.next = max(l.next, next) }

// settle notes that nothing depends on the record any more, and what the window has to remember.
func (l *ledger) settle(offset int64, seen *decide.SeenDelivery) {
	open := l.entries[l.head:]
	i := sort.Search(len(open), func(i int) bool { return open[i].offset >= offset })
	if i < len(open) && open[i].offset == offset {
		open[i].settled, open[i].seen = true, seen
	}
}

// advance lets go of everything before the oldest unsettled record. next is what may be committed (-1:
// nothing was taken yet) once what is appended to seen is durable; events is where the feedback of what
// stays begins, or -1 when nothing stays.
func (l *ledger) advance(seen []decide.SeenDelivery) (_ []decide.SeenDelivery, next, events int64) {
	for l.head < len(l.entries) && l.entries[l.head].settled {
		if s := l.entries[l.head].seen; s != nil {
			seen = append(seen, *s)
		}
		l.head++
	}
	next, events = l.next, -1
	if l.head < len(l.entries) {
		next, events = l.entries[l.head].offset, l.entries[l.head].events
	}
	switch {
	case l.head == len(l.entries):
		l.entries, l.head = l.entries[:0], 0
	case l.head > 1024 && l.head > len(l.entries)/2:
		n := copy(l.entries, l.entries[l.head:])
		clear(l.entries[n:])
		l.entries, l.head = l.entries[:n], 0
	}
	return seen, next, events
}
