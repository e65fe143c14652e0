package operate

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/consumers"
)

// DeadLetters is `whisper deadletters`: it lists, shows and redrives the records that a role could not use.
type DeadLetters struct {
	List    deadlettersListCmd    `cmd:"" help:"List dead letters, one line each: when, which role, from where, why."`
	Show    deadlettersShowCmd    `cmd:"" help:"Show one dead letter, with its value as it came."`
	Redrive deadlettersRedriveCmd `cmd:"" help:"Put records back on the topics they came from."`
}

// deadLetter is one record of whisper.deadletters, read.
type deadLetter struct {
	Offset    int64     `json:"offset"`
	At        time.Time `json:"at"`
	Role      string    `json:"role"`
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	Position  int64     `json:"position"`
	// Last is where a batch ends that could not be read; such a letter has no record to put back.
	Last *int64 `json:"last_position,omitempty"`
	// Refused names the fields of a record that was taken but for them; the letter holds only those.
	Refused  string            `json:"refused,omitempty"`
	Error    string            `json:"error"`
	Redriven bool              `json:"redriven"`
	Key      string            `json:"key,omitempty"`
	Headers  map[string]string `json:"headers,omitempty"`
	Value    *string           `json:"value,omitempty"`
	// Encoding is base64 where key or value are not text.
	Encoding string `json:"encoding,omitempty"`

	record *kgo.Record
}

func readDeadLetter(rec *kgo.Record) deadLetter {
	d := deadLetter{Offset: rec.Offset, At: rec.Timestamp.UTC(), record: rec, Partition: -1, Position: -1}
	for _, h := range rec.Headers {
		switch h.Key {
		case consumers.HeaderRole:
			d.Role = string(h.Value)
		case consumers.HeaderTopic:
			d.Topic = string(h.Value)
		case consumers.HeaderRefused:
			d.Refused = string(h.Value)
		case consumers.HeaderError:
			d.Error = string(h.Value)
		case consumers.HeaderPartition:
			if n, err := strconv.ParseInt(string(h.Value), 10, 32); err == nil {
				d.Partition = int32(n)
			}
		case consumers.HeaderOffset:
			if n, err := strconv.ParseInt(string(h.Value), 10, 64); err == nil {
				d.Position = n
			}
		case consumers.HeaderLastOffset:
			if n, err := strconv.ParseInt(string(h.Value), 10, 64); err == nil {
				d.Last = &n
			}
		}
	}
	return d
}

// opened adds the record's own key, headers and value.
func (d deadLetter) opened() deadLetter {
	value := string(d.record.Value)
	d.Key, d.Value = string(d.record.Key), &value
	if !utf8.Valid(d.record.Value) || !utf8.Valid(d.record.Key) {
		d.Encoding = "base64"
		d.Key, value = base64.StdEncoding.EncodeToString(d.record.Key), base64.StdEncoding.EncodeToString(d.record.Value)
	}
	if d.record.Value == nil {
		d.Value = nil
	}
	d.Headers = map[string]string{}
	for _, h := range consumers.OwnHeaders(d.record) {
		d.Headers[h.Key] = string(h.Value)
	}
	return d
}

// from is where the record stood, which is also the id of a notification without one.
func (d deadLetter) from() string { return fmt.Sprintf("%s/%d/%d", d.Topic, d.Partition, d.Position) }

func (d deadLetter) line(w io.Writer) error {
	mark := " "
	if d.Redriven {
		mark = "*"
	}
	_, err := fmt.Fprintf(w, "%s%6d  %s  %-8s  %s  %s\n", mark, d.Offset, d.At.Format("2006-01-02T15:04:05Z"),
		cli.OneLine(d.Role), cli.OneLine(d.from()), cli.OneLine(d.Error))
	return err
}

type deadlettersListCmd struct {
	Role  string         `placeholder:"NAME" help:"Only dead letters of this role."`
	Topic string         `placeholder:"NAME" help:"Only dead letters that came from this topic."`
	Since time.Duration  `placeholder:"DURATION" help:"Only dead letters of this last time, as in 24h."`
	JSON  bool           `name:"json" help:"Print one JSON object a line."`
	Kafka cli.KafkaFlags `embed:"" group:"kafka"`
}

// Help implements kong.HelpProvider.
func (c *deadlettersListCmd) Help() string {
	return "Each line begins with the number that show and redrive take; a star marks the dead letters that redrive --all has passed."
}

func (c *deadlettersListCmd) Check() error { return c.Kafka.Check() }

func (c *deadlettersListCmd) Run(ctx context.Context, p *cli.Process) error {
	client, err := c.Kafka.ToolClient(ctx, p)
	if err != nil {
		return err
	}
	mark, err := redriveMark(ctx, client)
	if err != nil {
		return err
	}
	s := deadLetterScan(client)
	if c.Since > 0 {
		s.Since = p.Now().Add(-c.Since)
	}
	return s.Run(ctx, func(rec *kgo.Record) error {
		d := readDeadLetter(rec)
		if c.Role != "" && d.Role != c.Role || c.Topic != "" && d.Topic != c.Topic {
			return nil
		}
		d.Redriven = d.Offset < mark
		if c.JSON {
			return cli.PrintJSON(p.Stdout, d)
		}
		return d.line(p.Stdout)
	})
}

func deadLetterScan(client consumers.ClientConfig) cli.Scan {
	return cli.Scan{Client: client, Topics: []string{consumers.TopicDeadLetters}}
}

type deadlettersShowCmd struct {
	Offset int64          `arg:"" help:"The number that list prints."`
	JSON   bool           `name:"json" help:"Print JSON."`
	Kafka  cli.KafkaFlags `embed:"" group:"kafka"`
}

func (c *deadlettersShowCmd) Check() error { return c.Kafka.Check() }

func (c *deadlettersShowCmd) Run(ctx context.Context, p *cli.Process) error {
	client, err := c.Kafka.ToolClient(ctx, p)
	if err != nil {
		return err
	}
	var found *deadLetter
	err = deadLetterScan(client).Run(ctx, func(rec *kgo.Record) error {
		if rec.Offset == c.Offset {
			d := readDeadLetter(rec).opened()
			found = &d
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case found == nil:
		return fmt.Errorf("no dead letter has the number %d; `whisper deadletters list` shows those there are", c.Offset)
	case c.JSON:
		return cli.PrintJSON(p.Stdout, found)
	}
	return found.print(p.Stdout)
}

func (d deadLetter) print(w io.Writer) error {
	_, _ = fmt.Fprintf(w, "number     %d\nat         %s\nrole       %s\ncame from  %s\nerror      %s\nkey        %q\n",
		d.Offset, d.At.Format(time.RFC3339Nano), cli.OneLine(d.Role), cli.OneLine(d.from()), cli.OneLine(d.Error), d.record.Key)
	if d.Refused != "" {
		_, _ = fmt.Fprintf(w, "refused    %s (the rest of the record was taken)\n", cli.OneLine(d.Refused))
	}
	for _, h := range consumers.OwnHeaders(d.record) {
		_, _ = fmt.Fprintf(w, "header     %s: %q\n", cli.OneLine(h.Key), h.Value)
	}
	if d.Value == nil {
		_, err := fmt.Fprintln(w, "value      null")
		return err
	}
	_, err := fmt.Fprintf(w, "value      %d bytes %s\n%s\n", len(d.record.Value), d.Encoding, *d.Value)
	return err
}

// redriveGroup holds how far `redrive` has come, as a committed offset.
const redriveGroup = "whisper-redrive"

// redriveMark is the first dead letter that redrive has not passed.
func redriveMark(ctx context.Context, c consumers.ClientConfig) (int64, error) {
	adm, err := c.Admin()
	if err != nil {
		return 0, err
	}
	defer adm.Close()
	offsets, err := adm.FetchOffsets(ctx, redriveGroup)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return 0, fmt.Errorf("find how far redrive has come: %w", err)
	}
	if o, ok := offsets.Lookup(consumers.TopicDeadLetters, 0); ok {
		return max(o.At, 0), nil
	}
	return 0, nil
}

func setRedriveMark(ctx context.Context, c consumers.ClientConfig, next int64) error {
	adm, err := c.Admin()
	if err != nil {
		return err
	}
	defer adm.Close()
	var offsets kadm.Offsets
	offsets.AddOffset(consumers.TopicDeadLetters, 0, next, -1)
	if err := adm.CommitAllOffsets(ctx, redriveGroup, offsets); err != nil {
		return fmt.Errorf("note how far redrive has come: %w", err)
	}
	return nil
}
