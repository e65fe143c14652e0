package intake

import (
	"context"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/consumers/requests"
	"github.com/klivvr/whisper/domain"
)

// A record that meets a bug, or that becomes more than a record may hold, is a dead letter; what stands behind it is
// taken, and everything is let go.
func TestErrorsThatReachARecordDeadLetterIt(t *testing.T) {
	t.Parallel()
	for what, want := range map[string]string{"bug": "panic: no such index", "huge": "at most"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			role, err := New(b.config())
			if err != nil {
				t.Fatal(err)
			}
			defer role.close()
			part := &consumers.Partition{Topic: high}
			f := role.newFeed(part)
			f.writer.Out = role.outlets.lanes[domain.High]
			f.take = func(ctx context.Context, rc *requests.Receipt) error {
				rc.Write(ctx, 2, func(i int) *kgo.Record {
					rec := &kgo.Record{Topic: toHigh, Value: []byte("fine")}
					if i == 1 && string(rc.Record.Value) == "bad" {
						if what == "bug" {
							panic("no such index")
						}
						rec.Value = make([]byte, consumers.MaxRecordBytes)
					}
					return rec
				})
				return nil
			}
			records := []*kgo.Record{
				{Topic: high, Offset: 7, Value: []byte("good")}, {Topic: high, Offset: 8, Value: []byte("bad")}, {Topic: high, Offset: 9, Value: []byte("good")},
			}
			if err := f.Handle(t.Context(), records); err != nil {
				t.Fatal(err)
			}
			letter := b.deadLetters(1)[0]
			if letter.offset != "8" || letter.value != "bad" || !strings.Contains(letter.reason, want) {
				t.Errorf("dead letter: %+v", letter)
			}
			b.eventually("everything is let go", func() bool { return f.mark.InFlight() == 0 })
			if err := f.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
