package operate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/locale"
	"github.com/klivvr/whisper/domain/profile"
	"github.com/klivvr/whisper/domain/record"
	"github.com/klivvr/whisper/domain/template"
	"github.com/klivvr/whisper/domain/whisperv1"
)

type templatesPreviewCmd struct {
	ID        string            `arg:"" optional:"" name:"template" help:"The template's id, or ID@VERSION."`
	File      string            `placeholder:"FILE" help:"A file with a template that is not applied yet, instead of an id."`
	Variables string            `placeholder:"JSON" help:"The request's variables, a JSON object, or @FILE."`
	Var       map[string]string `placeholder:"NAME=VALUE" mapsep:"none" help:"A variable that is a text; may be repeated."`
	User      string            `placeholder:"ID" help:"Render it for this user, with the profile in Kafka."`
	Profile   string            `placeholder:"JSON" help:"Render it for a user with this profile, or @FILE: {\"locale\": …, \"timezone\": …, \"attributes\": {…}}."`
	Locale    string            `placeholder:"TAG" help:"Render it in this locale, whatever the profile says."`
	Timezone  string            `placeholder:"NAME" help:"Render it in this time zone, whatever the profile says."`
	Channel   string            `placeholder:"NAME" help:"Render it for this channel (default: what all channels get that have no texts of their own)."`
	JSON      bool              `name:"json" help:"Print JSON."`
	Kafka     cli.KafkaFlags    `embed:"" group:"kafka"`
}

// Help implements kong.HelpProvider.
func (c *templatesPreviewCmd) Help() string {
	return `Renders as dispatch does, and sends nothing. Examples:

    whisper templates preview card-payment --locale ar-EG --variables '{"amount": 120.50, "currency": "EGP"}'
    whisper templates preview --file card-payment.yaml --user mona --variables @variables.json --channel push`
}

// Check names every problem of these settings.
func (c *templatesPreviewCmd) Check() error {
	errs := []error{c.Kafka.Check()}
	if (c.ID == "") == (c.File == "") {
		errs = append(errs, errors.New("file: give either the id of a template or a file"))
	}
	if c.User != "" && c.Profile != "" {
		errs = append(errs, errors.New("profile: can't be combined with user: give one of them"))
	}
	if c.Locale != "" {
		if _, err := locale.Canonical(c.Locale); err != nil {
			errs = append(errs, fmt.Errorf("locale: %q %w", c.Locale, err))
		}
	}
	return errors.Join(errs...)
}

// preview is what --json prints.
type preview struct {
	Template string          `json:"template"`
	Locale   string          `json:"locale"`
	Variant  string          `json:"variant,omitempty"`
	PerUser  bool            `json:"per_user"`
	Title    string          `json:"title,omitempty"`
	Body     string          `json:"body,omitempty"`
	URL      string          `json:"url,omitempty"`
	Image    string          `json:"image,omitempty"`
	Data     json.RawMessage `json:"data,omitempty"`
}

func (c *templatesPreviewCmd) Run(ctx context.Context, p *cli.Process) error {
	variables, err := variablesOf(c.Variables, c.Var)
	if err != nil {
		return err
	}
	var client consumers.ClientConfig
	if c.ID != "" || c.User != "" {
		if client, err = c.Kafka.ToolClient(ctx, p); err != nil {
			return err
		}
	}
	name, tmpl, err := c.template(ctx, client)
	if err != nil {
		return err
	}
	profile, err := c.profile(ctx, client)
	if err != nil {
		return err
	}
	profile.Locale, profile.Timezone = cmp.Or(c.Locale, profile.GetLocale()), cmp.Or(c.Timezone, profile.GetTimezone())
	if err := tmpl.CheckVariables(variables); err != nil {
		return fmt.Errorf("intake would refuse the request: %w", err)
	}
	content, locale, err := tmpl.Render(template.RenderingFor(variables, profile, c.Channel, p.Now()))
	if err != nil {
		return fmt.Errorf("in %s: %w", locale, err)
	}
	out := preview{
		Template: name, Locale: locale, Variant: tmpl.Variant(profile.GetLocale(), c.Channel), PerUser: tmpl.PerUser(profile.GetLocale()),
		Title: content.GetTitle(), Body: content.GetBody(), URL: content.GetUrl(), Image: content.GetImage(), Data: content.GetData(),
	}
	return out.print(p.Stdout, c.JSON)
}

func (v preview) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return cli.PrintJSON(w, v)
	}
	shared := "the same for everyone with these texts"
	if v.PerUser {
		shared = "each user's own"
	}
	_, _ = fmt.Fprintf(w, "%s in %s, texts of %s, %s\n", v.Template, v.Locale, cmp.Or(v.Variant, "all channels"), shared)
	for _, field := range []struct{ name, text string }{
		{"title", v.Title}, {"body", v.Body}, {"url", v.URL}, {"image", v.Image}, {"data", string(v.Data)},
	} {
		if field.text != "" {
			if _, err := fmt.Fprintf(w, "%-6s %s\n", field.name, strings.ReplaceAll(field.text, "\n", "\n       ")); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *templatesPreviewCmd) template(ctx context.Context, client consumers.ClientConfig) (string, *template.Template, error) {
	if c.File != "" {
		t, problems := readTemplateFile(c.File)
		if len(problems) > 0 {
			return "", nil, fmt.Errorf("%s: %s", c.File, strings.Join(problems, "; "))
		}
		return t.id, t.parsed, nil
	}
	store, err := readTemplates(ctx, client)
	if err != nil {
		return "", nil, err
	}
	rec, err := store.find(c.ID)
	if err != nil {
		return "", nil, err
	}
	tmpl, err := template.Parse(rec.Value)
	name := c.ID
	if version := consumers.TemplateVersionOf(rec); version > 0 {
		name = template.Pin(c.ID, version)
	}
	return name, tmpl, err
}

// profile is the given one or the user's; empty where there is none.
func (c *templatesPreviewCmd) profile(ctx context.Context, client consumers.ClientConfig) (*whisperv1.Profile, error) {
	merged := &whisperv1.Profile{}
	switch {
	case c.Profile != "":
		patch, err := argumentOrFile(c.Profile)
		if err != nil {
			return nil, fmt.Errorf("profile: %w", err)
		}
		parsed, err := profile.ParsePatch(patch)
		if err != nil {
			return nil, fmt.Errorf("profile: %w", err)
		}
		return profile.Apply(merged, parsed, time.Time{}, 1)
	case c.User != "":
		found := false
		err := cli.Scan{Client: client, Topics: []string{consumers.TopicUsers}, Only: c.User}.Run(ctx, func(rec *kgo.Record) error {
			if string(rec.Key) != c.User {
				return nil
			}
			found = rec.Value != nil
			merged.Reset()
			return proto.Unmarshal(rec.Value, merged)
		})
		if err == nil && !found {
			err = fmt.Errorf("user %s has no profile", c.User)
		}
		return merged, err
	}
	return merged, nil
}

// argumentOrFile is a flag's text, or what is in the file that it names with an @.
func argumentOrFile(s string) ([]byte, error) {
	if path, isFile := strings.CutPrefix(s, "@"); isFile {
		return os.ReadFile(path)
	}
	return []byte(s), nil
}

// variablesOf puts the variables of a command line together; those named one by one are texts and come last.
func variablesOf(object string, named map[string]string) ([]byte, error) {
	if object == "" && len(named) == 0 {
		return nil, nil
	}
	all := map[string]json.RawMessage{}
	if object != "" {
		source, err := argumentOrFile(object)
		if err == nil {
			all, err = record.StrictMembers(source, "it")
		}
		if err != nil {
			return nil, fmt.Errorf("variables: %q is not a JSON object: %w", cli.OneLine(object), err)
		}
	}
	for name, text := range named {
		all[name] = mustJSON(text)
	}
	return json.Marshal(all)
}
