package apns

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/klivvr/whisper/consumers/push/h2"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func TestClassify(t *testing.T) {
	t.Parallel()
	const min15 = 15 * time.Minute
	for _, c := range []struct {
		status int
		reason string
		class  whisperv1.FailureClass
		then   Reaction
		after  time.Duration
		listed bool
	}{
		{200, "", accepted, Report, 0, true},

		{410, "Unregistered", prune, Report, 0, true},
		{410, "ExpiredToken", prune, Report, 0, true},
		{400, "BadDeviceToken", prune, Guard, 0, true},
		{400, "DeviceTokenNotForTopic", prune, Guard, 0, true},
		{400, "TopicDisallowed", stop, StopTopic, 0, true},
		{400, "BadTopic", stop, StopTopic, 0, true},
		{400, "MissingTopic", stop, StopTopic, 0, true},
		{400, "IdleTimeout", retry, Reconnect, 5 * time.Second, true},

		{400, "BadCollapseId", drop, DeadLetter, 0, true},
		{400, "BadExpirationDate", drop, DeadLetter, 0, true},
		{400, "BadMessageId", drop, DeadLetter, 0, true},
		{400, "BadPriority", drop, DeadLetter, 0, true},
		{400, "DuplicateHeaders", drop, DeadLetter, 0, true},
		{400, "InvalidPushType", drop, DeadLetter, 0, true},
		{400, "MissingDeviceToken", drop, DeadLetter, 0, true},
		{400, "PayloadEmpty", drop, DeadLetter, 0, true},
		{404, "BadPath", drop, DeadLetter, 0, true},
		{405, "MethodNotAllowed", drop, DeadLetter, 0, true},
		{413, "PayloadTooLarge", drop, DeadLetter, 0, true},

		{403, "ExpiredProviderToken", stop, Refresh, 0, true},
		{403, "UnrelatedKeyIdInToken", stop, Reconnect, 0, true},
		{403, "InvalidProviderToken", stop, StopCredential, 0, true},
		{403, "MissingProviderToken", stop, StopCredential, 0, true},
		{403, "BadEnvironmentKeyInToken", stop, StopCredential, 0, true},
		{403, "BadEnvironmentKeyIdInToken", stop, StopCredential, 0, true},
		{403, "Forbidden", stop, StopCredential, 0, true},
		{403, "BadCertificate", stop, StopCredential, 0, true},
		{403, "BadCertificateEnvironment", stop, StopCredential, 0, true},

		{429, "TooManyProviderTokenUpdates", retry, Freeze, time.Minute, true},
		{429, "TooManyRequests", retry, Report, time.Minute, true},

		{500, "InternalServerError", retry, Trip, min15, true},
		{503, "ServiceUnavailable", retry, Trip, min15, true},
		{503, "Shutdown", retry, Trip, min15, true},

		// Not in the table: the status decides.
		{200, "Surprise", unknown, Trip, strangerDelay, false},
		{400, "Surprise", drop, DeadLetter, 0, false},
		{404, "", drop, DeadLetter, 0, false},
		{405, "", drop, DeadLetter, 0, false},
		{413, "", drop, DeadLetter, 0, false},
		{403, "Surprise", stop, StopCredential, 0, false},
		{410, "", prune, Guard, 0, false},
		{429, "", retry, Report, time.Minute, false},
		{500, "", retry, Trip, min15, false},
		{502, "", retry, Trip, min15, false},
		// Not of APNs.
		{301, "", retry, Trip, time.Minute, false},
		{407, "", retry, Trip, time.Minute, false},
	} {
		t.Run(fmt.Sprint(c.status, c.reason), func(t *testing.T) {
			t.Parallel()
			want := Verdict{Class: c.class, Then: c.then, After: c.after, Listed: c.listed}
			if got := Classify(c.status, c.reason); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestClassifyNoAnswer(t *testing.T) {
	t.Parallel()
	if got := ClassifyNoAnswer(true); got.Class != unknown || got.Then != Reconnect {
		t.Errorf("what may have arrived: got %+v", got)
	}
	if got := ClassifyNoAnswer(false); got.Class != retry || got.Then != Reconnect || got.After == 0 {
		t.Errorf("what did not arrive: got %+v", got)
	}
}

// A 200 of something in between, such as a proxy, is not APNs's word.
func TestA200ThatIsNotOfAPNs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ id, body, reason string }{
		{"8a2f", "", ""},
		{"8a2f", "{}", ""},
		{"", "<html>please log in</html>", "unexpected_body"},
		{"", "{}", "unexpected_body"},
		{"8a2f", `{"reason":"Shutdown"}`, "Shutdown"},
		{"", "", ""},
	} {
		header := http.Header{}
		if c.id != "" {
			header.Set("apns-id", c.id)
		}
		a := &answer{}
		a.read(&h2.Reply{Status: 200, Header: header, Body: []byte(c.body)}, time.Now())
		if a.reason != c.reason || (Classify(200, a.reason).Class == accepted) != (c.reason == "") {
			t.Errorf("%+v: got %q", c, a.reason)
		}
	}
}
