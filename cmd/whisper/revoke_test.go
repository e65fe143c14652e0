package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func TestRevokeWritesWhatGatewaysFollow(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	began := time.Now()
	if got := b.whisper(t, "revoke", "--user=mona"); !strings.HasPrefix(got, "revoked user mona: tokens issued before ") {
		t.Errorf("printed %q", got)
	}
	out := decode[struct {
		User, Session, Topic string
		Offset               int64
		Before               time.Time
	}](t, b.whisper(t, "revoke", "--user=mona", "--session=login-1", "--reason=stolen", "--json"))
	if out.User != "mona" || out.Session != "login-1" || out.Topic != consumers.TopicRevocations || out.Offset != 1 ||
		out.Before.Before(began.Truncate(time.Microsecond)) {
		t.Errorf("printed %+v", out)
	}
	recs := b.read(t, consumers.TopicRevocations)
	if len(recs) != 2 {
		t.Fatalf("%d records", len(recs))
	}
	// Two keys, so that compaction keeps both.
	for i, key := range []string{"mona", "mona\x00login-1"} {
		var rev whisperv1.Revocation
		if err := proto.Unmarshal(recs[i].Value, &rev); err != nil {
			t.Fatal(err)
		}
		if string(recs[i].Key) != key || rev.GetUserId() != "mona" || rev.GetBeforeUs() < began.UnixMicro() {
			t.Errorf("key %q: %v", recs[i].Key, &rev)
		}
	}
}
