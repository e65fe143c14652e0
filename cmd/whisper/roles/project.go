package roles

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/ops"
	"github.com/klivvr/whisper/projections"
	"github.com/klivvr/whisper/projections/query"
)

// Project is `whisper project`: it folds facts into Postgres and answers /v1/health.
type Project struct {
	Rebuild            bool              `group:"project" help:"Fill new tables from Kafka beside the served ones, swap them, and end; running projectors may go on."`
	AllowTruncated     bool              `group:"project" help:"With --rebuild: build the tables from Kafka alone. Days that Kafka no longer has in full are dropped; by default they are kept as they are."`
	DryRun             bool              `group:"project" help:"With --rebuild: print which days would be rebuilt and which would stay as they are, and end."`
	KeepOld            bool              `group:"project" help:"With --rebuild: keep the replaced daily tables in the schema whisper_old."`
	RetentionDays      int               `default:"${project_retention_days}" placeholder:"DAYS" group:"project" help:"How long deliveries are kept (default ${default})."`
	DailyDays          int               `default:"${project_daily_days}" placeholder:"DAYS" group:"project" help:"How many days keep tables of their own; of older months, the days are merged into one table (default ${default}; for a longer retention only)."`
	MaxDropDays        int               `default:"${project_max_drop_days}" placeholder:"N" group:"project" help:"Most days past their retention that may be dropped at once; if there are more, none is dropped (default ${default})."`
	TransactionTimeout time.Duration     `default:"${project_transaction_timeout}" placeholder:"DURATION" group:"project" help:"Time limit of a transaction; each retry has twice as long (default ${default})."`
	Writers            int               `default:"${project_writers}" placeholder:"N" group:"project" help:"Transactions at once while there is much to catch up; otherwise one at a time (default ${default})."`
	BatchFacts         int               `default:"${project_batch_facts}" placeholder:"N" group:"project" help:"Most facts in one transaction (default ${default})."`
	BatchWait          time.Duration     `default:"${project_batch_wait}" placeholder:"DURATION" group:"project" help:"How long facts are gathered before they are written, and so how far the tables are behind; four times as long under load (default ${default})."`
	Health             healthFlags       `embed:"" group:"health"`
	Postgres           cli.PostgresFlags `embed:"" group:"postgres"`
	Member             memberFlags       `embed:""`
	Role               roleFlags         `embed:""`
}

// healthFlags are when /v1/health says degraded.
type healthFlags struct {
	MaxWaitHigh      time.Duration `default:"${health_max_wait_high}" placeholder:"DURATION" help:"Age of the oldest waiting record on the lane high (default ${default})."`
	MaxWaitNormal    time.Duration `default:"${health_max_wait_normal}" placeholder:"DURATION" help:"The same for the lane normal (default ${default})."`
	MaxWaitLow       time.Duration `default:"${health_max_wait_low}" placeholder:"DURATION" help:"The same for the lane low (default ${default})."`
	MaxProjectionLag time.Duration `default:"${health_max_projection_lag}" placeholder:"DURATION" help:"Age of the oldest record that the tables lack (default ${default})."`
	MaxErrorRate     float64       `default:"${health_max_error_rate}" placeholder:"RATIO" help:"Share of the attempts of the last 5 minutes that may fail (default ${default})."`
	MaxUtilization   float64       `default:"${health_max_utilization}" placeholder:"RATIO" help:"How full a node may be (default ${default})."`
}

func (f healthFlags) config() ops.HealthConfig {
	return ops.HealthConfig{
		MaxWait:          map[domain.Lane]time.Duration{domain.High: f.MaxWaitHigh, domain.Normal: f.MaxWaitNormal, domain.Low: f.MaxWaitLow},
		MaxProjectionLag: f.MaxProjectionLag, MaxErrorRate: f.MaxErrorRate, MaxUtilization: f.MaxUtilization,
	}
}

// Help implements kong.HelpProvider.
func (c *Project) Help() string {
	return `Folds facts into the tables that analysts read, and answers /v1/health. Examples:

    whisper project --kafka kafka:9092 --postgres postgres://whisper@db/whisper
    whisper project --rebuild`
}

func (c *Project) config() projections.Config {
	return projections.Config{
		Kafka: c.Role.client("project", nil), PostgresURL: c.Postgres.Postgres,
		RetentionDays: c.RetentionDays, DailyDays: c.DailyDays, MaxDropDays: c.MaxDropDays,
		TransactionTimeout: c.TransactionTimeout, Writers: c.Writers, BatchFacts: c.BatchFacts, BatchWait: c.BatchWait,
	}
}

func (c *Project) Check() error {
	errs := []error{c.Role.Check(), c.Member.Check(), c.Postgres.Check()}
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
		errs = append(errs, errors.New("rebuild: allow-truncated, keep-old and dry-run are only for a rebuild: give --rebuild, or leave them out"))
	}
	return distinct(errors.Join(errs...))
}

func (c *Project) Run(ctx context.Context, p *cli.Process) error {
	if c.Rebuild {
		return c.rebuild(ctx, p)
	}
	return c.Role.run(ctx, p, "project", func(ctx context.Context, r Base) ([]Component, error) {
		r.Client = c.Member.of(r.Client)
		return BuildProject(ctx, r, c.config(), c.Health.config())
	})
}

// BuildProject builds the projector and the health document, which stand on the same tables.
func BuildProject(ctx context.Context, r Base, cfg projections.Config, health ops.HealthConfig) ([]Component, error) {
	cfg.Kafka, cfg.Now, cfg.Logger = r.Client, r.Now, r.Log
	reader, err := query.Open(ctx, cfg.PostgresURL)
	if err != nil {
		return nil, err
	}
	health.Client, health.Now, health.Logger = r.Client, r.Now, r.Log
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
	r.Server.Monitor(monitor)
	r.Server.Partitions("project", projector)
	watch := func(ctx context.Context) error {
		defer reader.Close()
		return monitor.Run(ctx)
	}
	return []Component{{"project", projector.Run, projector.Ready}, {"health", watch, monitor.Ready}}, nil
}

// rebuild waits for Kafka like a role does, since it is a role's work.
func (c *Project) rebuild(ctx context.Context, p *cli.Process) error {
	cfg := c.config()
	cfg.Logger = p.Log
	cfg.Kafka = c.Role.client("rebuild", p.Log)
	if err := cfg.Kafka.Await(ctx); err != nil {
		return err
	}
	if c.DryRun {
		return c.plan(ctx, p, cfg)
	}
	line := cli.ProgressLine{What: "rebuild", Of: "offsets", W: cli.Raw(p.Stdout), Live: ops.IsTerminal(cli.Raw(p.Stdout)), Now: p.Now}
	err := projections.Rebuild(ctx, projections.RebuildConfig{
		Config: cfg, AllowTruncated: c.AllowTruncated, KeepOld: c.KeepOld, Progress: line.Show,
	})
	line.End()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.Stdout, "the tables are rebuilt and served")
	return err
}

func (c *Project) plan(ctx context.Context, p *cli.Process, cfg projections.Config) error {
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
	_, err = fmt.Fprintf(p.Stdout, `offsets to read: %d
offsets that kafka no longer has: %d (facts, and markers of transactions)
days that are rebuilt: %s
days that stay as they are: %s
`, plan.Offsets, plan.Lost, days(plan.Rebuilt), days(plan.Carried))
	return err
}
