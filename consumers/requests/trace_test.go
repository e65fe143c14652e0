package requests

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
)

func TestTraceStartsAtTheRecordOnlyWhereThereIsNone(t *testing.T) {
	t.Parallel()
	good := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for value, kept := range map[string]bool{
		good: true, "cc" + good[2:] + "-what": true,
		"": false, "x": false, good + "-more": false, strings.ToUpper(good): false, "ff" + good[2:]: false,
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": false, "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01": false,
	} {
		rec := &kgo.Record{Topic: consumers.TopicRequests(domain.High), Partition: 1, Offset: 2, Headers: []kgo.RecordHeader{
			{Key: "tracestate", Value: []byte("a=b")}, {Key: "traceparent", Value: []byte(value)},
		}}
		got := Trace(rec)
		if (string(got[0].Value) == value) != kept || (len(got) == 2) != kept || !isTraceparent(got[0].Value) {
			t.Errorf("%q gives %s", value, got)
		}
		if !kept && fmt.Sprint(Trace(rec)) != fmt.Sprint(got) {
			t.Errorf("%q gives %s, then something else", value, got)
		}
	}
	long := &kgo.Record{Headers: []kgo.RecordHeader{
		{Key: "traceparent", Value: []byte(good)},
		{Key: "tracestate", Value: []byte(strings.Repeat("x", 513))},
	}}
	if got := Trace(long); len(got) != 1 {
		t.Errorf("a tracestate of 513 bytes is carried on: %s", got)
	}
	binary := &kgo.Record{Headers: []kgo.RecordHeader{{Key: "traceparent", Value: []byte(good)}, {Key: "tracestate", Value: []byte("a=\xff")}}}
	if got := Trace(binary); len(got) != 1 {
		t.Errorf("a tracestate that is not text is carried on: %s", got)
	}
}
