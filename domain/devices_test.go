package domain_test

import (
	"slices"
	"testing"

	"github.com/klivvr/whisper/domain"
)

func TestPushStandsForTheChannelsBehindIt(t *testing.T) {
	t.Parallel()
	if !slices.Equal(domain.DeviceChannels, []string{"apns", "fcm", "webpush"}) || domain.AllChannels[1] != domain.ChannelPush {
		t.Errorf("push stands for %q, after %q", domain.DeviceChannels, domain.AllChannels[1])
	}
}
