package category

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/record"
)

// The limits of a category.
const (
	MaxBytes        = 16 << 10
	MaxCaps         = 8
	MaxCapN         = 10_000
	MaxDigestWindow = 7 * 24 * time.Hour
	MaxSmartDelay   = 24 * time.Hour
	maxAckTimeout   = 10 * time.Minute
)

// Category is a valid record of whisper.categories: the rules for what is sent in it. It is never changed once made.
type Category struct {
	// Name is the declared name. The category of a request may be a child of it.
	Name string
	// Channels are tried in this order if the request names none. Each is the fallback of the one before.
	Channels []string
	// AllChannels get it all at once, each by itself, if the request names none. The end of one stops no other, except
	// that the person has read it.
	AllChannels []string
	// Mandatory means that no preference and no quiet hours stop it. It has no caps.
	Mandatory bool
	Caps      []Cap
	// OverCap is what happens to a delivery over a cap.
	OverCap OverCap
	Quiet   QuietRule
	// Collapse means that a newer one with the same collapse key replaces an older one that was not delivered yet. If
	// the record does not say, it is true, except for a mandatory category.
	Collapse bool
	Digest   *Digest
	// SmartDelay is how long a delivery may wait for the hour at which its user usually reads. 0: it does not wait.
	SmartDelay time.Duration
	// AckTimeout is how long a client has to acknowledge before the next channel is tried. 0: the policy's value.
	AckTimeout time.Duration
	// AutoAck means that for a session with ack=auto, a delivery that its socket took counts as acknowledged. If the
	// record does not say, it is true, except for a mandatory category: what must arrive is not settled by a socket
	// whose client is silent.
	AutoAck bool

	// undeclared means that there is no record for it, so it has the default rules.
	undeclared bool
}

// QuietRule is what a category does in its user's quiet hours.
type QuietRule int8

// Hold is the zero value: a category that does not say must not wake people up.
const (
	QuietHold QuietRule = iota
	QuietDrop
	QuietPass
)

// OverCap is what a category does with a delivery over a cap.
type OverCap int8

// A delivery over a cap is dropped unless the category says otherwise.
const (
	OverCapDrop OverCap = iota
	OverCapDefer
)

// Digest gathers what comes within a window into one notification.
type Digest struct {
	Window   time.Duration
	Template string
	// Min is how many make a digest. Fewer are sent one by one.
	Min int
}

var (
	categoryFields = []string{
		"channels", "mandatory", "caps", "over_cap", "quiet_hours", "collapse", "digest", "smart_timing", "ack_timeout",
		"auto_ack", "all_channels",
	}
	capFields    = []string{"n", "per", "by"}
	digestFields = []string{"window", "template", "min"}
	smartFields  = []string{"max_delay"}

	quietRules   = []string{"hold", "drop", "pass"}
	overCapRules = []string{"drop", "defer"}
)

// newDefault has the rules that a record does not set, which are also those of an undeclared category.
func newDefault(name string) *Category { return &Category{Name: name, Collapse: true, AutoAck: true} }

// Parse reads a record of whisper.categories: its key and its value. The empty value, which removes a category, is not
// a category: callers check for it first. The error is an [*record.Invalid] with all problems.
func Parse(name string, value []byte) (*Category, error) {
	var p record.Problems
	if problem := domain.CategoryProblem(name); problem != "" {
		p.Add(record.WordCategory, "category %s %s", record.Cited(name), problem)
	}
	if len(value) > MaxBytes {
		p.Add(record.WordTooLarge, "the category has %d bytes, at most %d are allowed", len(value), MaxBytes)
		return nil, p.Err()
	}
	text, ok := record.Open(value, "the category", &p)
	if !ok {
		return nil, p.Err()
	}
	c := newDefault(name)
	object := record.Fields{Known: categoryFields}
	cursor := record.NewCursor(text)
	saysCollapse, saysAutoAck := false, false
	for key, raw, ok := cursor.Member(); ok; key, raw, ok = cursor.Member() {
		if at, field := object.Take(key, &p); at >= 0 && raw != "null" {
			c.readField(at, field, raw, &p)
			saysCollapse = saysCollapse || field == "collapse"
			saysAutoAck = saysAutoAck || field == "auto_ack"
		}
	}
	if c.Mandatory && !saysCollapse { // of two logins both are to be told
		c.Collapse = false
	}
	if c.Mandatory && !saysAutoAck {
		c.AutoAck = false
	}
	c.check(&p)
	if p.Any() {
		return nil, p.Err()
	}
	return c, nil
}

func (c *Category) readField(at int, name, raw string, p *record.Problems) {
	switch at {
	case 0:
		c.Channels = readChannels(name, raw, p)
	case 1:
		c.Mandatory = p.Truth(name, raw)
	case 2:
		c.readCaps(name, raw, p)
	case 3:
		c.OverCap = OverCap(p.OneOf(name, raw, overCapRules))
	case 4:
		c.Quiet = QuietRule(p.OneOf(name, raw, quietRules))
	case 5:
		c.Collapse = p.Truth(name, raw)
	case 6:
		c.readDigest(name, raw, p)
	case 7:
		c.readSmartTiming(name, raw, p)
	case 8:
		c.AckTimeout = p.Duration(name, raw, maxAckTimeout)
	case 9:
		c.AutoAck = p.Truth(name, raw)
	case 10:
		c.readAllChannels(name, raw, p)
	}
}

// EffectiveChannels are the channels for a request that names none. Empty means the default channels of requests.
func (c *Category) EffectiveChannels() []string {
	if len(c.AllChannels) > 0 {
		return c.AllChannels
	}
	return c.Channels
}

func (c *Category) readAllChannels(name, raw string, p *record.Problems) {
	known := p.Count()
	c.AllChannels = readChannels(name, raw, p)
	if p.Count() > known {
		return
	}
	if len(c.AllChannels) < 2 {
		p.Add(record.WordChannel, "%s has %d channels: it is about two or more; for one, use channels", name, len(c.AllChannels))
	}
	if slices.Contains(c.AllChannels, domain.ChannelPush) {
		for _, channel := range c.AllChannels {
			if channel != domain.ChannelPush && channel != domain.ChannelSocket {
				p.Add(record.WordChannel, "%s: %s is a push, and push stands for all of them: leave out one of the two", name, channel)
			}
		}
	}
}

// check finds fields that contradict each other.
func (c *Category) check(p *record.Problems) {
	if len(c.AllChannels) > 0 && len(c.Channels) > 0 {
		p.Add(record.WordChannel, "channels are tried one after the other, all_channels at once: leave out one of the two")
	}
	if !c.Mandatory {
		return
	}
	for _, wrong := range []struct {
		given bool
		field string
	}{
		{len(c.Caps) > 0, "caps"},
		{c.Quiet != QuietHold, "quiet_hours"},
		{c.Digest != nil, "digest"},
		{c.SmartDelay > 0, "smart_timing"},
	} {
		if wrong.given {
			p.Add(record.WordCategory, "a mandatory category always goes out at once: leave out %s", wrong.field)
		}
	}
}

func (c *Category) readCaps(name, raw string, p *record.Problems) {
	if raw[0] != '[' {
		p.Add(record.WordWrongType, "%s must be a list, not %s", name, record.Kind(raw))
		return
	}
	list := record.NewCursor(raw)
	for item, ok := list.Item(); ok; item, ok = list.Item() {
		path := fmt.Sprintf("%s[%d]", name, len(c.Caps))
		if len(c.Caps) == MaxCaps {
			p.Add(record.WordTooLarge, "%s has more than %d caps", name, MaxCaps)
			return
		}
		limit := readCap(path, item, p)
		if slices.ContainsFunc(c.Caps, func(o Cap) bool { return o.Per == limit.Per && o.By == limit.By && o.N > 0 && limit.N > 0 }) {
			p.Add(record.WordCategory, "%s: there is another cap per %s by %s: the smaller one is enough", path, limit.Per, limit.By)
		}
		c.Caps = append(c.Caps, limit)
	}
}

func readCap(path, raw string, p *record.Problems) Cap {
	var limit Cap
	if !p.Object(path, raw) {
		return limit
	}
	object := record.Fields{Path: path, Known: capFields}
	cursor := record.NewCursor(raw)
	for key, raw, ok := cursor.Member(); ok; key, raw, ok = cursor.Member() {
		switch at, field := object.Take(key, p); at {
		case 0:
			limit.N = p.Whole(object.Name(field), raw, 1, MaxCapN)
		case 1:
			limit.Per = CapWindow(p.OneOf(object.Name(field), raw, capWindows))
		case 2:
			limit.By = CapScope(p.OneOf(object.Name(field), raw, capScopes))
		}
	}
	for at, field := range capFields[:2] {
		if !object.Has(at) {
			p.Add(record.WordCategory, `%s has no %s: a cap is such as {"n": 3, "per": "day"}`, path, field)
		}
	}
	return limit
}

func (c *Category) readDigest(name, raw string, p *record.Problems) {
	if !p.Object(name, raw) {
		return
	}
	d := &Digest{Min: 2}
	object := record.Fields{Path: name, Known: digestFields}
	cursor := record.NewCursor(raw)
	for key, raw, ok := cursor.Member(); ok; key, raw, ok = cursor.Member() {
		switch at, field := object.Take(key, p); at {
		case 0:
			d.Window = p.Duration(object.Name(field), raw, MaxDigestWindow)
		case 1:
			if d.Template = p.Text(object.Name(field), raw); d.Template != "" && domain.CheckKnownID(d.Template) != nil {
				p.Add(record.WordID, "%s %v", object.Name(field), domain.CheckKnownID(d.Template))
			}
		case 2:
			d.Min = p.Whole(object.Name(field), raw, 1, MaxCapN)
		}
	}
	for at, field := range digestFields[:2] {
		if !object.Has(at) {
			p.Add(record.WordCategory, `%s has no %s: a digest is such as {"window": "1h", "template": "digest"}`, name, field)
		}
	}
	c.Digest = d
}

func (c *Category) readSmartTiming(name, raw string, p *record.Problems) {
	if !p.Object(name, raw) {
		return
	}
	c.SmartDelay = MaxSmartDelay
	object := record.Fields{Path: name, Known: smartFields}
	cursor := record.NewCursor(raw)
	for key, raw, ok := cursor.Member(); ok; key, raw, ok = cursor.Member() {
		if at, field := object.Take(key, p); at == 0 {
			c.SmartDelay = p.Duration(object.Name(field), raw, MaxSmartDelay)
		}
	}
}

// Categories are the declared categories. It finds the rules for the category of a request. The zero value has none.
type Categories struct {
	Declared map[string]*Category
	fallback *Category
}

// Put adds or replaces one; nil removes it.
func (c *Categories) Put(name string, category *Category) {
	if c.Declared == nil {
		c.Declared = map[string]*Category{}
	}
	if category == nil {
		delete(c.Declared, name)
		return
	}
	c.Declared[name] = category
}

// Find returns the category whose rules apply to a name: the declared one of this name, else of the longest part of it
// (transactions.card → transactions), else `default`, else one with the default rules. It does not allocate.
func (c *Categories) Find(name string) *Category {
	for at := len(name); at > 0; at = strings.LastIndexByte(name[:at], '.') {
		if found := c.Declared[name[:at]]; found != nil {
			return found
		}
	}
	if found := c.Declared[domain.DefaultCategory]; found != nil {
		return found
	}
	if c.fallback == nil {
		c.fallback = newDefault(domain.DefaultCategory)
		c.fallback.undeclared = true
	}
	return c.fallback
}

// Declares reports whether Find has a record for the name or a part of it. A name without one is mostly a typing error.
// The name `default` needs no record.
func (c *Categories) Declares(name string) bool {
	found := c.Find(name)
	return name == domain.DefaultCategory || !found.undeclared && (found.Name != domain.DefaultCategory)
}

// Any reports whether a declared category matches.
func (c *Categories) Any(match func(*Category) bool) bool {
	for _, category := range c.Declared {
		if match(category) {
			return true
		}
	}
	return false
}

// readChannels reads a list of channels that this version can send over.
func readChannels(path, raw string, p *record.Problems) []string {
	if raw[0] != '[' {
		p.Add(record.WordWrongType, "%s must be a list, not %s", path, record.Kind(raw))
		return nil
	}
	var found []string
	list := record.NewCursor(raw)
	for item, ok := list.Item(); ok; item, ok = list.Item() {
		before := p.Count()
		channel := p.Text(path, item)
		switch {
		case p.Count() > before:
			continue
		case slices.Contains(found, channel):
			p.Add(record.WordChannel, "%s repeats %s", path, record.Cited(channel))
			continue
		case !slices.Contains(domain.ChannelsThatWork, channel) && slices.Contains(domain.ChannelNames, channel):
			p.Add(record.WordUnavailable, "%s: %s is not available in this version; %s are", path, channel,
				strings.Join(domain.ChannelsThatWork, ", "))
		case !slices.Contains(domain.ChannelNames, channel):
			p.Add(record.WordChannel, "%s: unknown channel %s; known are %s", path, record.Cited(channel), strings.Join(domain.ChannelNames, ", "))
		}
		if found = append(found, channel); len(found) > len(domain.ChannelNames) {
			break
		}
	}
	if len(found) == 0 && !p.Any() {
		p.Add(record.WordChannel, "%s is empty: leave it out for %s", path, strings.Join(domain.DefaultChannels, ", "))
	}
	return found
}
