package request_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain/record"
	"github.com/klivvr/whisper/domain/request"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func TestRecordsOfImpossibleTimesAreRefused(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name, fields string
		at           time.Time
		want         string // "": it is taken
	}{
		{"seconds", "", time.UnixMilli(now.Unix()), "the record's time is 1970-01-21: milliseconds? 1795420800 looks like seconds since 1970"},
		{"seconds and send_at", `,"send_at":"2026-11-23T09:00:00Z"`, time.UnixMilli(now.Unix()), "the record's time is 1970-01-21: milliseconds? 1795420800 looks like seconds since 1970"},
		{"microseconds", "", time.UnixMilli(now.UnixMicro()), "the record's time is 58864-08-14: milliseconds? 1795420800000000 looks like microseconds since 1970"},
		{"nanoseconds", "", time.UnixMilli(now.UnixNano()), "milliseconds? 1795420800000000000 looks like nanoseconds since 1970"},
		{"1970, of no unit", "", time.UnixMilli(5), "the record's time is 1970-01-01T00:00:00Z, 20780 days ago, and its time to live ended at 1970-01-02T00:00:00Z: nothing of it could be delivered; check the producer's clock"},
		{"40 days", "", now.AddDate(0, 0, -40), "the record's time is 2026-10-14T08:00:00Z, 40 days ago, and its time to live ended at 2026-10-15T08:00:00Z: nothing of it could be delivered; check the producer's clock"},
		{"40 days, to live 30", `,"ttl":"720h"`, now.AddDate(0, 0, -40), "its time to live ended at 2026-11-13T08:00:00Z"},
		{"40 days, for the 20th day, to live 30", `,"ttl":"720h","send_at":"2026-11-03T08:00:00Z"`, now.AddDate(0, 0, -40), ""},
		{"an outage of 26 hours", "", now.Add(-26 * time.Hour), ""},
		{"an outage of 10 days", `,"ttl":"1m"`, now.AddDate(0, 0, -10), ""},
		{"30 days", "", now.AddDate(0, 0, -30), ""},
		{"far ahead", "", now.AddDate(200, 0, 0), "ahead of the clock, at most 1h0m0s is allowed: check the producer's clock"},
	} {
		r, err := request.Parse([]byte(`{"to":{"users":["mona"]},"content":{"body":"b"}`+tt.fields+`}`), "")
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Deliveries(source(tt.at), 0, now)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v\nwant %s", tt.name, err, tt.want)
		}
	}
}

// TestNothingThatCouldBeDeliveredIsRefusedForItsAge, and what is refused for it is older than any outage that is waited out.
func TestNothingThatCouldBeDeliveredIsRefusedForItsAge(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	rapid.Check(t, func(rt *rapid.T) {
		age := time.Duration(rapid.Int64Range(0, int64(100*24*time.Hour)).Draw(rt, "age"))
		r := &request.Request{Users: []string{"mona"}, TTL: time.Duration(rapid.Int64Range(int64(time.Second), int64(request.MaxTTL)).Draw(rt,
			"ttl"))}
		at := now.Add(-age)
		expires := at.Add(r.TTL)
		if rapid.Bool().Draw(rt, "scheduled") {
			r.SendAt = at.Add(time.Duration(rapid.Int64Range(0, int64(request.MaxSchedule)).Draw(rt, "send_at")))
			expires = r.SendAt.Add(r.TTL)
		}
		_, err := r.Deliveries(source(at), 0, now)
		if refused := err != nil; refused != (expires.Before(now) && age > request.MaxRequestAge) {
			rt.Fatalf("%s old, expires %s: %v", age, expires, err)
		}
	})
}

func TestSendAtIsReadStrictly(t *testing.T) {
	t.Parallel()
	for sendAt, want := range map[string]string{
		"0001-01-01T00:00:00Z":      "send_at is 0001-01-01T00:00:00Z: leave it out for now",
		"0001-01-01T02:00:00+02:00": "send_at is 0001-01-01T00:00:00Z: leave it out for now",
		"1970-01-01T00:00:00Z":      "send_at is 1970-01-01T00:00:00Z: leave it out for now",
		"2026-11-23T9:00:00Z":       `send_at "2026-11-23T9:00:00Z" is not an RFC 3339 time such as "2026-11-23T09:00:00Z"`,
		"2026-11-23T09:00:00+24:00": `send_at "2026-11-23T09:00:00+24:00" is not an RFC 3339 time such as "2026-11-23T09:00:00Z"`,
		"2026-11-23T09:00:00":       `send_at "2026-11-23T09:00:00" has no zone: end it with Z or an offset such as +02:00`,
		"":                          `send_at "" is not an RFC 3339 time such as "2026-11-23T09:00:00Z"`,
	} {
		for _, to := range []string{`{"users":["mona"]}`, `{"all":true}`} {
			text, _ := json.Marshal(sendAt)
			_, err := request.Parse([]byte(`{"to":`+to+`,"content":{"body":"b"},"send_at":`+string(text)+`}`), "")
			if err == nil || err.Error() != want {
				t.Errorf("%s: got %v, want %s", sendAt, err, want)
			}
		}
	}
	zero, err := proto.Marshal(&whisperv1.Request{
		To:      &whisperv1.Audience{Audience: &whisperv1.Audience_Users{Users: &whisperv1.Users{Ids: []string{"mona"}}}},
		Content: &whisperv1.Content{Body: "b"}, SendAt: timestamppb.New(time.Time{}),
	})
	if err != nil {
		t.Fatal(err)
	}
	var invalid *record.Invalid
	if _, err := request.Parse(zero, "application/x-protobuf"); !errors.As(err, &invalid) || invalid.Word != record.WordTime {
		t.Errorf("the year 1 in Protobuf: %v", err)
	}
}
