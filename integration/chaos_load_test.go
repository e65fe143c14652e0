package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// prepare declares what the load uses and connects the users, half of them to each gateway.
func (c *chaos) prepare() {
	t := c.t
	for _, name := range []string{"gateway-1", "gateway-2"} {
		if _, err := c.m.lead(name, sys.proc(name).addr); err != nil {
			t.Fatal(err)
		}
	}
	categories(t, `
chaos-promo: {caps: [{n: 5, per: week}]}
chaos-card: {mandatory: true}
chaos-chat: {digest: {window: 4s, template: chaos-digest}}
chaos-moody: {mandatory: true}
`)
	people(t, "chaos", c.users)
	before := endOf(t, "whisper.users")
	for i := range c.users {
		c.produce("whisper.profiles", c.phone(i), fmt.Sprintf(`{"attributes":{"name":"N%d"},"endpoints":{"iphone":{"channel":"apns","token":%q,"app":%q}}}`, i, c.token(i), topicOfApp))
	}
	eventually(t, "the phones are known", func() bool { return endOf(t, "whisper.users") >= before+int64(c.users) })
	c.template(0)
	c.produce("whisper.templates", "chaos-digest", `{"default_locale":"en","locales":{"en":{"title":"{{ count }}","body":"for {{ user.attributes.name }}"}}}`)
	for i := range c.users {
		c.listen(c.user(i), fmt.Sprintf("gateway-%d", 1+i%2))
	}
}

func (c *chaos) user(i int) string  { return fmt.Sprintf("chaos-%d", i) }
func (c *chaos) away(i int) string  { return fmt.Sprintf("chaos-away-%d", i) }  // connects when all is over
func (c *chaos) phone(i int) string { return fmt.Sprintf("chaos-phone-%d", i) } // has one, and never a socket
func (c *chaos) token(i int) string { return fmt.Sprintf("%064x", 0xc4a05000+i) }

func (c *chaos) produce(topic, key, value string) {
	rec := &kgo.Record{Topic: topic, Value: []byte(value)}
	if key != "" {
		rec.Key = []byte(key)
	}
	sys.kafka.Produce(context.Background(), rec, func(_ *kgo.Record, err error) {
		if err != nil {
			c.t.Errorf("produce: %v", err)
		}
	})
}

// ask requests a notification to one user; more has further fields of the request.
func (c *chaos) ask(kind, lane, user, more string) (id string) {
	id = fmt.Sprintf("chaos-%s-%d", kind, c.serial)
	c.asked[id] = user
	c.produce("whisper.requests."+lane, user, fmt.Sprintf(`{"id":%q,"to":{"users":[%q]},%s}`, id, user, more))
	return id
}

func (c *chaos) template(round int) {
	c.produce("whisper.templates", "chaos", fmt.Sprintf(`{"default_locale":"en","locales":{"en":{"title":"round %d","body":"for {{ user.attributes.name }}"}}}`, round))
}

// moods are the rules that a category switches between; each of them lets everything be delivered.
var moods = []string{
	`{"mandatory":true}`, `{"auto_ack":false}`, `{"quiet_hours":"pass"}`, `{"channels":["socket"],"ack_timeout":"3s"}`,
	`{"caps":[{"n":1000000,"per":"day"}]}`, `{"mandatory":true,"collapse":true}`,
}

// load requests some 200 notifications a second, of all kinds, until stop.
func (c *chaos) load(stop <-chan struct{}, rng *rand.Rand) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			if err := sys.kafka.Flush(context.Background()); err != nil {
				c.t.Error(err)
			}
			return
		case <-tick.C:
			c.serial++
			c.one(rng)
		}
	}
}

func (c *chaos) one(rng *rand.Rand) {
	i := rng.IntN(c.users)
	user, lane := c.user(i), []string{"high", "high", "normal", "low"}[rng.IntN(4)]
	content := fmt.Sprintf(`"content":{"body":"for N%d"}`, i)
	switch kind := rng.IntN(200); {
	case kind < 15:
		c.ask("away", lane, c.away(i), content+`,"channels":["socket"]`)
	case kind < 25:
		c.ask("promo", lane, user, content+`,"category":"chaos-promo"`)
	case kind < 29:
		c.template(c.serial)
		c.ask("n", lane, user, `"template":"chaos"`)
	case kind < 31:
		c.produce("whisper.profiles", user, fmt.Sprintf(`{"attributes":{"round":%d}}`, c.serial))
	case kind < 34: // often of what is on its way at the moment
		c.retract("retract", lane, user, fmt.Sprintf("chaos-n-%d", max(1, c.serial-1-rng.IntN(40))))
	case kind < 35 && len(c.broadcasts) < 40:
		id := fmt.Sprintf("chaos-news-%d", c.serial)
		c.broadcasts = append(c.broadcasts, id)
		c.produce("whisper.requests.low", "steer", fmt.Sprintf(`{"id":%q,"to":{"segment":"has(user.attributes.run) && user.attributes.run == 'chaos'"},"content":{"body":"for all"}}`, id))
	case kind < 36 && len(c.broadcasts) > 0:
		id := c.broadcasts[rng.IntN(len(c.broadcasts))]
		c.produce("whisper.requests.low", "steer", fmt.Sprintf(`{"pause":%q}`, id))
		c.produce("whisper.requests.low", "steer", fmt.Sprintf(`{"resume":%q}`, id))
	case kind < 56:
		c.ask("phone", lane, c.phone(i), content)
	case kind < 66:
		c.ask("chat", lane, user, content+`,"category":"chaos-chat"`)
	case kind < 67:
		c.produce("whisper.categories", "chaos-moody", moods[rng.IntN(len(moods))])
	case kind < 82:
		c.ask("moody", lane, user, content+`,"category":"chaos-moody"`)
	case kind < 86:
		at := time.Now().Add(time.Duration(rng.IntN(15_000)) * time.Millisecond).UTC().Format(time.RFC3339Nano)
		id := c.ask("later", lane, user, content+fmt.Sprintf(`,"send_at":%q`, at))
		if rng.IntN(4) == 0 {
			c.retract("cancel", lane, user, id)
		}
	default:
		c.ask("n", lane, user, content+`,"category":"chaos-card"`)
	}
}

func (c *chaos) retract(how, lane, user, id string) {
	c.retracted[id] = true
	c.produce("whisper.requests."+lane, user, fmt.Sprintf(`{%q:%q}`, how, id))
}
