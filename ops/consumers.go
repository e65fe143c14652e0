package ops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// maxRebalance is how long a group may be without a plan before that is a reason: members that come and go end a
// rebalance within seconds, and one that hangs stops the whole group.
const maxRebalance = 45 * time.Second

// maxHandover is how long a partition may be without an owner though its group has members: that it has none while
// one member lets it go and another takes it is no reason.
const maxHandover = 10 * time.Second

// consumers adds a reason for each consumer group that does not work: it has no member, no plan for too long, or partitions
// that no member has. Every delivery needs intake and dispatch, so their absence is a reason at once. An absent push role is
// a reason only while records wait for it.
func (m *HealthMonitor) consumers(
	ctx context.Context, doc *Health, queues []queue, depths map[string]int64, log logOffsets, now time.Time,
) {
	var names []string
	for _, q := range queues {
		names = append(names, q.group)
	}
	slices.Sort(names)
	groups, err := m.adm.DescribeGroups(ctx, slices.Compact(names)...)
	if err == nil {
		err = groups.Error()
	}
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		m.cfg.Logger.Warn("describe the groups", "error", err)
		doc.Reasons = append(doc.Reasons, "kafka does not say who consumes what")
		return
	}
	told := map[string]bool{} // a role of which none runs, a group that has no plan
	for _, q := range queues {
		group := groups[q.group]
		switch {
		case len(group.Members) == 0 && q.channel != "":
			if n := depths[q.topic]; n > 0 {
				doc.Reasons = append(doc.Reasons, fmt.Sprintf("nobody consumes %s, where %d records wait: is a push role for %s running?",
					q.topic, n, q.channel))
			}
		case len(group.Members) == 0:
			if !told[q.group] {
				doc.Reasons = append(doc.Reasons, fmt.Sprintf("nobody consumes %s: no %s is running (the group %s is empty)",
					q.topic, roleOfGroup(q.group), q.group))
			}
			told[q.group] = true
		case group.State != "Stable":
			if since := m.since(q.group, now); now.Sub(since) > maxRebalance && !told[q.group] {
				doc.Reasons = append(doc.Reasons, fmt.Sprintf("the group %s has no plan since %s (%s)",
					q.group, since.UTC().Format(time.RFC3339), group.State))
				told[q.group] = true
			}
			continue
		default:
			if without := ownerless(group, q.topic, len(log.ends[q.topic])); len(without) == 0 {
				delete(m.missing, q.topic)
			} else if now.Sub(m.since(q.topic, now)) > maxHandover {
				doc.Reasons = append(doc.Reasons, fmt.Sprintf("nobody consumes partition %s of %s, though the group %s has members",
					strings.Join(without, ", "), q.topic, q.group))
			}
		}
		delete(m.missing, q.group)
	}
}

// roleOfGroup is the subcommand whose processes make the group.
func roleOfGroup(group string) string { return strings.TrimPrefix(group, "whisper-") }

// since is when a group was first found without a plan, or a topic with a partition that has no owner.
func (m *HealthMonitor) since(what string, now time.Time) time.Time {
	since, known := m.missing[what]
	if !known {
		since = now
		m.missing[what] = since
	}
	return since
}

// ownerless are the partitions of a topic that no member has. Members of a group whose topics go together are
// given partitions of the first topic, and have the same of all others.
func ownerless(group kadm.DescribedGroup, topic string, partitions int) []string {
	own, any := map[int32]bool{}, map[int32]bool{}
	listed := false
	for _, member := range group.Members {
		plan, ok := member.Assigned.AsConsumer()
		if !ok {
			continue
		}
		for _, t := range plan.Topics {
			for _, id := range t.Partitions {
				any[id] = true
				if t.Topic == topic {
					listed, own[id] = true, true
				}
			}
		}
	}
	if !listed {
		own = any
	}
	var without []string
	for id := range int32(partitions) {
		if !own[id] {
			without = append(without, fmt.Sprint(id))
		}
	}
	return without
}
