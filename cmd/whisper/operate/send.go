package operate

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/record"
	"github.com/klivvr/whisper/domain/rfc3339"
)

// Send is `whisper send`: it asks for a notification, or cancels one.
type Send struct {
	User        []string          `placeholder:"ID" help:"Who gets it; may be repeated."`
	All         bool              `help:"Everyone who has a profile: a broadcast."`
	Segment     string            `placeholder:"CEL" help:"Everyone for whom this is true: a broadcast."`
	Connected   bool              `help:"Everyone who has a socket when it begins, with or without a profile: a broadcast. With --segment, those of them."`
	Rate        float64           `placeholder:"N" help:"Broadcasts only: at most this many deliveries a second."`
	SendAtLocal string            `placeholder:"HH:MM" help:"Broadcasts only: at this time of day in each user's time zone."`
	Title       string            `placeholder:"TEXT" help:"Title of the content."`
	Body        string            `placeholder:"TEXT" help:"Body of the content, at most 4 KiB."`
	URL         string            `name:"url" placeholder:"URL" help:"What a tap opens."`
	Image       string            `placeholder:"URL" help:"URL of a picture beside the text."`
	Data        string            `placeholder:"JSON" help:"A JSON object for the client, passed on unchanged."`
	Template    string            `placeholder:"ID" help:"Id of a template, instead of a title and body."`
	Var         map[string]string `placeholder:"NAME=VALUE" mapsep:"none" help:"A variable of the template; may be repeated."`
	Variables   string            `placeholder:"JSON" help:"The template's variables, a JSON object, or @FILE: for numbers and lists."`
	Lane        string            `default:"normal" placeholder:"LANE" help:"high, normal or low (default ${default})."`
	Category    string            `placeholder:"NAME" help:"What preferences and caps go by (default: default)."`
	ID          string            `name:"id" placeholder:"ID" help:"Idempotency key: the same id again sends nothing (default: the record's position)."`
	TTL         string            `name:"ttl" placeholder:"DURATION" help:"Time to live: it is never sent later than this (default 24h)."`
	SendAt      string            `placeholder:"TIME" help:"Earliest time to send it, as in 2026-11-23T09:00:00Z."`
	Channels    []string          `placeholder:"NAME" help:"Channels in the order to try (default socket,push)."`
	CollapseKey string            `placeholder:"KEY" help:"A later notification with the same key replaces this one on the device."`
	Cancel      string            `placeholder:"ID" help:"Cancel this notification instead of sending one."`
	Traceparent string            `placeholder:"VALUE" help:"W3C trace context to carry; a new trace by default."`
	DryRun      bool              `help:"Print the record instead of writing it; for a broadcast, count its audience and show three renderings."`
	JSON        bool              `name:"json" help:"Print where the record went as JSON."`
	Kafka       cli.KafkaFlags    `embed:"" group:"kafka"`
}

// Help implements kong.HelpProvider.
func (c *Send) Help() string {
	return `Writes one record to whisper.requests.{lane}, as any upstream service would, and prints the notification's id. Examples:

    whisper send --user mona --title "Card payment" --body "You paid EGP 120.50" --lane high
    whisper send --user mona,omar --id pay-8812 --ttl 1h --body "Your transfer arrived"
    whisper send --segment "user.attributes.country == 'EG'" --lane low --body "We open in Cairo" --dry-run
    whisper send --connected --lane low --body "Payments pause at 22:00 for ten minutes"
    whisper send --cancel pay-8812`
}

// Request is the JSON of the public contract.
type Request struct {
	ID          string          `json:"id,omitempty"`
	Category    string          `json:"category,omitempty"`
	To          *Audience       `json:"to,omitempty"`
	Template    string          `json:"template,omitempty"`
	Variables   json.RawMessage `json:"variables,omitempty"`
	Content     *Content        `json:"content,omitempty"`
	Channels    []string        `json:"channels,omitempty"`
	CollapseKey string          `json:"collapse_key,omitempty"`
	SendAt      string          `json:"send_at,omitempty"`
	TTL         string          `json:"ttl,omitempty"`
	Rate        float64         `json:"rate,omitempty"`
	SendAtLocal string          `json:"send_at_local,omitempty"`
	Cancel      string          `json:"cancel,omitempty"`
}

// Audience is who gets a notification: users, a segment, everyone, or those who are connected.
type Audience struct {
	Users     []string `json:"users,omitempty"`
	Segment   string   `json:"segment,omitempty"`
	All       bool     `json:"all,omitempty"`
	Connected bool     `json:"connected,omitempty"`
}

// Content is what a notification says.
type Content struct {
	Title string          `json:"title,omitempty"`
	Body  string          `json:"body,omitempty"`
	URL   string          `json:"url,omitempty"`
	Image string          `json:"image,omitempty"`
	Data  json.RawMessage `json:"data,omitempty"`
}

// Check finds what a person mistypes; intake has the last word on a request.
func (c *Send) Check() error {
	errs := []error{c.Kafka.Check()}
	if _, err := domain.ParseLane(c.Lane); err != nil {
		errs = append(errs, fmt.Errorf("lane: %w", err))
	}
	if c.Cancel != "" {
		if len(c.User) > 0 || c.All || c.Connected || c.Segment != "" || c.hasContent() || c.Template != "" {
			errs = append(errs, errors.New("cancel: can't be combined with users or content: give the id alone"))
		}
		return errors.Join(errs...)
	}
	errs = append(errs, c.checkAudience()...)
	for _, id := range c.User {
		if err := domain.CheckID(id); err != nil {
			errs = append(errs, fmt.Errorf("user: %q %w", id, err))
		}
	}
	if c.ID != "" {
		if err := domain.CheckID(c.ID); err != nil {
			errs = append(errs, fmt.Errorf("id: %w", err))
		}
	}
	errs = append(errs, c.checkContent()...)
	return errors.Join(append(errs, c.checkTimes()...)...)
}

func (c *Send) hasContent() bool {
	return c.Title != "" || c.Body != "" || c.URL != "" || c.Image != "" || c.Data != ""
}

func (c *Send) checkContent() []error {
	var errs []error
	switch {
	case c.Template != "" && c.hasContent():
		errs = append(errs, errors.New("template: can't be combined with title, body, url, image or data: give one or the other"))
	case c.Template == "" && !c.hasContent():
		errs = append(errs, errors.New("body: there is nothing to send: give a title, a body or a template"))
	case c.Template == "" && len(c.Var) > 0:
		errs = append(errs, errors.New("var: only templates have variables: give a template"))
	case c.Template == "" && c.Variables != "":
		errs = append(errs, errors.New("variables: only templates have variables: give a template"))
	}
	if _, err := variablesOf(c.Variables, c.Var); err != nil {
		errs = append(errs, err)
	}
	if c.Data != "" {
		if _, err := record.StrictMembers([]byte(c.Data), "data"); err != nil {
			errs = append(errs, fmt.Errorf("data: is not a JSON object: %w", err))
		}
	}
	return errs
}

func (c *Send) checkTimes() []error {
	var errs []error
	if c.TTL != "" {
		if ttl, err := time.ParseDuration(c.TTL); err != nil || ttl <= 0 {
			errs = append(errs, fmt.Errorf("ttl: %q is not a positive duration like 90s or 1h", c.TTL))
		}
	}
	if c.SendAt != "" {
		if _, err := rfc3339.Parse(c.SendAt); err != nil {
			errs = append(errs, fmt.Errorf("send-at: %q %w", c.SendAt, err))
		}
	}
	return errs
}

func (c *Send) request() Request {
	if c.Cancel != "" {
		return Request{Cancel: c.Cancel}
	}
	variables, _ := variablesOf(c.Variables, c.Var) // Check has said what is wrong
	req := Request{
		ID: c.ID, Category: c.Category, To: c.to(), Template: c.Template, Variables: variables,
		Channels: c.Channels, CollapseKey: c.CollapseKey, SendAt: c.SendAt, TTL: c.TTL,
		Rate: c.Rate, SendAtLocal: c.SendAtLocal,
	}
	if c.hasContent() {
		req.Content = &Content{Title: c.Title, Body: c.Body, URL: c.URL, Image: c.Image}
		if c.Data != "" {
			req.Content.Data = json.RawMessage(c.Data)
		}
	}
	return req
}

// Sent is what --json prints.
type Sent struct {
	ID          string `json:"id"`
	Topic       string `json:"topic"`
	Partition   int32  `json:"partition"`
	Offset      int64  `json:"offset"`
	Traceparent string `json:"traceparent"`
}

func (c *Send) Run(ctx context.Context, p *cli.Process) error {
	req := c.request()
	value, err := json.Marshal(req)
	if err != nil {
		return err
	}
	if c.DryRun && (c.All || c.Connected || c.Segment != "") {
		return c.dryRun(ctx, p, req)
	}
	if c.DryRun {
		_, err := fmt.Fprintf(p.Stdout, "%s\n", value)
		return err
	}
	lane, err := domain.ParseLane(c.Lane)
	if err != nil {
		return err
	}
	client, err := c.Kafka.ToolClient(ctx, p)
	if err != nil {
		return err
	}
	out, err := ProduceRequest(ctx, client, lane, req.ID+req.Cancel, c.Traceparent, value)
	if err != nil {
		return err
	}
	if c.Cancel != "" {
		out.ID = c.Cancel
	}
	if c.JSON {
		return cli.PrintJSON(p.Stdout, out)
	}
	_, err = fmt.Fprintln(p.Stdout, out.ID)
	return err
}

// ProduceRequest writes a request as any upstream does: its own key, Kafka's own partitioner.
func ProduceRequest(ctx context.Context, c consumers.ClientConfig, lane domain.Lane, id, traceparent string, value []byte) (Sent, error) {
	if traceparent == "" {
		traceparent = newTraceparent()
	}
	rec := &kgo.Record{
		Topic: consumers.TopicRequests(lane), Value: value,
		Headers: []kgo.RecordHeader{{Key: "traceparent", Value: []byte(traceparent)}},
	}
	if id != "" {
		rec.Key = []byte(id)
	}
	if err := cli.Produce(ctx, c, rec); err != nil {
		return Sent{}, err
	}
	if id == "" {
		id = fmt.Sprintf("%s/%d/%d", rec.Topic, rec.Partition, rec.Offset)
	}
	return Sent{ID: id, Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, Traceparent: traceparent}, nil
}

// newTraceparent begins a sampled trace (W3C Trace Context, version 00).
func newTraceparent() string {
	var b [24]byte
	_, _ = rand.Read(b[:]) // never fails
	return strings.Join([]string{"00", hex.EncodeToString(b[:16]), hex.EncodeToString(b[16:]), "01"}, "-")
}
