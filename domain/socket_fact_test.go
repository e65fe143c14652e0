package domain_test

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func TestAttemptFactsAreEncodedAsTheirEvents(t *testing.T) {
	t.Parallel()
	number := rapid.OneOf(rapid.Just(int64(0)), rapid.Int64())
	rapid.Check(t, func(t *rapid.T) {
		facts := &domain.AttemptFacts{
			Notification: rapid.StringN(0, 20, 60).Draw(t, "notification"),
			Lane:         rapid.SampledFrom(domain.Lanes[:]).Draw(t, "lane"),
			Cause: &whisperv1.Position{
				Topic: rapid.StringN(0, 10, 30).Draw(t, "topic"), Partition: rapid.Int32().Draw(t, "partition"), Offset: number.Draw(t, "offset"),
			},
			Attempt: rapid.Int32().Draw(t, "attempt"),
			Node:    rapid.StringN(0, 10, 30).Draw(t, "node"),
			DueMS:   number.Draw(t, "due"),
		}
		facts.Prepare()
		f := domain.AttemptFact{
			ID:        domain.DeliveryID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")),
			User:      rapid.StringN(0, 20, 60).Draw(t, "user"),
			AtUS:      number.Draw(t, "at"),
			Delivered: rapid.Bool().Draw(t, "delivered"),
			LatencyUS: number.Draw(t, "latency"),
		}
		if f.Delivered {
			f.SentAtUS = number.Draw(t, "sent at")
		}
		ev := facts.Event(f)
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(ev)
		if err != nil {
			t.Fatal(err)
		}
		value, key := facts.Encode(f)
		if !bytes.Equal(value, want) {
			t.Fatalf("%x, want %x", value, want)
		}
		if string(key) != f.User || domain.KindOf(ev) != f.Kind() {
			t.Fatalf("the key is %q, the kind %s", key, f.Kind())
		}
	})
}

func BenchmarkAttemptFact(b *testing.B) {
	facts := &domain.AttemptFacts{
		Notification: "b1-000000001", Lane: domain.Normal, Cause: &whisperv1.Position{Topic: "whisper.node.bench", Partition: 1, Offset: 1 << 20},
		Attempt: 1, Node: "bench",
	}
	facts.Prepare()
	f := domain.AttemptFact{User: "user-000001", AtUS: 1_700_000_000_000_000, Delivered: true, SentAtUS: 1_700_000_000_000_000, LatencyUS: 800}
	b.Run("by hand", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			facts.Encode(f)
		}
	})
	b.Run("as an event", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := proto.Marshal(facts.Event(f)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
