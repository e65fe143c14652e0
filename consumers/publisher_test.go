package consumers_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func newPublisher(t *testing.T, c consumers.ClientConfig) *consumers.Publisher {
	t.Helper()
	p, err := consumers.NewPublisher(c, consumers.LingerBulk)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// stillRuns fails the test if the publisher would have ended its process.
func stillRuns(t *testing.T, p *consumers.Publisher) {
	t.Helper()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Run(ended); err != nil {
		t.Errorf("the publisher ends the process: %v", err)
	}
}

func TestARecordThatIsTooLargeReachesItselfAlone(t *testing.T) {
	t.Parallel()
	p := newPublisher(t, kafka(t, 1, "a"))
	results := make(chan error, 3)
	for _, size := range []int{10, consumers.MaxRecordBytes + 1, consumers.MaxRecordBytes - 1_000} {
		p.Publish(t.Context(), &kgo.Record{Topic: "a", Value: make([]byte, size)}, func(err error) {
			if (err != nil) != (size > consumers.MaxRecordBytes) {
				err = fmt.Errorf("%d bytes: %w", size, errors.Join(err, errors.New("unexpected")))
			}
			results <- err
		})
	}
	for range 3 {
		err := <-results
		if err == nil {
			continue
		}
		if consumers.ReachOf(err) != consumers.ReachRecord || !errors.Is(err, kerr.MessageTooLarge) ||
			strings.Contains(err.Error(), "unexpected") {
			t.Errorf("%s: %v", consumers.ReachOf(err), err)
		}
	}
	stillRuns(t, p)
}

func TestATopicThatIsGoneReachesItsRecordsAlone(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "a", "gone")
	adm, err := client.Admin()
	if err != nil {
		t.Fatal(err)
	}
	defer adm.Close()
	p := newPublisher(t, client)
	one := func(topic string) error {
		return p.PublishSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("x")})
	}
	if err := one("gone"); err != nil {
		t.Fatal(err)
	}
	if _, err := adm.DeleteTopics(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	if err := one("gone"); err == nil || consumers.ReachOf(err) != consumers.ReachPartition || consumers.HelpFor(err) == "" {
		t.Errorf("written to a topic that is gone: %v, %s, %q", err, consumers.ReachOf(err), consumers.HelpFor(err))
	}
	if err := one("a"); err != nil {
		t.Errorf("another topic: %v", err)
	}
	stillRuns(t, p)

	// Made anew, it has another id.
	if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, "gone"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is written to again", func() bool { return one("gone") == nil })
}

// refuse has the broker refuse what is written to a topic while it is on.
func refuse(cluster *kfake.Cluster, topic string, code int16, on *atomic.Bool) {
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		produce, ok := req.(*kmsg.ProduceRequest)
		if !ok || !on.Load() {
			return nil, nil, false
		}
		resp, hit := produce.ResponseKind().(*kmsg.ProduceResponse), false
		for _, rt := range produce.Topics {
			st := kmsg.NewProduceResponseTopic()
			st.Topic, st.TopicID = rt.Topic, rt.TopicID
			for _, rp := range rt.Partitions {
				sp := kmsg.NewProduceResponseTopicPartition()
				sp.Partition, sp.ErrorCode = rp.Partition, code
				st.Partitions = append(st.Partitions, sp)
			}
			hit = hit || rt.Topic == topic || cluster.TopicInfo(topic) != nil && cluster.TopicInfo(topic).TopicID == rt.TopicID
			resp.Topics = append(resp.Topics, st)
		}
		return resp, nil, hit
	})
}

func TestFactsAndDeadLettersAreTriedAgain(t *testing.T) {
	t.Parallel()
	cluster, client := fakeKafka(t, 1, consumers.TopicEvents)
	on := &atomic.Bool{}
	on.Store(true)
	refuse(cluster, consumers.TopicEvents, kerr.MessageTooLarge.Code, on) // the topic's bound is too low
	p := newPublisher(t, client)
	facts := consumers.NewFacts(p, 1)
	done := make(chan error, 1)
	facts.Publish(t.Context(), &whisperv1.Event{UserId: "mona", NotificationId: "n"}, nil, func(err error) { done <- err })
	eventually(t, "it is told", func() bool { return p.Ready() != nil })
	if err := p.Ready(); !strings.Contains(err.Error(), consumers.TopicEvents) || !strings.Contains(err.Error(), "max.message.bytes") {
		t.Errorf("Ready = %v", err)
	}
	stillRuns(t, p)
	on.Store(false)
	if err := <-done; err != nil {
		t.Errorf("the fact: %v", err)
	}
	if err := p.Ready(); err != nil {
		t.Errorf("Ready = %v", err)
	}

	// Whoever waits for it may stop waiting.
	on.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	facts.Publish(ctx, &whisperv1.Event{UserId: "mona", NotificationId: "n"}, nil, func(err error) { done <- err })
	eventually(t, "it is tried again", func() bool { return p.Ready() != nil })
	cancel()
	if err := <-done; err == nil {
		t.Error("what was not written is told as written")
	}
}

// What is not UTF-8 in a reason must not cost the fact.
func TestAFactIsWrittenWhateverItsText(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, consumers.TopicEvents)
	p := newPublisher(t, client)
	done := make(chan error, 1)
	ev := &whisperv1.Event{
		UserId: "mona", NotificationId: "n",
		Kind: &whisperv1.Event_DeliveryFailed{DeliveryFailed: &whisperv1.DeliveryFailed{Reason: "bad \xff"}},
	}
	consumers.NewFacts(p, 1).Publish(t.Context(), ev, nil, func(err error) { done <- err })
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("never written")
	}
	if ev.GetDeliveryFailed().GetReason() != "bad \xff" {
		t.Error("the caller's own fact was changed")
	}
}

func TestReachOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want consumers.Reach
	}{
		{nil, 0},
		{errors.New("anything"), consumers.ReachPartition},
		{fmt.Errorf("write: %w", kerr.SaslAuthenticationFailed), consumers.ReachProcess},
		{kerr.GroupAuthorizationFailed, consumers.ReachProcess},
		{kerr.TopicAuthorizationFailed, consumers.ReachPartition},
		{kerr.UnknownTopicOrPartition, consumers.ReachPartition},
		{kerr.MessageTooLarge, consumers.ReachPartition}, // by a broker: the record alone is not to blame
		{kgo.ErrClientClosed, consumers.ReachProcess},
		{fmt.Errorf("x: %w", consumers.Reaching(consumers.ReachRecord, kerr.SaslAuthenticationFailed)), consumers.ReachRecord},
		{consumers.Contain(func() error { panic("bug") }), consumers.ReachPartition},
	} {
		if got := consumers.ReachOf(c.err); got != c.want {
			t.Errorf("ReachOf(%v) = %s, want %s", c.err, got, c.want)
		}
	}
	if consumers.Reaching(consumers.ReachProcess, nil) != nil {
		t.Error("no error was made one")
	}
	err := consumers.Contain(func() error { return explode() })
	if text := err.Error(); !strings.Contains(text, "panic: out of range") || !strings.Contains(text, "consumers_test.explode") ||
		strings.Contains(text, "0x") {
		t.Errorf("the reason of a panic: %s", text)
	}
}

func explode() error { panic("out of range") }
