package projections

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/projections/postgres"
)

// Group is the consumer group that shares out the partitions. Its offsets are not used: they stand in
// Postgres, beside the rows.
const Group = "whisper-project"

// Config is what the role needs.
type Config struct {
	Kafka consumers.ClientConfig
	// PostgresURL is a postgres:// address or a list of key=value, of a user that may write.
	PostgresURL string
	Logger      *slog.Logger
	// Now is the clock; time.Now where nil.
	Now func() time.Time

	// RetentionDays is how many days of deliveries are kept (default 30, at most 3650). What Kafka holds
	// of older ones is passed over.
	RetentionDays int
	// DailyDays is how many days keep tables of their own (default 60). Months that ended before share a table each, where
	// RetentionDays is more. A month is dropped when its last day is too old.
	DailyDays int
	// MaxDropDays is how many days may be dropped at once (default 3). When more are too old, none is: a clock may be
	// wrong, and what is dropped comes back only as far as Kafka reaches.
	MaxDropDays int
	// TransactionTimeout is how long Postgres may take for a transaction (default 1 minute) before it is tried again, with twice as
	// long each time up to sixteen times.
	TransactionTimeout time.Duration
	// Writers is how many transactions may run at once while there is much to catch up (default 2); otherwise they
	// run one after another. Partitions are shared among them.
	Writers int
	// BatchFacts and BatchWait end the gathering of a transaction: so many facts (default 20,000), or so
	// long after the first (default 250 ms), and four times as long while much comes: after a transaction of 1,000
	// facts or more. They are how far the tables are behind at rest, with up to 100 ms in which Kafka gathers.
	BatchFacts int
	BatchWait  time.Duration
}

// Defaults are the settings where nothing else is said.
func Defaults() (c Config) {
	c.setDefaults()
	return c
}

func (c *Config) setDefaults() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.RetentionDays == 0 {
		c.RetentionDays = 30
	}
	if c.DailyDays == 0 {
		c.DailyDays = 60
	}
	if c.MaxDropDays == 0 {
		c.MaxDropDays = 3
	}
	if c.TransactionTimeout == 0 {
		c.TransactionTimeout = time.Minute
	}
	if c.Writers == 0 {
		c.Writers = 2
	}
	if c.BatchFacts == 0 {
		c.BatchFacts = 20_000
	}
	if c.BatchWait == 0 {
		c.BatchWait = 250 * time.Millisecond
	}
	if c.Kafka.Logger == nil {
		c.Kafka.Logger = c.Logger
	}
}

// Validate names every problem of the settings.
func (c Config) Validate() error {
	var errs []error
	if c.PostgresURL == "" {
		errs = append(errs, errors.New("postgres-url: is missing: give the address of a database"))
	} else if _, err := postgres.Config(c.PostgresURL); err != nil {
		errs = append(errs, fmt.Errorf("postgres-url: %w", err))
	}
	if c.RetentionDays < 0 || c.RetentionDays > 3650 {
		errs = append(errs, fmt.Errorf("retention-days: %d is out of range: give 1 to 3650", c.RetentionDays))
	}
	if c.DailyDays < 0 || c.DailyDays > 0 && c.DailyDays < 7 || c.DailyDays > 3650 {
		errs = append(errs, fmt.Errorf("daily-days: %d is out of range: give 7 to 3650", c.DailyDays))
	}
	if c.MaxDropDays < 0 || c.MaxDropDays > 3650 {
		errs = append(errs, fmt.Errorf("max-drop-days: %d is out of range: give 1 to 3650", c.MaxDropDays))
	}
	if c.TransactionTimeout < 0 || c.TransactionTimeout > time.Hour || c.TransactionTimeout > 0 && c.TransactionTimeout < time.Second {
		errs = append(errs, fmt.Errorf("transaction-timeout: %s is out of range: give 1s to 1h", c.TransactionTimeout))
	}
	if c.Writers < 0 || c.Writers > 64 {
		errs = append(errs, fmt.Errorf("writers: %d is out of range: give 1 to 64", c.Writers))
	}
	if c.BatchFacts < 0 || c.BatchFacts > 1_000_000 {
		errs = append(errs, fmt.Errorf("batch-facts: %d is out of range: give 1 to 1000000", c.BatchFacts))
	}
	if c.BatchWait < 0 || c.BatchWait > time.Minute {
		errs = append(errs, fmt.Errorf("batch-wait: %s is out of range: give more than 0s, at most 1m", c.BatchWait))
	}
	return errors.Join(append(errs, c.Kafka.Validate())...)
}

func (c Config) keep() time.Duration { return time.Duration(c.RetentionDays) * 24 * time.Hour }

// topics are what is folded.
func topics() []string {
	all := make([]string, 0, len(domain.Lanes)+1)
	for _, lane := range domain.Lanes {
		all = append(all, consumers.TopicDeliveries(lane))
	}
	return append(all, consumers.TopicEvents)
}
