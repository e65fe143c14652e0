package fcm

import (
	"testing"
	"time"

	"github.com/klivvr/whisper/consumers/push/fcm/simulator"
)

// Google's token endpoint speaks HTTP/2 to whoever offers it. Its connection is another than those for messages, opened anew
// for each access token.
func TestAccessTokensAreHadOverNewConnections(t *testing.T) {
	t.Parallel()
	f := setup(t, simulator.Config{}, nil)
	if r := f.send("phone"); !r.Sent() {
		t.Fatalf("got %+v", r)
	}
	f.forward(2 * time.Minute)
	f.fcm.Revoke()
	f.fcm.ProgramTokens(1, simulator.Answer{Fault: simulator.Cut}) // which ends the connection
	f.send("phone")
	f.forward(time.Minute)
	if r := f.send("phone"); !r.Sent() {
		t.Errorf("got %+v, log: %s", r, f.logs.b.String())
	}
}
