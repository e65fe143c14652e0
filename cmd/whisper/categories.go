package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.yaml.in/yaml/v3"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/category"
)

type categoriesCmd struct {
	Apply  categoriesApplyCmd  `cmd:"" help:"Declare categories, or change their rules; safe to repeat."`
	List   categoriesListCmd   `cmd:"" help:"Print the declared categories."`
	Show   categoriesShowCmd   `cmd:"" help:"Print the rules that a request's category goes by."`
	Delete categoriesDeleteCmd `cmd:"" help:"Take a declaration back."`
}

type categoriesFlags struct {
	Kafka kafkaFlags `embed:"" group:"kafka"`
	JSON  bool       `name:"json" help:"Print JSON."`
}

// Check names every problem of these settings.
func (f categoriesFlags) Check() error { return f.Kafka.Check() }

// categoryDone is what --json prints of a change.
type categoryDone struct {
	Category string          `json:"category"`
	Change   string          `json:"change"` // declared, changed, unchanged, deleted
	Rules    json.RawMessage `json:"rules,omitempty"`
}

type categoriesApplyCmd struct {
	categoriesFlags
	File string `short:"f" required:"" placeholder:"FILE" help:"YAML or JSON: the name of each category with its rules; - is standard input."`
}

// Help implements kong.HelpProvider.
func (c *categoriesApplyCmd) Help() string {
	return `The file names each category with its rules; what it does not name stays as it is. docs/preferences.md says what the rules can be. An example:

    security: {mandatory: true, channels: [push, socket]}
    marketing:
      caps: [{n: 3, per: day}, {n: 10, per: week, by: user}]
      quiet_hours: drop
    payments: {auto_ack: false}   # as in a mandatory one, no socket settles it without its client's word`
}

func (c *categoriesApplyCmd) Run(ctx context.Context, p *process) error {
	wanted, err := readCategories(c.File)
	if err != nil {
		return err
	}
	return c.change(ctx, p, func(have map[string]json.RawMessage) (recs []*kgo.Record, done []categoryDone) {
		for _, name := range slices.Sorted(maps.Keys(wanted)) {
			d := categoryDone{Category: name, Change: "declared", Rules: wanted[name]}
			if old, ok := have[name]; ok {
				d.Change = "changed"
				if string(old) == string(wanted[name]) {
					d.Change = "unchanged"
				}
			}
			if done = append(done, d); d.Change != "unchanged" {
				recs = append(recs, &kgo.Record{Topic: consumers.TopicCategories, Key: []byte(name), Value: wanted[name]})
			}
		}
		return recs, done
	})
}

type categoriesDeleteCmd struct {
	categoriesFlags
	Name []string `arg:"" help:"Which."`
}

func (c *categoriesDeleteCmd) Run(ctx context.Context, p *process) error {
	var missing []string
	err := c.change(ctx, p, func(have map[string]json.RawMessage) (recs []*kgo.Record, done []categoryDone) {
		for _, name := range c.Name {
			if _, ok := have[name]; !ok {
				missing = append(missing, name)
				continue
			}
			done = append(done, categoryDone{Category: name, Change: "deleted"})
			recs = append(recs, &kgo.Record{Topic: consumers.TopicCategories, Key: []byte(name)})
		}
		return recs, done
	})
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("not declared: %s", strings.Join(missing, ", "))
	}
	return err
}

// change compares with what is declared, writes what differs, and says what it did.
func (f categoriesFlags) change(ctx context.Context, p *process, plan func(have map[string]json.RawMessage) ([]*kgo.Record, []categoryDone)) error {
	client, err := f.Kafka.toolClient(ctx, p)
	if err != nil {
		return err
	}
	have, err := declared(ctx, client)
	if err != nil {
		return err
	}
	recs, done := plan(have)
	if err := produce(ctx, client, recs...); err != nil {
		return err
	}
	for _, d := range done {
		if f.JSON {
			err = printJSON(p.stdout, d)
		} else {
			_, err = fmt.Fprintf(p.stdout, "%s %s\n", d.Change, d.Category)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// produce writes records and waits until all replicas have them.
func produce(ctx context.Context, client consumers.ClientConfig, recs ...*kgo.Record) error {
	if len(recs) == 0 {
		return nil
	}
	cl, err := kgo.NewClient(append(client.Options(), kgo.ProducerLinger(0), kgo.RecordDeliveryTimeout(10*time.Second), kgo.UnknownTopicRetries(2))...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
		return fmt.Errorf("write to %s: %w", recs[0].Topic, err)
	}
	return nil
}

// declared are the categories as the topic has them, with their rules as JSON.
func declared(ctx context.Context, client consumers.ClientConfig) (map[string]json.RawMessage, error) {
	have := map[string]json.RawMessage{}
	s := scan{client: client, topics: []string{consumers.TopicCategories}}
	err := s.run(ctx, func(rec *kgo.Record) error {
		if len(rec.Value) == 0 {
			delete(have, string(rec.Key))
		} else if _, err := category.Parse(string(rec.Key), rec.Value); err == nil { // as dispatch passes over bad ones
			have[string(rec.Key)] = rec.Value
		}
		return nil
	})
	return have, err
}

type categoriesListCmd struct{ categoriesFlags }

func (c *categoriesListCmd) Run(ctx context.Context, p *process) error {
	client, err := c.Kafka.toolClient(ctx, p)
	if err != nil {
		return err
	}
	have, err := declared(ctx, client)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if c.JSON {
			err = printJSON(p.stdout, categoryDone{Category: name, Change: "declared", Rules: have[name]})
		} else {
			_, err = fmt.Fprintf(p.stdout, "%-32s %s\n", name, have[name])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

type categoriesShowCmd struct {
	categoriesFlags
	Name string `arg:"" help:"As a request calls it; the rules may be those of a part of its name, or of default."`
}

func (c *categoriesShowCmd) Run(ctx context.Context, p *process) error {
	client, err := c.Kafka.toolClient(ctx, p)
	if err != nil {
		return err
	}
	have, err := declared(ctx, client)
	if err != nil {
		return err
	}
	var all category.Categories
	for name, rules := range have {
		if category, err := category.Parse(name, rules); err == nil {
			all.Put(name, category)
		}
	}
	found := all.Find(c.Name).Name
	rules, ok := have[found]
	if !ok {
		rules = json.RawMessage(`{}`)
	}
	if c.JSON {
		return printJSON(p.stdout, categoryDone{Category: found, Change: map[bool]string{true: "declared", false: "undeclared"}[ok], Rules: rules})
	}
	switch {
	case found == c.Name && ok:
	case ok:
		_, _ = fmt.Fprintf(p.stdout, "%s is not declared; it goes by the rules of %s:\n", c.Name, found)
	default:
		_, _ = fmt.Fprintf(p.stdout, "%s is not declared, nor is default; it goes by the rules that everything has:\n", c.Name)
	}
	_, err = fmt.Fprintf(p.stdout, "%s\n", rules)
	return err
}

// readCategories reads a file and checks each of its categories; all that is wrong is told at once.
func readCategories(path string) (map[string]json.RawMessage, error) {
	var text []byte
	var err error
	if path == "-" {
		text, err = io.ReadAll(os.Stdin)
	} else {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the categories: %w", err)
	}
	var doc map[string]map[string]any
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("%s is not a map of categories to their rules: %w", path, err)
	}
	all := map[string]json.RawMessage{}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(doc)) {
		rules := doc[name]
		if rules == nil {
			rules = map[string]any{}
		}
		value, err := json.Marshal(rules)
		if err == nil {
			_, err = category.Parse(name, value)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		all[name] = value
	}
	return all, errors.Join(errs...)
}
