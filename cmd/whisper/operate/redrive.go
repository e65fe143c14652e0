package operate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/consumers"
)

type deadlettersRedriveCmd struct {
	Offsets []int64        `arg:"" optional:"" help:"Numbers of dead letters, as list prints them."`
	All     bool           `help:"All dead letters that no redrive --all has passed yet."`
	Role    string         `placeholder:"NAME" help:"With --all: only dead letters of this role."`
	Topic   string         `placeholder:"NAME" help:"With --all: only dead letters that came from this topic."`
	DryRun  bool           `help:"Only print what would be put back."`
	Kafka   cli.KafkaFlags `embed:"" group:"kafka"`
}

// Help implements kong.HelpProvider.
func (c *deadlettersRedriveCmd) Help() string {
	return `A record goes back to its topic and partition with its own key, value and headers. --all notes how far it has come,
and the next --all continues from there; with --role or --topic nothing is noted. Putting a record back twice is
harmless: duplicates are dropped by their ids. --all leaves out refused parts of profile patches, because the user may
have changed those fields since. Given by its number, such a part is put back, and is then the newest patch of its
fields. Examples:

    whisper deadletters redrive 17 18
    whisper deadletters redrive --all --dry-run`
}

func (c *deadlettersRedriveCmd) Check() error {
	errs := []error{c.Kafka.Check()}
	switch {
	case len(c.Offsets) == 0 && !c.All:
		errs = append(errs, errors.New("all: give the numbers of dead letters, or --all"))
	case len(c.Offsets) > 0 && (c.All || c.Role != "" || c.Topic != ""):
		errs = append(errs, errors.New("all: can't be combined with numbers, nor can --role and --topic: give the numbers alone, or --all"))
	}
	return errors.Join(errs...)
}

func (c *deadlettersRedriveCmd) Run(ctx context.Context, p *cli.Process) error {
	client, err := c.Kafka.ToolClient(ctx, p)
	if err != nil {
		return err
	}
	mark, err := redriveMark(ctx, client)
	if err != nil {
		return err
	}
	letters, next, err := c.collect(ctx, client, mark)
	if err != nil {
		return err
	}
	if c.DryRun {
		for _, d := range letters {
			if err := d.line(p.Stdout); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintf(p.Stdout, "%d would be put back\n", len(letters))
		return err
	}
	if err := c.redrive(ctx, p, client, letters); err != nil {
		return err
	}
	if c.All && c.Role == "" && c.Topic == "" && next > mark {
		return setRedriveMark(ctx, client, next)
	}
	return nil
}

// collect reads what is to be put back. A dead letter of up to 4 MiB is held, so a hundred thousand of them
// are a reason to go by --role and --topic.
func (c *deadlettersRedriveCmd) collect(
	ctx context.Context, client consumers.ClientConfig, mark int64,
) (letters []deadLetter, next int64, err error) {
	err = deadLetterScan(client).Run(ctx, func(rec *kgo.Record) error {
		d := readDeadLetter(rec)
		next = d.Offset + 1
		chosen := slices.Contains(c.Offsets, d.Offset)
		if c.All {
			chosen = d.Offset >= mark && d.Last == nil && d.Refused == "" && !consumers.IsState(d.Topic) &&
				(c.Role == "" || d.Role == c.Role) && (c.Topic == "" || d.Topic == c.Topic)
		}
		if chosen {
			letters = append(letters, d)
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	for _, d := range letters {
		if d.Last != nil {
			return nil, 0, fmt.Errorf("dead letter %d is about a batch that could not be read, so it has no record to put back; nothing was put back",
				d.Offset)
		}
		// Its headers are only as good as whoever wrote them: nothing outside Whisper's topics is written.
		if consumers.IsState(d.Topic) {
			return nil, 0, fmt.Errorf("dead letter %d is a record of %s, where Whisper keeps its own state: putting it back could send notifications a second time. "+
				"It can only be looked at; nothing was put back", d.Offset, d.Topic)
		}
		if !strings.HasPrefix(d.Topic, "whisper.") || d.Topic == consumers.TopicDeadLetters || d.Partition < 0 {
			return nil, 0, fmt.Errorf("dead letter %d does not say where it came from; nothing was put back", d.Offset)
		}
	}
	if len(c.Offsets) > len(letters) {
		return nil, 0, fmt.Errorf("only %d of these %d numbers are dead letters: `whisper deadletters list` shows them; nothing was put back", len(letters), len(c.Offsets))
	}
	return letters, next, nil
}

func (c *deadlettersRedriveCmd) redrive(ctx context.Context, p *cli.Process, client consumers.ClientConfig, letters []deadLetter) error {
	publisher, err := consumers.NewPublisher(client, 0)
	if err != nil {
		return err
	}
	defer publisher.Close()
	for i, d := range letters {
		rec := &kgo.Record{
			Topic: d.Topic, Partition: d.Partition, Key: d.record.Key, Value: d.record.Value,
			Headers: consumers.OwnHeaders(d.record),
		}
		if err := publisher.PublishSync(ctx, rec); err != nil {
			return fmt.Errorf("dead letter %d (%d of %d were put back before): %w", d.Offset, i, len(letters), err)
		}
	}
	_, err = fmt.Fprintf(p.Stdout, "%d were put back\n", len(letters))
	return err
}
