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

// MaxTemplateBytes bounds a record of whisper.templates.
const MaxBytes = 256 << 10

// MaxHTMLBytes bounds the HTML of an email; its other limits are those of contents.
const MaxHTMLBytes = 64 << 10

// Template is a valid record of whisper.templates: the texts of a notification in some locales, in Liquid (package
// liquid says which). Variables are the request's (amount, card.last4); of the user there are user.locale,
// user.timezone and user.attributes.PATH. A locale may have other texts for some channels. It is never changed once
// made, so any number of goroutines may render it. It costs about 17 times its record in memory.
type Template struct {
	defaultLocale string
	timezone      string
	locales       map[string]*localized // by canonical locale
	chosen        locale.Set
	needs         []liquid.Need // what the texts need of the request, sorted
}

// localized are the texts of one locale: the base, and for channels those that differ.
type localized struct {
	base     *texts
	variants map[string]*texts
}

// texts are what one channel gets. nil: nothing. Of an email the title is the subject and the body the HTML.
type texts struct {
	title, body, url, image *liquid.Text
	data                    []jsonPart
	email                   bool
}

// jsonPart is a piece of a JSON text: as it was written, or a string whose inside is rendered.
type jsonPart struct {
	literal string
	text    *liquid.Text
}

// all are the texts that there are.
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

// PinTemplate names a version of a template: card-payment@3. Such a record is written once and never changes.
func Pin(id string, version int64) string { return fmt.Sprintf("%s@%d", id, version) }

// SplitTemplate takes a name apart that may be pinned; the version of one that is not is 0.
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

// CheckTemplateID says why an id can't be one that has versions.
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

// Locales are the ones that it has texts in, sorted.
func (t *Template) Locales() []string {
	var all []string
	for name := range t.locales {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// DefaultLocale is the one for everybody else.
func (t *Template) DefaultLocale() string { return t.defaultLocale }

// Needs are the variables that a request must give, sorted: those that any text, of any locale and channel, can't be
// rendered without.
func (t *Template) Needs() []string {
	var all []string
	for _, n := range t.needs {
		all = append(all, n.Name())
	}
	return slices.Compact(all)
}

// Locale is the one whose texts a user with this locale gets: by what a locale inherits from in CLDR (es-MX → es-419 →
// es; see [locale.Set.Choose]), else the default one. Numbers and dates in them are written as that locale does it, not
// as the user's own: everyone with one text gets the same.
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

// Variant is the key of the texts that a channel gets in a locale: the channel's own, or that of push for the channels
// that push (apns, fcm, webpush), or "" for the base. What is rendered for one channel serves all of the same key.
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
	if slices.Contains(pushLike, channel) && l.variants[domain.ChannelPush] != nil {
		return domain.ChannelPush
	}
	return ""
}

var pushLike = []string{domain.ChannelPush, domain.ChannelAPNs, "fcm", "webpush"}

// PerUser says whether the texts that a user with this locale gets, over any channel, differ from user to user: they
// mention user.…, or show a time in the user's zone. Where they do not, what is rendered once serves all who share
// the text's locale (see [Template.Locale]).
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
