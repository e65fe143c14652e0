package fcm

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// refused is an error as FCM writes it, with these details.
func refused(status, message, details string) string {
	return fmt.Sprintf(`{"error":{"code":1,"message":%q,"status":%q,"details":[%s]}}`, message, status, details)
}

func code(c string) string { return fmt.Sprintf(`{"@type":%q,"errorCode":%q}`, typeFCM, c) }

func badField(f string) string {
	return fmt.Sprintf(`{"@type":%q,"fieldViolations":[{"field":%q,"description":"Invalid"}]}`, typeBadRequest, f)
}

func quota(subject, description string) string {
	return fmt.Sprintf(`{"@type":%q,"violations":[{"subject":%q,"description":%q}]}`, typeQuota, subject, description)
}

func TestClassify(t *testing.T) {
	t.Parallel()
	invalid := code("INVALID_ARGUMENT")
	for name, c := range map[string]struct {
		status int
		body   string
		class  whisperv1.FailureClass
		then   Reaction
		after  time.Duration
		listed bool
	}{
		"accepted": {200, "", accepted, Report, 0, true},

		"unregistered":                  {404, refused("NOT_FOUND", "gone", code("UNREGISTERED")), prune, Guard, 0, true},
		"invalid, no field":             {400, refused("INVALID_ARGUMENT", "not a valid registration token", invalid), prune, Guard, 0, true},
		"invalid token":                 {400, refused("INVALID_ARGUMENT", "", invalid+","+badField("message.token")), prune, Guard, 0, true},
		"invalid fid":                   {400, refused("INVALID_ARGUMENT", "", badField("message.fid")+","+invalid), prune, Guard, 0, true},
		"invalid field":                 {400, refused("INVALID_ARGUMENT", "", invalid+","+badField("message.data[0].key")), drop, DeadLetter, 0, true},
		"invalid field, not FCM's code": {400, refused("INVALID_ARGUMENT", "", badField("message.android.ttl")), drop, DeadLetter, 0, true},
		"invalid token, not FCM's code": {400, refused("INVALID_ARGUMENT", "", badField("message.token")), prune, Guard, 0, true},
		"a BadRequest without fields":   {400, refused("INVALID_ARGUMENT", "", fmt.Sprintf(`{"@type":%q}`, typeBadRequest)), drop, DeadLetter, 0, true},
		"too big":                       {400, refused("INVALID_ARGUMENT", "Android message is too big", invalid), drop, DeadLetter, 0, true},

		"another project's token": {403, refused("PERMISSION_DENIED", "", code("SENDER_ID_MISMATCH")), prune, Guard, 0, true},
		"apple's key is refused":  {401, refused("UNAUTHENTICATED", "", code("THIRD_PARTY_AUTH_ERROR")), stop, StopPlatform, 0, true},
		"access token refused":    {401, refused("UNAUTHENTICATED", "", ""), stop, Refresh, 0, true},
		"401 without a body":      {401, "", stop, Refresh, 0, true},
		"permission denied":       {403, refused("PERMISSION_DENIED", "", ""), stop, StopProject, 0, true},
		"permission denied, code": {403, refused("PERMISSION_DENIED", "", code("PERMISSION_DENIED")), stop, StopProject, 0, true},
		"no such project":         {404, refused("NOT_FOUND", "", ""), stop, StopProject, 0, true},
		"404 of a wrong server":   {404, "<html>", stop, StopProject, 0, true},

		"quota":            {429, refused("RESOURCE_EXHAUSTED", "", code("QUOTA_EXCEEDED")), retry, Slow, time.Minute, true},
		"429 of Google":    {429, refused("RESOURCE_EXHAUSTED", "", ""), retry, Slow, time.Minute, true},
		"project's quota":  {429, refused("RESOURCE_EXHAUSTED", "", code("QUOTA_EXCEEDED")+","+quota("project:1", "Message rate exceeded")), retry, Slow, time.Minute, true},
		"device's quota":   {429, refused("RESOURCE_EXHAUSTED", "", code("QUOTA_EXCEEDED")+","+quota("", "Device message rate exceeded")), retry, Report, time.Minute, true},
		"device's subject": {429, refused("RESOURCE_EXHAUSTED", "", code("QUOTA_EXCEEDED")+","+quota("device:x", "")), retry, Report, time.Minute, true},

		"internal":         {500, refused("INTERNAL", "", code("INTERNAL")), retry, Trip, 40 * time.Second, true},
		"500 without JSON": {500, "oops", retry, Trip, 40 * time.Second, true},
		"unavailable":      {503, refused("UNAVAILABLE", "", code("UNAVAILABLE")), retry, Trip, 40 * time.Second, true},

		// Not in the table: the status decides.
		"new 400":            {400, refused("INVALID_ARGUMENT", "", code("SURPRISE")), drop, DeadLetter, 0, false},
		"400 without a code": {400, refused("INVALID_ARGUMENT", "Invalid JSON payload", ""), drop, DeadLetter, 0, false},
		"new 403":            {403, refused("SURPRISE", "", ""), stop, StopProject, 0, false},
		"new 404":            {404, refused("NOT_FOUND", "", code("SURPRISE")), drop, Guard, 0, false},
		"new 429":            {429, refused("SURPRISE", "", code("SURPRISE")), retry, Trip, time.Minute, false},
		"new 500":            {500, refused("SURPRISE", "", code("SURPRISE")), retry, Trip, 40 * time.Second, false},
		"413":                {413, "", drop, DeadLetter, 0, false},
		"a proxy's 502":      {502, "<html>", retry, Trip, 40 * time.Second, false},
		"a proxy's 407":      {407, "", retry, Trip, time.Minute, false},
		"a redirect":         {302, "", retry, Trip, time.Minute, false},
		"another success":    {204, "", retry, Trip, time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := Verdict{Class: c.class, Then: c.then, After: c.after, Listed: c.listed}
			if got := Classify(c.status, ParseRefusal([]byte(c.body)), 3); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestServerWaitDoubles(t *testing.T) {
	t.Parallel()
	for attempt, want := range map[int32]time.Duration{
		-1: 10 * time.Second, 0: 10 * time.Second, 1: 10 * time.Second, 2: 20 * time.Second, 5: 160 * time.Second, 8: 15 * time.Minute,
		1 << 30: 15 * time.Minute,
	} {
		if got := Classify(503, Refusal{}, attempt).After; got != want {
			t.Errorf("attempt %d: got %s, want %s", attempt, got, want)
		}
	}
	for range 1000 {
		if got := spread(10 * time.Second); got < 10*time.Second || got > 12500*time.Millisecond {
			t.Fatalf("a spread wait of 10 s is %s", got)
		}
	}
}

func TestClassifyNoAnswer(t *testing.T) {
	t.Parallel()
	if got := ClassifyNoAnswer(true); got.Class != unknown {
		t.Errorf("what may have arrived: got %+v", got)
	}
	if got := ClassifyNoAnswer(false); got.Class != retry || got.After == 0 {
		t.Errorf("what did not arrive: got %+v", got)
	}
}

func TestReason(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		refused("NOT_FOUND", "", code("UNREGISTERED")): "UNREGISTERED",
		refused("NOT_FOUND", "", ""):                   "NOT_FOUND",
		"":                                             "",
		"<html>503</html>":                             "",
		`{"error":"invalid_grant"}`:                    "",
		`[1,2]`:                                        "",
		`{"error":{"status":"UNAVAILABLE","details":[7,{"@type":1},{"@type":"x"}]}}`: "UNAVAILABLE",
	} {
		if got := ParseRefusal([]byte(body)).Reason(); got != want {
			t.Errorf("%s: got %q, want %q", body, got, want)
		}
	}
}

// Whatever a server answers: something is done about it, and a token is only forgotten where FCM's own words say so.
func TestEveryAnswerHasAVerdict(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		status := rapid.IntRange(100, 999).Draw(t, "status")
		body := rapid.OneOf(rapid.String(), rapid.Just(refused("NOT_FOUND", "", ""))).Draw(t, "body")
		v := Classify(status, ParseRefusal([]byte(body)), rapid.Int32().Draw(t, "attempt"))
		if v.Class == prune {
			t.Fatalf("%d %q forgets a token: %+v", status, body, v)
		}
		if v.Class == accepted && status != 200 {
			t.Fatalf("%d is taken for a success", status)
		}
		if v.Class == retry && v.After <= 0 {
			t.Fatalf("%d is tried again at once: %+v", status, v)
		}
	})
}
