package projections

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/klivvr/whisper/migrations"
	"github.com/klivvr/whisper/projections/postgres"
)

// A RebuildPlan is what a rebuild would do.
type RebuildPlan struct {
	// Offsets is how many offsets are read from Kafka: of facts, or of the markers of transactions.
	Offsets int64
	// Lost are offsets that the served tables are past and Kafka no longer has: of facts, or of the markers of transactions. What is gone
	// can't be asked which.
	Lost int64
	// Carried are the days, as 2006-01-02, that stay as they are, since the log no longer has all of their facts.
	Carried []string
	// Rebuilt are the served days that are made anew.
	Rebuilt []string
}

// PlanRebuild says what [Rebuild] would do, and does nothing.
func PlanRebuild(ctx context.Context, cfg RebuildConfig) (RebuildPlan, error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return RebuildPlan{}, err
	}
	if err := migrations.Check(ctx, cfg.PostgresURL); err != nil {
		return RebuildPlan{}, postgres.Explain(err)
	}
	r := newRebuild(cfg)
	defer r.close()
	if err := r.connect(ctx); err != nil {
		return RebuildPlan{}, postgres.Explain(err)
	}
	if err := r.plan(ctx); err != nil {
		return RebuildPlan{}, postgres.Explain(err)
	}
	p := RebuildPlan{Lost: r.lost}
	r.ends.Each(func(end kadm.ListedOffset) {
		start, _ := r.starts.Lookup(end.Topic, end.Partition)
		p.Offsets += max(end.Offset-start.Offset, 0)
	})
	days, err := r.old.allDays(ctx)
	if err != nil {
		return RebuildPlan{}, postgres.Explain(err)
	}
	for _, day := range days {
		name := dayTime(day).Format(time.DateOnly)
		if r.carried[day] {
			p.Carried = append(p.Carried, name)
		} else {
			p.Rebuilt = append(p.Rebuilt, name)
		}
	}
	return p, nil
}

// plan finds out what the log still has, and which days hold facts that it has no more: those are carried over.
func (r *rebuild) plan(ctx context.Context) error {
	known, err := r.knownCheckpoints(ctx)
	if err != nil {
		return err
	}
	if r.starts, r.ends, err = bounds(ctx, r.admin.ListStartOffsets, r.admin.ListCommittedOffsets, topics()); err != nil {
		return err
	}
	r.ends.Each(func(end kadm.ListedOffset) {
		if r.ahead[end.Topic] == nil {
			r.ahead[end.Topic] = map[int32]bool{}
		}
		r.ahead[end.Topic][end.Partition] = known[end.Topic][end.Partition] > end.Offset
	})
	served := known
	r.lost = 0
	r.starts.Each(func(o kadm.ListedOffset) { r.lost += min(o.Offset, served[o.Topic][o.Partition]) })
	if r.lost == 0 || r.cfg.AllowTruncated {
		return nil
	}
	days, err := r.old.allDays(ctx)
	if err != nil {
		return err
	}
	topics, ids, starts := r.firstOffsets()
	for _, day := range days {
		var gone bool
		if err := r.lock.QueryRow(ctx, r.old.sql(`
			SELECT EXISTS (
				SELECT FROM $.timeline AS l JOIN unnest($2::text[], $3::int4[], $4::int8[]) AS s(topic, partition, start) USING (topic, partition)
				WHERE l.day = $1 AND l."offset" < s.start)`), dayTime(day), topics, ids, starts).Scan(&gone); err != nil {
			return fmt.Errorf("look for what the log has lost of %s: %w", dayTime(day).Format(time.DateOnly), err)
		}
		if gone {
			r.carried[day] = true
		}
	}
	return r.carryMonths(ctx)
}

// carryMonths carries all days of a month over whose table has one that is: they can't be parted.
func (r *rebuild) carryMonths(ctx context.Context) error {
	spans, err := r.old.spans(ctx)
	if err != nil {
		return err
	}
	for _, sp := range spans {
		if sp.month() && slices.ContainsFunc(sp.days(), func(day int32) bool { return r.carried[day] }) {
			for _, day := range sp.days() {
				r.carried[day] = true
			}
		}
	}
	return nil
}

// firstOffsets are where the log begins, partition by partition.
func (r *rebuild) firstOffsets() (topics []string, ids []int32, starts []int64) {
	r.starts.Each(func(o kadm.ListedOffset) {
		topics, ids, starts = append(topics, o.Topic), append(ids, o.Partition), append(starts, o.Offset)
	})
	return topics, ids, starts
}

// served are the checkpoints of the served tables, as far as the log reaches; where the tables have none, the log's end. The new tables are
// read up to there and never further: then both are the same fold, and days may stand side by side.
func (r *rebuild) served(ctx context.Context) (map[string]map[int32]int64, error) {
	known, err := r.knownCheckpoints(ctx)
	if err != nil {
		return nil, err
	}
	all := map[string]map[int32]int64{}
	r.ends.Each(func(end kadm.ListedOffset) {
		if all[end.Topic] == nil {
			all[end.Topic] = map[int32]int64{}
		}
		next, ok := known[end.Topic][end.Partition]
		if !ok || r.ahead[end.Topic][end.Partition] { // of a topic that was made anew the tables hold what is nowhere else
			next = end.Offset
		}
		all[end.Topic][end.Partition] = next
	})
	return all, nil
}

func (r *rebuild) knownCheckpoints(ctx context.Context) (map[string]map[int32]int64, error) {
	known, err := r.old.checkpoints(ctx)
	if noTable(err) {
		r.interrupted = true
		return r.swappingCheckpoints(ctx)
	}
	return known, err
}

// swappingCheckpoints are those of a swap that was interrupted.
func (r *rebuild) swappingCheckpoints(ctx context.Context) (map[string]map[int32]int64, error) {
	rows, err := r.lock.Query(ctx, r.old.sql("SELECT topic, partition, next_offset FROM $."+swapping))
	if err != nil {
		return nil, fmt.Errorf("read the checkpoints of a rebuild that was interrupted: %w", err)
	}
	all := map[string]map[int32]int64{}
	var topic string
	var partition int32
	var next int64
	_, err = pgx.ForEachRow(rows, []any{&topic, &partition, &next}, func() error {
		if all[topic] == nil {
			all[topic] = map[int32]int64{}
		}
		all[topic][partition] = next
		return nil
	})
	return all, err
}
