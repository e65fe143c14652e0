package consumers

import (
	"cmp"
	"context"
	"errors"
	"time"
)

// LoopConfig says what a Loop consumes, and how.
type LoopConfig struct {
	Client ClientConfig
	// Group is the consumer group. Processes of one group share the partitions.
	Group string
	// Topics to consume; all must exist.
	Topics []string
	// CoPartitioned assigns partition p of every topic to the same process. All topics must have the
	// same number of partitions.
	CoPartitioned bool
	// Renewable are those of the topics that their owners may delete and make anew: the loop goes on with the new one,
	// from its start. Another one that is made anew ends the process.
	Renewable []string
	// Handler makes the Feed of each assigned partition.
	Handler Handler
	// Starts, where set, says where to start instead of the group's commits; the loop then commits
	// nothing. A partition that it leaves out starts at the log's start.
	Starts func(ctx context.Context, assigned map[string][]int32) (map[string]map[int32]int64, error)

	// A partition is paused while more than this is waiting for its Feed (default 5,000 records, 4 MiB).
	MaxBufferedRecords int
	MaxBufferedBytes   int
	// FetchMinBytes lets a broker gather so much, of all partitions, before it answers, for at most FetchMaxWait
	// (defaults: 1, so at once when there is anything, and 500 ms).
	FetchMinBytes int32
	FetchMaxWait  time.Duration
	// FetchMaxPartitionBytes is how much of one partition a broker answers a fetch with (default 1 MiB), or one batch
	// where that is larger. What else is to be fetched waits for the answer, so it bounds how long a backlog holds up
	// other partitions.
	FetchMaxPartitionBytes int32
	// CommitInterval is how often offsets are committed (default 1 s).
	CommitInterval time.Duration
	// StallCheck is how often the topics are looked at, and partitions that do not move are compared with the log's
	// end (default 5 s).
	StallCheck time.Duration
	// HandoverTimeout bounds Feed.Close (default 10 s); it must be below the group's rebalance timeout.
	HandoverTimeout time.Duration
	// RetryFirst is how soon a partition that failed is tried again (default 1 s); the wait doubles up to
	// RetryMost (default 1 min), and begins anew when the partition has run for as long as that.
	RetryFirst, RetryMost time.Duration
}

// Validate names every problem of the settings.
func (c LoopConfig) Validate() error {
	var errs []error
	if c.Group == "" {
		errs = append(errs, errors.New("loop: a consumer group is needed"))
	}
	if len(c.Topics) == 0 {
		errs = append(errs, errors.New("loop: at least one topic is needed"))
	}
	if c.Handler == nil {
		errs = append(errs, errors.New("loop: a handler is needed"))
	}
	return errors.Join(append(errs, c.Client.Validate())...)
}

func (c *LoopConfig) setDefaults() {
	c.MaxBufferedRecords = cmp.Or(c.MaxBufferedRecords, 5_000)
	c.MaxBufferedBytes = cmp.Or(c.MaxBufferedBytes, 4<<20)
	c.FetchMinBytes = cmp.Or(c.FetchMinBytes, 1)
	c.FetchMaxWait = cmp.Or(c.FetchMaxWait, fetchMaxWait)
	c.FetchMaxPartitionBytes = cmp.Or(c.FetchMaxPartitionBytes, 1<<20)
	c.CommitInterval = cmp.Or(c.CommitInterval, time.Second)
	c.StallCheck = cmp.Or(c.StallCheck, stallCheck)
	c.HandoverTimeout = cmp.Or(c.HandoverTimeout, 10*time.Second)
	c.Client.SessionTimeout = cmp.Or(c.Client.SessionTimeout, DefaultSessionTimeout)
	c.RetryFirst = cmp.Or(c.RetryFirst, retryFirst)
	c.RetryMost = cmp.Or(c.RetryMost, max(retryMost, c.RetryFirst))
}
