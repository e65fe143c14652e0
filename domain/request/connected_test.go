package request

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/segment"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// TestABroadcastToThoseWhoAreConnected: both forms say the same, and a version that does not know such a broadcast refuses its
// record: it compiles the segment, which is no expression.
func TestABroadcastToThoseWhoAreConnected(t *testing.T) {
	t.Parallel()
	for expression, of := range map[string]struct{ json, audience string }{
		"":                    {`{"to":{"connected":true},"content":{"body":"b"}}`, "connected"},
		"user.locale == 'en'": {`{"to":{"segment":"user.locale == 'en'","connected":true},"content":{"body":"b"}}`, "connected && (user.locale == 'en')"},
	} {
		encoded, err := proto.Marshal(&whisperv1.Request{
			To:      &whisperv1.Audience{Audience: &whisperv1.Audience_Connected{Connected: &whisperv1.Connected{Segment: expression}}},
			Content: &whisperv1.Content{Body: "b"},
		})
		if err != nil {
			t.Fatal(err)
		}
		for form, value := range map[string]string{"": of.json, "application/x-protobuf": string(encoded)} {
			req, err := Parse([]byte(value), form)
			if err != nil || !req.Broadcast || !req.Connected || req.Segment != expression {
				t.Fatalf("%q: %+v, %v", value, req, err)
			}
			now := time.UnixMilli(1_700_000_000_000)
			ev, err := req.BroadcastEvent(Source{Lane: domain.Low, At: now, Position: &whisperv1.Position{Topic: "whisper.requests.low"}}, 0, 12,
				now)
			if err != nil {
				t.Fatal(err)
			}
			b := ev.GetBroadcastAccepted()
			if SegmentOf(b) != expression || AudienceOf(b) != of.audience || !b.GetConnected() {
				t.Errorf("%q becomes %v", value, b)
			}
			if _, err := segment.Compile(b.GetSegment()); err == nil {
				t.Errorf("an earlier version would take %q for an expression", b.GetSegment())
			}
			b.Connected = false
			if CheckBroadcast(ev) == nil {
				t.Error("half of it is taken")
			}
		}
	}
}
