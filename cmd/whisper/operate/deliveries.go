package operate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"time"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/projections/query"
)

// Deliveries is `whisper deliveries`: it lists and shows deliveries as Postgres has them.
type Deliveries struct {
	List deliveriesListCmd `cmd:"" help:"List the latest deliveries, one line each."`
	Show deliveriesShowCmd `cmd:"" help:"Show one delivery: its status, attempts and timeline."`
}

type deliveriesListCmd struct {
	User         string            `placeholder:"ID" help:"Only deliveries to this user."`
	Notification string            `placeholder:"ID" help:"Only deliveries of this notification."`
	Status       string            `placeholder:"NAME" help:"Only deliveries with this status."`
	Since        time.Duration     `placeholder:"DURATION" help:"Only deliveries that were accepted within this last time, as in 1h."`
	Limit        int               `default:"20" placeholder:"N" help:"At most this many (default ${default})."`
	JSON         bool              `name:"json" help:"Print one JSON object a line."`
	Postgres     cli.PostgresFlags `embed:"" group:"postgres"`
}

// Help implements kong.HelpProvider.
func (c *deliveriesListCmd) Help() string {
	return `Reads Postgres, which follows the facts by a fraction of a second. Example:

    whisper deliveries list --user mona --since 1h`
}

func (c *deliveriesListCmd) Check() error {
	errs := []error{c.Postgres.Check()}
	if c.Status != "" {
		if _, err := domain.ParseStatus(c.Status); err != nil {
			errs = append(errs, fmt.Errorf("status: %w", err))
		}
	}
	if c.Limit < 1 {
		errs = append(errs, fmt.Errorf("limit: %d is not a positive number", c.Limit))
	}
	if c.Since < 0 {
		errs = append(errs, fmt.Errorf("since: %s is not a positive duration", c.Since))
	}
	return errors.Join(errs...)
}

func (c *deliveriesListCmd) Run(ctx context.Context, p *cli.Process) error {
	filter := query.Filter{NotificationID: c.Notification, UserID: c.User, Status: c.Status, Limit: c.Limit}
	if c.Since > 0 {
		filter.Since = p.Now().Add(-c.Since)
	}
	return c.Postgres.WithReader(ctx, func(ctx context.Context, r *query.Reader) error {
		deliveries, err := r.Deliveries(ctx, filter)
		if err != nil {
			return err
		}
		for _, d := range deliveries {
			if err := printDelivery(p.Stdout, d, c.JSON); err != nil {
				return err
			}
		}
		return nil
	})
}

func printDelivery(w io.Writer, d query.Delivery, asJSON bool) error {
	if asJSON {
		return cli.PrintJSON(w, d)
	}
	_, err := fmt.Fprintf(w, "%s  %s  %-6s %-10s %-7s attempts=%d  %s  user=%s%s\n", d.AcceptedAt.UTC().Format(cli.TimeMillis), d.DeliveryID,
		d.Lane, d.Status, cmp.Or(d.Channel, "-"), d.Attempts, d.NotificationID, d.UserID, pairs("", map[string]any{"reason": d.Reason}))
	return err
}

type deliveriesShowCmd struct {
	ID       string            `arg:"" name:"delivery" help:"The delivery's id, as list and events print it."`
	JSON     bool              `name:"json" help:"Print JSON."`
	Postgres cli.PostgresFlags `embed:"" group:"postgres"`
}

func (c *deliveriesShowCmd) Check() error {
	_, err := domain.ParseDeliveryID(c.ID)
	return errors.Join(c.Postgres.Check(), err)
}

// deliveryStory is what --json prints.
type deliveryStory struct {
	DeliveryID string          `json:"delivery_id"`
	Attempts   []query.Attempt `json:"attempts"`
	Timeline   []query.Fact    `json:"timeline"`
}

func (c *deliveriesShowCmd) Run(ctx context.Context, p *cli.Process) error {
	id, err := domain.ParseDeliveryID(c.ID)
	if err != nil {
		return err
	}
	return c.Postgres.WithReader(ctx, func(ctx context.Context, r *query.Reader) error {
		story := deliveryStory{DeliveryID: id.String()}
		if story.Timeline, err = r.Timeline(ctx, id); err != nil {
			return err
		}
		if story.Attempts, err = r.Attempts(ctx, id); err != nil {
			return err
		}
		if len(story.Timeline) == 0 {
			return fmt.Errorf("no delivery %s is known in Postgres", id)
		}
		if c.JSON {
			return cli.PrintJSON(p.Stdout, story)
		}
		return story.print(p.Stdout)
	})
}

func (s deliveryStory) print(w io.Writer) error {
	_, _ = fmt.Fprintf(w, "delivery %s\n", s.DeliveryID)
	for _, f := range s.Timeline {
		if said := object(f.Detail); f.Kind == "delivery_accepted" && said["template"] != nil {
			maps.DeleteFunc(said, func(key string, _ any) bool { return !strings.HasPrefix(key, "template") })
			_, _ = fmt.Fprintf(w, "%s\n", strings.TrimSpace(pairs("", said)))
			break
		}
	}
	_, _ = fmt.Fprintln(w, "\nattempts")
	for _, a := range s.Attempts {
		latency := "-"
		if a.LatencyMS != nil {
			latency = fmt.Sprintf("%.1f ms", *a.LatencyMS)
		}
		_, _ = fmt.Fprintf(w, "  %d  %s  %-7s %-11s %-9s%s\n", a.Attempt, a.At.UTC().Format(cli.TimeMillis), a.Channel, a.Outcome, latency,
			pairs("", map[string]any{"target": a.Target, "reason": a.Reason}))
	}
	_, _ = fmt.Fprintln(w, "\ntimeline")
	return PrintTimeline(w, s.Timeline)
}

// PrintTimeline prints one line for each fact of a delivery.
func PrintTimeline(w io.Writer, facts []query.Fact) error {
	for _, f := range facts {
		if _, err := fmt.Fprintf(w, "  %s  %-19s%s\n", f.At.UTC().Format("15:04:05.000000"), f.Kind, pairs("", object(f.Detail))); err != nil {
			return err
		}
	}
	return nil
}
