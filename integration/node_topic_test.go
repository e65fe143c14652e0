package integration

import (
	"fmt"
	"testing"
	"time"
)

// TestANodesTopicThatIsDeletedIsMadeAnew: on a real broker, whose group still knows the offsets of the old topic, and
// with dispatch, which knows the old one, too. The sockets stay, and what comes meanwhile arrives.
func TestANodesTopicThatIsDeletedIsMadeAnew(t *testing.T) {
	const node, prefix, users, n, rate = "gateway-renewed", "node-topic", 20, 900, 300
	if err := sys.up(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sys.remove(t, node) })
	a := nobody(t)
	for i := range users {
		a.device(fmt.Sprintf("%s-%d", prefix, i), node)
	}
	process := sys.proc(node)
	topic := "whisper.node." + node
	deleted := make(chan time.Time, 1)
	go func() {
		eventuallyCount(a, n/3)
		if _, err := admin().DeleteTopics(t.Context(), topic); err != nil {
			t.Error(err)
		}
		deleted <- time.Now()
	}()
	flood(t, prefix+"-first", a.users, n, rate)
	at := <-deleted
	eventually(t, "everything arrives", func() bool { return a.count() == n })
	t.Logf("everything had arrived %v after the topic was deleted", took(at))
	flood(t, prefix+"-later", a.users, n, rate)
	eventually(t, "what comes later arrives", func() bool { return a.count() == 2*n })
	eventually(t, "the new topic is committed", func() bool { return lagOf(t, topic) == 0 })
	select {
	case <-process.done:
		t.Errorf("the process ended:\n%s", tail(process.out.String()))
	default:
	}
	allSettled(t, prefix+"-first", n)
	allSettled(t, prefix+"-later", n)
}
