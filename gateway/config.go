package gateway

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
)

// Config is what a gateway needs. Numbers and durations that are 0 get what Defaults says; what it leaves empty is required
// where nothing else is said.
type Config struct {
	// Node is this gateway's name, the same on every start: part of a topic's name.
	Node string
	// Kafka is how to reach the brokers.
	Kafka consumers.ClientConfig
	// Partitions of the topics that are keyed by user id.
	Partitions int32
	// NodesPartitions of whisper.nodes.
	NodesPartitions int32
	// Replication (0: 3, or the number of brokers where there are fewer) and MinISR (0: replication - 1) of this
	// node's topic, where it is to be made.
	Replication int16
	MinISR      int

	// OpsAddr is host:port where others reach this process's operations port, which serves Sessions: whisper.nodes tells
	// it. Empty: none is told.
	OpsAddr string

	// Addr is where to listen. Without it and without Listener, only Handler serves.
	Addr string
	// Listener is used instead of Addr; the gateway closes it.
	Listener net.Listener
	// Origins that browsers may connect from, like https://app.example.com; * allows all. Empty: only
	// pages of the same host.
	Origins []string
	// Auth is how tokens are checked.
	Auth AuthConfig
	// TLSCert and TLSKey are PEM files; with them the listener speaks TLS (1.2 and 1.3). They are read
	// again when they change, within a second of the next handshake.
	TLSCert, TLSKey string

	// MaxConnections on this node, and of one user on this node.
	MaxConnections int
	MaxPerUser     int
	// MaxPerAddress bounds the connections from one IPv4 address or IPv6 /64, counted from accept on (0: no bound,
	// since behind a proxy that is not trusted all of them come from one).
	MaxPerAddress int
	// TrustedProxies are the addresses and networks (CIDR) of proxies whose word counts on where a client is:
	// X-Forwarded-For, and with ProxyProtocol the PROXY header (version 1 or 2) that each of their connections must
	// begin with. Their own addresses count for nobody; what others say of themselves is passed over.
	TrustedProxies []string
	ProxyProtocol  bool
	// AdmitRate is how many connections are let in a second; who comes above it is told when to come
	// again.
	AdmitRate int
	// HandshakeTimeout bounds the time until a client's request is whole.
	HandshakeTimeout time.Duration
	// MaxFrameRate bounds the frames a second of one client, and as many may come at once; acknowledging
	// what it was sent does not count. The ids in them are limited beside it: see maxIDs.
	MaxFrameRate int
	// Unpolled gives each connection a goroutine also where an epoll could read them all.
	Unpolled bool
	// MaxFrame bounds a client's frame in bytes.
	MaxFrame int
	// SendBuffer bounds what waits to be written to one session, in bytes.
	SendBuffer int
	// MaxUnacked bounds the deliveries that one session has not acknowledged.
	MaxUnacked int
	// PingInterval between pings to one session; a session that was silent for PongTimeout
	// after one is cut off.
	PingInterval time.Duration
	PongTimeout  time.Duration
	// WriteTimeout bounds one write to a socket.
	WriteTimeout time.Duration

	// Heartbeat is the interval of records in whisper.nodes.
	Heartbeat time.Duration
	// ReceiptHold is how long a delivery_sent waits at least for the acknowledgement, to be one fact with it
	// (negative: not at all); up to 20 times as long where acknowledgements take that long. It delays what
	// dispatch and analysts learn of unacknowledged ones.
	ReceiptHold time.Duration
	// DrainTimeout bounds the clean stop; clients are asked to leave over half of it.
	DrainTimeout time.Duration

	// Now is the clock.
	Now func() time.Time
	// Logger never gets contents, tokens or user ids; of refused clients it gets the address.
	Logger *slog.Logger
	// Metrics is where the metrics are registered.
	Metrics *metrics.Set
}

const maxReasonBytes = 123 // RFC 6455: a control frame has at most 125 bytes, 2 of them the code

var topicPart = regexp.MustCompile(`^[a-zA-Z0-9._-]+$`)

// Validate names every problem of the settings.
func (c Config) Validate() error {
	_, certErr := newCertificate(c.TLSCert, c.TLSKey, time.Now)
	_, proxiesErr := newProxies(c.TrustedProxies, c.ProxyProtocol)
	errs := []error{c.validateNode(), c.Kafka.Validate(), c.Auth.Validate(), certErr, proxiesErr}
	positive := func(name string, ok bool) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s: must be greater than 0", name))
		}
	}
	positive("partitions", c.Partitions > 0)
	positive("nodes-partitions", c.NodesPartitions >= 0)
	positive("replication", c.Replication >= 0)
	positive("max-connections", c.MaxConnections >= 0)
	positive("max-per-user", c.MaxPerUser >= 0)
	positive("max-per-address", c.MaxPerAddress >= 0)
	positive("admit-rate", c.AdmitRate >= 0)
	positive("max-frame-rate", c.MaxFrameRate >= 0 && c.MaxFrameRate <= 1_000_000)
	positive("handshake-timeout", c.HandshakeTimeout >= 0)
	positive("send-buffer", c.SendBuffer >= 0)
	positive("max-unacked", c.MaxUnacked >= 0)
	positive("ping-interval", c.PingInterval >= 0)
	positive("pong-timeout", c.PongTimeout >= 0)
	positive("write-timeout", c.WriteTimeout >= 0)
	positive("heartbeat", c.Heartbeat >= 0)
	positive("drain", c.DrainTimeout >= 0)
	if c.MaxFrame < 0 || c.MaxFrame > 1<<20 {
		errs = append(errs, fmt.Errorf("max-frame: %d is out of range: give 1 to 1048576 bytes", c.MaxFrame))
	}
	return errors.Join(errs...)
}

func (c Config) validateNode() error {
	if err := domain.CheckID(c.Node); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	if !topicPart.MatchString(c.Node) {
		return fmt.Errorf("node: %q can't be part of a topic's name: use letters, digits, dot, dash and underscore", c.Node)
	}
	return nil
}

func orDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Defaults are the settings where nothing else is said: the one place where their values are written. The flags of
// the command take theirs from here, and docs/operations.md is held to it by a test.
func Defaults() Config { return Config{}.withDefaults() }

func (c Config) withDefaults() Config {
	orDefault(&c.NodesPartitions, 1)
	orDefault(&c.MaxConnections, 50_000)
	orDefault(&c.MaxPerUser, 20)
	orDefault(&c.AdmitRate, 2_000)
	orDefault(&c.HandshakeTimeout, 10*time.Second)
	orDefault(&c.MaxFrameRate, 100)
	orDefault(&c.MaxFrame, 16<<10)
	orDefault(&c.SendBuffer, 1<<20)
	orDefault(&c.MaxUnacked, 10_000)
	orDefault(&c.PingInterval, 25*time.Second)
	orDefault(&c.PongTimeout, 10*time.Second)
	orDefault(&c.WriteTimeout, 10*time.Second)
	orDefault(&c.Heartbeat, 2*time.Second)
	orDefault(&c.ReceiptHold, 50*time.Millisecond)
	orDefault(&c.DrainTimeout, 30*time.Second)
	orDefault(&c.Metrics, metrics.GetDefaultSet())
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.PongTimeout = min(c.PongTimeout, c.PingInterval)
	return c
}

// randomID names sessions and processes: 80 bits.
func randomID() string { return rand.Text()[:16] }
