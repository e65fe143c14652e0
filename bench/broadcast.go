package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/klivvr/whisper/embedded"
	"github.com/klivvr/whisper/migrations"
)

// BroadcastConfig says how large a broadcast is measured. Profiles are of 5 s of the last run.
type BroadcastConfig struct {
	// Settings' Kafka must be empty if it is given.
	Settings
	// Users with a profile, of whom the first Connected hold a socket.
	Users, Connected int
	// Segment is CEL; empty: everyone.
	Segment string
	// Lists asks by requests that name the users instead, as many as one may.
	Lists bool
	// Ack is how clients acknowledge: AckClient or AckAuto.
	Ack string
	// Broadcasts of a run, each sent when the connected have the one before.
	Broadcasts int
	// Alerts a second (0: none) for Quiet before a run, and while it lasts, until its facts are in Postgres.
	Alerts int
	Quiet  time.Duration
}

// How clients acknowledge.
const (
	AckClient = "client" // by a frame of their own
	AckAuto   = "auto"   // the gateway does, when the socket took it
)

// Validate names every problem of the settings.
func (c BroadcastConfig) Validate() error {
	errs := []error{
		c.Settings.Validate(), atLeast(1, "connected", c.Connected), atLeast(c.Connected, "users", c.Users),
		atLeast(1, "broadcasts", c.Broadcasts), atLeast(0, "alerts", c.Alerts), atLeast(time.Second, "quiet", c.Quiet),
	}
	if c.Lists && c.Segment != "" {
		errs = append(errs, errors.New("lists, segment: a list of users has no segment"))
	}
	if c.Ack != AckClient && c.Ack != AckAuto {
		errs = append(errs, fmt.Errorf("ack: %q is neither %s nor %s", c.Ack, AckClient, AckAuto))
	}
	return errors.Join(errs...)
}

// BroadcastReport is what was measured: medians of the runs. Times are seconds from handing the request to Kafka.
type BroadcastReport struct {
	Users      int    `json:"users"`
	Connected  int    `json:"connected"`
	Broadcasts int    `json:"broadcasts"`
	Ack        string `json:"ack"`
	Kafka      string `json:"kafka"`
	WarmUp     WarmUp `json:"warm_up"`
	// ConnectedHaveIt is when the last connected user had it (the median of a run's broadcasts), and PerSecond how many
	// connected users a second that is. FactsInPostgres is when the row of the last user was there, of the run's last broadcast.
	ConnectedHaveIt float64 `json:"connected_have_it_seconds"`
	PerSecond       float64 `json:"deliveries_per_second"`
	FactsInPostgres float64 `json:"facts_in_postgres_seconds"`
	// Alerts' latency before and while; RatioP99 is run by run.
	AlertsQuiet  Quantiles `json:"alerts_quiet"`
	AlertsDuring Quantiles `json:"alerts_during"`
	RatioP99     float64   `json:"alerts_ratio_p99"`
	// GatewayPerCPU is how many deliveries to sockets a second of the gateway's CPU makes, and DispatchMicros dispatch's CPU for
	// each user of the audience, facts read back included; both from the request until everything was in Postgres, less
	// what the alerts alone cost in that time; 0 where they cost all of it.
	GatewayPerCPU  float64 `json:"gateway_deliveries_per_cpu_second"`
	DispatchMicros float64 `json:"dispatch_us_per_walked"`
	// CPU seconds by process, from the request until everything was in Postgres.
	CPU map[string]float64 `json:"cpu_seconds"`
}

// RunBroadcast measures broadcasts, one process a role, and what they do to alerts.
func RunBroadcast(ctx context.Context, cfg BroadcastConfig) (*BroadcastReport, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	pg, err := embedded.StartPostgres(ctx, embedded.PostgresConfig{})
	if err != nil {
		return nil, err
	}
	defer func() { _ = pg.Stop(context.WithoutCancel(ctx)) }()
	if err := migrations.Up(ctx, pg.URL(), nil); err != nil {
		return nil, err
	}
	s := &spine{Settings: cfg.Settings, connected: cfg.Connected, autoAck: cfg.Ack == AckAuto}
	defer s.close()
	s.before = func(ctx context.Context) error { return writeProfiles(ctx, s.client, cfg) }
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	project, err := startRole(ctx, append(s.env, "WHISPER_POSTGRES="+pg.URL()), "project", "project")
	if err != nil {
		return nil, err
	}
	s.roles = append(s.roles, project)
	b := &broadcasts{spine: s, cfg: cfg, url: pg.URL()}
	warmed, err := b.warmUp(ctx)
	if err != nil {
		return nil, err
	}
	var runs []*BroadcastReport
	for i := range cfg.Runs {
		run, err := b.run(ctx, i)
		if err != nil {
			return nil, err
		}
		runs = append(runs, run)
	}
	r := b.medians(runs)
	r.WarmUp = warmed
	return r, nil
}

// broadcasts is a benchmark of them under way.
type broadcasts struct {
	*spine
	cfg BroadcastConfig
	url string // of Postgres
}

// run measures alerts alone, and then beside its broadcasts.
func (b *broadcasts) run(ctx context.Context, number int) (*BroadcastReport, error) {
	r := &BroadcastReport{CPU: map[string]float64{}}
	b.say("run %d of %d: alerts while it is quiet", number+1, b.cfg.Runs)
	began := time.Now()
	idle, err := b.cpu()
	if err != nil {
		return nil, err
	}
	if r.AlertsQuiet, err = b.alone(ctx); err != nil {
		return nil, err
	}
	before, err := b.cpu()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	alone := begin.Sub(began).Seconds()
	b.say("  the broadcast")
	during, over := make(chan result, 1), make(chan struct{})
	go func() {
		lat, err := b.measureUntil(ctx, b.cfg.Alerts, over)
		during <- result{lat, err}
	}()
	if number == b.cfg.Runs-1 {
		defer b.profileRoles(ctx, number, 5*time.Second)()
	}
	err = b.send(ctx, r, fmt.Sprintf("bench-%d", number), b.cfg.Broadcasts)
	took := time.Since(begin).Seconds()
	close(over)
	lat := <-during
	if err := errors.Join(err, lat.err); err != nil {
		return nil, err
	}
	r.AlertsDuring = lat.lat.quantiles(0)
	if b.cfg.Alerts > 0 {
		r.RatioP99 = r.AlertsDuring.P99 / r.AlertsQuiet.P99
	}
	after, err := b.cpu()
	if err != nil {
		return nil, err
	}
	for name := range after {
		r.CPU[name] = (after[name] - before[name]).Seconds()
	}
	own := func(name string) float64 { // what the alerts alone cost in that time is not the broadcast's
		return r.CPU[name] - (before[name]-idle[name]).Seconds()*took/alone
	}
	if used := own("gateway"); used > 0 {
		r.GatewayPerCPU = float64(b.cfg.Broadcasts*b.cfg.Connected) / used
	}
	if used := own("dispatch"); used > 0 {
		r.DispatchMicros = 1e6 * used / float64(b.cfg.Broadcasts*b.cfg.Users)
	}
	b.say("  %.0f deliveries/s to the connected, everything in Postgres after %.1f s; alerts p99 %.1f ms alone, %.1f beside (%.2f)",
		r.PerSecond, r.FactsInPostgres, r.AlertsQuiet.P99, r.AlertsDuring.P99, r.RatioP99)
	return r, nil
}

// alone measures alerts, or waits where there are none: the processes cost something by themselves.
func (b *broadcasts) alone(ctx context.Context) (Quantiles, error) {
	if b.cfg.Alerts == 0 {
		select {
		case <-time.After(b.cfg.Quiet):
			return Quantiles{}, nil
		case <-ctx.Done():
			return Quantiles{}, ctx.Err()
		}
	}
	lat, err := b.measure(ctx, b.cfg.Alerts, b.cfg.Quiet, nil)
	if err != nil {
		return Quantiles{}, err
	}
	return lat.quantiles(0), nil
}

// send sends n broadcasts one after the other and waits until everything about them is in Postgres.
func (b *broadcasts) send(ctx context.Context, r *BroadcastReport, name string, n int) error {
	var have []float64
	var last time.Time
	for i := range n {
		id := fmt.Sprintf("%s-%d", name, i)
		count, err := b.ask(ctx, id)
		if err != nil {
			return err
		}
		took, err := b.awaitConnected(ctx, count)
		if err != nil {
			return err
		}
		b.say("  the connected have it after %.2f s", took)
		have, last = append(have, took), count.begun
	}
	r.ConnectedHaveIt = median(have)
	r.PerSecond = float64(b.cfg.Connected) / r.ConnectedHaveIt
	for i := range n {
		took, err := b.awaitRows(ctx, fmt.Sprintf("%s-%d", name, i), last)
		if err != nil {
			return err
		}
		r.FactsInPostgres = max(r.FactsInPostgres, took)
	}
	return nil
}

// warmUp does all of what is measured before, until it has settled: alerts where there are some, and broadcasts, which are
// a part of each window where they are small, and one at the end where they are not.
func (b *broadcasts) warmUp(ctx context.Context) (WarmUp, error) {
	serial := 0
	broadcast := func(ctx context.Context) error {
		serial++
		return b.send(ctx, &BroadcastReport{}, fmt.Sprintf("bench-warm-up-%d", serial), max(b.cfg.Broadcasts/2, 1))
	}
	small := b.cfg.Users <= smallBroadcast
	w, err := b.spine.warmUp(ctx, func(ctx context.Context) (n int, err error) {
		if b.cfg.Alerts > 0 {
			if n, err = b.unicast(warmUpRate)(ctx); err != nil {
				return 0, err
			}
		}
		if small {
			n += b.cfg.Users * max(b.cfg.Broadcasts/2, 1)
			err = broadcast(ctx)
		}
		return n, err
	})
	if err == nil && (!small || b.WarmUp == 0) {
		b.say("warming up, with a broadcast like the one that is measured")
		err = broadcast(ctx)
	}
	return w, err
}

// smallBroadcast is one that takes seconds.
const smallBroadcast = 50_000

// medians of the runs, figure by figure.
func (b *broadcasts) medians(runs []*BroadcastReport) *BroadcastReport {
	r := &BroadcastReport{
		Users: b.cfg.Users, Connected: b.cfg.Connected, Broadcasts: b.cfg.Broadcasts, Ack: b.cfg.Ack,
		Kafka: b.kafkaName(), CPU: map[string]float64{},
	}
	of := func(figure func(*BroadcastReport) float64) float64 {
		var all []float64
		for _, run := range runs {
			all = append(all, figure(run))
		}
		return median(all)
	}
	r.ConnectedHaveIt = of(func(r *BroadcastReport) float64 { return r.ConnectedHaveIt })
	r.PerSecond = of(func(r *BroadcastReport) float64 { return r.PerSecond })
	r.FactsInPostgres = of(func(r *BroadcastReport) float64 { return r.FactsInPostgres })
	r.RatioP99 = of(func(r *BroadcastReport) float64 { return r.RatioP99 })
	r.GatewayPerCPU = of(func(r *BroadcastReport) float64 { return r.GatewayPerCPU })
	r.DispatchMicros = of(func(r *BroadcastReport) float64 { return r.DispatchMicros })
	var quiet, during []Quantiles
	for _, run := range runs {
		quiet, during = append(quiet, run.AlertsQuiet), append(during, run.AlertsDuring)
	}
	r.AlertsQuiet, r.AlertsDuring = medians(quiet), medians(during)
	for name := range runs[0].CPU {
		r.CPU[name] = of(func(r *BroadcastReport) float64 { return r.CPU[name] })
	}
	return r
}

// CPUOf is the report's processes, the busiest first.
func (r *BroadcastReport) CPUOf() string {
	names := make([]string, 0, len(r.CPU))
	for name := range r.CPU {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return int(1000 * (r.CPU[b] - r.CPU[a])) })
	parts := make([]string, 0, len(names))
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%s %.1f", name, r.CPU[name]))
	}
	return strings.Join(parts, ", ")
}
