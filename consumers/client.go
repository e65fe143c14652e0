package consumers

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/klivvr/whisper/domain"
)

// ClientConfig is how to reach Kafka.
type ClientConfig struct {
	// Brokers are host:port addresses to start from; at least one.
	Brokers []string
	// ClientID names the process in the broker's logs and quotas.
	ClientID string
	// Instance, where it is set, is a name that the process keeps over restarts, such as that of a StatefulSet's pod. A
	// process that comes back within the session timeout gets its partitions again without a rebalance: nobody waits for
	// the group. Nor does it leave its group when it stops, so its partitions rest until it is back or its session ends. Two
	// processes of one name end each other.
	Instance string
	// SessionTimeout is how long a group keeps a process of which it hears nothing: so soon its partitions move when it was
	// killed. Heartbeats and the lease by which a process acts for its partitions follow from it. 0 is DefaultSessionTimeout.
	SessionTimeout time.Duration
	// TLS is used for every connection where it is set.
	TLS *tls.Config
	// SASLMechanism is empty (none), PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
	SASLMechanism string
	SASLUser      string
	SASLPassword  string
	// AcceptLoss lets a group go on where retention has removed records that it had not read. Without it that
	// is an error: nothing disappears silently.
	AcceptLoss bool
	// Logger takes what the client has to say about connections and groups.
	Logger *slog.Logger
}

// Validate names every problem of the settings.
func (c ClientConfig) Validate() error {
	var errs []error
	if len(c.Brokers) == 0 {
		errs = append(errs, errors.New("kafka: give at least one broker address (host:port)"))
	}
	if _, err := c.mechanism(); err != nil {
		errs = append(errs, err)
	}
	if c.Instance != "" && !validInstance.MatchString(c.Instance) {
		errs = append(errs, fmt.Errorf("instance: %q is not a valid name: give up to 240 letters, digits, dots, dashes and underscores",
			c.Instance))
	}
	if c.SessionTimeout != 0 && (c.SessionTimeout < minSessionTimeout || c.SessionTimeout > maxSessionTimeout) {
		errs = append(errs, fmt.Errorf("session-timeout: %s is out of range: give %s to %s", c.SessionTimeout, minSessionTimeout,
			maxSessionTimeout))
	}
	return errors.Join(errs...)
}

// DefaultSessionTimeout is the least that a broker takes unless its group.min.session.timeout.ms is set. docs/design.md
// ("How soon the group notices a death") says why it is no more.
const DefaultSessionTimeout = 6 * time.Second

// Below the first a busy machine's scheduler looks like a death; more than the second no broker takes unless told to
// (group.max.session.timeout.ms).
const (
	minSessionTimeout = time.Second
	maxSessionTimeout = 30 * time.Minute
)

// validInstance is what Kafka takes as a group.instance.id (the rules of topics' names, KIP-345), with room for a lane.
var validInstance = regexp.MustCompile(`^[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,239}$`)

// ForLane is the configuration of a client that serves one lane alone. A broker throttles by the client id, so each of
// the urgent lanes has its own: the process's, a dash and the lane; so has the instance, since two members of a group can't
// share one. The low lane keeps the process's id, which it shares with what has no lane.
func (c ClientConfig) ForLane(lane domain.Lane) ClientConfig {
	if lane != domain.Low {
		c.ClientID += "-" + lane.String()
		if c.Instance != "" {
			c.Instance += "-" + lane.String()
		}
	}
	return c
}

func (c ClientConfig) logger() *slog.Logger {
	if c.Logger != nil {
		return c.Logger
	}
	return slog.New(slog.DiscardHandler)
}

func (c ClientConfig) mechanism() (sasl.Mechanism, error) {
	switch c.SASLMechanism {
	case "":
		return nil, nil
	case "PLAIN":
		return plain.Auth{User: c.SASLUser, Pass: c.SASLPassword}.AsMechanism(), nil
	case "SCRAM-SHA-256":
		return scram.Auth{User: c.SASLUser, Pass: c.SASLPassword}.AsSha256Mechanism(), nil
	case "SCRAM-SHA-512":
		return scram.Auth{User: c.SASLUser, Pass: c.SASLPassword}.AsSha512Mechanism(), nil
	default:
		return nil, fmt.Errorf("kafka-sasl-mechanism: unknown %q: give PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", c.SASLMechanism)
	}
}

// fetchMaxWait is how long a broker may hold an empty fetch. A partition that is added or resumed joins
// the next fetch, so this is what it waits at the most; the client's default of 5 s would stall a
// restore or a paused lane that long. Two empty fetches a second and broker cost nothing.
const fetchMaxWait = 500 * time.Millisecond

// Options are the client options that producing, consuming and administration share.
func (c ClientConfig) Options() []kgo.Opt {
	expand := &expander{}
	opts := []kgo.Opt{
		kgo.WithDecompressor(expand),
		kgo.WithHooks(expand, newClientMetrics()),
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(c.ClientID),
		kgo.DisableClientMetrics(),
		kgo.DialTimeout(5 * time.Second),
		// What upstream's transaction took back must not be delivered.
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// The default of 2.5 s delays what waits for a topic's leader to come back.
		kgo.MetadataMinAge(500 * time.Millisecond),
		kgo.WithLogger(clientLogger{c.logger()}),
	}
	if c.TLS != nil {
		opts = append(opts, kgo.DialTLSConfig(c.TLS))
	}
	if m, err := c.mechanism(); err == nil && m != nil {
		opts = append(opts, kgo.SASL(m))
	}
	return opts
}

// Await waits until Kafka answers, saying so when it does not. It gives up only when ctx ends or
// when waiting can't help: the credentials are refused or the protocol does not match.
func (c ClientConfig) Await(ctx context.Context) error {
	if err := c.Validate(); err != nil {
		return err
	}
	cl, err := kgo.NewClient(append(c.Options(), kgo.RequestRetries(0))...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer cl.Close()
	said := false
	var why error // of the last try that was not cut off
	err = Retry{
		First: 250 * time.Millisecond, Most: 5 * time.Second, Over: IsFatal,
		Tell: func(err error, next time.Duration) {
			why, said = err, true
			c.logger().Warn("waiting for kafka", "brokers", c.Brokers, "error", err, "next_try", next)
		},
	}.Do(ctx, func() error {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return ping(attempt, cl)
	})
	switch {
	case err == nil:
		if said {
			c.logger().Info("kafka answers")
		}
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("kafka at %v did not answer: %w", c.Brokers, cmp.Or(why, err))
	default:
		return fmt.Errorf("kafka at %v refuses: %w (check kafka-sasl-user, kafka-sasl-password and kafka-tls)", c.Brokers, err)
	}
}

// ping needs credentials to succeed, unlike a bare ApiVersions request.
func ping(ctx context.Context, cl *kgo.Client) error {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	_, err := req.RequestWith(ctx, cl)
	return err
}

// IsFatal says that trying again can't help: somebody has to change a credential, a right or a
// setting first.
func IsFatal(err error) bool {
	for _, fatal := range []error{
		kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState,
		kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed,
		kerr.InvalidTopicException, kerr.MessageTooLarge,
	} {
		if errors.Is(err, fatal) {
			return true
		}
	}
	return false
}

// MayPass says that an error is worth another try: a broker that can't be reached, or one that asks for it.
func MayPass(err error) bool {
	var network *net.OpError
	return !IsFatal(err) && (kerr.IsRetriable(err) || kgo.IsRetryableBrokerErr(err) || errors.As(err, &network))
}

// clientLogger hands the client's own log lines to slog; the client's text is kept as it is.
type clientLogger struct{ log *slog.Logger }

func (l clientLogger) Level() kgo.LogLevel {
	ctx := context.Background()
	switch {
	case l.log.Enabled(ctx, slog.LevelDebug):
		// Its debug level logs every request, far below what debug means here.
		return kgo.LogLevelInfo
	case l.log.Enabled(ctx, slog.LevelWarn):
		return kgo.LogLevelWarn
	default:
		return kgo.LogLevelError
	}
}

func (l clientLogger) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	lvl := slog.LevelDebug
	switch level {
	case kgo.LogLevelError, kgo.LogLevelWarn:
		lvl = slog.LevelWarn
	case kgo.LogLevelInfo, kgo.LogLevelDebug, kgo.LogLevelNone:
	}
	l.log.Log(context.Background(), lvl, "kafka client", append([]any{"event", msg}, keyvals...)...)
}
