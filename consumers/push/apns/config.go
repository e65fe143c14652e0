package apns

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/sideshow/apns2"

	"github.com/klivvr/whisper/consumers/push/setting"
)

// The environments; a device token works in one of them only.
const (
	Production = "production"
	Sandbox    = "sandbox"
)

// Config is one key of one team in one environment. Another needs another Provider: APNs refuses a
// connection that sees two keys.
type Config struct {
	// The key: Apple's .p8 file, or its PEM text where there is no file. Exactly one.
	KeyFile string
	KeyPEM  []byte
	// KeyID and TeamID, ten characters each, as Apple gives them.
	KeyID, TeamID string
	// Topic is used where an endpoint names no app: the app's bundle id.
	Topic string
	// Environment is production (default) or sandbox.
	Environment string
	// BaseURL takes the place of the environment's, for a simulator; https only.
	BaseURL string
	// RootCAs, or a file of them in PEM, are trusted instead of the machine's, for a simulator.
	RootCAs    *x509.CertPool
	RootCAFile string

	// Connections bounds the connections of each lane (default 2); lanes share none, so that a lane
	// that is held up holds up no other. A second one is opened when the first is full or going.
	Connections int
	// Streams bounds the requests in flight on one connection (default 500). APNs allows 1,000; with
	// more in flight than streams, net/http lets some wait for over a minute.
	Streams int
	// RequestTimeout bounds one try, with the wait for a connection (default 12 s).
	RequestTimeout time.Duration
	// Rest is how long a refused credential or topic is left alone before one attempt probes it
	// (default 5 min).
	Rest time.Duration
	// BreakerRest is the same for a provider that answers nothing or 5xx (default 30 s).
	BreakerRest time.Duration
	// Sound that alerts of the lanes high and normal make (default "default"; "none" for none).
	Sound string

	// Credential is its name in metrics, "" for that of the flags.
	Credential string
	Logger     *slog.Logger
	// Metrics takes the metrics (default: the process's set).
	Metrics *metrics.Set
	Now     func() time.Time
}

// names are those of the settings where they were given.
func (c *Config) names() setting.Names {
	return setting.Names{Channel: Channel, File: c.Credential != ""}
}

// Validate names every problem of the settings.
func (c Config) Validate() error {
	_, err := c.resolve()
	return err
}

// resolved is what the settings come down to.
type resolved struct {
	Config
	minter *minter
	base   *url.URL
	roots  *x509.CertPool
}

func (c Config) resolve() (*resolved, error) {
	c.setDefaults()
	r := &resolved{Config: c, roots: c.RootCAs}
	var errs []error
	complain := func(setting, format string, args ...any) {
		errs = append(errs, c.names().Wrong(setting, format, args...))
	}

	r.minter = &minter{keyID: c.KeyID, teamID: c.TeamID}
	key := c.KeyPEM
	switch {
	case c.KeyFile == "" && len(key) == 0:
		complain("key-file", "give the path of Apple's .p8 file")
	case c.KeyFile != "" && len(key) > 0:
		complain("key-file", "give the file or its text, not both")
	case c.KeyFile != "":
		var err error
		if key, err = os.ReadFile(c.KeyFile); err != nil {
			complain("key-file", "%w", err)
		}
	}
	if len(key) > 0 {
		var err error
		if r.minter.key, err = parseKey(key); err != nil {
			complain("key-file", "%w", err)
		}
	}
	if c.KeyID == "" {
		complain("key-id", "missing (ten characters, beside the key in Apple's developer account)")
	}
	if c.TeamID == "" {
		complain("team-id", "missing (ten characters, in Apple's developer account under Membership)")
	}
	if c.Topic != "" && !isHeaderValue(c.Topic) {
		complain("topic", "%q can't be a bundle id", c.Topic)
	}
	errs = append(errs, r.resolveServer(), c.validateBounds())
	return r, errors.Join(errs...)
}

func (r *resolved) resolveServer() error {
	var errs []error
	base := r.BaseURL
	switch {
	case base != "":
	case r.Environment == Production:
		base = apns2.HostProduction
	case r.Environment == Sandbox:
		base = apns2.HostDevelopment
	default:
		errs = append(errs, r.names().Wrong("environment", "unknown %q: production or sandbox", r.Environment))
	}
	var problem error
	r.base, problem = r.names().Server(base)
	errs = append(errs, problem)
	if r.RootCAFile != "" {
		roots, text, err := r.names().Roots(r.RootCAFile)
		r.roots = roots
		errs = append(errs, err)
		for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
			if cert, err := x509.ParseCertificate(block.Bytes); err == nil && cert.NotAfter.Before(r.Now()) {
				expired := cert.NotAfter.Format(time.DateOnly)
				errs = append(errs, r.names().Wrong("ca-file", "the certificate of %s expired on %s", cert.Subject, expired))
			}
		}
	}
	return errors.Join(errs...)
}

func (c *Config) validateBounds() error {
	return errors.Join(
		c.names().Bounds(
			setting.Bound{Setting: "connections", Value: c.Connections, Min: 1, Max: 20},
			setting.Bound{Setting: "streams", Value: c.Streams, Min: 1, Max: 1000},
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
	if c.Environment == "" {
		c.Environment = Production
	}
	if c.Connections == 0 {
		c.Connections = 2
	}
	if c.Streams == 0 {
		c.Streams = 500
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
	switch c.Sound {
	case "":
		c.Sound = "default"
	case "none":
		c.Sound = ""
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

// Capacity is how many attempts of one lane can be in flight at once; the role should not have more.
func (c Config) Capacity() int {
	c.setDefaults()
	return c.Connections * c.Streams
}
