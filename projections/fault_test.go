package projections

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/whisperv1"
	"github.com/klivvr/whisper/embedded"
	"github.com/klivvr/whisper/migrations"
)

// deadLetters are the reasons on the dead-letter topic, by the position that they name.
func (l *eventLog) deadLetters(n int) map[string]string {
	l.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(l.brokers...), kgo.ConsumeTopics(consumers.TopicDeadLetters),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		l.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(l.t.Context(), 30*time.Second)
	defer cancel()
	got := map[string]string{}
	for len(got) < n {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			l.t.Fatalf("%d dead letters, want %d: %v", len(got), n, got)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			h := map[string]string{}
			for _, kv := range r.Headers {
				h[kv.Key] = string(kv.Value)
			}
			got[h["topic"]+"/"+h["partition"]+"/"+h["offset"]] = h["role"] + ": " + h["error"]
		})
	}
	return got
}

func TestBadRecordsGoToTheDeadLettersAndThePartitionGoesOn(t *testing.T) {
	t.Parallel()
	db, l := database(t), startLog(t)
	s := tell("n", "mona", now, 1)
	events := record(s.sent(time.Millisecond, 1, "socket"))
	at := func(value []byte) *kgo.Record {
		return &kgo.Record{Topic: events.Topic, Partition: events.Partition, Value: value}
	}
	nul := s.attemptFailed(time.Millisecond, 1, whisperv1.FailureClass_FAILURE_CLASS_DROP, "bad\x00word")
	short := s.read(time.Second)
	short.DeliveryId = short.DeliveryId[:7]
	wrong := s.read(time.Second)
	wrong.UserId = "omar"
	future := tell("n", "mona", now.Add(400*24*time.Hour), 1).read(time.Second)
	invalid := append([]byte{0x12, 2, 0xff, 0xfe}, record(s.read(time.Second)).Value...)
	l.put(record(s.accepted()), at([]byte("not protobuf")), at(nil), at(invalid), at(record(nul).Value), at(record(short).Value),
		at(record(wrong).Value), at(record(future).Value))
	l.put(events)
	start(t, config(l, db))
	caughtUp(t, l, db)
	got := l.deadLetters(7)
	for i, want := range []string{
		"not a whisper.v1.Event", "16 bytes, this one has 0", "not a whisper.v1.Event", "NUL byte",
		"this one has 7", "not the hash", "in the future",
	} {
		key := fmt.Sprintf("%s/%d/%d", events.Topic, events.Partition, i)
		if reason := got[key]; !strings.HasPrefix(reason, "project: ") || !strings.Contains(reason, want) {
			t.Errorf("dead letter of %s is %q, want %q", key, reason, want)
		}
	}
	if got := queryTexts(t, db, "SELECT status::text FROM whisper.deliveries"); len(got) != 1 || got[0] != "sent" {
		t.Errorf("deliveries %v", got)
	}
}

// Postgres may refuse what nobody thought of: here a rule that the test adds.
func TestOnlyWhatPostgresRefusesIsADeadLetter(t *testing.T) {
	t.Parallel()
	db, l := database(t), startLog(t)
	execSQL(t, db, "ALTER TABLE whisper.timeline ADD CHECK (detail->>'reason' IS DISTINCT FROM 'poison')")
	var poison *kgo.Record
	for i := range 200 {
		s := tell(fmt.Sprintf("n-%d", i), "mona", now, int64(i))
		l.put(record(s.accepted()))
		if i == 77 {
			poison = record(s.deferred(time.Millisecond, "poison"))
			l.put(poison)
		}
		l.put(record(s.sent(2*time.Millisecond, 1, "socket")))
	}
	start(t, config(l, db))
	caughtUp(t, l, db)
	got := l.deadLetters(1)
	key := fmt.Sprintf("%s/%d/%d", poison.Topic, poison.Partition, poison.Offset)
	if reason := got[key]; len(got) != 1 || !strings.Contains(reason, "23514") {
		t.Errorf("dead letters %v, want %s", got, key)
	}
	if got := queryTexts(t, db, "SELECT count(*)::text FROM whisper.deliveries WHERE status = 'sent'"); got[0] != "200" {
		t.Errorf("%s deliveries", got[0])
	}
}

func TestPostgresMayGoAwayAndComeBack(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	own, err := embedded.StartPostgres(t.Context(), embedded.PostgresConfig{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Stop(context.Background()) })
	if err := migrations.Up(t.Context(), own.URL(), nil); err != nil {
		t.Fatal(err)
	}
	l := startLog(t)
	r := start(t, config(l, own.URL()))
	const n = 300
	put := func(from, to int) {
		for i := from; i < to; i++ {
			s := tell(fmt.Sprintf("n-%d", i), fmt.Sprintf("user-%d", i), now, int64(i))
			l.put(record(s.accepted()), record(s.sent(time.Millisecond, 1, "apns")))
		}
	}
	put(0, n)
	caughtUp(t, l, own.URL())
	if err := own.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(n, 2*n)
	eventually(t, "it says that Postgres is away", func() bool { return r.Ready() != nil })
	again, err := embedded.StartPostgres(t.Context(), embedded.PostgresConfig{DataDir: dir, Port: own.Port()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = again.Stop(context.Background()) })
	caughtUp(t, l, again.URL())
	eventually(t, "it is ready again", func() bool { return r.Ready() == nil })
	for sql, want := range map[string]string{
		"SELECT count(*)::text FROM whisper.deliveries WHERE status = 'sent'": fmt.Sprint(2 * n),
		"SELECT count(*)::text FROM whisper.timeline":                         fmt.Sprint(4 * n),
		"SELECT count(*)::text FROM whisper.conservation":                     "0",
	} {
		if got := queryTexts(t, again.URL(), sql); got[0] != want {
			t.Errorf("%s: %s, want %s", sql, got[0], want)
		}
	}
	r.stop()
}

// stateDir is a folder that the user who runs Postgres for root can enter; t.TempDir is not.
func stateDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "whisper-projections-test-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func runFails(t *testing.T, cfg Config, parts ...string) {
	t.Helper()
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err = p.Run(ctx)
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}

func TestErrorsThatNeedAPersonEndTheRole(t *testing.T) {
	t.Parallel()
	l, db := startLog(t), database(t)
	with := func(change func(*url.URL)) Config {
		u, err := url.Parse(db)
		if err != nil {
			t.Fatal(err)
		}
		change(u)
		return config(l, u.String())
	}
	runFails(t, with(func(u *url.URL) { u.User = url.UserPassword("whisper", "wrong") }), "refuses the credentials", "postgres-url")
	runFails(t, with(func(u *url.URL) { u.Path = "/nowhere" }), "database does not exist")
	bare := fmt.Sprintf("bare_%d", databases.Add(1))
	execSQL(t, server.URL(), "CREATE DATABASE "+bare)
	runFails(t, with(func(u *url.URL) { u.Path = "/" + bare }), "run `whisper migrate`")
}

func TestTablesAheadOfTheLogStopTheRole(t *testing.T) {
	t.Parallel()
	l, db := startLog(t), database(t)
	execSQL(t, db, "INSERT INTO whisper.checkpoints VALUES ('whisper.events', 1, 1000)")
	runFails(t, config(l, db), "ahead of Kafka", "whisper.events/1", "offset 1000, the log ends at 0", "--rebuild")
}

func TestOffsetsThatKafkaRemovedAreSkippedAndCounted(t *testing.T) {
	t.Parallel()
	l, db := startLog(t), database(t)
	var last *kgo.Record
	for i := range 10 {
		last = record(tell(fmt.Sprintf("n-%d", i), "mona", now, int64(i)).sent(time.Millisecond, 1, "apns"))
		l.put(last)
	}
	var cut kadm.Offsets
	cut.AddOffset(last.Topic, last.Partition, 6, -1)
	if _, err := l.admin.DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	execSQL(t, db, fmt.Sprintf("INSERT INTO whisper.checkpoints VALUES ('whisper.events', %d, 2)", last.Partition))
	lost := consumers.RecordsLost(Group, last.Topic)
	before := lost.Get()
	cfg, said := config(l, db), &journal{}
	cfg.Logger = said.logger()
	start(t, cfg)
	caughtUp(t, l, db)
	if want := fmt.Sprintf("topic=whisper.events partition=%d first=2 last=5 offsets=4", last.Partition); !strings.Contains(said.String(),
		want) {
		t.Errorf("the log lacks %q:\n%s", want, said)
	}
	if got := queryTexts(t, db, "SELECT count(*)::text FROM whisper.deliveries"); got[0] != "4" {
		t.Errorf("%s deliveries, want the 4 that Kafka still has", got[0])
	}
	if got := lost.Get() - before; got != 4 {
		t.Errorf("%d offsets counted as lost, want 4", got)
	}
}
