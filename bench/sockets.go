package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/integration/cluster/kafka"
)

// SocketsConfig says what to measure of one gateway. Its figures are CPU and memory of the gateway alone, so nothing waits for
// the broker to settle.
type SocketsConfig struct {
	Settings
	// Users that are connected, one connection each.
	Users int
	// Beside is how many other gateways there are on the machine, with as many connections each.
	Beside int
	// Idle is how long they rest before memory is read; the second half gives the CPU at rest.
	Idle time.Duration
	// Frames of each throughput run.
	Frames int
	// Flags are given to the gateway as well.
	Flags []string
	// System leaves out all but the floor and the broadcast of the whole system.
	System bool
	// Program is the build of whisper whose gateway is measured; empty: this one.
	Program string
}

// Validate names every problem of the settings.
func (c SocketsConfig) Validate() error {
	errs := []error{
		c.Settings.Validate(), atLeast(1, "users", c.Users), atLeast(0, "beside", c.Beside),
		atLeast(c.Users, "frames", c.Frames), atLeast(time.Second, "idle", c.Idle),
	}
	if c.Beside > maxBeside {
		errs = append(errs, fmt.Errorf("beside: at most %d, not %d", maxBeside, c.Beside))
	}
	return errors.Join(errs...)
}

// SocketsReport is what was measured; medians of the runs. CPU is the gateway's alone.
type SocketsReport struct {
	Users  int    `json:"users"`
	Beside int    `json:"beside"`
	Kafka  string `json:"kafka"`
	// Connecting: the token verified, presence published, the welcome read.
	ConnectsPerSecond float64 `json:"connects_per_second"`
	ConnectCPU        float64 `json:"connect_cpu_us"`
	ConnectFloorCPU   float64 `json:"connect_floor_cpu_us"`
	// Resting: the process's whole growth, and its CPU in percent of a core.
	RSS          float64 `json:"idle_rss_bytes_per_connection"`
	RSSFloor     float64 `json:"idle_rss_floor_bytes_per_connection"`
	IdleCPU      float64 `json:"idle_cpu_percent"`
	IdleCPUEmpty float64 `json:"idle_cpu_percent_without_connections"`
	Pings        int64   `json:"pings"`
	// Frames written in a CPU-second by a server that does nothing else.
	FloorOne   float64 `json:"floor_one_frame_a_write_per_cpu_second"`
	FloorEight float64 `json:"floor_eight_frames_a_write_per_cpu_second"`
	// Deliveries in a CPU-second of the gateway, counted where they arrive.
	Deliveries []SocketsRate `json:"deliveries"`
	// Held is the gateway's memory while nobody acknowledges.
	Held SocketsHeld `json:"held"`
}

// SocketsRate is one way of delivering.
type SocketsRate struct {
	Name         string  `json:"name"`
	PerCPUSecond float64 `json:"per_cpu_second"`
	PerSecond    float64 `json:"per_second"`
	FramesAWrite float64 `json:"frames_a_write"`
	RatioToFloor float64 `json:"ratio_to_one_frame_a_write"`
	Lost         int64   `json:"lost"`
	Facts        float64 `json:"facts_a_delivery"`
	PeakRSS      int64   `json:"peak_rss_bytes"`
	Live         int64   `json:"live_bytes"` // of the heap, afterwards
}

type sockets struct {
	cfg     SocketsConfig
	kafka   consumers.ClientConfig
	broker  *kafka.Broker
	gateway *process
	addr    string
	env     []string // of gateways
	beside  []*process
	crowds  []*helper
	routes  *routes
	report  *SocketsReport
}

// RunSockets measures one gateway process, fed through its node's topic, with clients in another process.
func RunSockets(ctx context.Context, cfg SocketsConfig) (*SocketsReport, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &sockets{cfg: cfg, report: &SocketsReport{Users: cfg.Users, Beside: cfg.Beside, Kafka: "given"}}
	defer s.close()
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	steps := []func(context.Context) error{s.crowd, s.floors, s.held, s.acknowledged, s.automatic, s.system}
	if cfg.System {
		steps = []func(context.Context) error{s.crowd, s.floors, s.held, s.system}
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return s.report, nil
}

func (s *sockets) say(format string, args ...any) { s.cfg.say(format, args...) }

func (s *sockets) start(ctx context.Context) error {
	if err := s.cfg.prepare(); err != nil {
		return err
	}
	if len(s.cfg.Kafka) == 0 {
		s.say("starting Apache Kafka %s", kafka.Version)
		var err error
		if s.broker, err = kafka.Start(ctx, s.cfg.broker()); err != nil {
			return err
		}
		s.cfg.Kafka = []string{s.broker.Addr()}
		s.report.Kafka = "Apache Kafka " + kafka.Version
	}
	s.kafka = consumers.ClientConfig{Brokers: s.cfg.Kafka, ClientID: "whisper-bench"}
	topology := consumers.DefaultTopology()
	topology.Partitions, topology.Replication = s.cfg.Partitions, 1
	if err := consumers.EnsureTopics(ctx, s.kafka, topology.Specs()...); err != nil {
		return err
	}
	s.env = []string{
		"WHISPER_KAFKA=" + strings.Join(s.cfg.Kafka, ","), fmt.Sprintf("WHISPER_PARTITIONS=%d", s.cfg.Partitions),
		"WHISPER_AUTH_SECRET=" + benchSecret, "WHISPER_PPROF=true",
	}
	var err error
	if s.gateway, s.addr, err = s.startGateway(ctx, benchNode); err != nil {
		return err
	}
	s.routes, err = newRoutes(ctx, s.kafka, s.cfg.Users, s.cfg.Partitions)
	return err
}

func (s *sockets) startGateway(ctx context.Context, node string) (p *process, addr string, err error) {
	addr = freeAddr()
	program := s.cfg.Program
	if program == "" {
		if program, err = os.Executable(); err != nil {
			return nil, "", fmt.Errorf("find this program: %w", err)
		}
	}
	p, err = startRoleOf(ctx, program, s.env, "gateway", append([]string{
		"gateway", "--node", node, "--listen", addr, "--max-connections", fmt.Sprint(2 * s.cfg.Users), "--admit-rate", "1000000", "--drain", "5s",
	}, s.cfg.Flags...)...)
	return p, addr, err
}

// maxBeside: each needs addresses of its own to connect from, two for up to 20,000 connections.
const maxBeside = 50

// crowd fills the machine with other gateways and their clients.
func (s *sockets) crowd(ctx context.Context) error {
	for i := range s.cfg.Beside {
		p, addr, err := s.startGateway(ctx, fmt.Sprintf("%s-%d", benchNode, i+1))
		if err != nil {
			return err
		}
		s.beside = append(s.beside, p)
		h, err := startHelper("sockets-client", "--addr", addr, "--users", fmt.Sprint(s.cfg.Users), "--source", fmt.Sprint(10+4*i))
		if err != nil {
			return err
		}
		s.crowds = append(s.crowds, h)
		if _, err := h.reply(); err != nil {
			return err
		}
		s.say("%d connections stand beside", (i+1)*s.cfg.Users)
	}
	return nil
}

func (s *sockets) close() {
	for _, h := range s.crowds {
		h.end()
	}
	for _, p := range s.beside {
		p.stop()
	}
	if s.routes != nil {
		s.routes.close()
	}
	if s.gateway != nil {
		s.gateway.stop()
		if s.gateway.out.Len() > 0 {
			s.say("gateway said:\n%s", s.gateway.out.String())
		}
	}
	if s.broker != nil {
		s.broker.Close()
	}
}

// client starts the load client and waits until all its users are connected.
func (s *sockets) client(addr, ack string) (h *helper, took time.Duration, err error) {
	began := time.Now()
	h, err = startHelper("sockets-client", "--addr", addr, "--users", fmt.Sprint(s.cfg.Users), "--ack", ack)
	if err != nil {
		return nil, 0, err
	}
	if _, err := h.reply(); err != nil {
		h.end()
		return nil, 0, err
	}
	return h, time.Since(began), nil
}

// rssOf is a process's resident memory in bytes.
func rssOf(pid int) (int64, error) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "statm"))
	if err != nil {
		return 0, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	fields := strings.Fields(string(raw))
	if len(fields) < 2 {
		return 0, fmt.Errorf("read the memory of process %d: unknown format", pid)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	return pages * int64(os.Getpagesize()), nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
