package client

import (
	"context"
	"crypto/tls"
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

// Token says who the user is: a StaticToken or a TokenFunc.
type Token struct {
	static string
	get    func(context.Context) (string, error)
}

// StaticToken is one token for the whole life of the client. When the server no longer accepts it, the client ends
// (ErrUnauthorized, ErrTokenExpired).
func StaticToken(token string) Token { return Token{static: token} }

// TokenFunc fetches a token whenever one is needed: before each connection, and a minute or two before the current token
// expires, if it is a JWT with an end; the connection then continues with the new token. After an error it is called
// again later, with back-off; an error that wraps ErrUnauthorized (the person has logged out) ends the client. It is
// never called twice at once. Its context ends after HandshakeTimeout, with the client and, while Dial runs, with Dial's.
func TokenFunc(get func(ctx context.Context) (string, error)) Token { return Token{get: get} }

func (t Token) renewable() bool { return t.get != nil }

func (t Token) validate() error {
	if t.get == nil && t.static == "" {
		return errors.New("there is no token: give a StaticToken or a TokenFunc")
	}
	return nil
}

// Options has defaults for everything.
type Options struct {
	// Handle is called with each notification, one at a time, on a goroutine of the client. If it returns nil the
	// notification is acknowledged; after an error the server sends it again later. It may take as long as it needs:
	// meanwhile the connection stays open and up to Queue notifications wait, the most urgent lane first. ctx ends with
	// Close. If Handle is nil, notifications arrive on [Client.Notifications].
	Handle func(ctx context.Context, n Notification) error
	// Retracted is called with the id of a notification that was retracted. It never runs beside Handle, and it runs
	// after Handle if the notification still waits for that.
	Retracted func(id string)
	// Connected is called with the session of each new connection. It and Disconnected may run beside Handle; the
	// connection waits until they have returned.
	Connected func(session string)
	// Disconnected is called with the reason that a connection ended for.
	Disconnected func(err error)
	// AutoAck asks the server to count a notification as delivered once it is written to the socket; the client then
	// acknowledges nothing. It does not count in a category with auto_ack: false, such as a mandatory one: there the
	// next channel is tried.
	AutoAck bool
	// Window is how many notifications are remembered in order to drop duplicates (256).
	Window int
	// Queue is how many notifications may wait for Handle (1,000). While so many wait, nothing is read from the
	// connection, not even pings, so the server sees a client that is too slow. If it closes the connection for that, it
	// sends what was not acknowledged again over the next one; what still waits is not handed over twice.
	Queue int
	// ReadLimit bounds a frame of the server, in bytes (256 KiB). A larger one ends the connection (1009).
	ReadLimit int64
	// MinBackoff (250 ms) and MaxBackoff (30 s) bound the wait between attempts to connect.
	MinBackoff, MaxBackoff time.Duration
	// HandshakeTimeout bounds one attempt to connect, and the call of the TokenFunc before it (10 s).
	HandshakeTimeout time.Duration
	// TLS configures wss:// (default: the machine's certificates).
	TLS *tls.Config
	// Proxy returns the proxy for a request (default: [http.ProxyFromEnvironment]).
	Proxy func(*http.Request) (*url.URL, error)
	// Header is sent with each handshake, beside the token. Operators see its User-Agent (default: whisper-go with the
	// version).
	Header http.Header
	// DialContext opens connections, for example from a chosen source address (default: that of a [net.Dialer]).
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	// Logger never gets contents or tokens (default: discards).
	Logger *slog.Logger
}

// validate names every problem.
func (o Options) validate() error {
	var wrong []error
	for _, number := range []struct {
		name  string
		value int64
	}{
		{"Window", int64(o.Window)},
		{"Queue", int64(o.Queue)},
		{"ReadLimit", o.ReadLimit},
		{"MinBackoff", int64(o.MinBackoff)},
		{"MaxBackoff", int64(o.MaxBackoff)},
		{"HandshakeTimeout", int64(o.HandshakeTimeout)},
	} {
		if number.value < 0 {
			wrong = append(wrong, fmt.Errorf("option %s is below zero", number.name))
		}
	}
	if o.Header.Get("Authorization") != "" {
		wrong = append(wrong, errors.New("option Header has Authorization, which is the token's: give that to Dial"))
	}
	return errors.Join(wrong...)
}

func (o Options) withDefaults() Options {
	orDefault(&o.Window, 256)
	orDefault(&o.Queue, 1000)
	orDefault(&o.ReadLimit, 256<<10)
	orDefault(&o.MinBackoff, 250*time.Millisecond)
	orDefault(&o.MaxBackoff, 30*time.Second)
	orDefault(&o.HandshakeTimeout, 10*time.Second)
	if o.Proxy == nil {
		o.Proxy = http.ProxyFromEnvironment
	}
	if o.DialContext == nil {
		o.DialContext = (&net.Dialer{KeepAlive: -1}).DialContext // the server's pings do that
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func orDefault[T int | int64 | time.Duration](value *T, otherwise T) {
	if *value == 0 {
		*value = otherwise
	}
}

// writeBuffers are shared by all clients of the process, since one holds a buffer only while it writes.
var writeBuffers sync.Pool

func (o Options) dialer() websocket.Dialer {
	return websocket.Dialer{
		Proxy:            o.Proxy,
		TLSClientConfig:  o.TLS,
		NetDialContext:   o.DialContext,
		HandshakeTimeout: o.HandshakeTimeout,
		ReadBufferSize:   1024,
		WriteBufferSize:  512,
		WriteBufferPool:  &writeBuffers,
	}
}
