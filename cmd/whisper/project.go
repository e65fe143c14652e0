package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/ops"
	"github.com/klivvr/whisper/projections"
)

type projectCmd struct {
	Rebuild            bool          `group:"project" help:"Fill the tables anew from Kafka beside the served ones, swap them, and end; projectors may go on meanwhile."`
	AllowTruncated     bool          `group:"project" help:"With --rebuild: build the tables from Kafka alone; days of which it no longer has everything are dropped instead of kept as they are."`
	DryRun             bool          `group:"project" help:"With --rebuild: say which days would be rebuilt and which would stay as they are, and end."`
	KeepOld            bool          `group:"project" help:"With --rebuild: keep the daily tables that were served before in the schema whisper_old."`
	RetentionDays      int           `default:"30" placeholder:"DAYS" group:"project" help:"How long deliveries are kept (default ${default})."`
	MaxDropDays        int           `default:"3" placeholder:"N" group:"project" help:"How many days that are too old may be dropped at once; when there are more, none is (default ${default})."`
	TransactionTimeout time.Duration `default:"1m" placeholder:"DURATION" group:"project" help:"How long Postgres may take for a transaction before it is tried again, with twice as long each time (default ${default})."`
	Writers            int           `default:"2" placeholder:"N" group:"project" help:"Transactions at once while there is much to catch up, otherwise they take turns (default ${default})."`
	BatchFacts         int           `default:"20000" placeholder:"N" group:"project" help:"Facts of one transaction at most (default ${default})."`
	BatchWait          time.Duration `default:"250ms" placeholder:"DURATION" group:"project" help:"How long facts are gathered, and so how far the tables are behind: at rest this, four times as long while much comes (default ${default})."`
	Health             healthFlags   `embed:"" group:"health"`
	Postgres           postgresFlags `embed:"" group:"postgres"`
	Role               roleFlags     `embed:""`
}

// healthFlags are when /v1/health says degraded.
type healthFlags struct {
	MaxWaitHigh      time.Duration `default:"5s" placeholder:"DURATION" help:"How old the oldest waiting record of the lane high may be (default ${default})."`
	MaxWaitNormal    time.Duration `default:"30s" placeholder:"DURATION" help:"The same for the lane normal (default ${default})."`
	MaxWaitLow       time.Duration `default:"5m" placeholder:"DURATION" help:"The same for the lane low (default ${default})."`
	MaxProjectionLag time.Duration `default:"1m" placeholder:"DURATION" help:"How old the oldest record may be that the tables lack (default ${default})."`
	MaxErrorRate     float64       `default:"0.05" placeholder:"RATIO" help:"Part of the last 5 minutes' attempts that may fail (default ${default})."`
	MaxUtilization   float64       `default:"0.8" placeholder:"RATIO" help:"How full a node may be (default ${default})."`
}

func (f healthFlags) config() ops.HealthConfig {
	return ops.HealthConfig{
		MaxWait:          map[domain.Lane]time.Duration{domain.High: f.MaxWaitHigh, domain.Normal: f.MaxWaitNormal, domain.Low: f.MaxWaitLow},
		MaxProjectionLag: f.MaxProjectionLag, MaxErrorRate: f.MaxErrorRate, MaxUtilization: f.MaxUtilization,
	}
}

// Help implements kong.HelpProvider.
func (c *projectCmd) Help() string {
	return `Folds facts into the tables that analysts read, and answers /v1/health. Examples:

    whisper project --kafka kafka:9092 --postgres postgres://whisper@db/whisper
    whisper project --rebuild`
}

func (c *projectCmd) config() projections.Config {
	return projections.Config{
		Kafka: c.Role.client("project", nil), PostgresURL: c.Postgres.Postgres,
		RetentionDays: c.RetentionDays, MaxDropDays: c.MaxDropDays, TransactionTimeout: c.TransactionTimeout, Writers: c.Writers, BatchFacts: c.BatchFacts, BatchWait: c.BatchWait,
	}
}

func (c *projectCmd) Check() error {
	errs := []error{c.Role.Check(), c.Postgres.Check()}
	cfg, health := c.config(), c.Health.config()
	if errs[1] != nil {
		cfg.PostgresURL = "postgres://" // told above, in our words
	}
	health.Client = cfg.Kafka
	errs = append(errs, cfg.Validate(), health.Validate())
	if c.Health.MaxProjectionLag <= 0 {
		errs = append(errs, fmt.Errorf("max-projection-lag: %s is not a positive duration", c.Health.MaxProjectionLag))
	}
	if !c.Rebuild && (c.AllowTruncated || c.KeepOld || c.DryRun) {
		errs = append(errs, errors.New("rebuild: allow-truncated, keep-old and dry-run are for a rebuild"))
	}
	return distinct(errors.Join(errs...))
}

func (c *projectCmd) Run(ctx context.Context, p *process) error {
	if c.Rebuild {
		return c.rebuild(ctx, p)
	}
	return c.Role.run(ctx, p, "project", func(ctx context.Context, r role) ([]component, error) {
		return projectRole(ctx, r, c.config(), c.Health.config())
	})
}

// projectRole builds the projector and the health document, which stand on the same tables.
func projectRole(ctx context.Context, r role, cfg projections.Config, health ops.HealthConfig) ([]component, error) {
	cfg.Kafka, cfg.Now, cfg.Logger = r.client, r.now, r.log
	reader, err := projections.OpenReader(ctx, cfg.PostgresURL)
	if err != nil {
		return nil, err
	}
	health.Client, health.Now, health.Logger = r.client, r.now, r.log
	health.Attempts = func(ctx context.Context, window time.Duration) (ops.AttemptCounts, error) {
		h, err := reader.Health(ctx, window)
		return ops.AttemptCounts{OK: h.OK, Failed: h.Failed, Window: h.Window}, err
	}
	health.Projected, health.PushGroup = reader.Checkpoints, push.Group
	monitor, err := ops.NewHealthMonitor(health)
	if err != nil {
		reader.Close()
		return nil, err
	}
	projector, err := projections.New(cfg)
	if err != nil {
		reader.Close()
		return nil, err
	}
	r.server.Handle("GET /v1/health", monitor)
	r.server.Partitions("project", projector)
	watch := func(ctx context.Context) error {
		defer reader.Close()
		return monitor.Run(ctx)
	}
	return []component{{"project", projector.Run, projector.Ready}, {"health", watch, monitor.Ready}}, nil
}

// rebuild waits for Kafka like a role does, since it is a role's work.
func (c *projectCmd) rebuild(ctx context.Context, p *process) error {
	cfg := c.config()
	cfg.Logger = p.log
	cfg.Kafka = c.Role.client("rebuild", p.log)
	if err := cfg.Kafka.Await(ctx); err != nil {
		return err
	}
	if c.DryRun {
		return c.plan(ctx, p, cfg)
	}
	line := progressLine{what: "rebuild", of: "offsets", w: raw(p.stdout), live: ops.IsTerminal(raw(p.stdout)), now: p.now}
	err := projections.Rebuild(ctx, projections.RebuildConfig{Config: cfg, AllowTruncated: c.AllowTruncated, KeepOld: c.KeepOld, Progress: line.show})
	line.end()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.stdout, "the tables are rebuilt and served")
	return err
}

func (c *projectCmd) plan(ctx context.Context, p *process, cfg projections.Config) error {
	plan, err := projections.PlanRebuild(ctx, projections.RebuildConfig{Config: cfg, AllowTruncated: c.AllowTruncated, KeepOld: c.KeepOld})
	if err != nil {
		return err
	}
	days := func(days []string) string {
		if len(days) == 0 {
			return "none"
		}
		return fmt.Sprintf("%d, %s to %s", len(days), days[0], days[len(days)-1])
	}
	_, err = fmt.Fprintf(p.stdout, "offsets to read: %d\noffsets that kafka no longer has: %d (facts, and markers of transactions)\ndays that are rebuilt: %s\ndays that stay as they are: %s\n",
		plan.Offsets, plan.Lost, days(plan.Rebuilt), days(plan.Carried))
	return err
}

// progressLine rewrites one line on a terminal; elsewhere it writes a line every ten seconds.
type progressLine struct {
	what, of string
	quiet    time.Duration // says nothing before
	w        io.Writer
	live     bool
	now      func() time.Time
	begun    time.Time
	last     time.Time
}

func (l *progressLine) show(done, total int64) {
	now := l.now()
	if l.begun.IsZero() {
		l.begun = now
	}
	if now.Sub(l.begun) < l.quiet {
		return
	}
	if !l.live && now.Sub(l.last) < 10*time.Second {
		return
	}
	l.last = now
	percent := 100.0
	if total > 0 {
		percent = 100 * float64(min(done, total)) / float64(total)
	}
	rate := 0.0
	if seconds := now.Sub(l.begun).Seconds(); seconds > 0 {
		rate = float64(done) / seconds
	}
	text := fmt.Sprintf("%s: %d of %d %s, %.1f%%, %.0f/s", l.what, done, total, l.of, percent, rate)
	if l.live {
		_, _ = fmt.Fprintf(l.w, "\r\x1b[K%s", text)
		return
	}
	_, _ = fmt.Fprintln(l.w, text)
}

func (l *progressLine) end() {
	if l.live && !l.last.IsZero() {
		_, _ = fmt.Fprintln(l.w)
		l.last = time.Time{}
	}
}
