package projections

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/request"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// A fact is one record of the log that tells of one delivery.
type fact struct {
	rec *kgo.Record
	ev  *whisperv1.Event
	// id is the delivery. Where the writer knew only the notification its time is zero, until the
	// transaction finds the delivery (see resolve.go).
	id domain.DeliveryID
	// old: of a day that is kept only as long as something in it is pending.
	old bool
}

// maxAhead is how far a delivery's day may lie in the future: clocks differ, but a day that is further
// off is no time at all, and each day costs tables.
const maxAhead = 48 * time.Hour

// errSkip is what decode says of records that are rightly no row at all.
var errSkip = errors.New("not a fact about a delivery")

// errAged is what decode says of facts about deliveries whose partitions were dropped by age.
var errAged = errors.New("older than what is kept")

// ages are the clocks that facts are judged by. One clock that is ahead would call everything old, one that is behind
// everything yet to come.
type ages struct {
	early time.Time // for what is old: the least of the clocks
	late  time.Time // for what lies in the future: the greatest
}

// decode reads a record. Any other error than errSkip and errAged is the reason of a dead letter:
// what decodes is what Postgres takes.
func decode(rec *kgo.Record, now ages, keep time.Duration) (fact, error) {
	if rec.Attrs.IsControl() {
		return fact{}, errSkip
	}
	ev := new(whisperv1.Event)
	if err := proto.Unmarshal(rec.Value, ev); err != nil {
		return fact{}, &consumers.Reason{Word: "undecodable", Err: fmt.Errorf("not a whisper.v1.Event: %w", err)}
	}
	switch ev.GetKind().(type) {
	case *whisperv1.Event_CancelRequested, *whisperv1.Event_PauseRequested, *whisperv1.Event_ResumeRequested,
		*whisperv1.Event_RetractRequested,
		*whisperv1.Event_BroadcastAccepted:
		return fact{}, errSkip // names no delivery; what it does comes as facts of their own
	}
	if ev.GetUserErased() != nil {
		return erasure(rec, ev, now.early, keep+maxLife)
	}
	if err := check(ev); err != nil {
		return fact{}, &consumers.Reason{Word: "invalid", Err: err}
	}
	f := fact{rec: rec, ev: ev, id: domain.DeliveryID(ev.GetDeliveryId())}
	if f.timeless() {
		return f, nil
	}
	ahead := now.late.Sub(f.id.Time()) < -maxAhead
	if ahead && f.unproven() {
		return fact{}, errSkip // a client's word about no time at all
	}
	if ahead {
		return fact{}, &consumers.Reason{
			Word: "invalid",
			Err:  fmt.Errorf("the delivery's time %s lies in the future", f.id.Time().Format(time.RFC3339)),
		}
	}
	age := now.early.Sub(f.id.Time())
	if age > keep+maxLife {
		return fact{}, errAged
	}
	f.old = age > keep
	return f, nil
}

// erasure is a fact about a user. Once everything that it speaks of is too old to be kept, so is it.
func erasure(rec *kgo.Record, ev *whisperv1.Event, now time.Time, keep time.Duration) (fact, error) {
	err := domain.CheckKnownID(ev.GetUserId())
	if err == nil && !inRange(ev.GetAtUs()) {
		err = fmt.Errorf("at_us %d is no time", ev.GetAtUs())
	}
	if err != nil {
		return fact{}, &consumers.Reason{Word: "invalid", Err: err}
	}
	if now.Sub(time.UnixMicro(ev.GetAtUs())) > keep {
		return fact{}, errAged
	}
	return fact{rec: rec, ev: ev}, nil
}

// timeless facts know the notification and the user, not the time of the delivery.
func (f fact) timeless() bool { return timeless(f.id) }

func timeless(id domain.DeliveryID) bool { return [6]byte(id[:6]) == [6]byte{} }

func (f fact) userPartition() int32 { return f.rec.Partition }

func (f fact) traceparent() string {
	parent, _ := consumers.Header(f.rec, consumers.HeaderTraceparent)
	return string(parent)
}

// check says what makes an event unusable: a delivery that can't be named, or a text that Postgres
// refuses (protobuf guarantees UTF-8, but lets NUL pass).
func check(ev *whisperv1.Event) error {
	id, err := domain.DeliveryIDFromBytes(ev.GetDeliveryId())
	if err != nil {
		return err
	}
	if err := domain.CheckKnownID(ev.GetNotificationId()); err != nil {
		return fmt.Errorf("notification_id %w", err)
	}
	if err := domain.CheckKnownID(ev.GetUserId()); err != nil && !ofBroadcast(ev) {
		return fmt.Errorf("user_id %w", err)
	}
	if id.Hash() != domain.HashDelivery(ev.GetNotificationId(), ev.GetUserId()) {
		return errors.New("delivery_id is not the hash of the notification and the user")
	}
	if acc := ev.GetDeliveryAccepted(); acc != nil {
		if timeless(id) {
			return errors.New("delivery_id of an accepted delivery has no time")
		}
		if err := checkAccepted(acc); err != nil {
			return err
		}
	}
	if err := checkBroadcast(ev.GetBroadcastProgressed().GetBroadcast()); err != nil {
		return err
	}
	if dup := ev.GetDuplicateDropped(); dup != nil && dup.GetRequest().GetTopic() == "" {
		return errors.New("a dropped duplicate names no request")
	}
	if !inRange(ev.GetAtUs()) {
		return fmt.Errorf("at_us %d is no time", ev.GetAtUs())
	}
	for _, s := range texts(ev) {
		if strings.IndexByte(s, 0) >= 0 {
			return errors.New("a text has a NUL byte")
		}
	}
	return nil
}

func checkAccepted(acc *whisperv1.DeliveryAccepted) error {
	if acc.GetRequest().GetTopic() == "" {
		return errors.New("an accepted delivery names no request")
	}
	if acc.GetRecipients() <= 0 {
		return fmt.Errorf("an accepted delivery of %d recipients", acc.GetRecipients())
	}
	return nil
}

// inRange: microseconds from 1970 up to the year 9999, which Postgres, JSON and people can all read.
func inRange(us int64) bool { return us >= 0 && us < 253_402_300_800_000_000 }

// texts are all strings of an event that end in a column.
func texts(ev *whisperv1.Event) []string {
	cause := ev.GetCause().GetTopic()
	switch k := ev.GetKind().(type) {
	case *whisperv1.Event_DeliveryAccepted:
		acc := k.DeliveryAccepted
		return append([]string{cause, acc.GetCategory(), acc.GetTemplate(), acc.GetCollapseKey(), acc.GetRequest().GetTopic()},
			acc.GetChannels()...)
	case *whisperv1.Event_DeliveryScheduled, *whisperv1.Event_DeliveryCancelled, *whisperv1.Event_CancelRequested:
		return []string{cause}
	case *whisperv1.Event_DeliveryDeferred:
		d := k.DeliveryDeferred
		return []string{cause, d.GetReason(), d.GetCap(), d.GetCategory()}
	case *whisperv1.Event_DeliverySent:
		s := k.DeliverySent
		return []string{cause, s.GetChannel(), s.GetProvider(), s.GetNode(), s.GetEndpoint(), s.GetProviderId()}
	case *whisperv1.Event_DeliveryDelivered:
		d := k.DeliveryDelivered
		return []string{cause, d.GetChannel(), d.GetProvider(), d.GetNode()}
	case *whisperv1.Event_DeliveryRead:
		return []string{cause, k.DeliveryRead.GetNode()}
	case *whisperv1.Event_AttemptFailed:
		a := k.AttemptFailed
		return []string{cause, a.GetChannel(), a.GetProvider(), a.GetNode(), a.GetEndpoint(), a.GetReason()}
	case *whisperv1.Event_DeliveryFailed:
		return []string{cause, k.DeliveryFailed.GetReason()}
	case *whisperv1.Event_DeliverySuppressed:
		s := k.DeliverySuppressed
		return []string{cause, s.GetReason(), s.GetCap(), s.GetCategory(), s.GetInstead()}
	case *whisperv1.Event_DeliveryExpired:
		return []string{cause, k.DeliveryExpired.GetReason()}
	case *whisperv1.Event_DuplicateDropped:
		return []string{cause, k.DuplicateDropped.GetRequest().GetTopic()}
	case *whisperv1.Event_EndpointPruned:
		p := k.EndpointPruned
		return []string{cause, p.GetEndpoint(), p.GetChannel(), p.GetReason()}
	case *whisperv1.Event_BroadcastProgressed:
		b := k.BroadcastProgressed.GetBroadcast()
		acc := b.GetAccepted()
		return []string{cause, request.AudienceOf(b), b.GetSendAtLocal(), acc.GetCategory(), acc.GetTemplate(), acc.GetRequest().GetTopic()}
	case *whisperv1.Event_BroadcastDropped:
		return []string{cause, k.BroadcastDropped.GetReason(), k.BroadcastDropped.GetRequest().GetTopic()}
	case *whisperv1.Event_DeliveryRetracted:
		d := k.DeliveryRetracted
		return []string{cause, d.GetChannel(), d.GetNode(), d.GetProvider(), d.GetEndpoint(), d.GetProviderId()}
	case *whisperv1.Event_RetractFailed:
		a := k.RetractFailed
		return []string{cause, a.GetChannel(), a.GetProvider(), a.GetNode(), a.GetEndpoint(), a.GetReason()}
	default:
		return []string{cause}
	}
}

// position is where a record stands in Kafka.
type position struct {
	topic     string
	partition int32
	offset    int64
}

func positionOf(p *whisperv1.Position) position {
	return position{p.GetTopic(), p.GetPartition(), p.GetOffset()}
}

func (p position) compare(q position) int {
	if c := strings.Compare(p.topic, q.topic); c != 0 {
		return c
	}
	if p.partition != q.partition {
		return int(p.partition) - int(q.partition)
	}
	switch {
	case p.offset < q.offset:
		return -1
	case p.offset > q.offset:
		return 1
	}
	return 0
}
