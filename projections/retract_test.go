package projections

import (
	"slices"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// TestARetractionChangesNoStatus: the timeline has it, and neither the row, nor its attempts, nor the sums move.
func TestARetractionChangesNoStatus(t *testing.T) {
	t.Parallel()
	db, l := database(t), startLog(t)
	s := tell("pay-8812", "mona", now, 7)
	taken, refused, socket := s.at(3*time.Second), s.at(2*time.Second), s.at(time.Second)
	taken.Kind = &whisperv1.Event_DeliveryRetracted{DeliveryRetracted: &whisperv1.DeliveryRetracted{
		Channel: "apns", Provider: "apple", Endpoint: "iphone", ProviderId: "E1B2", LatencyUs: 1500,
	}}
	refused.Kind = &whisperv1.Event_RetractFailed{RetractFailed: &whisperv1.AttemptFailed{
		Attempt: 9, Channel: "apns", Provider: "apple", Endpoint: "iphone", Class: whisperv1.FailureClass_FAILURE_CLASS_UNKNOWN, Reason: "no_answer",
	}}
	socket.Kind = &whisperv1.Event_DeliveryRetracted{DeliveryRetracted: &whisperv1.DeliveryRetracted{Channel: "socket", Node: "gateway-1"}}
	l.put(record(s.accepted()), record(s.sent(10*time.Millisecond, 1, "apns")), record(socket), record(refused), record(taken))
	start(t, config(l, db))
	caughtUp(t, l, db)
	for sql, want := range map[string][]string{
		"SELECT concat_ws(' ', status, attempts, channel, reason) FROM whisper.deliveries":                {"sent 1 apns"},
		"SELECT concat_ws(' ', attempt, outcome) FROM whisper.attempts":                                   {"1 sent"},
		"SELECT notification_id FROM whisper.conservation":                                                nil,
		"SELECT detail::text FROM whisper.timeline WHERE kind = 'delivery_retracted' ORDER BY at LIMIT 1": {`{"node": "gateway-1", "channel": "socket"}`},
		"SELECT detail::text FROM whisper.timeline WHERE kind = 'delivery_retracted' AND detail->>'channel' = 'apns'": {
			`{"channel": "apns", "endpoint": "iphone", "provider": "apple", "latency_us": 1500, "provider_id": "E1B2"}`,
		},
		"SELECT detail::text FROM whisper.timeline WHERE kind = 'retract_failed'": {
			`{"class": "unknown", "reason": "no_answer", "attempt": 9, "channel": "apns", "endpoint": "iphone", "provider": "apple"}`,
		},
	} {
		if got := queryTexts(t, db, sql); !slices.Equal(got, want) {
			t.Errorf("%s:\n got %q\nwant %q", sql, got, want)
		}
	}
}

// TestADuplicateOfTheSameMillisecondLeavesItsDelivery: both requests have one delivery id, and the row names the request that
// stands first in Kafka, which may be the one that was dropped. What is dropped with it is not the delivery.
func TestADuplicateOfTheSameMillisecondLeavesItsDelivery(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	first, again := tell("n", "mona", now, 7), tell("n", "mona", now, 3)
	f.writeAll(first.accepted(), again.accepted())
	f.writeAll(again.duplicate(first, time.Second))
	got := f.texts("SELECT status || ' ' || request_offset FROM whisper.deliveries")
	if want := []string{"accepted 3"}; !slices.Equal(got, want) {
		t.Errorf("deliveries are %q, want %q", got, want)
	}
	if got := f.texts("SELECT notification_id FROM whisper.conservation"); len(got) != 0 {
		t.Errorf("conservation %q", got)
	}
}
