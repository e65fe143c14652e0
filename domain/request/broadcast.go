package request

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/localtime"
	"github.com/klivvr/whisper/domain/record"
	"github.com/klivvr/whisper/domain/segment"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// MaxRate bounds the rate of a broadcast, in deliveries a second. A higher rate is no bound at all.
const MaxRate = 1_000_000

func (d *draft) readRate(raw string) {
	if err := json.Unmarshal([]byte(raw), &d.Rate); err != nil {
		d.Add(record.WordWrongType, "rate must be a number of deliveries a second, not %s", record.Kind(raw))
		return
	}
	if d.Rate == 0 {
		d.Add(record.WordAudience, "rate is 0: it must be above 0, at most %d deliveries a second", MaxRate)
	}
}

// checkBroadcast checks the fields that only a broadcast has.
func (d *draft) checkBroadcast() {
	d.Broadcast, d.Segment = true, d.segment
	if d.given(atRate) && d.sound(atRate) && !(d.Rate > 0 && d.Rate <= MaxRate) || math.IsNaN(d.Rate) {
		d.Add(record.WordAudience, "rate is %v: it must be above 0, at most %d deliveries a second", d.Rate, MaxRate)
	}
	if d.given(atSendAtLocal) && d.sound(atSendAtLocal) {
		if _, err := localtime.ParseClock(d.SendAtLocal); err != nil || d.SendAtLocal == "" {
			d.Add(record.WordTime, `send_at_local %s is not a time of day such as "09:00"`, record.Cited(d.SendAtLocal))
		}
	}
	if d.Connected && d.given(atSendAtLocal) {
		d.Add(record.WordAudience, "send_at_local can't stand beside to.connected: who is connected is found once, when the broadcast begins")
	}
	if d.audiences[0] != "segment" && !d.narrowed || !d.sound(atTo) {
		return
	}
	if d.segment == "" {
		d.Add(record.WordSegment, `to.segment is empty: give a CEL expression such as "user.attributes.country == 'EG'", or "to": {"all": true}`)
		return
	}
	if _, err := segment.Compile(d.segment); err != nil {
		d.Add(record.WordSegment, "to.segment %v", err)
	}
}

// BroadcastEvent is the record for each user partition that a request for a broadcast becomes. The times are checked as
// in [Request.Deliveries]. Everything except the writer's time follows from the record alone.
func (r *Request) BroadcastEvent(src Source, templateVersion int64, partitions int32, now time.Time) (*whisperv1.Event, error) {
	if err := r.checkTimes(src, now); err != nil {
		return nil, err
	}
	accepted := r.accepted(src, templateVersion)
	if r.SendAtLocal != "" {
		// Every local time of day comes within a day of the start, and the last users need the full time to live, too.
		accepted.ExpiresAtMs += localSpread.Milliseconds()
	}
	note := r.NotificationID(src)
	id := domain.NewDeliveryID(src.At, domain.HashDelivery(note, ""))
	ev := &whisperv1.Event{
		DeliveryId: id[:], NotificationId: note, AtUs: now.UnixMicro(), Lane: src.Lane.Proto(), Cause: src.Position,
		Kind: &whisperv1.Event_BroadcastAccepted{BroadcastAccepted: &whisperv1.BroadcastAccepted{
			Accepted: accepted, Segment: r.Segment, Rate: r.Rate, Partitions: partitions, SendAtLocal: r.SendAtLocal,
		}},
	}
	if b := ev.GetBroadcastAccepted(); r.Connected {
		b.Connected, b.ConnectedSegment, b.Segment = true, r.Segment, Connected
	}
	if err := CheckBroadcast(ev); err != nil {
		return nil, fmt.Errorf("the broadcast %q: %w", note, err)
	}
	if n := proto.Size(ev); n > MaxBytes {
		return nil, fmt.Errorf("the broadcast %q has %d bytes, at most %d are allowed", note, n, MaxBytes)
	}
	return ev, nil
}

// Connected stands in the place of the segment of a broadcast to those who are connected. It is no expression, so a version that
// does not know such broadcasts refuses the record.
const Connected = "connected"

// SegmentOf is the expression that narrows a broadcast's audience; empty: none does.
func SegmentOf(b *whisperv1.BroadcastAccepted) string {
	if b.GetConnected() {
		return b.GetConnectedSegment()
	}
	return b.GetSegment()
}

// AudienceOf names a broadcast's audience for people: empty is everyone who has a profile.
func AudienceOf(b *whisperv1.BroadcastAccepted) string {
	if b.GetConnectedSegment() != "" {
		return Connected + " && (" + b.GetConnectedSegment() + ")"
	}
	return b.GetSegment()
}

// localSpread is the time after the start within which every zone reaches a time of day: a day, and an hour for a day
// on which clocks are put back.
const localSpread = 25 * time.Hour

// CommandEvent is the record for each partition of a lane that asks it to cancel, pause, resume or retract a
// notification.
func (r *Request) CommandEvent(src Source, now time.Time) *whisperv1.Event {
	ev := &whisperv1.Event{NotificationId: r.Target, AtUs: now.UnixMicro(), Lane: src.Lane.Proto(), Cause: src.Position}
	switch r.Command {
	case requestFields[atCancel]:
		ev.Kind = &whisperv1.Event_CancelRequested{CancelRequested: &whisperv1.CancelRequested{Request: src.Position}}
	case requestFields[atPause]:
		ev.Kind = &whisperv1.Event_PauseRequested{PauseRequested: &whisperv1.PauseRequested{Request: src.Position}}
	case requestFields[atResume]:
		ev.Kind = &whisperv1.Event_ResumeRequested{ResumeRequested: &whisperv1.ResumeRequested{Request: src.Position}}
	case requestFields[atRetract]:
		ev.Kind = &whisperv1.Event_RetractRequested{RetractRequested: &whisperv1.RetractRequested{Request: src.Position}}
	}
	return ev
}

// CheckBroadcast returns the reason why a BroadcastAccepted can't be walked, or nil.
func CheckBroadcast(ev *whisperv1.Event) error {
	id, err := domain.DeliveryIDFromBytes(ev.GetDeliveryId())
	switch {
	case err != nil:
		return err
	case id.Hash() != domain.HashDelivery(ev.GetNotificationId(), ""):
		return errors.New("delivery_id is not that of the broadcast's own")
	case ev.GetBroadcastAccepted().GetAccepted() == nil || len(ev.GetBroadcastAccepted().GetAccepted().GetChannels()) == 0:
		return errors.New("the broadcast says nothing of its deliveries")
	}
	if b := ev.GetBroadcastAccepted(); b.GetConnected() != (b.GetSegment() == Connected) {
		return errors.New("the broadcast is half for those who are connected")
	}
	if _, err := segment.Compile(SegmentOf(ev.GetBroadcastAccepted())); err != nil {
		return fmt.Errorf("segment: %w", err)
	}
	if _, err := localtime.ParseClock(ev.GetBroadcastAccepted().GetSendAtLocal()); err != nil {
		return fmt.Errorf("send_at_local: %w", err)
	}
	return nil
}
