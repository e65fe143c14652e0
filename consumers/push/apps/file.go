package apps

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// file is an apps file that was read and not yet opened.
type file struct {
	path        string
	fallback    string // the app of endpoints that name none
	channels    []string
	credentials []*Credential
}

// maxAppBytes is what an endpoint's app may have (domain/profile).
const maxAppBytes = 256

// parse reads the file's outer form, and names every problem of it.
func parse(path string, known []string) (*file, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	p := &parser{file: file{path: path}, known: known}
	if len(doc.Content) == 0 {
		p.complain(1, "it is empty: name a channel and its credentials")
	} else {
		p.top(doc.Content[0])
	}
	return &p.file, errors.Join(p.errs...)
}

type parser struct {
	file
	known []string
	errs  []error
}

func (p *parser) complain(line int, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s:%d: %s", p.path, line, fmt.Sprintf(format, args...)))
}

func (p *parser) top(n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		p.complain(n.Line, "it is not a table of channels")
		return
	}
	var seen []string
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case slices.Contains(seen, key.Value):
			p.complain(key.Line, "%s comes twice", key.Value)
		case key.Value == "default":
			if p.fallback = value.Value; value.Kind != yaml.ScalarNode || p.fallback == "" {
				p.complain(value.Line, "default: name the app of endpoints that name none")
			}
		case !slices.Contains(p.known, key.Value):
			p.complain(key.Line, "unknown channel %q: there are %s", key.Value, strings.Join(p.known, ", "))
		case value.Kind != yaml.SequenceNode || len(value.Content) == 0:
			p.complain(key.Line, "%s: give a list of credentials", key.Value)
		default:
			p.channels = append(p.channels, key.Value)
			p.channel(key.Value, value.Content)
		}
		seen = append(seen, key.Value)
	}
	if len(p.channels) == 0 && len(p.errs) == 0 {
		p.complain(n.Line, "it names no credential")
	}
	serves := func(c *Credential) bool { return slices.Contains(c.Apps, p.fallback) || slices.Contains(c.Apps, Any) }
	if p.fallback != "" && !slices.ContainsFunc(p.credentials, serves) {
		p.complain(n.Line, "default: no credential names the app %s", p.fallback)
	}
}

func (p *parser) channel(name string, list []*yaml.Node) {
	apps, names := map[string]int{}, map[string]int{}
	for _, n := range list {
		c := p.credential(name, n)
		if c == nil {
			continue
		}
		for _, app := range c.Apps {
			if before, twice := apps[app]; twice {
				p.complain(c.line, "%s: the app %s has a credential in line %d already", name, app, before)
			}
			apps[app] = c.line
		}
		if before, twice := names[c.Name]; twice {
			p.complain(c.line, "%s: the name %s is that of line %d: give each credential its own", name, c.Name, before)
		}
		names[c.Name] = c.line
		p.credentials = append(p.credentials, c)
	}
}

func (p *parser) credential(channel string, n *yaml.Node) *Credential {
	if n.Kind != yaml.MappingNode {
		p.complain(n.Line, "%s: a credential is a table of settings", channel)
		return nil
	}
	c := &Credential{
		channel: channel, line: n.Line, dir: filepath.Dir(p.path), secrets: map[string][sha256.Size]byte{},
		node: &yaml.Node{Kind: yaml.MappingNode, Tag: n.Tag, Line: n.Line, Column: n.Column},
	}
	problems := len(p.errs)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch key.Value {
		case "name":
			c.Name = value.Value
			if !isName(c.Name) {
				p.complain(value.Line, "%s: name: %q is not 1 to 64 of a-z, A-Z, 0-9, ., - and _", channel, c.Name)
			}
		case "apps":
			if value.Decode(&c.Apps) != nil || len(c.Apps) == 0 {
				p.complain(value.Line, "%s: apps: give a list of apps as endpoints name them, or [\"*\"] for all others", channel)
			}
		default:
			c.node.Content = append(c.node.Content, key, value)
		}
	}
	for _, app := range c.Apps {
		if app == "" || len(app) > maxAppBytes {
			p.complain(n.Line, "%s: apps: %q is not 1 to %d bytes", channel, app, maxAppBytes)
		}
	}
	if len(p.errs) > problems {
		return nil
	}
	if len(c.Apps) == 0 {
		p.complain(n.Line, "%s: apps: missing: name the apps that the credential serves, or [\"*\"] for all others", channel)
		return nil
	}
	if c.Name == "" {
		if c.Name = c.Apps[0]; c.Name == Any {
			c.Name = "any"
		}
	}
	text, err := yaml.Marshal(c.node)
	if err != nil {
		p.complain(n.Line, "%s: %v", channel, err)
		return nil
	}
	c.text = string(text)
	return c
}

// isName: a credential's name becomes a label of metrics.
func isName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(".-_", r)
	})
}

// leaves are the single problems of a joined error.
func leaves(err error) []error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range many.Unwrap() {
			all = append(all, leaves(e)...)
		}
		return all
	}
	return []error{err}
}
