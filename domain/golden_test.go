package domain_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

var writeGolden = flag.Bool("write-golden", false, "write golden files of kinds that have none")

// sample fills every field of a message with something, deterministically.
func sample(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.ContainingOneof() != nil && m.WhichOneof(f.ContainingOneof()) != nil {
			continue
		}
		if f.Message() == m.Descriptor() && depth > 0 { // of itself, once
			continue
		}
		if f.IsList() {
			list := m.Mutable(f).List()
			if f.Kind() == protoreflect.MessageKind {
				sample(list.AppendMutable().Message(), depth+1)
			} else {
				list.Append(scalar(f))
			}
			continue
		}
		if f.Kind() == protoreflect.MessageKind {
			if depth < 4 {
				sample(m.Mutable(f).Message(), depth+1)
			}
			continue
		}
		m.Set(f, scalar(f))
	}
}

func scalar(f protoreflect.FieldDescriptor) protoreflect.Value {
	n := int64(f.Number())
	switch f.Kind() { //nolint:exhaustive // the kinds that our protos use
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(string(f.Name()) + " مرحبا")
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("0123456789abcdef"))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(f.Enum().Values().Get(f.Enum().Values().Len() - 1).Number())
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(100 + n))
	case protoreflect.Fixed64Kind, protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(1000 + n))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(n) + 0.5)
	default:
		return protoreflect.ValueOfInt64(10_000 + n)
	}
}

// samplesOf has a message for each golden file.
func samplesOf(t *testing.T) map[string]proto.Message {
	t.Helper()
	samples := map[string]proto.Message{}
	kinds := (&whisperv1.Event{}).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	for i := range kinds.Len() {
		ev := &whisperv1.Event{}
		sample(ev.ProtoReflect().Mutable(kinds.Get(i)).Message(), 1)
		sample(ev.ProtoReflect(), 0)
		if kind := domain.KindOf(ev); kind != string(kinds.Get(i).Name()) {
			t.Errorf("the kind %s calls itself %q", kinds.Get(i).Name(), kind)
		}
		samples["event_"+string(kinds.Get(i).Name())] = ev
	}
	for name, m := range map[string]proto.Message{
		"profile": &whisperv1.Profile{}, "parked": &whisperv1.Parked{}, "seen": &whisperv1.Seen{}, "presence": &whisperv1.Presence{},
		"node": &whisperv1.Node{}, "route": &whisperv1.Route{}, "push": &whisperv1.Push{}, "request": &whisperv1.Request{},
		"revocation": &whisperv1.Revocation{},
		// Since there are broadcasts.
		"parked_broadcast": &whisperv1.Parked{}, "parked_recall": &whisperv1.Parked{}, "push_retract": &whisperv1.Push{}, "profile_created": &whisperv1.Profile{}, "route_retract": &whisperv1.Route{}, "request_broadcast": &whisperv1.Request{},
		"counted": &whisperv1.Counted{},
		// Since there are deliveries that go to all of their channels.
		"parked_legs": &whisperv1.Parked{},
		// Since who was no part of a broadcast is not told that it was taken back.
		"parked_meant": &whisperv1.Parked{},
	} {
		sample(m.ProtoReflect(), 0)
		samples[name] = m
	}
	// Fields that came later than the files of their messages.
	for _, name := range []string{
		"event_broadcast_accepted", "event_broadcast_progressed", "event_delivery_deferred", "event_delivery_delivered", "event_delivery_read",
		"event_delivery_retracted", "event_delivery_sent", "event_delivery_suppressed", "event_duplicate_dropped", "event_user_erased",
		"node", "parked", "profile", "push", "route", "seen",
	} {
		samples[name+"_2026_11_28"] = samples[name]
	}
	return samples
}

// TestHistoryStaysReadable: one of every kind of event, and of every record that outlives a process, as
// it was written when its file was made, decodes to the same facts today. Files are never written again;
// a kind without one fails until `go test ./domain -run History -write-golden` has made it.
func TestHistoryStaysReadable(t *testing.T) {
	t.Parallel()
	for name, m := range samplesOf(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wire, text := filepath.Join("testdata", "golden", name+".bin"), filepath.Join("testdata", "golden", name+".json")
			if _, err := os.Stat(wire); err != nil && *writeGolden {
				makeGolden(t, wire, text, m)
			}
			raw, err := os.ReadFile(wire)
			if err != nil {
				t.Fatalf("no golden file yet: %v", err)
			}
			want, err := os.ReadFile(text)
			if err != nil {
				t.Fatal(err)
			}
			got, expected := m.ProtoReflect().New().Interface(), m.ProtoReflect().New().Interface()
			if err := proto.Unmarshal(raw, got); err != nil {
				t.Fatal(err)
			}
			if err := protojson.Unmarshal(want, expected); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(got, expected) || len(got.ProtoReflect().GetUnknown()) > 0 {
				t.Errorf("what was written reads differently:\n got %s\nwant %s", protojson.Format(got), want)
			}
		})
	}
}

// TestEveryFieldHasHistory: each field of what outlives a process is in a golden file, so that a field that is given another
// number or type does not go unseen. A new field needs a new file, which TestHistoryStaysReadable lists.
func TestEveryFieldHasHistory(t *testing.T) {
	t.Parallel()
	kept, all := map[protoreflect.FullName]bool{}, map[protoreflect.FullName]bool{}
	for name, m := range samplesOf(t) {
		raw, err := os.ReadFile(filepath.Join("testdata", "golden", name+".bin"))
		if err != nil {
			t.Fatal(err)
		}
		golden := m.ProtoReflect().New()
		if err := proto.Unmarshal(raw, golden.Interface()); err != nil {
			t.Fatal(err)
		}
		fieldsOf(golden, kept)
		fieldsOf(m.ProtoReflect(), all)
	}
	for field := range all {
		if !kept[field] {
			t.Errorf("%s is in no golden file", field)
		}
	}
}

// fieldsOf adds the fields that m has, and those of its parts.
func fieldsOf(m protoreflect.Message, into map[protoreflect.FullName]bool) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		into[f.FullName()] = true
		switch {
		case f.IsList() && f.Message() != nil:
			for i := range v.List().Len() {
				fieldsOf(v.List().Get(i).Message(), into)
			}
		case f.Message() != nil && !f.IsMap():
			fieldsOf(v.Message(), into)
		}
		return true
	})
}

func makeGolden(t *testing.T, wire, text string, m proto.Message) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(wire), 0o755); err != nil {
		t.Fatal(err)
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string][]byte{wire: raw, text: []byte(protojson.Format(m) + "\n")} {
		if err := os.WriteFile(file, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAFutureEventIsKept: fields and kinds that this version does not know survive a round trip.
func TestAFutureEventIsKept(t *testing.T) {
	t.Parallel()
	// Field 99, a string, and a kind with number 98.
	future := append([]byte{0x12, 1, 'n'}, 0x9a, 0x06, 3, 'n', 'e', 'w', 0x92, 0x06, 0)
	ev := &whisperv1.Event{}
	if err := proto.Unmarshal(future, ev); err != nil {
		t.Fatal(err)
	}
	if _, ok := domain.StatusOf(ev); ok || domain.KindOf(ev) != "" {
		t.Error("an unknown kind claims a status")
	}
	again, err := proto.Marshal(ev)
	if err != nil || len(again) != len(future) {
		t.Errorf("%d of %d bytes are left, %v", len(again), len(future), err)
	}
}
