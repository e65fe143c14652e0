package decide

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/template"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// The bounds of a digest's items: the newest are told, the count is of all.
const (
	maxDigestItems = 50
	maxDigestBytes = 64 << 10
)

// How a digest comes about: what is gathered waits, parked, with the notification id of its digest, made
// from the first one's. When the window ends, the digest is written to the lane's deliveries as any other
// delivery, with the ids of its members; when it comes from there, they end. So a crash at any moment finds
// either the members or the digest, and a digest that was written twice is one: ids tell.

// gather adds d to the digest of its user and category whose window is open, or opens one.
func (s *State) gather(d *delivery) {
	category := s.category(d.acc.GetCategory())
	d.digest, d.until = "", time.Time{}
	for o := range s.deliveries.gathered(d.user(), d.source.Lane) { // the one that was opened last: those before it are full
		if o != d && o.phase == whisperv1.Phase_PHASE_DIGEST && !o.closing && o.until.After(s.now) &&
			s.category(o.acc.GetCategory()) == category {
			d.digest, d.until = o.digest, o.until
			break
		}
	}
	if d.digest == "" || s.digestFull(d) {
		d.digest, d.until = "digest/"+d.id.String(), s.now.Add(category.Digest.Window)
	}
	s.hold(d, &verdict{phase: whisperv1.Phase_PHASE_DIGEST, reason: domain.ReasonDigest, until: d.until})
}

// digestFull says whether the digest that d would join has as many parts as one may have.
func (s *State) digestFull(d *delivery) bool {
	if s.deliveries.count(d.user()) <= maxDigestMembers {
		return false
	}
	n := 0
	for _, o := range s.deliveries.of(d.user()) {
		if o != d && o.digest == d.digest {
			n++
		}
	}
	return n >= maxDigestMembers
}

// digestAgain is when a digest that was written and has not come is written again.
const digestAgain = time.Minute

// closeDigest makes the digest that d is gathered for, whose window is over.
func (s *State) closeDigest(d *delivery) {
	if s.replay != nil { // it may be in the log already
		s.deliveries.schedule(d, s.now.Add(templateWait))
		return
	}
	var members []*delivery
	for _, o := range slices.Clone(s.deliveries.of(d.user())) {
		s.busy = busy{delivery: o}
		switch {
		case o.phase != whisperv1.Phase_PHASE_DIGEST || o.digest != d.digest:
		case o.walk != nil && o.walk.paused && !o.closing:
			s.takeOut(o)
		case s.render(o, o.channel()):
			members = append(members, o)
		}
	}
	s.busy = busy{} // a bug in the digest itself is not that of one of its parts
	category := s.category(d.acc.GetCategory())
	rule := category.Digest
	if rule != nil && s.templates.newest(rule.Template) == nil {
		s.notice(NoticeDigest, rule.Template)
		rule = nil
	}
	variables := digestVariables(members)
	if rule != nil && len(members) > 0 && !d.closing && !s.digestRenders(members[0], rule.Template, variables) {
		s.notice(NoticeDigestFails, rule.Template)
		rule = nil
	}
	if rule == nil || len(members) < rule.Min && !d.closing {
		for _, m := range members {
			if m.gathered = true; s.deliveries.holds(m) {
				s.advance(m)
			}
		}
		return
	}
	if len(members) == 0 {
		return
	}
	if len(members) > maxDigestMembers {
		s.splitDigest(members)
		return
	}
	s.put(Deliver{Event: s.digestOf(members, category, variables)})
	for _, m := range members {
		m.closing = true
		s.deliveries.schedule(m, s.now.Add(digestAgain))
	}
}

// maxDigestMembers bounds a digest's record: 18 bytes a part, 180 KB of the 1 MB that a record may have. One that is
// full is not joined any more.
const maxDigestMembers = 10_000

// splitDigest gives the parts of a digest that are too many for one, as an earlier version gathered them, a digest of
// their own. It is written after a wait: what a crash leaves must find them in one digest alone.
func (s *State) splitDigest(members []*delivery) {
	for chunk := range slices.Chunk(members[maxDigestMembers:], maxDigestMembers) {
		name := "digest/" + chunk[0].id.String()
		for _, m := range chunk {
			m.digest = name
			s.deliveries.schedule(m, s.now.Add(templateWait))
			s.park(m)
		}
	}
	for _, m := range members[:maxDigestMembers] {
		s.deliveries.schedule(m, s.now.Add(templateWait))
	}
}

// takeOut takes d, whose broadcast is paused, out of its digest: it goes alone when that is resumed.
func (s *State) takeOut(d *delivery) {
	d.phase, d.digest, d.gathered = whisperv1.Phase_PHASE_SCHEDULED, "", true
	s.deliveries.schedule(d, s.now)
	s.park(d)
	s.holdForPause(d)
}

// digestRenders tries the template for the user and each channel that the digest may go by: one that can't be rendered would
// end what it stands for, and tell nobody.
func (s *State) digestRenders(d *delivery, name string, variables []byte) bool {
	profile := s.profile(d.user())
	for _, channel := range d.channels() {
		variants := []string{channel}
		if channel == domain.ChannelPush {
			variants = variants[:0]
			for _, e := range profile.GetEndpoints() {
				variants = append(variants, e.GetChannel())
			}
		}
		for _, v := range variants {
			if _, _, err := s.templates.newest(name).Render(template.RenderingFor(variables, profile, v, s.now)); err != nil {
				return false
			}
		}
	}
	return true
}

func (s *State) digestOf(members []*delivery, category *category.Category, variables []byte) *whisperv1.Event {
	first := members[0]
	id := domain.NewDeliveryID(s.now, domain.HashDelivery(first.digest, first.user()))
	template, version := s.templates.current(category.Digest.Template)
	acc := &whisperv1.DeliveryAccepted{
		Category:        category.Name,
		Template:        template,
		TemplateVersion: version,
		Variables:       variables,
		Channels:        first.channels(),
		ChannelsDefault: first.all,
		AcceptedAtMs:    id.Time().UnixMilli(),
		Request:         &whisperv1.Position{Topic: first.digest},
		Recipients:      1,
	}
	for _, m := range members {
		acc.ExpiresAtMs = max(acc.ExpiresAtMs, m.acc.GetExpiresAtMs())
		acc.DigestMembers = append(acc.DigestMembers, m.id[:])
	}
	return &whisperv1.Event{
		DeliveryId: id[:], NotificationId: first.digest, UserId: first.user(), AtUs: s.now.UnixMicro(),
		Lane: first.ev.GetLane(), Cause: s.causedBy(),
		Kind: &whisperv1.Event_DeliveryAccepted{DeliveryAccepted: acc},
	}
}

// digestItem is what a digest's template can say of one that it stands for.
type digestItem struct {
	ID    string    `json:"id"`
	Title string    `json:"title,omitempty"`
	Body  string    `json:"body,omitempty"`
	URL   string    `json:"url,omitempty"`
	At    time.Time `json:"at"`
}

// digestVariables are count, more (how many items are not told) and items, oldest first.
func digestVariables(members []*delivery) []byte {
	items := make([]digestItem, 0, min(len(members), maxDigestItems))
	size := 0
	for _, m := range slices.Backward(members) {
		c := m.content
		size += len(c.GetTitle()) + len(c.GetBody()) + len(c.GetUrl()) + 2*domain.MaxIDBytes
		if len(items) == maxDigestItems || size > maxDigestBytes {
			break
		}
		items = append(items, digestItem{m.ev.GetNotificationId(), c.GetTitle(), c.GetBody(), c.GetUrl(), m.id.Time()})
	}
	slices.Reverse(items)
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(struct {
		Count int          `json:"count"`
		More  int          `json:"more"`
		Items []digestItem `json:"items"`
	}{len(members), len(members) - len(items), items})
	if err != nil {
		return nil // strings, numbers and times of our own: they always encode
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

// endDigested ends the members of a digest that came.
func (s *State) endDigested(digest *whisperv1.Event) {
	for _, raw := range digest.GetDeliveryAccepted().GetDigestMembers() {
		id, err := domain.DeliveryIDFromBytes(raw)
		if err != nil {
			continue
		}
		if m := s.deliveries.get(id.Hash()); m != nil && m.phase == whisperv1.Phase_PHASE_DIGEST {
			s.suppress(m, domain.ReasonDigested, digest.GetNotificationId(), nil)
		}
	}
}
