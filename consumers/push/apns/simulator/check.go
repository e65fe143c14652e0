package simulator

import (
	"crypto/ecdsa"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

// request is one push as it came.
type request struct {
	method, path string
	headers      map[string]string
	repeated     bool // a header came twice
	body         []byte
	tooLong      bool // more body than any push may have
}

// The limits of a payload.
const maxPayload, maxVoIPPayload = 4096, 5120

// Only these may come; the others of Apple's documentation are for other kinds of push.
var pushTypes = map[string]bool{
	"alert": true, "background": true, "location": true, "voip": true, "complication": true,
	"fileprovider": true, "mdm": true, "liveactivity": true, "pushtotalk": true, "controls": true, "widgets": true,
}

// check is APNs's judgement of a request, in the order that its documentation suggests; status 200
// comes with what was received.
func (s *Simulator) check(r *request) (status int, reason string, got Received) {
	if r.method != "POST" {
		return 405, "MethodNotAllowed", got
	}
	token, ok := strings.CutPrefix(r.path, "/3/device/")
	switch {
	case !ok || strings.ContainsAny(token, "/?#"):
		return 404, "BadPath", got
	case token == "":
		return 400, "MissingDeviceToken", got
	case r.repeated:
		return 400, "DuplicateHeaders", got
	}
	if status, reason := s.auth.check(r.headers["authorization"], s.now()); status != 200 {
		return status, reason, got
	}
	got = Received{
		At: s.now(), Token: token, Topic: r.headers["apns-topic"], ApnsID: r.headers["apns-id"],
		CollapseID: r.headers["apns-collapse-id"], PushType: r.headers["apns-push-type"], Priority: 10, Payload: r.body,
	}
	if reason := s.checkHeaders(r, &got); reason != "" {
		return 400, reason, got
	}
	limit := maxPayload
	if got.PushType == "voip" {
		limit = maxVoIPPayload
	}
	switch {
	case r.tooLong || len(r.body) > limit:
		return 413, "PayloadTooLarge", got
	case !json.Valid(r.body):
		return 400, "PayloadEmpty", got
	case !isDevice(token):
		return 400, "BadDeviceToken", got
	case got.PushType == "background" && !isBackground(r.body):
		return 400, "InvalidPushType", got
	}
	return 200, "", got
}

func (s *Simulator) checkHeaders(r *request, got *Received) (reason string) {
	h := r.headers
	if id := got.ApnsID; id != "" && (len(id) != 36 || uuid.Validate(id) != nil) {
		return "BadMessageId"
	}
	if v, ok := h["apns-expiration"]; ok {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 0 {
			return "BadExpirationDate"
		}
		got.Expiration = n
	}
	if v, ok := h["apns-priority"]; ok {
		if v != "10" && v != "5" && v != "1" {
			return "BadPriority"
		}
		got.Priority, _ = strconv.Atoi(v)
	}
	switch {
	case !pushTypes[got.PushType]:
		return "InvalidPushType"
	case got.PushType == "background" && got.Priority == 10:
		return "BadPriority"
	case got.Topic == "":
		return "MissingTopic"
	case !s.allowed(got.Topic):
		return "TopicDisallowed"
	case len(got.CollapseID) > 64:
		return "BadCollapseId"
	case len(r.body) == 0 && !r.tooLong:
		return "PayloadEmpty"
	}
	return ""
}

func (s *Simulator) allowed(topic string) bool {
	if len(s.cfg.Topics) == 0 {
		return true
	}
	for _, t := range s.cfg.Topics {
		if t == topic {
			return true
		}
	}
	return false
}

// isBackground: Apple wants content-available in the payload of a background push, and nothing that would show or sound.
func isBackground(body []byte) bool {
	var payload struct {
		APS map[string]json.RawMessage `json:"aps"`
	}
	if json.Unmarshal(body, &payload) != nil || string(payload.APS["content-available"]) != "1" {
		return false
	}
	for _, name := range []string{"alert", "sound", "badge"} {
		if _, has := payload.APS[name]; has {
			return false
		}
	}
	return true
}

func isDevice(token string) bool {
	for _, b := range []byte(token) {
		ok := b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b == '-' || b == '_'
		if !ok {
			return false
		}
	}
	return true
}

// How long a provider token is good for, and how soon another may follow.
const tokenLife, tokenPace = time.Hour, 20 * time.Minute

// authenticator checks provider tokens. It remembers the last one, since all pushes carry the same.
type authenticator struct {
	keyID, teamID string
	key           *ecdsa.PublicKey

	mu     sync.Mutex
	good   map[string]time.Time // iat of tokens that were checked
	newest time.Time
}

func (a *authenticator) check(header string, now time.Time) (status int, reason string) {
	scheme, token, _ := strings.Cut(header, " ")
	if header == "" {
		return 403, "MissingProviderToken"
	}
	if !strings.EqualFold(scheme, "bearer") {
		return 403, "InvalidProviderToken"
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	issued, seen := a.good[token]
	if !seen {
		var ok bool
		if issued, ok = a.parse(token); !ok || issued.After(now.Add(time.Minute)) {
			return 403, "InvalidProviderToken"
		}
	}
	if now.Sub(issued) > tokenLife {
		return 403, "ExpiredProviderToken"
	}
	if seen {
		return 200, ""
	}
	if !a.newest.IsZero() && issued.After(a.newest) && issued.Sub(a.newest) < tokenPace {
		return 429, "TooManyProviderTokenUpdates"
	}
	if a.good == nil || len(a.good) > 100 {
		a.good = map[string]time.Time{}
	}
	a.good[token] = issued
	if issued.After(a.newest) {
		a.newest = issued
	}
	return 200, ""
}

func (a *authenticator) parse(token string) (time.Time, bool) {
	var claims jwt.RegisteredClaims
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"ES256"}), jwt.WithoutClaimsValidation())
	var parsed *jwt.Token
	var err error
	if a.key != nil {
		parsed, err = parser.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return a.key, nil })
	} else {
		parsed, _, err = parser.ParseUnverified(token, &claims)
	}
	if err != nil || claims.IssuedAt == nil || parsed.Method != jwt.SigningMethodES256 {
		return time.Time{}, false
	}
	kid, _ := parsed.Header["kid"].(string)
	if kid == "" || a.keyID != "" && kid != a.keyID || claims.Issuer == "" || a.teamID != "" && claims.Issuer != a.teamID {
		return time.Time{}, false
	}
	return claims.IssuedAt.Time, true
}
