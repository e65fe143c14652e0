package dispatch

import (
	"log/slog"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// What can't be encoded keeps its epoch open: no offset that it would let go is committed.
func TestWhatCannotBeEncodedHoldsItsEpoch(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	p := newPartition(&Role{log: log, notices: newNotices(log), poison: newPoison()}, 0)
	first, notText := p.epoch(), &whisperv1.Event{NotificationId: "\xff"}
	p.publish(nil, &kgo.Record{Topic: consumers.TopicEvents}, notText)
	if first.complete() || !first.broken.Load() {
		t.Errorf("the epoch counts as complete: %d outstanding, broken: %v", first.outstanding.Load(), first.broken.Load())
	}
}
