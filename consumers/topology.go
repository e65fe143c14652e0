package consumers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/decide"
)

// Topology is how Whisper's topics are laid out on a cluster.
type Topology struct {
	// Partitions of every topic keyed by user id. It can't change after creation: partition p of all of
	// them belongs to one user set.
	Partitions int32
	// Replication factor of topics that are made (0: 3, or as many as there are brokers where they are fewer; what
	// exists keeps its own), and how many replicas must have a record before it counts as written (0: the topic's
	// replication - 1, at least 1).
	Replication int16
	MinISR      int
	// DuplicateWindow is how long ids are remembered, at most 30 days.
	DuplicateWindow time.Duration
	// Retention of requests, deliveries, push and facts. It must outlast every outage.
	Retention time.Duration
}

// DefaultTopology is the layout where nothing else is said.
func DefaultTopology() Topology {
	return Topology{Partitions: 96, DuplicateWindow: 24 * time.Hour, Retention: 7 * 24 * time.Hour}
}

// nodeRetention is how long a frame waits for a gateway that is away; dispatch has long re-routed by then.
const nodeRetention = 15 * time.Minute

// Validate names every problem of the settings.
func (t Topology) Validate() error {
	var errs []error
	if t.Partitions < 1 {
		errs = append(errs, fmt.Errorf("partitions: %d is out of range: give at least 1", t.Partitions))
	}
	if t.Replication < 0 {
		errs = append(errs, fmt.Errorf("replication: %d is out of range: give at least 1", t.Replication))
	}
	if t.MinISR < 0 {
		errs = append(errs, fmt.Errorf("min-isr: %d is out of range: give at least 1", t.MinISR))
	}
	if t.Replication > 0 && t.MinISR > int(t.Replication) {
		errs = append(errs, fmt.Errorf("min-isr: %d is more than the replication factor of %d: give less", t.MinISR, t.Replication))
	}
	if t.DuplicateWindow < time.Minute || t.DuplicateWindow > 30*24*time.Hour {
		errs = append(errs, fmt.Errorf("duplicate-window: %s is out of range: give 1m to 720h", t.DuplicateWindow))
	}
	if t.Retention < time.Hour {
		errs = append(errs, fmt.Errorf("retention: %s is too short to outlast an outage: give at least 1h", t.Retention))
	}
	return errors.Join(errs...)
}

// TopicSpec is what a topic must be.
type TopicSpec struct {
	Name       string
	Partitions int32
	// Replication where the topic is to be made, as [Topology] has it; a plan says what 0 became.
	Replication int16
	MinISR      int `json:"-"`
	// Fixed says that the partition count is part of the design and a different one is an error.
	Fixed   bool
	Configs map[string]string
}

// Specs are all topics but the nodes' own, which gateways make.
func (t Topology) Specs() []TopicSpec {
	var specs []TopicSpec
	add := func(name string, partitions int32, configs map[string]string) {
		specs = append(specs, t.spec(name, partitions, configs))
	}
	kept := deleted(t.Retention)
	for _, lane := range domain.Lanes {
		add(TopicRequests(lane), t.Partitions, kept)
		add(TopicDeliveries(lane), t.Partitions, kept)
		for _, channel := range domain.PushChannels {
			add(TopicPush(channel, lane), t.Partitions, kept)
		}
	}
	add(TopicProfiles, t.Partitions, kept)
	add(TopicChanges, t.Partitions, kept)
	add(TopicEvents, t.Partitions, kept)
	add(TopicSeen, t.Partitions, deleted(t.DuplicateWindow+time.Hour))
	add(TopicPresence, t.Partitions, compacted())
	for _, name := range []string{TopicUsers, TopicTimers} {
		add(name, t.Partitions, with(compacted(), "min.compaction.lag.ms", millis(compactAfter)))
	}
	add(TopicCounters, t.Partitions, deleted(category.CountsKept))
	// Who lost a token is told again after a restart, by claims that were replaced.
	add(TopicTokens, t.Partitions, with(compacted(), "min.compaction.lag.ms", millis(decide.ClaimsKept+time.Hour)))
	add(TopicTemplates, 1, compacted())
	add(TopicCategories, 1, compacted())
	add(TopicNodes, 1, compacted())
	add(TopicRevocations, 1, compacted()) // every gateway reads all of it
	add(TopicDeadLetters, 1, with(deleted(30*24*time.Hour), "max.message.bytes", strconv.Itoa(maxDeadLetterBytes)))
	for i := range specs {
		specs[i].Fixed = !strings.HasPrefix(specs[i].Name, requestsPrefix) && specs[i].Name != TopicProfiles
	}
	slices.SortFunc(specs, func(a, b TopicSpec) int { return strings.Compare(a.Name, b.Name) })
	return specs
}

// NodeSpec is the topic of one gateway: a partition a lane.
func (t Topology) NodeSpec(node string) TopicSpec {
	s := t.spec(TopicNode(node), int32(len(domain.Lanes)), with(deleted(nodeRetention), "segment.ms", millis(5*time.Minute)))
	s.Fixed = true
	return s
}

func (t Topology) spec(name string, partitions int32, configs map[string]string) TopicSpec {
	return TopicSpec{Name: name, Partitions: partitions, Replication: t.Replication, MinISR: t.MinISR, Configs: configs}
}

// defaultReplication is what a cluster that is large enough makes topics with.
const defaultReplication = 3

// resolved fills in what depends on the cluster: a topic keeps the replication factor that it has (0: it is to be
// made), and never asks for more replicas in sync than there are, which would stop every write.
func (s TopicSpec) resolved(have int16, brokers int) TopicSpec {
	switch {
	case have > 0:
		s.Replication = have
	case s.Replication == 0:
		s.Replication = int16(min(defaultReplication, max(brokers, 1)))
	}
	minISR := s.MinISR
	if minISR == 0 {
		minISR = int(s.Replication) - 1
	}
	s.Configs = with(s.Configs, "min.insync.replicas", strconv.Itoa(min(max(minISR, 1), int(s.Replication))))
	return s
}

func deleted(keep time.Duration) map[string]string {
	return map[string]string{"cleanup.policy": "delete", "retention.ms": millis(keep)}
}

// compactAfter is how long a record of a compacted topic stays beside a later one of its key. What an owner who had
// lost the partition writes late would otherwise be all that compaction leaves; by then the present owner, or the
// next one's restore, has written it anew (see [Owners]).
const compactAfter = time.Hour

func compacted() map[string]string {
	return map[string]string{"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.2", "segment.ms": millis(6 * time.Hour)}
}

func with(configs map[string]string, key, value string) map[string]string {
	configs = maps.Clone(configs)
	configs[key] = value
	return configs
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// TopicPlan is what is to be done about one topic. All fields but Name empty: nothing.
type TopicPlan struct {
	Name   string            `json:"name"`
	Create *TopicSpec        `json:"create,omitempty"`
	Alter  map[string]string `json:"alter,omitempty"`
	// Conflict can't be mended by Apply.
	Conflict string `json:"conflict,omitempty"`
}

// PlanTopics compares a cluster with the specs.
func PlanTopics(ctx context.Context, adm *kadm.Client, specs []TopicSpec) ([]TopicPlan, error) {
	names := make([]string, len(specs))
	for i, s := range specs {
		names[i] = s.Name
	}
	details, err := adm.ListTopics(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	configs, err := adm.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("describe topics: %w", err)
	}
	brokers, err := adm.ListBrokers(ctx)
	if err != nil {
		return nil, fmt.Errorf("list brokers: %w", err)
	}
	plans := make([]TopicPlan, len(specs))
	for i, s := range specs {
		have := details[s.Name]
		plans[i] = planTopic(s.resolved(replicas(have), len(brokers)), have, configs)
	}
	return plans, nil
}

// replicas is the replication factor of a topic, 0 where it does not exist. While partitions are moved they have more.
func replicas(t kadm.TopicDetail) int16 {
	var least int16
	for _, p := range t.Partitions {
		if n := int16(len(p.Replicas)); least == 0 || n < least {
			least = n
		}
	}
	return least
}

func planTopic(s TopicSpec, have kadm.TopicDetail, configs kadm.ResourceConfigs) TopicPlan {
	plan := TopicPlan{Name: s.Name}
	if have.Err != nil || len(have.Partitions) == 0 {
		if have.Err != nil && !errors.Is(have.Err, kerr.UnknownTopicOrPartition) {
			plan.Conflict = have.Err.Error()
			return plan
		}
		plan.Create = &s
		return plan
	}
	if s.Fixed && int32(len(have.Partitions)) != s.Partitions {
		plan.Conflict = fmt.Sprintf(
			"has %d partitions, %d are configured, and that number can't change: start with --partitions %d, or use an empty cluster",
			len(have.Partitions), s.Partitions, len(have.Partitions))
		return plan
	}
	current := map[string]string{}
	if rc, err := configs.On(s.Name, nil); err == nil {
		for _, c := range rc.Configs {
			current[c.Key] = c.MaybeValue()
		}
	}
	for key, value := range s.Configs {
		if got, ok := current[key]; ok && got != value {
			if plan.Alter == nil {
				plan.Alter = map[string]string{}
			}
			plan.Alter[key] = value
		}
	}
	return plan
}

// ApplyTopics makes and alters what the plans say. A conflict stops it before anything is done.
func ApplyTopics(ctx context.Context, adm *kadm.Client, plans []TopicPlan) error {
	if err := conflicts(plans); err != nil {
		return err
	}
	var errs []error
	var made []TopicSpec
	for _, p := range plans {
		switch {
		case p.Create != nil:
			errs = append(errs, createTopic(ctx, adm, *p.Create))
			made = append(made, *p.Create)
		case len(p.Alter) > 0:
			errs = append(errs, alterTopic(ctx, adm, p))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return awaitTopics(ctx, adm, made)
}

// awaitTopics waits until brokers tell of the topics that were just made: whoever starts next must find them.
func awaitTopics(ctx context.Context, adm *kadm.Client, made []TopicSpec) error {
	if len(made) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		plans, err := PlanTopics(ctx, adm, made)
		if err == nil && len(missing(plans)) == 0 {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the topics %s were made but brokers do not tell of them: %w",
				strings.Join(missing(plans), ", "), errors.Join(err, ctx.Err()))
		}
	}
}

// missing are the topics that are still to be made.
func missing(plans []TopicPlan) (names []string) {
	for _, p := range plans {
		if p.Create != nil {
			names = append(names, p.Name)
		}
	}
	return names
}

func conflicts(plans []TopicPlan) error {
	var errs []error
	for _, p := range plans {
		if p.Conflict != "" {
			errs = append(errs, fmt.Errorf("topic %s %s", p.Name, p.Conflict))
		}
	}
	return errors.Join(errs...)
}

func createTopic(ctx context.Context, adm *kadm.Client, s TopicSpec) error {
	configs := make(map[string]*string, len(s.Configs))
	for k, v := range s.Configs {
		configs[k] = kadm.StringPtr(v)
	}
	resp, err := adm.CreateTopic(ctx, s.Partitions, s.Replication, configs, s.Name)
	switch {
	case err == nil || errors.Is(err, kerr.TopicAlreadyExists):
		return nil
	case resp.ErrMessage != "": // the broker's own words name what is in the way
		return fmt.Errorf("create topic %s: %w (%s)", s.Name, err, resp.ErrMessage)
	default:
		return fmt.Errorf("create topic %s: %w", s.Name, err)
	}
}

func alterTopic(ctx context.Context, adm *kadm.Client, p TopicPlan) error {
	var alter []kadm.AlterConfig
	for _, key := range slices.Sorted(maps.Keys(p.Alter)) {
		alter = append(alter, kadm.AlterConfig{Op: kadm.SetConfig, Name: key, Value: kadm.StringPtr(p.Alter[key])})
	}
	resp, err := adm.AlterTopicConfigs(ctx, alter, p.Name)
	if err != nil {
		return fmt.Errorf("alter topic %s: %w", p.Name, err)
	}
	for _, r := range resp {
		if r.Err != nil {
			return fmt.Errorf("alter topic %s: %w", p.Name, r.Err)
		}
	}
	return nil
}

// metadataWait is how long a topic may be unknown to the broker that was asked before it counts as missing. A broker
// hears of topics that another one made with a delay: a fraction of a second mostly, seconds where it is busy or
// has just started.
const metadataWait = 15 * time.Second

// CheckTopics is the start-up check of every role: all topics exist with the partitions that the design
// needs. A topic that is missing is waited for, for 15 s: it may have been made a moment ago. A broker that does not
// answer is waited for until ctx ends, with a line in the log each time: of three, one may be away while a role starts.
// Configs that differ are only worth a warning, which the plan tells.
func CheckTopics(ctx context.Context, adm *kadm.Client, t Topology, log *slog.Logger) ([]TopicPlan, error) {
	end := time.Now().Add(metadataWait)
	described := Retry{First: 250 * time.Millisecond, Most: 5 * time.Second, Over: IsFatal, Tell: func(err error, next time.Duration) {
		log.Warn("waiting for kafka to describe the topics", "error", err, "next_try", next)
		end = time.Now().Add(next + metadataWait)
	}}
	for {
		var plans []TopicPlan
		err := described.Do(ctx, func() (err error) { plans, err = PlanTopics(ctx, adm, t.Specs()); return err })
		if err != nil {
			return nil, err
		}
		if err := conflicts(plans); err != nil {
			return plans, err
		}
		names := missing(plans)
		if len(names) == 0 {
			return plans, nil
		}
		if time.Now().After(end) {
			return plans, fmt.Errorf("%d topics are missing (%s), and did not come within %s: run `whisper topics apply`",
				len(names), strings.Join(names, ", "), metadataWait)
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return plans, fmt.Errorf("%d topics are missing (%s): %w", len(names), strings.Join(names, ", "), ctx.Err())
		}
	}
}

// EnsureTopics plans and applies in one go.
func EnsureTopics(ctx context.Context, c ClientConfig, specs ...TopicSpec) error {
	adm, err := c.Admin()
	if err != nil {
		return err
	}
	defer adm.Close()
	plans, err := PlanTopics(ctx, adm, specs)
	if err != nil {
		return err
	}
	return ApplyTopics(ctx, adm, plans)
}

// Admin is a client for administration; the caller closes it.
func (c ClientConfig) Admin() (*kadm.Client, error) {
	// Topics that were just made must be seen, so nothing is answered from the client's cache.
	cl, err := kgo.NewClient(append(c.Options(), kgo.MetadataMinAge(10*time.Millisecond))...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	return kadm.NewClient(cl), nil
}
