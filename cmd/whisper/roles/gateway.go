package roles

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/gateway"
)

// Gateway is `whisper gateway`: it holds the sockets of clients.
type Gateway struct {
	Sockets   gatewayFlags `embed:"" group:"sockets"`
	Auth      authFlags    `embed:"" group:"auth"`
	TLS       tlsFlags     `embed:"" group:"sockets"`
	Role      roleFlags    `embed:""`
	Advertise string       `name:"ops-advertise" placeholder:"HOST:PORT" group:"ops" help:"Address of this gateway's operations port for others, published in whisper.nodes for 'whisper sessions' (default: --ops-addr; if that is every address of the machine, the one from which it reaches Kafka)."`
	Node      string       `placeholder:"NAME" group:"sockets" help:"Name of this gateway, the same on every start, and never of two gateways at the same time: it is part of a topic's name (default: the host's name)."`
}

// gatewayFlags are shared with dev.
type gatewayFlags struct {
	Listen           string        `default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Where clients connect (default ${default})."`
	Origins          []string      `placeholder:"URL" help:"Origins that browsers may connect from; * allows all (default: only pages of the same host)."`
	MaxConnections   int           `default:"${gateway_max_connections}" placeholder:"N" help:"Connections of this node; further clients are sent elsewhere (default ${default})."`
	MaxPerUser       int           `default:"${gateway_max_per_user}" placeholder:"N" help:"Connections of one user on this node (default ${default})."`
	MaxPerAddress    int           `default:"0" placeholder:"N" help:"Connections from one IPv4 address or IPv6 /64, counted from accept on (default: no limit, because behind an untrusted proxy all clients have one address)."`
	TrustedProxies   []string      `placeholder:"CIDR" help:"Addresses and networks of proxies whose X-Forwarded-For is believed: the client is its rightmost address that is not one of them."`
	ProxyProtocol    bool          `help:"Trusted proxies begin each connection with a PROXY protocol header, version 1 or 2."`
	AdmitRate        int           `default:"${gateway_admit_rate}" placeholder:"N" help:"Connections accepted a second; further clients are told when to try again (default ${default})."`
	MaxFrame         int           `default:"${gateway_max_frame}" placeholder:"BYTES" help:"Largest frame from a client (default ${default})."`
	MaxFrameRate     int           `default:"${gateway_max_frame_rate}" placeholder:"N" help:"Frames a second from one client; acknowledgements of its deliveries are not counted (default ${default})."`
	SendBuffer       int           `default:"${gateway_send_buffer}" placeholder:"BYTES" help:"Bytes that may wait to be written to one socket before it counts as too slow (default ${default})."`
	MaxUnacked       int           `default:"${gateway_max_unacked}" placeholder:"N" help:"Deliveries that one session may leave unacknowledged (default ${default})."`
	HandshakeTimeout time.Duration `default:"${gateway_handshake_timeout}" placeholder:"DURATION" help:"Time limit for a client to send its whole request to connect (default ${default})."`
	PingInterval     time.Duration `default:"${gateway_ping_interval}" placeholder:"DURATION" help:"Time between two pings to one session (default ${default})."`
	PongTimeout      time.Duration `default:"${gateway_pong_timeout}" placeholder:"DURATION" help:"A session that stays silent this long after a ping is closed (default ${default})."`
	WriteTimeout     time.Duration `default:"${gateway_write_timeout}" placeholder:"DURATION" help:"Time limit of one write to a socket (default ${default})."`
	Heartbeat        time.Duration `default:"${gateway_heartbeat}" placeholder:"DURATION" help:"Time between two heartbeats of this node (default ${default})."`
	ReceiptHold      time.Duration `default:"${gateway_receipt_hold}" zero:"not at all" placeholder:"DURATION" help:"How long the fact that something was sent waits, to be written as one with its acknowledgement (default ${default}; 0: not at all)."`
	Drain            time.Duration `default:"${gateway_drain}" placeholder:"DURATION" help:"Time limit of a clean stop; clients are asked to leave one after the other, over half of it (default ${default})."`
	Unpolled         bool          `help:"Read each socket with its own goroutine, as on systems without epoll; for comparison and debugging."`
}

// config is the part of the gateway's configuration that these flags set.
func (f gatewayFlags) config() gateway.Config {
	return gateway.Config{
		Addr: f.Listen, Origins: f.Origins, MaxConnections: f.MaxConnections, MaxPerUser: f.MaxPerUser,
		MaxPerAddress: f.MaxPerAddress, AdmitRate: f.AdmitRate, MaxFrameRate: f.MaxFrameRate,
		HandshakeTimeout: f.HandshakeTimeout, Unpolled: f.Unpolled,
		MaxFrame: f.MaxFrame, SendBuffer: f.SendBuffer, MaxUnacked: f.MaxUnacked,
		PingInterval: f.PingInterval, PongTimeout: f.PongTimeout, WriteTimeout: f.WriteTimeout,
		Heartbeat: f.Heartbeat, ReceiptHold: notAtAll(f.ReceiptHold), DrainTimeout: f.Drain,
		TrustedProxies: f.TrustedProxies, ProxyProtocol: f.ProxyProtocol,
	}
}

// notAtAll: 0 given means 0, which the gateway's own Config takes for its default.
func notAtAll(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// Check finds a bad address to listen on, which the gateway itself would only find when it listens.
func (f gatewayFlags) Check() error {
	if _, port, err := net.SplitHostPort(f.Listen); err != nil || port == "" {
		return fmt.Errorf("listen: %q is not host:port", f.Listen)
	}
	return nil
}

// authFlags fix how tokens are checked.
type authFlags struct {
	AuthSecret         string        `placeholder:"SECRET" help:"Secret of HS256 tokens, at least 32 bytes; better set in the environment, because others can see a command line."`
	AuthSecretPrevious string        `placeholder:"SECRET" help:"The previous secret, accepted as well while tokens that it signed are in use."`
	AuthPublicSecret   bool          `help:"Start even if the secret is one that everybody can read in Whisper's repository; only for trying things out where nobody else can connect."`
	AuthPublicKeys     string        `placeholder:"FILE" help:"Public keys (PEM, one after the other) of RS256, ES256 and EdDSA tokens; several make rotation possible."`
	AuthJWKS           string        `name:"auth-jwks" placeholder:"FILE|URL" help:"Public keys as a JSON Web Key Set; read again regularly, and when a token names a key that is not in it."`
	AuthJWKSRefresh    time.Duration `name:"auth-jwks-refresh" default:"${auth_jwks_refresh}" placeholder:"DURATION" help:"Time between two readings of the key set (default ${default})."`
	AuthAlgorithms     []string      `placeholder:"NAME" help:"Accept only these (HS256, HS384, HS512, RS256, ES256, EdDSA); by default all that fit the keys."`
	AuthAudience       []string      `placeholder:"NAME" help:"A token's aud must contain one of these."`
	AuthIssuer         string        `placeholder:"URL" help:"A token's iss must be this."`
	AuthLeeway         time.Duration `default:"${auth_leeway}" zero:"not at all" placeholder:"DURATION" help:"How far clocks may differ (default ${default}; 0: not at all)."`
}

// checkSecrets refuses those that anybody can read.
func (f authFlags) checkSecrets() error {
	var errs []error
	for name, secret := range map[string]string{"auth-secret": f.AuthSecret, "auth-secret-previous": f.AuthSecretPrevious} {
		if isPublicSecret(secret) && !f.AuthPublicSecret {
			errs = append(errs, fmt.Errorf("%s: is published, so anybody can make tokens for any user: "+
				"make a secret one with `openssl rand -hex 32`, or accept this one with --auth-public-secret", name))
		}
	}
	return errors.Join(errs...)
}

func (f authFlags) config() (gateway.AuthConfig, error) {
	cfg := gateway.AuthConfig{
		HMACSecret: []byte(f.AuthSecret), PreviousHMACSecret: []byte(f.AuthSecretPrevious),
		JWKS: f.AuthJWKS, JWKSRefresh: f.AuthJWKSRefresh, Algorithms: f.AuthAlgorithms,
		Audiences: f.AuthAudience, Issuer: f.AuthIssuer, Leeway: notAtAll(f.AuthLeeway),
	}
	if f.AuthPublicKeys == "" {
		return cfg, nil
	}
	keys, err := os.ReadFile(f.AuthPublicKeys)
	if err != nil {
		return cfg, fmt.Errorf("auth-public-keys: %w", err)
	}
	cfg.PublicKeys = keys
	return cfg, nil
}

// tlsFlags have the sockets speak TLS.
type tlsFlags struct {
	TLSCert string `name:"tls-cert" placeholder:"FILE" help:"Certificate for the sockets' address (PEM, with its chain); read again when it changes. Without it the sockets speak plain HTTP, for a proxy in front of them."`
	TLSKey  string `name:"tls-key" placeholder:"FILE" help:"Key of that certificate (PEM)."`
}

// Help implements kong.HelpProvider.
func (c *Gateway) Help() string {
	return `Each gateway process needs its own node name. Example:

    WHISPER_AUTH_SECRET=… whisper gateway --node eu-1 --listen :8080 --kafka kafka:9092`
}

func (c *Gateway) config() (gateway.Config, error) {
	cfg := c.Sockets.config()
	cfg.Node = c.Node
	if cfg.Node == "" {
		cfg.Node, _ = os.Hostname() // an empty one is a complaint of the gateway's own
	}
	cfg.Partitions, cfg.Replication, cfg.MinISR = c.Role.Topics.Partitions, int16(c.Role.Topics.Replication), c.Role.Topics.MinISR
	cfg.Kafka = c.Role.client("gateway", nil)
	cfg.TLSCert, cfg.TLSKey = c.TLS.TLSCert, c.TLS.TLSKey
	var err error
	cfg.Auth, err = c.Auth.config()
	return cfg, err
}

func (c *Gateway) Check() error {
	cfg, err := c.config()
	if err != nil {
		// Without the keys there is nothing to check them by.
		cfg.Auth.HMACSecret = make([]byte, 32)
	}
	return distinct(errors.Join(c.Role.Check(), c.Sockets.Check(), c.Auth.checkSecrets(), checkAdvertised(c.Advertise), err, cfg.Validate()))
}

func (c *Gateway) Run(ctx context.Context, p *cli.Process) error {
	return c.Role.run(ctx, p, "gateway", func(ctx context.Context, r Base) ([]Component, error) {
		cfg, err := c.config()
		if err != nil {
			return nil, err
		}
		if isPublicSecret(c.Auth.AuthSecret) || isPublicSecret(c.Auth.AuthSecretPrevious) {
			r.Log.Warn("the secret of tokens is public: whoever can connect can be any user")
		}
		cfg.OpsAddr = cmp.Or(c.Advertise, Advertised(ctx, r.Server.Addr(), c.Role.Kafka.Kafka))
		return buildGateway(r, cfg)
	}, func() (io.Closer, error) { return TakePort(ctx, "sockets", c.Sockets.Listen, "--listen") })
}

func checkAdvertised(addr string) error {
	if host, port, err := net.SplitHostPort(addr); addr != "" && (err != nil || host == "" || port == "") {
		return fmt.Errorf("ops-advertise: %q is not host:port", addr)
	}
	return nil
}

// Advertised is the address at which others reach a listener. For one that listens on every address of the machine, that is
// the address from which the machine reaches Kafka.
func Advertised(ctx context.Context, listening string, brokers []string) string {
	host, port, err := net.SplitHostPort(listening)
	if ip := net.ParseIP(host); err != nil || ip != nil && !ip.IsUnspecified() {
		return listening
	}
	for _, broker := range brokers {
		conn, err := new(net.Dialer).DialContext(ctx, "udp", broker) // chooses a way; nothing is sent
		if err != nil {
			continue
		}
		own := conn.LocalAddr().(*net.UDPAddr)
		_ = conn.Close()
		return net.JoinHostPort(own.IP.String(), port)
	}
	name, _ := os.Hostname() // an empty one is no worse than none
	return net.JoinHostPort(name, port)
}

// buildGateway builds a gateway over a process's own parts.
func buildGateway(r Base, cfg gateway.Config) ([]Component, error) {
	cfg.Kafka, cfg.Now, cfg.Logger = r.Client, r.Now, r.Log
	g, err := gateway.New(cfg)
	if err != nil {
		return nil, err
	}
	r.Server.Handle("GET "+gateway.SessionsPath, g.Sessions())
	return []Component{{"gateway", g.Run, g.Ready}}, nil
}

// distinct drops complaints that two parties made in the same words.
func distinct(err error) error {
	seen := map[string]bool{}
	var errs []error
	for _, e := range cli.Flatten(err) {
		if !seen[e.Error()] {
			seen[e.Error()] = true
			errs = append(errs, e)
		}
	}
	return errors.Join(errs...)
}
