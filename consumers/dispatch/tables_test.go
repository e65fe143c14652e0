package dispatch

import (
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// TestASilentNodeIsDeadButNotWhenWeWereAsleep: a process that got no CPU has not heard of anybody, and says
// nothing about them until it had the time to.
func TestASilentNodeIsDeadButNotWhenWeWereAsleep(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_700_000_000_000)
	tb := newTables(slog.New(slog.DiscardHandler), func() time.Time { return now })
	tb.live = true
	value, err := proto.Marshal(&whisperv1.Node{Node: "n1", Incarnation: 1, HeartbeatMs: 1_000})
	if err != nil {
		t.Fatal(err)
	}
	offset := int64(-1)
	beat := func() { offset++; tb.heartbeats([]*kgo.Record{{Key: []byte("n1"), Value: value, Offset: offset}}) }
	alive := func() bool { return tb.nodes["n1"].alive }
	inKafka := int64(0) // more than were read
	tick := func(d time.Duration) {
		now = now.Add(d)
		if tb.look() {
			tb.bury(offset + 1 + inKafka)
		}
	}
	beat()
	tick(watchEvery)
	tick(time.Minute) // asleep
	if !alive() {
		t.Fatal("dead after our own sleep")
	}
	now = now.Add(100 * time.Millisecond)
	beat()
	for range 19 {
		tick(watchEvery)
	}
	if !alive() {
		t.Fatal("dead before four heartbeats were missed")
	}
	inKafka = 1
	for range 100 {
		tick(watchEvery)
	}
	if !alive() {
		t.Fatal("dead while its heartbeats lay in Kafka, unread")
	}
	inKafka = 0
	tick(watchEvery)
	if alive() {
		t.Fatal("alive after four missed heartbeats")
	}
}
