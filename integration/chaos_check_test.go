package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// row is a delivery as Postgres tells it. Stopped says that a fact of its cancelling is there; Instead is the digest that
// it went into. Sent is how many records to a gateway its facts tell of: an attempt that a restart made again has its number
// again, and is a second one all the same.
type row struct {
	ID, Note, User, Lane, Status, Reason, Channel string
	Attempts                                      int
	Open                                          bool
	Stopped                                       bool
	Instead                                       string
	Sent                                          int
}

func (r row) String() string {
	return fmt.Sprintf("%s to %s (%s): %s %s by %s after %d attempts, sent %d times, open %v, cancelled %v, instead %q", r.Note, r.User, r.ID, r.Status, r.Reason, r.Channel, r.Attempts, r.Sent, r.Open, r.Stopped, r.Instead)
}

// check holds what is left to what was asked for.
func (c *chaos) check() {
	t := c.t
	ready, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, p := range sys.running() {
		if err := p.await(ready); err != nil {
			t.Errorf("after the faults: %v", err)
		}
	}
	for i := range c.users { // who was away connects now, and gets what waited
		c.listen(c.away(i), fmt.Sprintf("gateway-%d", 1+i%2))
	}
	rows := c.settled()
	if open := texts(t, `SELECT c::text FROM whisper.conservation AS c LIMIT 5`); len(open) > 0 {
		t.Errorf("notifications do not add up: %s", open)
	}
	if late := number(t, `SELECT count(*) FROM whisper.overdue`); late != 0 {
		t.Errorf("%d deliveries are pending past their time", late)
	}
	if n := number(t, `SELECT count(*) FROM whisper.broadcasts WHERE finished_at IS NOT NULL`); n != int64(len(c.broadcasts)) {
		t.Errorf("%d broadcasts have ended of %d", n, len(c.broadcasts))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	pushes, pushedAgain := c.phones()
	c.statuses(rows, pushes)
	gathered := c.arrivals(rows)
	attempts, delivered, again := 0, 0, 0
	inDigests := 0
	for _, r := range rows {
		if r.Status == "delivered" || r.Status == "read" {
			attempts += r.Attempts
			delivered++
			again += max(0, r.Sent-r.Attempts)
		}
		if r.Instead != "" {
			inDigests++
		}
	}
	if gathered != inDigests {
		t.Errorf("digests tell of %d, and %d went into one", gathered, inDigests)
	}
	turned, unexplained, gap := c.order(rows)
	t.Logf("%s: %v", totals(c.counts), c.counts)
	t.Logf("%d asked for, %d deliveries, %d broadcasts, %d in digests; attempts beyond one a delivery: %d of %d, and %d more that a restart made again; pushes that came twice: %d of %d; out of order: %d, of which sent once only: %d; longest gap between alerts: %s; records that count for nothing: %d",
		len(c.asked), len(rows), len(c.broadcasts), inDigests, attempts-delivered, delivered, again, pushedAgain, len(pushes)+pushedAgain, turned, unexplained, gap.Round(time.Millisecond), strays(t))
}

// settled waits until everything that was asked for has come to its end, and is all of it.
func (c *chaos) settled() (rows []row) {
	t := c.t
	deadline := time.After(patience)
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		got, err := sys.db.Query(t.Context(), `
			SELECT d.delivery_id::text, d.notification_id, d.user_id, d.lane::text, d.status::text, coalesce(d.reason, ''), coalesce(d.channel, ''), d.attempts,
				d.settled_at IS NULL,
				EXISTS (SELECT FROM whisper.timeline AS l WHERE l.delivery_id = d.delivery_id AND l.day = d.day AND l.kind = 'delivery_cancelled'),
				coalesce((SELECT max(l.detail ->> 'instead') FROM whisper.timeline AS l WHERE d.status = 'suppressed' AND l.delivery_id = d.delivery_id AND l.day = d.day AND l.kind = 'delivery_suppressed'), ''),
				(SELECT count(DISTINCT l.cause) FROM whisper.timeline AS l WHERE l.delivery_id = d.delivery_id AND l.day = d.day AND l.cause LIKE 'whisper.node.%')
			FROM whisper.deliveries AS d`)
		if err != nil {
			t.Fatal(err)
		}
		if rows, err = pgx.CollectRows(got, pgx.RowToStructByPos[row]); err != nil {
			t.Fatal(err)
		}
		var open, missing []string
		have := map[string]bool{}
		news := 0
		for _, r := range rows {
			have[r.Note] = true
			if r.Open {
				open = append(open, r.String())
			}
			if strings.HasPrefix(r.Note, "chaos-news-") {
				news++
			}
		}
		for id := range c.asked {
			if !have[id] {
				missing = append(missing, id)
			}
		}
		if len(open)+len(missing) == 0 && news >= len(c.broadcasts)*c.users {
			return rows
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Errorf("%d of %d have no row: %s; %d are open: %s; broadcasts have %d deliveries of %d", len(missing), len(c.asked), some(missing), len(open), some(open), news, len(c.broadcasts)*c.users)
			for _, p := range sys.running() {
				t.Log(p.report())
			}
			return rows
		}
	}
}

func some(all []string) []string { return all[:min(len(all), 5)] }

// statuses holds each row to what may have become of it. What was cancelled or retracted while it was on its way may
// stand as sent: contract.md, "the greater of two facts stands"; nobody sends it again, since a fact says that it was
// cancelled.
func (c *chaos) statuses(rows []row, pushes map[string]int) {
	t := c.t
	had := map[string]bool{}
	capped := map[string]int{}
	for _, r := range rows {
		key := r.Note + " " + r.User
		if had[key] {
			t.Errorf("two rows: %s", r)
		}
		had[key] = true
		kind := strings.Split(r.Note, "-")
		if user, single := c.asked[r.Note]; single && user != r.User {
			t.Errorf("somebody else's: %s", r)
		}
		right := r.Status == "delivered" || r.Status == "read"
		if c.retracted[r.Note] {
			right = right || r.Status == "cancelled" || r.Status == "sent" && r.Stopped
		}
		switch {
		case strings.HasPrefix(r.Note, "digest/"):
		case kind[1] == "promo":
			right = right || r.Status == "suppressed" && r.Reason == "cap"
			if r.Status != "suppressed" {
				capped[r.User]++
			}
		case kind[1] == "chat":
			right = right || r.Status == "suppressed" && r.Reason == "digested" && r.Instead != ""
		case kind[1] == "phone":
			right = r.Status == "sent" && r.Channel == "apns" && pushes[r.Note] > 0
		}
		if !right {
			t.Errorf("not as it should be: %s: %s", r, c.story(r))
		}
	}
	for user, n := range capped {
		if n > 5 {
			t.Errorf("%s got %d of what is capped at 5", user, n)
		}
	}
}

// story is the facts of a delivery.
func (c *chaos) story(r row) []string {
	return texts(c.t, `SELECT concat_ws(' ', at, kind, detail, topic, "partition", "offset") FROM whisper.timeline WHERE delivery_id = '`+r.ID+`' ORDER BY at, "offset" LIMIT 20`)
}

// phones is how often Apple took each notification, and how many times more than once that is. All are the phone's own.
func (c *chaos) phones() (took map[string]int, again int) {
	took = map[string]int{}
	for _, push := range sys.apple.Received() {
		var payload struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal(push.Payload, &payload); err != nil {
			c.t.Errorf("Apple got %s: %v", push.Payload, err)
		}
		user := c.asked[payload.ID]
		i, err := strconv.Atoi(strings.TrimPrefix(user, "chaos-phone-"))
		if err != nil || push.Token != c.token(i) {
			c.t.Errorf("%s of %s came to the phone %s", payload.ID, user, push.Token)
		}
		if took[payload.ID]++; took[payload.ID] > 1 {
			again++
		}
	}
	return took, again
}

// arrivals holds what clients were handed to the rows, and counts what digests tell of.
func (c *chaos) arrivals(rows []row) (gathered int) {
	t := c.t
	handed := map[string]bool{}
	for user, all := range c.got {
		number := user[strings.LastIndexByte(user, '-')+1:]
		for _, a := range all {
			handed[a.note+" "+user] = true
			right := "for N" + number
			if strings.HasPrefix(a.note, "chaos-news-") {
				right = "for all"
			}
			if a.body != right {
				t.Errorf("%s got %s: %q", user, a.note, a.body)
			}
			if strings.HasPrefix(a.note, "digest/") {
				n, err := strconv.Atoi(a.title)
				if err != nil {
					t.Errorf("%s is of %q", a.note, a.title)
				}
				gathered += n
			}
		}
	}
	for _, r := range rows {
		there, key := r.Status == "delivered" || r.Status == "read", r.Note+" "+r.User
		if there && !handed[key] {
			t.Errorf("nobody was handed %s: %s", r, c.story(r))
		}
		// A client that was handed it has acknowledged it, and until that is a fact it comes again; but not what was cancelled.
		if handed[key] && !there && (!c.retracted[r.Note] || !r.Stopped) {
			t.Errorf("a client has %s: %s", r, c.story(r))
		}
		delete(handed, key)
	}
	for key := range handed {
		t.Errorf("there is no row of %s", key)
	}
	return gathered
}

// order counts what came to a user behind what was asked for later on its lane, and of those what was sent only once: a
// delivery that a fault made come again comes when it can. What is to wait (later, digests, caps, who was away) and
// broadcasts are not in a lane's order.
func (c *chaos) order(rows []row) (turned, once int, gap time.Duration) {
	of := map[string]row{}
	for _, r := range rows {
		of[r.Note] = r
	}
	var high []time.Time
	for i := range c.users {
		type passed struct {
			n    int
			note string
			at   time.Time
		}
		last := map[string]passed{}
		for _, a := range c.got[c.user(i)] {
			if a.lane == "high" {
				high = append(high, a.at)
			}
			kind := strings.Split(a.note, "-")
			if len(kind) != 3 || kind[1] != "n" && kind[1] != "moody" {
				continue
			}
			n, err := strconv.Atoi(kind[2])
			if err != nil {
				c.t.Errorf("%s arrived", a.note)
			}
			before := last[a.lane]
			if n > before.n {
				last[a.lane] = passed{n, a.note, a.at}
				continue
			}
			turned++
			if of[a.note].Sent <= 1 {
				if once++; once <= 20 {
					c.t.Logf("out of order: %s came %s after %s: %s: %s; the other: %s: %s", a.note, a.at.Sub(before.at), before.note, of[a.note], c.story(of[a.note]), of[before.note], c.story(of[before.note]))
				}
			}
		}
	}
	slices.SortFunc(high, time.Time.Compare)
	for i := 1; i < len(high); i++ {
		gap = max(gap, high[i].Sub(high[i-1]))
	}
	return turned, once, gap
}
