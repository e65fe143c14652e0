package intake

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/request"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func TestRequestBecomesOneDeliveryForEachUser(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	rec := requestRecord(`{"id":"pay-8812","to":{"users":["mona","omar","mona"]},"content":{"title":"T","body":"B"},"ttl":"1h"}`)
	rec.Headers = []kgo.RecordHeader{
		{Key: "traceparent", Value: []byte(parent)},
		{Key: "tracestate", Value: []byte("a=b")},
		{Key: "other", Value: []byte("x")},
	}
	b.publish(rec)
	b.start(b.config())
	events := b.events(toHigh, 2)
	for _, user := range []string{"mona", "omar"} {
		id := domain.NewDeliveryID(started, domain.HashDelivery("pay-8812", user))
		at := &whisperv1.Position{Topic: high}
		want := &whisperv1.Event{
			DeliveryId: id[:], NotificationId: "pay-8812", UserId: user, AtUs: started.UnixMicro(), Lane: whisperv1.Lane_LANE_HIGH, Cause: at,
			Kind: &whisperv1.Event_DeliveryAccepted{DeliveryAccepted: &whisperv1.DeliveryAccepted{
				Category: "default", Content: &whisperv1.Content{Title: "T", Body: "B"}, Channels: []string{"socket", "push"},
				AcceptedAtMs: started.UnixMilli(), ExpiresAtMs: started.Add(time.Hour).UnixMilli(), Request: at, Recipients: 2, ChannelsDefault: true,
			}},
		}
		if !proto.Equal(events[user], want) {
			t.Errorf("got  %v\nwant %v", events[user], want)
		}
	}
	for _, rec := range b.read(toHigh, 2) {
		if got := fmt.Sprint(headersOf(rec)); got != "[event=delivery_accepted traceparent="+parent+" tracestate=a=b]" {
			t.Errorf("headers are %s", got)
		}
	}
	b.eventually("the request is committed", func() bool { return b.committed(high) == 1 })
}

func headersOf(rec *kgo.Record) (all []string) {
	for _, h := range rec.Headers {
		all = append(all, h.Key+"="+string(h.Value))
	}
	return all
}

func TestLanesStayApart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start(b.config())
	for _, lane := range domain.Lanes {
		b.publish(&kgo.Record{Topic: consumers.TopicRequests(lane), Partition: 2, Value: []byte(oneUser("mona"))})
	}
	for _, lane := range domain.Lanes {
		ev := b.events(consumers.TopicDeliveries(lane), 1)["mona"]
		if ev.GetLane() != lane.Proto() || ev.GetNotificationId() != consumers.TopicRequests(lane)+"/2/0" {
			t.Errorf("%s: %v", lane, ev)
		}
	}
}

func TestCancelReachesEveryPartitionOfItsLane(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.publish(requestRecord(`{"cancel":"pay-8812"}`))
	b.start(b.config())
	seen := map[int32]bool{}
	for _, rec := range b.read(toHigh, partitions) {
		var ev whisperv1.Event
		if err := proto.Unmarshal(rec.Value, &ev); err != nil {
			t.Fatal(err)
		}
		seen[rec.Partition] = true
		if ev.GetNotificationId() != "pay-8812" || consumers.KindOfRecord(rec) != "cancel_requested" ||
			ev.GetCancelRequested().GetRequest().GetTopic() != high {
			t.Errorf("got %v", &ev)
		}
	}
	if len(seen) != partitions {
		t.Errorf("%d partitions got the cancel, want %d", len(seen), partitions)
	}
}

func TestTenThousandUsers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := make([]string, request.MaxUsers)
	for i := range ids {
		ids[i] = strconv.Quote(fmt.Sprintf("user-%05d", i))
	}
	b.publish(requestRecord(`{"id":"n","to":{"users":[`+strings.Join(ids, ",")+`]},"content":{"body":"b"}}`), requestRecord(oneUser("after")))
	b.start(b.config())
	events := b.events(toHigh, request.MaxUsers+1)
	if len(events) != request.MaxUsers+1 || events["user-09999"].GetDeliveryAccepted().GetRecipients() != request.MaxUsers {
		t.Errorf("%d deliveries; the last is %v", len(events), events["user-09999"])
	}
}

// badRequests are the records of the "Bad input", each with what its dead letter says.
func badRequests() []struct {
	rec    *kgo.Record
	reason string
} {
	const content = `"content":{"body":"b"}`
	typed := func(contentType string, value []byte) *kgo.Record {
		return &kgo.Record{Topic: high, Value: value, Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte(contentType)}}}
	}
	future := requestRecord(oneUser("u"))
	future.Timestamp = started.Add(90 * time.Minute)
	seconds, old := requestRecord(oneUser("u")), requestRecord(oneUser("u"))
	seconds.Timestamp, old.Timestamp = time.UnixMilli(started.Unix()), started.AddDate(0, 0, -40)
	known := "known are id, category, to, template, variables, content, channels, collapse_key, send_at, ttl, rate, send_at_local, cancel, pause, resume, retract"
	return []struct {
		rec    *kgo.Record
		reason string
	}{
		{requestRecord("hello"), `the request is not JSON: invalid character 'h' looking for beginning of value (byte 1)`},
		{requestRecord(`{"to":{"users":["mo`), `the request is cut off: its JSON ends after 19 bytes, in the middle of a value`},
		{requestRecord(`{"colour":"red","to":{"users":["u"]},` + content + `}`), `unknown field "colour"; ` + known},
		{requestRecord(`{"to":{"users":"mona"},` + content + `}`), `to.users must be a list of strings, not a string`},
		{requestRecord(`{"to":{"users":["u"],"segment":"true"},` + content + `}`), `to names 2 audiences (users, segment): exactly one is allowed`},
		{requestRecord(`{` + content + `}`), `there is no audience: give "to": {"users": [1 to 10000 user ids]}`},
		{requestRecord(`{"to":{"users":[` + strings.Repeat(`"u",`, 10_000) + `"u"]},` + content + `}`), `to.users has 10001 user ids, at most 10000 are allowed: split the request`},
		{requestRecord(`{"id":"","to":{"users":[""]},` + content + `}`), `id is empty; to.users[0] is empty`},
		{requestRecord(`{"id":"` + strings.Repeat("i", 129) + `","to":{"users":["u"]},` + content + `}`), `id has 129 bytes, at most 128 are allowed`},
		{requestRecord(`{"to":{"users":["u"]},"content":{"body":"` + strings.Repeat("b", 4097) + `"}}`), `content.body has 4097 bytes, at most 4096 are allowed`},
		{
			requestRecord(`{"lane":"urgent","to":{"users":["u"]},` + content + `}`),
			`unknown field "lane" (the topic is the lane: whisper.requests.high, .normal or .low); ` + known,
		},
		{requestRecord(`{"to":{"users":["u"]},"channels":["fax"],` + content + `}`), `channels[0]: unknown channel "fax"; known are socket, push, apns, fcm, webpush, email, sms, webhook`},
		{requestRecord(`{"to":{"users":["u"]},"template":"nowhere"}`), `unknown template "nowhere": whisper.templates has none of that key`},
		{requestRecord(`{"to":{"users":["u"]},"send_at":"2026-11-23T09:00:00",` + content + `}`), `send_at "2026-11-23T09:00:00" has no zone: end it with Z or an offset such as +02:00`},
		{requestRecord(`{"to":{"users":["u"]},"send_at":"2027-11-23T09:00:00Z",` + content + `}`), `send_at 2027-11-23T09:00:00Z is more than 30 days after the record's time 2026-11-23T08:00:00Z`},
		{requestRecord(`{"to":{"users":["u"]},"ttl":"-5m",` + content + `}`), `ttl is -5m0s: it must be positive`},
		{requestRecord(strings.Repeat("x", 1<<20)), `the request has 1048576 bytes, at most 262144 are allowed`},
		{typed("text/plain", []byte("hello")), `unknown content-type "text/plain": application/json or application/x-protobuf`},
		{typed("application/x-protobuf", []byte(`{}`)), `the request is not a whisper.v1.Request in Protobuf: cannot parse invalid wire-format data`},
		{&kgo.Record{Topic: high}, `the record is empty: a request is a JSON object such as {"to":{"users":["mona"]},"content":{"body":"…"}}`},
		{requestRecord(`null`), `the request must be a JSON object, not null`},
		{requestRecord("{\"id\":\"\xff\"}"), `the request is not UTF-8 (at byte 7)`},
		{requestRecord(`{"to":{"all":true},"rate":-2,` + content + `}`), `rate is -2: it must be above 0, at most 1000000 deliveries a second`},
		{requestRecord(`{"pause":"x","resume":"x"}`), `pause and resume are given together: one command a record`},
		{requestRecord(`{"to":{"users":["u"]},"send_at":"0001-01-01T00:00:00Z",` + content + `}`), `send_at is 0001-01-01T00:00:00Z: leave it out for now`},
		{seconds, `the record's time is 1970-01-21: milliseconds? 1795420800 looks like seconds since 1970`},
		{old, `the record's time is 2026-10-14T08:00:00Z, 40 days ago, and its time to live ended at 2026-10-15T08:00:00Z: nothing of it could be delivered; check the producer's clock`},
		{future, `the record's time is 2026-11-23T09:30:00Z, 1h30m0s ahead of the clock, at most 1h0m0s is allowed: check the producer's clock`},
	}
}

func TestBadRequestsBecomeDeadLettersAndThePartitionGoesOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bad := badRequests()
	var records []*kgo.Record
	for i, tt := range bad {
		tt.rec.Partition = 3
		good := requestRecord(oneUser(fmt.Sprintf("after-%02d", i)))
		good.Partition = 3
		records = append(records, tt.rec, good)
	}
	b.publish(records...)
	b.start(b.config())
	letters := b.deadLetters(len(bad))
	for i, tt := range bad {
		want := deadLetter{tt.reason, high, "3", strconv.Itoa(2 * i), string(tt.rec.Value)}
		if got := letters[i]; got != want {
			t.Errorf("dead letter %d\ngot  %.300s\nwant %.300s", i, got, want)
		}
	}
	events := b.events(toHigh, len(bad))
	users := slices.Sorted(maps.Keys(events))
	if len(users) != len(bad) || users[len(users)-1] != fmt.Sprintf("after-%02d", len(bad)-1) {
		t.Errorf("deliveries of %v", users)
	}
	b.eventually("all are committed", func() bool { return b.committed(high) == int64(len(records)) })
}

// A broker bounds what it takes after compression: more than any dead letter can hold may come out.
func TestHugeRecordIsCutIntoItsDeadLetter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.publish(requestRecord(strings.Repeat("x", 20<<20)), requestRecord(oneUser("after")))
	b.start(b.config())
	letter := b.deadLetters(1)[0]
	want := "the request has 20971520 bytes, at most 262144 are allowed (of its key of 0 bytes, value of 20971520 and headers of 0, this dead letter holds at most 1 MiB each)"
	if letter.reason != want || len(letter.value) != 1<<20 {
		t.Errorf("%d bytes, %s", len(letter.value), letter.reason)
	}
	b.events(toHigh, 1)
}

func TestProtobufRequestIsTheSameAsItsJSON(t *testing.T) {
	t.Parallel()
	b := setup(t)
	pb := &whisperv1.Request{
		Id: "n", Category: "cards", To: &whisperv1.Audience{Audience: &whisperv1.Audience_Users{Users: &whisperv1.Users{Ids: []string{"mona"}}}},
		Content: &whisperv1.Content{Title: "T", Body: "B", Data: []byte(`{"a":1}`)}, Channels: []string{"apns"}, CollapseKey: "c",
		SendAt: timestamppb.New(started.Add(time.Hour)), Ttl: durationpb.New(time.Minute),
	}
	pb.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 900, protowire.VarintType), 1))
	value, err := proto.Marshal(pb)
	if err != nil {
		t.Fatal(err)
	}
	b.publish(
		&kgo.Record{Topic: high, Value: value, Headers: []kgo.RecordHeader{{Key: "Content-Type", Value: []byte("application/x-protobuf")}}},
		&kgo.Record{Topic: consumers.TopicRequests(domain.Low), Value: []byte(`{"id":"n","category":"cards","to":{"users":["mona"]},"content":{"title":"T","body":"B","data":{"a":1}},
			"channels":["apns"],"collapse_key":"c","send_at":"2026-11-23T11:00:00+02:00","ttl":"60s"}`)},
	)
	b.start(b.config())
	fromProto, fromJSON := b.events(toHigh, 1)["mona"], b.events(consumers.TopicDeliveries(domain.Low), 1)["mona"]
	fromJSON.Lane, fromJSON.Cause, fromJSON.GetDeliveryAccepted().Request = fromProto.GetLane(), fromProto.GetCause(), fromProto.GetCause()
	if !proto.Equal(fromProto, fromJSON) {
		t.Errorf("protobuf %v\njson     %v", fromProto, fromJSON)
	}
}

func TestReplayWritesTheSameAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var records []*kgo.Record
	for i := range 50 {
		rec := requestRecord(oneUser(fmt.Sprintf("user-%d", i)))
		rec.Partition = int32(i % partitions)
		records = append(records, rec)
	}
	b.publish(records...)
	_, stop := b.start(b.config())
	b.read(toHigh, 50)
	stop()
	b.rewind()
	b.start(b.config())
	times := map[string]int{}
	for _, rec := range b.read(toHigh, 100) {
		times[string(rec.Value)+fmt.Sprint(headersOf(rec))]++
	}
	if len(times) != 50 {
		t.Errorf("%d different deliveries, want 50", len(times))
	}
	for what, n := range times {
		if n != 2 {
			t.Errorf("%d times: %q", n, what)
		}
	}
}

func TestTwoProcessesShare(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start(b.config())
	_, stopTwo := b.start(b.config())
	adm, err := b.client.Admin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(adm.Close)
	share := func(processes int) bool {
		members := 2 * processes // one for alerts, one for the rest
		groups, err := adm.DescribeGroups(t.Context(), Group)
		if err != nil {
			return false
		}
		group := groups[Group]
		if group.State != "Stable" || len(group.Members) != members {
			return false
		}
		n := 0
		for _, m := range group.Members {
			assigned, _ := m.Assigned.AsConsumer()
			for _, topic := range assigned.Topics {
				n += len(topic.Partitions)
				if processes == 2 && topic.Topic == high && len(topic.Partitions) == partitions {
					return false
				}
			}
		}
		return n == 4*partitions+2 // templates and categories have one each
	}
	b.eventually("both have a share", func() bool { return share(2) })
	publish := func(from, to int) {
		for i := from; i < to; i++ {
			rec := requestRecord(oneUser(fmt.Sprintf("user-%d", i)))
			rec.Partition = int32(i % partitions)
			b.publish(rec)
		}
	}
	publish(0, 100)
	stopTwo() // in the middle
	publish(100, 200)
	b.eventually("one has everything", func() bool { return share(1) })
	seen := map[string]bool{}
	b.eventually("all deliveries", func() bool {
		for _, rec := range b.read(toHigh, 200) {
			seen[string(rec.Key)] = true
		}
		return len(seen) == 200
	})
}
