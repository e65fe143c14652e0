package apps

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.yaml.in/yaml/v3"

	"github.com/klivvr/whisper/consumers/push"
)

// Channel is one entry of the registry of channels: how a credential in the file becomes a provider.
type Channel struct {
	// Name is the channel's, and the name of its section.
	Name string
	// Open makes the provider of one credential. It names every problem, by the names of the file's fields, and neither
	// connects nor asks anybody: it is also how a file is checked.
	Open func(*Credential) (push.Provider, error)
}

// Credential is one credential of the file, as its channel's Open gets it.
type Credential struct {
	// Name is the credential's in metrics and logs: its `name`, else its first app.
	Name string
	// Apps are the apps that it serves, or [Any].
	Apps []string

	Logger  *slog.Logger
	Metrics *metrics.Set
	Now     func() time.Time

	channel string
	line    int
	node    *yaml.Node // what the channel reads: without name and apps
	text    string     // the same, to see whether it has changed
	dir     string
	secrets map[string][sha256.Size]byte // the files that Open read
}

// Any as an app is every app that no other credential of the channel names.
const Any = "*"

// Decode reads the channel's own settings into a struct with yaml tags. A field that the struct does not have is an error.
func (c *Credential) Decode(into any) error {
	known, errs := fieldsOf(into), []error(nil)
	for i := 0; i+1 < len(c.node.Content); i += 2 {
		if key := c.node.Content[i]; !slices.Contains(known, key.Value) {
			all := append([]string{"apps", "name"}, known...)
			errs = append(errs, fmt.Errorf("unknown field %q in line %d: there are %s", key.Value, key.Line, strings.Join(all, ", ")))
		}
	}
	if err := c.node.Decode(into); err != nil {
		var wrong *yaml.TypeError
		if !errors.As(err, &wrong) {
			return errors.Join(append(errs, err)...)
		}
		for _, text := range wrong.Errors {
			errs = append(errs, errors.New(text))
		}
	}
	return errors.Join(errs...)
}

func fieldsOf(into any) []string {
	var names []string
	t := reflect.TypeOf(into).Elem()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		names = append(names, name)
	}
	return names
}

// maxSecretBytes bounds a secret's file: a path that names something else must not fill the memory.
const maxSecretBytes = 1 << 20

// File reads a file that a field names, relative to the apps file. A change of its content is a change of the credential.
func (c *Credential) File(path string) ([]byte, error) {
	path = c.resolve(path)
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	c.secrets[path] = sha256.Sum256(text)
	return text, nil
}

// Note has a file watched that Open reads by itself, and returns its path.
func (c *Credential) Note(path string) string {
	if path == "" {
		return ""
	}
	path = c.resolve(path)
	text, _ := readFile(path)             // whoever reads it says what is wrong
	c.secrets[path] = sha256.Sum256(text) // of nothing, if it can't be read
	return path
}

func (c *Credential) resolve(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(c.dir, path)
}

func readFile(path string) ([]byte, error) {
	at, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case at.IsDir():
		return nil, fmt.Errorf("%s is a folder", path)
	case at.Size() > maxSecretBytes:
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read", path, at.Size(), maxSecretBytes)
	}
	return os.ReadFile(path)
}

// same says whether the credential and the files that it names are what they were.
func (c *Credential) same(before *Credential) bool {
	if c.text != before.text || !slices.Equal(c.Apps, before.Apps) {
		return false
	}
	for path, sum := range before.secrets {
		text, _ := readFile(path)
		if sha256.Sum256(text) != sum {
			return false
		}
	}
	return true
}

func (c *Credential) key() string { return c.channel + "\x00" + c.Name }
