package domain

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// The limits of a category.
const (
	MaxCategoryRecordBytes = 16 << 10
	MaxCaps                = 8
	MaxCapN                = 10_000
	MaxDigestWindow        = 7 * 24 * time.Hour
	MaxSmartDelay          = 24 * time.Hour
	maxAckTimeout          = 10 * time.Minute
)

// Category is a valid record of whisper.categories: the rules for what is sent in it. It is never changed
// once made.
type Category struct {
	// Name is the declared one, whose rules these are: a request's category may be a child of it.
	Name string
	// Channels to try, in order, where the request names none; the later ones are the fallback.
	Channels []string
	// AllChannels all get it, at once and each by itself, where the request names none. What one of them comes to stops no
	// other; only that the person has read it does.
	AllChannels []string
	// Mandatory: no preference and no quiet hours stop it, and it has no caps.
	Mandatory bool
	Caps      []Cap
	// OverCap says what becomes of one too many.
	OverCap OverCap
	Quiet   QuietRule
	// Collapse: a newer one of the same collapse key replaces an older one that was not delivered yet. Where the record
	// does not say, it is true, but of a mandatory category.
	Collapse bool
	Digest   *Digest
	// SmartDelay is how long one may wait for the hour at which its user usually reads; 0: it does not.
	SmartDelay time.Duration
	// AckTimeout is how long a client has to acknowledge before the next channel is tried; 0: the policy's.
	AckTimeout time.Duration
	// AutoAck: where a session asked for ack=auto, that its socket took a delivery counts as the client's
	// acknowledgement. Where the record does not say, it is true, but of a mandatory category: what must arrive is not
	// settled by a socket whose client says nothing.
	AutoAck bool

	// undeclared: nobody wrote a record for it, so it has the rules that everything has by default.
	undeclared bool
}

// QuietRule is what a category does in its user's quiet hours.
type QuietRule int8

// Hold is the zero value: who does not say must not wake people up.
const (
	QuietHold QuietRule = iota
	QuietDrop
	QuietPass
)

// OverCap is what a category does with one too many.
type OverCap int8

// What comes too often is dropped unless the category says otherwise.
const (
	OverCapDrop OverCap = iota
	OverCapDefer
)

// Digest gathers what comes within a window into one notification.
type Digest struct {
	Window   time.Duration
	Template string
	// Min is how many make a digest; fewer go out each on its own.
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

// newCategory is what a category is where its record says nothing, and what an undeclared one is.
func newCategory(name string) *Category { return &Category{Name: name, Collapse: true, AutoAck: true} }

// ParseCategory reads a record of whisper.categories: its key, and its value. The empty value, which
// removes a category, is not one: callers look for it first. The error is an [*Invalid] that tells all
// problems at once.
func ParseCategory(name string, value []byte) (*Category, error) {
	var p problems
	if problem := badCategory(name); problem != "" {
		p.add(WordCategory, "category %s %s", cited(name), problem)
	}
	if len(value) > MaxCategoryRecordBytes {
		p.add(WordTooLarge, "the category has %d bytes, at most %d are allowed", len(value), MaxCategoryRecordBytes)
		return nil, p.err()
	}
	text, ok := openJSON(value, "the category", &p)
	if !ok {
		return nil, p.err()
	}
	c := newCategory(name)
	object := fields{known: categoryFields}
	cursor := newCursor(text)
	saysCollapse, saysAutoAck := false, false
	for key, raw, ok := cursor.member(); ok; key, raw, ok = cursor.member() {
		if at, field := object.take(key, &p); at >= 0 && raw != "null" {
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
	if p.any() {
		return nil, p.err()
	}
	return c, nil
}

func (c *Category) readField(at int, name, raw string, p *problems) {
	switch at {
	case 0:
		c.Channels = readChannels(name, raw, p)
	case 1:
		c.Mandatory = p.truth(name, raw)
	case 2:
		c.readCaps(name, raw, p)
	case 3:
		c.OverCap = OverCap(p.oneOf(name, raw, overCapRules))
	case 4:
		c.Quiet = QuietRule(p.oneOf(name, raw, quietRules))
	case 5:
		c.Collapse = p.truth(name, raw)
	case 6:
		c.readDigest(name, raw, p)
	case 7:
		c.readSmartTiming(name, raw, p)
	case 8:
		c.AckTimeout = p.duration(name, raw, maxAckTimeout)
	case 9:
		c.AutoAck = p.truth(name, raw)
	case 10:
		c.readAllChannels(name, raw, p)
	}
}

// channels are what a request goes to that names none; empty: what everything goes to by default.
func (c *Category) channels() []string {
	if len(c.AllChannels) > 0 {
		return c.AllChannels
	}
	return c.Channels
}

func (c *Category) readAllChannels(name, raw string, p *problems) {
	known := p.count()
	c.AllChannels = readChannels(name, raw, p)
	if p.count() > known {
		return
	}
	if len(c.AllChannels) < 2 {
		p.add(WordChannel, "%s has %d channels: it is about two or more; for one, use channels", name, len(c.AllChannels))
	}
	if slices.Contains(c.AllChannels, ChannelPush) {
		for _, channel := range c.AllChannels {
			if channel != ChannelPush && channel != ChannelSocket {
				p.add(WordChannel, "%s: %s is a push, and push stands for all of them: leave out one of the two", name, channel)
			}
		}
	}
}

// check is about fields that do not go together.
func (c *Category) check(p *problems) {
	if len(c.AllChannels) > 0 && len(c.Channels) > 0 {
		p.add(WordChannel, "channels are tried one after the other, all_channels at once: leave out one of the two")
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
			p.add(WordCategory, "a mandatory category always goes out at once: leave out %s", wrong.field)
		}
	}
}

func (c *Category) readCaps(name, raw string, p *problems) {
	if raw[0] != '[' {
		p.add(WordWrongType, "%s must be a list, not %s", name, jsonKind(raw))
		return
	}
	list := newCursor(raw)
	for item, ok := list.item(); ok; item, ok = list.item() {
		path := fmt.Sprintf("%s[%d]", name, len(c.Caps))
		if len(c.Caps) == MaxCaps {
			p.add(WordTooLarge, "%s has more than %d caps", name, MaxCaps)
			return
		}
		limit := readCap(path, item, p)
		if slices.ContainsFunc(c.Caps, func(o Cap) bool { return o.Per == limit.Per && o.By == limit.By && o.N > 0 && limit.N > 0 }) {
			p.add(WordCategory, "%s: there is another cap per %s by %s: the smaller one is enough", path, limit.Per, limit.By)
		}
		c.Caps = append(c.Caps, limit)
	}
}

func readCap(path, raw string, p *problems) Cap {
	var limit Cap
	if !p.object(path, raw) {
		return limit
	}
	object := fields{path: path, known: capFields}
	cursor := newCursor(raw)
	for key, raw, ok := cursor.member(); ok; key, raw, ok = cursor.member() {
		switch at, field := object.take(key, p); at {
		case 0:
			limit.N = p.whole(object.name(field), raw, 1, MaxCapN)
		case 1:
			limit.Per = CapWindow(p.oneOf(object.name(field), raw, capWindows))
		case 2:
			limit.By = CapScope(p.oneOf(object.name(field), raw, capScopes))
		}
	}
	for at, field := range capFields[:2] {
		if !object.has(at) {
			p.add(WordCategory, `%s has no %s: a cap is such as {"n": 3, "per": "day"}`, path, field)
		}
	}
	return limit
}

func (c *Category) readDigest(name, raw string, p *problems) {
	if !p.object(name, raw) {
		return
	}
	d := &Digest{Min: 2}
	object := fields{path: name, known: digestFields}
	cursor := newCursor(raw)
	for key, raw, ok := cursor.member(); ok; key, raw, ok = cursor.member() {
		switch at, field := object.take(key, p); at {
		case 0:
			d.Window = p.duration(object.name(field), raw, MaxDigestWindow)
		case 1:
			if d.Template = p.text(object.name(field), raw); d.Template != "" && CheckKnownID(d.Template) != nil {
				p.add(WordID, "%s %v", object.name(field), CheckKnownID(d.Template))
			}
		case 2:
			d.Min = p.whole(object.name(field), raw, 1, MaxCapN)
		}
	}
	for at, field := range digestFields[:2] {
		if !object.has(at) {
			p.add(WordCategory, `%s has no %s: a digest is such as {"window": "1h", "template": "digest"}`, name, field)
		}
	}
	c.Digest = d
}

func (c *Category) readSmartTiming(name, raw string, p *problems) {
	if !p.object(name, raw) {
		return
	}
	c.SmartDelay = MaxSmartDelay
	object := fields{path: name, known: smartFields}
	cursor := newCursor(raw)
	for key, raw, ok := cursor.member(); ok; key, raw, ok = cursor.member() {
		if at, field := object.take(key, p); at == 0 {
			c.SmartDelay = p.duration(object.name(field), raw, MaxSmartDelay)
		}
	}
}

// Categories are the declared ones, and how a request finds its own. The zero value has none.
type Categories struct {
	declared map[string]*Category
	fallback *Category
}

// Put adds or replaces one; nil removes it.
func (c *Categories) Put(name string, category *Category) {
	if c.declared == nil {
		c.declared = map[string]*Category{}
	}
	if category == nil {
		delete(c.declared, name)
		return
	}
	c.declared[name] = category
}

// Find is the category whose rules apply: the declared one of this name, or of the longest part of it
// (transactions.card → transactions), or `default`; where that is not declared either, the rules that
// everything has by default. It does not allocate.
func (c *Categories) Find(name string) *Category {
	for at := len(name); at > 0; at = strings.LastIndexByte(name[:at], '.') {
		if found := c.declared[name[:at]]; found != nil {
			return found
		}
	}
	if found := c.declared[DefaultCategory]; found != nil {
		return found
	}
	if c.fallback == nil {
		c.fallback = newCategory(DefaultCategory)
		c.fallback.undeclared = true
	}
	return c.fallback
}

// Declares says whether Find had a record to go by, of the name or a part of it; what has none is mostly
// a slip of the pen. The name `default` needs none.
func (c *Categories) Declares(name string) bool {
	found := c.Find(name)
	return name == DefaultCategory || !found.undeclared && (found.Name != DefaultCategory)
}

func (c *Categories) any(match func(*Category) bool) bool {
	for _, category := range c.declared {
		if match(category) {
			return true
		}
	}
	return false
}

// readChannels reads a list of channels that this version can send over.
func readChannels(path, raw string, p *problems) []string {
	if raw[0] != '[' {
		p.add(WordWrongType, "%s must be a list, not %s", path, jsonKind(raw))
		return nil
	}
	var found []string
	list := newCursor(raw)
	for item, ok := list.item(); ok; item, ok = list.item() {
		before := p.count()
		channel := p.text(path, item)
		switch {
		case p.count() > before:
			continue
		case slices.Contains(found, channel):
			p.add(WordChannel, "%s repeats %s", path, cited(channel))
			continue
		case !slices.Contains(channelsThatWork, channel) && slices.Contains(channelNames, channel):
			p.add(WordUnavailable, "%s: %s is not available in this version; %s are", path, channel, strings.Join(channelsThatWork, ", "))
		case !slices.Contains(channelNames, channel):
			p.add(WordChannel, "%s: unknown channel %s; known are %s", path, cited(channel), strings.Join(channelNames, ", "))
		}
		if found = append(found, channel); len(found) > len(channelNames) {
			break
		}
	}
	if len(found) == 0 && !p.any() {
		p.add(WordChannel, "%s is empty: leave it out for %s", path, strings.Join(defaultChannels, ", "))
	}
	return found
}
