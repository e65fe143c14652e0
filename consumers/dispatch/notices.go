package dispatch

import (
	"log/slog"
	"sync"

	"github.com/VictoriaMetrics/metrics"

	"github.com/klivvr/whisper/domain/decide"
)

// notices are warnings that are told once a process, whichever partition comes upon them first.
type notices struct {
	log     *slog.Logger
	counted map[string]*metrics.Counter

	mu   sync.Mutex
	told map[decide.Notice]bool
}

func newNotices(log *slog.Logger) *notices {
	n := &notices{log: log, counted: map[string]*metrics.Counter{}, told: map[decide.Notice]bool{}}
	for _, what := range []string{decide.NoticeCategory, decide.NoticeZone, decide.NoticeDigest, decide.NoticeDigestFails} {
		n.counted[what] = metrics.GetOrCreateCounter(`whisper_dispatch_notices_total{what="` + what + `"}`)
	}
	return n
}

// tell warns of a name; each partition comes with it at most once, so told stays small.
func (n *notices) tell(o decide.Notice) {
	n.mu.Lock()
	again := n.told[o]
	n.told[o] = true
	n.mu.Unlock()
	if again {
		return
	}
	if c := n.counted[o.What]; c != nil {
		c.Inc()
	}
	switch o.What {
	case decide.NoticeCategory:
		n.log.Warn("a category was never declared, the rules of default apply", "category", o.Name)
	case decide.NoticeZone:
		n.log.Warn("a time zone has no rules here, UTC stands for it", "zone", o.Name)
	case decide.NoticeDigest:
		n.log.Warn("a digest's template is not there, its parts go out alone", "template", o.Name)
	case decide.NoticeDigestFails:
		n.log.Warn("a digest's template can't be rendered for a user, its parts go out alone; it may use count, items and more",
			"template", o.Name)
	}
}
