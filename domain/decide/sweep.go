package decide

import (
	"slices"
	"strings"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// sweep forgets what nodes told of users that never came back, and has their records removed: with a node's name for
// every process, the log would keep all that ever were. It walks the partition's connected users, once an hour.
// What was told after in.Before stays, whoever told it: a node that just started may not be known yet.
func (s *State) sweep(in NodesSwept) {
	over := func(p presence) bool {
		return !in.Kept[p.node] && s.nodes[p.node] == 0 && p.atUS < in.Before.UnixMicro()
	}
	var ended []PutPresence
	for user, places := range s.presence {
		for _, p := range places {
			if over(p) {
				ended = append(ended, PutPresence{User: user, Node: p.node, Incarnation: p.incarnation})
			}
		}
		if places = slices.DeleteFunc(places, over); len(places) == 0 {
			delete(s.presence, user)
		} else {
			s.presence[user] = places
		}
	}
	slices.SortFunc(ended, func(a, b PutPresence) int {
		return strings.Compare(a.User+"\x00"+a.Node, b.User+"\x00"+b.Node)
	})
	for _, e := range ended {
		s.put(e)
	}
}

// keep has a node's presence written again.
func (s *State) keep(user string, p presence) {
	s.put(PutPresence{User: user, Node: p.node, Incarnation: p.incarnation, Presence: &whisperv1.Presence{
		UserId: user, Node: p.node, Incarnation: p.incarnation, Sessions: p.sessions, LatestSession: p.latest, AtUs: p.atUS,
	}})
}
