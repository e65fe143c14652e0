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
	// Receipt is opaque. It distinguishes two uses of one ID, such as a weekly reminder. The client returns it with each
	// acknowledgement and read. It is empty if the gateway is older than receipts.
	Receipt string `json:"receipt,omitempty"`
}

// The errors that end a client for good.
var (
	ErrClosed       = errors.New("the client was closed")
	ErrUnauthorized = errors.New("the server does not accept the token (4001)")
	ErrTokenExpired = errors.New("the token has expired (4002) and there is no way to get another")
	ErrRefused      = errors.New("the server refuses the connection")
)

// Client keeps one connection to a gateway open. All methods may be called from any goroutine, also within callbacks.
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
	// fetching is held during a call of the TokenFunc.
	fetching chan struct{}

	mu      sync.Mutex
	link    *link  // nil while there is none
	session int    // counts connections
	current string // the token in use
	useless error  // why no other connection will be possible
	err     error
}

// Dial connects to a gateway (ws://host:port/v1/socket) and returns when the gateway has accepted the token. The client
// then runs in the background and reconnects as often as needed, until Close or until the server says that reconnecting
// is useless. ctx bounds only Dial; once Dial has returned, ctx has no effect. Dial makes one attempt and returns its
// error.
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

// Notifications delivers notifications if Options.Handle is nil. Receiving one acknowledges it. The channel is closed
// when the client has ended.
func (c *Client) Notifications() <-chan Notification { return c.inbox.channel }

// Done is closed when the client has ended and its last callback has returned. Err then returns the reason. A callback
// must not wait for Done.
func (c *Client) Done() <-chan struct{} { return c.ended }

// Err returns why the client ended, and nil while it runs.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the client. No further notification is handed over, and the context of a running handler is cancelled.
// Reads, and acknowledgements of what was taken from the channel, are still sent: for that the connection stays open for
// up to a second. Close does not wait, so any callback may call it; Done is closed when everything has ended. A
// notification that was handed over but not handled is sent again to the user's next client. Close always returns nil.
func (c *Client) Close() error {
	c.cancel()
	return nil
}

// Read reports that the person has seen these notifications, which also acknowledges them. Without a connection the
// report waits for the next one, and a report that was sent shortly before a connection ended is sent again. At most
// 1,000 reports wait; beyond that the oldest are dropped. A report without a receipt is dropped after a day, because a
// later notification may then use the id. Reports that follow one another quickly share a frame. If several deliveries
// used one id, Read means the newest by its own time (At); use ReadNotification for another. Read fails only when the
// client has ended.
func (c *Client) Read(ids ...string) error {
	of := make([]key, len(ids))
	for i, id := range ids {
		of[i] = key{id, c.inbox.receipt(id)}
	}
	return c.read(of)
}

// ReadNotification is Read for exactly these deliveries, which it takes by their ID and Receipt.
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

// send writes a frame to the current connection.
func (c *Client) send(v any) error { return c.sendOver(0, v) }

// sendOver writes a frame to the connection with this number, if it is still open; 0 means the current one.
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
