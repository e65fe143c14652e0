package gateway

import (
	"log/slog"
	"sync"
	"time"
)

// refusalEvery is the shortest time between two lines about refusals for the same reason.
const refusalEvery = 10 * time.Second

// refusals writes a line about clients that are not let in, for those who look for a wrong key or an attack:
// the first at once, then at most one every refusalEvery for each reason, with how many were not told of. It
// gets no tokens and no user ids; reasons are a closed set.
type refusals struct {
	log  *slog.Logger
	node string
	now  func() time.Time

	mu   sync.Mutex
	last map[string]*refusal
}

type refusal struct {
	told  time.Time
	since int // not told of
}

func newRefusals(log *slog.Logger, node string, now func() time.Time) *refusals {
	return &refusals{log: log, node: node, now: now, last: map[string]*refusal{}}
}

func (r *refusals) tell(reason string, from address) {
	since, ok := r.due(reason)
	if ok {
		r.log.Warn("client refused", "node", r.node, "reason", reason, "address", from.String(), "refused_since_last_line", since)
	}
}

// due counts one; ok: it is time for a line.
func (r *refusals) due(reason string) (since int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.last[reason]
	if last == nil {
		last = &refusal{}
		r.last[reason] = last
	}
	last.since++
	now := r.now()
	if passed := now.Sub(last.told); passed >= 0 && passed < refusalEvery {
		return 0, false
	}
	since, last.since, last.told = last.since, 0, now
	return since, true
}
