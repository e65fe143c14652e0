package decide

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/whisperv1"
)

var (
	stageNames = [stages]string{
		stageFresh: "fresh", stageScheduled: "scheduled", stageHeld: "held", stageTimed: "timed", stageGathered: "gathered",
		stageWritten: "written", stageAway: "away", stageIdle: "idle", stageAtSocket: "atSocket", stageAtPush: "atPush",
		stageBackoff: "backoff", stageUnmade: "unmade", stageUnknown: "unknown",
	}
	happeningNames = [happenings]string{
		becameDue: "due", connected: "connects", disconnected: "leaves", nodeDied: "node dies", profileChanged: "profile",
		rulesChanged: "rules", socketsFailed: "sockets fail", pushesFailed: "pushes fail",
	}
	reactionNames = map[string]reaction{
		"-": ignore, "rest": rest, "advance": advance, "its hour": itsHour, "close digest": closeDigest, "to socket": toSocket,
		"try again": tryAgain, "also there": alsoThere, "next channel": nextChannel, "await answer": awaitAnswer, "hurry": hurry,
		"give up": giveUp, "ask": ask, "hasten": hasten, "note": note, "bounced": bounced, "retry": retryOrLeave,
	}
)

// TestTheDrawingOfADeliverysStagesIsTrue: it is the table.
func TestTheDrawingOfADeliverysStagesIsTrue(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("stages.go")
	if err != nil {
		t.Fatal(err)
	}
	columns := regexp.MustCompile(`\s{2,}`)
	drawn := map[string][]string{}
	for line := range strings.Lines(string(source)) {
		if row, ok := strings.CutPrefix(line, "//\t"); ok {
			if cells := columns.Split(strings.TrimSpace(row), -1); len(cells) == int(happenings)+1 {
				drawn[cells[0]] = cells[1:]
			}
		}
	}
	if head := drawn["stage"]; !slices.Equal(head, happeningNames[:]) {
		t.Fatalf("the columns are %q", head)
	}
	if len(drawn) != int(stages)+1 {
		t.Errorf("%d rows are drawn, of %d", len(drawn)-1, stages)
	}
	for stage, name := range stageNames {
		for happening, cell := range drawn[name] {
			if reaction, known := reactionNames[cell]; !known || reaction != reactions[stage][happening] {
				t.Errorf("%s, %s: %q is drawn", name, happeningNames[happening], cell)
			}
		}
	}
}

// cell is a delivery in a stage, whose user is connected and has no phone.
type cell struct {
	*State
	d   *delivery
	now time.Time
}

func newCell(at stage, happening happening) cell {
	c := cell{State: NewState(0, DefaultPolicy()), now: time.UnixMilli(1_700_000_000_000)}
	c.Decide(NodeChanged{Node: "n", Incarnation: 1}, c.now)
	c.Resume(c.now)
	c.ReplayDone()
	if happening != connected && happening != profileChanged {
		c.Decide(opens("mona", "n", 1, "first"), c.now)
	}
	if happening != profileChanged {
		c.phone()
	}
	d := arrived("mona", 1)
	d.acc.Channels, d.acc.Content = []string{domain.ChannelSocket, domain.ChannelPush}, &whisperv1.Content{Body: "b"}
	d.until, d.own = c.now.Add(time.Minute), d.acc.GetChannels()
	leg := func() {
		d.all, d.own = true, []string{domain.ChannelPush}
		d.legs = &legs{held: []*delivery{d}, attempt: 2}
	}
	socket, push := waiting{attempt: 1, node: "n", incarnation: 1}, waiting{attempt: 2, endpoint: "phone"}
	switch at {
	case stageScheduled:
		d.phase = whisperv1.Phase_PHASE_SCHEDULED
	case stageHeld:
		d.phase = whisperv1.Phase_PHASE_QUIET
	case stageTimed:
		d.phase = whisperv1.Phase_PHASE_TIMED
	case stageGathered, stageWritten:
		d.phase, d.digest, d.closing = whisperv1.Phase_PHASE_DIGEST, "digest/1", at == stageWritten
	case stageAway:
		d.phase, d.attempt = whisperv1.Phase_PHASE_AWAY, 2
	case stageIdle:
		leg()
		d.phase, d.step = whisperv1.Phase_PHASE_AWAY, 1
	case stageAtSocket:
		d.phase, d.attempt, d.waiting = whisperv1.Phase_PHASE_SENDING, 1, []waiting{socket}
	case stageAtPush:
		d.phase, d.attempt, d.step, d.waiting = whisperv1.Phase_PHASE_SENDING, 2, 1, []waiting{push}
	case stageBackoff:
		d.phase, d.attempt = whisperv1.Phase_PHASE_BACKOFF, 2
	case stageUnmade:
		leg()
		push.unmade = true
		d.phase, d.attempt, d.waiting = whisperv1.Phase_PHASE_BACKOFF, 2, []waiting{push}
	case stageUnknown:
		d.phase = 99
	case stageFresh, stages:
	}
	switch happening {
	case socketsFailed, disconnected:
		if d.legs == nil && !d.openSockets() {
			d.waiting = append(d.waiting, socket)
		}
	case nodeDied: // a push may be open beside it
		if d.legs == nil && at == stageAtPush {
			d.waiting = append(d.waiting, socket)
		}
	case pushesFailed:
		if !d.openPushes() {
			d.waiting = append(d.waiting, push)
		}
	case becameDue, connected, profileChanged, rulesChanged, happenings:
	}
	c.d = d
	c.deliveries.add(d)
	c.deliveries.schedule(d, c.now.Add(time.Minute))
	c.deliveries.park(d)
	return c
}

func (c cell) phone() []Output {
	return c.Decide(ProfilePatched{User: "mona", At: c.now, Offset: c.changesAt + 1, Patch: []byte(
		`{"endpoints":{"phone":{"channel":"apns","token":"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff","app":"com.klivvr.app"}}}`,
	)}, c.now)
}

// play has it happen, as dispatch would tell.
func (c cell) play(h happening) []Output {
	failed := func(k *whisperv1.AttemptFailed) []Output {
		return c.Decide(FactArrived{Event: &whisperv1.Event{
			DeliveryId: c.d.id[:], NotificationId: "1", UserId: "mona", AtUs: c.now.UnixMicro(), Kind: &whisperv1.Event_AttemptFailed{AttemptFailed: k},
		}}, c.now)
	}
	switch h {
	case becameDue:
		return c.Decide(TimePassed{}, c.d.due)
	case connected:
		return c.Decide(opens("mona", "n", 1, "second"), c.now)
	case disconnected:
		return c.Decide(PresenceChanged{User: "mona", Node: "n", Incarnation: 1}, c.now)
	case nodeDied:
		return c.Decide(NodeChanged{Node: "n"}, c.now)
	case profileChanged:
		return c.phone()
	case rulesChanged:
		return c.Decide(CategoryChanged{Name: domain.DefaultCategory, Category: &category.Category{Name: domain.DefaultCategory, AutoAck: true}},
			c.now)
	case socketsFailed:
		return failed(&whisperv1.AttemptFailed{
			Attempt: 1, Channel: domain.ChannelSocket, Node: "n", Incarnation: 1, Class: whisperv1.FailureClass_FAILURE_CLASS_UNREACHABLE,
		})
	case pushesFailed:
		return failed(&whisperv1.AttemptFailed{Attempt: 2, Channel: "apns", Endpoint: "phone", Class: whisperv1.FailureClass_FAILURE_CLASS_RETRY})
	case happenings:
	}
	return nil
}

// TestEveryCellOfADeliverysStages plays each, also those that can't come about, and looks at what follows for the delivery.
func TestEveryCellOfADeliverysStages(t *testing.T) {
	t.Parallel()
	for at := range stages {
		for h := range happenings {
			t.Run(stageNames[at]+", "+happeningNames[h], func(t *testing.T) {
				t.Parallel()
				c := newCell(at, h)
				if is := c.d.stage(); is != at {
					t.Fatalf("it is set up as %s", stageNames[is])
				}
				reaction := reactions[at][h]
				before := *c.d
				before.waiting = slices.Clone(before.waiting)
				var routed, pushed int
				for _, o := range c.play(h) {
					if _, route := o.(RouteTo); route {
						routed++
					}
					if _, push := o.(PushTo); push {
						pushed++
					}
				}
				d := c.d
				if !c.deliveries.holds(d) {
					t.Fatal("it ended")
				}
				stays := func() bool {
					return routed+pushed == 0 && d.stage() == at && d.attempt == before.attempt && d.step == before.step
				}
				var ok bool
				switch reaction {
				case ignore:
					ok = stays() && d.due.Equal(before.due) && len(d.waiting) == len(before.waiting) && d.parked
				case rest:
					ok = stays() && d.due.Equal(d.expires())
				case advance, itsHour, closeDigest, toSocket:
					switch {
					case at == stageUnmade: // its only channel
						ok = pushed == 1 && d.stage() == stageAtPush && len(d.waiting) == 1 && !d.waiting[0].unmade
					case h == profileChanged: // nobody is connected
						ok = pushed == 1 && d.stage() == stageAtPush
					default:
						ok = routed == 1 && pushed == 0 && d.stage() == stageAtSocket
					}
					ok = ok && (reaction != itsHour || d.timed)
				case tryAgain:
					ok = pushed == 1 && d.stage() == stageAtPush
				case alsoThere:
					ok = routed == 1 && d.stage() == at && d.attempt == before.attempt+1
				case nextChannel, bounced:
					ok = pushed == 1 && d.stage() == stageAtPush && !d.openSockets()
				case awaitAnswer:
					ok = stays() && d.due.Equal(d.expires()) && d.openPushes()
				case hurry:
					ok = stays() && d.due.Equal(c.now.Add(c.policy.AckGrace))
				case giveUp:
					ok = !d.openSockets() && (at == stageAtPush) == (pushed == 0) && d.stage() == stageAtPush
				case ask:
					if at == stageGathered || at == stageWritten {
						ok = stays()
					} else {
						ok = pushed == 1 && d.stage() == stageAtPush
					}
				case hasten:
					ok = stays() && d.rulesChanged && d.due.Equal(c.now)
				case note:
					ok = routed+pushed == 0 && d.phase == before.phase && len(d.waiting) < max(len(before.waiting), 1) && d.due.Equal(before.due)
					if h == socketsFailed && before.legs != nil {
						ok = stays() // a push leg has no attempt over a socket
					}
				case retryOrLeave:
					ok = d.stage() == stageBackoff && d.tries == 1 && d.due.After(c.now) && routed+pushed == 0
				}
				if !ok {
					t.Errorf("%+v became %+v, with %d routes and %d pushes", before, *d, routed, pushed)
				}
			})
		}
	}
}

// TestADeliveryEndsFromEveryStage by what ends it.
func TestADeliveryEndsFromEveryStage(t *testing.T) {
	t.Parallel()
	fact := func(c cell, ev *whisperv1.Event) FactArrived {
		ev.DeliveryId, ev.NotificationId, ev.UserId, ev.AtUs = c.d.id[:], "1", "mona", c.now.UnixMicro()
		return FactArrived{Event: ev}
	}
	for name, end := range map[string]func(c cell) (Input, time.Time){
		"acknowledged": func(c cell) (Input, time.Time) {
			channel := domain.ChannelSocket
			if c.d.legs != nil {
				channel = domain.ChannelPush
			}
			return fact(c, &whisperv1.Event{Kind: &whisperv1.Event_DeliveryDelivered{DeliveryDelivered: &whisperv1.DeliveryDelivered{Channel: channel}}}), c.now
		},
		"a provider took it": func(c cell) (Input, time.Time) {
			return fact(c, &whisperv1.Event{Kind: &whisperv1.Event_DeliverySent{DeliverySent: &whisperv1.DeliverySent{
				Channel:  "apns",
				Endpoint: "phone", Attempt: 2,
			}}}), c.now
		},
		"our own word from before a restart": func(c cell) (Input, time.Time) {
			return fact(c, internalFailure()), c.now
		},
		"cancelled": func(c cell) (Input, time.Time) {
			return CancelArrived{Event: &whisperv1.Event{NotificationId: "1", AtUs: c.now.UnixMicro(), Kind: &whisperv1.Event_CancelRequested{
				CancelRequested: &whisperv1.CancelRequested{},
			}}}, c.now
		},
		"its user is erased": func(c cell) (Input, time.Time) {
			return ProfilePatched{User: "mona", At: c.now, Offset: c.changesAt + 1}, c.now
		},
		"expired": func(c cell) (Input, time.Time) {
			c.deliveries.schedule(c.d, c.d.expires())
			return TimePassed{}, c.d.expires()
		},
	} {
		for at := range stages {
			t.Run(fmt.Sprint(name, ", ", stageNames[at]), func(t *testing.T) {
				t.Parallel()
				c := newCell(at, becameDue)
				in, now := end(c)
				out := c.Decide(in, now)
				if c.deliveries.holds(c.d) {
					t.Fatalf("it did not end: %+v", *c.d)
				}
				if !slices.ContainsFunc(out, func(o Output) bool { u, ok := o.(Unpark); return ok && u.ID == c.d.id }) {
					t.Fatalf("its record stays: %v", out)
				}
			})
		}
	}
}
