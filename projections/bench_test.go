package projections

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/migrations"
)

// benchParts is as many user partitions as a production cluster has by default.
const benchParts = 96

// benchFacts is one log: deliveries of one recipient each, three facts a delivery (accepted, sent,
// delivered), spread over the partitions and over two hours. The facts of one delivery lie near each
// other, as they do in life.
func benchFacts(deliveries int) map[string]map[int32][]*kgo.Record {
	rng := rand.New(rand.NewPCG(1, 2))
	log := map[string]map[int32][]*kgo.Record{}
	add := func(rec *kgo.Record, partition int32) {
		rec.Partition = partition
		if log[rec.Topic] == nil {
			log[rec.Topic] = map[int32][]*kgo.Record{}
		}
		rec.Offset = int64(len(log[rec.Topic][partition]))
		log[rec.Topic][partition] = append(log[rec.Topic][partition], rec)
	}
	for i := range deliveries {
		user := fmt.Sprintf("user-%d", rng.IntN(1_000_000))
		s := tell(fmt.Sprintf("pay-%d", i), user, now.Add(time.Duration(i)*2*time.Hour/time.Duration(deliveries)), int64(i))
		partition := int32(rng.IntN(benchParts))
		add(record(s.accepted()), partition)
		add(record(s.sent(10*time.Millisecond, 1, domain.ChannelSocket)), partition)
		add(record(s.delivered(time.Duration(20+rng.IntN(500))*time.Millisecond, 1)), partition)
	}
	return log
}

// BenchmarkProjector gives facts/s of the whole way from records to commits, Kafka left out, beside its
// floors in the same run, on the same server: a bare COPY of timeline rows into a table with a key and two
// indexes, and a bare UNNEST upsert of deliveries.
//
//	go test ./projections -run '^$' -bench Projector -benchtime 1x -count 5
func BenchmarkProjector(b *testing.B) {
	const deliveries = 100_000
	for _, live := range []bool{false, true} {
		name := "catching up"
		if live {
			name = "facts of a delivery in different transactions"
		}
		b.Run(name, func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				log := benchFacts(deliveries)
				db := database(b)
				b.StartTimer()
				took := project(b, db, log, live)
				b.ReportMetric(3*deliveries/took.Seconds(), "facts/s")
			}
		})
	}
}

// project runs writers over a log in memory. Live: every delivery's facts come in three rounds, so that
// none is folded before Postgres.
func project(b *testing.B, db string, log map[string]map[int32][]*kgo.Record, live bool) time.Duration {
	cfg := Config{PostgresURL: db, Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return now.Add(2 * time.Hour) }}
	cfg.setDefaults()
	st, err := openStore(db, migrations.Schema, int32(cfg.Writers)+2)
	if err != nil {
		b.Fatal(err)
	}
	defer st.close()
	m := newMeters()
	writers, room := newWriters(cfg, st, m, nil)
	var feeds []*feed
	var records [][]*kgo.Record
	for topic, partitions := range log {
		for id, recs := range partitions {
			if err := st.begin(b.Context(), topic, id, 0); err != nil {
				b.Fatal(err)
			}
			f := &feed{
				writer: writers[int(id)%len(writers)], log: cfg.Logger, meters: m, now: func() ages { return ages{cfg.Now(), cfg.Now()} },
				keep: cfg.keep(), room: room, size: roomOf(cfg),
			}
			f.src = &source{topic: topic, partition: id, gone: f.gone.Load, moved: func(int64) {}}
			feeds, records = append(feeds, f), append(records, recs)
		}
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var writing errgroup.Group
	for _, w := range writers {
		writing.Go(func() error { return w.run(ctx) })
	}
	start := time.Now()
	var reading errgroup.Group
	for i, f := range feeds {
		reading.Go(func() error {
			step := 500
			if live { // a transaction holds about a tenth of a second of each partition
				step = 70
			}
			for recs := records[i]; len(recs) > 0; {
				n := min(step, len(recs))
				if err := f.Handle(ctx, recs[:n]); err != nil {
					return err
				}
				recs = recs[n:]
			}
			return f.Close(ctx)
		})
	}
	if err := reading.Wait(); err != nil {
		b.Fatal(err)
	}
	took := time.Since(start)
	cancel()
	if err := writing.Wait(); err != nil {
		b.Fatal(err)
	}
	return took
}

func BenchmarkFloorCopy(b *testing.B) {
	const rows = 300_000
	for range b.N {
		b.StopTimer()
		conn := benchTable(b, `CREATE TABLE bare (id uuid NOT NULL, at timestamptz NOT NULL, kind text NOT NULL, detail jsonb NOT NULL, topic text NOT NULL, partition int4 NOT NULL, "offset" int8 NOT NULL, PRIMARY KEY (topic, partition, "offset"));
			CREATE INDEX ON bare (id); CREATE INDEX ON bare (at)`)
		var batches []*copyRows
		for i := range rows {
			if i%20_000 == 0 {
				batches = append(batches, newCopy(7, 4<<20))
			}
			s := tell(fmt.Sprintf("pay-%d", i), "mona", now, int64(i))
			ev := s.delivered(time.Millisecond, 1)
			c := batches[len(batches)-1].add()
			c.uuid(s.id())
			c.int8(ev.GetAtUs() - pgEpochUS)
			c.text("delivery_delivered")
			c.raw(appendDetail([]byte{1}, ev))
			c.text("whisper.events")
			c.int4(int32(i % benchParts))
			c.int8(int64(i))
		}
		b.StartTimer()
		start := time.Now()
		for _, batch := range batches {
			batch.field = append(batch.field, copyTrailer...)
			if _, err := conn.PgConn().CopyFrom(b.Context(), bytes.NewReader(batch.field), "COPY bare FROM STDIN (FORMAT binary)"); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(rows/time.Since(start).Seconds(), "rows/s")
	}
}

func BenchmarkFloorUpsert(b *testing.B) {
	const rows = 100_000
	for range b.N {
		b.StopTimer()
		conn := benchTable(b, `CREATE TABLE bare (id uuid PRIMARY KEY, notification_id text NOT NULL, user_id text NOT NULL, status int4 NOT NULL, at timestamptz NOT NULL)`)
		var batches []*columns
		for i := range rows {
			if i%7_000 == 0 {
				batches = append(batches, arrays(oidUUID, oidText, oidText, oidInt4, oidTimestamp))
			}
			s := tell(fmt.Sprintf("pay-%d", i), "mona", now, int64(i))
			f := batches[len(batches)-1].add()
			f[0].uuid(s.id())
			f[1].text(s.notification)
			f[2].text(s.user)
			f[3].int4(int32(i % 11))
			f[4].int8(s.requested.UnixMicro() - pgEpochUS)
		}
		const sql = `INSERT INTO bare SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::int4[], $5::timestamptz[])
			ON CONFLICT (id) DO UPDATE SET status = greatest(bare.status, EXCLUDED.status), at = EXCLUDED.at`
		if _, err := conn.Prepare(b.Context(), "upsert", sql); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		start := time.Now()
		for _, batch := range batches {
			if res := conn.PgConn().ExecPrepared(b.Context(), "upsert", batch.params(), []int16{1}, nil).Read(); res.Err != nil {
				b.Fatal(res.Err)
			}
		}
		b.ReportMetric(rows/time.Since(start).Seconds(), "rows/s")
	}
}

func benchTable(b *testing.B, sql string) *pgx.Conn {
	conn, err := pgx.Connect(b.Context(), server.URL())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close(context.Background()) })
	if _, err := conn.Exec(b.Context(), "DROP TABLE IF EXISTS bare; "+sql); err != nil {
		b.Fatal(err)
	}
	return conn
}
