package request

import (
	"slices"
	"strings"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/record"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// The limits of a request. Those of title, links, data and variables keep the deliveries of a request to 10,000 users
// below 200 MB.
const (
	MaxBytes            = 256 << 10
	MaxUsers            = 10_000
	MaxVariablesBytes   = 8 << 10
	MaxCollapseKeyBytes = 64 // what APNs takes
	MaxTTL              = 30 * 24 * time.Hour
	MaxSchedule         = 30 * 24 * time.Hour
	DefaultTTL          = 24 * time.Hour
)

// Request is a valid record of whisper.requests.{lane}: a notification, or a command about an earlier one. Fields that
// the record leaves out have their default here, except ID.
type Request struct {
	// Command is cancel, pause, resume or retract, and Target the notification that it is about. If they are set, all
	// other fields are empty.
	Command string
	Target  string

	// ID is the notification's id; empty: topic/partition/offset of the record.
	ID       string
	Category string
	// Users are the recipients in the order given; a user named twice counts once.
	Users []string
	// Broadcast means that the request is for everyone with a profile, or for those who match Segment (CEL, see
	// [segment.Compile]); Users is empty then. With Connected it is for everyone who has a socket when it begins, or for
	// those of them who match. Rate is deliveries a second (0: no bound), SendAtLocal a time of day in each user's zone.
	Broadcast   bool
	Segment     string
	Connected   bool
	Rate        float64
	SendAtLocal string
	// Either Template with Variables (a JSON object or nil), or Content is set.
	Template  string
	Variables []byte
	Content   *whisperv1.Content
	Channels  []string
	// ChannelsDefault means that the request named no channels, so the category's go before them.
	ChannelsDefault bool
	CollapseKey     string
	// SendAt is zero for "now".
	SendAt time.Time
	TTL    time.Duration
}

// Parse reads a request in the form that contentType names: JSON ("" and application/json) or Protobuf
// (application/x-protobuf: whisper.v1.Request; fields of newer versions are ignored). The error is an [*record.Invalid]
// with all problems. [Request.Deliveries] checks what depends on the place and time of the record.
func Parse(value []byte, contentType string) (*Request, error) {
	var d draft
	switch {
	case len(value) == 0:
		d.Add(record.WordEmpty, `the record is empty: a request is a JSON object such as {"to":{"users":["mona"]},"content":{"body":"…"}}`)
		return nil, d.Err()
	case len(value) > MaxBytes:
		d.Add(record.WordTooLarge, "the request has %d bytes, at most %d are allowed", len(value), MaxBytes)
		return nil, d.Err()
	}
	readable := false
	switch form, _, _ := strings.Cut(contentType, ";"); strings.ToLower(strings.TrimSpace(form)) {
	case "", "application/json":
		readable = d.readJSON(value)
	case "application/x-protobuf":
		readable = d.readProto(value)
	default:
		d.Add(record.WordContentType, "unknown content-type %s: application/json or application/x-protobuf", record.Cited(contentType))
	}
	if !readable {
		return nil, d.Err()
	}
	d.check()
	if d.Any() {
		return nil, d.Err()
	}
	return &d.Request, nil
}

// draft is a request while it is read and checked. It is the same for both forms.
type draft struct {
	Request
	record.Problems
	has       uint32   // bits of requestFields that were given
	broken    uint32   // bits of those that have been complained about: no second complaint
	audiences []string // what `to` names
	narrowed  bool     // to.connected stands beside a segment
	verbs     []string // commands
	target    string   // the last command's notification
	users     []string // as they came
	segment   string
}

// The fields of the record, by their place in requestFields.
const (
	atID = iota
	atCategory
	atTo
	atTemplate
	atVariables
	atContent
	atChannels
	atCollapseKey
	atSendAt
	atTTL
	atRate
	atSendAtLocal
	atCancel
	atPause
	atResume
	atRetract
)

var requestFields = []string{
	"id", "category", "to", "template", "variables", "content", "channels", "collapse_key", "send_at", "ttl", "rate", "send_at_local",
	"cancel", "pause", "resume", "retract",
}

func (d *draft) given(at int) bool { return d.has&(1<<at) != 0 }
func (d *draft) sound(at int) bool { return d.broken&(1<<at) == 0 }

// read records that a field was given, and whether reading it found a problem.
func (d *draft) read(at int, how func()) {
	d.has |= 1 << at
	before := d.Count()
	how()
	if d.Count() > before {
		d.broken |= 1 << at
	}
}

// verb records a command.
func (d *draft) verb(at int, target string) {
	d.verbs = append(d.verbs, requestFields[at])
	d.target = target
}

// check makes the checks that both forms have in common.
func (d *draft) check() {
	if len(d.verbs) > 0 {
		d.checkCommand()
		return
	}
	if d.given(atID) && d.sound(atID) {
		d.checkID("id", d.ID)
	}
	d.checkAudience()
	d.checkText()
	d.checkChannels()
	d.checkCategory()
	d.Limit(record.WordID, "collapse_key", len(d.CollapseKey), MaxCollapseKeyBytes)
	if d.CollapseKey != "" && domain.CheckID(d.CollapseKey) != nil && len(d.CollapseKey) <= MaxCollapseKeyBytes {
		d.Add(record.WordID, "collapse_key %v", domain.CheckID(d.CollapseKey))
	}
	d.checkTTL()
}

func (d *draft) checkID(path, id string) {
	if err := domain.CheckID(id); err != nil {
		d.Add(record.WordID, "%s %v", path, err)
	}
}

func (d *draft) checkCommand() {
	name := d.verbs[0]
	if len(d.verbs) > 1 {
		d.Add(record.WordCommand, "%s are given together: one command a record", strings.Join(d.verbs, " and "))
		return
	}
	for at, field := range requestFields[:atCancel] {
		if d.given(at) {
			d.Add(record.WordCommand, "%s stands alone: leave out %s", name, field)
		}
	}
	if d.broken == 0 {
		if err := domain.CheckKnownID(d.target); err != nil {
			d.Add(record.WordID, "%s %v", name, err)
		}
	}
	d.Request = Request{Command: name, Target: d.target}
}

func (d *draft) checkAudience() {
	if d.Connected = slices.Contains(d.audiences, "connected"); d.Connected {
		d.audiences = slices.DeleteFunc(slices.Clone(d.audiences), func(name string) bool {
			d.narrowed = d.narrowed || name == "segment"
			return name == "segment"
		})
	}
	switch {
	case len(d.audiences) > 1:
		d.Add(record.WordAudience, "to names %d audiences (%s): exactly one is allowed", len(d.audiences), strings.Join(d.audiences, ", "))
		return
	case len(d.audiences) == 0:
		if d.sound(atTo) {
			d.Add(record.WordAudience, `there is no audience: give "to": {"users": [1 to %d user ids]}`, MaxUsers)
		}
		return
	case d.audiences[0] != "users":
		d.checkBroadcast()
		return
	}
	for _, at := range []int{atRate, atSendAtLocal} {
		if d.given(at) {
			d.Add(record.WordAudience, "%s is of broadcasts only: to.all, to.segment or to.connected", requestFields[at])
		}
	}
	switch n := len(d.users); {
	case n == 0:
		if d.sound(atTo) {
			d.Add(record.WordAudience, "to.users is empty: 1 to %d user ids are needed", MaxUsers)
		}
		return
	case n > MaxUsers:
		d.Add(record.WordAudience, "to.users has %d user ids, at most %d are allowed: split the request", n, MaxUsers)
		return
	}
	for i, user := range d.users {
		if err := domain.CheckID(user); err != nil {
			d.Add(record.WordID, "to.users[%d] %v", i, err)
		}
	}
	d.Users = unique(d.users)
}

// unique keeps the first of equal users, in order. It may reuse the memory of users.
func unique(users []string) []string {
	if len(users) <= 16 {
		kept := users[:0]
		for _, user := range users {
			if !slices.Contains(kept, user) {
				kept = append(kept, user)
			}
		}
		return kept
	}
	seen := make(map[string]struct{}, len(users))
	kept := users[:0]
	for _, user := range users {
		if _, twice := seen[user]; !twice {
			seen[user] = struct{}{}
			kept = append(kept, user)
		}
	}
	return kept
}

// checkText checks the template or content.
func (d *draft) checkText() {
	switch {
	case d.given(atTemplate) && d.given(atContent):
		d.Add(record.WordContent, "template and content are both given: give one of them")
	case !d.given(atTemplate) && !d.given(atContent):
		d.Add(record.WordContent, "there is nothing to say: give a template or a content")
	case d.given(atTemplate) && d.sound(atTemplate):
		d.checkID("template", d.Template)
	}
	if d.given(atVariables) && !d.given(atTemplate) {
		d.Add(record.WordContent, "variables need a template")
	}
	if c := d.Content; c != nil {
		d.Limit(record.WordContent, "content.title", len(c.GetTitle()), domain.MaxTitleBytes)
		d.Limit(record.WordContent, "content.body", len(c.GetBody()), domain.MaxBodyBytes)
		d.Limit(record.WordContent, "content.url", len(c.GetUrl()), domain.MaxLinkBytes)
		d.Limit(record.WordContent, "content.image", len(c.GetImage()), domain.MaxLinkBytes)
		if c.GetTitle() == "" && c.GetBody() == "" && len(c.GetData()) == 0 && d.sound(atContent) {
			d.Add(record.WordContent, "content is empty: give a title, a body or data")
		}
	}
}

func (d *draft) checkChannels() {
	for i, channel := range d.Channels {
		switch {
		case slices.Contains(d.Channels[:min(i, len(domain.ChannelNames))], channel):
			d.Add(record.WordChannel, "channels[%d] repeats %s", i, record.Cited(channel))
		case slices.Contains(domain.ChannelsThatWork, channel):
		case slices.Contains(domain.ChannelNames, channel):
			d.Add(record.WordUnavailable, "channels[%d]: %s is not available in this version; %s are", i, channel,
				strings.Join(domain.ChannelsThatWork, ", "))
		default:
			d.Add(record.WordChannel, "channels[%d]: unknown channel %s; known are %s", i, record.Cited(channel),
				strings.Join(domain.ChannelNames, ", "))
		}
	}
	if len(d.Channels) == 0 {
		d.Channels, d.ChannelsDefault = domain.DefaultChannels, true
	}
}

func (d *draft) checkCategory() {
	if !d.given(atCategory) {
		d.Category = domain.DefaultCategory
		return
	}
	if !d.sound(atCategory) {
		return
	}
	if problem := domain.CategoryProblem(d.Category); problem != "" {
		d.Add(record.WordCategory, "category %s %s", record.Cited(d.Category), problem)
	}
}

func (d *draft) checkTTL() {
	switch {
	case !d.given(atTTL):
		d.TTL = DefaultTTL
	case !d.sound(atTTL):
	case d.TTL < time.Millisecond:
		d.Add(record.WordTime, "ttl is %s: it must be positive", d.TTL)
	case d.TTL > MaxTTL:
		d.Add(record.WordTime, "ttl is %s, at most 720h (30 days) are allowed", d.TTL)
	}
}
