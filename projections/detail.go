package projections

import (
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/request"
	"github.com/klivvr/whisper/domain/template"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// kindName is the fact's kind; of a later version's kind, what its record's header calls it.
func kindName(f fact) string {
	if kind := domain.KindOf(f.ev); kind != "" {
		return kind
	}
	if kind := consumers.KindOfRecord(f.rec); kind != "" && len(kind) <= 64 && utf8.ValidString(kind) && cleanText(kind) {
		return kind
	}
	return "unknown"
}

// object builds a JSON object without reflection, once a fact. Unlike protojson's, its names are those of
// the .proto and its 64-bit numbers are numbers, which is what SQL wants. What is empty is left out.
type object struct {
	b     []byte
	empty bool
}

func (o *object) name(n string) {
	if !o.empty {
		o.b = append(o.b, ',')
	}
	o.empty = false
	o.b = append(append(append(o.b, '"'), n...), '"', ':')
}

func (o *object) text(n, v string) {
	if v != "" {
		o.name(n)
		o.b = appendText(o.b, v)
	}
}

func (o *object) number(n string, v int64) {
	if v != 0 {
		o.name(n)
		o.b = strconv.AppendInt(o.b, v, 10)
	}
}

func (o *object) texts(n string, vs []string) {
	if len(vs) == 0 {
		return
	}
	o.name(n)
	for i, v := range vs {
		o.b = append(o.b, "[,"[min(i, 1)])
		o.b = appendText(o.b, v)
	}
	o.b = append(o.b, ']')
}

func (o *object) position(n string, p *whisperv1.Position) {
	if p.GetTopic() != "" {
		o.name(n)
		o.b = append(appendPosition(append(o.b, '"'), p), '"')
	}
}

// appendDetail appends what a fact says beside its ids. The contents, the variables and the tokens of a
// delivery are never among it: they stay in Kafka, for as long as it keeps them.
func appendDetail(b []byte, ev *whisperv1.Event) []byte {
	o := object{b: append(b, '{'), empty: true}
	o.kind(ev)
	return append(o.b, '}')
}

func (o *object) kind(ev *whisperv1.Event) {
	switch k := ev.GetKind().(type) {
	case *whisperv1.Event_DeliveryAccepted:
		o.accepted(k.DeliveryAccepted)
	case *whisperv1.Event_DeliveryScheduled:
		o.number("until_ms", k.DeliveryScheduled.GetUntilMs())
	case *whisperv1.Event_DeliveryDeferred:
		d := k.DeliveryDeferred
		o.text("reason", d.GetReason())
		o.number("until_ms", d.GetUntilMs())
		o.policy(d.GetCap(), d.GetCount(), d.GetCategory())
	case *whisperv1.Event_DeliverySent:
		s := k.DeliverySent
		o.try(s.GetAttempt(), s.GetChannel(), s.GetProvider(), s.GetNode(), s.GetEndpoint())
		o.text("provider_id", s.GetProviderId())
		o.number("latency_us", s.GetLatencyUs())
	case *whisperv1.Event_DeliveryDelivered:
		d := k.DeliveryDelivered
		o.try(d.GetAttempt(), d.GetChannel(), d.GetProvider(), d.GetNode(), "")
		o.number("sent_at_us", d.GetSentAtUs())
		o.number("latency_us", d.GetLatencyUs())
	case *whisperv1.Event_DeliveryRead:
		o.text("node", k.DeliveryRead.GetNode())
	case *whisperv1.Event_AttemptFailed:
		o.failed(k.AttemptFailed)
	case *whisperv1.Event_RetractFailed:
		o.failed(k.RetractFailed)
	case *whisperv1.Event_DeliveryFailed:
		o.text("reason", k.DeliveryFailed.GetReason())
	case *whisperv1.Event_DeliverySuppressed:
		s := k.DeliverySuppressed
		o.text("reason", s.GetReason())
		o.policy(s.GetCap(), s.GetCount(), s.GetCategory())
		o.text("instead", s.GetInstead())
	case *whisperv1.Event_DeliveryExpired:
		o.text("reason", k.DeliveryExpired.GetReason())
	case *whisperv1.Event_DuplicateDropped:
		o.position("request", k.DuplicateDropped.GetRequest())
		o.number("recipients", int64(k.DuplicateDropped.GetRecipients()))
	case *whisperv1.Event_EndpointPruned:
		o.text("endpoint", k.EndpointPruned.GetEndpoint())
		o.text("channel", k.EndpointPruned.GetChannel())
		o.text("reason", k.EndpointPruned.GetReason())
	case *whisperv1.Event_BroadcastProgressed:
		b := k.BroadcastProgressed.GetBroadcast()
		o.accepted(b.GetAccepted())
		o.text("segment", request.AudienceOf(b))
		o.text("send_at_local", b.GetSendAtLocal())
		o.number("partitions", int64(b.GetPartitions()))
	case *whisperv1.Event_BroadcastDropped:
		o.text("reason", k.BroadcastDropped.GetReason())
		o.position("request", k.BroadcastDropped.GetRequest())
	case *whisperv1.Event_DeliveryRetracted:
		d := k.DeliveryRetracted
		o.try(0, d.GetChannel(), d.GetProvider(), d.GetNode(), d.GetEndpoint())
		o.text("provider_id", d.GetProviderId())
		o.number("latency_us", d.GetLatencyUs())
	case *whisperv1.Event_DeliveryCancelled, *whisperv1.Event_CancelRequested, *whisperv1.Event_UserErased:
	default: // a later version's: its kind is told, what it says is in Kafka
	}
}

func (o *object) accepted(acc *whisperv1.DeliveryAccepted) {
	o.text("category", acc.GetCategory())
	template, version := template.Split(acc.GetTemplate())
	o.text("template", template)
	o.number("template_version", version)
	if template != "" && version == 0 { // upstream wrote it without versions: its record is all there is to name it by
		o.number("template_offset", acc.GetTemplateVersion())
	}
	o.texts("channels", acc.GetChannels())
	o.text("collapse_key", acc.GetCollapseKey())
	o.number("accepted_at_ms", acc.GetAcceptedAtMs())
	o.number("send_at_ms", acc.GetSendAtMs())
	o.number("expires_at_ms", acc.GetExpiresAtMs())
	o.position("request", acc.GetRequest())
	o.number("recipients", int64(acc.GetRecipients()))
}

func (o *object) failed(a *whisperv1.AttemptFailed) {
	o.try(a.GetAttempt(), a.GetChannel(), a.GetProvider(), a.GetNode(), a.GetEndpoint())
	o.text("class", className(a.GetClass()))
	o.text("reason", a.GetReason())
	o.number("status", int64(a.GetStatus()))
	o.number("retry_after_ms", a.GetRetryAfterMs())
	o.number("latency_us", a.GetLatencyUs())
	o.number("invalid_since_ms", a.GetInvalidSinceMs())
}

// policy is what a check of the policy went by.
func (o *object) policy(limit string, count int32, category string) {
	o.text("cap", limit)
	o.number("count", int64(count))
	o.text("category", category)
}

func (o *object) try(attempt int32, channel, provider, node, endpoint string) {
	o.number("attempt", int64(attempt))
	o.text("channel", channel)
	o.text("provider", provider)
	o.text("node", node)
	o.text("endpoint", endpoint)
}

// appendPosition appends topic/partition/offset. Topic names need no escaping (Kafka: [a-zA-Z0-9._-]),
// but a record may claim any, so it is cleaned like every text.
func appendPosition(b []byte, p *whisperv1.Position) []byte {
	if cleanText(p.GetTopic()) {
		b = append(b, p.GetTopic()...)
	}
	b = append(b, '/')
	b = strconv.AppendInt(b, int64(p.GetPartition()), 10)
	b = append(b, '/')
	return strconv.AppendInt(b, p.GetOffset(), 10)
}

// cleanText says whether a text stands in JSON as it is.
func cleanText(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

func appendText(b []byte, s string) []byte {
	if cleanText(s) {
		return append(append(append(b, '"'), s...), '"')
	}
	quoted, err := json.Marshal(s)
	if err != nil { // a string always encodes
		return append(b, '"', '"')
	}
	return append(b, quoted...)
}
