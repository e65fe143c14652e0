package projections

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// watchEvery is how often Postgres is asked for a sign of life, and Kafka where its log ends.
	watchEvery = 2 * time.Second
	// silentAfter is how long Postgres may say nothing, to a transaction or to the question above, before it counts as
	// away. A server that was stopped or lost keeps its connections open, so nothing else tells.
	silentAfter = 15 * time.Second
	// stalledAfter is how long nothing may be committed although records wait, before the role is not ready.
	stalledAfter = time.Minute
)

// A watch knows how far this process is behind and whether anything moves. It knows of the process's own partitions only, so
// that the lags of all projectors add up to that of the group.
type watch struct {
	answered  atomic.Int64 // Unix nanoseconds: when Postgres answered last
	committed atomic.Int64 // when a writer committed last
	behind    atomic.Int64 // nanoseconds: how far the server's clock is behind ours; 0 when it is ahead

	mu       sync.Mutex
	feeds    map[*feed]*lagging
	lag      int64     // records
	lagSince time.Time // since when there has been some, without a break
}

// lagging is one partition as the watch saw it last.
type lagging struct {
	level time.Time // when it had all of the log; at first when it was opened
	lag   int64
}

func newWatch() *watch { return &watch{feeds: map[*feed]*lagging{}} }

func (w *watch) open(f *feed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.feeds[f] = &lagging{level: time.Now()}
}

func (w *watch) close(f *feed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.feeds, f)
}

func (w *watch) answer() { w.answered.Store(time.Now().UnixNano()) }

func (w *watch) commit() {
	now := time.Now().UnixNano()
	w.answered.Store(now)
	w.committed.Store(now)
}

// compare takes up where the log ends.
func (w *watch) compare(end func(topic string, partition int32) (int64, bool)) (records int64, behind time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for f, l := range w.feeds {
		if end, ok := end(f.src.topic, f.src.partition); ok {
			l.lag = max(end-f.src.written.Load(), 0)
		}
		if l.lag == 0 {
			l.level = now
			continue
		}
		records += l.lag
		// What waits is younger than the last record that was written, and than the time when nothing waited.
		from := l.level
		if last := time.UnixMilli(f.src.lastMs.Load()); last.After(from) {
			from = last
		}
		behind = max(behind, now.Sub(from))
	}
	switch {
	case records == 0:
		w.lagSince = time.Time{}
	case w.lag == 0 || w.lagSince.IsZero():
		w.lagSince = now
	}
	w.lag = records
	return records, behind
}

// silent is for how long Postgres has said nothing, if that is too long.
func (w *watch) silent() (time.Duration, bool) {
	quiet := time.Since(time.Unix(0, w.answered.Load()))
	return quiet, quiet > silentAfter
}

// stalled is an error when nothing has been committed for a while although records wait.
func (w *watch) stalled() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lag == 0 {
		return nil
	}
	since := w.lagSince
	if last := time.Unix(0, w.committed.Load()); last.After(since) {
		since = last
	}
	if quiet := time.Since(since); quiet > stalledAfter {
		return fmt.Errorf("nothing was written for %s, although %d records wait", quiet.Round(time.Second), w.lag)
	}
	return nil
}

// now is the clock for what is old: ours, or Postgres's where that is behind it. A clock that is ahead would call everything old.
func (w *watch) now(own time.Time) time.Time { return own.Add(-time.Duration(w.behind.Load())) }

func (w *watch) serverClock(own, server time.Time) {
	w.behind.Store(int64(max(own.Sub(server), 0)))
}

// watching keeps the watch, and the metrics that are made from it, up to date.
func (p *Projector) watching(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var before *pgxpool.Stat
	for {
		p.look(ctx)
		now := p.store.pool.Stat()
		p.meters.pool(before, now)
		before = now
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (p *Projector) look(ctx context.Context) {
	asking, cancel := context.WithTimeout(ctx, 2*watchEvery)
	defer cancel()
	var g sync.WaitGroup
	g.Go(func() { p.askPostgres(asking) })
	g.Go(func() { p.askKafka(asking) })
	g.Wait()
	up := 1.0
	if _, silent := p.watch.silent(); silent || p.down() != nil {
		up = 0
	}
	p.meters.up.Set(up)
	if at := p.watch.committed.Load(); at > 0 {
		p.meters.committed.Set(float64(at) / 1e9)
	}
}

// askPostgres has a connection of its own: those of the pool may all be waiting for an answer.
func (p *Projector) askPostgres(ctx context.Context) {
	server, err := p.store.serverTime(ctx)
	if err != nil {
		return // what is silent for long is told by Ready
	}
	p.watch.answer()
	p.watch.serverClock(p.cfg.Now(), server)
}

func (p *Projector) askKafka(ctx context.Context) {
	ends, err := p.admin.ListCommittedOffsets(ctx, topics()...) // further nobody can read
	if err != nil {
		return // Kafka's absence is the loop's to tell; the lag stays what it was
	}
	records, behind := p.watch.compare(func(topic string, partition int32) (int64, bool) {
		o, ok := ends.Lookup(topic, partition)
		return o.Offset, ok && o.Err == nil
	})
	p.meters.lagRecords.Set(float64(records))
	p.meters.lagSeconds.Set(behind.Seconds())
}

// down is what keeps a writer from writing.
func (p *Projector) down() error {
	for _, w := range p.writers {
		if err := w.down.Load(); err != nil {
			return *err
		}
	}
	return nil
}

// Ready is nil when Postgres answers, the schema is current, the partitions are open and what is read is written.
func (p *Projector) Ready() error {
	p.mu.Lock()
	checked := p.checked
	p.mu.Unlock()
	if !checked {
		return errors.New("postgres: not reached yet")
	}
	if err := p.down(); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	if quiet, silent := p.watch.silent(); silent {
		return fmt.Errorf("postgres: no answer for %s", quiet.Round(time.Second))
	}
	if err := p.watch.stalled(); err != nil {
		return err
	}
	return errors.Join(p.loop.Ready(), p.publisher.Ready())
}
