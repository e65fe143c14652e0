package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	// Receipt is opaque. It tells two uses of one ID apart, such as a reminder each week, and goes back to the server
	// with what is acknowledged and read. Empty where the gateway is older than receipts.
	Receipt string `json:"receipt,omitempty"`
}

// What ends a client for good.
var (
	ErrClosed       = errors.New("the client was closed")
	ErrUnauthorized = errors.New("the server does not accept the token (4001)")
	ErrTokenExpired = errors.New("the token has expired (4002) and there is no way to get another")
	ErrRefused      = errors.New("the server refuses the connection")
)

// Client is one connection that is kept up. All methods may be called from any goroutine, callbacks included.
type Client struct {
	url    string
	opts   Options
	token  Token
	dialer websocket.Dialer
	ctx    context.Context // ends with Close, and with the client
	cancel context.CancelFunc
	ended  chan struct{}
	reads  reads
	inbox  inbox
	// fetching holds who asks the TokenFunc.
	fetching chan struct{}

	mu      sync.Mutex
	link    *link  // nil while there is none
	session int    // counts connections
	current string // the token in use
	useless error  // why no other connection will be possible
	err     error
}

// Dial connects to a gateway (ws://host:port/v1/socket) and returns when the gateway has accepted the token. The client
// then goes on in the background, through any number of connections, until Close or until the server says that trying
// again is useless. ctx bounds Dial alone: after it has returned, ctx means nothing to the client. Dial's error is that
// of the first attempt; it is not tried again.
func Dial(ctx context.Context, address string, token Token, opts Options) (*Client, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "ws" && u.Scheme != "wss" || u.Host == "" {
		return nil, fmt.Errorf("%q is not the address of a gateway, like ws://127.0.0.1:8080/v1/socket", address)
	}
	if err := errors.Join(token.validate(), opts.validate()); err != nil {
		return nil, err
	}
	if opts.AutoAck {
		q := u.Query()
		q.Set("ack", "auto")
		u.RawQuery = q.Encode()
	}
	opts = opts.withDefaults()
	c := &Client{
		url: u.String(), opts: opts, token: token, dialer: opts.dialer(),
		ended: make(chan struct{}), fetching: make(chan struct{}, 1),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.reads.send = func(of []key) error { return c.send(newIDsFrame("read", of)) }
	c.reads.now = time.Now
	c.reads.forgot = func(n int) { opts.Logger.Warn("reads forgotten: too many wait, or for too long", "count", n) }
	c.inbox.init(c)
	stop := context.AfterFunc(ctx, c.cancel)
	l, err := c.connect() //nolint:contextcheck // the client outlives Dial and has a context of its own, which ctx ends until Dial returns
	if err == nil && !stop() {
		_ = l.conn.Close() // ctx ended at the last moment
		err = ctx.Err()
	}
	if err != nil {
		stop()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		c.cancel()
		return nil, fmt.Errorf("connect to %s: %w", address, unwrapEnd(err))
	}
	c.open(l)
	go c.run(l) //nolint:contextcheck // as above
	return c, nil
}

// Notifications delivers where there is no Handle; it is closed when the client has ended. Taking one
// acknowledges it.
func (c *Client) Notifications() <-chan Notification { return c.inbox.channel }

// Done is closed when the client has ended and its last callback has returned; Err then says why. A callback must not
// wait for it.
func (c *Client) Done() <-chan struct{} { return c.ended }

// Err is nil while the client lives.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the client: nothing that has not begun is handed over any more, the context of the handler that runs ends,
// what was read or taken from the channel before is told, for which the connection stays open for up to a second,
// and the connection is closed. It does not wait, so that any callback may call it; Done says when all has ended. What
// was handed over, but not handled, comes again to the user's next client. It always returns nil.
func (c *Client) Close() error {
	c.cancel()
	return nil
}

// Read tells that the person has seen these notifications. It implies that they are acknowledged. Without a connection
// it is told with the next one, and so is what was told shortly before a connection ended; of more than 1,000 that wait
// the oldest are forgotten, and so is one whose delivery had no receipt after a day, since the id may by then be that of a later
// notification. Those that follow one another quickly are told together. Where several deliveries have come
// under one id, the newest by its own time (At) is meant; ReadNotification tells of another. It fails only when the client has ended.
func (c *Client) Read(ids ...string) error {
	of := make([]key, len(ids))
	for i, id := range ids {
		of[i] = key{id, c.inbox.receipt(id)}
	}
	return c.read(of)
}

// ReadNotification is Read of exactly these deliveries: ID and Receipt of each matter.
func (c *Client) ReadNotification(notifications ...Notification) error {
	of := make([]key, len(notifications))
	for i, n := range notifications {
		of[i] = keyOf(n)
	}
	return c.read(of)
}

func (c *Client) read(of []key) error {
	if c.ctx.Err() != nil {
		return ErrClosed
	}
	if len(of) > 0 {
		c.reads.add(of)
	}
	return nil
}

var errNotConnected = errors.New("not connected")

// send writes a frame to the connection that there is.
func (c *Client) send(v any) error { return c.sendOver(0, v) }

// sendOver writes a frame to the connection with this number, unless it is gone; 0: to any.
func (c *Client) sendOver(session int, v any) error {
	frame, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a frame: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link == nil || session != 0 && session != c.link.session {
		return errNotConnected
	}
	return c.link.write(frame)
}
