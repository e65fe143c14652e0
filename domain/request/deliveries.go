package request

import (
	"fmt"
	"iter"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// Source is the record that a request came in.
type Source struct {
	Lane     domain.Lane
	Position *whisperv1.Position
	// At is the record's own time.
	At time.Time
}

// NotificationID is the request's id, or, if it has none, its place: topic/partition/offset.
func (r *Request) NotificationID(src Source) string {
	if r.ID != "" {
		return r.ID
	}
	return fmt.Sprintf("%s/%d/%d", src.Position.GetTopic(), src.Position.GetPartition(), src.Position.GetOffset())
}

// Deliveries are one DeliveryAccepted for each user of a request. Everything except the writer's time (at_us) follows
// from the record alone, so a replay gives the same again, ids included. The events of the users share one
// DeliveryAccepted, which must not be changed.
type Deliveries struct {
	notificationID string
	users          []string
	at             time.Time
	shared         *whisperv1.Event // without delivery id and user
	encoded        []byte           // shared on the wire
}

// Deliveries makes the deliveries at the time now, with the version of the template that was current (0: none).
//
// The record's time is the request's time, because it is the same on every replay. So a wrong time can't be corrected.
// A record is refused with an [*record.Invalid] if it has no time, or one further ahead of now than [MaxClockSkew]; if
// none of its deliveries can be delivered any more and it is older than [MaxRequestAge]; or if its send_at is further
// than [MaxSchedule] from the record's time, either way. Any other old record is accepted, and its deliveries expire by
// its time.
func (r *Request) Deliveries(src Source, templateVersion int64, now time.Time) (*Deliveries, error) {
	if err := r.checkTimes(src, now); err != nil {
		return nil, err
	}
	acc := r.accepted(src, templateVersion)
	d := &Deliveries{
		notificationID: r.NotificationID(src),
		users:          r.Users,
		at:             src.At,
	}
	d.shared = &whisperv1.Event{
		NotificationId: d.notificationID,
		AtUs:           now.UnixMicro(),
		Lane:           src.Lane.Proto(),
		Cause:          src.Position,
		Kind:           &whisperv1.Event_DeliveryAccepted{DeliveryAccepted: acc},
	}
	var err error
	if d.encoded, err = proto.Marshal(d.shared); err != nil { // can't be: all text is UTF-8
		return nil, fmt.Errorf("encode the deliveries of %q: %w", d.notificationID, err)
	}
	return d, nil
}

// accepted is what all recipients share.
func (r *Request) accepted(src Source, templateVersion int64) *whisperv1.DeliveryAccepted {
	accepted := src.At.UnixMilli()
	from := accepted
	acc := &whisperv1.DeliveryAccepted{
		Category:        r.Category,
		Content:         r.Content,
		Template:        r.Template,
		Variables:       r.Variables,
		Channels:        r.Channels,
		CollapseKey:     r.CollapseKey,
		AcceptedAtMs:    accepted,
		Request:         src.Position,
		Recipients:      int32(len(r.Users)),
		TemplateVersion: templateVersion,
		ChannelsDefault: r.ChannelsDefault,
	}
	if !r.SendAt.IsZero() {
		from = r.SendAt.UnixMilli()
		acc.SendAtMs = from
	}
	acc.ExpiresAtMs = from + r.TTL.Milliseconds()
	return acc
}

// NotificationID is the id of all of them.
func (d *Deliveries) NotificationID() string { return d.notificationID }

// Users are the recipients, in the order of the request.
func (d *Deliveries) Users() []string { return d.users }

// Accepted is what the recipients share.
func (d *Deliveries) Accepted() *whisperv1.DeliveryAccepted { return d.shared.GetDeliveryAccepted() }

// ID is the delivery id of one user.
func (d *Deliveries) ID(user string) domain.DeliveryID {
	return domain.NewDeliveryID(d.at, domain.HashDelivery(d.notificationID, user))
}

// Event is the event of one user.
func (d *Deliveries) Event(user string) *whisperv1.Event {
	id := d.ID(user)
	return &whisperv1.Event{
		DeliveryId:     id[:],
		NotificationId: d.shared.GetNotificationId(),
		UserId:         user,
		AtUs:           d.shared.GetAtUs(),
		Lane:           d.shared.GetLane(),
		Cause:          d.shared.GetCause(),
		Kind:           d.shared.GetKind(),
	}
}

// All are the events of all users.
func (d *Deliveries) All() iter.Seq[*whisperv1.Event] {
	return func(yield func(*whisperv1.Event) bool) {
		for _, user := range d.users {
			if !yield(d.Event(user)) {
				return
			}
		}
	}
}

// Encode is [Deliveries.Event] on the wire. What the users share is encoded once for all of them. The two fields of a
// user go before it, because fields may come in any order.
func (d *Deliveries) Encode(user string) []byte {
	id := d.ID(user)
	b := make([]byte, 0, 2+len(id)+3+len(user)+len(d.encoded))
	b = protowire.AppendTag(b, domain.FieldDeliveryID, protowire.BytesType)
	b = protowire.AppendBytes(b, id[:])
	b = protowire.AppendTag(b, domain.FieldUserID, protowire.BytesType)
	b = protowire.AppendString(b, user)
	return append(b, d.encoded...)
}
