package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// The states of a gateway, in order.
const (
	starting int32 = iota
	serving
	draining
	stopped
)

// Gateway is one node. Make it with New, then Run it once.
type Gateway struct {
	cfg         Config
	broker      broker
	verifier    *verifier
	certificate *certificate // nil: no TLS
	metrics     *instruments
	stamp       *stamper
	hub         *hub
	presence    *presence
	nodes       *nodes
	lanes       *lanes
	receipts    *receipts
	timekeeper  *timekeeper
	revocations *revocations
	flusher     *flusher
	pollers     []*poller
	turn        atomic.Uint32 // whose turn it is to take a connection
	admission   *admission
	addresses   *addresses
	handshakes  *handshakes
	proxies     *proxies
	badTokens   *limiter[address]
	strangers   *limiter[string] // by user: reads of what no session of theirs was sent
	renewals    chan struct{}    // a place for each handshake that waits for the key set
	refusals    *refusals
	limit       atomic.Int64 // of connections: MaxConnections, or what the file limit leaves

	began       time.Time // with its monotonic reading
	state       atomic.Int32
	incarnation atomic.Uint64
	blocked     atomic.Int64 // sessions whose socket takes nothing for now
	connections atomic.Int64 // sockets, those that are being refused or closed included
	listening   atomic.Pointer[net.Addr]
	deaf        atomic.Pointer[error] // why the node's own topic, which was deleted, is not there again
}

// New checks the settings and makes the clients; nothing is dialled before Run.
func New(cfg Config) (*Gateway, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	k, err := newKafka(cfg)
	if err != nil {
		return nil, err
	}
	return newGateway(cfg, k)
}

func newGateway(cfg Config, b broker) (*Gateway, error) {
	verifier, err := newVerifier(cfg.Auth, cfg.Now)
	if err != nil {
		return nil, err
	}
	certificate, err := newCertificate(cfg.TLSCert, cfg.TLSKey, cfg.Now)
	if err != nil {
		return nil, err
	}
	g := &Gateway{cfg: cfg, broker: b, verifier: verifier, certificate: certificate, began: cfg.Now()}
	g.metrics = newInstruments(cfg.Metrics)
	g.revocations = newRevocations(g)
	verifier.attach(g.revocations, cfg.Logger, cfg.Metrics)
	certificate.attach(cfg.Logger, cfg.Metrics)
	g.stamp = &stamper{now: cfg.Now}
	g.presence = newPresence(g)
	g.hub = newHub(g.stamp, cfg.MaxPerUser, g.presence.changed)
	g.nodes = newNodes(g)
	g.lanes = newLanes(g)
	g.receipts = newReceipts(cfg.ReceiptHold, g.now)
	g.timekeeper = newTimekeeper(g)
	g.flusher = newFlusher()
	g.admission = newAdmission(cfg.AdmitRate)
	g.addresses = newAddresses(cfg.MaxPerAddress)
	if g.proxies, err = newProxies(cfg.TrustedProxies, cfg.ProxyProtocol); err != nil {
		return nil, err
	}
	g.proxies.broken = g.metrics.proxy
	places := int64(cfg.AdmitRate) * max(1, int64(cfg.HandshakeTimeout.Seconds()))
	g.handshakes = newHandshakes(places, g.metrics.handshakes, g.addresses, g.proxies)
	g.badTokens = newLimiter[address](tokenRoom)
	g.strangers = newLimiter[string](idRoom)
	g.renewals = make(chan struct{}, lateRoom)
	g.refusals = newRefusals(cfg.Logger, cfg.Node, g.now)
	g.limit.Store(int64(cfg.MaxConnections))
	g.metrics.watch(g, cfg.Metrics)
	return g, nil
}

// Ready is nil while sockets are let in.
func (g *Gateway) Ready() error {
	switch g.state.Load() {
	case starting:
		if err := g.verifier.ready(); err != nil {
			return fmt.Errorf("the gateway is starting: it %w", err)
		}
		return errors.New("the gateway is starting: it waits for kafka")
	case serving:
		if deaf := g.deaf.Load(); deaf != nil && *deaf != nil {
			return fmt.Errorf("the gateway hears nothing of dispatch: its topic was deleted: %w", *deaf)
		}
		return nil
	case draining:
		return errors.New("the gateway is draining")
	default:
		return errors.New("the gateway has stopped")
	}
}

// now is the time that sockets are timed by, in nanoseconds: the clock's at the start and what passed since, so
// that a clock that is set forwards or back neither cuts everybody off nor lets the dead live.
func (g *Gateway) now() int64 { return g.began.UnixNano() + int64(g.cfg.Now().Sub(g.began)) }

// drift is how far the clock on the wall is ahead of now. Tokens end by the wall.
func (g *Gateway) drift() int64 {
	wall := g.cfg.Now()
	return wall.UnixNano() - g.began.UnixNano() - int64(wall.Sub(g.began))
}

func (g *Gateway) serving() bool { return g.state.Load() == serving }

// Addr is where it listens; nil before Run and without Addr and Listener.
func (g *Gateway) Addr() net.Addr {
	if a := g.listening.Load(); a != nil {
		return *a
	}
	return nil
}

// Run serves until ctx ends, then drains for DrainTimeout at most. It returns nil on a clean stop, and
// an error where the process must end: Kafka refuses, another process has taken the node's name, or
// something could not be written before the time was over (what is not committed comes again).
func (g *Gateway) Run(ctx context.Context) error {
	defer g.broker.Close()
	defer g.state.Store(stopped)
	listener, err := g.listen(ctx)
	if err != nil {
		return err
	}
	g.fitFiles(fileLimit())
	broken := make(chan error, 1)
	stopEngine, err := g.startEngine(ctx, func(err error) {
		select {
		case broken <- err:
		default: // one is enough
		}
	})
	if err != nil {
		return err
	}
	defer stopEngine()
	// Everything outlives ctx until the drain is over.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	group, life := errgroup.WithContext(life)
	server := g.newServer()
	if listener != nil {
		defer listener.Close()
		group.Go(func() error { return serve(server, listener) })
	}
	group.Go(func() error {
		select {
		case err := <-broken:
			return err
		case <-life.Done():
			return nil
		}
	})
	reading, stopReading := context.WithCancel(life)
	defer stopReading()
	for _, run := range []func(context.Context) error{g.presence.run, g.receipts.run, g.lanes.run, g.verifier.run} {
		group.Go(func() error { return run(life) })
	}
	group.Go(func() error { return g.broker.Run(reading) })
	err = g.start(ctx, life, group)
	if err == nil {
		select {
		case <-ctx.Done():
			err = g.drain(ctx, server, stopReading)
		case <-life.Done():
		}
	}
	if ctx.Err() != nil && g.state.Load() == starting {
		err = nil // told to stop before it was up
	}
	end()
	_ = server.Close()
	g.broker.GiveUp() // whoever waits for kafka now would wait for nothing
	g.abandon(context.WithoutCancel(ctx))
	return errors.Join(err, group.Wait())
}

func (g *Gateway) listen(ctx context.Context) (net.Listener, error) {
	listener := g.cfg.Listener
	if listener == nil && g.cfg.Addr != "" {
		var err error
		// No keep-alive of TCP: pings do that, and tell more.
		if listener, err = (&net.ListenConfig{KeepAlive: -1}).Listen(ctx, "tcp", g.cfg.Addr); err != nil {
			return nil, fmt.Errorf("listen for sockets: %w", err)
		}
	}
	if listener != nil {
		addr := listener.Addr()
		g.listening.Store(&addr)
	}
	return g.certificate.wrap(g.proxies.wrap(listener)), nil
}

func (g *Gateway) newServer() *http.Server {
	return &http.Server{
		ConnContext:       g.handshakes.accepted,
		ConnState:         g.handshakes.state,
		Handler:           g.Handler(),
		ReadHeaderTimeout: g.cfg.HandshakeTimeout,
		IdleTimeout:       g.cfg.HandshakeTimeout,
		MaxHeaderBytes:    16 << 10,
		// What clients do wrong before the upgrade is theirs; Serve returns what is ours.
		ErrorLog: slog.NewLogLogger(g.cfg.Logger.Handler(), slog.LevelDebug),
	}
}

func serve(server *http.Server, listener net.Listener) error {
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serve sockets: %w", err)
	}
	return nil
}

// start makes the gateway ready, or returns why not. Sockets are let in only after everybody can know of
// the incarnation.
func (g *Gateway) start(ctx, life context.Context, group *errgroup.Group) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(life, cancel)() // what already runs has failed
	for _, step := range []func(context.Context) error{
		g.verifier.await, g.broker.Prepare, g.nodes.claim, g.lanes.follow, g.revocations.follow, g.nodes.announce, g.revocations.await,
	} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("start gateway %s: %w", g.cfg.Node, err)
		}
	}
	group.Go(func() error { return g.nodes.run(life) })
	group.Go(func() error { return g.lanes.commitLoop(life) })
	g.state.Store(serving)
	g.cfg.Logger.Info("gateway is ready", "node", g.cfg.Node, "incarnation", g.incarnation.Load())
	return nil
}
