package main

import (
	"strings"
	"testing"
)

func TestThePageOnBroadcastsIsTrue(t *testing.T) {
	t.Parallel()
	dev := startDev(t, "--ephemeral")
	out := runBlocks(t, "broadcasts.md", "broadcasts watch", "WHISPER_KAFKA="+dev.find(t, `Kafka +(\S+),`), "WHISPER_POSTGRES="+dev.find(t, `(postgres://\S+)`))
	for _, said := range []string{"2 of 3 users are meant", "Nothing was sent.", "finished  news-7", "user.attributes.country == 'EG'", "asked to retract news-7"} {
		if !strings.Contains(out, said) {
			t.Errorf("it does not say %q:\n%s", said, out)
		}
	}
}
