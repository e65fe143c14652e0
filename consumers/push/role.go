// Package push is the role that hands attempts to push networks: it consumes
// whisper.push.{channel}.{lane}, has a [Provider] make each attempt, and writes one fact about it to
// whisper.events. A record is settled when Kafka has its fact.
//
// It must not decide what happens after an attempt (dispatch does, by the fact), wait before one, read
// profiles, or know any provider's answers; providers are its subfolders.
//
// At least once: a crash between an answer and its fact sends the attempt again, with the same ids.
//
// Each lane has its own consumer group and its own bound of attempts in flight, so that a lane that is
// held up holds up no other. The facts of one user come in no particular order: attempts run at once.
// One attempt in flight costs a goroutine and its record; with the defaults at most 500 a lane. More
// throughput is another process, up to one a partition.
package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// Facts is where facts go: [consumers.Facts].
type Facts interface {
	Publish(ctx context.Context, ev *whisperv1.Event, trace []kgo.RecordHeader, done func(error))
}

// DeadLetters is where records go that are of no use: [consumers.DeadLetters].
type DeadLetters interface {
	Put(ctx context.Context, rec *kgo.Record, reason error, done func(error))
}

// Config is one provider's role.
type Config struct {
	Client   consumers.ClientConfig
	Provider Provider
	// Facts and DeadLetters are written through a publisher that the caller owns: it runs it, and
	// flushes and closes it after Run.
	Facts       Facts
	DeadLetters DeadLetters
	// Lanes to serve (default all).
	Lanes []domain.Lane
	// MaxInFlight bounds the attempts of one lane that have no fact yet (default 500). Keep it within
	// what the provider takes at once.
	MaxInFlight int
	// HandoverTimeout bounds the wait for attempts in flight when a partition goes (default 10 s, at
	// most 25 s); those that are not done by then are made again by whoever gets it.
	HandoverTimeout time.Duration
	// CommitInterval is how often offsets are committed (default 1 s).
	CommitInterval time.Duration

	Logger *slog.Logger
	// Metrics takes the metrics (default: the process's set).
	Metrics *metrics.Set
	Now     func() time.Time
}

// Validate names every problem of the settings.
func (c Config) Validate() error {
	var errs []error
	if c.Provider == nil {
		errs = append(errs, errors.New("push: a provider is needed"))
	}
	if c.Facts == nil {
		errs = append(errs, errors.New("push: a writer of facts is needed"))
	}
	if c.DeadLetters == nil {
		errs = append(errs, errors.New("push: a writer of dead letters is needed"))
	}
	if c.MaxInFlight < 0 {
		errs = append(errs, fmt.Errorf("push-max-in-flight: %d is negative", c.MaxInFlight))
	}
	// The group waits 30 s for its members to hand over.
	if c.HandoverTimeout < 0 || c.HandoverTimeout > 25*time.Second {
		errs = append(errs, fmt.Errorf("push-handover-timeout: %s is not between 0 and 25s", c.HandoverTimeout))
	}
	seen := map[domain.Lane]bool{}
	for _, lane := range c.Lanes {
		if _, err := domain.ParseLane(lane.String()); err != nil || seen[lane] {
			errs = append(errs, fmt.Errorf("push-lanes: %v is unknown or given twice", lane))
		}
		seen[lane] = true
	}
	return errors.Join(append(errs, c.Client.Validate())...)
}

// Defaults are the settings where nothing else is said.
func Defaults() (c Config) {
	c.setDefaults()
	return c
}

func (c *Config) setDefaults() {
	if len(c.Lanes) == 0 {
		c.Lanes = domain.Lanes[:]
	}
	if c.MaxInFlight == 0 {
		c.MaxInFlight = 500
	}
	if c.HandoverTimeout == 0 {
		c.HandoverTimeout = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = metrics.GetDefaultSet()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
}

// Role consumes one provider's attempts, a loop a lane.
type Role struct {
	provider Provider
	loops    consumers.Loops
}

// New makes the role; Run starts it. The provider stays the caller's to close, after Run.
func New(cfg Config) (*Role, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	r := &Role{provider: cfg.Provider}
	for _, lane := range cfg.Lanes {
		loop, err := consumers.NewLoop(consumers.LoopConfig{
			Client:          cfg.Client.ForLane(lane),
			Group:           Group(cfg.Provider.Channel(), lane),
			Topics:          []string{consumers.TopicPush(cfg.Provider.Channel(), lane)},
			Handler:         newSender(cfg, lane),
			HandoverTimeout: cfg.HandoverTimeout,
			CommitInterval:  cfg.CommitInterval,
			// What is taken from Kafka ahead of the attempts in flight only grows older.
			MaxBufferedRecords: 2 * cfg.MaxInFlight,
		})
		if err != nil {
			return nil, fmt.Errorf("push %s %s: %w", cfg.Provider.Name(), lane, err)
		}
		r.loops = append(r.loops, loop)
	}
	return r, nil
}

// Group is the consumer group of one channel's lane.
func Group(channel string, lane domain.Lane) string {
	return "whisper-push-" + channel + "-" + lane.String()
}

// Run serves until ctx ends; it then finishes what is in flight, commits and returns nil. An error of
// one lane ends all.
func (r *Role) Run(ctx context.Context) error {
	return r.loops.Run(ctx)
}

// Ready is nil when every lane has its partitions and the provider can send.
func (r *Role) Ready() error {
	return errors.Join(r.provider.Ready(), r.loops.Ready())
}

// Stopped are the partitions of all lanes that can't go on, and why.
func (r *Role) Stopped() []consumers.Stopped { return r.loops.Stopped() }

// Retry tries the stopped partitions again now and says how many there are.
func (r *Role) Retry() int { return r.loops.Retry() }
