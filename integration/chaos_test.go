package integration

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/klivvr/whisper/gateway"
	"github.com/klivvr/whisper/gateway/client"
)

// chaosFor is how long faults are made, and chaosSeed by which they are chosen; `make chaos` sets both.
func chaosFor(t *testing.T) (d time.Duration, long bool) {
	t.Helper()
	env := os.Getenv("WHISPER_TEST_CHAOS")
	if env == "" {
		return 25 * time.Second, false
	}
	d, err := time.ParseDuration(env)
	if err != nil {
		t.Fatalf("WHISPER_TEST_CHAOS: %v", err)
	}
	return d, true
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

// TestChaos runs three brokers with replication 3, two processes of each role, and load over all lanes and features. At
// random, brokers, roles and Postgres are killed, stopped for a while, slowed and shut down, their disks are filled,
// their clocks jump, and the network between them is impaired. Afterwards nothing is lost, no user has a notification of
// another, and every delivery is in its true status.
func TestChaos(t *testing.T) {
	seed := chaosSeed(t)
	duration, long := chaosFor(t)
	t.Logf("WHISPER_TEST_SEED=%d WHISPER_TEST_CHAOS=%s", seed, duration)
	base := sys
	m := newMachine(t, long)
	t.Cleanup(func() { sys = base })
	sys = m.system()
	t.Cleanup(sys.close)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	if err := sys.start(ctx); err != nil {
		t.Fatal(err)
	}
	c := &chaos{
		t: t, m: m, rng: rand.New(rand.NewPCG(seed, 1)), users: 40, got: map[string][]arrival{}, counts: map[string]int{},
		asked: map[string]string{}, retracted: map[string]bool{},
	}
	c.prepare()
	stop := make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() { c.load(stop, rand.New(rand.NewPCG(seed, 2))) })
	c.faults(time.Now().Add(duration))
	close(stop)
	load.Wait()
	c.check()
	if t.Failed() {
		for _, line := range c.done {
			t.Log(line)
		}
	}
}

type chaos struct {
	t     *testing.T
	m     *machine
	rng   *rand.Rand
	users int

	mu     sync.Mutex
	got    map[string][]arrival // by user
	counts map[string]int       // of faults
	done   []string             // the faults, as they ended

	// Of the load, which one goroutine makes.
	serial     int
	asked      map[string]string // notification → its only recipient
	retracted  map[string]bool   // also what was cancelled
	broadcasts []string
}

// arrival is a notification that a client received.
type arrival struct {
	note, lane, title, body string
	at                      time.Time
}

// listen connects a user to a gateway, over its link, until the test ends. The token is an hour old, so that a clock that
// is behind does not see it as issued in the future.
func (c *chaos) listen(user, gatewayName string) {
	t, err := gateway.SignToken([]byte(secret), user, 24*time.Hour, time.Now().Add(-time.Hour))
	if err != nil {
		c.t.Fatal(err)
	}
	var cl *client.Client
	for range 3 { // the first attempt is not repeated by the client
		cl, err = client.Dial(context.Background(), "ws://"+c.m.links[gatewayName].Addr()+"/v1/socket", client.StaticToken(t), client.Options{
			Window: 100_000, MinBackoff: 50 * time.Millisecond, MaxBackoff: time.Second,
			Handle: func(_ context.Context, n client.Notification) error {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.got[user] = append(c.got[user], arrival{n.ID, n.Lane, n.Title, n.Body, time.Now()})
				return nil
			},
		})
		if err == nil {
			break
		}
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { end(cl) })
}

// running returns the processes that run now.
func (s *system) running() (all []*proc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.procs {
		all = append(all, p)
	}
	return all
}

// texts returns the first column of a query's rows.
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
