package ops

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/twmb/franz-go/pkg/kadm"
	"golang.org/x/sync/errgroup"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
)

// Health is the document of /v1/health. Reasons is empty exactly when Status is healthy.
type Health struct {
	Status  string   `json:"status"`
	Reasons []string `json:"reasons"`
	// QueueDepths are the records of a lane that wait: requests that intake has not committed, and
	// deliveries that dispatch has not.
	QueueDepths map[string]int64 `json:"queue_depths"`
	// PushDepths are the records of a channel and lane ("apns.high") that push has not committed.
	PushDepths map[string]int64 `json:"push_depths"`
	// ProjectionLag is how many records of the log are not in the tables yet.
	ProjectionLag int64 `json:"projection_lag"`
	// DeliveryRatePerSecond and ErrorRate speak of the attempts of the last 5 minutes; both are 0
	// where no attempt was made, and where the read model does not answer, which is a reason then.
	DeliveryRatePerSecond float64      `json:"delivery_rate_per_second"`
	ErrorRate             float64      `json:"error_rate"`
	ActiveConnections     int64        `json:"active_connections"`
	Utilization           float64      `json:"utilization"`
	Nodes                 []NodeHealth `json:"nodes"`
	// BroadcastPace is that of the process that answers, where it is a dispatch as well (whisper dev).
	BroadcastPace *BroadcastPace `json:"broadcast_pace,omitempty"`
	At            time.Time      `json:"at"`
}

// The values of Health.Status.
const (
	StatusHealthy  = "healthy"
	StatusDegraded = "degraded"
)

// AttemptWindow is how far back attempts count.
const AttemptWindow = 5 * time.Minute

// AttemptCounts are the attempts in a span of time: taken by a socket or a provider, or failed.
type AttemptCounts struct {
	OK, Failed int64
	// Window is the span (default: the one asked for). It may be a little less: counts are kept by the minute.
	Window time.Duration
}

// HealthConfig of a HealthMonitor.
type HealthConfig struct {
	Client consumers.ClientConfig
	// Attempts counts what was tried within the last window, from the read model.
	Attempts func(ctx context.Context, window time.Duration) (AttemptCounts, error)
	// Projected is the next offset of each partition that the tables lack, from the read model; nil: not measured.
	Projected func(ctx context.Context) (map[string]map[int32]int64, error)
	// IntakeGroup and DispatchGroup are the consumer groups whose lag is the queue
	// (default whisper-intake, whisper-dispatch).
	IntakeGroup, DispatchGroup string
	// PushGroup is the consumer group of a channel's lane (default whisper-push-CHANNEL-LANE).
	PushGroup func(channel string, lane domain.Lane) string
	// MaxWait is, a lane each, how old the oldest record may be that is not dispatched (default 5 s, 30 s,
	// 5 min).
	MaxWait map[domain.Lane]time.Duration
	// HoldBack is how long dispatch may keep a delivery that it has sent on but not settled, with its
	// offset uncommitted: decide.Policy.HoldBack (default 30 s). From outside the two look the same, so
	// a delivery counts as late only after both times.
	HoldBack time.Duration
	// MaxProjectionLag is how old the oldest record may be that is not in the tables (default 1 min).
	MaxProjectionLag time.Duration
	// MaxErrorRate and MaxUtilization of a node, as ratios (default 0.05, 0.8).
	MaxErrorRate, MaxUtilization float64
	// Interval of measuring for whisper_queue_depth (default 5 s).
	Interval time.Duration
	Now      func() time.Time
	Logger   *slog.Logger
}

// Validate names every problem of the settings.
func (c HealthConfig) Validate() error {
	errs := []error{c.Client.Validate()}
	for _, lane := range domain.Lanes {
		if wait, ok := c.MaxWait[lane]; ok && wait <= 0 {
			errs = append(errs, fmt.Errorf("max-wait-%s: %s is not a positive duration", lane, wait))
		}
	}
	if !(c.MaxErrorRate >= 0 && c.MaxErrorRate <= 1) { // so that NaN, which nothing exceeds, is none
		errs = append(errs, fmt.Errorf("max-error-rate: %g is out of range: give more than 0, at most 1", c.MaxErrorRate))
	}
	if !(c.MaxUtilization >= 0 && c.MaxUtilization <= 1) {
		errs = append(errs, fmt.Errorf("max-utilization: %g is out of range: give more than 0, at most 1", c.MaxUtilization))
	}
	return errors.Join(errs...)
}

// HealthDefaults are the settings where nothing else is said.
func HealthDefaults() (c HealthConfig) {
	c.setDefaults()
	return c
}

// defaultMaxWait is how old the oldest record of a lane may be before the lane counts as late.
var defaultMaxWait = map[domain.Lane]time.Duration{
	domain.High: 5 * time.Second, domain.Normal: 30 * time.Second, domain.Low: 5 * time.Minute,
}

func (c *HealthConfig) setDefaults() {
	if c.IntakeGroup == "" {
		c.IntakeGroup = "whisper-intake"
	}
	if c.DispatchGroup == "" {
		c.DispatchGroup = "whisper-dispatch"
	}
	if c.PushGroup == nil {
		c.PushGroup = func(channel string, lane domain.Lane) string { return "whisper-push-" + channel + "-" + lane.String() }
	}
	if c.MaxProjectionLag == 0 {
		c.MaxProjectionLag = time.Minute
	}
	waits := map[domain.Lane]time.Duration{}
	for _, lane := range domain.Lanes {
		waits[lane] = defaultMaxWait[lane]
		if wait := c.MaxWait[lane]; wait != 0 {
			waits[lane] = wait
		}
	}
	c.MaxWait = waits
	if c.HoldBack == 0 {
		c.HoldBack = decide.DefaultPolicy().HoldBack
	}
	if c.MaxErrorRate == 0 {
		c.MaxErrorRate = 0.05
	}
	if c.MaxUtilization == 0 {
		c.MaxUtilization = 0.8
	}
	if c.Interval == 0 {
		c.Interval = 5 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// HealthMonitor watches the whole system from outside its roles: Kafka's offsets, the nodes' heartbeats
// and the read model. It costs a handful of small Kafka requests an interval, whatever the traffic, and one more for
// each topic in which something waits.
type HealthMonitor struct {
	cfg    HealthConfig
	adm    *kadm.Client
	nodes  *nodeWatch
	depths map[domain.Lane]*metrics.Gauge
	// waiting is the same by topic.
	waiting map[string]*metrics.Gauge

	mu   sync.Mutex // one measurement at a time; callers meanwhile share its outcome
	last Health
	// missing is when groups were first found without a plan, and topics with partitions that have no owner.
	missing map[string]time.Time
}

// NewHealthMonitor connects; Run makes it work and closes what it opened.
func NewHealthMonitor(cfg HealthConfig) (*HealthMonitor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	adm, err := cfg.Client.Admin()
	if err != nil {
		return nil, err
	}
	nodes, err := newNodeWatch(cfg.Client)
	if err != nil {
		adm.Close()
		return nil, err
	}
	m := &HealthMonitor{
		cfg: cfg, adm: adm, nodes: nodes,
		depths: map[domain.Lane]*metrics.Gauge{}, waiting: map[string]*metrics.Gauge{}, missing: map[string]time.Time{},
	}
	for _, lane := range domain.Lanes {
		m.depths[lane] = metrics.GetOrCreateGauge(fmt.Sprintf(`whisper_queue_depth{lane=%q}`, lane), nil)
	}
	for _, q := range m.queues() {
		m.waiting[q.topic] = metrics.GetOrCreateGauge(fmt.Sprintf(`whisper_topic_waiting_records{topic=%q}`, q.topic), nil)
	}
	return m, nil
}

// Run follows the nodes and measures until ctx ends. Kafka or Postgres not answering is a reason in the
// document, never an error.
func (m *HealthMonitor) Run(ctx context.Context) error {
	defer m.adm.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.nodes.run(ctx) })
	g.Go(func() error {
		select {
		case <-m.nodes.read: // before that, everything would look empty
		case <-ctx.Done():
			return nil
		}
		tick := time.NewTicker(m.cfg.Interval)
		defer tick.Stop()
		for {
			m.Health(ctx)
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	})
	return g.Wait()
}

// Ready says whether the nodes' heartbeats have been read.
func (m *HealthMonitor) Ready() error { return m.nodes.ready() }

// Health measures now, or returns a measurement of the last second: many callers cost no more than
// one.
func (m *HealthMonitor) Health(ctx context.Context) Health {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.cfg.Now()
	if age := now.Sub(m.last.At); age >= 0 && age < time.Second {
		return m.last
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	doc := Health{Reasons: []string{}, QueueDepths: map[string]int64{}, PushDepths: map[string]int64{}, At: now.UTC()}
	m.lanes(ctx, &doc, now)
	m.stopped(ctx, &doc)
	m.attempts(ctx, &doc)
	m.connections(&doc, now)
	doc.Status = StatusHealthy
	if len(doc.Reasons) > 0 {
		doc.Status = StatusDegraded
	}
	m.last = doc
	return doc
}

func (m *HealthMonitor) attempts(ctx context.Context, doc *Health) {
	counts, err := m.cfg.Attempts(ctx, AttemptWindow)
	if err != nil {
		m.cfg.Logger.Warn("count attempts", "error", err)
		doc.Reasons = append(doc.Reasons, "the read model does not answer, so rates are unknown")
		return
	}
	total := counts.OK + counts.Failed
	doc.DeliveryRatePerSecond = float64(counts.OK) / cmp.Or(counts.Window, AttemptWindow).Seconds()
	doc.ErrorRate = ratio(counts.Failed, total)
	if doc.ErrorRate > m.cfg.MaxErrorRate {
		doc.Reasons = append(doc.Reasons, fmt.Sprintf("%d of %d attempts of the last 5 minutes failed (%.1f%%)",
			counts.Failed, total, 100*doc.ErrorRate))
	}
}
