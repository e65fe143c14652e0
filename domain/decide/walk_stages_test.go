package decide

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

var (
	walkStageNames = [walkStages]string{
		walkEndingWaiting: "endingWaiting", walkWalkingOut: "walkingOut", walkEnded: "ended", walkCatchingUp: "catchingUp", walkPaused: "paused",
		walkWaking: "waking", walkScheduled: "scheduled", walkRunning: "running", walkWalked: "walked",
	}
	walkHappeningNames = [walkHappenings]string{
		itsTurn: "turn", walkExpires: "expires", pauseAsked: "pause", resumeAsked: "resume", cancelAsked: "cancel", userConnects: "connects",
	}
	walkReactionNames = map[string]walkReaction{
		"-": walkIgnores, "note": walkNotes, "end waiting": endWaiting, "walk": walkUsers, "start": startWaiting, "start or walk": startOrWalk,
		"wake": wakeWaiting, "pause": pauses, "resume": resumes, "end": ends, "send": sends,
	}
)

// TestTheDrawingOfABroadcastsStagesIsTrue: it is the table.
func TestTheDrawingOfABroadcastsStagesIsTrue(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("walk_stages.go")
	if err != nil {
		t.Fatal(err)
	}
	columns := regexp.MustCompile(`\s{2,}`)
	drawn := map[string][]string{}
	for line := range strings.Lines(string(source)) {
		if row, ok := strings.CutPrefix(line, "//\t"); ok {
			if cells := columns.Split(strings.TrimSpace(row), -1); len(cells) == int(walkHappenings)+1 {
				drawn[cells[0]] = cells[1:]
			}
		}
	}
	if head := drawn["stage"]; !slices.Equal(head, walkHappeningNames[:]) {
		t.Fatalf("the columns are %q", head)
	}
	if len(drawn) != int(walkStages)+1 {
		t.Errorf("%d rows are drawn, of %d", len(drawn)-1, walkStages)
	}
	for stage, name := range walkStageNames {
		for happening, cell := range drawn[name] {
			if reaction, known := walkReactionNames[cell]; !known || reaction != walkReactions[stage][happening] {
				t.Errorf("%s, %s: %q is drawn", name, walkHappeningNames[happening], cell)
			}
		}
	}
}

// walkIn is a broadcast in a stage, in a partition with two users: mona waits to connect, ali was not looked at yet.
func walkIn(t *testing.T, at walkStage) (*State, *walk) {
	t.Helper()
	s := NewState(0, DefaultPolicy())
	s.Resume(noon)
	s.ReplayDone()
	s.Decide(NodeChanged{Node: "n", Incarnation: 1}, noon)
	for i, user := range []string{"mona", "ali"} {
		s.Decide(ProfilePatched{User: user, Patch: []byte(`{"locale":"en"}`), At: noon, Offset: int64(i)}, noon)
	}
	s.users.Sort() // as a walk that begins does
	w := broadcastOf("news", LaneOffset{domain.Normal, 5})
	w.users, w.changesAt = s.users, s.changesAt
	w.acc.Channels, w.acc.Content = []string{domain.ChannelSocket}, &whisperv1.Content{Body: "b"}
	w.setAway("mona")
	if at != walkScheduled {
		w.begun, w.rest = noon, true
	}
	other := domain.HashDelivery("news", "zoe")
	switch at {
	case walkEndingWaiting:
		w.ending, w.done, w.toEnd = true, true, []string{"mona"}
	case walkWalkingOut:
		w.ending, w.restored = true, true
	case walkEnded:
		w.ending, w.done = true, true
	case walkCatchingUp:
		w.paused, w.replay, w.replayTo = true, replay{other: {user: "zoe", settled: true, note: "news", at: noon}}, "zoe"
	case walkPaused:
		w.paused = true
	case walkWaking:
		w.toWake = []string{"mona"}
	case walkWalked:
		w.done = true
	case walkScheduled, walkRunning, walkStages:
	}
	s.broadcasts.add(w)
	if is := w.stage(); is != at {
		t.Fatalf("it is set up as %s", walkStageNames[is])
	}
	return s, w
}

// TestEveryCellOfABroadcastsStages plays each, also those that can't come about, and looks at what follows for the walk.
func TestEveryCellOfABroadcastsStages(t *testing.T) {
	t.Parallel()
	steering := func(offset int64, ev *whisperv1.Event) SteeringArrived {
		ev.NotificationId, ev.AtUs = "news", noon.UnixMicro()
		position := &whisperv1.Position{Topic: "r", Offset: offset}
		switch k := ev.GetKind().(type) {
		case *whisperv1.Event_PauseRequested:
			k.PauseRequested.Request = position
		case *whisperv1.Event_ResumeRequested:
			k.ResumeRequested.Request = position
		default:
			t.Fatalf("%T", k)
		}
		return SteeringArrived{Event: ev}
	}
	for at := range walkStages {
		for h := range walkHappenings {
			t.Run(walkStageNames[at]+", "+walkHappeningNames[h], func(t *testing.T) {
				t.Parallel()
				s, w := walkIn(t, at)
				before := *w
				now := noon
				var out []Output
				switch h {
				case itsTurn:
					s.begin(noon)
					s.step(w)
					out = s.out
				case walkExpires:
					now = w.expires()
					s.begin(now)
					s.step(w)
					out = s.out
				case pauseAsked:
					out = s.Decide(steering(1, &whisperv1.Event{Kind: &whisperv1.Event_PauseRequested{PauseRequested: &whisperv1.PauseRequested{}}}), now)
				case resumeAsked:
					out = s.Decide(steering(1, &whisperv1.Event{Kind: &whisperv1.Event_ResumeRequested{ResumeRequested: &whisperv1.ResumeRequested{}}}),
						now)
				case cancelAsked:
					s.begin(noon)
					s.endWalk(w, whisperv1.BroadcastState_BROADCAST_STATE_CANCELLED)
					out = s.out
				case userConnects:
					out = s.Decide(opens("mona", "n", 1, "s"), now)
				case walkHappenings:
				}
				walked := w.counts.walked > before.counts.walked
				routed := slices.ContainsFunc(out, func(o Output) bool { _, route := o.(RouteTo); return route })
				var ok bool
				switch reaction := walkReactions[at][h]; reaction {
				case walkIgnores:
					if h == walkExpires { // its turn goes on as ever
						ok = w.ending && !w.paused
						break
					}
					ok = !walked && !routed && w.stage() == at && w.steered == nil
				case walkNotes:
					ok = !walked && !routed && w.stage() == at && w.steered.GetOffset() == 1
				case endWaiting:
					ok = !w.waitsFor("mona") && !walked && w.stage() == walkEnded
				case walkUsers, startOrWalk:
					// Of those who wait already nobody is sent anything: they are not connected.
					ok = (walked || at == walkCatchingUp && w.begun.Equal(before.begun) && w.serial > before.serial) && !routed
				case startWaiting:
					ok = !walked && !routed && w.stage() == at
				case wakeWaiting:
					ok = !walked && len(w.toWake) == 0
				case pauses:
					ok = w.paused && !walked && w.steered.GetOffset() == 1 && len(w.toWake) == 0
				case resumes:
					ok = !w.paused && !walked && w.steered.GetOffset() == 1
				case ends:
					ok = w.ending && !w.paused && !walked && slices.Equal(w.toEnd, []string{"mona"}) && w.done
				case sends:
					ok = routed && !w.isAway("mona")
				}
				if !ok {
					t.Errorf("%s became %s: walked %v, routed %v, %+v", walkStageNames[at], walkStageNames[w.stage()], walked, routed, w)
				}
			})
		}
	}
}

// TestWhatHoldsAWalkBackDoesNotChangeItsStage: its rate, a template, and what is in flight.
func TestWhatHoldsAWalkBackDoesNotChangeItsStage(t *testing.T) {
	t.Parallel()
	for at := range walkStages {
		_, w := walkIn(t, at)
		w.waits, w.bucket.rate = noon.Add(time.Minute), 1
		if at != walkCatchingUp { // which is paused when what is in flight of it is too much
			w.flying = maxFlying
		}
		if is := w.stage(); is != at {
			t.Errorf("%s is %s", walkStageNames[at], walkStageNames[is])
		}
		if due, ok := w.nextTurn(); ok && !due.After(noon) && at != walkEndingWaiting && at != walkWalkingOut && at != walkWaking {
			t.Errorf("%s is due at %v", walkStageNames[at], due)
		}
	}
}
