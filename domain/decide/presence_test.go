package decide

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain/whisperv1"
)

func opens(user, node string, incarnation uint64, session string) PresenceChanged {
	return PresenceChanged{User: user, Node: node, Presence: &whisperv1.Presence{
		UserId: user, Node: node, Incarnation: incarnation, Sessions: 1, LatestSession: session, AtUs: int64(incarnation),
	}}
}

// TestPresenceKeepsItsInvariants plays any order of sessions, heartbeats, bounces and sweeps.
func TestPresenceKeepsItsInvariants(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := newPresence()
		user, node := rapid.SampledFrom([]string{"mona", "ali"}), rapid.SampledFrom([]string{"a", "b"})
		start := rapid.Uint64Range(1, 4)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			u, n, i := user.Draw(t, "user"), node.Draw(t, "node"), start.Draw(t, "incarnation")
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0, 1:
				m := p.change(opens(u, n, i, fmt.Sprint(rapid.IntRange(0, 1).Draw(t, "session"))))
				if m.opened && !slices.Contains(p.live(u), m.now) {
					t.Fatalf("%+v opened, and %v are live", m, p.live(u))
				}
			case 2:
				m := p.change(PresenceChanged{User: u, Node: n, Incarnation: i})
				if _, on := p.on(u, n, i); on {
					t.Fatalf("%s is still on %s %d (%+v)", u, n, i, m)
				}
			case 3:
				p.changeNode(NodeChanged{Node: n, Incarnation: i - 1})
			case 4:
				p.bounced(u, &whisperv1.AttemptFailed{Node: n, Incarnation: i}, int64(i))
			case 5:
				p.sweep(NodesSwept{Kept: map[string]bool{n: true}, Before: time.UnixMicro(int64(i))})
			}
			for user, places := range p.users {
				if len(places) == 0 {
					t.Fatalf("%s has no place", user)
				}
				var live []place
				for k, at := range places {
					if slices.ContainsFunc(places[:k], func(o place) bool { return o.node == at.node }) {
						t.Fatalf("%s has two places on %s: %v", user, at.node, places)
					}
					if at.incarnation < p.nodes[at.node] {
						t.Fatalf("%s has %v, and %d lives", user, at, p.nodes[at.node])
					}
					if at.incarnation == p.nodes[at.node] {
						live = append(live, at)
					}
				}
				if !slices.Equal(live, p.live(user)) {
					t.Fatalf("live are %v, not %v", live, p.live(user))
				}
			}
		}
	})
}

// TestAnEarlierIncarnationsTombstoneIsOverwritten: compaction would leave it alone.
func TestAnEarlierIncarnationsTombstoneIsOverwritten(t *testing.T) {
	t.Parallel()
	p := newPresence()
	p.changeNode(NodeChanged{Node: "a", Incarnation: 2})
	if m := p.change(opens("mona", "a", 2, "s")); !m.opened || m.left || m.replaced {
		t.Fatalf("%+v", m)
	}
	m := p.change(PresenceChanged{User: "mona", Node: "a", Incarnation: 1})
	if record := m.now.record("mona"); !m.rewrite || record.Incarnation != 2 || record.Presence.GetLatestSession() != "s" {
		t.Fatalf("%+v", m)
	}
	if m := p.change(PresenceChanged{User: "mona", Node: "a", Incarnation: 2}); !m.left || m.over.incarnation != 2 || len(p.users) > 0 {
		t.Fatalf("%+v, left: %v", m, p.users)
	}
}

// TestANewStartOfANodeReplacesTheOldOne also where the presence of its users comes before its heartbeat.
func TestANewStartOfANodeReplacesTheOldOne(t *testing.T) {
	t.Parallel()
	p := newPresence()
	p.changeNode(NodeChanged{Node: "a", Incarnation: 1})
	p.change(opens("mona", "a", 1, "s"))
	m := p.change(opens("mona", "a", 2, "s"))
	if !m.replaced || m.over.incarnation != 1 || m.opened || len(p.live("mona")) > 0 {
		t.Fatalf("%+v before its heartbeat", m)
	}
	if before := p.changeNode(NodeChanged{Node: "a", Incarnation: 2}); before != 1 || len(p.live("mona")) != 1 {
		t.Fatalf("before %d, live %v", before, p.live("mona"))
	}
}
