package apns

import (
	"net/http"
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
	// DeadLetter: APNs calls our request malformed. The record is kept for whoever mends it.
	DeadLetter
	// Guard: the token is forgotten, but a spike of such answers means that we ask the wrong
	// environment or topic, and then nothing may be forgotten.
	Guard
	// Reconnect: try once more at once, on another connection.
	Reconnect
	// Refresh: mint a provider token if the one used is old enough, and try once more.
	Refresh
	// Freeze: go back to the provider token before, mint none for a while, and try once more.
	Freeze
	// StopCredential: nothing works with this key until somebody acts.
	StopCredential
	// StopTopic: nothing works with this topic until somebody acts.
	StopTopic
	// Trip: counts towards the breaker of the whole provider.
	Trip
)

// Delays that go with an answer.
const (
	// Apple asks to wait 15 minutes after a 500 or 503.
	serverDelay = 15 * time.Minute
	// Too many requests to one device: Apple names no time. Others are not delayed.
	deviceDelay = time.Minute
	// A status that APNs does not document comes from something in between (a proxy).
	strangerDelay = time.Minute
	// Before an attempt is repeated that certainly did not reach a device, once trying again at once
	// did not help.
	reconnectDelay = 5 * time.Second
)

// Verdict is what an answer means. Where the reaction tries again, Class and After hold if the second
// try ends the same way.
type Verdict struct {
	Class whisperv1.FailureClass
	Then  Reaction
	After time.Duration
	// Listed is false for an answer that the table does not know: its status decides, and somebody
	// should hear of it.
	Listed bool
}

type answerKey struct {
	status int
	reason string
}

// verdicts is the table of PROVIDERS.md with every answer that Apple documents.
var verdicts = map[answerKey]Verdict{
	{200, ""}: {Class: accepted},

	{410, "Unregistered"}: {Class: prune},
	{410, "ExpiredToken"}: {Class: prune},

	{400, "BadDeviceToken"}:         {Class: prune, Then: Guard},
	{400, "DeviceTokenNotForTopic"}: {Class: prune, Then: Guard},

	{400, "TopicDisallowed"}: {Class: stop, Then: StopTopic},
	{400, "BadTopic"}:        {Class: stop, Then: StopTopic},
	{400, "MissingTopic"}:    {Class: stop, Then: StopTopic},

	{400, "IdleTimeout"}: {Class: retry, Then: Reconnect, After: reconnectDelay},

	{400, "BadCollapseId"}:      {Class: drop, Then: DeadLetter},
	{400, "BadExpirationDate"}:  {Class: drop, Then: DeadLetter},
	{400, "BadMessageId"}:       {Class: drop, Then: DeadLetter},
	{400, "BadPriority"}:        {Class: drop, Then: DeadLetter},
	{400, "DuplicateHeaders"}:   {Class: drop, Then: DeadLetter},
	{400, "InvalidPushType"}:    {Class: drop, Then: DeadLetter},
	{400, "MissingDeviceToken"}: {Class: drop, Then: DeadLetter},
	{400, "PayloadEmpty"}:       {Class: drop, Then: DeadLetter},
	{404, "BadPath"}:            {Class: drop, Then: DeadLetter},
	{405, "MethodNotAllowed"}:   {Class: drop, Then: DeadLetter},
	{413, "PayloadTooLarge"}:    {Class: drop, Then: DeadLetter},

	{403, "ExpiredProviderToken"}:       {Class: stop, Then: Refresh},
	{403, "UnrelatedKeyIdInToken"}:      {Class: stop, Then: Reconnect},
	{403, "InvalidProviderToken"}:       {Class: stop, Then: StopCredential},
	{403, "MissingProviderToken"}:       {Class: stop, Then: StopCredential},
	{403, "BadEnvironmentKeyInToken"}:   {Class: stop, Then: StopCredential},
	{403, "BadEnvironmentKeyIdInToken"}: {Class: stop, Then: StopCredential},
	{403, "Forbidden"}:                  {Class: stop, Then: StopCredential},
	{403, "BadCertificate"}:             {Class: stop, Then: StopCredential},
	{403, "BadCertificateEnvironment"}:  {Class: stop, Then: StopCredential},

	{429, "TooManyProviderTokenUpdates"}: {Class: retry, Then: Freeze, After: deviceDelay},
	{429, "TooManyRequests"}:             {Class: retry, After: deviceDelay},

	{500, "InternalServerError"}: {Class: retry, Then: Trip, After: serverDelay},
	{503, "ServiceUnavailable"}:  {Class: retry, Then: Trip, After: serverDelay},
	{503, "Shutdown"}:            {Class: retry, Then: Trip, After: serverDelay},
}

// Classify says what APNs's answer means. A reason that the table does not have gets what its status
// says; a status that APNs does not document was not APNs's answer, so nothing is concluded from it
// about the delivery: it is tried again.
func Classify(status int, reason string) Verdict {
	if v, ok := verdicts[answerKey{status, reason}]; ok {
		v.Listed = true
		return v
	}
	switch {
	case status == http.StatusOK: // with an error inside: nobody knows what was taken
		return Verdict{Class: unknown, Then: Trip, After: strangerDelay}
	case status == http.StatusBadRequest, status == http.StatusNotFound,
		status == http.StatusMethodNotAllowed, status == http.StatusRequestEntityTooLarge:
		return Verdict{Class: drop, Then: DeadLetter}
	case status == http.StatusForbidden:
		return Verdict{Class: stop, Then: StopCredential}
	case status == http.StatusGone:
		return Verdict{Class: prune, Then: Guard}
	case status == http.StatusTooManyRequests:
		return Verdict{Class: retry, After: deviceDelay}
	case status >= 500:
		return Verdict{Class: retry, Then: Trip, After: serverDelay}
	default:
		return Verdict{Class: retry, Then: Trip, After: strangerDelay}
	}
}

// ClassifyNoAnswer is the verdict on an attempt that got no answer: GOAWAY, a cut connection, silence.
// Where APNs may have taken it, another attempt may show it twice, and policy decides.
func ClassifyNoAnswer(mayHaveArrived bool) Verdict {
	if mayHaveArrived {
		return Verdict{Class: unknown, Then: Reconnect, Listed: true}
	}
	return Verdict{Class: retry, Then: Reconnect, After: reconnectDelay, Listed: true}
}
