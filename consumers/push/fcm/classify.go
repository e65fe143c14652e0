package fcm

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// Shorter names of the outcome classes; accepted is the zero class.
const (
	accepted = whisperv1.FailureClass_FAILURE_CLASS_UNSPECIFIED
	retry    = whisperv1.FailureClass_FAILURE_CLASS_RETRY
	drop     = whisperv1.FailureClass_FAILURE_CLASS_DROP
	prune    = whisperv1.FailureClass_FAILURE_CLASS_PRUNE
	stop     = whisperv1.FailureClass_FAILURE_CLASS_STOP
	unknown  = whisperv1.FailureClass_FAILURE_CLASS_UNKNOWN
)

// A Reaction is what the provider does beyond reporting the class.
type Reaction int8

const (
	// Report: nothing else.
	Report Reaction = iota
	// DeadLetter: FCM calls our request malformed. The record is kept for whoever mends it.
	DeadLetter
	// Guard: the token is forgotten, but not while there is a spike of such answers. Then we most likely ask the wrong
	// project.
	Guard
	// Refresh: get a new access token and try once more. If that is refused too, the credential is stopped.
	Refresh
	// StopProject: nothing works with this project until somebody acts.
	StopProject
	// StopPlatform: FCM can't reach the platform behind this token (Apple's or a browser's), because the project's own
	// credential for it is refused. Android is not affected.
	StopPlatform
	// Slow: the project's quota is used up. All attempts of the project wait, and the rate falls.
	Slow
	// Trip: counts towards the breaker of the whole provider.
	Trip
)

// Delays that go with an answer that names none.
const (
	// FCM asks to wait a minute after a 429.
	quotaDelay = time.Minute
	// The least wait after a 500 or 503; it doubles with each attempt up to serverDelayMost.
	serverDelay, serverDelayMost = 10 * time.Second, 15 * time.Minute
	// A status that FCM does not document comes from something in between (a proxy).
	strangerDelay = time.Minute
	// Before an attempt is repeated that certainly did not reach FCM.
	reconnectDelay = 5 * time.Second
)

// Verdict is what an answer means. If the reaction is to try again, Class and After hold where the second try ends the
// same way.
type Verdict struct {
	Class whisperv1.FailureClass
	Then  Reaction
	After time.Duration
	// Listed is false for an answer that the table does not know: its status decides, and somebody should hear of it.
	Listed bool
}

// Refusal is what an error's body says. The zero value is that of a body that is none of FCM's.
type Refusal struct {
	// Code is FCM's own error code, such as UNREGISTERED; empty if the body has none, so another part of Google answered.
	Code string
	// Status is Google's canonical name, such as NOT_FOUND.
	Status string
	// Message is for people.
	Message string
	// BadFields are the fields that a google.rpc.BadRequest names. Bad says that there was one, even one without fields.
	BadFields []string
	Bad       bool
	// DeviceQuota says that a google.rpc.QuotaFailure is about this device alone.
	DeviceQuota bool
}

// Reason is the word for facts: FCM's own code, else Google's, else empty.
func (r Refusal) Reason() string {
	if r.Code != "" {
		return r.Code
	}
	return r.Status
}

// The types of details that say more than the status.
const (
	typeFCM        = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
	typeBadRequest = "type.googleapis.com/google.rpc.BadRequest"
	typeQuota      = "type.googleapis.com/google.rpc.QuotaFailure"
)

// ParseRefusal reads the body of an answer that is not 200. Whatever is not as documented is left out.
func ParseRefusal(body []byte) Refusal {
	var answer struct {
		Error struct {
			Status  string            `json:"status"`
			Message string            `json:"message"`
			Details []json.RawMessage `json:"details"`
		} `json:"error"`
	}
	if json.Unmarshal(bytes.TrimSpace(body), &answer) != nil {
		return Refusal{}
	}
	r := Refusal{Status: answer.Error.Status, Message: answer.Error.Message}
	for _, raw := range answer.Error.Details {
		var d struct {
			Type      string `json:"@type"`
			ErrorCode string `json:"errorCode"`
		}
		if json.Unmarshal(raw, &d) != nil {
			continue
		}
		switch d.Type {
		case typeFCM:
			r.Code = d.ErrorCode
		case typeBadRequest:
			r.Bad = true
			r.BadFields = append(r.BadFields, badFields(raw)...)
		case typeQuota:
			r.DeviceQuota = r.DeviceQuota || ofDevice(raw)
		}
	}
	return r
}

func badFields(raw []byte) []string {
	var d struct {
		Violations []struct {
			Field string `json:"field"`
		} `json:"fieldViolations"`
	}
	if json.Unmarshal(raw, &d) != nil {
		return nil
	}
	var fields []string
	for _, v := range d.Violations {
		fields = append(fields, v.Field)
	}
	return fields
}

// ofDevice: Google documents that a QuotaFailure tells the project's, the device's and the topic's quota apart, but no
// constant that does. Its text for the second begins "Device message rate".
func ofDevice(raw []byte) bool {
	var d struct {
		Violations []struct {
			Subject     string `json:"subject"`
			Description string `json:"description"`
		} `json:"violations"`
	}
	if json.Unmarshal(raw, &d) != nil {
		return false
	}
	for _, v := range d.Violations {
		if strings.Contains(strings.ToLower(v.Subject+" "+v.Description), "device") {
			return true
		}
	}
	return false
}

// Classify says what an answer means to the attempt with this number. A refusal that the table does not have gets what
// its status says. A status that FCM does not document was not FCM's answer, so nothing is concluded from it about the
// delivery: it is tried again.
func Classify(status int, r Refusal, attempt int32) Verdict {
	v, listed := listedAs(status, r, attempt)
	if listed {
		v.Listed = true
		return v
	}
	switch {
	case status == http.StatusBadRequest, status == http.StatusMethodNotAllowed, status == http.StatusRequestEntityTooLarge:
		return Verdict{Class: drop, Then: DeadLetter}
	case status == http.StatusForbidden:
		return Verdict{Class: stop, Then: StopProject}
	case status == http.StatusNotFound: // with a code that is not UNREGISTERED: not a reason to forget the token
		return Verdict{Class: drop, Then: Guard}
	case status >= 500:
		return Verdict{Class: retry, Then: Trip, After: serverWait(attempt)}
	default:
		return Verdict{Class: retry, Then: Trip, After: strangerDelay}
	}
}

// listedAs is the table.
func listedAs(status int, r Refusal, attempt int32) (Verdict, bool) {
	type answer struct {
		status int
		code   string
	}
	switch (answer{status, r.Code}) {
	case answer{200, ""}:
		return Verdict{Class: accepted}, true
	case answer{404, "UNREGISTERED"}:
		return Verdict{Class: prune, Then: Guard}, true
	case answer{400, "INVALID_ARGUMENT"}:
		return invalid(r), true
	case answer{403, "SENDER_ID_MISMATCH"}: // the token is another project's
		return Verdict{Class: prune, Then: Guard}, true
	case answer{401, "THIRD_PARTY_AUTH_ERROR"}:
		return Verdict{Class: stop, Then: StopPlatform}, true
	case answer{429, "QUOTA_EXCEEDED"}, answer{429, ""}:
		if r.DeviceQuota {
			return Verdict{Class: retry, After: quotaDelay}, true
		}
		return Verdict{Class: retry, Then: Slow, After: quotaDelay}, true
	case answer{500, "INTERNAL"}, answer{500, ""}, answer{503, "UNAVAILABLE"}, answer{503, ""}:
		return Verdict{Class: retry, Then: Trip, After: serverWait(attempt)}, true
	}
	switch {
	case status == http.StatusBadRequest && r.Code == "" && r.Bad:
		return invalid(r), true
	case status == http.StatusUnauthorized:
		return Verdict{Class: stop, Then: Refresh}, true
	case status == http.StatusForbidden && r.Status == "PERMISSION_DENIED" && (r.Code == "" || r.Code == "PERMISSION_DENIED"):
		return Verdict{Class: stop, Then: StopProject}, true
	case status == http.StatusNotFound && r.Code == "":
		return Verdict{Class: stop, Then: StopProject}, true
	}
	return Verdict{}, false
}

// invalid: what we send was checked before, so if FCM names no field, only the token can be what it refuses. A message
// that is too big is named in words alone.
func invalid(r Refusal) Verdict {
	token := !r.Bad
	for _, field := range r.BadFields {
		token = token || field == "message.token" || field == "message.fid"
	}
	if token && !strings.Contains(strings.ToLower(r.Message), "too big") {
		return Verdict{Class: prune, Then: Guard}
	}
	return Verdict{Class: drop, Then: DeadLetter}
}

// serverWait is ten seconds before the second attempt, twice that before the third, and so on.
func serverWait(attempt int32) time.Duration {
	return min(serverDelay<<min(max(attempt, 1)-1, 10), serverDelayMost)
}

// ClassifyNoAnswer is the verdict on an attempt that got no answer. If FCM may have taken it, another attempt may show it
// again in place of the first, which has the same tag.
func ClassifyNoAnswer(mayHaveArrived bool) Verdict {
	if mayHaveArrived {
		return Verdict{Class: unknown, Then: Trip, Listed: true}
	}
	return Verdict{Class: retry, Then: Trip, After: reconnectDelay, Listed: true}
}

// spread adds up to a quarter to a wait that we chose ourselves, so that what failed together does not return together.
func spread(wait time.Duration) time.Duration {
	if wait <= 0 {
		return 0
	}
	return wait + rand.N(wait/4+1)
}
