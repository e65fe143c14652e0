package category_test

import (
	"strings"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
)

func TestParseCategory(t *testing.T) {
	t.Parallel()
	c, err := category.Parse("marketing", []byte(`{"channels":["push","socket"],"caps":[{"n":3,"per":"day"},{"n":10,"per":"week","by":"user"}],
		"over_cap":"defer","quiet_hours":"drop","collapse":false,"digest":{"window":"1h","template":"digest","min":3},"smart_timing":{"max_delay":"6h"},"ack_timeout":"20s"}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Caps) != 2 || c.Caps[0].String() != "3 per day by user_category" || c.Caps[1].String() != "10 per week by user" ||
		c.OverCap != category.OverCapDefer || c.Quiet != category.QuietDrop || c.Collapse || c.SmartDelay != 6*time.Hour || c.AckTimeout != 20*time.Second ||
		*c.Digest != (category.Digest{Window: time.Hour, Template: "digest", Min: 3}) || strings.Join(c.Channels, " ") != "push socket" {
		t.Errorf("%+v", c)
	}
	for rules, collapses := range map[string]bool{`{"mandatory":true}`: false, `{"collapse":true,"mandatory":true}`: true, `{"mandatory":true,"collapse":null}`: false, `{"mandatory":false}`: true} {
		if c, err := category.Parse("x", []byte(rules)); err != nil || c.Collapse != collapses {
			t.Errorf("%s: %+v, %v", rules, c, err)
		}
	}
	for rules, counts := range map[string]bool{
		`{}`: true, `{"auto_ack":false}`: false, `{"mandatory":true}`: false, `{"auto_ack":true,"mandatory":true}`: true,
		`{"mandatory":true,"auto_ack":null}`: false, `{"mandatory":false}`: true,
	} {
		if c, err := category.Parse("x", []byte(rules)); err != nil || c.AutoAck != counts {
			t.Errorf("%s: %+v, %v", rules, c, err)
		}
	}
	if c, err := category.Parse("x", []byte(`{}`)); err != nil || c.Quiet != category.QuietHold || !c.Collapse || c.Mandatory {
		t.Errorf("what says nothing: %+v, %v", c, err)
	}
}

func TestParseCategorySaysAllThatIsWrong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ key, value, want string }{
		"a cap of nothing":  {"a", `{"caps":[{"n":0,"per":"day"}]}`, "caps[0].n is 0: it must be from 1 to 10000"},
		"a negative cap":    {"a", `{"caps":[{"n":-1,"per":"day"}]}`, "caps[0].n is -1: it must be from 1 to 10000"},
		"half a cap":        {"a", `{"caps":[{"n":1.5,"per":"year"}, {}]}`, `caps[0].n is 1.5: it must be a whole number from 1 to 10000; caps[0].per: unknown "year"; known are minute, hour, day, week; caps[1] has no n: a cap is such as {"n": 3, "per": "day"}; caps[1] has no per`},
		"two of one kind":   {"a", `{"caps":[{"n":1,"per":"day"},{"n":2,"per":"day"}]}`, "caps[1]: there is another cap per day by user_category: the smaller one is enough"},
		"mandatory and not": {"a", `{"mandatory":true,"caps":[{"n":1,"per":"day"}],"quiet_hours":"drop"}`, "a mandatory category always goes out at once: leave out caps; a mandatory category always goes out at once: leave out quiet_hours"},
		"a bad name":        {"A", `{"quiet_hours":"sometimes","over_cap":1}`, `category "A" has a character that is not allowed: lower-case letters, digits, _ and -, in parts separated by dots, such as transactions.card; quiet_hours: unknown "sometimes"; known are hold, drop, pass; over_cap must be a string, not a number`},
		"no such field":     {"a", `{"opt_out":true,"channels":["fax","apns","apns"],"auto_ack":"no"}`, `unknown field "opt_out"; known are channels, mandatory, caps, over_cap, quiet_hours, collapse, digest, smart_timing, ack_timeout, auto_ack, all_channels; channels: unknown channel "fax"; known are socket, push, apns, fcm, webpush, email, sms, webhook; channels repeats "apns"; auto_ack must be true or false, not a string`},
		"all, and in turn":  {"a", `{"channels":["socket"],"all_channels":["push"]}`, "all_channels has 1 channels: it is about two or more; for one, use channels; channels are tried one after the other, all_channels at once: leave out one of the two"},
		"a push twice":      {"a", `{"all_channels":["socket","push","apns"]}`, "all_channels: apns is a push, and push stands for all of them: leave out one of the two"},
		"no channels":       {"a", `{"all_channels":["socket","fax","socket"]}`, `all_channels: unknown channel "fax"; known are socket, push, apns, fcm, webpush, email, sms, webhook; all_channels repeats "socket"`},
		"times":             {"a", `{"ack_timeout":"11m","digest":{"window":"0s"},"smart_timing":{"max_delay":"soon"}}`, `ack_timeout is 11m, at most 10m0s is allowed; digest.window is 0s: it must be positive; digest has no template: a digest is such as {"window": "1h", "template": "digest"}; smart_timing.max_delay "soon" is not a duration such as "90s" or "1h"`},
		"not JSON":          {"a", `{`, "the category is cut off"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := category.Parse(c.key, []byte(c.value))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestACategoryFallsBackOverItsParts(t *testing.T) {
	t.Parallel()
	var all category.Categories
	put := func(name string) {
		c, err := category.Parse(name, []byte(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		all.Put(name, c)
	}
	if got := all.Find("transactions.card"); got.Name != domain.DefaultCategory || all.Declares("transactions.card") ||
		!all.Declares(domain.DefaultCategory) {
		t.Errorf("with nothing declared: %s", got.Name)
	}
	put("transactions")
	put("default")
	for name, want := range map[string]string{
		"transactions": "transactions", "transactions.card": "transactions", "transactions.card.gold": "transactions",
		"transactionsx": "default", "marketing": "default", "default": "default",
	} {
		if got := all.Find(name).Name; got != want || all.Declares(name) != (want == "transactions" || name == "default") {
			t.Errorf("%s goes by the rules of %s, want %s", name, got, want)
		}
	}
	put("transactions.card")
	if got := all.Find("transactions.card.gold").Name; got != "transactions.card" {
		t.Errorf("the longest part goes first, not %s", got)
	}
	all.Put("transactions.card", nil)
	if got := all.Find("transactions.card").Name; got != "transactions" {
		t.Errorf("what is declared no more goes by %s", got)
	}
}
