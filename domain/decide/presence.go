package decide

import (
	"slices"
	"strings"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// presence is who is connected where, and which nodes live: a fold of the presence of the partition's users and of all
// nodes' heartbeats. Its invariants:
//
//   - A user in it has a place, and at most one on a node.
//   - A place is never of an earlier start of its node than the one that lives. It may be of one whose heartbeat is still to
//     come, or of a node that died: such a place does not count until its start lives.
//
// Topics have no order between them, so a place may be known before its node and the other way round.
type presence struct {
	users map[string][]place
	nodes map[string]uint64 // the incarnation that lives
}

// place is a user's sessions on a node.
type place struct {
	node        string
	incarnation uint64
	latest      string // the session that was opened last
	sessions    int32
	atUS        int64 // by the node's clock
}

func newPresence() presence {
	return presence{users: map[string][]place{}, nodes: map[string]uint64{}}
}

// live are the user's places on nodes whose incarnation lives.
func (p *presence) live(user string) []place {
	all := p.users[user]
	for i, at := range all {
		if p.nodes[at.node] == at.incarnation {
			continue
		}
		// Rare: some node died. Only then is a copy made.
		alive := slices.Clone(all[:i])
		for _, at := range all[i+1:] {
			if p.nodes[at.node] == at.incarnation {
				alive = append(alive, at)
			}
		}
		return alive
	}
	return all
}

// on is the user's place on a node's incarnation.
func (p *presence) on(user, node string, incarnation uint64) (at place, ok bool) {
	i := slices.IndexFunc(p.users[user], func(at place) bool { return at.node == node && at.incarnation == incarnation })
	if i < 0 {
		return place{}, false
	}
	return p.users[user][i], true
}

// usersOn are the users who have a place on a node's incarnation, sorted.
func (p *presence) usersOn(node string, incarnation uint64) (users []string) {
	for user := range p.users {
		if _, on := p.on(user, node, incarnation); on {
			users = append(users, user)
		}
	}
	slices.Sort(users)
	return users
}

// put stores a user's places; none forgets the user.
func (p *presence) put(user string, places []place) {
	if len(places) == 0 {
		delete(p.users, user)
		return
	}
	p.users[user] = places
}

// moved is what a record about a user's sessions on a node changed.
type moved struct {
	now place
	// opened: there is a session that was not there before, on a node that lives.
	opened bool
	// left: there is none any more where over was. replaced: over was of an earlier start of the node.
	left, replaced bool
	over           place
	// rewrite: the record is an earlier start's last word, and now is to be written again behind it, or compaction would
	// leave that word alone.
	rewrite bool
}

// change takes over what a node holds of a user.
func (p *presence) change(in PresenceChanged) (m moved) {
	places := p.users[in.User]
	i := slices.IndexFunc(places, func(at place) bool { return at.node == in.Node })
	if in.Presence.GetSessions() <= 0 {
		switch {
		case i < 0:
		case in.Incarnation != 0 && in.Incarnation != places[i].incarnation:
			m.now, m.rewrite = places[i], in.Incarnation < places[i].incarnation
		default:
			m.over, m.left = places[i], true
			p.put(in.User, slices.Delete(places, i, i+1))
		}
		return m
	}
	m.now = place{
		node: in.Node, incarnation: in.Presence.GetIncarnation(), latest: in.Presence.GetLatestSession(),
		sessions: in.Presence.GetSessions(), atUS: in.Presence.GetAtUs(),
	}
	if m.now.incarnation < p.nodes[in.Node] || i >= 0 && m.now.incarnation < places[i].incarnation {
		return m // of a start that is over
	}
	if i < 0 {
		m.opened = true
		p.put(in.User, append(places, m.now))
	} else {
		if places[i].incarnation != m.now.incarnation {
			m.over, m.replaced = places[i], true
		}
		m.opened = places[i].latest != m.now.latest || places[i].incarnation != m.now.incarnation
		places[i] = m.now
	}
	m.opened = m.opened && p.nodes[in.Node] == m.now.incarnation
	return m
}

// changeNode takes over which incarnation of a node lives, and returns the one before; 0 is none. What earlier starts of it
// held is forgotten: it can't come true again. That looks at all connected users, once each time that a node starts.
func (p *presence) changeNode(in NodeChanged) (before uint64) {
	before = p.nodes[in.Node]
	switch in.Incarnation {
	case before:
		return before
	case 0:
		delete(p.nodes, in.Node)
		return before
	}
	p.nodes[in.Node] = in.Incarnation
	for user, places := range p.users {
		i := slices.IndexFunc(places, func(at place) bool { return at.node == in.Node && at.incarnation < in.Incarnation })
		if i >= 0 {
			p.put(user, slices.Delete(places, i, i+1))
		}
	}
	return before
}

// bounced: the node says that it does not hold the user. Both times are the node's own clock, so a session that opened
// after the bounce is told apart.
func (p *presence) bounced(user string, k *whisperv1.AttemptFailed, atUS int64) {
	p.put(user, slices.DeleteFunc(p.users[user], func(at place) bool {
		return at.node == k.GetNode() && at.incarnation == k.GetIncarnation() && at.atUS <= atUS
	}))
}

// sweep forgets what nodes told of users that never came back, and returns the records to be removed: with a node's name
// for every process, the log would keep all that ever were. It looks at the partition's connected users, once an hour.
// What was told after in.Before stays, whoever told it: a node that just started may not be known yet.
func (p *presence) sweep(in NodesSwept) (ended []PutPresence) {
	over := func(at place) bool {
		return !in.Kept[at.node] && p.nodes[at.node] == 0 && at.atUS < in.Before.UnixMicro()
	}
	for user, places := range p.users {
		for _, at := range places {
			if over(at) {
				ended = append(ended, PutPresence{User: user, Node: at.node, Incarnation: at.incarnation})
			}
		}
		p.put(user, slices.DeleteFunc(places, over))
	}
	slices.SortFunc(ended, func(a, b PutPresence) int {
		return strings.Compare(a.User+"\x00"+a.Node, b.User+"\x00"+b.Node)
	})
	return ended
}

// record is what whisper.presence has of a user's place.
func (at place) record(user string) PutPresence {
	return PutPresence{User: user, Node: at.node, Incarnation: at.incarnation, Presence: &whisperv1.Presence{
		UserId: user, Node: at.node, Incarnation: at.incarnation, Sessions: at.sessions, LatestSession: at.latest, AtUs: at.atUS,
	}}
}
