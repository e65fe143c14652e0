package consumers

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// mirrorBalancer lets the inner balancer plan over one topic and gives every member the same
// partition numbers of all the others, so that partition p of all topics is always in one process.
// The members talk about the first topic only: they own, revoke and receive its partitions, and the
// others follow. Members of one group must run with the same topics.
type mirrorBalancer struct {
	inner  kgo.GroupBalancer
	topics []string
}

// ProtocolName differs from the inner one's: a member that does not mirror can't join by mistake.
func (b mirrorBalancer) ProtocolName() string { return "whisper-mirrored-" + b.inner.ProtocolName() }

func (b mirrorBalancer) IsCooperative() bool { return b.inner.IsCooperative() }

func (b mirrorBalancer) JoinGroupMetadata(_ []string, current map[string][]int32, generation int32) []byte {
	lead := map[string][]int32{}
	if owned := current[b.topics[0]]; len(owned) > 0 {
		lead[b.topics[0]] = owned
	}
	return b.inner.JoinGroupMetadata(b.topics[:1], lead, generation)
}

func (b mirrorBalancer) ParseSyncAssignment(assignment []byte) (map[string][]int32, error) {
	lead, err := b.inner.ParseSyncAssignment(assignment)
	if err != nil {
		return nil, fmt.Errorf("read the group's plan: %w", err)
	}
	all := make(map[string][]int32, len(b.topics))
	for _, topic := range b.topics {
		if ids := lead[b.topics[0]]; len(ids) > 0 {
			all[topic] = slices.Clone(ids)
		}
	}
	return all, nil
}

func (b mirrorBalancer) MemberBalancer(members []kmsg.JoinGroupResponseMember) (kgo.GroupMemberBalancer, map[string]struct{}, error) {
	return b.inner.MemberBalancer(members)
}
