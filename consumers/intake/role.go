// Package intake reads the records of upstream services. It validates requests, profile patches, templates and
// categories, writes a dead letter with the reason for each that is wrong, gives each request its id, and writes one
// delivery for each recipient, keyed by user. It keeps no state but the templates that it follows, so any number of
// processes share the work. It must not decide about a delivery: that is dispatch's.
//
// What it promises: a record's offset is committed only when all in-sync replicas have everything that follows from it
// (its deliveries, or a dead letter). After a crash in between Kafka hands the record out again, and intake writes the
// same deliveries with the same ids again; dispatch drops them. A record that is wrong, or that meets a bug (a panic),
// becomes a dead letter, and the next one is served. What stops a partition is Kafka: an answer that trying again can't
// mend, for example a topic that is missing or that the role may not write. The other partitions go on.
//
// What it costs: a request is parsed and encoded once, and each recipient costs a hash and a copy. It scales by the
// partitions of the request topics; one process handles the whole of a request.
package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/consumers/requests"
	"github.com/klivvr/whisper/domain"
)

// Group is the consumer group of all intake processes.
const Group = "whisper-intake"

// Config of the role.
type Config struct {
	Client consumers.ClientConfig
	// Partitions of the topics keyed by user id.
	Partitions int32
	// CommitInterval is how often offsets are committed (default 1 s).
	CommitInterval time.Duration
	// TemplateWait bounds how long a request waits for a template that was written just before it
	// (default 2 s). Only what its partition holds waits with it.
	TemplateWait time.Duration
	Now          func() time.Time
	Logger       *slog.Logger
}

// Validate names every problem of the settings.
func (c Config) Validate() error {
	var errs []error
	if c.Partitions < 1 {
		errs = append(errs, fmt.Errorf("partitions: %d is out of range: give at least 1", c.Partitions))
	}
	if c.TemplateWait < 0 || c.TemplateWait > time.Minute {
		errs = append(errs, fmt.Errorf("template-wait: %s is out of range: give more than 0s, at most 1m", c.TemplateWait))
	}
	return errors.Join(append(errs, c.Client.Validate())...)
}

func (c *Config) setDefaults() {
	if c.TemplateWait == 0 {
		c.TemplateWait = 2 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// A partition's bounds are small, since intake has four topics' partitions at once: at 96 of each, all
// of them backlogged on one process, they come to 190 MB and the fetches that overshoot.
const (
	bufferedRecords = 1_000
	bufferedBytes   = 512 << 10
)

// Role is one intake process.
type Role struct {
	cfg       Config
	loops     consumers.Loops // that of the high lane, that of the rest
	outlets   *outlets
	turns     *requests.Turns
	reader    *consumers.Reader
	templates *requests.Catalogue
	takers    [len(domain.Lanes)]*requests.Taker
	metrics   *roleMetrics
	ready     atomic.Bool // the templates are known
}

// New makes the role; Run starts it and closes what New opened.
func New(cfg Config) (*Role, error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r := &Role{cfg: cfg, metrics: newRoleMetrics(), turns: requests.NewTurns(requests.Processors())}
	var err error
	if r.outlets, err = newOutlets(cfg.Client); err != nil {
		return nil, err
	}
	if r.reader, err = consumers.NewReader(cfg.Client); err != nil {
		r.outlets.close()
		return nil, err
	}
	if r.templates, err = requests.NewCatalogue(cfg.Client, cfg.TemplateWait, cfg.Logger); err != nil {
		r.outlets.close()
		r.reader.Close()
		return nil, err
	}
	for _, lane := range domain.Lanes {
		r.takers[lane] = requests.NewTaker(lane, cfg.Partitions, r.templates, cfg.Now)
	}
	if err := errors.Join(r.consume(cfg.Client.ForLane(domain.High), urgentTopics(), urgentTopics()),
		r.consume(cfg.Client, topics(), topics()[2:])); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *Role) close() {
	r.outlets.close()
	r.reader.Close()
	r.templates.Close()
}

// consume adds a loop. renewable is what no process holds in memory.
func (r *Role) consume(client consumers.ClientConfig, topics, renewable []string) error {
	loop, err := consumers.NewLoop(consumers.LoopConfig{
		Client:             client,
		Group:              Group,
		Topics:             topics,
		Renewable:          renewable,
		Handler:            r,
		MaxBufferedRecords: bufferedRecords,
		MaxBufferedBytes:   bufferedBytes,
		CommitInterval:     r.cfg.CommitInterval,
	})
	if err != nil {
		return err
	}
	r.loops = append(r.loops, loop)
	return nil
}

// urgentTopics have a consumer of their own, which is a member of the same group: what the others fetch, and a broker
// that throttles them, holds up no alert.
func urgentTopics() []string { return []string{consumers.TopicRequests(domain.High)} }

// topics are the rest of what the group shares. The templates are among them so that a bad one becomes one dead
// letter; every process follows them besides.
func topics() []string {
	all := []string{consumers.TopicTemplates, consumers.TopicCategories, consumers.TopicProfiles}
	for _, lane := range []domain.Lane{domain.Normal, domain.Low} {
		all = append(all, consumers.TopicRequests(lane))
	}
	return all
}

// Run takes records until ctx ends, then finishes what it took: no more polling, everything
// acknowledged, committed, the group left. It takes none before it knows all templates. An error means
// that Kafka refuses something for good; it ends the process.
func (r *Role) Run(ctx context.Context) error {
	defer r.close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.outlets.run(ctx) })
	g.Go(func() error { return r.reader.Run(ctx) })
	g.Go(func() error {
		if err := r.followTemplates(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		return r.loops.Run(ctx)
	})
	return g.Wait()
}

// Ready is nil while requests are taken.
func (r *Role) Ready() error {
	if !r.ready.Load() {
		return errors.New("intake: the templates are still being read")
	}
	return errors.Join(r.outlets.ready(), r.loops.Ready())
}

// Stopped are the partitions that can't go on, and why.
func (r *Role) Stopped() []consumers.Stopped { return r.loops.Stopped() }

// Retry tries the stopped partitions again now and says how many there are.
func (r *Role) Retry() int { return r.loops.Retry() }

// Open makes the feed of an assigned partition. It restores nothing.
func (r *Role) Open(_ context.Context, p *consumers.Partition) (consumers.Feed, error) {
	f := r.newFeed(p)
	f.writer.Out, f.writer.Work = r.outlets.rest, r.turns.Worker(domain.Normal)
	switch p.Topic {
	case consumers.TopicProfiles:
		f.take = r.profilesOf(p)
	case consumers.TopicTemplates:
		f.take = r.takeTemplate
	case consumers.TopicCategories:
		f.take = r.takeCategory
	default:
		lane, err := consumers.LaneOfTopic(p.Topic)
		if err != nil {
			return nil, fmt.Errorf("topic %s: %w", p.Topic, err)
		}
		f.take, f.writer.Out, f.writer.Work = r.takers[lane].Take, r.outlets.lanes[lane], r.turns.Worker(lane)
	}
	return f, nil
}
