package integration

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// stops returns for how long a process is stopped: once and briefly, or what the environment says, as `make chaos` does.
// In that case compaction is forced, too.
func stops(t *testing.T) (stops []time.Duration, long bool) {
	t.Helper()
	env := os.Getenv("WHISPER_TEST_STOPS")
	if env == "" {
		return []time.Duration{15 * time.Second}, false
	}
	for s := range strings.SplitSeq(env, ",") {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatalf("WHISPER_TEST_STOPS: %v", err)
		}
		stops = append(stops, d)
	}
	return stops, true
}

// TestAStoppedDispatchChangesNothing stops a process while it writes profiles, parked deliveries, counts and a
// broadcast's cursors. Another process takes over, erases, cancels and counts. Then the first one wakes up and its client
// writes what it had buffered. A later restore of the partitions sees only the records of the owner.
func TestAStoppedDispatchChangesNothing(t *testing.T) {
	ours(t)
	durations, long := stops(t)
	if long {
		compactSoon(t)
	}
	for _, d := range durations {
		t.Run(d.String(), func(t *testing.T) { stopDispatch(t, d, long) })
	}
}

func stopDispatch(t *testing.T, stopped time.Duration, compacted bool) {
	const users, capped, crowd = 1_000, 40, 60
	run := "fence-" + stopped.String()
	categories(t, "fence-promo: {caps: [{n: 2, per: week}]}\n")
	segment := people(t, run+"-crowd", crowd)
	connect(t, run+"-crowd", crowd)
	a := connect(t, run+"-capped", capped)
	promo := func(round int) {
		send(t, "normal", request{ID: fmt.Sprintf("%s-promo-%d", run, round), Category: "fence-promo", To: to(a.users...)})
	}
	if err := sys.up(t.Context(), "dispatch-b"); err != nil {
		t.Fatal(err)
	}
	owners := func() int {
		described, err := admin().DescribeGroups(t.Context(), "whisper-dispatch")
		if err != nil {
			return 0
		}
		n := 0
		for _, m := range described["whisper-dispatch"].Members {
			if assigned, ok := m.Assigned.AsConsumer(); ok && len(assigned.Topics) > 0 && len(assigned.Topics[0].Partitions) > 0 {
				n++
			}
		}
		return n
	}
	eventually(t, "both own partitions", func() bool { return owners() == 2 && sys.proc("dispatch").ready() && sys.proc("dispatch-b").ready() })

	user := func(i int) string { return fmt.Sprintf("%s-user-%d", run, i) }
	promo(0)
	cast(t, map[string]any{"id": run + "-news", "to": map[string]any{"segment": segment}, "content": map[string]any{"body": "b"}, "ttl": "1h"})
	first := sys.proc("dispatch").cmd.Process
	var at time.Time
	busy(t, func(i int) []*kgo.Record {
		name := user(i % users)
		return []*kgo.Record{
			{Topic: "whisper.profiles", Key: []byte(name), Value: fmt.Appendf(nil, `{"locale":"ar","attributes":{"round":%d}}`, i)},
			{Topic: "whisper.requests.high", Key: []byte(name), Value: fmt.Appendf(nil, `{"id":"%s-away-%d","to":{"users":[%q]},"content":{"body":"b"},"channels":["socket"]}`, run, i, name)},
		}
	}, 3*users, users, func() {
		if err := first.Signal(syscall.SIGSTOP); err != nil {
			t.Error(err)
		}
		at = time.Now()
	})
	for round := range 3 {
		promo(1 + round)
	}
	want := map[string]string{}
	var last []*kgo.Record
	for i := range users {
		rec := &kgo.Record{Topic: "whisper.profiles", Key: []byte(user(i))}
		if i%2 == 0 {
			rec.Value = []byte(`{"locale":"en","attributes":null}`)
			want[user(i)] = "en"
		}
		last = append(last, rec)
	}
	for i := range 3 * users {
		last = append(last, &kgo.Record{Topic: "whisper.requests.high", Value: fmt.Appendf(nil, `{"cancel":"%s-away-%d"}`, run, i)})
	}
	if err := sys.kafka.ProduceSync(t.Context(), last...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	profiles := func() bool { return maps.Equal(locales(t, run+"-user-"), want) }
	var left map[string]string
	parked := func() bool { left = stillParked(t, run+"-away-"); return len(left) == 0 }
	defer func() {
		if t.Failed() {
			t.Logf("parked still: %v", left)
		}
	}()
	eventually(t, "the second one has taken over and has done it all", func() bool { return profiles() && parked() })

	time.AfterFunc(time.Until(at.Add(stopped)), func() { _ = first.Signal(syscall.SIGCONT) })
	eventually(t, "the first one is back", func() bool { return time.Since(at) > stopped && owners() == 2 && sys.proc("dispatch").ready() })
	promo(4)
	eventually(t, "nobody is back who was erased, and nobody is as they were before", profiles)
	eventually(t, "nothing waits that was cancelled", parked)
	if compacted {
		cleaned(t)
	}
	for _, name := range []string{"dispatch", "dispatch-b"} {
		sys.kill(t, name)
	}
	sys.restart(t, "dispatch")
	sys.forget("dispatch-b")
	if !profiles() || !parked() {
		t.Error("the restore after it finds something else")
	}
	promo(5)
	finished(t, run+"-news", "finished", crowd)
	eventually(t, "every promotion came to an end", func() bool {
		return number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id LIKE $1 AND settled_at IS NOT NULL`, run+"-promo-%") == 6*capped
	})
	over := number(t, `SELECT count(*) FROM (SELECT user_id FROM whisper.deliveries WHERE notification_id LIKE $1 AND status >= 'sent' GROUP BY user_id HAVING count(*) <> 2) AS u`, run+"-promo-%")
	if over != 0 {
		t.Errorf("%d users got more or fewer than the cap allows", over)
	}
	t.Logf("stopped for %s: %d records of it count for nothing", stopped, strays(t))
}

// busy produces the records of n calls, some 1,000 a second, and does something after the first few.
func busy(t *testing.T, records func(i int) []*kgo.Record, n, after int, do func()) {
	t.Helper()
	var wg sync.WaitGroup
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := range n {
		if i == after {
			do()
		}
		for _, rec := range records(i) {
			wg.Add(1)
			sys.kafka.Produce(context.Background(), rec, func(_ *kgo.Record, err error) {
				defer wg.Done()
				if err != nil {
					t.Errorf("produce: %v", err)
				}
			})
		}
		if i%10 == 9 {
			<-tick.C
		}
	}
	wg.Wait()
}

// all returns every record that a topic has now, in the order of each partition.
func all(t *testing.T, topic string, each func(*kgo.Record)) {
	t.Helper()
	ends, err := admin().ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	from, left := map[int32]kgo.Offset{}, map[int32]int64{}
	for p, end := range ends[topic] {
		if from[p] = kgo.NewOffset().AtStart(); end.Offset > 0 {
			left[p] = end.Offset
		}
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(sys.cluster.Kafka...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%s was not read to its end: %v", topic, left)
		}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			for _, rec := range p.Records {
				each(rec)
			}
			if n := len(p.Records); n > 0 && p.Records[n-1].Offset+1 >= left[p.Partition] {
				delete(left, p.Partition)
			}
		})
	}
}

// locales returns the locales of the users in whisper.users.
func locales(t *testing.T, prefix string) map[string]string {
	t.Helper()
	got := map[string]string{}
	all(t, consumers.TopicUsers, func(rec *kgo.Record) {
		if user := string(rec.Key); strings.HasPrefix(user, prefix) {
			profile := &whisperv1.Profile{}
			if err := proto.Unmarshal(rec.Value, profile); err != nil {
				t.Fatal(err)
			}
			if got[user] = profile.GetLocale(); rec.Value == nil {
				delete(got, user)
			}
		}
	})
	return got
}

// stillParked returns the deliveries of notifications in whisper.timers, and where their last record is.
func stillParked(t *testing.T, prefix string) map[string]string {
	t.Helper()
	got := map[string]string{}
	all(t, consumers.TopicTimers, func(rec *kgo.Record) {
		key := fmt.Sprintf("%x", rec.Key)
		delete(got, key)
		parked := &whisperv1.Parked{}
		if err := proto.Unmarshal(rec.Value, parked); err != nil {
			t.Fatal(err)
		}
		if note := parked.GetAccepted().GetNotificationId(); strings.HasPrefix(note, prefix) {
			got[key] = fmt.Sprintf("%s: partition %d, offset %d, owner %s", note, rec.Partition, rec.Offset, consumers.EpochOf(rec))
		}
	})
	return got
}

// strays returns the records of changelogs that do not count.
func strays(t *testing.T) (n int) {
	t.Helper()
	for _, topic := range []string{consumers.TopicUsers, consumers.TopicTimers, consumers.TopicCounters, consumers.TopicSeen} {
		owners := map[int32]*consumers.Owners{}
		all(t, topic, func(rec *kgo.Record) {
			if owners[rec.Partition] == nil {
				owners[rec.Partition] = &consumers.Owners{}
			}
			if stale, _ := owners[rec.Partition].Stale(rec); stale {
				n++
			}
		})
	}
	return n
}

// compactSoon makes the broker compact the changelogs as often as it can, some time after a record was written.
func compactSoon(t *testing.T) {
	t.Helper()
	alter := []kadm.AlterConfig{
		{Op: kadm.SetConfig, Name: "segment.ms", Value: kadm.StringPtr("1000")},
		{Op: kadm.SetConfig, Name: "min.compaction.lag.ms", Value: kadm.StringPtr("60000")},
		{Op: kadm.SetConfig, Name: "min.cleanable.dirty.ratio", Value: kadm.StringPtr("0.01")},
	}
	if _, err := admin().AlterTopicConfigs(t.Context(), alter, consumers.TopicUsers, consumers.TopicTimers); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := sys.command(context.Background(), "topics", "apply").CombinedOutput(); err != nil {
			t.Errorf("whisper topics apply: %v\n%s", err, out)
		}
	})
}

// cleaned waits until the broker has compacted what was written before: no key is there twice.
func cleaned(t *testing.T) {
	t.Helper()
	ends, err := admin().ListEndOffsets(t.Context(), consumers.TopicUsers)
	if err != nil {
		t.Fatal(err)
	}
	twice := func() (n int) {
		seen := map[string]bool{}
		all(t, consumers.TopicUsers, func(rec *kgo.Record) {
			if rec.Offset >= ends[rec.Topic][rec.Partition].Offset {
				return
			}
			key := fmt.Sprintf("%d %s", rec.Partition, rec.Key)
			if seen[key] {
				n++
			}
			seen[key] = true
		})
		return n
	}
	rolls := map[int32]string{} // a user of each partition
	for i := 0; len(rolls) < partitions; i++ {
		user := fmt.Sprintf("roll-%d", i)
		rolls[consumers.PartitionOf(user, partitions)] = user
	}
	deadline := time.After(5 * time.Minute)
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for n, round := twice(), 0; n > 0; n, round = twice(), round+1 {
		for _, user := range rolls { // a segment is closed when something is written after its time
			if err := sys.kafka.ProduceSync(t.Context(), &kgo.Record{Topic: "whisper.profiles", Key: []byte(user), Value: fmt.Appendf(nil, `{"attributes":{"round":%d}}`, round)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d records are not compacted", n)
		}
	}
}
