package cluster_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/embedded"
	"github.com/klivvr/whisper/integration/cluster"
)

// victimEnv makes this test binary a test run for a test to kill.
const victimEnv = "WHISPER_CLUSTER_VICTIM"

func TestMain(m *testing.M) {
	embedded.RunIfPostgresHost()
	if os.Getenv(victimEnv) != "" {
		c, err := cluster.Start(context.Background(), cluster.Options{})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(c.Kafka[0], c.Postgres)
		select {}
	}
	os.Exit(m.Run())
}

func produce(ctx context.Context, t *testing.T, c *cluster.Cluster, topic, value string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Kafka...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(ctx, 1, 1, nil, topic); err != nil && !strings.Contains(err.Error(), "EXISTS") {
		t.Fatalf("create topic: %v", err)
	}
	if err := client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr(); err != nil {
		t.Fatalf("produce: %v", err)
	}
}

// consume reads n records with a group of its own, so that group coordination is exercised too.
func consume(ctx context.Context, t *testing.T, c *cluster.Cluster, topic string, n int) string {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Kafka...), kgo.ConsumeTopics(topic),
		kgo.ConsumerGroup(fmt.Sprintf("%s-%d", topic, n)), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var got []string
	for len(got) < n {
		fs := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("consume: %v after %q", ctx.Err(), got)
		}
		fs.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	return strings.Join(got, " ")
}

func query(ctx context.Context, t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(got, " ")
}

func TestCluster(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	began := time.Now()
	c, err := cluster.Start(ctx, cluster.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	t.Logf("%s cluster started in %v", c.Kind, time.Since(began).Round(time.Millisecond))

	for name, stop := range map[string]func(context.Context) error{"clean": c.StopKafka, "SIGKILL": c.KillKafka} {
		t.Run("Kafka keeps records through a restart, "+name, func(t *testing.T) {
			topic := "restart-" + name
			produce(ctx, t, c, topic, "before")
			if got := consume(ctx, t, c, topic, 1); got != "before" {
				t.Fatalf("read %q", got)
			}
			restart(ctx, t, stop, c.StartKafka)
			produce(ctx, t, c, topic, "after")
			if got := consume(ctx, t, c, topic, 2); got != "before after" {
				t.Errorf("read %q", got)
			}
		})
	}
	for name, stop := range map[string]func(context.Context) error{"clean": c.StopPostgres, "SIGKILL": c.KillPostgres} {
		t.Run("Postgres keeps rows through a restart, "+name, func(t *testing.T) {
			db, err := c.NewDatabase(ctx)
			if err != nil {
				t.Fatal(err)
			}
			query(ctx, t, db, "create table kept as select 'before' as kept")
			restart(ctx, t, stop, c.StartPostgres)
			query(ctx, t, db, "insert into kept values ('after')")
			if got := query(ctx, t, db, "select kept from kept order by kept desc"); got != "before after" {
				t.Errorf("read %q", got)
			}
		})
	}
}

func restart(ctx context.Context, t *testing.T, stop, start func(context.Context) error) {
	t.Helper()
	err := stop(ctx)
	if errors.Is(err, cluster.ErrNotOurs) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("started again in %v", time.Since(began).Round(time.Millisecond))
}

// A test run that is killed must not leave a broker or a server on the machine.
func TestNothingOutlivesAKilledTestRun(t *testing.T) {
	if os.Getenv("WHISPER_TEST_KAFKA") != "" || os.Getenv("WHISPER_TEST_POSTGRES") != "" {
		t.Skip("the cluster is not the test's")
	}
	// It can't remove its folders. t.TempDir is closed to the user who runs Postgres for root.
	tmp, err := os.MkdirTemp("", "whisper-victim-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(tmp) })
	if err := os.Chmod(tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	victim := exec.CommandContext(t.Context(), os.Args[0])
	victim.Env = append(os.Environ(), victimEnv+"=1", "TMPDIR="+tmp)
	victim.Stderr = os.Stderr
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	kafka, postgres, _ := strings.Cut(strings.TrimSpace(line), " ")
	if err != nil || postgres == "" {
		t.Fatalf("the run to kill said %q: %v", line, err)
	}
	_ = victim.Process.Kill()
	_ = victim.Wait()

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, pgErr := pgx.Connect(ctx, postgres)
		client, err := kgo.NewClient(kgo.SeedBrokers(kafka), kgo.RequestRetries(0))
		if err != nil {
			t.Fatal(err)
		}
		kafkaErr := client.Ping(ctx)
		client.Close()
		if pgErr != nil && kafkaErr != nil && ctx.Err() == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("30 s later Kafka's error is %v, Postgres's %v; want both gone", kafkaErr, pgErr)
		}
	}
}
