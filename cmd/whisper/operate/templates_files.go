package operate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/domain/record"
	"github.com/klivvr/whisper/domain/template"
)

// templateFile is a template as somebody keeps it in a file: the record's fields, and its id.
type templateFile struct {
	id     string
	value  []byte // the record: JSON with sorted names, so that the same template is the same bytes
	parsed *template.Template
}

// readTemplateFile reads YAML or JSON and says all that is wrong with it.
func readTemplateFile(path string) (t templateFile, problems []string) {
	source, err := os.ReadFile(path)
	if err != nil {
		return t, []string{err.Error()}
	}
	t.id = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	fields, err := templateFields(path, source)
	if err != nil {
		return t, []string{err.Error()}
	}
	if id, given := fields["id"]; given {
		name, isText := id.(string)
		if !isText {
			return t, []string{"id must be a string"}
		}
		t.id = name
		delete(fields, "id")
	}
	if err := template.CheckID(t.id); err != nil {
		problems = append(problems, fmt.Sprintf("id %q %v", t.id, err))
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(fields); err != nil {
		return t, append(problems, err.Error())
	}
	t.value = bytes.TrimSpace(out.Bytes())
	t.parsed, err = template.Parse(t.value)
	var invalid *record.Invalid
	switch {
	case errors.As(err, &invalid):
		problems = append(problems, invalid.Problems...)
		if invalid.More > 0 {
			problems = append(problems, fmt.Sprintf("and %d more problems", invalid.More))
		}
	case err != nil:
		problems = append(problems, err.Error())
	}
	return t, problems
}

func templateFields(path string, source []byte) (map[string]any, error) {
	if filepath.Ext(path) == ".json" {
		if _, err := record.StrictMembers(source, "the template"); err != nil {
			return nil, err
		}
		dec := json.NewDecoder(bytes.NewReader(source))
		dec.UseNumber()
		var fields map[string]any
		if err := dec.Decode(&fields); err != nil {
			return nil, fmt.Errorf("is not a JSON object: %w", err)
		}
		return fields, nil
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(source, &doc); err != nil {
		return nil, fmt.Errorf("is not YAML: %s", cli.OneLine(err.Error()))
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("is not a template: fields such as default_locale and locales are expected")
	}
	value, err := yamlValue(doc.Content[0], 0)
	if err != nil {
		return nil, err
	}
	fields, _ := value.(map[string]any)
	return fields, nil
}

// yamlValue is what a node is in JSON. YAML's own decoding would make times of texts that look like one.
func yamlValue(n *yaml.Node, depth int) (any, error) {
	if depth > 32 {
		return nil, fmt.Errorf("line %d: nested deeper than 32 levels", n.Line)
	}
	switch n.Kind {
	case yaml.MappingNode:
		object := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			name := n.Content[i]
			if name.Kind != yaml.ScalarNode {
				return nil, fmt.Errorf("line %d: a name is expected", name.Line)
			}
			if _, twice := object[name.Value]; twice {
				return nil, fmt.Errorf("line %d: %s is set twice", name.Line, name.Value)
			}
			value, err := yamlValue(n.Content[i+1], depth+1)
			if err != nil {
				return nil, err
			}
			object[name.Value] = value
		}
		return object, nil
	case yaml.SequenceNode:
		list := []any{}
		for _, item := range n.Content {
			value, err := yamlValue(item, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		return list, nil
	case yaml.ScalarNode:
		return yamlScalar(n), nil
	case yaml.DocumentNode, yaml.AliasNode:
		fallthrough
	default:
		return nil, fmt.Errorf("line %d: anchors and aliases are not supported: write the value out", n.Line)
	}
}

func yamlScalar(n *yaml.Node) any {
	switch n.Tag {
	case "!!null":
		return nil
	case "!!bool":
		if b, err := strconv.ParseBool(strings.ToLower(n.Value)); err == nil {
			return b
		}
	case "!!int", "!!float":
		if json.Valid([]byte(n.Value)) {
			return json.Number(n.Value)
		}
		var f float64
		if n.Decode(&f) == nil {
			if text, err := json.Marshal(f); err == nil {
				return json.Number(text)
			}
		}
	}
	return n.Value
}
