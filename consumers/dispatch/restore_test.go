package dispatch

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func TestTheWindowReadsRecordsOfBothVersions(t *testing.T) {
	t.Parallel()
	hash := func(n string) []byte { h := domain.HashDelivery(n, "mona"); return h[:] }
	for name, tc := range map[string]struct {
		seen  *whisperv1.Seen
		known int
		bad   bool
	}{
		"an earlier version's":  {seen: &whisperv1.Seen{Hashes: append(hash("a"), hash("b")...), Requests: []uint64{1, 2}, AcceptedMs: []uint64{5, 6}}, known: 2},
		"one that ended late":   {seen: &whisperv1.Seen{Hashes: append(hash("a"), hash("b")...), Requests: []uint64{1, 2}, AcceptedMs: []uint64{5, 6}, LaterMs: []uint64{0, 90_000}}, known: 2},
		"one that is kept":      {seen: &whisperv1.Seen{Hashes: append(hash("a"), hash("b")...), Requests: []uint64{1, 2}, AcceptedMs: []uint64{5, 6}, KeepMs: []uint64{0, 9_000_000_000}}, known: 2},
		"a short list of keeps": {seen: &whisperv1.Seen{Hashes: append(hash("a"), hash("b")...), Requests: []uint64{1, 2}, AcceptedMs: []uint64{5, 6}, KeepMs: []uint64{9}}, bad: true},
		"a list too short":      {seen: &whisperv1.Seen{Hashes: append(hash("a"), hash("b")...), Requests: []uint64{1, 2}, AcceptedMs: []uint64{5, 6}, LaterMs: []uint64{9}}, bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			value, err := proto.Marshal(tc.seen)
			if err != nil {
				t.Fatal(err)
			}
			p := &partition{state: decide.NewState(0, decide.DefaultPolicy())}
			if err := p.restoreSeen(&kgo.Record{Value: value}); (err != nil) != tc.bad {
				t.Fatal(err)
			}
			if got := p.state.Stats().Seen; got != tc.known {
				t.Errorf("%d are known, want %d", got, tc.known)
			}
		})
	}
}
