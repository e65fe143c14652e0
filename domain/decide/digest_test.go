package decide_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/template"
)

// TestADigestThatIsFullIsNotJoined: the record of a digest stays far below what a record may have, and nothing is told
// in two of them.
func TestADigestThatIsFullIsNotJoined(t *testing.T) {
	t.Parallel()
	const most, parts = 10_000, 10_050
	d := newDesk(t)
	tmpl, err := template.Parse([]byte(`{"default_locale":"en","locales":{"en":{"title":"{{ count }} news"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	d.category("news", `{"digest":{"window":"1h","template":"digest"}}`)
	d.user("mona", `{}`)
	d.do(decide.TemplateChanged{ID: "digest", Version: 4, Template: tmpl})
	for i := range parts {
		d.send(fmt.Sprint("n", i), "mona", "news")
	}
	told := map[string]int{}
	var sizes []int
	d.now = d.now.Add(time.Hour)
	for range parts/decide.DueSlice + 2 { // what is due is looked at in slices
		for _, o := range d.s.Decide(decide.TimePassed{}, d.now) {
			deliver, is := o.(decide.Deliver)
			if !is {
				continue
			}
			members := deliver.Event.GetDeliveryAccepted().GetDigestMembers()
			sizes = append(sizes, len(members))
			for _, m := range members {
				told[string(m)]++
			}
			if n := proto.Size(deliver.Event); n > 500_000 {
				t.Errorf("a digest's record has %d bytes", n)
			}
		}
	}
	if !slices.Equal(sizes, []int{most, parts - most}) || len(told) != parts {
		t.Errorf("digests of %v parts tell of %d", sizes, len(told))
	}
}

func TestDigest(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	rules := `{"digest":{"window":"1h","template":"digest"},"caps":[{"n":1,"per":"hour"}]}`
	tmpl, err := template.Parse([]byte(`{"default_locale":"en","locales":{"en":{"title":"{{ count }} news"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	prepare := func() {
		d.category("news", rules)
		d.user("mona", `{}`)
		d.connect("mona")
		d.do(decide.TemplateChanged{ID: "digest", Version: 4, Template: tmpl})
	}
	prepare()
	first := d.delivery("a", "mona", "news", nil)
	id, _ := domain.DeliveryIDFromBytes(first.Event.GetDeliveryId())
	name := "digest/" + id.String()
	d.want(d.do(first), "a deferred digest")
	d.now = d.now.Add(30 * time.Minute)
	d.want(d.send("b", "mona", "news.world"), "b deferred digest")
	d.restart()
	prepare()
	d.want(d.pass(30*time.Minute), "deliver "+name)
	var variables struct {
		Count, More int
		Items       []struct{ ID, Title string }
	}
	if err := json.Unmarshal(d.digest.GetDeliveryAccepted().GetVariables(), &variables); err != nil || variables.Count != 2 ||
		len(variables.Items) != 2 || variables.Items[1].Title != "b" {
		t.Fatalf("%+v, %v", variables, err)
	}
	// Written, and everything forgotten before it comes: it is written again under the same name.
	d.restart()
	prepare()
	d.want(d.pass(0), "deliver "+name)
	come := decide.DeliveryArrived{Source: decide.LaneOffset{Lane: domain.Normal, Offset: 100}, Event: d.digest}
	got := d.do(come)
	d.want(got, "a suppressed digested", "b suppressed digested", "route "+name+" #1 to n1")
	r := d.out[len(d.out)-1].(decide.RouteTo)
	if !strings.Contains(string(r.Route.GetFrame()), "2 news") {
		t.Errorf("the frame is %s", r.Route.GetFrame())
	}
	if k := d.events[len(d.events)-1].GetDeliverySuppressed(); k.GetInstead() != name {
		t.Errorf("the fact does not name the digest: %v", k)
	}
	come.Source.Offset = 101
	d.want(d.do(come)) // the second copy
	d.ack(name, "mona")
	// One alone goes out as it is; and the cap holds for it, which the digest has used up.
	d.want(d.send("c", "mona", "news"), "c deferred digest")
	d.now = d.now.Add(59 * time.Minute)
	d.category("news", strings.Replace(rules, `"per":"hour"`, `"per":"day"`, 1))
	d.want(d.pass(time.Minute), "c suppressed cap")
}

func TestADigestThatCannotBeRenderedSendsItsParts(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.category("news", `{"digest":{"window":"1h","template":"typo"}}`)
	typo, err := template.Parse([]byte(`{"default_locale":"en","locales":{"en":{"title":"{{ cuont }} news","body":"b"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	d.do(decide.TemplateChanged{ID: "typo", Version: 1, Template: typo})
	d.connect("mona")
	d.want(d.send("a", "mona", "news"), "a deferred digest")
	d.want(d.send("b", "mona", "news"), "b deferred digest")
	d.want(d.pass(time.Hour), "notice digest_template_fails typo", "route a #1 to n1", "route b #1 to n1")
}

func TestADigestWithoutItsTemplateSendsItsParts(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.category("news", `{"digest":{"window":"1h","template":"gone"}}`)
	d.connect("mona")
	d.want(d.send("a", "mona", "news"), "a deferred digest")
	d.want(d.send("b", "mona", "news"), "b deferred digest")
	d.want(d.pass(time.Hour), "notice unknown_digest_template gone", "route a #1 to n1", "route b #1 to n1")
}
