package integration

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/integration/cluster"
)

const (
	inEachFault = 10_000
	faultUsers  = 200
	faultRate   = 2_500
)

func admin() *kadm.Client { return kadm.NewClient(sys.kafka) }

// during produces a flood of requests, does something in the middle of it, and checks that nothing was lost.
func during(t *testing.T, prefix string, fault func(a *audience)) {
	t.Helper()
	a := connect(t, prefix, faultUsers)
	faulted := make(chan struct{})
	go func() {
		defer close(faulted)
		eventuallyCount(a, inEachFault/5)
		fault(a)
	}()
	flood(t, prefix, a.users, inEachFault, faultRate)
	<-faulted
	eventually(t, "everything arrives", func() bool { return a.count() == inEachFault })
	allSettled(t, prefix, inEachFault)
}

// eventuallyCount waits until n have arrived, with a generous deadline.
func eventuallyCount(a *audience, n int) {
	deadline := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for a.count() < n {
		select {
		case <-deadline:
			return
		case <-tick.C:
		}
	}
}

// TestEachRoleMayBeKilled kills each role in the middle of 10,000 deliveries and starts it again. Nothing is lost, each
// delivery is settled once, and the counts of every notification add up.
func TestEachRoleMayBeKilled(t *testing.T) {
	for _, name := range []string{"intake", "dispatch", "gateway-1", "project"} {
		t.Run(name, func(t *testing.T) {
			during(t, "kill-"+name, func(*audience) {
				sys.kill(t, name)
				sys.restart(t, name)
			})
		})
	}
}

// TestPushMayBeKilledOrMove: the same for the push role, which is killed and then joined by a second process.
func TestPushMayBeKilledOrMove(t *testing.T) {
	users := make([]string, 50)
	for i := range users {
		users[i] = fmt.Sprintf("phone-%d", i)
		profile := fmt.Sprintf(`{"endpoints":{"iphone":{"channel":"apns","token":"%064x","app":"%s"}}}`, i+1, topicOfApp)
		if err := sys.kafka.ProduceSync(t.Context(), &kgo.Record{Topic: "whisper.profiles", Key: []byte(users[i]), Value: []byte(profile)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the profiles are known", func() bool { return endOf(t, "whisper.users") >= int64(len(users)) })
	t.Run("killed", func(t *testing.T) {
		duringPushes(t, "push-kill", users, func() {
			sys.kill(t, "push")
			sys.restart(t, "push")
		})
	})
	t.Run("moved", func(t *testing.T) {
		duringPushes(t, "push-move", users, func() {
			sys.restart(t, "push-b")
			sys.stop(t, "push")
		})
		sys.restart(t, "push")
		sys.stop(t, "push-b")
	})
}

// duringPushes requests notifications to users with phones, and does something once Apple has accepted some.
func duringPushes(t *testing.T, prefix string, users []string, fault func()) {
	t.Helper()
	const n = 2_000
	before := sys.apple.Counts().Accepted
	faulted := make(chan struct{})
	go func() {
		defer close(faulted)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		deadline := time.After(time.Minute)
		for sys.apple.Counts().Accepted < before+n/10 {
			select {
			case <-tick.C:
			case <-deadline:
				return
			}
		}
		fault()
	}()
	flood(t, prefix, users, n, 1_000)
	<-faulted
	eventually(t, "Apple took all of them", func() bool {
		return number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id LIKE $1 AND status = 'sent' AND settled_at IS NOT NULL`, prefix+"-%") == n
	})
	if open := number(t, `SELECT count(*) FROM whisper.conservation`); open != 0 {
		t.Errorf("%d notifications do not add up", open)
	}
}

// TestPartitionsMove: a second process of each role joins in the middle and the first one leaves.
func TestPartitionsMove(t *testing.T) {
	for _, role := range []string{"intake", "dispatch", "project"} {
		t.Run(role, func(t *testing.T) {
			second := role + "-b"
			during(t, "move-"+role, func(*audience) {
				sys.restart(t, second)
				sys.stop(t, role)
			})
			sys.restart(t, role)
			sys.stop(t, second)
		})
	}
}

// ours skips a test that would have to kill a server that the environment provides.
func ours(t *testing.T) {
	t.Helper()
	if sys.cluster.Kind == cluster.KindAddress {
		t.Skip("the cluster is not the test's to kill")
	}
}

// TestPostgresMayBeDown: notifications arrive without Postgres, and the rows catch up.
func TestPostgresMayBeDown(t *testing.T) {
	ours(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a := connect(t, "pg", faultUsers)
	if err := sys.cluster.KillPostgres(ctx); err != nil {
		t.Fatal(err)
	}
	flood(t, "pg", a.users, inEachFault, faultRate)
	eventually(t, "everything arrives without Postgres", func() bool { return a.count() == inEachFault })
	if sys.proc("project").ready() {
		t.Error("the projector claims to be ready without Postgres")
	}
	if err := sys.cluster.StartPostgres(ctx); err != nil {
		t.Fatal(err)
	}
	sys.db.Reset()
	allSettled(t, "pg", inEachFault)
	eventually(t, "the projector is ready again", func() bool { return sys.proc("project").ready() })
}

// TestTheBrokerMayRestart restarts the broker in the middle of a flood.
func TestTheBrokerMayRestart(t *testing.T) {
	ours(t)
	during(t, "broker", func(*audience) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := sys.cluster.KillKafka(ctx); err != nil {
			t.Error(err)
		}
		if err := sys.cluster.StartKafka(ctx); err != nil {
			t.Error(err)
		}
	})
}

// TestZRebuildGivesTheSameRows rebuilds the read models after everything above and compares them with the old.
func TestZRebuildGivesTheSameRows(t *testing.T) {
	tables := map[string]string{
		"deliveries":    "SELECT delivery_id, notification_id, user_id, lane, category, status, reason, channel, attempts, accepted_at, sent_at, delivered_at, read_at, settled_at FROM whisper.deliveries ORDER BY delivery_id",
		"attempts":      "SELECT delivery_id, attempt, channel, provider, outcome, reason, at FROM whisper.attempts ORDER BY delivery_id, attempt, at, outcome",
		"timeline":      `SELECT delivery_id, at, kind, detail, topic, "partition", "offset" FROM whisper.timeline ORDER BY topic, "partition", "offset"`,
		"notifications": "SELECT * FROM whisper.notifications ORDER BY notification_id",
	}
	eventually(t, "the projector has caught up", func() bool { return projectedAll(t) })
	before := map[string]string{}
	for name, sql := range tables {
		before[name] = digest(t, sql)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if out, err := sys.command(ctx, "project", "--rebuild").CombinedOutput(); err != nil {
		t.Fatalf("whisper project --rebuild: %v\n%s", err, out)
	}
	for name, sql := range tables {
		if after := digest(t, sql); after != before[name] {
			t.Errorf("%s: rows differ after the rebuild (%s, before %s)", name, after, before[name])
		}
	}
	// The projector goes on in the new tables.
	a := connect(t, "after", 1)
	send(t, "high", request{ID: "after-rebuild", To: to(a.users[0])})
	allSettled(t, "after", 1)
}

// projectedAll says that everything on the projected topics is in Postgres.
func projectedAll(t *testing.T) bool {
	t.Helper()
	ends, err := admin().ListEndOffsets(t.Context(), "whisper.events", "whisper.deliveries.high", "whisper.deliveries.normal", "whisper.deliveries.low")
	if err != nil {
		t.Fatal(err)
	}
	done := true
	ends.Each(func(o kadm.ListedOffset) {
		var next int64
		err := sys.db.QueryRow(t.Context(), `SELECT next_offset FROM whisper.checkpoints WHERE topic = $1 AND "partition" = $2`, o.Topic, o.Partition).Scan(&next)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			t.Fatal(err)
		}
		done = done && next == o.Offset
	})
	return done
}

// digest returns a count and a hash of all rows of a query.
func digest(t *testing.T, sql string) (d string) {
	t.Helper()
	err := sys.db.QueryRow(t.Context(), `SELECT count(*) || ' rows, ' || md5(coalesce(string_agg(r::text, E'\n'), '')) FROM (`+sql+`) r`).Scan(&d)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
