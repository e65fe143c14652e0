package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/integration/cluster/kafka"
)

// SpineConfig says what to measure.
type SpineConfig struct {
	// Kafka to measure on; empty starts Apache Kafka from its jars.
	Kafka []string
	// Users that are connected while it runs.
	Users      int
	Partitions int32
	// Rates at which latency is measured, requests a second, for Duration each, Runs times.
	Rates    []int
	Duration time.Duration
	Runs     int
	// Hold are the rates to try, ascending, for the highest that holds for HoldFor.
	Hold    []int
	HoldFor time.Duration
	// Profiles, where set, is a folder that gets a CPU profile of each role from each rate that is held.
	Profiles string
	// Out takes progress.
	Out io.Writer
}

// Validate names every problem of the settings.
func (c SpineConfig) Validate() error {
	var errs []error
	if c.Users < 1 {
		errs = append(errs, fmt.Errorf("users: %d is not a number of users", c.Users))
	}
	if c.Partitions < 1 {
		errs = append(errs, fmt.Errorf("partitions: %d is not a number of partitions", c.Partitions))
	}
	for _, r := range append(append([]int(nil), c.Rates...), c.Hold...) {
		if r < 1 {
			errs = append(errs, fmt.Errorf("rates, hold: %d a second is not a rate", r))
		}
	}
	if c.Duration < time.Second || c.HoldFor < time.Second {
		errs = append(errs, errors.New("duration, hold-for: at least a second each"))
	}
	if c.Runs < 1 {
		errs = append(errs, fmt.Errorf("runs: %d is not a number of runs", c.Runs))
	}
	return errors.Join(errs...)
}

// SpineReport is what was measured.
type SpineReport struct {
	Users   int             `json:"users"`
	Kafka   string          `json:"kafka"`
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
	cfg    SpineConfig
	client consumers.ClientConfig
	broker *kafka.Broker
	quorum []*kafka.Broker // where three are asked for, instead of broker
	three  bool
	more   []string // of the roles' environment
	roles  []*process
	users  *audience
	load   *kgo.Client
	serial int
	env    []string
	before func(context.Context) error // where set, once the topics are there
	// autoAck: the gateway acknowledges what the sockets take.
	autoAck bool
}

// RunSpine measures the way from a request to the socket.
func RunSpine(ctx context.Context, cfg SpineConfig) (*SpineReport, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &spine{cfg: cfg}
	defer s.close()
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	report := &SpineReport{Users: cfg.Users, Kafka: s.kafkaName()}
	s.say("warming up")
	if _, err := s.measure(ctx, 1_000, 5*time.Second, nil); err != nil {
		return nil, err
	}
	for _, rate := range cfg.Rates {
		l, err := s.latency(ctx, rate)
		if err != nil {
			return nil, err
		}
		report.Latency = append(report.Latency, l)
	}
	for _, rate := range cfg.Hold {
		h, err := s.hold(ctx, rate)
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

func (s *spine) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.cfg.Out, format+"\n", args...)
}

func (s *spine) kafkaName() string {
	if s.broker != nil || s.quorum != nil {
		return "Apache Kafka " + kafka.Version
	}
	return "given"
}

func (s *spine) start(ctx context.Context) error {
	replication := int16(1)
	switch {
	case s.three:
		s.say("starting three brokers of Apache Kafka %s", kafka.Version)
		var err error
		if s.quorum, err = startThree(ctx); err != nil {
			return err
		}
		for _, b := range s.quorum {
			s.cfg.Kafka = append(s.cfg.Kafka, b.Addr())
		}
		replication = 3
	case len(s.cfg.Kafka) == 0:
		s.say("starting Apache Kafka %s", kafka.Version)
		var err error
		if s.broker, err = kafka.Start(ctx, kafka.Config{JVM: []string{"-Xms1g", "-Xmx1g", "-XX:+UseG1GC"}}); err != nil {
			return err
		}
		s.cfg.Kafka = []string{s.broker.Addr()}
	}
	s.client = consumers.ClientConfig{Brokers: s.cfg.Kafka, ClientID: "whisper-bench"}
	topology := consumers.DefaultTopology()
	topology.Partitions, topology.Replication = s.cfg.Partitions, replication
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
		"WHISPER_KAFKA=" + strings.Join(s.cfg.Kafka, ","), fmt.Sprintf("WHISPER_PARTITIONS=%d", s.cfg.Partitions),
		"WHISPER_AUTH_SECRET=" + benchSecret,
		fmt.Sprintf("WHISPER_PPROF=%v", s.cfg.Profiles != ""),
	}
	s.env = append(s.env, s.more...)
	for _, args := range [][]string{
		{"intake"},
		{"dispatch"},
		{"gateway", "--node", "bench", "--listen", sockets, "--max-connections", fmt.Sprint(2 * s.cfg.Users), "--admit-rate", "1000000"},
	} {
		p, err := startRole(ctx, s.env, args[0], args...)
		if err != nil {
			return err
		}
		s.roles = append(s.roles, p)
	}
	s.say("connecting %d users", s.cfg.Users)
	var err error
	if s.users, err = connectAudience(ctx, "ws://"+sockets+"/v1/socket", s.cfg.Users, s.autoAck, func(n int) { s.say("  %d connected", n) }); err != nil {
		return err
	}
	s.load, err = kgo.NewClient(kgo.SeedBrokers(s.cfg.Kafka...), kgo.ProducerLinger(0),
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
	if s.broker != nil {
		s.broker.Close()
	}
	for _, b := range s.quorum {
		b.Close()
	}
}

// latency measures the chain and the spine in turn, so that both meet the same machine.
func (s *spine) latency(ctx context.Context, rate int) (LatencyReport, error) {
	n := int(float64(rate) * s.cfg.Duration.Seconds())
	var chains, spines []Quantiles
	var costs []cost
	for run := range s.cfg.Runs {
		s.say("%d/s, run %d of %d", rate, run+1, s.cfg.Runs)
		c, err := runChain(ctx, s.client, s.cfg.Partitions, n, rate)
		if err != nil {
			return LatencyReport{}, fmt.Errorf("chain at %d/s: %w", rate, err)
		}
		before, err := s.used(ctx)
		if err != nil {
			return LatencyReport{}, err
		}
		lat, err := s.measure(ctx, rate, s.cfg.Duration, nil)
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
func (s *spine) hold(ctx context.Context, rate int) (HoldReport, error) {
	s.say("holding %d/s for %s", rate, s.cfg.HoldFor)
	r := HoldReport{PerSecond: rate, CPU: map[string]float64{}}
	before, err := s.cpu()
	if err != nil {
		return r, err
	}
	profiled := s.profile(ctx, rate)
	defer profiled()
	var backlog []int
	begin := time.Now()
	lat, err := s.measure(ctx, rate, s.cfg.HoldFor, func(b int) { backlog = append(backlog, b) })
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
		if name != "broker" && name != "load" {
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

func (s *spine) cpu() (map[string]time.Duration, error) {
	pids := map[string]int{"load": os.Getpid()}
	if s.broker != nil {
		pids["broker"] = s.broker.PID()
	}
	for _, p := range s.roles {
		pids[p.name] = p.cmd.Process.Pid
	}
	used := map[string]time.Duration{}
	for name, pid := range pids {
		d, err := cpuOf(pid)
		if err != nil {
			return nil, err
		}
		used[name] = d
	}
	return used, nil
}
