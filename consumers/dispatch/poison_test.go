package dispatch

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
)

// A record that meets a bug stops its partition once; the next time it is known.
func TestARecordThatMeetsABugIsKnownTheNextTime(t *testing.T) {
	t.Parallel()
	role := &Role{poison: newPoison()}
	p := &partition{role: role, id: 3} // no state: any decision is a bug
	rec := &kgo.Record{Topic: "whisper.deliveries.high", Partition: 3, Offset: 7}
	met := func() error {
		err := consumers.Contain(func() error { p.decide(rec, domain.TimePassed{}, time.Time{}); return nil })
		return p.poisoned(err)
	}
	err := met()
	var f *consumers.Failure
	if !errors.As(err, &f) || f.Reach != consumers.ReachPartition || !f.Contained || !strings.Contains(err.Error(), "whisper.deliveries.high/3 at 7: panic: ") {
		t.Fatalf("the failure: %v", err)
	}
	if role.poison.reason(rec) == nil || role.poison.reason(&kgo.Record{Topic: rec.Topic, Partition: 3, Offset: 8}) != nil {
		t.Error("the record is not known, or another one is")
	}
	if errors.As(met(), &f); f.Contained {
		t.Error("a record that was to be set aside and met the bug again is tried again without a longer wait")
	}
	p.deciding = nil
	if err := p.poisoned(errors.New("x")); consumers.ReachOf(err) != consumers.ReachPartition {
		t.Errorf("what is due: %v", err)
	}
}
