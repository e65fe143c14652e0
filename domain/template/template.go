package template

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/liquid"
	"github.com/klivvr/whisper/domain/locale"
)

// MaxBytes bounds a record of whisper.templates.
const MaxBytes = 256 << 10

// MaxHTMLBytes bounds the HTML of an email; its other limits are those of contents.
const MaxHTMLBytes = 64 << 10

// Template is a valid record of whisper.templates: the texts of a notification in some locales, in Liquid (see package
// liquid). Texts read the variables of the request (amount, card.last4), and user.locale, user.timezone and
// user.attributes.PATH of the user. A locale may have other texts for some channels. A Template is never changed once
// made, so any number of goroutines may render it. It takes about 17 times its record in memory.
type Template struct {
	defaultLocale string
	timezone      string
	locales       map[string]*localized // by canonical locale
	chosen        locale.Set
	needs         []liquid.Need // what the texts need of the request, sorted
}

// localized has the texts of one locale: the base, and those of channels that differ.
type localized struct {
	base     *texts
	variants map[string]*texts
}

// texts are the texts of one channel; nil means none. For an email, the title is the subject and the body the HTML.
type texts struct {
	title, body, url, image *liquid.Text
	data                    []jsonPart
	email                   bool
}

// jsonPart is a piece of a JSON text: either as it was written, or a string whose inside is rendered.
type jsonPart struct {
	literal string
	text    *liquid.Text
}

// all iterates over the texts that are set.
func (t *texts) all(yield func(*liquid.Text) bool) {
	for _, text := range []*liquid.Text{t.title, t.body, t.url, t.image} {
		if text != nil && !yield(text) {
			return
		}
	}
	for _, part := range t.data {
		if part.text != nil && !yield(part.text) {
			return
		}
	}
}

// Pin is the name of a version of a template: card-payment@3. Such a record is written once and never changes.
func Pin(id string, version int64) string { return fmt.Sprintf("%s@%d", id, version) }

// Split divides a name into id and version. The version is 0 if the name is not pinned.
func Split(name string) (id string, version int64) {
	at := strings.LastIndexByte(name, '@')
	if at < 1 || at == len(name)-1 || name[at+1] < '1' || name[at+1] > '9' {
		return name, 0
	}
	version, err := strconv.ParseInt(name[at+1:], 10, 64)
	if err != nil {
		return name, 0
	}
	return name[:at], version
}

// CheckID returns the reason why a template with this id can't have versions, or nil.
func CheckID(id string) error {
	if err := domain.CheckID(id); err != nil {
		return err
	}
	if strings.Contains(id, "@") {
		return fmt.Errorf("has an @: behind one stands a version")
	}
	if len(id) > maxTemplateID {
		return fmt.Errorf("has %d bytes, at most %d are allowed", len(id), maxTemplateID)
	}
	return nil
}

// maxTemplateID leaves room for @ and a version in a key.
const maxTemplateID = 108

// Locales are the locales of its texts, sorted.
func (t *Template) Locales() []string {
	var all []string
	for name := range t.locales {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// DefaultLocale is the locale for users whose own locale has no text.
func (t *Template) DefaultLocale() string { return t.defaultLocale }

// Needs are the variables that a request must give, sorted: those without which a text of any locale and channel can't
// be rendered.
func (t *Template) Needs() []string {
	var all []string
	for _, n := range t.needs {
		all = append(all, n.Name())
	}
	return slices.Compact(all)
}

// Locale returns the locale whose texts a user with this locale gets: along CLDR's inheritance (es-MX → es-419 → es;
// see [locale.Set.Choose]), else the default. Numbers and dates are written as that locale does, not as the user's own,
// so all users of one text get the same.
func (t *Template) Locale(name string) string {
	if t.locales[name] != nil {
		return name
	}
	if reader, err := locale.Parse(name); err == nil {
		if chosen, ok := t.chosen.Choose(reader); ok {
			return chosen
		}
	}
	return t.defaultLocale
}

// Variant is the key of the texts that a channel gets in a locale: the channel's own, or that of push for apns, fcm and
// webpush, or "" for the base. What is rendered for one channel serves all channels with the same key.
func (t *Template) Variant(locale, channel string) string {
	return t.locales[t.Locale(locale)].variant(channel)
}

func (l *localized) variant(channel string) string {
	if len(l.variants) == 0 {
		return ""
	}
	if l.variants[channel] != nil {
		return channel
	}
	if slices.Contains(domain.DeviceChannels, channel) && l.variants[domain.ChannelPush] != nil {
		return domain.ChannelPush
	}
	return ""
}

// PerUser reports whether the texts for users with this locale differ from user to user, over any channel: they mention
// user.…, or show a time in the user's zone. If not, what is rendered once serves all users who share the text's locale
// (see [Template.Locale]).
func (t *Template) PerUser(locale string) bool {
	l := t.locales[t.Locale(locale)]
	if l.base.perUser() {
		return true
	}
	for _, variant := range l.variants {
		if variant.perUser() {
			return true
		}
	}
	return false
}

func (t *texts) perUser() bool {
	for text := range t.all {
		if text.PerUser() {
			return true
		}
	}
	return false
}
