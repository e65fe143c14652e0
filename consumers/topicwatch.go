package consumers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The client library looks at its topics every few minutes, and stays with the first instance of a topic that was
// deleted and made anew. topicWatch looks every few seconds: partitions that were added are read soon; a topic that is
// missing is told; one that was made anew is read from its start where upstream may do that ([LoopConfig.Renewable]),
// and ends the process where it was Whisper's own. It costs one request a look.
type topicWatch struct {
	adm *kadm.Client
	log *slog.Logger
	// grown: a topic has more partitions than the client may know of: some were added, or this is the first look, which
	// comes after the client's own. anew: it was deleted and made anew. Both are called by the watching goroutine.
	grown, anew func(topic string)
	// remake, where there is one, makes a topic that is gone and takes up one that was made anew: instead of all that
	// happens to others. Not own: it is none of those. Not done: it is asked again at the next look.
	remake func(ctx context.Context, topic string) (own, done bool)

	// Of the watching goroutine.
	known map[string]topicSeen

	mu      sync.Mutex
	missing map[string]bool
}

type topicSeen struct {
	id         kadm.TopicID
	partitions int
	absent     int          // looks in a row that did not find it
	another    kadm.TopicID // the id of the last look where it was not the known one
}

func newTopicWatch(cl *kgo.Client, log *slog.Logger, grown, anew func(topic string)) *topicWatch {
	return &topicWatch{
		adm: kadm.NewClient(cl), log: log, grown: grown, anew: anew,
		known: map[string]topicSeen{}, missing: map[string]bool{},
	}
}

// watch looks at the topics until ctx ends.
func (w *topicWatch) watch(ctx context.Context, every time.Duration, topics func() []string) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if names := topics(); len(names) > 0 {
			look, cancel := context.WithTimeout(ctx, 10*time.Second)
			found, err := w.adm.ListTopics(look, names...)
			cancel()
			if err == nil { // while Kafka is away, others say so
				for _, topic := range names {
					w.known[topic] = w.look(ctx, topic, w.known[topic], found[topic])
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// looksUntilSure is how often in a row the cluster must say that a topic is gone or another one: brokers hear of it one
// after the other.
const looksUntilSure = 2

// look returns what is known of a topic after another look.
func (w *topicWatch) look(ctx context.Context, topic string, was topicSeen, found kadm.TopicDetail) topicSeen {
	switch {
	case errors.Is(found.Err, kerr.UnknownTopicOrPartition):
		was.absent++
		if was.absent >= looksUntilSure && w.remake != nil {
			if own, done := w.remake(ctx, topic); done {
				return topicSeen{}
			} else if own {
				return was
			}
		}
		if was.absent == looksUntilSure {
			w.log.Error("a topic is not there; it is waited for", "topic", topic, "help", helpTopics)
			w.setMissing(topic, true)
		}
		return was
	case found.Err != nil || len(found.Partitions) == 0:
		return was
	case was.id != (kadm.TopicID{}) && found.ID != was.id && found.ID != was.another:
		was.another = found.ID
		return was
	}
	if renewed := was.id != (kadm.TopicID{}) && found.ID != was.id; renewed && w.remake != nil {
		if own, done := w.remake(ctx, topic); done {
			return topicSeen{}
		} else if own {
			return was
		}
	}
	if was.absent >= looksUntilSure {
		w.log.Info("a topic is there again", "topic", topic)
		w.setMissing(topic, false)
	}
	switch n := len(found.Partitions); {
	case was.id == (kadm.TopicID{}): // the first look, or a broker that has no ids
		w.log.Debug("a topic is watched", "topic", topic, "partitions", n)
		w.grown(topic)
	case found.ID != was.id:
		w.anew(topic)
	case n > was.partitions:
		w.log.Info("partitions were added to a topic", "topic", topic, "partitions", n, "before", was.partitions)
		w.grown(topic)
	}
	return topicSeen{id: found.ID, partitions: len(found.Partitions)}
}

// errMadeAnew ends who read a topic that was not to change.
func errMadeAnew(topic string) error {
	return Reaching(ReachProcess, fmt.Errorf(
		"the topic %s was deleted and made anew: what stood in it is lost, and what was read of it no longer holds", topic))
}

func (l *Loop) madeAnew(topic string) {
	if !slices.Contains(l.cfg.Renewable, topic) {
		l.fail(&Partition{Topic: topic}, "consume", errMadeAnew(topic))
		return
	}
	l.cfg.Client.logger().Warn("a topic was deleted and made anew; it is read from its start", "group", l.cfg.Group, "topic", topic)
	l.stalls.later(topicPartition{topic, -1}, func() { l.renew(topic) })
}

// renew has the client forget a topic and consume the new one of that name. The goroutine that polls calls it between
// two polls. What was read of the old one is finished, and nothing of it is committed: its offsets say nothing of the
// new one.
func (l *Loop) renew(topic string) {
	l.mu.Lock()
	parts := slices.Collect(maps.Keys(l.workers[topic]))
	l.renewed[topic] = time.Now()
	l.mu.Unlock()
	l.release(context.Background(), map[string][]int32{topic: parts}, false)
	l.cl.PurgeTopicsFromConsuming(topic)
	l.cl.AddConsumeTopics(topic)
}

// takeRenewed says whether a topic was made anew and is assigned for the first time since.
func (l *Loop) takeRenewed(topic string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, renewed := l.renewed[topic]
	delete(l.renewed, topic)
	return renewed && time.Since(at) < 2*rebalanceTimeout // later, somebody else has had them, and has committed
}

func (w *topicWatch) setMissing(topic string, missing bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if missing {
		w.missing[topic] = true
	} else {
		delete(w.missing, topic)
	}
}

// reason says which topic is not there.
func (w *topicWatch) reason() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for topic := range w.missing {
		return fmt.Errorf("%s is not there (%s)", topic, helpTopics)
	}
	return nil
}
