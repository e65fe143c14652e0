package decide_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/template"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// alert is a delivery in a category of which all channels get it, where the request names none.
func alert(notification string, offset int64) decide.DeliveryArrived {
	in := arrived(notification, "mona", offset, given{})
	acc := in.Event.GetDeliveryAccepted()
	acc.Category, acc.ChannelsDefault = "fraud", true
	return in
}

func fraud(t *testing.T, rules string) decide.CategoryChanged {
	t.Helper()
	c, err := category.Parse("fraud", []byte(rules))
	if err != nil {
		t.Fatal(err)
	}
	return decide.CategoryChanged{Name: "fraud", Category: c}
}

func readOf(n string) decide.FactArrived {
	return about(n, "mona", &whisperv1.Event{Kind: &whisperv1.Event_DeliveryRead{DeliveryRead: &whisperv1.DeliveryRead{
		Attempt: 1,
		Node:    "n1",
	}}})
}

func TestAllChannelsGetIt(t *testing.T) {
	t.Parallel()
	retry, drop := whisperv1.FailureClass_FAILURE_CLASS_RETRY, whisperv1.FailureClass_FAILURE_CLASS_DROP
	both := `{"all_channels":["socket","apns"]}`
	n1 := step{0, decide.NodeChanged{Node: "n1", Incarnation: 1}, nil}
	connected := step{0, here("mona", "n1", "s1", 1), nil}
	phone := step{0, endpoint("mona", "phone"), []string{"put mona"}}
	sent := step{0, alert("pay", 7), []string{"push pay #1 to phone", "route pay #2 to n1"}}
	tests := map[string]struct {
		rules string
		steps []step
	}{
		"a socket that acknowledges stops no push": {both, []step{
			n1, connected, phone, sent,
			{1, acked("pay", "mona"), nil},
			{2, pushFailed("pay", "mona", "phone", 1, retry), []string{"deferred retry"}},
			{5, decide.TimePassed{}, []string{"push pay #3 to phone"}},
			{6, pushed("pay", "mona", "phone", 3), []string{"settle 7"}},
		}},
		"a push that is taken stops no socket: it comes again, and at the next connection": {both, []step{
			n1, connected, phone, sent,
			{1, pushed("pay", "mona", "phone", 1), nil},
			{1, socketSent("pay", "mona", 2), nil},
			{2, here("mona", "n1", "s2", 1), []string{"route pay #3 to n1/s2"}},
			{12, decide.TimePassed{}, []string{"deferred unacknowledged", "park", "settle 7"}},
			{13, here("mona", "n1", "s3", 1), []string{"route pay #4 to n1"}},
			{14, acked("pay", "mona"), []string{"unpark"}},
		}},
		"read stops what is not sent yet": {both, []step{
			n1, connected, phone, sent,
			{1, pushFailed("pay", "mona", "phone", 1, retry), []string{"deferred retry"}},
			{2, readOf("pay"), []string{"settle 7"}},
			{9, decide.TimePassed{}, nil},
		}},
		"so does a cancel, and it is told once": {both, []step{
			n1, connected, phone, sent,
			{1, pushFailed("pay", "mona", "phone", 1, retry), []string{"deferred retry"}},
			{2, cancelled("pay", 8), []string{"delivery_cancelled", "settle 7", "settle 8", "cancel pay"}},
			{9, decide.TimePassed{}, nil},
		}},
		"who is away is pushed to, and gets it when they connect": {both, []step{
			n1, phone,
			{0, alert("pay", 7), []string{"push pay #1 to phone", "deferred away", "park", "settle 7"}},
			{1, pushed("pay", "mona", "phone", 1), []string{"park"}},
			{60, here("mona", "n1", "s1", 1), []string{"route pay #2 to n1"}},
			{61, acked("pay", "mona"), []string{"unpark", "remember"}},
		}},
		"what one channel did not reach is not told where another did": {both, []step{
			n1, phone,
			{0, alert("pay", 7), []string{"push pay #1 to phone", "deferred away", "park", "settle 7"}},
			{1, pushed("pay", "mona", "phone", 1), []string{"park"}},
			{3600, decide.TimePassed{}, []string{"unpark", "remember"}},
		}},
		"nobody is reached: it is told once": {both, []step{
			n1, phone,
			{0, alert("pay", 7), []string{"push pay #1 to phone", "deferred away", "park", "settle 7"}},
			{1, pushFailed("pay", "mona", "phone", 1, drop), []string{"park"}},
			{3600, decide.TimePassed{}, []string{"expired ttl", "unpark", "remember"}},
		}},
		"a socket took it, and nobody acknowledged it: that is told, whichever channel ends last": {both, []step{
			n1, connected, phone, sent,
			{1, socketSent("pay", "mona", 2), nil},
			{3599, pushFailed("pay", "mona", "phone", 1, retry), []string{"deferred retry"}},
			{3600, decide.TimePassed{}, []string{"expired unacknowledged", "settle 7"}},
		}},
		"a phone that registers while a socket is waited for gets it": {both, []step{
			n1,
			{0, alert("pay", 7), []string{"deferred away", "park", "settle 7"}},
			{15, decide.TimePassed{}, []string{"park"}},
			{20, endpoint("mona", "phone"), []string{"put mona", "push pay #1 to phone"}},
			{21, pushed("pay", "mona", "phone", 1), []string{"park"}},
			{22, here("mona", "n1", "s1", 1), []string{"route pay #2 to n1"}},
			{23, acked("pay", "mona"), []string{"unpark"}},
		}},
		"a phone that refuses and another one that registers": {`{"all_channels":["socket","push"]}`, []step{
			n1, phone,
			{0, alert("pay", 7), []string{"push pay #1 to phone", "deferred away", "park", "settle 7"}},
			{1, pushFailed("pay", "mona", "phone", 1, drop), []string{"park"}},
			{2, decide.ProfilePatched{User: "mona", Patch: []byte(`{"endpoints":{"new":{"channel":"apns","token":"n"}}}`), At: at(2), Offset: 2}, []string{"put mona", "push pay #2 to new", "push pay #3 to phone"}},
			{3, pushed("pay", "mona", "new", 2), []string{"park"}},
			{4, pushFailed("pay", "mona", "phone", 3, drop), []string{"park"}},
		}},
		"no phone within a while: the socket alone is it": {both, []step{
			n1, connected,
			{0, alert("pay", 7), []string{"route pay #1 to n1"}},
			{1, acked("pay", "mona"), nil},
			{15, decide.TimePassed{}, []string{"settle 7"}},
		}},
		"a channel that the user refuses is left out": {both, []step{
			n1, connected, phone,
			{0, decide.ProfilePatched{User: "mona", Patch: []byte(`{"preferences":{"fraud":{"apns":false}}}`), At: t0, Offset: 2}, []string{"put mona"}},
			{0, alert("pay", 7), []string{"route pay #1 to n1"}},
			{1, acked("pay", "mona"), []string{"settle 7"}},
		}},
		"a channel that the user refuses and allows again gets it then": {both, []step{
			n1, phone,
			{0, decide.ProfilePatched{User: "mona", Patch: []byte(`{"preferences":{"fraud":{"apns":false}}}`), At: t0, Offset: 2}, []string{"put mona"}},
			{0, alert("pay", 7), []string{"deferred away", "park", "settle 7"}},
			{60, decide.ProfilePatched{User: "mona", Patch: []byte(`{"preferences":{"fraud":{"apns":null}}}`), At: at(60), Offset: 3}, []string{"put mona", "push pay #1 to phone"}},
			{61, pushed("pay", "mona", "phone", 1), []string{"park"}},
			{62, here("mona", "n1", "s1", 1), []string{"route pay #2 to n1"}},
			{63, acked("pay", "mona"), []string{"unpark", "remember"}},
		}},
		"a channel that is refused while it waits for its next try": {both, []step{
			n1, phone,
			{0, alert("pay", 7), []string{"push pay #1 to phone", "deferred away", "park", "settle 7"}},
			{1, pushFailed("pay", "mona", "phone", 1, retry), []string{"deferred retry", "park"}},
			{2, decide.ProfilePatched{User: "mona", Patch: []byte(`{"preferences":{"fraud":{"apns":false}}}`), At: at(2), Offset: 2}, []string{"put mona", "park"}},
			{9, decide.TimePassed{}, nil},
			{60, decide.ProfilePatched{User: "mona", Patch: []byte(`{"preferences":{"fraud":{"apns":null}}}`), At: at(60), Offset: 3}, []string{"put mona", "push pay #2 to phone"}},
		}},
		"a socket that is refused while it is to acknowledge holds no offset": {both, []step{
			n1, connected, phone, sent,
			{1, decide.ProfilePatched{User: "mona", Patch: []byte(`{"preferences":{"fraud":{"socket":false}}}`), At: at(1), Offset: 2}, []string{"put mona"}},
			{10, decide.TimePassed{}, nil},
			{11, pushed("pay", "mona", "phone", 1), []string{"settle 7"}},
		}},
		"a channel that is allowed again before its provider wants it waits for that": {both, []step{
			n1, phone,
			{0, alert("pay", 7), []string{"push pay #1 to phone", "deferred away", "park", "settle 7"}},
			{1, failed("pay", "mona", &whisperv1.AttemptFailed{
				Attempt: 1, Channel: domain.ChannelAPNs, Endpoint: "phone", Class: retry, RetryAfterMs: 600_000,
			}), []string{"deferred retry", "park"}},
			{2, decide.ProfilePatched{User: "mona", Patch: []byte(`{"preferences":{"fraud":{"apns":false}}}`), At: at(2), Offset: 2}, []string{"put mona", "park"}},
			{3, decide.ProfilePatched{User: "mona", Patch: []byte(`{"attributes":{"x":"y"}}`), At: at(3), Offset: 3}, []string{"put mona"}},
			{60, decide.ProfilePatched{User: "mona", Patch: []byte(`{"preferences":{"fraud":{"apns":null}}}`), At: at(60), Offset: 4}, []string{"put mona", "deferred retry", "park"}},
			{602, decide.TimePassed{}, []string{"push pay #2 to phone"}},
		}},
		"a channel that is allowed again in quiet hours waits for their end": {both, []step{ // it is 22:13:20
			n1, phone,
			{0, decide.ProfilePatched{User: "mona", Patch: []byte(`{"preferences":{"fraud":{"apns":false}}}`), At: t0, Offset: 2}, []string{"put mona"}},
			{0, alert("pay", 7), []string{"deferred away", "park", "settle 7"}},
			{
				1,
				decide.ProfilePatched{User: "mona", Patch: []byte(`{"timezone":"UTC","quiet_hours":{"from":"22:00","to":"22:20"},"preferences":{"fraud":{"apns":null}}}`), At: at(1), Offset: 3},
				[]string{"put mona", "deferred quiet_hours", "park"},
			},
			{1301, decide.TimePassed{}, []string{"push pay #1 to phone"}},
		}},
		"every channel is refused: it is told once": {both, []step{
			n1, connected, phone,
			{0, decide.ProfilePatched{User: "mona", Patch: []byte(`{"preferences":{"fraud":{"apns":false,"socket":false}}}`), At: t0, Offset: 2}, []string{"put mona"}},
			{0, alert("pay", 7), []string{"suppressed preference", "settle 7"}},
		}},
		"mandatory, both are refused, both get it": {`{"mandatory":true,"all_channels":["socket","apns"]}`, []step{
			n1, connected, phone,
			{0, decide.ProfilePatched{User: "mona", Patch: []byte(`{"preferences":{"fraud":{"all":false}}}`), At: t0, Offset: 2}, []string{"put mona"}},
			sent,
		}},
		"a request that names channels goes by them, in turn": {both, []step{
			n1, connected, phone,
			{0, func() decide.DeliveryArrived {
				in := alert("pay", 7)
				in.Event.GetDeliveryAccepted().ChannelsDefault = false
				return in
			}(), []string{"route pay #1 to n1"}},
			{1, acked("pay", "mona"), []string{"settle 7"}},
		}},
		"it counts once against caps": {`{"all_channels":["socket","apns"],"caps":[{"n":2,"per":"hour"}]}`, []step{
			n1, connected, phone,
			{0, alert("a", 7), []string{"count mona", "push a #1 to phone", "route a #2 to n1"}},
			{0, alert("b", 8), []string{"count mona", "push b #1 to phone", "route b #2 to n1"}},
			{0, alert("c", 9), []string{"suppressed cap", "settle 9"}},
		}},
		"a newer one of its collapse key ends what waits of it": {both, []step{
			n1, phone,
			{0, keyed(alert("a", 7)), []string{"push a #1 to phone", "deferred away", "park", "settle 7"}},
			{1, pushFailed("a", "mona", "phone", 1, retry), []string{"deferred retry", "park"}},
			{1, keyed(alert("b", 8)), []string{"park", "suppressed collapsed", "unpark", "push b #1 to phone", "deferred away", "park", "settle 8"}},
		}},
		"an erased user's ends, and it is told once": {both, []step{
			n1, phone,
			{0, alert("pay", 7), []string{"push pay #1 to phone", "deferred away", "park", "settle 7"}},
			{1, decide.ProfilePatched{User: "mona", Offset: 3}, []string{"park", "suppressed erased", "unpark", "forget mona", "releasing mona", "user_erased"}},
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := decide.NewState(0, decide.DefaultPolicy())
			s.ReplayDone()
			s.Decide(fraud(t, test.rules), t0)
			for i, step := range test.steps {
				var got []string
				for _, o := range s.Decide(step.in, at(step.at)) {
					got = append(got, said(o))
				}
				if !slices.Equal(got, step.want) {
					t.Fatalf("step %d, %T:\n got %q\nwant %q", i, step.in, got, step.want)
				}
			}
		})
	}
}

func keyed(in decide.DeliveryArrived) decide.DeliveryArrived {
	in.Event.GetDeliveryAccepted().CollapseKey = "key"
	return in
}

func cancelled(note string, offset int64) decide.CancelArrived {
	return decide.CancelArrived{
		Source: decide.LaneOffset{Lane: domain.High, Offset: offset},
		Event:  &whisperv1.Event{NotificationId: note, Kind: &whisperv1.Event_CancelRequested{CancelRequested: &whisperv1.CancelRequested{}}},
	}
}

// TestLegsOutliveARestart: what each channel came to is known after one, from the record or from the facts.
func TestLegsOutliveARestart(t *testing.T) {
	t.Parallel()
	begin := func(s *decide.State) {
		for _, in := range []decide.Input{fraud(t, `{"all_channels":["socket","apns"]}`), endpoint("mona", "phone"), decide.NodeChanged{Node: "n1", Incarnation: 1}} {
			s.Decide(in, t0)
		}
	}
	for name, c := range map[string]struct {
		parked bool // the user is away, so that it is
		facts  []decide.FactArrived
		want   []string // what the user gets, connected again, and when time has passed
	}{
		"in flight, nothing known":     {false, nil, []string{"push pay #1 to phone", "route pay #2 to n1"}},
		"in flight, acknowledged":      {false, []decide.FactArrived{acked("pay", "mona")}, []string{"push pay #1 to phone"}},
		"in flight, pushed":            {false, []decide.FactArrived{pushed("pay", "mona", "phone", 1)}, []string{"route pay #2 to n1"}},
		"in flight, both":              {false, []decide.FactArrived{acked("pay", "mona"), pushed("pay", "mona", "phone", 2)}, nil},
		"in flight, read":              {false, []decide.FactArrived{readOf("pay")}, nil},
		"parked, nothing known":        {true, nil, []string{"route pay #3 to n1", "push pay #4 to phone"}},
		"parked, pushed":               {true, []decide.FactArrived{pushed("pay", "mona", "phone", 1)}, []string{"route pay #3 to n1"}},
		"parked, and the push refused": {true, []decide.FactArrived{pushFailed("pay", "mona", "phone", 1, whisperv1.FailureClass_FAILURE_CLASS_DROP)}, []string{"route pay #3 to n1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := decide.NewState(0, decide.DefaultPolicy())
			before.ReplayDone()
			begin(before)
			if !c.parked {
				before.Decide(here("mona", "n1", "s1", 1), t0)
			}
			var parked *whisperv1.Parked
			for _, o := range before.Decide(alert("pay", 7), t0) {
				if p, ok := o.(decide.Park); ok {
					parked = proto.CloneOf(p.Parked)
				}
			}
			if (parked != nil) != c.parked {
				t.Fatalf("parked: %v", parked)
			}
			after := decide.NewState(0, decide.DefaultPolicy())
			begin(after)
			if parked != nil {
				after.RestoreParked(parked)
			}
			for _, fact := range c.facts {
				after.Decide(fact, at(1))
			}
			after.Decide(here("mona", "n1", "s1", 1), at(1))
			after.Resume(at(1))
			var got []string
			note := func(outputs []decide.Output) {
				for _, o := range outputs {
					if goesOut(o) {
						got = append(got, said(o))
					}
				}
			}
			if parked == nil {
				note(after.Decide(alert("pay", 7), at(1)))
			}
			after.ReplayDone()
			if parked != nil {
				note(after.Decide(here("mona", "n1", "s2", 1), at(2)))
			}
			note(after.Decide(decide.TimePassed{}, at(3)))
			if name == "parked, nothing known" { // the push may not have been made
				note(after.Decide(decide.TimePassed{}, at(31)))
			}
			if !slices.Equal(trimSession(got), c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func goesOut(o decide.Output) bool {
	_, route := o.(decide.RouteTo)
	_, push := o.(decide.PushTo)
	return route || push
}

func trimSession(said []string) (all []string) {
	for _, s := range said {
		for _, session := range []string{"/s1", "/s2"} {
			if len(s) > len(session) && s[len(s)-len(session):] == session {
				s = s[:len(s)-len(session)]
			}
		}
		all = append(all, s)
	}
	return all
}

// TestALegIsSentAgainAsIfAlone: how often other channels were tried does not make the socket wait.
func TestALegIsSentAgainAsIfAlone(t *testing.T) {
	t.Parallel()
	s := decide.NewState(0, decide.DefaultPolicy())
	s.ReplayDone()
	for _, in := range []decide.Input{fraud(t, `{"all_channels":["socket","apns"]}`), decide.NodeChanged{Node: "n1", Incarnation: 1}} {
		s.Decide(in, t0)
	}
	for i := range 5 {
		s.Decide(endpoint("mona", fmt.Sprint("phone-", i)), t0)
	}
	s.Decide(here("mona", "n1", "s1", 1), t0)
	s.Decide(alert("pay", 7), t0)
	for i := range 5 {
		s.Decide(pushed("pay", "mona", fmt.Sprint("phone-", i), int32(i+1)), t0)
	}
	var again []int
	for second := 1; second <= 300; second++ {
		for _, o := range s.Decide(decide.TimePassed{}, at(second)) {
			if _, route := o.(decide.RouteTo); route {
				again = append(again, second)
			}
		}
	}
	// 10 s for the acknowledgement, then 30 s and 60 s, each with up to as much again at random.
	if len(again) < 2 || again[0] > 71 || again[1] > 71+10+121 {
		t.Errorf("sent again after %d s", again)
	}
}

// TestADigestThatWasBegunGoesOn after a restart: a fact of waiting is no attempt.
func TestADigestThatWasBegunGoesOn(t *testing.T) {
	t.Parallel()
	s := decide.NewState(0, decide.DefaultPolicy())
	for _, in := range []decide.Input{
		fraud(t, `{"all_channels":["socket","apns"],"digest":{"window":"1m","template":"digest"}}`),
		endpoint("mona", "phone"),
		about("pay", "mona", &whisperv1.Event{Kind: &whisperv1.Event_DeliveryDeferred{DeliveryDeferred: &whisperv1.DeliveryDeferred{Reason: domain.ReasonDigest}}}),
	} {
		s.Decide(in, t0)
	}
	s.Resume(at(1))
	var got []string
	for _, o := range s.Decide(alert("pay", 7), at(1)) {
		got = append(got, said(o))
	}
	if slices.ContainsFunc(got, func(s string) bool { return len(s) > 4 && s[:4] == "push" }) || !slices.Contains(got, "deferred digest") {
		t.Errorf("got %q", got)
	}
}

// TestADigestGoesToAllChannels, as its parts would have.
func TestADigestGoesToAllChannels(t *testing.T) {
	t.Parallel()
	s := decide.NewState(0, decide.DefaultPolicy())
	s.ReplayDone()
	template, err := template.Parse([]byte(`{"default_locale":"en","locales":{"en":{"title":"{{ count }}","body":"b"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range []decide.Input{
		fraud(t, `{"all_channels":["socket","apns"],"digest":{"window":"1m","template":"digest"}}`),
		decide.TemplateChanged{ID: "digest", Version: 1, Template: template},
		endpoint("mona", "phone"),
		decide.NodeChanged{Node: "n1", Incarnation: 1},
		here("mona", "n1", "s1", 1), alert("a", 7), alert("b", 8),
	} {
		s.Decide(in, t0)
	}
	var digest *whisperv1.Event
	for _, o := range s.Decide(decide.TimePassed{}, at(60)) {
		if d, ok := o.(decide.Deliver); ok {
			digest = proto.CloneOf(d.Event)
		}
	}
	if digest == nil {
		t.Fatal("no digest")
	}
	var got []string
	for _, o := range s.Decide(decide.DeliveryArrived{Event: digest, Source: decide.LaneOffset{Lane: domain.High, Offset: 9}}, at(61)) {
		got = append(got, said(o))
	}
	note := digest.GetNotificationId()
	for _, want := range []string{fmt.Sprintf("route %s #2 to n1", note), fmt.Sprintf("push %s #1 to phone", note)} {
		if !slices.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
}

// TestABroadcastGoesToAllChannels: those who are connected share a frame as ever, and their phones get it, too.
func TestABroadcastGoesToAllChannels(t *testing.T) {
	t.Parallel()
	s := decide.NewState(0, decide.DefaultPolicy())
	s.ReplayDone()
	s.Decide(fraud(t, `{"all_channels":["socket","apns"]}`), t0)
	s.Decide(decide.NodeChanged{Node: "n1", Incarnation: 1}, t0)
	for _, user := range []string{"mona", "nour", "omar", "zeina"} {
		if user == "zeina" {
			s.Decide(decide.ProfilePatched{User: user, Patch: []byte(`{"locale":"en"}`), At: t0, Offset: 1}, t0)
		} else {
			s.Decide(endpoint(user, "phone-of-"+user), t0)
		}
		if user != "omar" {
			s.Decide(here(user, "n1", "s1", 1), t0)
		}
	}
	in := broadcast("news", "")
	acc := in.Event.GetBroadcastAccepted().GetAccepted()
	acc.Category, acc.ChannelsDefault = "fraud", true
	s.Decide(in, t0)
	var got []string
	tell := func(outputs []decide.Output) {
		for _, o := range outputs {
			if goesOut(o) {
				got = append(got, said(o))
			}
		}
	}
	for range 8 {
		tell(s.Decide(decide.WalkOn{Lane: domain.Low}, at(1)))
	}
	want := []string{
		"push news #2 to phone-of-mona", "push news #2 to phone-of-nour", "route news #1 to n1 for mona,nour,zeina",
		"push news #1 to phone-of-omar",
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got  %q\nwant %q", got, want)
	}
	got = nil
	for i, user := range []string{"mona", "nour", "omar"} {
		tell(s.Decide(pushed("news", user, "phone-of-"+user, []int32{2, 2, 1}[i]), at(2)))
	}
	for _, user := range []string{"mona", "nour", "zeina"} {
		tell(s.Decide(acked("news", user), at(2)))
	}
	if len(got) > 0 || s.Stats().Broadcasts != 1 {
		t.Errorf("more is sent: %q; %+v", got, s.Stats())
	}
	tell(s.Decide(here("omar", "n1", "s1", 1), at(3)))
	if want := []string{"route news #2 to n1"}; !slices.Equal(got, want) {
		t.Errorf("omar connects: %q", got)
	}
	s.Decide(acked("news", "omar"), at(4))
	s.Decide(decide.TimePassed{}, at(4).Add(time.Minute))
	if st := s.Stats(); st.Broadcasts+st.InFlight+st.Parked+st.Away > 0 {
		t.Errorf("still held: %+v", st)
	}
}
