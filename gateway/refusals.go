package gateway

import (
	"log/slog"
	"sync"
)

// refusals writes a line about clients that are not let in, for those who look for a wrong key or an attack:
// the first at once, then at most one a priceLogLine for each reason, with how many were not told of. It
// gets no tokens and no user ids; reasons are a closed set.
type refusals struct {
	log  *slog.Logger
	node string
	now  func() int64

	mu   sync.Mutex
	last map[string]*refusal
}

type refusal struct {
	lines meter
	since int // not told of
}

func newRefusals(log *slog.Logger, node string, now func() int64) *refusals {
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
	if !last.lines.allow(r.now(), priceLogLine, 0) {
		return 0, false
	}
	since, last.since = last.since, 0
	return since, true
}
