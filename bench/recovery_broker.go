package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/klivvr/whisper/consumers/dispatch"
	"github.com/klivvr/whisper/integration/cluster/kafka"
)

// startThree starts three brokers that keep every record three times and take one when two have it. How soon the controller
// gives a dead broker's partitions to others is the broker's own setting, and 9 s where nobody says anything: longer than
// anything that Whisper does after a crash. So it is what docs/operations.md recommends, 6 s.
func startThree(ctx context.Context, cfg kafka.Config) ([]*kafka.Broker, error) {
	cfg.JVM = append(slices.Clone(cfg.JVM), "-Xms512m", "-Xmx512m") // of two flags the later counts
	cfg.Settings = map[string]string{
		"broker.session.timeout.ms": "6000", "broker.heartbeat.interval.ms": "1000", "group.min.session.timeout.ms": "6000",
	}
	return kafka.StartQuorum(ctx, 3, cfg)
}

// recoverBroker measures the death of the broker that matters most: the one that also coordinates dispatch's group. It leads
// a third of the partitions besides. Afterwards it is back, and has caught up.
func (s *spine) recoverBroker(ctx context.Context, rate int, c recoveryCase) (*latencies, error) {
	cl, err := s.client.Admin()
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	coordinator := cl.FindGroupCoordinators(ctx, dispatch.Group)[dispatch.Group]
	if coordinator.Err != nil {
		return nil, fmt.Errorf("find the coordinator: %w", coordinator.Err)
	}
	at := coordinator.NodeID - 1 // kafka.StartQuorum numbers them from 1
	if at < 0 || int(at) >= len(s.brokers) {
		return nil, fmt.Errorf("the coordinator is broker %d, which is none of ours", at+1)
	}
	broker, failed := s.brokers[at], make(chan error, 1)
	go func() {
		select {
		case <-time.After(recoveryTime / 4):
		case <-ctx.Done():
		}
		err := broker.Kill(ctx)
		if c.back {
			err = errors.Join(err, broker.Start(ctx))
		}
		failed <- err
	}()
	lat, err := s.measure(ctx, rate, recoveryTime, nil)
	if err = errors.Join(err, <-failed); err != nil {
		return nil, err
	}
	if !c.back {
		if err := broker.Start(ctx); err != nil {
			return nil, err
		}
	}
	return lat, inSync(ctx, cl, len(s.brokers))
}

// inSync waits until every partition is on all brokers again and led by the broker that it was given to.
func inSync(ctx context.Context, cl *kadm.Client, brokers int) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		topics, err := cl.ListTopicsWithInternal(ctx)
		missing := 0
		for _, topic := range topics {
			for _, p := range topic.Partitions {
				if len(p.ISR) < min(brokers, len(p.Replicas)) {
					missing++
				}
			}
		}
		if err == nil && len(topics) > 0 && missing == 0 {
			_, err = cl.ElectLeaders(ctx, kadm.ElectPreferredReplica, nil)
			if err == nil {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d partitions are not on all brokers: %w", missing, errors.Join(err, ctx.Err()))
		}
	}
}
