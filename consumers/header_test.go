package consumers

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Of a header that is there twice the last one counts, for everything that is read from headers.
func TestTheLastHeaderCounts(t *testing.T) {
	t.Parallel()
	older, newer := Epoch(7), Epoch(9)
	rec := &kgo.Record{Headers: []kgo.RecordHeader{
		older.Header(),
		{Key: HeaderVersion, Value: []byte("1")},
		{Key: HeaderEvent, Value: []byte("first")},
		{Key: HeaderTraceparent, Value: []byte("a")},
		newer.Header(),
		{Key: HeaderVersion, Value: []byte("2")},
		{Key: HeaderEvent, Value: []byte("last")},
		{Key: HeaderTraceparent, Value: []byte("b")},
	}}
	if got := EpochOf(rec); got != newer {
		t.Errorf("the owner is %s, want %s", got, newer)
	}
	if got := TemplateVersionOf(rec); got != 2 {
		t.Errorf("the version is %d, want 2", got)
	}
	if got := KindOfRecord(rec); got != "last" {
		t.Errorf("the kind is %q", got)
	}
	if trace := TraceHeaders(rec); len(trace) != 1 || string(trace[0].Value) != "b" {
		t.Errorf("the trace is %v", trace)
	}
	if _, ok := Header(rec, "nothing"); ok {
		t.Error("there is a header that nobody wrote")
	}
}
