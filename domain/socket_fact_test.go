package domain_test

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// drawFact is any fact about an attempt over a socket.
func drawFact(t *rapid.T) (*domain.AttemptFacts, domain.AttemptFact) {
	number := rapid.OneOf(rapid.Just(int64(0)), rapid.Int64())
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
	return facts, f
}

func TestAttemptFactsAreEncodedAsTheirEvents(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		facts, f := drawFact(t)
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

func TestSocketFactsAreReadAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		facts, f := drawFact(t)
		value, _ := facts.Encode(f)
		read, ok := domain.ReadSocketFact(value)
		at := f.AtUS
		if f.Delivered {
			at = f.SentAtUS
		}
		if !ok || read.ID != f.ID || read.Delivered != f.Delivered || read.Lane != facts.Lane || read.SentUS != at {
			t.Fatalf("%+v %v of %+v", read, ok, f)
		}
		if number, node := read.Attempt(value); number != facts.Attempt || string(node) != facts.Node {
			t.Fatalf("attempt %d on %q of %+v", number, node, facts)
		}
	})
}

// TestWhatIsReadByHandIsReadByAll breaks encoded facts: what is still read must mean the same to Protobuf.
func TestWhatIsReadByHandIsReadByAll(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		facts, f := drawFact(t)
		value, _ := facts.Encode(f)
		if rapid.Bool().Draw(t, "another channel") {
			value = bytes.Replace(value, []byte(domain.ChannelSocket), []byte("webpus"), 1)
		}
		for range rapid.IntRange(0, 3).Draw(t, "changes") {
			at := rapid.IntRange(0, len(value)).Draw(t, "at")
			switch rest := bytes.Clone(value[at:]); rapid.IntRange(0, 3).Draw(t, "change") {
			case 0:
				value = append(value[:at:at], rapid.SliceOfN(rapid.Byte(), 1, 4).Draw(t, "bytes")...)
				value = append(value, rest...)
			case 1:
				value = value[:at:at]
			case 2:
				if len(rest) > 0 {
					rest[0] = rapid.Byte().Draw(t, "byte")
				}
				value = append(value[:at:at], rest...)
			case 3:
				if len(rest) > 0 {
					value = append(value[:at:at], rest[1:]...)
				}
			}
		}
		agree(t, value)
	})
}

// agree fails where a fact is read by hand and not, or as another one, by Protobuf.
func agree(t interface{ Fatalf(string, ...any) }, value []byte) {
	fact, ok := domain.ReadSocketFact(value)
	if !ok {
		return
	}
	ev := &whisperv1.Event{}
	if err := proto.Unmarshal(value, ev); err != nil {
		t.Fatalf("%x is read by hand, and is: %v", value, err)
	}
	sent, delivered := ev.GetDeliverySent(), ev.GetDeliveryDelivered()
	channel, of, on, at := sent.GetChannel(), sent.GetAttempt(), sent.GetNode(), ev.GetAtUs()
	if fact.Delivered {
		channel, of, on, at = delivered.GetChannel(), delivered.GetAttempt(), delivered.GetNode(), delivered.GetSentAtUs()
	}
	number, node := fact.Attempt(value)
	if fact.Lane != domain.LaneOf(ev.GetLane()) || fact.SentUS != at || number != of || string(node) != on {
		t.Fatalf("%x is read by hand as %+v, attempt %d on %q, and is %v", value, fact, number, node, ev)
	}
	if !bytes.Equal(fact.ID[:], ev.GetDeliveryId()) || channel != domain.ChannelSocket || len(ev.ProtoReflect().GetUnknown()) > 0 {
		t.Fatalf("%x is read by hand as %+v, and is %v", value, fact, ev)
	}
}

// FuzzSocketFact is TestWhatIsReadByHandIsReadByAll with bytes that the fuzzer finds.
func FuzzSocketFact(f *testing.F) {
	facts := &domain.AttemptFacts{
		Notification: "n", Lane: domain.Low, Cause: &whisperv1.Position{Topic: "t", Partition: 1, Offset: 2},
		Attempt: 1, Node: "n1", DueMS: 3,
	}
	facts.Prepare()
	for _, delivered := range []bool{false, true} {
		value, _ := facts.Encode(domain.AttemptFact{User: "mona", AtUS: 4, Delivered: delivered, LatencyUS: 5})
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value []byte) { agree(t, value) })
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
	value, _ := facts.Encode(f)
	b.Run("read by hand", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := domain.ReadSocketFact(value); !ok {
				b.Fatal("is not read")
			}
		}
	})
	b.Run("read as an event", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := proto.Unmarshal(value, &whisperv1.Event{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
