package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// Notification is what the server sent.
type Notification struct {
	ID        string          `json:"id"`
	Lane      string          `json:"lane"`
	Category  string          `json:"category"`
	Title     string          `json:"title"`
	Body      string          `json:"body"`
	URL       string          `json:"url"`
	Image     string          `json:"image"`
	Data      json.RawMessage `json:"data"`
	At        time.Time       `json:"at"`
	ExpiresAt time.Time       `json:"expires_at"`
}

// Options may be left empty.
type Options struct {
	// Handle takes each notification, one after the other, on the client's goroutine. After nil it is
	// acknowledged; after an error it comes again later. Without Handle, Notifications delivers.
	Handle func(context.Context, Notification) error
	// Retracted is told the id of a notification that is to be taken back.
	Retracted func(id string)
	// Connected is told the session of each new connection.
	Connected func(session string)
	// Disconnected is told why a connection ended.
	Disconnected func(err error)
	// Token gets a fresh token before each connection after the first, when the server did not accept the last
	// one (4001, 4002), and a minute or two before one that tells its end (a JWT) expires: then the connection
	// goes on with the new one. Without it such a token ends the client.
	Token func(ctx context.Context) (string, error)
	// AutoAck asks the server to count what the socket took as delivered; nothing is acknowledged. In a category with
	// auto_ack: false, as mandatory ones have it, it does not count, and the next channel is tried.
	AutoAck bool
	// Window is how many ids are remembered to drop what comes twice (256).
	Window int
	// MinBackoff (250 ms) and MaxBackoff (30 s) bound the wait between attempts to connect.
	MinBackoff, MaxBackoff time.Duration
	// HandshakeTimeout bounds one attempt to connect (10 s).
	HandshakeTimeout time.Duration
	// Dialer replaces how to connect (TLS settings, source addresses); its buffers are kept.
	Dialer *websocket.Dialer
	// Logger (discards) gets no contents and no tokens.
	Logger *slog.Logger
}

// What ends a client for good.
var (
	ErrClosed       = errors.New("the client was closed")
	ErrUnauthorized = errors.New("the server does not accept the token (4001)")
	ErrTokenExpired = errors.New("the token has expired (4002) and there is no way to get another")
	ErrRefused      = errors.New("the server refuses the connection")
)

// Client is one connection that is kept up. All methods may be called from any goroutine.
type Client struct {
	url     string
	opts    Options
	dialer  websocket.Dialer
	ctx     context.Context
	cancel  context.CancelFunc
	ended   chan struct{}
	channel chan Notification

	// The goroutine's own.
	seen  window
	token string

	reads reads

	mu   sync.Mutex
	conn *websocket.Conn // nil while there is none
	err  error
}

// Dial connects to a gateway (ws://host:port/v1/socket) and goes on in the background until Close, until ctx
// ends, or until the server says that trying again is useless. Its error is that of the first attempt.
func Dial(ctx context.Context, address, token string, opts Options) (*Client, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "ws" && u.Scheme != "wss" {
		return nil, fmt.Errorf("%q is not the address of a gateway, like ws://127.0.0.1:8080/v1/socket", address)
	}
	if opts.AutoAck {
		q := u.Query()
		q.Set("ack", "auto")
		u.RawQuery = q.Encode()
	}
	opts = opts.withDefaults()
	c := &Client{url: u.String(), opts: opts, token: token, ended: make(chan struct{})}
	c.dialer = opts.dialer()
	c.seen = newWindow(opts.Window)
	c.reads.send = func(ids []string) error { return c.send(idsFrame{"read", ids}) }
	if opts.Handle == nil {
		c.channel = make(chan Notification)
	}
	c.ctx, c.cancel = context.WithCancel(ctx)
	conn, err := c.connect(c.ctx)
	if err == nil {
		err = c.welcome(conn)
	}
	if err != nil {
		c.cancel()
		return nil, fmt.Errorf("connect to %s: %w", address, unwrapEnd(err))
	}
	go c.run(conn)
	return c, nil
}

func (o Options) withDefaults() Options {
	if o.Window == 0 {
		o.Window = 256
	}
	if o.MinBackoff == 0 {
		o.MinBackoff = 250 * time.Millisecond
	}
	if o.MaxBackoff == 0 {
		o.MaxBackoff = 30 * time.Second
	}
	if o.HandshakeTimeout == 0 {
		o.HandshakeTimeout = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// writeBuffers are shared by all clients of the process, since one holds a buffer only while it writes.
var writeBuffers sync.Pool

func (o Options) dialer() websocket.Dialer {
	if o.Dialer != nil {
		d := *o.Dialer
		d.HandshakeTimeout = o.HandshakeTimeout
		return d
	}
	return websocket.Dialer{
		Proxy:            http.ProxyFromEnvironment,
		HandshakeTimeout: o.HandshakeTimeout,
		ReadBufferSize:   1024,
		WriteBufferSize:  512,
		WriteBufferPool:  &writeBuffers,
		NetDialContext:   (&net.Dialer{KeepAlive: -1}).DialContext, // the server's pings do that
	}
}

// Notifications delivers where there is no Handle; it is closed when the client has ended. Taking one
// acknowledges it.
func (c *Client) Notifications() <-chan Notification { return c.channel }

// Done is closed when the client has ended; Err then says why.
func (c *Client) Done() <-chan struct{} { return c.ended }

// Err is nil while the client lives.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the client and waits for its goroutine. It must not be called by Handle.
func (c *Client) Close() error {
	c.cancel()
	<-c.ended
	return nil
}

// Read tells that the person has seen these notifications. Without a connection it is told with the next one,
// and so is what was told shortly before a connection ended; of more than 1,000 that wait the oldest are
// forgotten. Those that follow one another quickly are told together. It fails only when the client has ended.
func (c *Client) Read(ids ...string) error {
	if len(ids) == 0 {
		return nil
	}
	if c.ctx.Err() != nil {
		return ErrClosed
	}
	c.reads.add(ids)
	return nil
}

type idsFrame struct {
	Type string   `json:"type"`
	IDs  []string `json:"ids"`
}

type refreshFrame struct {
	Type  string `json:"type"`
	Token string `json:"token"`
}

var errNotConnected = errors.New("not connected")

func (c *Client) send(v any) error {
	frame, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a frame: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return errNotConnected
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(writeTimeout)) // a closed socket fails in the write
	if err := c.conn.WriteMessage(websocket.TextMessage, frame); err != nil {
		return fmt.Errorf("send a frame: %w", err)
	}
	return nil
}

const writeTimeout = 10 * time.Second

// hangUp says goodbye and gives the server a second to do the same: then the reader returns.
func hangUp(conn *websocket.Conn, code int) {
	_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(time.Second))
	_ = conn.SetReadDeadline(time.Now().Add(time.Second)) // a socket that is closed already has no reader
}
