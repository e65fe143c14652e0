// Package push is the role that hands attempts to push networks. It consumes whisper.push.{channel}.{lane}, lets a
// [Provider] make each attempt, and writes one fact about it to whisper.events. A record is settled once Kafka has its
// fact.
//
// It must not decide what happens after an attempt (dispatch does, from the fact), wait before one, read profiles, or
// know any provider's answers. Providers are its subfolders.
//
// Attempts are made at least once: after a crash between an answer and its fact the attempt is made again, with the same
// ids.
//
// Each lane has its own consumer group and its own limit of attempts in flight, so a slow lane does not delay another.
// Attempts run concurrently, so the facts of one user have no particular order. An attempt in flight costs a goroutine
// and its record; by default there are at most 500 in a lane. For more throughput start more processes, up to one for
// each partition.
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

// Facts writes facts: [consumers.Facts].
type Facts interface {
	Publish(ctx context.Context, ev *whisperv1.Event, trace []kgo.RecordHeader, done func(error))
}

// DeadLetters takes records that can't be used: [consumers.DeadLetters].
type DeadLetters interface {
	Put(ctx context.Context, rec *kgo.Record, reason error, done func(error))
}

// Config is one provider's role.
type Config struct {
	Client   consumers.ClientConfig
	Provider Provider
	// Facts and DeadLetters write through a publisher of the caller, who runs it, and flushes and closes it after Run.
	Facts       Facts
	DeadLetters DeadLetters
	// Lanes to serve (default all).
	Lanes []domain.Lane
	// MaxInFlight bounds the attempts of one lane that have no fact yet (default 500). It should not exceed what the
	// provider accepts at once.
	MaxInFlight int
	// HandoverTimeout bounds the wait for attempts in flight when a partition is revoked (default 10 s, at most 25 s).
	// Attempts that are not done by then are made again by the next owner.
	HandoverTimeout time.Duration
	// CommitInterval is how often offsets are committed (default 1 s).
	CommitInterval time.Duration

	Logger *slog.Logger
	// Metrics is the set that metrics are registered in (default: the process's).
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

// Defaults returns the default settings.
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

// New makes the role; Run starts it. The caller closes the provider after Run.
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
			// Records that are fetched far ahead of the attempts in flight only grow old in memory.
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

// Run serves until ctx ends. It then finishes what is in flight, commits and returns nil. An error in one lane ends all.
func (r *Role) Run(ctx context.Context) error {
	return r.loops.Run(ctx)
}

// Ready is nil when every lane has its partitions and the provider can send.
func (r *Role) Ready() error {
	return errors.Join(r.provider.Ready(), r.loops.Ready())
}

// Stopped returns the partitions, of all lanes, that can't go on, and why.
func (r *Role) Stopped() []consumers.Stopped { return r.loops.Stopped() }

// Retry retries the stopped partitions now, and returns how many there are.
func (r *Role) Retry() int { return r.loops.Retry() }
