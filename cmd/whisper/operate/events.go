package operate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/ops"
	"github.com/klivvr/whisper/projections/query"
)

// Events is `whisper events`: it prints the facts about deliveries from Kafka.
type Events struct {
	User         string         `placeholder:"ID" help:"Only facts about this user; reads one partition instead of all."`
	Notification string         `placeholder:"ID" help:"Only facts about this notification; reads the whole log, unless --postgres, --since or --user narrow it."`
	Delivery     string         `placeholder:"ID" help:"Only facts about this delivery; reads from the time of its request on."`
	Since        time.Duration  `placeholder:"DURATION" help:"Only facts of this last time, as in 1h."`
	Follow       bool           `short:"f" help:"Continue with new facts as they come; with --since, print the older ones first."`
	Contents     bool           `help:"Also print titles, bodies and variables, which are left out by default because they are personal."`
	JSON         bool           `name:"json" help:"Print one JSON object a line."`
	Postgres     string         `placeholder:"URL" group:"postgres" help:"Tables that say when a notification was accepted: --notification then reads from two hours before that."`
	Kafka        cli.KafkaFlags `embed:"" group:"kafka"`
}

// Help implements kong.HelpProvider.
func (c *Events) Help() string {
	return `Reads whisper.events, and the first fact of each delivery from whisper.deliveries.*. Facts that are there are printed
in order of time, new ones as they come. A long reading prints its progress on standard error.

--notification alone reads the whole log. Narrow it with --user (one partition), --since, or --postgres (from two hours
before the request was accepted; the whole log if the tables don't know it or don't answer). Examples:

    whisper events --user mona --since 1h
    whisper events --notification pay-8812 --json
    whisper events --notification pay-8812 --postgres postgres://…
    whisper events --follow`
}

func (c *Events) Check() error {
	errs := []error{c.Kafka.Check()}
	if c.Postgres != "" {
		errs = append(errs, cli.PostgresFlags{Postgres: c.Postgres}.Check())
	}
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

// quietFor is how long a reading takes before it tells how far it is.
const quietFor = 2 * time.Second

// aheadOfClock is how far a request's time may be ahead of the clock of the broker that gives facts theirs: an hour, and some more.
const aheadOfClock = 2 * time.Hour

func (c *Events) Run(ctx context.Context, p *cli.Process) error {
	client, err := c.Kafka.ToolClient(ctx, p)
	if err != nil {
		return err
	}
	held, following := []fact{}, false
	progress := cli.ProgressLine{
		What: "events", Of: "offsets", W: cli.Raw(p.Stderr), Live: ops.IsTerminal(cli.Raw(p.Stderr)), Now: p.Now, Quiet: quietFor,
	}
	print := func(f fact) error { return f.print(p.Stdout, c.JSON, c.Contents) }
	flush := func() error {
		progress.End()
		slices.SortStableFunc(held, fact.compare)
		for _, f := range held {
			if err := print(f); err != nil {
				return err
			}
		}
		held = held[:0]
		return nil
	}
	s := cli.Scan{Client: client, Topics: factTopics(), Only: c.User, Follow: c.Follow, Progress: progress.Show, CaughtUp: func() error {
		following = c.Follow
		return flush()
	}}
	switch {
	case c.Since > 0:
		s.Since = p.Now().Add(-c.Since)
	case c.Notification != "" && c.Postgres != "" && !c.Follow:
		s.Since = c.accepted(ctx, p)
	}
	if id, err := domain.ParseDeliveryID(c.Delivery); err == nil && !c.Follow {
		// The id tells when it was asked for, by a clock that may be ahead; nothing of it is older.
		asked := id.Time()
		if now := p.Now(); asked.After(now) {
			asked = now
		}
		if asked = asked.Add(-aheadOfClock); asked.After(s.Since) {
			s.Since = asked
		}
	}
	return s.Run(ctx, func(rec *kgo.Record) error {
		f, err := readFact(rec)
		if err != nil {
			_, _ = fmt.Fprintf(p.Stderr, "whisper events: %s\n", err)
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

// accepted is from when on a notification's facts are read; zero, and a word about it, where the tables can't tell: the log can.
func (c *Events) accepted(ctx context.Context, p *cli.Process) time.Time {
	var at time.Time
	err := cli.PostgresFlags{Postgres: c.Postgres}.WithReader(ctx, func(ctx context.Context, r *query.Reader) (err error) {
		at, err = r.AcceptedAt(ctx, c.Notification)
		return err
	})
	switch {
	case err != nil:
		_, _ = fmt.Fprintf(p.Stderr, "whisper events: Postgres does not say when it was accepted, so the whole log is read: %s\n",
			cli.DistinctLines(err.Error()))
	case at.IsZero():
		_, _ = fmt.Fprintf(p.Stderr, "whisper events: the tables don't know %q, so the whole log is read\n", c.Notification)
	default:
		return at.Add(-aheadOfClock)
	}
	return time.Time{}
}

func factTopics() []string {
	topics := []string{consumers.TopicEvents}
	for _, lane := range domain.Lanes {
		topics = append(topics, consumers.TopicDeliveries(lane))
	}
	return topics
}

// wanted tells by the hash of the delivery id: a fact that knows only the notification has no time in it.
func (c *Events) wanted(f fact) bool {
	if c.User != "" && f.event.GetUserId() != c.User || c.Notification != "" && f.event.GetNotificationId() != c.Notification {
		return false
	}
	if c.Delivery == "" {
		return true
	}
	id, err := domain.ParseDeliveryID(c.Delivery)
	return err == nil && f.delivery.Hash() == id.Hash()
}
