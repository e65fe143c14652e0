package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
)

// refuse makes a dead letter of a request, as intake does.
func (b *broker) refuse(t *testing.T, role, value, reason string, partition int32, offset int64) {
	t.Helper()
	rec := &kgo.Record{
		Topic: consumers.TopicRequests(domain.High), Partition: partition, Offset: offset,
		Key: []byte("k"), Value: []byte(value), Headers: []kgo.RecordHeader{{Key: "traceparent", Value: []byte("00-1")}},
	}
	done := make(chan error, 1)
	consumers.NewDeadLetters(b.publisher, role).Put(t.Context(), rec, errors.New(reason), func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestDeadLettersAreListedAndShown(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	b.refuse(t, "intake", `{"to":`, "is not JSON:\nunexpected end", 2, 17)
	b.refuse(t, "push", "\xff", "unreadable", 0, 3)
	got := lines(b.whisper(t, "deadletters", "list"))
	if len(got) != 2 || !strings.Contains(got[0], "whisper.requests.high/2/17") || !strings.Contains(got[0], "intake") ||
		!strings.HasSuffix(got[0], "is not JSON: unexpected end") {
		t.Errorf("the list is %q", got)
	}
	if strings.Contains(strings.Join(got, ""), `{"to":`) {
		t.Error("the list shows contents")
	}
	if got := lines(b.whisper(t, "deadletters", "list", "--role=push", "--json")); len(got) != 1 ||
		decode[struct{ Offset int64 }](t, got[0]).Offset != 1 {
		t.Errorf("of the role push: %q", got)
	}
	text := b.whisper(t, "deadletters", "show", "0")
	for _, want := range []string{"came from  whisper.requests.high/2/17", `key        "k"`, `header     traceparent: "00-1"`, `{"to":`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s does not say %s", text, want)
		}
	}
	if doc := decode[struct{ Encoding, Value string }](t, b.whisper(t, "deadletters", "show", "1", "--json")); doc.Encoding != "base64" ||
		doc.Value != "/w==" {
		t.Errorf("%+v", doc)
	}
	if got := whisper(t, nil, "deadletters", "show", "9", "--kafka="+b.addr); got.code != exitError ||
		!strings.Contains(got.stderr, "no dead letter has the number 9") {
		t.Errorf("exit code %d, %s", got.code, got.stderr)
	}
}

func TestRedrivePutsBackWhatCameAndMarksProgress(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	for i, value := range []string{"a", "b", "c"} {
		b.refuse(t, "intake", value, "bad", int32(i), 5)
	}
	values := func() []string {
		t.Helper()
		var got []string
		for _, rec := range b.read(t, consumers.TopicRequests(domain.High)) {
			if string(rec.Key) != "k" || len(rec.Headers) != 1 || rec.Headers[0].Key != "traceparent" {
				t.Errorf("put back with key %q and headers %v", rec.Key, rec.Headers)
			}
			if want := int32(rec.Value[0] - 'a'); rec.Partition != want {
				t.Errorf("%s came from partition %d and went to %d", rec.Value, want, rec.Partition)
			}
			got = append(got, string(rec.Value))
		}
		slices.Sort(got)
		return got
	}
	want := func(after string, want ...string) {
		t.Helper()
		if got := values(); !slices.Equal(got, want) {
			t.Errorf("after %s the topic has %q, want %q", after, got, want)
		}
	}

	if got := b.whisper(t, "deadletters", "redrive", "--all", "--dry-run"); !strings.Contains(got, "3 would be put back") {
		t.Errorf("dry run says %s", got)
	}
	want("a dry run")
	b.whisper(t, "deadletters", "redrive", "1")
	want("one number", "b")
	b.whisper(t, "deadletters", "redrive", "--all")
	want("all", "a", "b", "b", "c")
	b.refuse(t, "intake", "a", "bad again", 0, 6)
	if got := lines(b.whisper(t, "deadletters", "list")); len(got) != 4 || got[2][0] != '*' || got[3][0] != ' ' {
		t.Errorf("the marks are %q", got)
	}
	b.whisper(t, "deadletters", "redrive", "--all")
	want("all again: only the new one", "a", "a", "b", "b", "c")
	if got := b.whisper(t, "deadletters", "redrive", "--all"); !strings.Contains(got, "0 were put back") {
		t.Errorf("with nothing left it says %s", got)
	}
}

func TestRedriveRefusesWhatDoesNotSayWhereItCameFrom(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	b.write(t, &kgo.Record{Topic: consumers.TopicDeadLetters, Value: []byte("x")})
	got := whisper(t, nil, "deadletters", "redrive", "0", "--kafka="+b.addr)
	if got.code != exitError || !strings.Contains(got.stderr, "does not say where it came from") {
		t.Errorf("exit code %d, %s", got.code, got.stderr)
	}
}

// TestRedriveLeavesOutWhispersOwnState: what stood in a changelog once, put back, could send again what was sent.
func TestRedriveLeavesOutWhispersOwnState(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	b.write(t, &kgo.Record{Topic: consumers.TopicDeadLetters, Value: []byte("x"), Headers: []kgo.RecordHeader{
		{Key: consumers.HeaderError, Value: []byte("panic: x")},
		{Key: consumers.HeaderRole, Value: []byte("dispatch")},
		{Key: consumers.HeaderTopic, Value: []byte(consumers.TopicTimers)},
		{Key: consumers.HeaderPartition, Value: []byte("0")},
		{Key: consumers.HeaderOffset, Value: []byte("4")},
	}})
	got := whisper(t, nil, "deadletters", "redrive", "0", "--kafka="+b.addr)
	if got.code != exitError || !strings.Contains(got.stderr, "where Whisper keeps its own state") {
		t.Errorf("exit code %d, %s", got.code, got.stderr)
	}
	if got := b.whisper(t, "deadletters", "redrive", "--all"); !strings.Contains(got, "0 were put back") {
		t.Errorf("--all says %s", got)
	}
}

// TestRedriveLeavesOutBatchesThatCouldNotBeRead: there is no record to put back, and an empty one would be a
// tombstone in some topics.
func TestRedriveLeavesOutBatchesThatCouldNotBeRead(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	b.write(t, &kgo.Record{Topic: consumers.TopicDeadLetters, Headers: []kgo.RecordHeader{
		{Key: consumers.HeaderError, Value: []byte("it expands to more than 64 MiB")},
		{Key: consumers.HeaderRole, Value: []byte("intake")},
		{Key: consumers.HeaderTopic, Value: []byte(consumers.TopicTemplates)},
		{Key: consumers.HeaderPartition, Value: []byte("0")},
		{Key: consumers.HeaderOffset, Value: []byte("4")},
		{Key: consumers.HeaderLastOffset, Value: []byte("9")},
	}})
	if got := b.whisper(t, "deadletters", "list", "--json"); !strings.Contains(got, `"position":4,"last_position":9`) {
		t.Errorf("listed as %s", got)
	}
	b.whisper(t, "deadletters", "redrive", "--all")
	got := whisper(t, []string{"WHISPER_KAFKA=" + b.addr}, "deadletters", "redrive", "0")
	if got.code != exitError || !strings.Contains(got.stderr, "it has no record to put back") {
		t.Errorf("exit code %d, %s", got.code, got.stderr)
	}
	if recs := b.read(t, consumers.TopicTemplates); len(recs) != 0 {
		t.Errorf("%d records were put back", len(recs))
	}
}

// TestRedriveLeavesOutPartsOfPatches: the user may have changed those fields meanwhile, so a person decides.
func TestRedriveLeavesOutPartsOfPatches(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	b.write(t, &kgo.Record{Topic: consumers.TopicDeadLetters, Key: []byte("mona"), Value: []byte(`{"timezone":"UTC+3"}`), Headers: []kgo.RecordHeader{
		{Key: consumers.HeaderError, Value: []byte("no zone")},
		{Key: consumers.HeaderRole, Value: []byte("intake")},
		{Key: consumers.HeaderTopic, Value: []byte(consumers.TopicProfiles)},
		{Key: consumers.HeaderPartition, Value: []byte("0")},
		{Key: consumers.HeaderOffset, Value: []byte("4")},
		{Key: consumers.HeaderRefused, Value: []byte("timezone")},
	}})
	if got := b.whisper(t, "deadletters", "list", "--json"); !strings.Contains(got, `"refused":"timezone"`) {
		t.Errorf("listed as %s", got)
	}
	if got := b.whisper(t, "deadletters", "show", "0"); !strings.Contains(got, "refused    timezone (the rest of the record was taken)") {
		t.Errorf("shown as %s", got)
	}
	b.whisper(t, "deadletters", "redrive", "--all")
	if recs := b.read(t, consumers.TopicProfiles); len(recs) != 0 {
		t.Errorf("%d records were put back", len(recs))
	}
	b.whisper(t, "deadletters", "redrive", "0")
	recs := b.read(t, consumers.TopicProfiles)
	if len(recs) != 1 || string(recs[0].Value) != `{"timezone":"UTC+3"}` || len(recs[0].Headers) != 0 {
		t.Errorf("put back: %v", recs)
	}
}
