package fcm

import (
	"crypto/x509"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"regexp"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/klivvr/whisper/consumers/push/setting"
)

// DefaultURL is Google's server.
const DefaultURL = "https://fcm.googleapis.com"

// Config is one project. Another needs another Provider.
type Config struct {
	// The service account's key: the file that the Firebase console hands out, or its text. Exactly one. The file is read again
	// for each access token, about once an hour.
	CredentialsFile string
	CredentialsJSON []byte
	// Project takes the place of the account's, for an account of another project that may send for this one.
	Project string
	// BaseURL takes the place of Google's, for a simulator; https only.
	BaseURL string
	// RootCAs, or a file of them in PEM, are trusted instead of the machine's, for a simulator.
	RootCAs    *x509.CertPool
	RootCAFile string
	// Format says how messages look.
	Format Format

	// PerMinute is this process's part of the project's quota (default 600,000: all of it). The rate rises to it over a
	// minute.
	PerMinute int
	// Connections bounds the connections of each lane (default 5); lanes share none. Streams bounds the requests in flight
	// on one (default 100, which is what Google allows).
	Connections int
	Streams     int
	// RequestTimeout bounds one try, with the wait for a connection (default 12 s).
	RequestTimeout time.Duration
	// Rest is how long a refused credential is left alone before one attempt probes it (default 5 min).
	Rest time.Duration
	// BreakerRest is the same for a provider that answers nothing or 5xx (default 30 s).
	BreakerRest time.Duration

	// Credential is its name in metrics, "" for that of the flags.
	Credential string
	Logger     *slog.Logger
	// Metrics takes the metrics (default: the process's set).
	Metrics *metrics.Set
	Now     func() time.Time
}

// Validate names every problem of the settings.
func (c Config) Validate() error {
	_, err := c.resolve()
	return err
}

// names are those of the settings where they were given.
func (c *Config) names() setting.Names {
	return setting.Names{Channel: Channel, File: c.Credential != ""}
}

// resolved is what the settings come down to.
type resolved struct {
	Config
	account *account
	base    *url.URL
	roots   *x509.CertPool
}

// projectID: Google's ids, and numbers.
var projectID = regexp.MustCompile(`^[a-z0-9][a-z0-9:.-]{0,62}$`)

func (c Config) resolve() (*resolved, error) {
	c.setDefaults()
	r := &resolved{Config: c, roots: c.RootCAs}
	errs := []error{r.resolveAccount(), r.resolveServer(), c.validateFormat(), c.validateBounds()}
	return r, errors.Join(errs...)
}

func (r *resolved) resolveAccount() error {
	text := r.CredentialsJSON
	switch {
	case r.CredentialsFile == "" && len(text) == 0:
		return r.names().Wrong("credentials-file", "give the path of a service account's key (the Firebase console makes one)")
	case r.CredentialsFile != "" && len(text) > 0:
		return r.names().Wrong("credentials-file", "give the file or its text, not both")
	case r.CredentialsFile != "":
		var err error
		if text, err = os.ReadFile(r.CredentialsFile); err != nil {
			return r.names().Wrong("credentials-file", "%w", err)
		}
	}
	a, err := parseAccount(text)
	if err != nil {
		return r.names().Wrong("credentials-file", "%w", err)
	}
	if r.account = a; r.Project == "" {
		r.Project = a.project
	}
	if !projectID.MatchString(r.Project) {
		return r.names().Wrong("project", "%q is not a project's id", r.Project)
	}
	return nil
}

func (r *resolved) resolveServer() error {
	base, problem := r.names().Server(r.BaseURL)
	r.base = base
	if r.RootCAFile == "" {
		return problem
	}
	roots, _, err := r.names().Roots(r.RootCAFile)
	r.roots = roots
	return errors.Join(problem, err)
}

func (c *Config) validateFormat() error {
	var errs []error
	if c.Format.Target != TargetToken && c.Format.Target != TargetFID {
		errs = append(errs, c.names().Wrong("target", "unknown %q: %s or %s", c.Format.Target, TargetToken, TargetFID))
	}
	for _, name := range c.Format.DataCategories {
		if name == "" || len(name) > 64 {
			errs = append(errs, c.names().Wrong("data-categories", "%q can't be a category", name))
		}
	}
	if len(c.Format.ChannelID) > 256 {
		errs = append(errs, c.names().Wrong("channel-id", "it has %d bytes, at most 256 are allowed", len(c.Format.ChannelID)))
	}
	return errors.Join(errs...)
}

func (c *Config) validateBounds() error {
	return errors.Join(
		c.names().Bounds(
			setting.Bound{Setting: "connections", Value: c.Connections, Min: 1, Max: 50},
			setting.Bound{Setting: "streams", Value: c.Streams, Min: 1, Max: 1000},
			setting.Bound{Setting: "per-minute", Value: c.PerMinute, Min: 600, Max: 100_000_000},
		),
		c.names().Times(c.RequestTimeout, c.Rest, c.BreakerRest),
	)
}

// Defaults are the settings where nothing else is said.
func Defaults() (c Config) {
	c.setDefaults()
	return c
}

func (c *Config) setDefaults() {
	if c.BaseURL == "" {
		c.BaseURL = DefaultURL
	}
	if c.Format.Target == "" {
		c.Format.Target = TargetToken
	}
	switch c.Format.Sound {
	case "":
		c.Format.Sound = "default"
	case "none":
		c.Format.Sound = ""
	}
	if c.PerMinute == 0 {
		c.PerMinute = 600_000
	}
	if c.Connections == 0 {
		c.Connections = 5
	}
	if c.Streams == 0 {
		c.Streams = 100
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = 12 * time.Second
	}
	if c.Rest == 0 {
		c.Rest = 5 * time.Minute
	}
	if c.BreakerRest == 0 {
		c.BreakerRest = 30 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = metrics.GetDefaultSet()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
}
