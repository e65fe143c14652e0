package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/klivvr/whisper/consumers"
)

// nodeTopics deletes the topics of nodes that never return: with a node's name for every process, they would be as many
// as there ever were processes. A topic is deleted when its node has no heartbeat at two looks of this process, an hour
// of reading heartbeats apart, and the heartbeat of a silent node is removed after an hour only: so the node was away
// for two hours at least, and its topic keeps nothing for longer than 15 minutes. A node that starts in between has a
// heartbeat at the second look; one that starts between the second look and the deletion makes its topic anew.
type nodeTopics struct {
	client  consumers.ClientConfig
	log     *slog.Logger
	deleted *metrics.Counter

	mu     sync.Mutex
	absent map[string]bool // topics whose node had no heartbeat at the last look
}

// nodeTopicsTimeout bounds one look.
const nodeTopicsTimeout = time.Minute

func newNodeTopics(client consumers.ClientConfig, log *slog.Logger) *nodeTopics {
	return &nodeTopics{client: client, log: log, deleted: metrics.GetOrCreateCounter(`whisper_dispatch_node_topics_deleted_total`)}
}

// look deletes what is over; known are the nodes that have a heartbeat. A failure is told and stops nothing: the next
// look is in an hour, and other processes look, too.
func (n *nodeTopics) look(ctx context.Context, known map[string]bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, nodeTopicsTimeout)
	defer cancel()
	adm, err := n.client.Admin()
	if err != nil {
		n.log.Warn("look for topics of nodes that never return", "error", err)
		return
	}
	defer adm.Close()
	topics, err := adm.ListTopics(ctx)
	if err != nil {
		n.log.Warn("look for topics of nodes that never return", "error", err)
		return
	}
	absent := map[string]bool{}
	var over []string
	for _, topic := range topics.Names() {
		node, is := strings.CutPrefix(topic, consumers.TopicNode(""))
		if !is || node == "" || known[node] {
			continue
		}
		absent[topic] = true
		if n.absent[topic] {
			over = append(over, topic)
		}
	}
	n.absent = absent
	if len(over) == 0 {
		return
	}
	done, err := adm.DeleteTopics(ctx, over...)
	if err != nil {
		n.log.Warn("delete the topics of nodes that never return", "error", err)
		return
	}
	var gone, groups []string
	for _, r := range done.Sorted() {
		switch {
		case r.Err == nil:
			gone = append(gone, r.Topic)
			groups = append(groups, consumers.GroupNode(strings.TrimPrefix(r.Topic, consumers.TopicNode(""))))
			n.deleted.Inc()
		case !errors.Is(r.Err, kerr.UnknownTopicOrPartition): // another process was faster
			n.log.Warn("the topic of a node that never returns can't be deleted: allow dispatch to delete it, or do so", "topic", r.Topic,
				"error", r.Err)
		}
	}
	if len(gone) == 0 {
		return
	}
	slices.Sort(gone)
	n.log.Info("topics of nodes that never return are deleted", "topics", gone)
	// What they had committed; brokers forget it by themselves after a week or so. Of a topic that stays, a node that
	// returns after all needs it.
	_, _ = adm.DeleteGroups(ctx, groups...)
}
