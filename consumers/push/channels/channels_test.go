package channels

import (
	"slices"
	"testing"

	"github.com/klivvr/whisper/domain"
)

// A channel that dispatch sends to and no push role can serve would hold attempts until they expire, and the other way round
// nothing would ever come.
func TestTheRegistryIsWhatDispatchSendsTo(t *testing.T) {
	t.Parallel()
	var names []string
	for _, c := range All() {
		names = append(names, c.Name)
	}
	if !slices.Equal(names, domain.PushChannels) {
		t.Errorf("the registry has %q, dispatch sends to %q", names, domain.PushChannels)
	}
}
