package dispatch

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/template"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// simPolicy is what a world with categories adds: what reached the wire, and by which rules.
type simPolicy struct {
	// sent is when each delivery was first attempted, by user and category.
	sent    map[string]map[string]time.Time
	last    map[string]time.Time // when a broadcast with a rate last began with somebody
	patches []simPatch
	patched int // how many of them are done, with all that followed from them
}

// simCount is a count, or the end of a user's.
type simCount struct {
	count  decide.Count
	erased string
}

type simPatch struct {
	user  string
	value string // "": forget the user
}

// simRules are the categories; a notification's is by the length of its id.
var (
	simRules = []struct {
		name, rules string
		perHour     int  // 0: no cap
		quiet       bool // it must keep still in quiet hours
	}{
		{"capped", `{"caps":[{"n":1,"per":"hour"}]}`, 1, true},
		{"deferred", `{"caps":[{"n":2,"per":"hour"},{"n":5,"per":"day"}],"over_cap":"defer"}`, 2, true},
		{"security", `{"mandatory":true}`, 0, false},
		{"digested", `{"digest":{"window":"20m","template":"digest"},"caps":[{"n":1,"per":"hour"}]}`, 1, true},
		{"chat", `{"quiet_hours":"pass","caps":[{"n":3,"per":"minute"}]}`, 0, false},
		{simAll, `{"caps":[{"n":2,"per":"hour"}],"over_cap":"defer","all_channels":["socket","push"]}`, 2, true},
	}
	simPatches = []string{
		`{"timezone":"Africa/Cairo","quiet_hours":{"from":"00:00","to":"02:30"}}`,
		`{"timezone":"Europe/Berlin"}`,
		`{"quiet_hours":{"from":"22:30","to":"23:45"}}`,
		`{"quiet_hours":null}`,
		`{"preferences":{"capped":{"all":false},"security":{"all":false}}}`,
		`{"preferences":{"capped":{"all":null},"digested":{"socket":false}}}`,
		"",
	}
)

func (w *world) ttl() time.Duration {
	if w.policy != nil {
		return 4 * time.Hour
	}
	return simTTL
}

func (w *world) categoryOf(notification string) string {
	if w.policy == nil {
		if w.toAll(notification) {
			return simAll
		}
		return ""
	}
	return simRules[strings.Count(notification, "-")%len(simRules)].name
}

// serialOf numbers the notifications of a world with categories; 0: another one.
func (w *world) serialOf(notification string) (serial int) {
	if w.policy == nil {
		return 0
	}
	if _, err := fmt.Sscanf(notification, "n%d", &serial); err != nil {
		return 0
	}
	return serial
}

// collapseKeyOf: every third notification replaces those before it.
func (w *world) collapseKeyOf(notification string) string {
	if n := w.serialOf(notification); n == 0 || n%3 != 0 {
		return ""
	}
	return "key"
}

// simEvery is how far apart those are with whom a broadcast that has a rate begins; every second one has.
const simEvery = 100 * time.Second

func (w *world) rateOf(notification string) float64 {
	if n := w.serialOf(notification); n == 0 || n%2 != 0 {
		return 0
	}
	return 1 / simEvery.Seconds()
}

func newPolicyWorld(t *rapid.T) *world {
	w := newWorld(t)
	w.allDigest = rapid.Bool().Draw(t, "digests go to all channels")
	w.policy = &simPolicy{sent: map[string]map[string]time.Time{}, last: map[string]time.Time{}}
	w.now = time.Date(2026, 10, 24, 22, 15, 0, 0, time.UTC) // Berlin's clocks go back in the night that begins
	w.restore()
	return w
}

// restorePolicy gives a new dispatch what restore.go reads for it.
func (w *world) restorePolicy() {
	if w.policy == nil {
		w.declare(simAll, `{"all_channels":["socket","push"]}`)
		return
	}
	for _, c := range w.counts {
		if c.erased != "" {
			w.state.RestoreUncounted(c.erased)
		} else {
			w.state.RestoreCounted(c.count)
		}
	}
	for _, r := range simRules {
		rules := r.rules
		if r.name == "digested" && w.allDigest {
			rules = strings.Replace(rules, "{", `{"all_channels":["socket","push"],`, 1)
		}
		w.declare(r.name, rules)
	}
	digest, err := template.Parse([]byte(`{"default_locale":"en","locales":{"en":{"title":"{{ count }}","body":"b"}}}`))
	if err != nil {
		w.t.Fatal(err)
	}
	w.state.Decide(decide.TemplateChanged{ID: "digest", Version: 1, Template: digest}, w.now)
}

// patch is upstream and intake changing a user; a patch in the middle of which dispatch died comes again.
func (w *world) patch() {
	p := w.policy
	if w.crashed || p.patched >= len(p.patches) {
		return
	}
	next := p.patches[p.patched]
	in := decide.ProfilePatched{User: next.user, At: w.now, Offset: int64(p.patched) + 1} // the users that are there came with the first
	if next.value != "" {
		in.Patch = []byte(next.value)
	} else {
		for category := range p.sent { // what is counted begins anew; what was begun is not begun again
			for key := range p.sent[category] {
				if strings.HasPrefix(key, next.user+"/") {
					p.sent[category][key] = time.Time{}
				}
			}
		}
	}
	if w.decide(in); !w.crashed {
		p.patched++
	}
}

// rulesOf is the category of a notification; a digest is of the category that it gathers.
func (w *world) rulesOf(notification string) int {
	if strings.HasPrefix(notification, "digest/") {
		return slices.IndexFunc(simRules, func(r struct {
			name, rules string
			perHour     int
			quiet       bool
		},
		) bool {
			return r.name == "digested"
		})
	}
	return strings.Count(notification, "-") % len(simRules)
}

// checkSend is what must hold of every attempt.
func (w *world) checkSend(notification, user string) {
	if w.policy == nil {
		return
	}
	rule := simRules[w.rulesOf(notification)]
	if rule.quiet && w.quietNow(user) {
		w.t.Fatalf("%s was sent to %s at %s, in quiet hours", notification, user, w.now)
	}
	sent := w.policy.sent[rule.name]
	if sent == nil {
		sent = map[string]time.Time{}
		w.policy.sent[rule.name] = sent
	}
	key := user + "/" + notification
	if _, again := sent[key]; again {
		return
	}
	sent[key] = w.now
	w.checkRate(notification, user)
	if rule.perHour == 0 {
		return
	}
	within := 0
	for k, at := range sent {
		if strings.HasPrefix(k, user+"/") && at.After(w.now.Add(-time.Hour)) {
			within++
		}
	}
	if within > rule.perHour {
		w.t.Fatalf("%s is number %d of %s for %s within an hour: %v", notification, within, rule.name, user, sent)
	}
}

// checkRate: but for those who were away and come, nobody is begun with before his turn.
func (w *world) checkRate(notification, user string) {
	if w.rateOf(notification) == 0 || w.asked[notification+"/"+user] > 0 {
		return
	}
	for _, ev := range w.events {
		if ev.GetNotificationId() == notification && ev.GetUserId() == user && ev.GetDeliveryDeferred().GetReason() == domain.ReasonAway {
			return
		}
	}
	if last, is := w.policy.last[notification]; is && w.now.Sub(last) < simEvery {
		w.t.Fatalf("%s began with %s only %s after another", notification, user, w.now.Sub(last))
	}
	w.policy.last[notification] = w.now
}

// quietNow is readQuiet, has and all that once more, by what a clock would show.
func (w *world) quietNow(user string) bool {
	p := &whisperv1.Profile{}
	if err := proto.Unmarshal(w.profiles[user], p); err != nil {
		w.t.Fatal(err)
	}
	if len(p.GetQuietHours()) == 0 {
		return false
	}
	zone, err := time.LoadLocation(p.GetTimezone())
	if err != nil {
		w.t.Fatal(err)
	}
	var from, to string
	if _, err := fmt.Sscanf(strings.NewReplacer(`"`, " ", ",", " ").Replace(string(p.GetQuietHours())), "{ from : %s to : %s }", &from, &to); err != nil {
		w.t.Fatalf("%s: %v", p.GetQuietHours(), err)
	}
	shown := w.now.In(zone).Format("15:04")
	if from < to {
		return from <= shown && shown < to
	}
	return shown >= from || shown < to
}

// checkFact: nothing stops what is mandatory but its time.
func (w *world) checkFact(ev *whisperv1.Event) {
	if w.policy == nil || ev.GetUserErased() != nil || w.rulesOf(ev.GetNotificationId()) != 2 {
		return
	}
	reason := ev.GetDeliverySuppressed().GetReason() + ev.GetDeliveryDeferred().GetReason()
	switch reason {
	case domain.ReasonPreference, domain.ReasonUnsubscribed, domain.ReasonQuietHours, domain.ReasonCap, domain.ReasonDigest, domain.ReasonSmartTiming, domain.ReasonCollapsed:
		w.t.Fatalf("a mandatory delivery is stopped: %v", ev)
	}
	if limit := ev.GetDeliverySuppressed().GetCap(); limit != "" {
		w.t.Fatalf("a mandatory delivery is capped: %v", ev)
	}
}

// checkDigests: nothing is told in two digests.
func (w *world) checkDigests() {
	told := map[string]string{}
	for _, lane := range w.lanes {
		for _, ev := range lane {
			for _, member := range ev.GetDeliveryAccepted().GetDigestMembers() {
				if other := told[string(member)]; other != "" && other != ev.GetNotificationId() {
					w.t.Errorf("%x is told in %s and in %s", member, other, ev.GetNotificationId())
				}
				told[string(member)] = ev.GetNotificationId()
			}
		}
	}
}

// TestAnyInterleavingKeepsThePolicy: whatever users change, whatever comes in whatever order, with clocks
// that go back, and dispatch dying between any two records it writes: no cap is exceeded on the wire, nothing
// goes out in quiet hours that may not, nothing stops what is mandatory, and everything comes to an end.
func TestAnyInterleavingKeepsThePolicy(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newPolicyWorld(t)
		user := rapid.SampledFrom(simUsers)
		node := rapid.SampledFrom(simNodes)
		lane := rapid.IntRange(0, 2)
		serial := 0
		var casts []string
		flow := func(t *rapid.T) {
			w.tellNodes()
			for _, in := range w.presenceAt {
				w.decide(in)
			}
			w.presenceAt = nil
			w.feedLane(lane.Draw(t, "lane"))
			w.gateway(rapid.Bool().Draw(t, "ack"))
			w.push(whisperv1.FailureClass_FAILURE_CLASS_UNSPECIFIED)
			for range 4 {
				w.feedEvent()
			}
			w.walk()
		}
		pass := func(t *rapid.T, d time.Duration) {
			w.now = w.now.Add(d)
			w.decide(decide.TimePassed{})
		}
		actions := map[string]func(*rapid.T){
			"ask": func(t *rapid.T) {
				serial++
				w.ask(lane.Draw(t, "lane"), fmt.Sprint("n", serial, strings.Repeat("-", rapid.IntRange(0, len(simRules)-1).Draw(t, "category"))), user.Draw(t, "user"), false)
			},
			"broadcast": func(t *rapid.T) {
				serial++
				casts = append(casts, fmt.Sprint("n", serial, strings.Repeat("-", rapid.IntRange(0, len(simRules)-1).Draw(t, "category"))))
				w.broadcast(lane.Draw(t, "lane"), casts[len(casts)-1])
			},
			"steer": func(t *rapid.T) {
				if len(casts) > 0 {
					w.steer(lane.Draw(t, "lane"), rapid.SampledFrom(casts).Draw(t, "broadcast"), rapid.Bool().Draw(t, "pause"))
				}
			},
			"cancel": func(t *rapid.T) {
				l := lane.Draw(t, "lane")
				w.lanes[l] = append(w.lanes[l], &whisperv1.Event{
					NotificationId: fmt.Sprint("n", serial, "-"), Kind: &whisperv1.Event_CancelRequested{CancelRequested: &whisperv1.CancelRequested{}},
				})
			},
			"patch": func(t *rapid.T) {
				w.policy.patches = append(w.policy.patches, simPatch{user.Draw(t, "user"), rapid.SampledFrom(simPatches).Draw(t, "patch")})
				w.patch()
			},
			"dispatch takes a patch":    func(*rapid.T) { w.patch() },
			"everything flows":          flow,
			"everything flows on":       flow,
			"dispatch takes a delivery": func(t *rapid.T) { w.feedLane(lane.Draw(t, "lane")) },
			"connect":                   func(t *rapid.T) { w.setPresence(node.Draw(t, "node"), user.Draw(t, "user"), true) },
			"connect again":             func(t *rapid.T) { w.setPresence(node.Draw(t, "node"), user.Draw(t, "user"), true) },
			"disconnect":                func(t *rapid.T) { w.setPresence(node.Draw(t, "node"), user.Draw(t, "user"), false) },
			"seconds pass":              func(t *rapid.T) { pass(t, time.Duration(rapid.IntRange(1, 40).Draw(t, "seconds"))*time.Second) },
			"minutes pass":              func(t *rapid.T) { pass(t, time.Duration(rapid.IntRange(1, 40).Draw(t, "minutes"))*time.Minute) },
			"the clock goes back":       func(t *rapid.T) { pass(t, -time.Duration(rapid.IntRange(1, 30).Draw(t, "seconds"))*time.Second) },
			"commit": func(*rapid.T) {
				if !w.crashed {
					w.commit(0)
				}
			},
			"crash soon": func(t *rapid.T) { w.crashAfter = rapid.IntRange(0, 5).Draw(t, "outputs") },
			"crash":      func(*rapid.T) { w.restore() },
			"": func(*rapid.T) {
				if w.crashed {
					w.restore()
				}
			},
		}
		for range 8 {
			t.Repeat(actions)
		}
		w.settleAll()
		w.check()
	})
}
