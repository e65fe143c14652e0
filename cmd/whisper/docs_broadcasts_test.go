package main

import (
	"strings"
	"testing"
)

func TestThePagesOnBroadcastsAndErasureAreTrue(t *testing.T) {
	t.Parallel()
	dev := startDev(t, "--ephemeral")
	env := []string{"WHISPER_KAFKA=" + dev.find(t, `Kafka +(\S+),`), "WHISPER_POSTGRES=" + dev.find(t, `(postgres://\S+)`)}
	out := runBlocks(t, "broadcasts.md", "broadcasts watch", env...)
	runBlocks(t, "erasure.md", "profile erase", env...)
	for _, said := range []string{
		"2 of 3 users are meant", "Nothing was sent.", "finished  news-7", "cancelled  news-8", "cancelled  news-9",
		"هذا الأسبوع", "user.attributes.country == 'EG'", "asked to retract news-7",
	} {
		if !strings.Contains(out, said) {
			t.Errorf("it does not say %q:\n%s", said, out)
		}
	}
}
