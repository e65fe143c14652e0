package fcm

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/klivvr/whisper/consumers/push/fcm/simulator"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// A success is FCM's where its body is. What is cut off may be one.
func TestWhatASuccessIs(t *testing.T) {
	t.Parallel()
	const name = `projects/p/messages/1`
	for text, c := range map[string]struct {
		status int
		body   string
		cut    bool
		class  whisperv1.FailureClass
		reason string
		name   string
	}{
		"whole":                {200, "{\n  \"name\": \"" + name + "\"\n}\n", false, accepted, "", name},
		"cut in the name":      {200, "{\n  \"name\": \"projec", true, accepted, "", ""},
		"cut before the name":  {200, "{\n  ", true, unknown, "half_an_answer", ""},
		"cut before the body":  {200, "", true, unknown, "half_an_answer", ""},
		"somebody's 204":       {204, "", false, retry, "no_reason", ""},
		"somebody's 202":       {202, "<html>", false, retry, "no_reason", ""},
		"half of another page": {202, "<ht", true, retry, "half_an_answer", ""},
	} {
		a := readAnswer(c.status, []byte(c.body), c.cut, 1)
		if a.verdict.Class != c.class || a.reason != c.reason || a.name != c.name {
			t.Errorf("%s: got %+v", text, a)
		}
	}
}

// The turn in the rate may come when the time is over, and always comes later than the body was made.
func TestWhatExpiresInLineIsNotSent(t *testing.T) {
	t.Parallel()
	f := setup(t, simulator.Config{}, nil)
	f.send("phone")
	asked := f.asked()
	m := f.push("phone")
	old := f.now()
	f.forward(time.Hour - 100*time.Second)
	if got, refused := f.try(t.Context(), 0, &request{attempt: m, at: old}); refused != nil || got.verdict.Class != accepted {
		t.Fatalf("got %+v, %+v", got, refused)
	}
	received := f.fcm.Received()
	if body := string(received[len(received)-1].Body); !hasTTLUpTo(body, 100) {
		t.Errorf("the time to live is that of an hour ago: %s", body)
	}
	f.forward(101 * time.Second)
	_, refused := f.try(t.Context(), 0, &request{attempt: m, at: old})
	if refused == nil || refused.Class != whisperv1.FailureClass_FAILURE_CLASS_EXPIRED || f.asked() != asked+1 {
		t.Errorf("got %+v, asked %d times", refused, f.asked()-asked)
	}
}

func TestAnAbsurdRetryAfterIsBounded(t *testing.T) {
	t.Parallel()
	f := setup(t, simulator.Config{}, nil)
	f.fcm.Program("later", 0, simulator.Answer{Status: 503, RetryAfter: "99999999"})
	if r := f.send("later"); r.Class != retry || r.RetryAfter > time.Hour {
		t.Errorf("got %+v", r)
	}
}

// hasTTLUpTo says whether the body's time to live is at most so many seconds.
func hasTTLUpTo(body string, most int) bool {
	for s := range most + 1 {
		if strings.Contains(body, fmt.Sprintf(`"ttl":"%ds"`, s)) {
			return true
		}
	}
	return false
}

// Of an attempt that expires while it has a new access token made, nobody knows whether that one is refused as well.
func TestWhatExpiresBeforeItsSecondTryStopsNothing(t *testing.T) {
	t.Parallel()
	f := setup(t, simulator.Config{}, nil)
	f.send("phone")
	f.forward(2 * time.Minute) // the access token may be replaced
	f.fcm.Program("phone", 1, simulator.Answer{Status: 401, Delay: 200 * time.Millisecond})
	p := f.push("phone")
	p.ExpiresAtMs = f.now().Add(150 * time.Millisecond).UnixMilli()
	if r := f.Send(t.Context(), p); r.Class != whisperv1.FailureClass_FAILURE_CLASS_EXPIRED {
		t.Errorf("got %+v", r)
	}
	f.fcm.Forget("phone")
	if r := f.send("phone"); !r.Sent() || f.Ready() != nil {
		t.Errorf("afterwards: %+v, %v", r, f.Ready())
	}
}
