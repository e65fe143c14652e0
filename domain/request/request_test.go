package request_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/record"
	"github.com/klivvr/whisper/domain/request"
	"github.com/klivvr/whisper/domain/whisperv1"
)

const fullRequest = `{"id": "pay-8812",
 "category": "transactions.card",
 "to": {"users": ["mona", "omar"]},
 "template": "card-payment", "variables": {"amount": "120.50", "currency": "EGP"},
 "channels": ["socket", "apns"], "collapse_key": "card-4417",
 "send_at": "2026-11-23T09:00:00Z", "ttl": "1h"}`

func fullProto() *whisperv1.Request {
	return &whisperv1.Request{
		Id: "pay-8812", Category: "transactions.card",
		To:       &whisperv1.Audience{Audience: &whisperv1.Audience_Users{Users: &whisperv1.Users{Ids: []string{"mona", "omar"}}}},
		Template: "card-payment", Variables: []byte(`{"amount": "120.50", "currency": "EGP"}`),
		Channels: []string{"socket", "apns"}, CollapseKey: "card-4417",
		SendAt: timestamppb.New(time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)), Ttl: durationpb.New(time.Hour),
	}
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseRequestReadsBothFormsAlike(t *testing.T) {
	t.Parallel()
	want := &request.Request{
		ID: "pay-8812", Category: "transactions.card", Users: []string{"mona", "omar"},
		Template: "card-payment", Variables: []byte(`{"amount": "120.50", "currency": "EGP"}`),
		Channels: []string{"socket", "apns"}, CollapseKey: "card-4417",
		SendAt: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC), TTL: time.Hour,
	}
	future := fullProto()
	future.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, 500, protowire.BytesType), "from a later version"))
	forms := []struct {
		name, contentType string
		value             []byte
	}{
		{"json", "", []byte(fullRequest)},
		{"json by name", "application/json; charset=utf-8", []byte(fullRequest)},
		{"json with nulls", "", []byte(strings.Replace(fullRequest, `"to"`, `"content": null, "pause": null, "to"`, 1))},
		{"json with escapes", "", []byte(strings.Replace(fullRequest, `"mona"`, `"\u006dona"`, 1))},
		{"json with a user twice", "", []byte(strings.Replace(fullRequest, `"omar"`, `"omar", "mona"`, 1))},
		{"protobuf", "application/x-protobuf", encode(t, fullProto())},
		{"protobuf from the future", "application/x-protobuf", encode(t, future)},
	}
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			got, err := request.Parse(f.value, f.contentType)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestParseRequestFillsInDefaults(t *testing.T) {
	t.Parallel()
	want := &request.Request{
		Category: "default", Users: []string{"mona"}, Channels: []string{"socket", "push"}, ChannelsDefault: true, TTL: 24 * time.Hour,
		Content: &whisperv1.Content{Title: "T", Body: "B \"quoted\" ✓", Data: []byte(`{"a":[1,{"b":null}]}`)},
	}
	got, err := request.Parse([]byte(`{"to":{"users":["mona"],"all":false},"content":{"title":"T","body":"B \"quoted\" \u2713","data":{"a":[1,{"b":null}]}}}`), "")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	pb := &whisperv1.Request{
		To:      &whisperv1.Audience{Audience: &whisperv1.Audience_Users{Users: &whisperv1.Users{Ids: []string{"mona"}}}},
		Content: want.Content,
	}
	got, err = request.Parse(encode(t, pb), "application/x-protobuf")
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got.Content, want.Content) {
		t.Errorf("content is %v", got.Content)
	}
	got.Content = want.Content
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	cancel, err := request.Parse([]byte(`{"cancel": "pay-8812"}`), "")
	if err != nil || !reflect.DeepEqual(cancel, &request.Request{Command: "cancel", Target: "pay-8812"}) {
		t.Errorf("cancel is %+v, %v", cancel, err)
	}
}

func users(n int) string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%q", fmt.Sprintf("u%d", i))
	}
	return strings.Join(ids, ",")
}

func TestParseRequestTakesWhatIsAtTheLimit(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{
		"10,000 users":  `{"to":{"users":[` + users(10_000) + `]},"content":{"body":"b"}}`,
		"128-byte ids":  `{"id":"` + strings.Repeat("i", 128) + `","to":{"users":["` + strings.Repeat("u", 128) + `"]},"content":{"body":"b"}}`,
		"a 4 KiB body":  `{"to":{"users":["u"]},"content":{"body":"` + strings.Repeat("b", 4096) + `"}}`,
		"30 days":       `{"to":{"users":["u"]},"content":{"body":"b"},"ttl":"720h","send_at":"2026-11-23T11:00:00+02:00"}`,
		"an emoji pair": `{"to":{"users":["\ud83d\ude00"]},"content":{"body":"\ufffd"}}`,
	} {
		if _, err := request.Parse([]byte(value), ""); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseRequestSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	const to, say = `"to":{"users":["mona"]}`, `"content":{"body":"b"}`
	long := strings.Repeat("x", 129)
	tests := []struct{ name, contentType, value, word, want string }{
		{"null value", "", "", "empty", `the record is empty: a request is a JSON object such as {"to":{"users":["mona"]},"content":{"body":"…"}}`},
		{"blank", "", " \n", "malformed", `the request is blank: a JSON object is needed`},
		{"not JSON", "", "hello", "malformed", `the request is not JSON: invalid character 'h' looking for beginning of value (byte 1)`},
		{"truncated", "", `{"to":{"users":["mo`, "malformed", `the request is cut off: its JSON ends after 19 bytes, in the middle of a value`},
		{"trailing", "", `{` + to + `,` + say + `} {}`, "malformed", `the request ends at byte 48, but there is more behind it: one JSON object a record`},
		{"null", "", `null`, "malformed", `the request must be a JSON object, not null`},
		{"list", "", `[]`, "malformed", `the request must be a JSON object, not a list`},
		{"not UTF-8", "", "{\"id\":\"\xff\"}", "malformed", `the request is not UTF-8 (at byte 7)`},
		{"half a pair", "", `{"id":"\ud800",` + to + `,` + say + `}`, "malformed", `id has half of a surrogate pair (\ud800 to \udfff)`},
		{"unknown content type", "text/csv", `a,b`, "content_type", `unknown content-type "text/csv": application/json or application/x-protobuf`},
		{"too large", "", strings.Repeat("x", 1<<20), "too_large", `the request has 1048576 bytes, at most 262144 are allowed`},
		{"unknown field", "", `{"too":1,` + to + `,` + say + `}`, "unknown_field", `unknown field "too"; known are id, category, to, template, variables, content, channels, collapse_key, send_at, ttl, rate, send_at_local, cancel, pause, resume, retract`},
		{"lane", "", `{"lane":"urgent",` + to + `,` + say + `}`, "unknown_field", `unknown field "lane" (the topic is the lane: whisper.requests.high, .normal or .low); known are id, category, to, template, variables, content, channels, collapse_key, send_at, ttl, rate, send_at_local, cancel, pause, resume, retract`},
		{"case matters", "", `{"to":{"Users":["mona"]},` + say + `}`, "unknown_field", `unknown field "Users" in to; known are users, segment, all, connected`},
		{"unknown in content", "", `{` + to + `,"content":{"body":"b","sound":"x"}}`, "unknown_field", `unknown field "sound" in content; known are title, body, url, image, data`},
		{"duplicate", "", `{"id":"a",` + to + `,"i\u0064":"b",` + say + `}`, "duplicate_field", `id is there twice`},
		{"duplicate inside", "", `{"to":{"users":["a"],"users":["b"]},` + say + `}`, "duplicate_field", `to.users is there twice`},
		{"duplicate in data", "", `{` + to + `,"content":{"body":"b","data":{"x":{"y":1,"y":2}}}}`, "duplicate_field", `content.data.x has "y" twice`},
		{
			"wrong types", "", `{"id":1,"to":[],"content":"x","channels":"socket","ttl":5,"send_at":1,"category":true}`, "wrong_type",
			`id must be a string, not a number; to must be an object, not a list; content must be an object, not a string; channels must be a list of strings, not a string; ` +
				`ttl must be a duration such as "90s", "15m" or "24h", not a number; send_at must be a time such as "2026-11-23T09:00:00Z", not a number; category must be a string, not true`,
		},
		{"wrong item", "", `{"to":{"users":["a",{},"b"]},` + say + `}`, "wrong_type", `to.users[1] must be a string, not an object`},
		{"data a list", "", `{` + to + `,"content":{"data":[1]}}`, "wrong_type", `content.data must be an object, not a list`},
		{"variables a string", "", `{` + to + `,"template":"t","variables":"x"}`, "wrong_type", `variables must be an object, not a string`},
		{"two audiences", "", `{"to":{"users":["a"],"all":true},` + say + `}`, "audience", `to names 2 audiences (users, all): exactly one is allowed`},
		{"no audience", "", `{` + say + `}`, "audience", `there is no audience: give "to": {"users": [1 to 10000 user ids]}`},
		{"empty audience", "", `{"to":{},` + say + `}`, "audience", `there is no audience: give "to": {"users": [1 to 10000 user ids]}`},
		{"no users", "", `{"to":{"users":[]},` + say + `}`, "audience", `to.users is empty: 1 to 10000 user ids are needed`},
		{"10,001 users", "", `{"to":{"users":[` + users(10_001) + `]},` + say + `}`, "audience", `to.users has 10001 user ids, at most 10000 are allowed: split the request`},
		{"an empty segment", "", `{"to":{"segment":""},` + say + `}`, "segment", `to.segment is empty: give a CEL expression such as "user.attributes.country == 'EG'", or "to": {"all": true}`},
		{"connected and everyone", "", `{"to":{"all":true,"connected":true},` + say + `}`, "audience", `to names 2 audiences (all, connected): exactly one is allowed`},
		{"connected and users", "", `{"to":{"users":["a"],"connected":true,"segment":"true"},` + say + `}`, "audience", `to names 2 audiences (users, connected): exactly one is allowed`},
		{"connected, as a text", "", `{"to":{"connected":"yes"},` + say + `}`, "wrong_type", `to.connected must be true, not a string`},
		{"connected, in an empty segment", "", `{"to":{"connected":true,"segment":""},` + say + `}`, "segment", `to.segment is empty: give a CEL expression such as "user.attributes.country == 'EG'", or "to": {"all": true}`},
		{"connected, at a local time", "", `{"to":{"connected":true},"send_at_local":"09:00",` + say + `}`, "audience", `send_at_local can't stand beside to.connected: who is connected is found once, when the broadcast begins`},
		{"a rate of a list of users", "", `{"to":{"users":["a"]},"rate":5,` + say + `}`, "audience", `rate is of broadcasts only: to.all, to.segment or to.connected`},
		{"a rate of 0", "", `{"to":{"all":true},"rate":0,` + say + `}`, "audience", `rate is 0: it must be above 0, at most 1000000 deliveries a second`},
		{"a rate below 0", "", `{"to":{"all":true},"rate":-1,` + say + `}`, "audience", `rate is -1: it must be above 0, at most 1000000 deliveries a second`},
		{"a rate that is a text", "", `{"to":{"all":true},"rate":"fast",` + say + `}`, "wrong_type", `rate must be a number of deliveries a second, not a string`},
		{"a time of day that is none", "", `{"to":{"all":true},"send_at_local":"9:00",` + say + `}`, "time", `send_at_local "9:00" is not a time of day such as "09:00"`},
		{"empty ids", "", `{"id":"","to":{"users":["a",""]},` + say + `}`, "id", `id is empty; to.users[1] is empty`},
		{"129-byte ids", "", `{"id":"` + long + `","to":{"users":["` + long + `"]},"template":"` + long + `"}`, "id", `id has 129 bytes, at most 128 are allowed; to.users[0] has 129 bytes, at most 128 are allowed; template has 129 bytes, at most 128 are allowed`},
		{"control character", "", `{"to":{"users":["a\u0000b"]},` + say + `}`, "id", `to.users[0] has a control character (0x00)`},
		{"body too long", "", `{` + to + `,"content":{"body":"` + strings.Repeat("b", 4097) + `"}}`, "content", `content.body has 4097 bytes, at most 4096 are allowed`},
		{"both texts", "", `{` + to + `,"template":"t",` + say + `}`, "content", `template and content are both given: give one of them`},
		{"no text", "", `{` + to + `}`, "content", `there is nothing to say: give a template or a content`},
		{"empty content", "", `{` + to + `,"content":{"url":"x"}}`, "content", `content is empty: give a title, a body or data`},
		{"variables alone", "", `{` + to + `,` + say + `,"variables":{}}`, "content", `variables need a template`},
		{"unknown channel", "", `{` + to + `,` + say + `,"channels":["fax"]}`, "channel", `channels[0]: unknown channel "fax"; known are socket, push, apns, fcm, webpush, email, sms, webhook`},
		{"channel to come", "", `{` + to + `,` + say + `,"channels":["socket","webpush"]}`, "unavailable", `channels[1]: webpush is not available in this version; socket, push, apns, fcm are`},
		{"channel twice", "", `{` + to + `,` + say + `,"channels":["socket","socket"]}`, "channel", `channels[1] repeats "socket"`},
		{"send_at without zone", "", `{` + to + `,` + say + `,"send_at":"2026-11-23T09:00:00"}`, "time", `send_at "2026-11-23T09:00:00" has no zone: end it with Z or an offset such as +02:00`},
		{"send_at garbage", "", `{` + to + `,` + say + `,"send_at":"tomorrow"}`, "time", `send_at "tomorrow" is not an RFC 3339 time such as "2026-11-23T09:00:00Z"`},
		{"negative ttl", "", `{` + to + `,` + say + `,"ttl":"-1h"}`, "time", `ttl is -1h0m0s: it must be positive`},
		{"zero ttl", "", `{` + to + `,` + say + `,"ttl":"0s"}`, "time", `ttl is 0s: it must be positive`},
		{"garbage ttl", "", `{` + to + `,` + say + `,"ttl":"1 day"}`, "time", `ttl "1 day" is not a duration such as "90s", "15m" or "24h"`},
		{"long ttl", "", `{` + to + `,` + say + `,"ttl":"721h"}`, "time", `ttl is 721h0m0s, at most 720h (30 days) are allowed`},
		{"category", "", `{` + to + `,` + say + `,"category":"Card Payments"}`, "category", `category "Card Payments" has a character that is not allowed: lower-case letters, digits, _ and -, in parts separated by dots, such as transactions.card`},
		{"category part", "", `{` + to + `,` + say + `,"category":"card."}`, "category", `category "card." has an empty part: lower-case letters, digits, _ and -, in parts separated by dots, such as transactions.card`},
		{"collapse key", "", `{` + to + `,` + say + `,"collapse_key":"` + long + `"}`, "id", `collapse_key has 129 bytes, at most 64 are allowed`},
		{"pause and resume", "", `{"pause":"x","resume":"x"}`, "command", `pause and resume are given together: one command a record`},
		{"cancel with more", "", `{"cancel":"x",` + to + `}`, "command", `cancel stands alone: leave out to`},
		{"two commands", "", `{"cancel":"x","resume":"x"}`, "command", `cancel and resume are given together: one command a record`},
		{"cancel of nothing", "", `{"cancel":""}`, "id", `cancel is empty`},
		{
			"all at once", "", `{"id":"","ttl":"-1s","x":1,"channels":["fax"]}`, "unknown_field",
			`unknown field "x"; known are id, category, to, template, variables, content, channels, collapse_key, send_at, ttl, rate, send_at_local, cancel, pause, resume, retract; id is empty; ` +
				`there is no audience: give "to": {"users": [1 to 10000 user ids]}; there is nothing to say: give a template or a content; ` +
				`channels[0]: unknown channel "fax"; known are socket, push, apns, fcm, webpush, email, sms, webhook; ttl is -1s: it must be positive`,
		},
		{"not protobuf", "application/x-protobuf", `{"to":{}}`, "malformed", `the request is not a whisper.v1.Request in Protobuf: cannot parse invalid wire-format data`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := request.Parse([]byte(tt.value), tt.contentType)
			var invalid *record.Invalid
			if !errors.As(err, &invalid) {
				t.Fatalf("error is %v", err)
			}
			if got := err.Error(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if invalid.Word != tt.word {
				t.Errorf("word is %s, want %s", invalid.Word, tt.word)
			}
		})
	}
}

func TestParseRequestBoundsItsComplaints(t *testing.T) {
	t.Parallel()
	value := `{"to":{"users":[` + strings.Repeat(`"",`, 9_999) + `""]},"content":{"body":"b"}}`
	_, err := request.Parse([]byte(value), "")
	if err == nil || len(err.Error()) > 500 || !strings.HasSuffix(err.Error(), "; and 9990 more problems") {
		t.Errorf("got %v", err)
	}
	deep := strings.Repeat(`{"a":`, 50) + "1" + strings.Repeat("}", 50)
	_, err = request.Parse([]byte(`{"to":{"users":["u"]},"content":{"body":"b","data":`+deep+`}}`), "")
	if want := "content.data" + strings.Repeat(".a", 32) + " is nested deeper than 32 levels"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func source(at time.Time) request.Source {
	return request.Source{Lane: domain.High, Position: &whisperv1.Position{Topic: "whisper.requests.high", Partition: 3, Offset: 42}, At: at}
}

func TestDeliveriesAreTheSameOnEveryReplay(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 8, 0, 0, 123e6, time.UTC)
	r, err := request.Parse([]byte(fullRequest), "")
	if err != nil {
		t.Fatal(err)
	}
	d, err := r.Deliveries(source(at), 7, at.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.Deliveries(source(at), 7, at.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	events := slices.Collect(d.All())
	if len(events) != 2 || d.NotificationID() != "pay-8812" {
		t.Fatalf("%d deliveries of %s", len(events), d.NotificationID())
	}
	for i, user := range []string{"mona", "omar"} {
		id := domain.NewDeliveryID(at, domain.HashDelivery("pay-8812", user))
		want := &whisperv1.Event{
			DeliveryId: id[:], NotificationId: "pay-8812", UserId: user, AtUs: at.Add(time.Second).UnixMicro(), Lane: whisperv1.Lane_LANE_HIGH,
			Cause: source(at).Position,
			Kind: &whisperv1.Event_DeliveryAccepted{DeliveryAccepted: &whisperv1.DeliveryAccepted{
				Category: "transactions.card", Template: "card-payment", Variables: []byte(`{"amount": "120.50", "currency": "EGP"}`),
				Channels: []string{"socket", "apns"}, CollapseKey: "card-4417", AcceptedAtMs: at.UnixMilli(),
				SendAtMs: at.Truncate(time.Hour).Add(time.Hour).UnixMilli(), ExpiresAtMs: at.Truncate(time.Hour).Add(2 * time.Hour).UnixMilli(),
				Request: source(at).Position, Recipients: 2, TemplateVersion: 7,
			}},
		}
		if !proto.Equal(events[i], want) {
			t.Errorf("got  %v\nwant %v", events[i], want)
		}
		var decoded whisperv1.Event
		if err := proto.Unmarshal(d.Encode(user), &decoded); err != nil || !proto.Equal(&decoded, want) {
			t.Errorf("encoded: %v, %v", &decoded, err)
		}
		replayed := again.Event(user)
		replayed.AtUs = want.AtUs
		if !proto.Equal(replayed, want) {
			t.Errorf("replayed: %v", replayed)
		}
	}
}

func TestDeliveriesTakeTheirIDFromThePlaceAndTheirTimeFromTheRecord(t *testing.T) {
	t.Parallel()
	r, err := request.Parse([]byte(`{"to":{"users":["mona"]},"content":{"body":"b"}}`), "")
	if err != nil {
		t.Fatal(err)
	}
	at := time.UnixMilli(1_700_000_000_000)
	d, err := r.Deliveries(source(at), 0, at)
	if err != nil {
		t.Fatal(err)
	}
	if d.NotificationID() != "whisper.requests.high/3/42" {
		t.Errorf("id is %s", d.NotificationID())
	}
	if got := d.Accepted(); got.GetSendAtMs() != 0 || got.GetExpiresAtMs() != at.Add(24*time.Hour).UnixMilli() {
		t.Errorf("accepted is %v", got)
	}
}

func TestDeliveriesRefuseTimesThatCannotBe(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	const value = `{"to":{"users":["mona"]},"content":{"body":"b"},"send_at":"2026-11-23T09:00:00Z"}`
	tests := []struct {
		name string
		at   time.Time
		want string
	}{
		{"no time", time.UnixMilli(-1), "the record has no time: let the producer set it, or set message.timestamp.type=LogAppendTime on the topic"},
		{"ahead", now.Add(2 * time.Hour), "the record's time is 2026-11-23T10:00:00Z, 2h0m0s ahead of the clock, at most 1h0m0s is allowed: check the producer's clock"},
		{"send_at far after", now.AddDate(0, 0, -31), "send_at 2026-11-23T09:00:00Z is more than 30 days after the record's time 2026-10-23T08:00:00Z"},
	}
	r, err := request.Parse([]byte(value), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		if _, err := r.Deliveries(source(tt.at), 0, now); err == nil || err.Error() != tt.want {
			t.Errorf("%s: got %v\nwant %s", tt.name, err, tt.want)
		}
	}
	if _, err := r.Deliveries(source(now.Add(59*time.Minute)), 0, now); err != nil {
		t.Errorf("a little ahead: %v", err)
	}
	late := now.AddDate(0, 0, 40)
	want := "send_at 2026-11-23T09:00:00Z is more than 30 days before the record's time 2027-01-02T08:00:00Z"
	if _, err := r.Deliveries(source(late), 0, late); err == nil || err.Error() != want {
		t.Errorf("send_at far before: %v", err)
	}
}

func TestCancelEventNamesTheNotification(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(1_700_000_000_000)
	ev := (&request.Request{Command: "cancel", Target: "pay-8812"}).CommandEvent(source(at), at)
	if ev.GetNotificationId() != "pay-8812" || domain.KindOf(ev) != "cancel_requested" ||
		ev.GetCancelRequested().GetRequest().GetOffset() != 42 {
		t.Errorf("got %v", ev)
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(fullRequest), false)
	f.Add([]byte(`{"to":{"users":["a","a"],"all":false},"content":{"body":"b","data":{"x":[{}]}},"ttl":"1h"}`), false)
	f.Add([]byte(`{"cancel":"x"}`), false)
	f.Add([]byte(`{"to":{"users":["\ud800"`), false)
	f.Add(encode(f, fullProto()), true)
	f.Fuzz(func(t *testing.T, value []byte, protobuf bool) {
		contentType := ""
		if protobuf {
			contentType = "application/x-protobuf"
		}
		r, err := request.Parse(value, contentType)
		if err != nil {
			if len(err.Error()) > 8_000 || strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("a reason that no header should carry: %q", err)
			}
			return
		}
		if r.Command != "" {
			return
		}
		at := time.UnixMilli(1_700_000_000_000)
		d, err := r.Deliveries(source(at), 0, at)
		if err != nil {
			return
		}
		for ev := range d.All() {
			var decoded whisperv1.Event
			if err := proto.Unmarshal(d.Encode(ev.GetUserId()), &decoded); err != nil || !proto.Equal(&decoded, ev) {
				t.Fatalf("encoded %v, %v\nwant %v", &decoded, err, ev)
			}
			if domain.CheckID(ev.GetUserId()) != nil || domain.CheckID(ev.GetNotificationId()) != nil {
				t.Errorf("a bad id came through: %v", ev)
			}
		}
	})
}

func BenchmarkParseRequest(b *testing.B) {
	value := []byte(fullRequest)
	b.Run("json", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(value)))
		for b.Loop() {
			if _, err := request.Parse(value, ""); err != nil {
				b.Fatal(err)
			}
		}
	})
	// The yardstick: the decoder alone, with none of the checks.
	b.Run("encoding-json-alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var r struct {
				ID, Category string
				To           struct{ Users []string }
				Template     string
				Variables    json.RawMessage
				Channels     []string
				CollapseKey  string `json:"collapse_key"`
				SendAt       string `json:"send_at"`
				TTL          string
			}
			if err := json.Unmarshal(value, &r); err != nil {
				b.Fatal(err)
			}
		}
	})
	pb := encode(b, fullProto())
	b.Run("protobuf", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := request.Parse(pb, "application/x-protobuf"); err != nil {
				b.Fatal(err)
			}
		}
	})
	many := []byte(`{"to":{"users":[` + users(10_000) + `]},"content":{"body":"b"}}`)
	b.Run("json-10000-users", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := request.Parse(many, ""); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkDeliveriesEncode(b *testing.B) {
	r, err := request.Parse([]byte(fullRequest), "")
	if err != nil {
		b.Fatal(err)
	}
	at := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	b.ReportAllocs()
	for b.Loop() {
		d, err := r.Deliveries(source(at), 0, at)
		if err != nil {
			b.Fatal(err)
		}
		for _, user := range d.Users() {
			d.Encode(user)
		}
	}
}
