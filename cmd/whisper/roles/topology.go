package roles

import (
	"fmt"
	"strconv"
	"time"

	"github.com/klivvr/whisper/consumers"
)

// topologyFlags say how the topics are laid out. Every role needs them, since every role checks them.
type topologyFlags struct {
	Partitions      int32         `default:"${topics_partitions}" placeholder:"N" help:"Partitions of every topic that is keyed by user id; can't be changed once the topics exist (default ${default})."`
	Replication     replication   `default:"auto" placeholder:"N" help:"Replication factor of new topics (default ${default}: 3, or the number of brokers if there are fewer)."`
	MinISR          int           `name:"min-isr" placeholder:"N" help:"Replicas that must have a record before its write is acknowledged (default: replication - 1, at least 1)."`
	DuplicateWindow time.Duration `default:"${topics_duplicate_window}" placeholder:"DURATION" help:"How long ids are remembered to drop duplicates (default ${default}, at most 720h)."`
	Retention       time.Duration `default:"${topics_retention}" placeholder:"DURATION" help:"How long requests, deliveries and facts are kept in Kafka (default ${default}); must be longer than any outage."`
}

// replication is a replication factor; 0 is what the cluster can hold.
type replication int16

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *replication) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		*r = 0
		return nil
	}
	n, err := strconv.ParseInt(string(text), 10, 16)
	if err != nil || n < 1 {
		return fmt.Errorf("%q is not a replication factor: give auto, or a number of at least 1", text)
	}
	*r = replication(n)
	return nil
}

func (f topologyFlags) topology() consumers.Topology {
	return consumers.Topology{
		Partitions: f.Partitions, Replication: int16(f.Replication), MinISR: f.MinISR,
		DuplicateWindow: f.DuplicateWindow, Retention: f.Retention,
	}
}

// Check names every problem of these settings.
func (f topologyFlags) Check() error { return f.topology().Validate() }
