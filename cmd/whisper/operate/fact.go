package operate

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// fact is one event with the record that carried it.
type fact struct {
	event    *whisperv1.Event
	delivery domain.DeliveryID
	record   *kgo.Record
}

func readFact(rec *kgo.Record) (fact, error) {
	ev := &whisperv1.Event{}
	if err := proto.Unmarshal(rec.Value, ev); err != nil {
		return fact{}, fmt.Errorf("%s/%d/%d is not an event: %w", rec.Topic, rec.Partition, rec.Offset, err)
	}
	f := fact{event: ev, record: rec}
	if len(ev.GetDeliveryId()) > 0 {
		id, err := domain.DeliveryIDFromBytes(ev.GetDeliveryId())
		if err != nil {
			return fact{}, fmt.Errorf("%s/%d/%d: %w", rec.Topic, rec.Partition, rec.Offset, err)
		}
		f.delivery = id
	}
	return f, nil
}

func (f fact) at() time.Time { return time.UnixMicro(f.event.GetAtUs()).UTC() }

// compare is by time; facts of one microsecond keep the order in which they were read.
func (f fact) compare(g fact) int { return cmp.Compare(f.event.GetAtUs(), g.event.GetAtUs()) }

// factDoc is the JSON form of a fact.
type factDoc struct {
	At             time.Time      `json:"at"`
	Kind           string         `json:"kind"`
	DeliveryID     string         `json:"delivery_id,omitempty"`
	NotificationID string         `json:"notification_id"`
	UserID         string         `json:"user_id,omitempty"`
	Lane           string         `json:"lane"`
	Detail         map[string]any `json:"detail"`
	Cause          string         `json:"cause,omitempty"`
	Topic          string         `json:"topic"`
	Partition      int32          `json:"partition"`
	Offset         int64          `json:"offset"`
	Traceparent    string         `json:"traceparent,omitempty"`
}

func (f fact) doc(contents bool) (factDoc, error) {
	detail, err := f.detail(contents)
	if err != nil {
		return factDoc{}, err
	}
	doc := factDoc{
		At: f.at(), Kind: cmp.Or(domain.KindOf(f.event), "unknown"), NotificationID: f.event.GetNotificationId(),
		UserID: f.event.GetUserId(), Lane: domain.LaneOf(f.event.GetLane()).String(), Detail: detail, Cause: positionText(f.event.GetCause()),
		Topic: f.record.Topic, Partition: f.record.Partition, Offset: f.record.Offset, Traceparent: f.traceparent(),
	}
	if len(f.event.GetDeliveryId()) > 0 {
		doc.DeliveryID = f.delivery.String()
	}
	return doc, nil
}

func (f fact) traceparent() string {
	for _, h := range consumers.TraceHeaders(f.record) {
		if h.Key == "traceparent" {
			return string(h.Value)
		}
	}
	return ""
}

// detail are the fields of the event's kind, in Protobuf's JSON form but for what is JSON itself.
func (f fact) detail(contents bool) (map[string]any, error) {
	m := f.event.ProtoReflect()
	set := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind"))
	if set == nil {
		return map[string]any{}, nil
	}
	kind := proto.Clone(m.Get(set).Message().Interface())
	var data, variables []byte
	if acc, ok := kind.(*whisperv1.DeliveryAccepted); ok {
		data, variables = acc.GetContent().GetData(), acc.GetVariables()
		acc.Variables = nil
		if acc.GetContent() != nil {
			acc.Content.Data = nil
		}
		if !contents {
			acc.Content, data, variables = nil, nil, nil
		}
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(kind)
	if err != nil {
		return nil, fmt.Errorf("print %s: %w", set.Name(), err)
	}
	detail := map[string]any{}
	if err := json.Unmarshal(text, &detail); err != nil {
		return nil, fmt.Errorf("print %s: %w", set.Name(), err)
	}
	if len(variables) > 0 {
		detail["variables"] = json.RawMessage(variables)
	}
	if r, ok := kind.(interface{ GetRequest() *whisperv1.Position }); ok && r.GetRequest() != nil {
		detail["request"] = positionText(r.GetRequest())
	}
	if inner, ok := detail["content"].(map[string]any); ok && len(data) > 0 {
		inner["data"] = json.RawMessage(data)
	}
	return detail, nil
}

// positionText is topic/partition/offset, as Postgres has it too.
func positionText(p *whisperv1.Position) string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf("%s/%d/%d", p.GetTopic(), p.GetPartition(), p.GetOffset())
}

// print writes one line.
func (f fact) print(w io.Writer, asJSON, contents bool) error {
	doc, err := f.doc(contents)
	if err != nil {
		return err
	}
	if asJSON {
		return cli.PrintJSON(w, doc)
	}
	_, err = fmt.Fprintf(w, "%s  %-19s %-6s %s  %s  user=%s%s%s\n",
		doc.At.Format("2006-01-02T15:04:05.000000Z"), doc.Kind, doc.Lane, cmp.Or(doc.DeliveryID, "-"), doc.NotificationID,
		cmp.Or(doc.UserID, "-"), pairs("", doc.Detail), pairs("", map[string]any{"traceparent": doc.Traceparent}))
	return err
}

// pairs are the scalars of an object as ` name=value`, inner objects with dots, sorted.
func pairs(prefix string, object map[string]any) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(object)) {
		switch v := object[key].(type) {
		case map[string]any:
			b.WriteString(pairs(prefix+key+".", v))
		case string:
			if v != "" {
				fmt.Fprintf(&b, " %s%s=%s", prefix, key, quoted(v))
			}
		case []any:
			words := make([]string, len(v))
			for i, word := range v {
				words[i] = fmt.Sprint(word)
			}
			fmt.Fprintf(&b, " %s%s=%s", prefix, key, quoted(strings.Join(words, ",")))
		case json.RawMessage:
			fmt.Fprintf(&b, " %s%s=%s", prefix, key, quoted(string(v)))
		default:
			text, _ := json.Marshal(v) // came from JSON
			fmt.Fprintf(&b, " %s%s=%s", prefix, key, quoted(string(text)))
		}
	}
	return b.String()
}

// quoted is a value that stays one word on one line.
func quoted(s string) string {
	if s == "" || strings.ContainsAny(s, " \t\r\n\"=\x1b") {
		return fmt.Sprintf("%q", s)
	}
	return s
}

// object is JSON's object, or nothing where it is none.
func object(raw json.RawMessage) map[string]any {
	fields := map[string]any{}
	_ = json.Unmarshal(raw, &fields) // what is no object has no fields
	return fields
}
