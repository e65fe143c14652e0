package decide_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/template"
)

// bodied is a template that says so.
func bodied(t testing.TB, id, body string, offset int64) decide.TemplateChanged {
	t.Helper()
	return decide.TemplateChanged{ID: id, Version: offset, Template: templateOf(t, `{"default_locale": "en", "locales": {"en": {"body": "`+body+`", "push": {"body": "short `+body+`"}}}}`)}
}

// templated is a delivery that intake accepted with the record at an offset.
func templated(notification, template string, version, offset int64) decide.DeliveryArrived {
	in := arrived(notification, "mona", offset, given{template: template})
	in.Event.GetDeliveryAccepted().TemplateVersion = version
	return in
}

// sentBodies are the texts that went out to sockets and phones, and why a delivery failed.
func sentBodies(out []decide.Output) (all []string) {
	for _, o := range out {
		if r, ok := o.(decide.RouteTo); ok {
			_, rest, _ := strings.Cut(string(r.Route.GetFrame()), `"body":"`)
			body, _, _ := strings.Cut(rest, `"`)
			all = append(all, "socket "+body)
		}
		if p, ok := o.(decide.PushTo); ok {
			all = append(all, "push "+p.Push.GetContent().GetBody())
		}
		if e, ok := o.(decide.Emit); ok && e.Event.GetDeliveryFailed() != nil {
			all = append(all, "failed "+e.Event.GetDeliveryFailed().GetReason())
		}
	}
	return all
}

func play(s *decide.State, second int, in decide.Input) string {
	return strings.Join(sentBodies(s.Decide(in, at(second))), "; ")
}

func connected(t testing.TB) *decide.State {
	t.Helper()
	s := decide.NewState(0, decide.DefaultPolicy())
	s.ReplayDone()
	for _, in := range []decide.Input{decide.NodeChanged{Node: "n1", Incarnation: 1}, endpoint("mona", "iphone")} {
		s.Decide(in, t0)
	}
	return s
}

func expect(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestAChangeBetweenAcceptAndRenderDoesNotMix: what intake accepted is what people read, however late they come.
func TestAChangeBetweenAcceptAndRenderDoesNotMix(t *testing.T) {
	t.Parallel()
	s := connected(t)
	s.Decide(decide.ProfilePatched{User: "mona", Patch: []byte(`{"endpoints":null}`), At: t0, Offset: 2}, t0)
	for _, in := range []decide.Input{
		bodied(t, "card@1", "one", 4), bodied(t, "card", "one", 5), templated("pinned", "card@1", 4, 1), templated("direct", "other", 6, 2),
		bodied(t, "other", "first", 6), templated("later", "other", 9, 3), bodied(t, "card@2", "two", 7), bodied(t, "card", "two", 8), bodied(t,
			"other", "second", 9),
	} {
		play(s, 0, in)
	}
	expect(t, play(s, 1, here("mona", "n1", "s1", 1)), "socket one; socket first; socket second")
}

// TestAPushHasItsOwnText, rendered when it is its turn; the socket's is not lost by it.
func TestAPushHasItsOwnText(t *testing.T) {
	t.Parallel()
	s := connected(t)
	play(s, 0, here("mona", "n1", "s1", 1))
	play(s, 0, bodied(t, "card@1", "one", 4))
	expect(t, play(s, 0, templated("n", "card@1", 4, 1)), "socket one")
	expect(t, play(s, 11, decide.TimePassed{}), "push short one")
	play(s, 12, pushFailed("n", "mona", "iphone", 2, 2))
	expect(t, play(s, 13, here("mona", "n1", "s2", 1)), "socket one")
}

// TestADeliveryWhoseTemplateCannotComeFails as soon as that is known, not when its time is over.
func TestADeliveryWhoseTemplateCannotComeFails(t *testing.T) {
	t.Parallel()
	s := connected(t)
	play(s, 0, here("mona", "n1", "s1", 1))
	play(s, 0, bodied(t, "other", "x", 2))
	expect(t, play(s, 0, templated("lost", "card@1", 5, 1)), "") // it may be on its way
	expect(t, play(s, 1, decide.TimePassed{}), "")
	play(s, 1, decide.TemplatesRead{Next: 5})
	expect(t, play(s, 2, decide.TimePassed{}), "")
	// Compaction has left nothing behind, neither the template nor the record that took it away.
	play(s, 2, decide.TemplatesRead{Next: 6})
	expect(t, play(s, 3, decide.TimePassed{}), "failed template card@1 is gone")
	if got := s.Stats(); got.InFlight != 0 {
		t.Errorf("it is still held: %+v", got)
	}
	expect(t, play(s, 3, templated("late", "card@1", 5, 2)), "failed template card@1 is gone")
	// One whose newest record is older than what intake saw, and read past: that one is gone, too.
	expect(t, play(s, 3, templated("stale", "other", 4, 3)), "failed template other is gone")
	expect(t, play(s, 3, templated("first", "never", 0, 4)), "failed template never is gone")
}

// TestTheVeryFirstTemplateIsWaitedFor: offset 0 is not "none was read".
func TestTheVeryFirstTemplateIsWaitedFor(t *testing.T) {
	t.Parallel()
	s := connected(t)
	play(s, 0, here("mona", "n1", "s1", 1))
	expect(t, play(s, 0, templated("n", "card", 0, 1)), "")
	play(s, 0, bodied(t, "card", "one", 0))
	expect(t, play(s, 1, decide.TimePassed{}), "socket one")
}

// TestATemplateThatCannotBeRenderedFailsWithItsReasons, all of them, and holds nobody else up.
func TestATemplateThatCannotBeRenderedFailsWithItsReasons(t *testing.T) {
	t.Parallel()
	s := connected(t)
	play(s, 0, here("mona", "n1", "s1", 1))
	play(s, 0, decide.TemplateChanged{ID: "bomb", Version: 1, Template: templateOf(t, `{"default_locale": "en", "locales": {"en": {"title": "{{ user.attributes.name }}", "body": "{% for i in (1..999999999) %}{% endfor %}"}}}`)})
	play(s, 0, bodied(t, "card", "fine", 2))
	expect(t, play(s, 0, templated("a", "bomb", 1, 1)),
		"failed template bomb: title: user.attributes.name is missing; body: needs more than 10000 steps: a loop or a value is too long")
	expect(t, play(s, 0, templated("b", "card", 2, 2)), "socket fine")
}

func templateOf(t testing.TB, value string) *template.Template {
	t.Helper()
	tmpl, err := template.Parse([]byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

// TestADeliveryThatWaitsForItsTemplateIsNotOvertaken by a later delivery of its user and lane; another lane does not wait for it.
func TestADeliveryThatWaitsForItsTemplateIsNotOvertaken(t *testing.T) {
	t.Parallel()
	s := connected(t)
	play(s, 0, here("mona", "n1", "s1", 1))
	expect(t, play(s, 0, templated("first", "card", 7, 1)), "")
	expect(t, play(s, 0, arrived("second", "mona", 2, given{})), "")
	low := arrived("low", "mona", 1, given{})
	low.Source.Lane = domain.Low
	expect(t, play(s, 0, low), "socket B")
	expect(t, play(s, 1, decide.TimePassed{}), "")
	play(s, 1, bodied(t, "card", "one", 7))
	// The template is there and nothing is due yet: what arrives now is still behind the two.
	expect(t, play(s, 1, arrived("third", "mona", 3, given{})), "socket one; socket B; socket B")
}

// TestTheFirstDeliveryMayUseUpTheCap: the older one gets its template and is sent; what is left of the cap is asked for again.
func TestTheFirstDeliveryMayUseUpTheCap(t *testing.T) {
	t.Parallel()
	s := connected(t)
	play(s, 0, here("mona", "n1", "s1", 1))
	promo, err := category.Parse("promo", []byte(`{"caps":[{"n":1,"per":"day"}],"over_cap":"drop"}`))
	if err != nil {
		t.Fatal(err)
	}
	play(s, 0, decide.CategoryChanged{Name: "promo", Category: promo})
	first, second := templated("first", "card", 7, 1), arrived("second", "mona", 2, given{})
	first.Event.GetDeliveryAccepted().Category = "promo"
	second.Event.GetDeliveryAccepted().Category = "promo"
	expect(t, play(s, 0, first), "")
	play(s, 0, bodied(t, "card", "one", 7))
	expect(t, play(s, 0, second), "socket one")
}

// TestLegsAreNotOvertaken: both legs of what waited for its template go before what follows.
func TestLegsAreNotOvertaken(t *testing.T) {
	t.Parallel()
	s := connected(t)
	play(s, 0, here("mona", "n1", "s1", 1))
	play(s, 0, fraud(t, `{"all_channels":["socket","apns"]}`))
	first := alert("first", 1)
	first.Event.GetDeliveryAccepted().Template, first.Event.GetDeliveryAccepted().TemplateVersion = "card", 7
	expect(t, play(s, 0, first), "")
	play(s, 0, bodied(t, "card", "one", 7))
	expect(t, play(s, 0, alert("second", 2)), "push short one; socket one; push B; socket B")
}

// TestAMissingTemplateHoldsOthersOnlyBriefly: whoever follows goes when HoldBack is over, in order, and no offset
// is held for longer.
func TestAMissingTemplateHoldsOthersOnlyBriefly(t *testing.T) {
	t.Parallel()
	s := connected(t)
	play(s, 0, here("mona", "n1", "s1", 1))
	expect(t, play(s, 0, templated("first", "card", 500, 1)), "")
	for i := range 20 {
		expect(t, play(s, 1, arrived(fmt.Sprint("n", i), "mona", int64(i+2), given{})), "")
	}
	expect(t, play(s, 29, decide.TimePassed{}), "")
	if got := play(s, 31, decide.TimePassed{}); strings.Count(got, "socket B") != 20 {
		t.Errorf("after HoldBack %q went out, want what waited behind the first", got)
	}
	if sizes := s.Sizes(); sizes.Parked != 1 || sizes.InFlight != 20 {
		t.Errorf("%+v, want the first to be parked", sizes)
	}
	expect(t, play(s, 32, arrived("late", "mona", 30, given{})), "socket B")
	play(s, 33, bodied(t, "card", "one", 500))
	expect(t, play(s, 34, decide.TimePassed{}), "socket one")
}

// BenchmarkBehind is one user's deliveries that wait for one template: how long each takes to arrive, and a look at all
// of them.
func BenchmarkBehind(b *testing.B) {
	for _, n := range []int{250, 1_000, 4_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for range b.N {
				s := connected(b)
				play(s, 0, here("mona", "n1", "s1", 1))
				play(s, 0, templated("first", "card", 500, 1))
				for i := range n {
					s.Decide(arrived(fmt.Sprint("n", i), "mona", int64(i+2), given{}), at(0))
				}
				for at1 := at(1); ; {
					s.Decide(decide.TimePassed{}, at1)
					if due, _ := s.NextDue(); due.After(at1) {
						break
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "µs/delivery")
		})
	}
}
