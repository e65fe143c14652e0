package domain

import (
	_ "embed"
	"slices"
	"strings"

	"github.com/klivvr/whisper/domain/locale"
)

// The limits of a profile.
const (
	MaxProfileBytes = 64 << 10 // of one patch, and of all patches merged
	MaxEndpoints    = 32       // in one patch
	MaxTokenBytes   = 4 << 10  // a Web Push subscription is the longest
	MaxAppBytes     = 256
)

// ProfilePatch is a valid value of whisper.profiles: an RFC 7396 merge patch of a user's profile. What
// it does not name stays as it is, a null removes. An endpoint is named with its channel and token, so
// that a half of one can never come out of a merge.
type ProfilePatch struct {
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
	// What an endpoint can be. A profile may know endpoints of channels that are still to come.
	endpointChannels = slices.DeleteFunc(slices.Clone(channelNames), func(c string) bool { return c == ChannelSocket || c == ChannelPush })
	// What a preference can speak of.
	preferenceChannels = append(slices.Clone(channelNames), PreferAll)
)

// ParseProfilePatch reads a patch. The empty value, which forgets the user, is not one: callers look
// for it first. The error is an [*Invalid] that tells all problems at once.
func ParseProfilePatch(value []byte) (ProfilePatch, error) {
	var p problems
	if len(value) > MaxProfileBytes {
		p.add(WordTooLarge, "the profile patch has %d bytes, at most %d are allowed", len(value), MaxProfileBytes)
		return ProfilePatch{}, p.err()
	}
	text, ok := openJSON(value, "the profile patch", &p)
	if !ok {
		return ProfilePatch{}, p.err()
	}
	var patch ProfilePatch
	object := fields{known: profileFields}
	c := newCursor(text)
	for key, raw, ok := c.member(); ok; key, raw, ok = c.member() {
		if at, name := object.take(key, &p); at >= 0 {
			patch.readField(at, name, raw, &p)
		}
	}
	if p.any() {
		return ProfilePatch{}, p.err()
	}
	return patch, nil
}

func (patch *ProfilePatch) readField(at int, name, raw string, p *problems) {
	switch at {
	case 0:
		patch.locale = p.orNull(name, raw, locale.Canonical)
		patch.respelt = patch.locale != nil && *patch.locale != "" && raw != `"`+*patch.locale+`"`
	case 1:
		patch.timezone = p.orNull(name, raw, knownTimezone)
	case 2:
		patch.attributes = raw
		if raw != "null" {
			p.free(name, raw, MaxProfileBytes)
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

func (patch *ProfilePatch) readEndpoints(raw string, p *problems) {
	if raw == "null" {
		patch.noEndpoints = true
		return
	}
	if !p.object("endpoints", raw) {
		return
	}
	seen := map[string]bool{}
	c := newCursor(raw)
	for key, raw, ok := c.member(); ok; key, raw, ok = c.member() {
		name, err := jsonText(key)
		if err == nil {
			err = CheckKnownID(name) // dispatch reads patches again that were taken before
		}
		path := cut("endpoints." + name)
		switch {
		case err != nil:
			p.add(WordID, "the name of endpoint %s %v", cited(name), err)
		case seen[name]:
			p.add(WordDuplicateField, "%s is there twice", path)
		case raw == "null":
			patch.endpoints = append(patch.endpoints, endpointPatch{name: name, removed: true})
		case p.object(path, raw):
			patch.endpoints = append(patch.endpoints, readEndpoint(path, name, raw, p))
		}
		seen[name] = true
	}
	if len(seen) > MaxEndpoints {
		p.add(WordTooLarge, "endpoints names %d endpoints, at most %d are allowed", len(seen), MaxEndpoints)
	}
}

func readEndpoint(path, name, raw string, p *problems) endpointPatch {
	e := endpointPatch{name: name}
	before := p.count()
	endpoint := fields{path: path, known: endpointFields}
	c := newCursor(raw)
	for key, raw, ok := c.member(); ok; key, raw, ok = c.member() {
		switch at, field := endpoint.take(key, p); {
		case at == 0:
			e.channel = p.text(endpoint.name(field), raw)
		case at == 1:
			e.token = p.text(endpoint.name(field), raw)
		case at == 2 && raw == "null":
			e.app = new(string)
		case at == 2:
			app := p.text(endpoint.name(field), raw)
			e.app = &app
			p.limit(WordTooLarge, endpoint.name(field), len(app), MaxAppBytes)
		}
	}
	if p.count() > before {
		return e
	}
	switch {
	case e.channel == "":
		p.add(WordProfile, "%s has no channel: %s", path, strings.Join(endpointChannels, ", "))
	case !slices.Contains(endpointChannels, e.channel):
		p.add(WordChannel, "%s: unknown channel%s for an endpoint; known are %s", path, citedWord(e.channel), strings.Join(endpointChannels, ", "))
	}
	if e.token == "" {
		p.add(WordProfile, "%s has no token", path)
	}
	p.limit(WordTooLarge, path+".token", len(e.token), MaxTokenBytes)
	return e
}

// citedWord cites what may be a misspelt word, and nothing that may be a token in the wrong place: reasons are logged.
func citedWord(s string) string {
	if len(s) > 16 {
		return ""
	}
	return " " + cited(s)
}

// readPreferences checks {category: {channel: bool or null} or null} or null.
func readPreferences(raw string, p *problems) {
	if raw == "null" || !p.object("preferences", raw) {
		return
	}
	checkJSON(raw, "preferences", p)
	c := newCursor(raw)
	for key, raw, ok := c.member(); ok; key, raw, ok = c.member() {
		category, _ := jsonText(key) // checkJSON has complained about names
		path := cut("preferences." + category)
		if problem := badCategory(category); problem != "" {
			p.add(WordCategory, "preferences: category %s %s", cited(category), problem)
			continue
		}
		if raw == "null" || !p.object(path, raw) {
			continue
		}
		channels := newCursor(raw)
		for key, raw, ok := channels.member(); ok; key, raw, ok = channels.member() {
			channel, _ := jsonText(key)
			if !slices.Contains(preferenceChannels, channel) {
				p.add(WordChannel, "%s: unknown channel %s; known are %s", path, cited(channel), strings.Join(preferenceChannels, ", "))
			}
			if raw != "true" && raw != "false" && raw != "null" {
				p.add(WordWrongType, "%s.%s must be true or false, not %s", path, cut(channel), jsonKind(raw))
			}
		}
	}
}

func readQuietHours(raw string, p *problems) {
	if raw == "null" || !p.object("quiet_hours", raw) {
		return
	}
	hours := fields{path: "quiet_hours", known: quietHoursFields}
	c := newCursor(raw)
	for key, raw, ok := c.member(); ok; key, raw, ok = c.member() {
		at, field := hours.take(key, p)
		if at < 0 || raw == "null" {
			continue
		}
		before := p.count()
		s := p.text(hours.name(field), raw)
		if p.count() == before && !isClock(s) {
			p.add(WordTime, `quiet_hours.%s %s is not a time of day such as "22:00"`, field, cited(s))
		}
	}
}
