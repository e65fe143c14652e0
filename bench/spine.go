package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/integration/cluster/kafka"
)

// SpineConfig says what to measure.
type SpineConfig struct {
	Settings
	// Users that are connected while it runs.
	Users int
	// Rates at which latency is measured, requests a second, for Duration each.
	Rates    []int
	Duration time.Duration
	// Hold are the rates to try, ascending, for the highest that holds for HoldFor. Each that is held gives a profile.
	Hold    []int
	HoldFor time.Duration
}

// Validate names every problem of the settings.
func (c SpineConfig) Validate() error {
	errs := []error{
		c.Settings.Validate(), atLeast(1, "users", c.Users),
		atLeast(time.Second, "duration", c.Duration), atLeast(time.Second, "hold-for", c.HoldFor),
	}
	for _, r := range c.Rates {
		errs = append(errs, atLeast(1, "rates", r))
	}
	for _, r := range c.Hold {
		errs = append(errs, atLeast(1, "hold", r))
	}
	return errors.Join(errs...)
}

// SpineReport is what was measured.
type SpineReport struct {
	Users   int             `json:"users"`
	Kafka   string          `json:"kafka"`
	WarmUp  WarmUp          `json:"warm_up"`
	Latency []LatencyReport `json:"latency"`
	Held    []HoldReport    `json:"held"`
}

// LatencyReport is request → socket at one rate, beside the bare chain; medians of the runs.
type LatencyReport struct {
	PerSecond int       `json:"per_second"`
	Spine     Quantiles `json:"spine"`
	Chain     Quantiles `json:"chain"`
	RatioP50  float64   `json:"ratio_p50"`
	RatioP99  float64   `json:"ratio_p99"`
	// Requests to Kafka a delivery, by role and kind: produce, fetch, commit.
	Requests map[string]map[string]float64 `json:"kafka_requests_per_delivery"`
	// CPU a delivery in microseconds, by process.
	CPU map[string]float64 `json:"cpu_us_per_delivery"`
}

// HoldReport is one try to hold a rate.
type HoldReport struct {
	PerSecond int  `json:"per_second"`
	Held      bool `json:"held"`
	// Backlog is what was under way at the half and at the end.
	BacklogHalf int       `json:"backlog_half"`
	BacklogEnd  int       `json:"backlog_end"`
	Delivered   float64   `json:"delivered_per_second"`
	Latency     Quantiles `json:"latency"`
	// CPU a delivery in microseconds, by process; "roles" is the sum of the roles.
	CPU map[string]float64 `json:"cpu_us_per_delivery"`
}

// spine is a benchmark under way.
type spine struct {
	Settings
	connected int  // users
	three     bool // brokers
	client    consumers.ClientConfig
	brokers   []*kafka.Broker // that were started
	more      []string        // of the roles' environment
	roles     []*process
	users     *audience
	load      *kgo.Client
	serial    int
	env       []string
	before    func(context.Context) error // where set, once the topics are there
	// autoAck: the gateway acknowledges what the sockets take.
	autoAck bool
}

// RunSpine measures the way from a request to the socket.
func RunSpine(ctx context.Context, cfg SpineConfig) (*SpineReport, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &spine{Settings: cfg.Settings, connected: cfg.Users}
	defer s.close()
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	report := &SpineReport{Users: cfg.Users, Kafka: s.kafkaName()}
	var err error
	if report.WarmUp, err = s.warmUp(ctx, s.unicast(warmUpRate)); err != nil {
		return nil, err
	}
	for _, rate := range cfg.Rates {
		l, err := s.latency(ctx, rate, cfg.Duration)
		if err != nil {
			return nil, err
		}
		report.Latency = append(report.Latency, l)
	}
	for _, rate := range cfg.Hold {
		h, err := s.hold(ctx, rate, cfg.HoldFor)
		if err != nil {
			return nil, err
		}
		report.Held = append(report.Held, h)
		if !h.Held {
			break
		}
	}
	return report, nil
}

func (s *spine) kafkaName() string {
	if len(s.brokers) > 0 {
		return "Apache Kafka " + kafka.Version
	}
	return "given"
}

func (s *spine) start(ctx context.Context) error {
	if err := s.prepare(); err != nil {
		return err
	}
	replication := int16(1)
	switch {
	case s.three:
		s.say("starting three brokers of Apache Kafka %s", kafka.Version)
		var err error
		if s.brokers, err = startThree(ctx, s.broker()); err != nil {
			return err
		}
		replication = 3
	case len(s.Kafka) == 0:
		s.say("starting Apache Kafka %s", kafka.Version)
		broker, err := kafka.Start(ctx, s.broker())
		if err != nil {
			return err
		}
		s.brokers = []*kafka.Broker{broker}
	}
	for _, b := range s.brokers {
		s.Kafka = append(s.Kafka, b.Addr())
	}
	s.client = consumers.ClientConfig{Brokers: s.Kafka, ClientID: "whisper-bench"}
	topology := consumers.DefaultTopology()
	topology.Partitions, topology.Replication = s.Partitions, replication
	if err := consumers.EnsureTopics(ctx, s.client, append(topology.Specs(), chainSpecs(topology)...)...); err != nil {
		return err
	}
	if s.before != nil {
		if err := s.before(ctx); err != nil {
			return err
		}
	}
	sockets := freeAddr()
	s.env = []string{
		"WHISPER_KAFKA=" + strings.Join(s.Kafka, ","), fmt.Sprintf("WHISPER_PARTITIONS=%d", s.Partitions),
		"WHISPER_AUTH_SECRET=" + benchSecret,
		fmt.Sprintf("WHISPER_PPROF=%v", s.Profiles != ""),
	}
	s.env = append(s.env, s.more...)
	for _, args := range [][]string{
		{"intake"},
		{"dispatch"},
		{"gateway", "--node", "bench", "--listen", sockets, "--max-connections", fmt.Sprint(2 * s.connected), "--admit-rate", "1000000"},
	} {
		p, err := startRole(ctx, s.env, args[0], args...)
		if err != nil {
			return err
		}
		s.roles = append(s.roles, p)
	}
	s.say("connecting %d users", s.connected)
	var err error
	if s.users, err = connectAudience(ctx, "ws://"+sockets+"/v1/socket", s.connected, s.autoAck, func(n int) { s.say("  %d connected", n) }); err != nil {
		return err
	}
	s.load, err = kgo.NewClient(kgo.SeedBrokers(s.Kafka...), kgo.ProducerLinger(0),
		kgo.ClientID("whisper-bench-load"), kgo.ProducerBatchCompression(kgo.NoCompression()))
	return err
}

func (s *spine) close() {
	if s.users != nil {
		s.users.close()
	}
	if s.load != nil {
		s.load.Close()
	}
	for _, p := range s.roles {
		p.stop()
		if p.out.Len() > 0 {
			s.say("%s said:\n%s", p.name, p.out.String())
		}
	}
	for _, b := range s.brokers {
		b.Close()
	}
}

// latency measures the chain and the spine in turn, so that both meet the same machine.
func (s *spine) latency(ctx context.Context, rate int, d time.Duration) (LatencyReport, error) {
	n := int(float64(rate) * d.Seconds())
	var chains, spines []Quantiles
	var costs []cost
	for run := range s.Runs {
		s.say("%d/s, run %d of %d", rate, run+1, s.Runs)
		c, err := runChain(ctx, s.client, s.Partitions, n, rate)
		if err != nil {
			return LatencyReport{}, fmt.Errorf("chain at %d/s: %w", rate, err)
		}
		before, err := s.used(ctx)
		if err != nil {
			return LatencyReport{}, err
		}
		lat, err := s.measure(ctx, rate, d, nil)
		if err != nil {
			return LatencyReport{}, fmt.Errorf("spine at %d/s: %w", rate, err)
		}
		after, err := s.used(ctx)
		if err != nil {
			return LatencyReport{}, err
		}
		costs = append(costs, after.since(before).each(lat.total()))
		q := lat.quantiles(n / 5)
		s.say("  chain p50 %.1f p99 %.1f p99.9 %.1f ms; spine p50 %.1f p99 %.1f p99.9 %.1f ms", c.P50, c.P99, c.P999, q.P50, q.P99, q.P999)
		chains, spines = append(chains, c), append(spines, q)
	}
	r := LatencyReport{PerSecond: rate, Spine: medians(spines), Chain: medians(chains)}
	var p50, p99 []float64
	for i := range spines { // the ratio pair by pair, since the machine's speed drifts
		p50 = append(p50, spines[i].P50/chains[i].P50)
		p99 = append(p99, spines[i].P99/chains[i].P99)
	}
	r.RatioP50, r.RatioP99 = median(p50), median(p99)
	r.CPU, r.Requests = medianCosts(costs)
	return r, nil
}

func medians(all []Quantiles) (m Quantiles) {
	var p50, p99, p999 []float64
	for _, q := range all {
		p50, p99, p999 = append(p50, q.P50), append(p99, q.P99), append(p999, q.P999)
		m.Lost += q.Lost
	}
	m.P50, m.P99, m.P999 = median(p50), median(p99), median(p999)
	return m
}

// measure sends at a rate for a time and waits until everything has arrived. half is called at the middle and at
// the end of the sending, with the number of requests under way then.
func (s *spine) measure(ctx context.Context, rate int, d time.Duration, half func(backlog int)) (*latencies, error) {
	n := int(float64(rate) * d.Seconds())
	s.serial++
	m := &measurement{serial: s.serial, lat: newLatencies(n)}
	s.users.current.Store(m)
	var failed error
	err := pace(ctx, n, rate, func(i int, due time.Time) {
		m.lat.send(i, due)
		user := userName(rand.IntN(s.users.users))
		value := fmt.Appendf(nil, `{"id":"b%d-%d","category":"transactions.card","to":{"users":["%s"]},"content":{"title":"Card payment",`+
			`"body":"You paid 120.50 EGP at the corner shop. If this was not you, tell us at once.",`+
			`"url":"app://cards/4417","data":{"card":"4417","amount":"120.50"}}}`, m.serial, i, user)
		s.load.Produce(ctx, &kgo.Record{Topic: "whisper.requests.high", Key: []byte(user), Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed = err
			}
		})
		if half != nil && (i == n/2 || i == n-1) {
			half(i + 1 - m.lat.total())
		}
	})
	if err == nil {
		waitFor(ctx, m.lat, n)
		err = failed
	}
	return m.lat, err
}

// hold tries a rate. The rate holds if nothing is lost and the requests under way grew, from the middle to the end, by
// at most a tenth of a second's worth.
func (s *spine) hold(ctx context.Context, rate int, d time.Duration) (HoldReport, error) {
	s.say("holding %d/s for %s", rate, d)
	r := HoldReport{PerSecond: rate, CPU: map[string]float64{}}
	before, err := s.cpu()
	if err != nil {
		return r, err
	}
	defer s.profileRoles(ctx, rate, d/2)()
	var backlog []int
	begin := time.Now()
	lat, err := s.measure(ctx, rate, d, func(b int) { backlog = append(backlog, b) })
	if err != nil {
		return r, err
	}
	took := time.Since(begin)
	after, err := s.cpu()
	if err != nil {
		return r, err
	}
	n := lat.total()
	for name, used := range after {
		us := float64((used - before[name]).Microseconds()) / float64(max(n, 1))
		r.CPU[name] = us
		if ofRole(name) {
			r.CPU["roles"] += us
		}
	}
	r.BacklogHalf, r.BacklogEnd = backlog[0], backlog[len(backlog)-1]
	r.Latency = lat.quantiles(rate)
	r.Delivered = float64(n) / took.Seconds()
	r.Held = r.Latency.Lost == 0 && r.BacklogEnd <= max(r.BacklogHalf, rate/10)+rate/10
	s.say("  held: %v; under way at the half %d, at the end %d; p50 %.1f p99 %.1f ms; CPU a delivery %.0f µs in the roles",
		r.Held, r.BacklogHalf, r.BacklogEnd, r.Latency.P50, r.Latency.P99, r.CPU["roles"])
	return r, nil
}

// profileRoles profiles every role; the number goes into the files' names.
func (s *spine) profileRoles(ctx context.Context, number int, d time.Duration) (wait func()) {
	files := map[string]*process{}
	for _, p := range s.roles {
		files[fmt.Sprintf("%s-%d", p.name, number)] = p
	}
	return s.profile(ctx, int(d/time.Second), files)
}
