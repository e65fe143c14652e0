package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/ops"
	"github.com/klivvr/whisper/projections/query"
)

// Broadcasts is `whisper broadcasts`: it lists, shows, watches and steers broadcasts.
type Broadcasts struct {
	List    broadcastsListCmd  `cmd:"" help:"List the latest broadcasts, one line each."`
	Show    broadcastsShowCmd  `cmd:"" help:"Show one broadcast: how far it is, and how many it skipped for which reason."`
	Watch   broadcastsWatchCmd `cmd:"" help:"Follow a broadcast to its end: a progress bar on a terminal, otherwise a line for each change."`
	Pause   pauseCmd           `cmd:"" help:"Pause a broadcast: no new delivery starts until it is resumed."`
	Resume  resumeCmd          `cmd:"" help:"Resume a paused broadcast where it stopped."`
	Cancel  cancelCmd          `cmd:"" help:"Cancel a broadcast: no new delivery starts, ever."`
	Retract retractCmd         `cmd:"" help:"Cancel a broadcast, and have apps remove what has arrived."`
}

type broadcastsListCmd struct {
	Limit    int               `default:"20" placeholder:"N" help:"At most this many (default ${default})."`
	JSON     bool              `name:"json" help:"Print one JSON object a line."`
	Postgres cli.PostgresFlags `embed:"" group:"postgres"`
}

func (c *broadcastsListCmd) Check() error {
	errs := []error{c.Postgres.Check()}
	if c.Limit < 1 {
		errs = append(errs, fmt.Errorf("limit: %d is not a positive number", c.Limit))
	}
	return errors.Join(errs...)
}

func (c *broadcastsListCmd) Run(ctx context.Context, p *cli.Process) error {
	return c.Postgres.WithReader(ctx, func(ctx context.Context, r *query.Reader) error {
		all, err := r.Broadcasts(ctx, c.Limit)
		if err != nil {
			return err
		}
		for _, b := range all {
			if err := printBroadcast(p.Stdout, b, c.JSON); err != nil {
				return err
			}
		}
		return nil
	})
}

func printBroadcast(w io.Writer, b query.Broadcast, asJSON bool) error {
	if asJSON {
		return cli.PrintJSON(w, b)
	}
	_, err := fmt.Fprintf(w, "%s  %-10s %-6s %s\n", b.AcceptedAt.UTC().Format(cli.TimeMillis), b.State, b.Lane, broadcastLine(b))
	return err
}

// broadcastLine is where a broadcast is, for people.
func broadcastLine(b query.Broadcast) string {
	line := fmt.Sprintf("%s  looked at %d of %d: %d sent, %d pending, %d failed, %d skipped",
		b.NotificationID, b.Walked, b.Audience, b.Sent, b.Pending, b.Failed, b.Skipped)
	if b.Unwalked > 0 {
		line += fmt.Sprintf(", %d never looked at", b.Unwalked)
	}
	return line
}

type broadcastsShowCmd struct {
	ID       string            `arg:"" name:"broadcast" help:"The notification's id."`
	JSON     bool              `name:"json" help:"Print JSON."`
	Postgres cli.PostgresFlags `embed:"" group:"postgres"`
}

func (c *broadcastsShowCmd) Check() error {
	return errors.Join(c.Postgres.Check(), domain.CheckKnownID(c.ID))
}

func (c *broadcastsShowCmd) Run(ctx context.Context, p *cli.Process) error {
	return c.Postgres.WithReader(ctx, func(ctx context.Context, r *query.Reader) error {
		b, ok, err := r.Broadcast(ctx, c.ID)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("no broadcast %s is known: check its id; Postgres is a fraction of a second behind, so a new one may need a moment",
				c.ID)
		}
		if c.JSON {
			return cli.PrintJSON(p.Stdout, b)
		}
		return showBroadcast(p.Stdout, b)
	})
}

func showBroadcast(w io.Writer, b query.Broadcast) error {
	lines := [][2]string{
		{"broadcast", b.NotificationID},
		{"state", b.State},
		{"lane", b.Lane},
		{"category", b.Category},
		{"template", b.Template},
		{"segment", b.Segment},
		{"accepted", b.AcceptedAt.UTC().Format(cli.TimeMillis)},
		{"local time", b.SendAtLocal},
		{"started", clock(b.StartedAt)},
		{"all looked at", clock(b.WalkedAt)},
		{"finished", clock(b.FinishedAt)},
		{"estimated end", clock(b.EstimatedEnd)},
		{"users", fmt.Sprintf("%d, of whom %d were looked at", b.Audience, b.Walked)},
		{"never looked at", count(b.Unwalked)},
		{"segment failed", count(b.SegmentErrors)},
		{"meant", fmt.Sprint(b.Total)},
		{"sent", fmt.Sprintf("%d, of which %d acknowledged", b.Sent, b.Delivered)},
		{"pending", fmt.Sprint(b.Pending)},
		{"failed", fmt.Sprint(b.Failed)},
		{"skipped", fmt.Sprint(b.Skipped)},
	}
	for _, reason := range slices.Sorted(maps.Keys(b.SkippedBy)) {
		lines = append(lines, [2]string{"  " + reason, fmt.Sprint(b.SkippedBy[reason])})
	}
	for _, line := range lines {
		if line[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%-16s %s\n", line[0], line[1]); err != nil {
			return err
		}
	}
	return nil
}

func clock(at *time.Time) string {
	if at == nil {
		return ""
	}
	return at.UTC().Format(cli.TimeMillis)
}

func count(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

type broadcastsWatchCmd struct {
	ID       string            `arg:"" name:"broadcast" help:"The notification's id."`
	Walked   bool              `help:"Stop when the scan of the audience is finished, though deliveries may still wait for their users."`
	Postgres cli.PostgresFlags `embed:"" group:"postgres"`
}

func (c *broadcastsWatchCmd) Check() error {
	return errors.Join(c.Postgres.Check(), domain.CheckKnownID(c.ID))
}

// askEvery is how often Postgres is asked: it follows by a fraction of a second.
const askEvery = 250 * time.Millisecond

func (c *broadcastsWatchCmd) Run(ctx context.Context, p *cli.Process) error {
	reader, err := query.Open(ctx, c.Postgres.Postgres)
	if err != nil {
		return err
	}
	defer reader.Close()
	return WatchBroadcast(ctx, reader, c.ID, c.Walked, p.Stdout, ops.IsTerminal(cli.Raw(p.Stdout)))
}

// WatchBroadcast shows a broadcast until it ended, or, where walked is enough, until everyone was looked at.
func WatchBroadcast(ctx context.Context, r *query.Reader, id string, walked bool, w io.Writer, bar bool) error {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	last := ""
	for {
		b, ok, err := r.Broadcast(ctx, id)
		if err != nil {
			return cli.UnlessStopped(ctx, err)
		}
		line := id + " is not known yet"
		if ok {
			line = b.State + "  " + broadcastLine(b)
			if bar {
				line = progressBar(b)
			}
		}
		ended := ok && (b.Ended() || walked && b.WalkedAt != nil)
		switch {
		case bar:
			end := ""
			if ended {
				end = "\n"
			}
			if _, err = fmt.Fprint(cli.Raw(w), "\r\x1b[K"); err == nil {
				_, err = fmt.Fprint(w, line, end)
			}
		case line != last:
			_, err = fmt.Fprintln(w, line)
		}
		if last = line; err != nil || ended {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

const barWidth = 30

// progressBar shows how much of the audience was looked at, and what came of it.
func progressBar(b query.Broadcast) string {
	done := 1.0
	if b.Audience > 0 {
		done = min(1, float64(b.Walked+b.Unwalked)/float64(b.Audience))
	}
	if b.StartedAt == nil && !b.Ended() {
		done = 0
	}
	full := int(done * barWidth)
	line := fmt.Sprintf("%s %s%s %3.0f%%  %d sent, %d pending, %d skipped, %d failed", b.NotificationID,
		strings.Repeat("█", full), strings.Repeat("░", barWidth-full), done*100, b.Sent, b.Pending, b.Skipped, b.Failed)
	if b.EstimatedEnd != nil {
		line += "  done by " + b.EstimatedEnd.UTC().Format("15:04:05Z")
	}
	return line + "  " + b.State
}

// steerCmd is what the four commands have in common.
type steerCmd struct {
	ID       string            `arg:"" name:"broadcast" help:"The notification's id."`
	Lane     string            `placeholder:"LANE" help:"The broadcast's lane (default: Postgres is asked)."`
	Kafka    cli.KafkaFlags    `embed:"" group:"kafka"`
	Postgres cli.PostgresFlags `embed:"" group:"postgres"`
}

type (
	pauseCmd   struct{ steerCmd }
	resumeCmd  struct{ steerCmd }
	cancelCmd  struct{ steerCmd }
	retractCmd struct{ steerCmd }
)

func (c *steerCmd) Check() error {
	errs := []error{c.Kafka.Check(), c.Postgres.Check(), domain.CheckKnownID(c.ID)}
	if c.Lane != "" {
		if _, err := domain.ParseLane(c.Lane); err != nil {
			errs = append(errs, fmt.Errorf("lane: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (c *pauseCmd) Run(ctx context.Context, p *cli.Process) error { return c.steer(ctx, p, "pause") }

func (c *resumeCmd) Run(ctx context.Context, p *cli.Process) error { return c.steer(ctx, p, "resume") }

func (c *cancelCmd) Run(ctx context.Context, p *cli.Process) error { return c.steer(ctx, p, "cancel") }

func (c *retractCmd) Run(ctx context.Context, p *cli.Process) error {
	return c.steer(ctx, p, "retract")
}

// steer writes the command to the broadcast's own lane, where it takes its turn behind what is there.
func (c *steerCmd) steer(ctx context.Context, p *cli.Process, command string) error {
	name := c.Lane
	if name == "" {
		err := c.Postgres.WithReader(ctx, func(ctx context.Context, r *query.Reader) error {
			b, ok, err := r.Broadcast(ctx, c.ID)
			if err == nil && !ok {
				err = fmt.Errorf("no broadcast %s is known: check its id; if it is too new for Postgres, give its --lane", c.ID)
			}
			name = b.Lane
			return err
		})
		if err != nil {
			return err
		}
	}
	lane, err := domain.ParseLane(name)
	if err != nil {
		return err
	}
	client, err := c.Kafka.ToolClient(ctx, p)
	if err != nil {
		return err
	}
	value, err := json.Marshal(map[string]string{command: c.ID})
	if err != nil {
		return err
	}
	if _, err := ProduceRequest(ctx, client, lane, c.ID, "", value); err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.Stdout, "asked to %s %s\n", command, c.ID)
	return err
}
