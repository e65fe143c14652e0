package dispatch

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/template"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// simTemplates are the versions of one template: what intake has read, and what dispatch was told.
type simTemplates struct{ written, told int64 }

const simTemplate = "tpl"

// askTemplated asks for a notification whose template intake has read just now.
func (w *world) askTemplated(lane int, notification, user string) {
	w.templates.written++
	w.ask(lane, notification, user, false)
	acc := w.lanes[lane][len(w.lanes[lane])-1].GetDeliveryAccepted()
	acc.Content, acc.Template, acc.TemplateVersion = nil, simTemplate, w.templates.written
}

func (w *world) readTemplates() {
	w.templates.told = w.templates.written
	w.tellTemplate()
}

func (w *world) tellTemplate() {
	if w.templates.told == 0 || w.crashed {
		return
	}
	tmpl, err := template.Parse([]byte(`{"default_locale":"en","locales":{"en":{"body":"b"}}}`))
	if err != nil {
		w.t.Fatal(err)
	}
	w.decide(decide.TemplateChanged{ID: simTemplate, Version: w.templates.told, Template: tmpl})
}

// untold: some delivery waits for a template that dispatch has not read; those of its lane wait behind it.
func (w *world) untold(of []*whisperv1.Event, ev *whisperv1.Event) bool {
	return slices.ContainsFunc(of, func(o *whisperv1.Event) bool {
		return o.GetLane() == ev.GetLane() && o.GetDeliveryAccepted().GetTemplateVersion() > w.templates.told
	})
}

// checkOrder: what is routed for the first time passes no older delivery of its user and lane that this process holds in
// memory only and has not attempted. What is parked waits for a reason of its own.
func (w *world) checkOrder(routes []routed) {
	if w.policy != nil || w.crashed {
		return
	}
	for _, r := range routes {
		id := string(r.r.GetDeliveryId())
		lane := domain.LaneOf(r.r.GetLane())
		at := slices.IndexFunc(w.lanes[lane], func(ev *whisperv1.Event) bool {
			return string(ev.GetDeliveryId()) == id && ev.GetDeliveryAccepted() != nil
		})
		if first := !w.attempted[id]; at >= 0 && first {
			for _, older := range w.lanes[lane][:at] {
				if older.GetUserId() == r.user && w.passable(older) {
					w.t.Fatalf("%s passed %s", r.r.GetNotificationId(), older.GetNotificationId())
				}
			}
		}
		w.attempted[id] = true
	}
}

// passable: a delivery that is to go to a socket first, and of which nothing is known but that dispatch took it.
func (w *world) passable(ev *whisperv1.Event) bool {
	acc, id := ev.GetDeliveryAccepted(), string(ev.GetDeliveryId())
	lane := domain.LaneOf(ev.GetLane())
	if acc == nil || acc.GetChannels()[0] != domain.ChannelSocket || acc.GetExpiresAtMs() <= w.now.UnixMilli() || w.attempted[id] || w.pushed[id] {
		return false
	}
	if _, parked := w.timers[id]; parked {
		return false
	}
	if slices.ContainsFunc(w.events, func(told *whisperv1.Event) bool { return string(told.GetDeliveryId()) == id }) {
		return false
	}
	at := int64(slices.Index(w.lanes[lane], ev))
	return slices.ContainsFunc(w.ledgers[lane].entries, func(e entry) bool { return e.offset == at && !e.settled })
}

// TestAnyInterleavingKeepsALanesOrder: one user's notifications over sockets, some of them with templates that dispatch
// reads late, with users who come and go, nodes that restart and dispatch dying. [world.checkOrder] looks at each route.
func TestAnyInterleavingKeepsALanesOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		node := rapid.SampledFrom(simNodes)
		number := 0
		next := func() (lane int, notification, user string) {
			number++
			lane = rapid.IntRange(0, 1).Draw(t, "lane")
			return lane, simID(4*number + rapid.SampledFrom([]int{0, 1}).Draw(t, "channels")), rapid.SampledFrom(simUsers[:2]).Draw(t, "user")
		}
		w.setPresence("n1", "mona", true)
		actions := map[string]func(*rapid.T){
			"ask":                       func(*rapid.T) { lane, id, user := next(); w.ask(lane, id, user, false) },
			"ask with a template":       func(*rapid.T) { w.askTemplated(next()) },
			"dispatch reads templates":  func(*rapid.T) { w.readTemplates() },
			"dispatch takes a delivery": func(t *rapid.T) { w.feedLane(rapid.IntRange(0, 1).Draw(t, "lane")) },
			"dispatch takes feedback":   func(*rapid.T) { w.feedEvent() },
			"dispatch sees presence": func(*rapid.T) {
				for _, in := range w.presenceAt {
					w.decide(in)
				}
				w.presenceAt = nil
			},
			"dispatch sees nodes": func(*rapid.T) { w.tellNodes() },
			"connect":             func(t *rapid.T) { w.setPresence(node.Draw(t, "node"), "mona", true) },
			"disconnect":          func(t *rapid.T) { w.setPresence(node.Draw(t, "node"), "mona", false) },
			"node restarts":       func(t *rapid.T) { w.startNode(node.Draw(t, "node")) },
			"gateway":             func(t *rapid.T) { w.gateway(rapid.Bool().Draw(t, "ack")) },
			"push":                func(t *rapid.T) { w.push(rapid.SampledFrom(simClasses).Draw(t, "class")) },
			"time passes": func(t *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.SampledFrom([]int{50, 120, 3_000, 20_000}).Draw(t, "ms")) * time.Millisecond)
				w.decide(decide.TimePassed{})
			},
			"commit": func(*rapid.T) {
				if !w.crashed {
					w.commit(0)
				}
			},
			"crash soon": func(t *rapid.T) { w.crashAfter = rapid.IntRange(0, 3).Draw(t, "outputs") },
			"": func(*rapid.T) {
				if w.crashed {
					w.restore()
				}
			},
		}
		for range 3 {
			t.Repeat(actions)
		}
		w.settleAll()
		w.check()
	})
}
