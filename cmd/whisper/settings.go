package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"

	"github.com/klivvr/whisper/cmd/whisper/cli"
)

const envPrefix = "WHISPER_"

// settings gives flags their values from the environment and the config file, and gathers every value
// that can't be read instead of stopping at the first. It is a kong.Resolver: what the command line says
// itself is never asked for.
//
// Variables that begin with WHISPER_ and name no flag are let pass: Kubernetes sets some by itself for a
// service of that name. Keys of the file that name no flag are errors.
type settings struct {
	env     map[string]string
	file    map[string]string
	path    string
	loaded  bool
	known   map[string]bool
	sources map[string]string // flag → where its value came from, where that is not the command line
	errs    []error
}

func newSettings(environ []string) *settings {
	s := &settings{env: map[string]string{}, sources: map[string]string{}}
	for _, pair := range environ {
		if name, value, ok := strings.Cut(pair, "="); ok && strings.HasPrefix(name, envPrefix) {
			s.env[name] = value
		}
	}
	return s
}

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Validate implements kong.Resolver.
func (s *settings) Validate(*kong.Application) error { return nil }

// Resolve implements kong.Resolver. The flag config itself comes first: it is the application's own.
func (s *settings) Resolve(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if flag.Name == "help" {
		return nil, nil
	}
	if value, ok := s.env[envName(flag.Name)]; ok {
		s.sources[flag.Name] = "from " + envName(flag.Name)
		return value, nil
	}
	if flag.Name == "config" {
		return nil, nil
	}
	s.load(ctx)
	if value, ok := s.file[flag.Name]; ok {
		s.sources[flag.Name] = "from " + s.path
		return value, nil
	}
	return nil, nil
}

// load reads the config file, once, when its path is known.
func (s *settings) load(ctx *kong.Context) {
	if s.loaded {
		return
	}
	s.loaded = true
	for _, flag := range ctx.Model.Flags {
		if flag.Name == "config" {
			s.path, _ = ctx.FlagValue(flag).(string)
		}
	}
	if s.path == "" {
		s.path = s.env[envName("config")]
	}
	if s.path == "" {
		return
	}
	text, err := os.ReadFile(s.path)
	if err != nil {
		s.errs = append(s.errs, fmt.Errorf("config: %w", err))
		return
	}
	s.file, err = parseConfig(s.path, text, s.known)
	if err != nil {
		s.errs = append(s.errs, err)
	}
}

// flagNames are all flags of all commands: one file may serve every role.
func flagNames(node *kong.Node) map[string]bool {
	names := map[string]bool{}
	for _, flag := range node.Flags {
		names[flag.Name] = true
	}
	for _, child := range node.Children {
		for name := range flagNames(child) {
			names[name] = true
		}
	}
	return names
}

// parseConfig reads a flat object: flag name → scalar, or a list of scalars. Values stay text, exactly as
// written, so that a flag reads the same from everywhere.
func parseConfig(path string, text []byte, known map[string]bool) (map[string]string, error) {
	if filepath.Ext(path) == ".json" && !json.Valid(text) {
		return nil, fmt.Errorf("config: %s is not JSON", path)
	}
	// JSON is YAML; only its tabs are not.
	if filepath.Ext(path) == ".json" {
		var compact bytes.Buffer
		if err := json.Compact(&compact, text); err != nil {
			return nil, fmt.Errorf("config: %s: %w", path, err)
		}
		text = compact.Bytes()
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("config: %s: %s", path, cli.OneLine(err.Error()))
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	object := doc.Content[0]
	if object.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("config: %s has no keys; write `flag-name: value` lines", path)
	}
	values := map[string]string{}
	var errs []error
	for i := 0; i+1 < len(object.Content); i += 2 {
		key, node := object.Content[i].Value, object.Content[i+1]
		value, err := configValue(node)
		switch _, twice := values[key]; {
		case !known[key] || key == "config" || key == "help":
			errs = append(errs, fmt.Errorf("config: %s:%d: no setting is called %q", path, node.Line, key))
		case twice:
			errs = append(errs, fmt.Errorf("config: %s:%d: %s is set twice", path, node.Line, key))
		case err != nil:
			errs = append(errs, fmt.Errorf("config: %s:%d: %s %w", path, node.Line, key, err))
		default:
			values[key] = value
		}
	}
	return values, errors.Join(errs...)
}

func configValue(node *yaml.Node) (string, error) {
	switch node.Kind {
	case yaml.ScalarNode:
		if node.Tag == "!!null" {
			return "", errors.New("has no value")
		}
		return node.Value, nil
	case yaml.SequenceNode:
		parts := make([]string, len(node.Content))
		for i, item := range node.Content {
			if item.Kind != yaml.ScalarNode {
				return "", errors.New("must be a list of plain values")
			}
			parts[i] = item.Value
		}
		return kong.JoinEscaped(parts, ','), nil
	case yaml.AliasNode:
		return configValue(node.Alias)
	case yaml.MappingNode, yaml.DocumentNode:
		return "", errors.New("must be a plain value or a list")
	default:
		return "", errors.New("must be a plain value or a list")
	}
}

// collectErrors makes every flag note what it can't read and go on with its default.
func (s *settings) collectErrors(k *kong.Kong) error {
	s.known = flagNames(k.Model.Node)
	return kong.Visit(k.Model, func(v kong.Visitable, next kong.Next) error {
		if flag, ok := v.(*kong.Flag); ok && flag.Name != "help" {
			flag.Mapper = &collectingMapper{Mapper: flag.Mapper, settings: s}
		}
		return next(nil)
	})
}

type collectingMapper struct {
	kong.Mapper
	settings *settings
}

// IsBool keeps `--flag` without a value working.
func (m *collectingMapper) IsBool() bool {
	b, ok := m.Mapper.(kong.BoolMapper)
	return ok && b.IsBool()
}

func (m *collectingMapper) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	if ctx.Scan.Peek().IsEOL() && !m.IsBool() {
		return m.Mapper.Decode(ctx, target) // a missing value can't be passed over
	}
	raw := ctx.Scan.Peek().Value
	isDefault := ctx.Value.HasDefault && raw == any(ctx.Value.Default)
	err := m.Mapper.Decode(ctx, target)
	if err == nil {
		err = checkEnum(ctx.Value, target)
	}
	if err == nil {
		return nil
	}
	if isDefault {
		return err // a default of ours is wrong: a fault in this program
	}
	m.settings.errs = append(m.settings.errs, fmt.Errorf("%s: %w", ctx.Value.Name, plainly(raw, target, err)))
	target.SetZero()
	if !ctx.Value.HasDefault {
		return nil
	}
	return m.Mapper.Decode(ctx.WithScanner(kong.ScanAsType(kong.FlagValueToken, ctx.Value.Default)), target)
}

// plainly says what was expected in words for people.
func plainly(raw any, target reflect.Value, err error) error {
	switch {
	case target.Type() == reflect.TypeFor[time.Duration]():
		return fmt.Errorf("%q is not a duration like 90s or 1h", raw)
	case target.CanInt():
		return fmt.Errorf("%q is not a whole number, or is too large", raw)
	case target.CanFloat():
		return fmt.Errorf("%q is not a number", raw)
	case target.Kind() == reflect.Bool:
		return fmt.Errorf("%q is neither true nor false", raw)
	default:
		return err
	}
}

func checkEnum(value *kong.Value, target reflect.Value) error {
	if value.Enum == "" || target.Kind() != reflect.String {
		return nil
	}
	for _, allowed := range value.EnumSlice() {
		if allowed == target.String() {
			return nil
		}
	}
	return fmt.Errorf("unknown %q: give %s", target.String(), orList(value.EnumSlice()))
}

// orList is "a, b or c".
func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// explain is a complaint with where the value came from. Complaints begin with the setting's name.
func (s *settings) explain(err error) string {
	text := cli.OneLine(err.Error())
	name, rest, ok := strings.Cut(text, ":")
	name = strings.TrimPrefix(name, "--")
	if !ok || !s.known[name] {
		return text
	}
	text = "--" + name + ":" + rest
	if source := s.sources[name]; source != "" {
		text += " (" + source + ")"
	}
	return text
}
