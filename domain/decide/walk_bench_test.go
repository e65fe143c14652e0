package decide_test

import (
	"cmp"
	"fmt"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/template"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// benchUsers are of a partition: a locale, a zone, four attributes and an endpoint each, one in four of them in
// English, one in ten with the plan that the segment asks for.
func benchUsers(b *testing.B, s *decide.State, users int, channel string) {
	b.Helper()
	for i := range users {
		p := &whisperv1.Profile{
			Locale: "ar-EG", Timezone: "Africa/Cairo", ChangesOffset: int64(i), CreatedOffset: int64(i) + 1,
			Attributes: fmt.Appendf(nil, `{"country":"EG","name":"Mona %d","plan":"basic","since":"2021"}`, i),
			Endpoints:  []*whisperv1.Endpoint{{Name: "iphone", Channel: channel, Token: fmt.Sprintf("%064x", i), App: "com.klivvr.app", RegisteredAtMs: 1_700_000_000_000}},
		}
		if i%4 == 0 {
			p.Locale = "en"
		}
		if i%10 == 1 {
			p.Attributes = fmt.Appendf(nil, `{"country":"EG","name":"Mona %d","plan":"gold","since":"2021"}`, i)
		}
		encoded, err := proto.Marshal(p)
		if err != nil {
			b.Fatal(err)
		}
		s.RestoreUser(fmt.Sprint("user-", i), encoded)
	}
}

const benchAudience = 200_000

// BenchmarkWalk is the decision alone: users walked a second of CPU, nothing encoded or written. connected says how
// many of them hold a socket on one node.
func BenchmarkWalk(b *testing.B) {
	source := `{"default_locale":"en","locales":{"en":{"title":"Hello {{ user.attributes.name }}","body":"Your plan: {{ plan }}"},"ar":{"title":"مرحبا {{ user.attributes.name }}","body":"باقتك: {{ plan }}"}}}`
	for name, cast := range map[string]struct {
		segment   string
		template  bool
		connected bool
		channel   string // of endpoints; pushes are asked for
	}{
		"all away":                            {},
		"endpoints that nothing serves, away": {channel: "webpush"},
		"segment of 1 in 13, away":            {segment: `user.attributes.country == 'EG' && user.attributes.plan in ['gold', 'platinum'] && user.locale.startsWith('ar')`},
		"all connected, shared text":          {connected: true},
		"all connected, text per user":        {connected: true, template: true},
	} {
		b.Run(name, func(b *testing.B) {
			var took time.Duration
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				policy := decide.DefaultPolicy()
				if cast.connected {
					policy.Slice = 8 * benchAudience // of the first pass an 8th: nobody acknowledges here, and only so many may be in flight
				}
				s := decide.NewState(0, policy)
				benchUsers(b, s, benchAudience, cmp.Or(cast.channel, domain.ChannelAPNs))
				s.ReplayDone()
				s.Decide(decide.NodeChanged{Node: "n1", Incarnation: 1}, at(0))
				if cast.connected {
					for i := range benchAudience {
						s.Decide(here(fmt.Sprint("user-", i), "n1", "s", 1), at(0))
					}
				}
				cast0 := broadcast("news", cast.segment)
				acc := cast0.Event.GetBroadcastAccepted().GetAccepted()
				if cast.channel != "" {
					acc.Channels = domain.DefaultChannels
				}
				if cast.template {
					tmpl, err := template.Parse([]byte(source))
					if err != nil {
						b.Fatal(err)
					}
					s.Decide(decide.TemplateChanged{ID: "t", Version: 1, Template: tmpl}, at(0))
					acc.Content, acc.Template, acc.TemplateVersion, acc.Variables = nil, "t", 1, []byte(`{"plan":"gold"}`)
				}
				s.Decide(cast0, at(0))
				if !cast.connected {
					s.Decide(decide.WalkOn{Lane: domain.Low}, at(0)) // sorts
				}
				b.StartTimer()
				began := cpuTime(b)
				walkAll(b, s)
				took += cpuTime(b) - began
				if st := s.Stats(); cast.connected && st.InFlight != benchAudience {
					b.Fatalf("%d of %d are on their way", st.InFlight, benchAudience)
				}
			}
			b.ReportMetric(float64(benchAudience)*float64(b.N)/took.Seconds(), "users/CPU-s")
		})
	}
}

// cpuTime is what this process has used, its collector included.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// walkAll goes on until nothing is due.
func walkAll(b *testing.B, s *decide.State) {
	b.Helper()
	for {
		if due, ok := s.WalkDue(domain.Low); ok && !due.After(at(0)) {
			s.Decide(decide.WalkOn{Lane: domain.Low}, at(0))
			continue
		}
		return
	}
}

func broadcast(note, segment string) decide.BroadcastArrived {
	id := domain.NewDeliveryID(at(0), domain.HashDelivery(note, ""))
	return decide.BroadcastArrived{
		Source: decide.LaneOffset{Lane: domain.Low, Offset: 1},
		Event: &whisperv1.Event{
			DeliveryId: id[:], NotificationId: note, Lane: whisperv1.Lane_LANE_LOW,
			Kind: &whisperv1.Event_BroadcastAccepted{BroadcastAccepted: &whisperv1.BroadcastAccepted{
				Segment: segment, Partitions: 1,
				Accepted: &whisperv1.DeliveryAccepted{
					Category: "default", Content: &whisperv1.Content{Title: "t", Body: "b"}, Channels: []string{domain.ChannelSocket},
					AcceptedAtMs: at(0).UnixMilli(), ExpiresAtMs: at(3600).UnixMilli(), Request: &whisperv1.Position{Topic: "whisper.requests.low", Offset: 1},
				},
			}},
		},
	}
}
