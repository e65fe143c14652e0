package consumers_test

import (
	"strings"
	"testing"
	"time"

	"github.com/klivvr/whisper/consumers"
)

func TestASessionTimeoutIsChecked(t *testing.T) {
	t.Parallel()
	for d, good := range map[time.Duration]bool{
		0: true, consumers.DefaultSessionTimeout: true, time.Second: true, 30 * time.Minute: true,
		-time.Second: false, 999 * time.Millisecond: false, time.Hour: false,
	} {
		err := consumers.ClientConfig{Brokers: []string{"127.0.0.1:1"}, SessionTimeout: d}.Validate()
		if (err == nil) != good || !good && !strings.Contains(err.Error(), "session-timeout: ") {
			t.Errorf("%s: %v", d, err)
		}
	}
}

// A broker that does not take the session timeout would be asked for ever: the loop ends, and says whose setting it is.
func TestABrokerThatRefusesTheSessionTimeoutEndsTheLoop(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "requests")
	client.SessionTimeout = time.Second // the fake broker takes 6 s, as Kafka does
	loop, err := consumers.NewLoop(consumers.LoopConfig{Client: client, Group: "g", Topics: []string{"requests"}, Handler: newRecorder()})
	if err != nil {
		t.Fatal(err)
	}
	if err := loop.Run(t.Context()); err == nil || !strings.Contains(err.Error(),
		"session-timeout of 1s: see its group.min.session.timeout.ms") {
		t.Errorf("it ended with %v", err)
	}
}

// The default is what a broker takes whose settings nobody has touched.
func TestTheDefaultSessionTimeoutIsTaken(t *testing.T) {
	t.Parallel()
	client := kafka(t, 1, "requests")
	rec := newRecorder()
	start(t, consumers.LoopConfig{Client: client, Group: "g", Topics: []string{"requests"}, Handler: rec})
	eventually(t, "the loop owns its partition", func() bool { return len(rec.owns()) == 1 })
}
