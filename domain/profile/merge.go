package profile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// Apply merges a patch into a user's profile and returns the result. at and offset are the time and offset of the
// patch's record in whisper.changes. old may be nil. It is pure: old is never changed, and the result shares what
// stayed.
//
// A patch that was merged before (by its offset) changes nothing, and old is returned. An endpoint that a patch names
// counts as registered at its time, also with the token that it had: an app that registers again is alive, whatever a
// provider said of the token before.
//
// The result has at most [MaxBytes], or no record could hold it. If it would have more, the error says what is left
// out: the patch's attributes, or all of it except endpoints, locale and time zone, or all of it. The profile that is
// returned then has the rest and the offset. Keep it, so that the patch is not tried again.
func Apply(old *whisperv1.Profile, patch Patch, at time.Time, offset int64) (*whisperv1.Profile, error) {
	if old != nil && offset <= old.GetChangesOffset() {
		return old, nil
	}
	merged, err := patch.merge(old, at, offset)
	if err != nil {
		return Copy(old, offset), err
	}
	size := proto.Size(merged)
	if size <= MaxBytes {
		return merged, nil
	}
	for _, without := range []struct {
		fields string
		leave  func(*Patch)
	}{
		{"the patch's attributes are", func(p *Patch) { p.attributes = "" }},
		{"the patch's attributes, preferences and quiet hours are", func(p *Patch) { p.preferences, p.quietHours = "", "" }},
	} {
		before := patch.named()
		if without.leave(&patch); patch.named() == before || patch.named() == 0 {
			continue
		}
		if merged, err = patch.merge(old, at, offset); err == nil && proto.Size(merged) <= MaxBytes {
			return merged, tooLargeMerged(size, without.fields)
		}
	}
	return Copy(old, offset), tooLargeMerged(size, "the patch is")
}

func tooLargeMerged(size int, what string) error {
	return fmt.Errorf("the merged profile has %d bytes, at most %d are allowed: %s not applied", size, MaxBytes, what)
}

// named is the number of fields that the patch names.
func (patch *Patch) named() (n int) {
	for _, is := range []bool{
		patch.locale != nil, patch.timezone != nil, patch.attributes != "", patch.preferences != "", patch.quietHours != "",
		patch.noEndpoints, len(patch.endpoints) > 0,
	} {
		if is {
			n++
		}
	}
	return n
}

func (patch *Patch) merge(old *whisperv1.Profile, at time.Time, offset int64) (*whisperv1.Profile, error) {
	merged := Copy(old, offset)
	if patch.locale != nil {
		merged.Locale = *patch.locale
	}
	if patch.timezone != nil {
		merged.Timezone = *patch.timezone
	}
	for _, field := range []struct {
		into  *[]byte
		patch string
		merge func([]byte, string) ([]byte, error)
	}{
		{&merged.Attributes, patch.attributes, mergeJSON},
		{&merged.Preferences, patch.preferences, mergePreferences},
		{&merged.QuietHours, patch.quietHours, mergeJSON},
	} {
		var err error
		if *field.into, err = field.merge(*field.into, field.patch); err != nil {
			return nil, err
		}
	}
	merged.Endpoints = patch.mergeEndpoints(merged.Endpoints, at)
	return merged, nil
}

// Copy returns a shallow copy of a profile that holds the changes up to offset. A nil profile becomes a new one.
func Copy(old *whisperv1.Profile, offset int64) *whisperv1.Profile {
	return &whisperv1.Profile{
		Locale:        old.GetLocale(),
		Timezone:      old.GetTimezone(),
		Attributes:    old.GetAttributes(),
		Preferences:   old.GetPreferences(),
		QuietHours:    old.GetQuietHours(),
		Endpoints:     old.GetEndpoints(),
		ChangesOffset: offset,
		CreatedOffset: created(old, offset),
		Reading:       old.GetReading(),
	}
}

// created is one more than the offset of the user's first patch.
func created(old *whisperv1.Profile, offset int64) int64 {
	if old == nil {
		return offset + 1
	}
	return old.GetCreatedOffset()
}

// mergeEndpoints returns a new list, sorted by name.
func (patch *Patch) mergeEndpoints(old []*whisperv1.Endpoint, at time.Time) []*whisperv1.Endpoint {
	if patch.noEndpoints {
		return nil
	}
	if len(patch.endpoints) == 0 {
		return old
	}
	merged := slices.Clone(old)
	for i := range patch.endpoints {
		merged = patch.endpoints[i].merge(merged, at)
	}
	slices.SortFunc(merged, func(a, b *whisperv1.Endpoint) int { return strings.Compare(a.GetName(), b.GetName()) })
	return merged
}

func (e *endpointPatch) merge(into []*whisperv1.Endpoint, at time.Time) []*whisperv1.Endpoint {
	i := slices.IndexFunc(into, func(o *whisperv1.Endpoint) bool { return o.GetName() == e.name })
	if e.removed {
		if i >= 0 {
			into = slices.Delete(into, i, i+1)
		}
		return into
	}
	next := &whisperv1.Endpoint{Name: e.name, Channel: e.channel, Token: e.token, RegisteredAtMs: at.UnixMilli()}
	if i >= 0 {
		next.App = into[i].GetApp()
		next.Claimed = into[i].GetClaimed() && into[i].GetChannel() == e.channel && into[i].GetToken() == e.token
		if next.Claimed { // its release must not seem to be older than the claim
			next.RegisteredAtMs = max(next.RegisteredAtMs, into[i].GetRegisteredAtMs())
		}
	}
	if e.app != nil {
		next.App = *e.app
	}
	if i >= 0 {
		into[i] = next
		return into
	}
	return append(into, next)
}

// mergeJSON applies an RFC 7396 patch to the text of a JSON value. Numbers keep their digits and members are sorted, so
// the same patches give the same bytes. An empty object becomes nothing.
func mergeJSON(old []byte, patch string) ([]byte, error) {
	switch patch {
	case "":
		return old, nil
	case "null":
		return nil, nil
	}
	target, err := decodeJSON(old)
	if err != nil {
		return nil, err
	}
	change, err := decodeJSON([]byte(patch))
	if err != nil {
		return nil, err
	}
	merged := mergePatch(target, change)
	if object, ok := merged.(map[string]any); ok && len(object) == 0 {
		return nil, nil
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(merged); err != nil {
		return nil, fmt.Errorf("encode the merged profile: %w", err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// mergePreferences is mergeJSON, except that an unsubscribe stays. Only a patch that names it takes it back. A patch
// that removes its category or all preferences does not, because apps send such patches to reset themselves.
func mergePreferences(old []byte, patch string) ([]byte, error) {
	merged, err := mergeJSON(old, patch)
	if err != nil || patch == "" || !bytes.Contains(old, []byte(`"`+PreferAll+`":false`)) { // as mergeJSON writes it
		return merged, err
	}
	var before, said map[string]map[string]any
	if err := errors.Join(json.Unmarshal(old, &before), json.Unmarshal([]byte(patch), &said)); err != nil {
		return nil, fmt.Errorf("the profile's preferences: %w", err) // both were checked when they came
	}
	kept := map[string]map[string]any{}
	for category, channels := range before {
		if _, named := said[category][PreferAll]; channels[PreferAll] == false && !named {
			kept[category] = map[string]any{PreferAll: false}
		}
	}
	if len(kept) == 0 {
		return merged, nil
	}
	again, err := json.Marshal(kept)
	if err != nil {
		return nil, fmt.Errorf("encode the unsubscribes: %w", err)
	}
	return mergeJSON(merged, string(again))
}

func decodeJSON(text []byte) (any, error) {
	if len(text) == 0 {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, fmt.Errorf("a part of the profile is not JSON: %w", err)
	}
	return v, nil
}

// mergePatch is the function of RFC 7396, section 2. It may change both arguments.
func mergePatch(target, patch any) any {
	change, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	object, ok := target.(map[string]any)
	if !ok {
		object = map[string]any{}
	}
	for name, value := range change {
		if value == nil {
			delete(object, name)
		} else {
			object[name] = mergePatch(object[name], value)
		}
	}
	return object
}
