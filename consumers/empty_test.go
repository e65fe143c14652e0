package consumers_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/klivvr/whisper/consumers"
)

// opened is a passer whose partition the test may ask.
type opened struct {
	*passer
	part atomic.Pointer[consumers.Partition]
}

func (o *opened) Open(ctx context.Context, part *consumers.Partition) (consumers.Feed, error) {
	f, err := o.passer.Open(ctx, part)
	o.part.Store(part)
	return f, err
}

func commitAt(t *testing.T, adm *kadm.Client, group, topic string, at int64) {
	t.Helper()
	to := kadm.Offsets{}
	to.AddOffset(topic, 0, at, -1)
	if err := adm.CommitAllOffsets(t.Context(), group, to); err != nil {
		t.Fatal(err)
	}
}

func removeBefore(t *testing.T, adm *kadm.Client, topic string, at int64) {
	t.Helper()
	gone := kadm.Offsets{}
	gone.AddOffset(topic, 0, at, -1)
	if _, err := adm.DeleteRecords(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
}

// TestAPasserIsToldThatWhatItWaitsForIsGone: retention removed the last records before the group read them, and nothing
// comes after them. Only where the loss is accepted does it go on.
func TestAPasserIsToldThatWhatItWaitsForIsGone(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "a")
	adm := admin(t, client)
	plain(t, client, "a", "1", "2", "3", "4", "5")
	commitAt(t, adm, "g", "a", 2)
	removeBefore(t, adm, "a", 5)
	reader := runReader(t, client)

	refused := &opened{passer: &passer{recorder: newRecorder()}}
	loop, err := consumers.NewLoop(consumers.LoopConfig{Client: client, Group: "g", Topics: []string{"a"}, Handler: refused})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(t.Context()) }()
	eventually(t, "it is opened", func() bool { return refused.part.Load() != nil })
	eventually(t, "the loss is told", func() bool {
		if passed, err := refused.part.Load().PassEmpty(t.Context(), reader, 5); passed || err != nil {
			t.Fatalf("passed %v, %v", passed, err)
		}
		select {
		case err = <-ended:
			return true
		default:
			return false
		}
	})
	if err == nil || !strings.Contains(err.Error(), "3 records before offset 5") {
		t.Fatalf("the loop ended with %v", err)
	}

	client.AcceptLoss = true
	accepting := &opened{passer: &passer{recorder: newRecorder()}}
	start(t, consumers.LoopConfig{Client: client, Group: "g", Topics: []string{"a"}, Handler: accepting})
	eventually(t, "it is passed", func() bool {
		part := accepting.part.Load()
		if part == nil {
			return false
		}
		passed, err := part.PassEmpty(t.Context(), reader, 5)
		if err != nil {
			t.Fatal(err)
		}
		return passed
	})
	eventually(t, "the feed is told", func() bool {
		accepting.mu.Lock()
		defer accepting.mu.Unlock()
		return accepting.next == 5
	})
	plain(t, client, "a", "6")
	eventually(t, "what comes after is read", func() bool { return accepting.count() == 1 })
}

// TestExistingRecordsAreNeverPassed: a feed that asks early, or is slow, misses nothing.
func TestExistingRecordsAreNeverPassed(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "a")
	plain(t, client, "a", "1", "2", "3")
	reader := runReader(t, client)
	p := &opened{passer: &passer{recorder: newRecorder()}}
	start(t, consumers.LoopConfig{Client: client, Group: "g", Topics: []string{"a"}, Handler: p})
	eventually(t, "everything before the end is handed out", func() bool {
		part := p.part.Load()
		if part == nil {
			return false
		}
		passed, err := part.PassEmpty(t.Context(), reader, 3)
		return err == nil && passed
	})
	eventually(t, "three are read", func() bool { return p.count() == 3 })
}
