package consumers_test

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
)

// looksOften is a loop's configuration that looks at its topics without waiting for long.
func looksOften(client consumers.ClientConfig, rec *recorder, topics ...string) consumers.LoopConfig {
	return consumers.LoopConfig{
		Client: client, Group: "g", Topics: topics, Handler: rec, StallCheck: 20 * time.Millisecond,
		CommitInterval: 10 * time.Millisecond,
	}
}

func TestATopicThatWasMadeAnewIsReadFromItsStart(t *testing.T) {
	t.Parallel()
	client := kafka(t, 2, "requests", "other")
	adm := admin(t, client)
	rec := newRecorder()
	cfg := looksOften(client, rec, "requests", "other")
	cfg.Renewable = []string{"requests"}
	loop, err := consumers.NewLoop(cfg)
	if err != nil {
		t.Fatal(err)
	}
	runLoop(t, loop)
	publish(t, client, records("requests", 0, 10)...)
	eventually(t, "the first topic is read and committed", func() bool {
		offsets, err := adm.FetchOffsets(t.Context(), "g")
		if err != nil {
			return false
		}
		at, _ := offsets.Lookup("requests", 0)
		return len(rec.values("requests/0")) == 10 && at.At == 10
	})

	if _, err := adm.DeleteTopics(t.Context(), "requests"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the loop says that it is not there", func() bool {
		err := loop.Ready()
		return err != nil && strings.Contains(err.Error(), "requests is not there") && strings.Contains(err.Error(), "topics apply")
	})
	publish(t, client, &kgo.Record{Topic: "other", Value: []byte("meanwhile")})
	eventually(t, "the other topic goes on", func() bool { return slices.Contains(rec.values("other/0"), "meanwhile") })
	if _, err := adm.CreateTopic(t.Context(), 2, 1, nil, "requests"); err != nil {
		t.Fatal(err)
	}
	want := make([]string, 20)
	for i := range want { // more than the first one had: its offsets are good in the new one, too
		want[i] = fmt.Sprintf("anew-%d", i)
		publish(t, client, &kgo.Record{Topic: "requests", Value: []byte(want[i])})
	}
	eventually(t, "all of the new topic is read", func() bool {
		values := rec.values("requests/0")
		return len(values) == 10+len(want) && slices.Equal(values[10:], want)
	})
	eventually(t, "and committed", func() bool {
		offsets, err := adm.FetchOffsets(t.Context(), "g")
		if err != nil {
			return false
		}
		at, _ := offsets.Lookup("requests", 0)
		return at.At == int64(len(want))
	})
	eventually(t, "the loop is ready", func() bool { return loop.Ready() == nil })
	publish(t, client, &kgo.Record{Topic: "other", Value: []byte("afterwards")})
	eventually(t, "the other topic goes on", func() bool {
		return slices.Equal(rec.values("other/0"), []string{"meanwhile", "afterwards"})
	})
}

func TestAnotherTopicThatWasMadeAnewEndsTheProcess(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "users")
	adm := admin(t, client)
	loop, err := consumers.NewLoop(looksOften(client, newRecorder(), "users"))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(t.Context()) }()
	eventually(t, "the loop is ready", func() bool { return loop.Ready() == nil })
	if _, err := adm.DeleteTopics(t.Context(), "users"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the loop sees that it is gone", func() bool { return loop.Ready() != nil })
	if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, "users"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "users") || !strings.Contains(err.Error(), "made anew") {
		t.Errorf("Run = %v", err)
	}
}

func TestPartitionsThatAreAddedAreReadAtOnce(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "requests")
	adm := admin(t, client)
	rec := newRecorder()
	start(t, looksOften(client, rec, "requests"))
	if _, err := adm.CreatePartitions(t.Context(), 2, "requests"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new ones are owned", func() bool { return len(rec.owns()) == 3 })
	publish(t, client, &kgo.Record{Topic: "requests", Partition: 2, Value: []byte("x")})
	eventually(t, "the new ones are read", func() bool { return slices.Equal(rec.values("requests/2"), []string{"x"}) })
}

func TestAReaderOfATopicThatWasMadeAnewEnds(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "users")
	logs := &lockedBuffer{}
	client.Logger = slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	adm := admin(t, client)
	reader, err := consumers.NewReader(client)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reader.Close)
	ended := make(chan error, 1)
	go func() { ended <- reader.Run(t.Context()) }()
	caughtUp, err := reader.Follow(t.Context(), "users", 0, consumers.FromStart, func([]*kgo.Record) {})
	if err != nil {
		t.Fatal(err)
	}
	<-caughtUp
	eventually(t, "the reader has looked at it", func() bool { return logs.has("a topic is watched") })
	if _, err := adm.DeleteTopics(t.Context(), "users"); err != nil {
		t.Fatal(err)
	}
	if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, "users"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || consumers.ReachOf(err) != consumers.ReachProcess ||
		!strings.Contains(err.Error(), "users was deleted and made anew") {
		t.Errorf("Run = %v", err)
	}
}
