package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/gateway/client"
	"github.com/klivvr/whisper/integration/cluster"
)

// chaosFor is how long faults are made, and chaosSeed by which they are chosen; `make chaos` sets both.
func chaosFor(t *testing.T) time.Duration {
	t.Helper()
	env := os.Getenv("WHISPER_TEST_CHAOS")
	if env == "" {
		return 30 * time.Second
	}
	d, err := time.ParseDuration(env)
	if err != nil {
		t.Fatalf("WHISPER_TEST_CHAOS: %v", err)
	}
	return d
}

func chaosSeed(t *testing.T) uint64 {
	t.Helper()
	env := os.Getenv("WHISPER_TEST_SEED")
	if env == "" {
		return uint64(time.Now().UnixNano())
	}
	seed, err := strconv.ParseUint(env, 10, 64)
	if err != nil {
		t.Fatalf("WHISPER_TEST_SEED: %v", err)
	}
	return seed
}

// TestChaos: three brokers that keep every record three times, two processes of each role, load over all lanes and
// features; brokers, roles and Postgres are killed, stopped for a while, and ended cleanly, at random. Afterwards
// nothing is lost, nobody has what is another's, and every delivery is in the status that is true.
func TestChaos(t *testing.T) {
	seed, duration := chaosSeed(t), chaosFor(t)
	t.Logf("WHISPER_TEST_SEED=%d WHISPER_TEST_CHAOS=%s", seed, duration)
	base := sys
	t.Cleanup(func() { sys = base })
	sys = &system{dir: t.TempDir(), procs: map[string]*proc{}, options: cluster.Options{Brokers: 3}, pairs: true}
	t.Cleanup(sys.close)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := sys.start(ctx); err != nil {
		t.Fatal(err)
	}
	c := &chaos{t: t, rng: rand.New(rand.NewPCG(seed, 1)), users: 40, got: map[string][]arrival{}, counts: map[string]int{}}
	c.prepare()
	stop := make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() { c.load(stop, rand.New(rand.NewPCG(seed, 2))) })
	c.faults(time.Now().Add(duration))
	close(stop)
	load.Wait()
	c.check()
}

type arrival struct {
	note string
	lane string
	body string
	at   time.Time
}

type chaos struct {
	t     *testing.T
	rng   *rand.Rand
	users int

	mu     sync.Mutex
	got    map[string][]arrival
	counts map[string]int // of faults, and of what was asked for

	serial     int
	away       []string // notifications to users who are away until the end
	capped     int
	broadcasts []string
}

func (c *chaos) user(i int) string { return fmt.Sprintf("chaos-%d", i) }

// prepare declares what the load uses and connects the users, half of them to each gateway.
func (c *chaos) prepare() {
	t := c.t
	categories(t, "chaos-promo: {caps: [{n: 5, per: week}]}\nchaos-card: {mandatory: true}\n")
	people(t, "chaos", c.users)
	c.template(0)
	for i := range c.users {
		user := c.user(i)
		cl, err := client.Dial(context.Background(), sys.socketURL(fmt.Sprintf("gateway-%d", 1+i%2)), client.StaticToken(token(user)), client.Options{
			Window: 100_000, MinBackoff: 50 * time.Millisecond, MaxBackoff: time.Second,
			Handle: func(_ context.Context, n client.Notification) error {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.got[user] = append(c.got[user], arrival{n.ID, n.Lane, n.Body, time.Now()})
				return nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { end(cl) })
	}
}

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

func (c *chaos) template(round int) {
	c.produce("whisper.templates", "chaos", fmt.Sprintf(`{"default_locale":"en","locales":{"en":{"title":"round %d","body":"for {{ user.attributes.name }}"}}}`, round))
}

// load asks for some 200 notifications a second until stop, all kinds of them.
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
		}
		c.serial++
		i := rng.IntN(c.users)
		user, lane := c.user(i), []string{"high", "high", "normal", "low"}[rng.IntN(4)]
		topic := "whisper.requests." + lane
		id := fmt.Sprintf("chaos-n-%d", c.serial)
		switch kind := rng.IntN(200); {
		case kind < 20: // somebody who is away until the end
			id = fmt.Sprintf("chaos-away-%d", c.serial)
			c.away = append(c.away, id)
			c.produce(topic, user, fmt.Sprintf(`{"id":%q,"to":{"users":["chaos-away-%d"]},"content":{"body":"for away"},"channels":["socket"]}`, id, i))
		case kind < 30:
			id = fmt.Sprintf("chaos-promo-%d", c.serial)
			c.capped++
			c.produce(topic, user, fmt.Sprintf(`{"id":%q,"category":"chaos-promo","to":{"users":[%q]},"content":{"body":"for N%d"}}`, id, user, i))
		case kind < 34:
			c.template(c.serial)
			c.produce(topic, user, fmt.Sprintf(`{"id":%q,"to":{"users":[%q]},"template":"chaos"}`, id, user))
		case kind < 36:
			c.produce("whisper.profiles", user, fmt.Sprintf(`{"attributes":{"round":%d}}`, c.serial))
		case kind < 37:
			c.produce(topic, user, fmt.Sprintf(`{"retract":"chaos-n-%d"}`, max(1, c.serial-50)))
		case kind < 38 && len(c.broadcasts) < 40:
			id = fmt.Sprintf("chaos-news-%d", c.serial)
			c.broadcasts = append(c.broadcasts, id)
			c.produce("whisper.requests.low", "steer", fmt.Sprintf(`{"id":%q,"to":{"segment":"has(user.attributes.run) && user.attributes.run == 'chaos'"},"content":{"body":"for all"}}`, id))
		case kind < 39 && len(c.broadcasts) > 0:
			id = c.broadcasts[rng.IntN(len(c.broadcasts))]
			c.produce("whisper.requests.low", "steer", fmt.Sprintf(`{"pause":%q}`, id))
			c.produce("whisper.requests.low", "steer", fmt.Sprintf(`{"resume":%q}`, id))
		default:
			c.produce(topic, user, fmt.Sprintf(`{"id":%q,"category":"chaos-card","to":{"users":[%q]},"content":{"body":"for N%d"}}`, id, user, i))
		}
	}
}

// faults makes one after the other until then; of brokers, and of the processes of a role, one at a time.
func (c *chaos) faults(until time.Time) {
	roles := []string{"intake", "dispatch", "gateway", "push", "project"}
	var woken sync.WaitGroup
	busy := map[string]*sync.Mutex{"broker": {}, "postgres": {}}
	for _, role := range roles {
		busy[role] = &sync.Mutex{}
	}
	for time.Now().Before(until) {
		what := append(roles[:len(roles):len(roles)], "dispatch", "broker", "broker", "postgres")[c.rng.IntN(9)]
		n, how := c.rng.IntN(3), []string{"kill", "stop", "pause"}[c.rng.IntN(3)]
		pause, between := time.Duration(500+c.rng.IntN(19_500))*time.Millisecond, time.Duration(200+c.rng.IntN(1_800))*time.Millisecond
		if busy[what].TryLock() {
			c.mu.Lock()
			c.counts[how+" "+what]++
			c.mu.Unlock()
			woken.Go(func() {
				defer busy[what].Unlock()
				c.fault(what, n, how, pause)
			})
		}
		select {
		case <-time.After(between):
		case <-c.t.Context().Done():
			return
		}
	}
	woken.Wait()
}

func (c *chaos) fault(what string, n int, how string, pause time.Duration) {
	t, ctx := c.t, context.Background()
	switch what {
	case "postgres":
		if how == "pause" {
			how = "kill"
		}
		end := map[string]func(context.Context) error{"kill": sys.cluster.KillPostgres, "stop": sys.cluster.StopPostgres}[how]
		if err := end(ctx); err != nil {
			t.Error(err)
		}
		<-time.After(pause / 10)
		if err := sys.cluster.StartPostgres(ctx); err != nil {
			t.Error(err)
		}
	case "broker":
		broker := sys.cluster.Brokers()[n]
		if how == "pause" {
			c.pause(broker.PID(), pause/2)
			return
		}
		end := map[string]func(context.Context) error{"kill": broker.Kill, "stop": broker.Stop}[how]
		if err := end(ctx); err != nil {
			t.Error(err)
		}
		<-time.After(pause / 10)
		if err := broker.Start(ctx); err != nil {
			t.Error(err)
		}
	default:
		name := fmt.Sprintf("%s-%d", what, 1+n%2)
		switch how {
		case "pause":
			c.pause(sys.proc(name).cmd.Process.Pid, pause)
			return
		case "kill":
			sys.kill(t, name)
		case "stop":
			sys.stop(t, name)
		}
		sys.restart(t, name)
	}
}

func (c *chaos) pause(pid int, d time.Duration) {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		c.t.Error(err)
		return
	}
	<-time.After(d)
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		c.t.Error(err)
	}
}

// check holds what is left to what was asked for.
func (c *chaos) check() {
	t := c.t
	for _, p := range sys.running() {
		eventually(t, p.name+" is ready", p.ready)
	}
	// Who was away connects now, and gets what waited.
	var mu sync.Mutex
	late := map[string]bool{}
	for i := range c.users {
		user := fmt.Sprintf("chaos-away-%d", i)
		cl, err := client.Dial(context.Background(), sys.socketURL("gateway-1"), client.StaticToken(token(user)), client.Options{
			Handle: func(_ context.Context, n client.Notification) error {
				mu.Lock()
				defer mu.Unlock()
				late[n.ID] = true
				if n.Body != "for away" {
					t.Errorf("%s got %q", user, n.Body)
				}
				return nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer end(cl)
	}
	eventually(t, "who was away gets all that waited", func() bool { mu.Lock(); defer mu.Unlock(); return len(late) == len(c.away) })
	eventually(t, "everything came to an end", func() bool {
		return number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id LIKE 'chaos-%' AND settled_at IS NULL`) == 0 &&
			number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id LIKE 'chaos-away-%' AND status IN ('delivered', 'read')`) == int64(len(c.away)) &&
			number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id LIKE 'chaos-promo-%'`) == int64(c.capped) &&
			number(t, `SELECT count(*) FROM whisper.broadcasts WHERE finished_at IS NOT NULL`) == int64(len(c.broadcasts))
	})
	if open := number(t, `SELECT count(*) FROM whisper.conservation`); open != 0 {
		t.Errorf("%d notifications do not add up", open)
	}
	if n := number(t, `SELECT count(*) FROM (SELECT FROM whisper.deliveries WHERE notification_id LIKE 'chaos-%' GROUP BY notification_id, user_id HAVING count(*) > 1) AS d`); n != 0 {
		t.Errorf("%d deliveries have two rows", n)
	}
	if n := number(t, `SELECT count(*) FROM (SELECT user_id FROM whisper.deliveries WHERE notification_id LIKE 'chaos-promo-%' AND status >= 'sent' GROUP BY user_id HAVING count(*) > 5) AS u`); n != 0 {
		t.Errorf("%d users got more than their cap", n)
	}
	if n := number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id LIKE 'chaos-%' AND notification_id NOT LIKE 'chaos-promo-%' AND status NOT IN ('delivered', 'read', 'cancelled')`); n != 0 {
		t.Errorf("%d deliveries to who was there did not arrive: %s", n, texts(t, `SELECT concat_ws(' ', notification_id, user_id, status, reason, channel, attempts, accepted_at, expires_at, settled_at)
			FROM whisper.deliveries WHERE notification_id LIKE 'chaos-%' AND notification_id NOT LIKE 'chaos-promo-%' AND status NOT IN ('delivered', 'read', 'cancelled') LIMIT 5`))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var high []time.Time
	arrived, turned := 0, 0
	for i := range c.users {
		last := map[string]int{}
		for _, a := range c.got[c.user(i)] {
			arrived++
			if a.body != fmt.Sprintf("for N%d", i) && a.body != "for all" {
				t.Errorf("%s got %s, %q", c.user(i), a.note, a.body)
			}
			if a.lane == "high" {
				high = append(high, a.at)
			}
			if n, err := strconv.Atoi(a.note[strings.LastIndexByte(a.note, '-')+1:]); err == nil && a.lane != "low" {
				if n < last[a.lane] {
					turned++
				}
				last[a.lane] = max(last[a.lane], n)
			}
		}
	}
	slices.SortFunc(high, time.Time.Compare)
	var gap time.Duration
	for i := 1; i < len(high); i++ {
		gap = max(gap, high[i].Sub(high[i-1]))
	}
	attempts := number(t, `SELECT coalesce(sum(attempts), 0) FROM whisper.deliveries WHERE notification_id LIKE 'chaos-%' AND status IN ('delivered', 'read')`)
	rows := number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id LIKE 'chaos-%' AND status IN ('delivered', 'read')`)
	t.Logf("%v; %d asked for, %d arrived, %d broadcasts; attempts beyond one a delivery: %d of %d; out of order after a fault: %d; longest gap between alerts: %s; records that count for nothing: %d",
		c.counts, c.serial, arrived, len(c.broadcasts), attempts-rows, rows, turned, gap.Round(time.Millisecond), strays(t))
}

// running are the processes that are there now.
func (s *system) running() (all []*proc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.procs {
		all = append(all, p)
	}
	return all
}

// texts is the first column of a query's rows.
func texts(t *testing.T, sql string) []string {
	t.Helper()
	rows, err := sys.db.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return all
}
