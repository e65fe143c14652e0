package profile

import (
	_ "embed"
	"slices"
	"strings"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/locale"
	"github.com/klivvr/whisper/domain/localtime"
	"github.com/klivvr/whisper/domain/record"
)

// The limits of a profile.
const (
	MaxBytes      = 64 << 10 // of one patch, and of all patches merged
	MaxEndpoints  = 32       // in one patch
	MaxTokenBytes = 4 << 10  // a Web Push subscription is the longest
	MaxAppBytes   = 256
)

// Patch is a valid value of whisper.profiles: an RFC 7396 merge patch of a user's profile. What it does not name stays
// as it is; a null removes. An endpoint is named whole, with its channel and token, so that a merge never results in
// half of one.
type Patch struct {
	locale, timezone *string // nil: not named; "": removed
	respelt          bool    // the locale is not as it was written
	// JSON as it came, "null" included; "": not named.
	attributes, preferences, quietHours string
	noEndpoints                         bool // null: all removed, before those of this patch
	endpoints                           []endpointPatch
}

type endpointPatch struct {
	name           string
	removed        bool
	channel, token string
	app            *string // nil: not named; "": removed
}

var (
	profileFields    = []string{"locale", "timezone", "attributes", "endpoints", "preferences", "quiet_hours"}
	endpointFields   = []string{"channel", "token", "app"}
	quietHoursFields = []string{"from", "to"}
	// Channels that an endpoint may have, including those that no role serves yet.
	endpointChannels = slices.DeleteFunc(slices.Clone(domain.ChannelNames),
		func(c string) bool { return c == domain.ChannelSocket || c == domain.ChannelPush })
	// Channels that a preference may name.
	preferenceChannels = append(slices.Clone(domain.ChannelNames), PreferAll)
)

// ParsePatch reads a patch. The empty value, which forgets the user, is not a patch: callers check for it first. The
// error is an [*record.Invalid] with all problems.
func ParsePatch(value []byte) (Patch, error) {
	var p record.Problems
	if len(value) > MaxBytes {
		p.Add(record.WordTooLarge, "the profile patch has %d bytes, at most %d are allowed", len(value), MaxBytes)
		return Patch{}, p.Err()
	}
	text, ok := record.Open(value, "the profile patch", &p)
	if !ok {
		return Patch{}, p.Err()
	}
	var patch Patch
	object := record.Fields{Known: profileFields}
	c := record.NewCursor(text)
	for key, raw, ok := c.Member(); ok; key, raw, ok = c.Member() {
		if at, name := object.Take(key, &p); at >= 0 {
			patch.readField(at, name, raw, &p)
		}
	}
	if p.Any() {
		return Patch{}, p.Err()
	}
	return patch, nil
}

func (patch *Patch) readField(at int, name, raw string, p *record.Problems) {
	switch at {
	case 0:
		patch.locale = p.OrNull(name, raw, locale.Canonical)
		patch.respelt = patch.locale != nil && *patch.locale != "" && raw != `"`+*patch.locale+`"`
	case 1:
		patch.timezone = p.OrNull(name, raw, localtime.CheckZone)
	case 2:
		patch.attributes = raw
		if raw != "null" {
			p.Free(name, raw, MaxBytes)
		}
	case 3:
		patch.readEndpoints(raw, p)
	case 4:
		patch.preferences = raw
		readPreferences(raw, p)
	case 5:
		patch.quietHours = raw
		readQuietHours(raw, p)
	}
}

func (patch *Patch) readEndpoints(raw string, p *record.Problems) {
	if raw == "null" {
		patch.noEndpoints = true
		return
	}
	if !p.Object("endpoints", raw) {
		return
	}
	seen := map[string]bool{}
	c := record.NewCursor(raw)
	for key, raw, ok := c.Member(); ok; key, raw, ok = c.Member() {
		name, err := record.Text(key)
		if err == nil {
			err = domain.CheckKnownID(name) // dispatch reads patches again that were taken before
		}
		path := record.Cut("endpoints." + name)
		switch {
		case err != nil:
			p.Add(record.WordID, "the name of endpoint %s %v", record.Cited(name), err)
		case seen[name]:
			p.Add(record.WordDuplicateField, "%s is there twice", path)
		case raw == "null":
			patch.endpoints = append(patch.endpoints, endpointPatch{name: name, removed: true})
		case p.Object(path, raw):
			patch.endpoints = append(patch.endpoints, readEndpoint(path, name, raw, p))
		}
		seen[name] = true
	}
	if len(seen) > MaxEndpoints {
		p.Add(record.WordTooLarge, "endpoints names %d endpoints, at most %d are allowed", len(seen), MaxEndpoints)
	}
}

func readEndpoint(path, name, raw string, p *record.Problems) endpointPatch {
	e := endpointPatch{name: name}
	before := p.Count()
	endpoint := record.Fields{Path: path, Known: endpointFields}
	c := record.NewCursor(raw)
	for key, raw, ok := c.Member(); ok; key, raw, ok = c.Member() {
		switch at, field := endpoint.Take(key, p); {
		case at == 0:
			e.channel = p.Text(endpoint.Name(field), raw)
		case at == 1:
			e.token = p.Text(endpoint.Name(field), raw)
		case at == 2 && raw == "null":
			e.app = new(string)
		case at == 2:
			app := p.Text(endpoint.Name(field), raw)
			e.app = &app
			p.Limit(record.WordTooLarge, endpoint.Name(field), len(app), MaxAppBytes)
		}
	}
	if p.Count() > before {
		return e
	}
	switch {
	case e.channel == "":
		p.Add(record.WordProfile, "%s has no channel: %s", path, strings.Join(endpointChannels, ", "))
	case !slices.Contains(endpointChannels, e.channel):
		p.Add(record.WordChannel, "%s: unknown channel%s for an endpoint; known are %s", path, citedWord(e.channel),
			strings.Join(endpointChannels, ", "))
	}
	if e.token == "" {
		p.Add(record.WordProfile, "%s has no token", path)
	}
	p.Limit(record.WordTooLarge, path+".token", len(e.token), MaxTokenBytes)
	if problem := tokenProblem(e.channel, e.token); problem != "" {
		p.Add(record.WordProfile, "%s.token %s", path, problem)
	}
	return e
}

// tokenProblem says why a token can't be one of its channel, without telling it; empty: it may be.
func tokenProblem(channel, token string) string {
	switch {
	case token == "" || len(token) > MaxTokenBytes:
	case channel == domain.ChannelFCM && strings.HasPrefix(token, "{"):
		return "is a Web Push subscription, not a registration token of fcm"
	case channel == domain.ChannelFCM && len(token) == 64 && strings.Trim(token, "0123456789abcdefABCDEF") == "":
		return "is a device token of apns, not a registration token of fcm"
	case channel == domain.ChannelFCM && strings.ContainsFunc(token, notInFCMTokens):
		return "has a character that no registration token of fcm has"
	case channel == domain.ChannelAPNs && strings.Contains(token, ":APA91"):
		return "is a registration token of fcm, not a device token of apns"
	}
	return ""
}

// notInFCMTokens: Google documents no alphabet; the tokens and installation ids that exist have these.
func notInFCMTokens(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_:.", r)
}

// citedWord cites a word that may be misspelt, but nothing that may be a token in the wrong place, because reasons are
// logged.
func citedWord(s string) string {
	if len(s) > 16 {
		return ""
	}
	return " " + record.Cited(s)
}

// readPreferences checks {category: {channel: bool or null} or null} or null.
func readPreferences(raw string, p *record.Problems) {
	if raw == "null" || !p.Object("preferences", raw) {
		return
	}
	record.CheckJSON(raw, "preferences", p)
	c := record.NewCursor(raw)
	for key, raw, ok := c.Member(); ok; key, raw, ok = c.Member() {
		category, _ := record.Text(key) // CheckJSON has complained about names
		path := record.Cut("preferences." + category)
		if problem := domain.CategoryProblem(category); problem != "" {
			p.Add(record.WordCategory, "preferences: category %s %s", record.Cited(category), problem)
			continue
		}
		if raw == "null" || !p.Object(path, raw) {
			continue
		}
		channels := record.NewCursor(raw)
		for key, raw, ok := channels.Member(); ok; key, raw, ok = channels.Member() {
			channel, _ := record.Text(key)
			if !slices.Contains(preferenceChannels, channel) {
				p.Add(record.WordChannel, "%s: unknown channel %s; known are %s", path, record.Cited(channel), strings.Join(preferenceChannels, ", "))
			}
			if raw != "true" && raw != "false" && raw != "null" {
				p.Add(record.WordWrongType, "%s.%s must be true or false, not %s", path, record.Cut(channel), record.Kind(raw))
			}
		}
	}
}

func readQuietHours(raw string, p *record.Problems) {
	if raw == "null" || !p.Object("quiet_hours", raw) {
		return
	}
	hours := record.Fields{Path: "quiet_hours", Known: quietHoursFields}
	c := record.NewCursor(raw)
	for key, raw, ok := c.Member(); ok; key, raw, ok = c.Member() {
		at, field := hours.Take(key, p)
		if at < 0 || raw == "null" {
			continue
		}
		before := p.Count()
		s := p.Text(hours.Name(field), raw)
		if p.Count() == before && !localtime.IsClock(s) {
			p.Add(record.WordTime, `quiet_hours.%s %s is not a time of day such as "22:00"`, field, record.Cited(s))
		}
	}
}
