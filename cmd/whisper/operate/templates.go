package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/domain/request"
)

// Templates is `whisper templates`: it checks, applies, previews, lists and shows templates.
type Templates struct {
	Check   templatesCheckCmd   `cmd:"" help:"Check templates in files, without Kafka."`
	Apply   templatesApplyCmd   `cmd:"" help:"Make a new version of each template that has changed."`
	Preview templatesPreviewCmd `cmd:"" help:"Show a template as a user would get it."`
	List    templatesListCmd    `cmd:"" help:"List the templates, one line each."`
	Show    templatesShowCmd    `cmd:"" help:"Show a template, or one version of it."`
}

type templatesCheckCmd struct {
	Files []string `arg:"" name:"file" help:"YAML or JSON files, one template each. A template's id is its field id, or the file's name."`
	JSON  bool     `name:"json" help:"One JSON object a file."`
}

// checkedTemplate is what check says of one file.
type checkedTemplate struct {
	File     string   `json:"file"`
	ID       string   `json:"id"`
	Locales  []string `json:"locales,omitempty"`
	Needs    []string `json:"needs,omitempty"`
	Problems []string `json:"problems,omitempty"`
}

func (c *templatesCheckCmd) Run(_ context.Context, p *cli.Process) error {
	bad := 0
	for _, file := range c.Files {
		found := checkedTemplate{File: file}
		t, problems := readTemplateFile(file)
		found.ID, found.Problems = t.id, problems
		if len(problems) == 0 {
			found.Locales, found.Needs = t.parsed.Locales(), t.parsed.Needs()
		} else {
			bad++
		}
		if err := found.print(p.Stdout, c.JSON); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d templates can't be used", bad, len(c.Files))
	}
	return nil
}

func (t checkedTemplate) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return cli.PrintJSON(w, t)
	}
	if len(t.Problems) == 0 {
		needs := "no variables"
		if len(t.Needs) > 0 {
			needs = strings.Join(t.Needs, ", ")
		}
		_, err := fmt.Fprintf(w, "%s: %s is fine: in %s; needs %s\n", t.File, t.ID, strings.Join(t.Locales, ", "), needs)
		return err
	}
	for _, problem := range t.Problems {
		if _, err := fmt.Fprintf(w, "%s: %s\n", t.File, problem); err != nil {
			return err
		}
	}
	return nil
}

type templatesApplyCmd struct {
	Files []string       `arg:"" name:"file" help:"YAML or JSON files, one template each. A template's id is its field id, or the file's name."`
	Keep  time.Duration  `default:"2160h" zero:"keep all" placeholder:"DURATION" help:"Remove versions that were replaced longer ago than this (default ${default}); 0 keeps all. A delivery waits for at most 60 days."`
	JSON  bool           `name:"json" help:"One JSON object a template."`
	Kafka cli.KafkaFlags `embed:"" group:"kafka"`
}

// Help implements kong.HelpProvider.
func (c *templatesApplyCmd) Help() string {
	return `A version never changes once it is made, and each delivery is rendered from the version that its request was accepted
with. If one of the files can't be used, nothing is applied. A template that has not changed keeps its version.
Example:

    whisper templates apply templates/*.yaml`
}

// Check names every problem of these settings.
func (c *templatesApplyCmd) Check() error {
	errs := []error{c.Kafka.Check()}
	if c.Keep != 0 && c.Keep < request.MaxSchedule+request.MaxTTL {
		errs = append(errs, fmt.Errorf("keep: %s is shorter than deliveries may wait: give at least %s", c.Keep,
			request.MaxSchedule+request.MaxTTL))
	}
	return errors.Join(errs...)
}

func (c *templatesApplyCmd) Run(ctx context.Context, p *cli.Process) error {
	var files []templateFile
	var errs []error
	for _, file := range c.Files {
		t, problems := readTemplateFile(file)
		for _, problem := range problems {
			errs = append(errs, fmt.Errorf("%s: %s", file, problem))
		}
		if slices.ContainsFunc(files, func(other templateFile) bool { return other.id == t.id }) {
			errs = append(errs, fmt.Errorf("%s: template %s is in two of the files", file, t.id))
		}
		files = append(files, t)
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	client, err := c.Kafka.ToolClient(ctx, p)
	if err != nil {
		return err
	}
	store, err := readTemplates(ctx, client)
	if err != nil {
		return err
	}
	for _, t := range files {
		done, err := store.apply(ctx, client, t, p.Now(), c.Keep)
		if err != nil {
			return err
		}
		if err := done.print(p.Stdout, c.JSON); err != nil {
			return err
		}
	}
	return nil
}

// applied is what apply did about one template.
type applied struct {
	ID        string `json:"id"`
	Version   int64  `json:"version"`
	Unchanged bool   `json:"unchanged,omitempty"`
	// Removed are old versions.
	Removed []int64 `json:"removed,omitempty"`
}

func (a applied) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return cli.PrintJSON(w, a)
	}
	text := fmt.Sprintf("%s: version %d", a.ID, a.Version)
	if a.Unchanged {
		text = fmt.Sprintf("%s: unchanged, stays version %d", a.ID, a.Version)
	}
	if len(a.Removed) > 0 {
		text += fmt.Sprintf("; removed %d old versions", len(a.Removed))
	}
	_, err := fmt.Fprintln(w, text)
	return err
}

type templatesListCmd struct {
	JSON  bool           `name:"json" help:"One JSON object a template."`
	Kafka cli.KafkaFlags `embed:"" group:"kafka"`
}

func (c *templatesListCmd) Check() error { return c.Kafka.Check() }

// listedTemplate is a line of list.
type listedTemplate struct {
	ID       string    `json:"id"`
	Version  int64     `json:"version,omitempty"`
	Versions []int64   `json:"versions,omitempty"`
	At       time.Time `json:"at"`
	Locales  []string  `json:"locales,omitempty"`
	Problem  string    `json:"problem,omitempty"`
}

func (c *templatesListCmd) Run(ctx context.Context, p *cli.Process) error {
	client, err := c.Kafka.ToolClient(ctx, p)
	if err != nil {
		return err
	}
	store, err := readTemplates(ctx, client)
	if err != nil {
		return err
	}
	for _, t := range store.list() {
		if err := t.print(p.Stdout, c.JSON); err != nil {
			return err
		}
	}
	return nil
}

func (t listedTemplate) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return cli.PrintJSON(w, t)
	}
	version := "without versions"
	if t.Version > 0 {
		version = fmt.Sprintf("version %d", t.Version)
	}
	_, err := fmt.Fprintf(w, "%-30s %-16s  %s  %s%s\n", t.ID, version, t.At.UTC().Format(cli.TimeMillis),
		strings.Join(t.Locales, " "), pairs("", map[string]any{"problem": t.Problem}))
	return err
}

type templatesShowCmd struct {
	ID    string         `arg:"" name:"template" help:"The template's id, or ID@VERSION."`
	Kafka cli.KafkaFlags `embed:"" group:"kafka"`
}

func (c *templatesShowCmd) Check() error { return c.Kafka.Check() }

// Run prints the record as it stands in the topic.
func (c *templatesShowCmd) Run(ctx context.Context, p *cli.Process) error {
	client, err := c.Kafka.ToolClient(ctx, p)
	if err != nil {
		return err
	}
	store, err := readTemplates(ctx, client)
	if err != nil {
		return err
	}
	rec, err := store.find(c.ID)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.Stdout, "%s\n", rec.Value)
	return err
}
