package dispatch

import (
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain/whisperv1"
)

func TestANodeIsForgottenAfterAnHourInWhichItWouldHaveBeenHeard(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_700_000_000_000)
	tb := newTables(slog.New(slog.DiscardHandler), func() time.Time { return now })
	tb.live = true
	offset := int64(-1)
	beat := func(node string, incarnation uint64) {
		value, err := proto.Marshal(&whisperv1.Node{Node: node, Incarnation: incarnation, HeartbeatMs: 1_000})
		if err != nil {
			t.Fatal(err)
		}
		offset++
		tb.heartbeats([]*kgo.Record{{Key: []byte(node), Value: value, Offset: offset}})
	}
	end := func(node string, incarnation uint64) {
		offset++
		tb.heartbeats([]*kgo.Record{{Key: []byte(node), Offset: offset, Headers: incarnationHeader(incarnation)}})
	}
	unread := int64(0)
	var looks []map[string]bool
	minutes := func(n int, lives ...string) (over map[string]uint64) {
		for range n {
			now = now.Add(time.Minute)
			for _, node := range lives {
				beat(node, 7)
			}
			tb.bury(offset + 1 + unread)
			if !tb.sweeping() {
				t.Fatal("a minute is not enough for a look")
			}
			got, known := tb.sweep(offset + 1 + unread)
			if len(got) > 0 {
				over = got
			}
			if known != nil {
				looks = append(looks, known)
			}
		}
		return over
	}
	beat("pod-1", 1)
	beat("lives", 7)
	if over := minutes(59, "lives"); over != nil || looks != nil {
		t.Fatalf("%v are forgotten within the hour, topics are looked at %d times", over, len(looks))
	}
	unread = 1
	if over := minutes(120, "lives"); over != nil || looks != nil {
		t.Fatalf("%v are forgotten while heartbeats lie in Kafka, unread, topics are looked at %d times", over, len(looks))
	}
	unread = 0
	over := minutes(5, "lives")
	if len(over) != 1 || over["pod-1"] != 1 {
		t.Fatalf("%v are forgotten, want pod-1", over)
	}
	beat("pod-1", 2) // another process of that name, just now
	end("pod-1", 1)
	if n := tb.nodes["pod-1"]; n == nil || !n.alive {
		t.Error("the end of an earlier start ends a later one")
	}
	minutes(1)
	end("pod-1", 2)
	if tb.nodes["pod-1"] != nil {
		t.Error("its end is not taken")
	}
	minutes(70, "lives")
	if len(looks) != 2 || !looks[0]["pod-1"] || !looks[0]["lives"] || looks[1]["pod-1"] || !looks[1]["lives"] {
		t.Errorf("an hour apart these nodes had heartbeats: %v", looks)
	}
}
