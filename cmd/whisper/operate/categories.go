package operate

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

	"github.com/twmb/franz-go/pkg/kgo"
	"go.yaml.in/yaml/v3"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/category"
)

// Categories is `whisper categories`: it declares what may be sent how often, and when.
type Categories struct {
	Apply  categoriesApplyCmd  `cmd:"" help:"Declare categories, or change their rules; safe to repeat."`
	List   categoriesListCmd   `cmd:"" help:"Print the declared categories."`
	Show   categoriesShowCmd   `cmd:"" help:"Print the rules that apply to a request's category."`
	Delete categoriesDeleteCmd `cmd:"" help:"Delete a declaration."`
}

type categoriesFlags struct {
	Kafka cli.KafkaFlags `embed:"" group:"kafka"`
	JSON  bool           `name:"json" help:"Print JSON."`
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
	return `The file has categories with their rules; those that it does not name stay as they are. docs/preferences.md describes
the rules. An example:

    security: {mandatory: true, channels: [push, socket]}
    marketing:
      caps: [{n: 3, per: day}, {n: 10, per: week, by: user}]
      quiet_hours: drop
    payments: {auto_ack: false}   # as in a mandatory one, only the client itself acknowledges it`
}

func (c *categoriesApplyCmd) Run(ctx context.Context, p *cli.Process) error {
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
	Name []string `arg:"" help:"Categories whose declarations are deleted."`
}

func (c *categoriesDeleteCmd) Run(ctx context.Context, p *cli.Process) error {
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

// planChange says what to write, and what that means, given what is declared.
type planChange func(have map[string]json.RawMessage) ([]*kgo.Record, []categoryDone)

// change compares with what is declared, writes what differs, and says what it did.
func (f categoriesFlags) change(ctx context.Context, p *cli.Process, plan planChange) error {
	client, err := f.Kafka.ToolClient(ctx, p)
	if err != nil {
		return err
	}
	have, err := DeclaredCategories(ctx, client)
	if err != nil {
		return err
	}
	recs, done := plan(have)
	if err := cli.Produce(ctx, client, recs...); err != nil {
		return err
	}
	for _, d := range done {
		if f.JSON {
			err = cli.PrintJSON(p.Stdout, d)
		} else {
			_, err = fmt.Fprintf(p.Stdout, "%s %s\n", d.Change, d.Category)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// DeclaredCategories reads the declared categories from their topic: name to rules, as JSON. Declarations that dispatch
// passes over are left out.
func DeclaredCategories(ctx context.Context, client consumers.ClientConfig) (map[string]json.RawMessage, error) {
	have := map[string]json.RawMessage{}
	s := cli.Scan{Client: client, Topics: []string{consumers.TopicCategories}}
	err := s.Run(ctx, func(rec *kgo.Record) error {
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

func (c *categoriesListCmd) Run(ctx context.Context, p *cli.Process) error {
	client, err := c.Kafka.ToolClient(ctx, p)
	if err != nil {
		return err
	}
	have, err := DeclaredCategories(ctx, client)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if c.JSON {
			err = cli.PrintJSON(p.Stdout, categoryDone{Category: name, Change: "declared", Rules: have[name]})
		} else {
			_, err = fmt.Fprintf(p.Stdout, "%-32s %s\n", name, have[name])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

type categoriesShowCmd struct {
	categoriesFlags
	Name string `arg:"" help:"The category as a request names it. Its rules may be those of a part of its name, or of default."`
}

func (c *categoriesShowCmd) Run(ctx context.Context, p *cli.Process) error {
	client, err := c.Kafka.ToolClient(ctx, p)
	if err != nil {
		return err
	}
	have, err := DeclaredCategories(ctx, client)
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
		change := map[bool]string{true: "declared", false: "undeclared"}[ok]
		return cli.PrintJSON(p.Stdout, categoryDone{Category: found, Change: change, Rules: rules})
	}
	switch {
	case found == c.Name && ok:
	case ok:
		_, _ = fmt.Fprintf(p.Stdout, "%s is not declared; it goes by the rules of %s:\n", c.Name, found)
	default:
		_, _ = fmt.Fprintf(p.Stdout, "%s is not declared, nor is default; it goes by the rules that everything has:\n", c.Name)
	}
	_, err = fmt.Fprintf(p.Stdout, "%s\n", rules)
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
