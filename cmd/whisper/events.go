package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
)

type eventsCmd struct {
	User         string        `placeholder:"ID" help:"Only this user's; reads one partition instead of all."`
	Notification string        `placeholder:"ID" help:"Only this notification's; reads everything, unless --since or --user says less."`
	Delivery     string        `placeholder:"ID" help:"Only this delivery's; reads from its request's time on."`
	Since        time.Duration `placeholder:"DURATION" help:"Only the last this long, as in 1h."`
	Follow       bool          `short:"f" help:"Go on with what happens from now on; with --since, what happened before it first."`
	Contents     bool          `help:"Show titles, bodies and variables too; they are left out by default, since they are people's."`
	JSON         bool          `name:"json" help:"One JSON object a line."`
	Kafka        kafkaFlags    `embed:"" group:"kafka"`
}

// Help implements kong.HelpProvider.
func (c *eventsCmd) Help() string {
	return `Reads whisper.events, and from whisper.deliveries.* the facts that begin a story. What is there is printed in order of time; what is followed, as it comes. Examples:

    whisper events --user mona --since 1h
    whisper events --notification pay-8812 --json
    whisper events --follow`
}

func (c *eventsCmd) Check() error {
	errs := []error{c.Kafka.Check()}
	if c.Since < 0 {
		errs = append(errs, fmt.Errorf("since: %s is not a positive duration", c.Since))
	}
	if c.Delivery != "" {
		if _, err := domain.ParseDeliveryID(c.Delivery); err != nil {
			errs = append(errs, fmt.Errorf("delivery: %w", err))
		}
	}
	return errors.Join(errs...)
}

// holdFacts is how many facts are put in order before they are printed; past it the order is that of
// partitions, so that memory stays bounded.
const holdFacts = 200_000

// aheadOfClock is how far a request's time may be ahead of the clock of the broker that gives facts theirs: an hour, and some more.
const aheadOfClock = 2 * time.Hour

func (c *eventsCmd) Run(ctx context.Context, p *process) error {
	client, err := c.Kafka.toolClient(ctx, p)
	if err != nil {
		return err
	}
	held, following := []fact{}, false
	print := func(f fact) error { return f.print(p.stdout, c.JSON, c.Contents) }
	flush := func() error {
		slices.SortStableFunc(held, fact.compare)
		for _, f := range held {
			if err := print(f); err != nil {
				return err
			}
		}
		held = held[:0]
		return nil
	}
	s := scan{client: client, topics: factTopics(), only: c.User, follow: c.Follow, caughtUp: func() error {
		following = c.Follow
		return flush()
	}}
	if c.Since > 0 {
		s.since = p.now().Add(-c.Since)
	}
	if id, err := domain.ParseDeliveryID(c.Delivery); err == nil && !c.Follow {
		// The id tells when it was asked for, by a clock that may be ahead; nothing of it is older.
		asked := id.Time()
		if now := p.now(); asked.After(now) {
			asked = now
		}
		if asked = asked.Add(-aheadOfClock); asked.After(s.since) {
			s.since = asked
		}
	}
	return s.run(ctx, func(rec *kgo.Record) error {
		f, err := readFact(rec)
		if err != nil {
			_, _ = fmt.Fprintf(p.stderr, "whisper events: %s\n", err)
			return nil // the next record may be fine
		}
		if !c.wanted(f) {
			return nil
		}
		if following {
			return print(f)
		}
		if held = append(held, f); len(held) >= holdFacts {
			return flush()
		}
		return nil
	})
}

func factTopics() []string {
	topics := []string{consumers.TopicEvents}
	for _, lane := range domain.Lanes {
		topics = append(topics, consumers.TopicDeliveries(lane))
	}
	return topics
}

// wanted tells by the hash of the delivery id: a fact that knows only the notification has no time in it.
func (c *eventsCmd) wanted(f fact) bool {
	if c.User != "" && f.event.GetUserId() != c.User || c.Notification != "" && f.event.GetNotificationId() != c.Notification {
		return false
	}
	if c.Delivery == "" {
		return true
	}
	id, err := domain.ParseDeliveryID(c.Delivery)
	return err == nil && f.delivery.Hash() == id.Hash()
}
