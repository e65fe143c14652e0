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

// Token says who the user is: a StaticToken, or what a TokenFunc gets.
type Token struct {
	static string
	get    func(context.Context) (string, error)
}

// StaticToken is one token for the whole life of the client: when the server does not accept it any more, the client
// ends (ErrUnauthorized, ErrTokenExpired).
func StaticToken(token string) Token { return Token{static: token} }

// TokenFunc gets a token whenever one is needed: before each connection, and a minute or two before one that tells its
// end (a JWT) expires; then the connection goes on with the new one. After an error it is asked again later, with
// back-off; one that wraps ErrUnauthorized (the person has logged out) ends the client. It is
// asked once at a time. Its context ends after HandshakeTimeout and with the client, and while Dial runs with that of Dial, too.
func TokenFunc(get func(ctx context.Context) (string, error)) Token { return Token{get: get} }

func (t Token) renewable() bool { return t.get != nil }

func (t Token) validate() error {
	if t.get == nil && t.static == "" {
		return errors.New("there is no token: give a StaticToken or a TokenFunc")
	}
	return nil
}

// Options may be left empty.
type Options struct {
	// Handle takes each notification, one after the other, on a goroutine of the client's. After nil it is
	// acknowledged; after an error it comes again later. It may take as long as it needs: meanwhile the connection is kept, and up to
	// Queue notifications are taken in, of which the most urgent lane's is handed over next. ctx ends with Close.
	// Without Handle, Notifications delivers.
	Handle func(ctx context.Context, n Notification) error
	// Retracted is told the id of a notification that is to be taken back, never while Handle runs and, where the
	// notification still waits for Handle, after that.
	Retracted func(id string)
	// Connected is told the session of each new connection. It and Disconnected may be called while Handle runs; the connection
	// waits until they have returned.
	Connected func(session string)
	// Disconnected is told why a connection ended.
	Disconnected func(err error)
	// AutoAck asks the server to count what the socket took as delivered; nothing is acknowledged. In a category with
	// auto_ack: false, as mandatory ones have it, it does not count, and the next channel is tried.
	AutoAck bool
	// Window is how many notifications are remembered to drop what comes twice (256).
	Window int
	// Queue is how many notifications may wait for Handle (1,000). When so many wait, nothing more is read from the connection
	// until there is room, pings included: the server sees a client that is too slow. If it closes the connection for that,
	// what was not acknowledged comes again over the next, and what still waits is not handed over twice.
	Queue int
	// ReadLimit is the most bytes that a frame of the server may have (256 KiB). A larger one ends the connection (1009).
	ReadLimit int64
	// MinBackoff (250 ms) and MaxBackoff (30 s) bound the wait between attempts to connect.
	MinBackoff, MaxBackoff time.Duration
	// HandshakeTimeout bounds one attempt to connect, and the question for a token before it (10 s).
	HandshakeTimeout time.Duration
	// TLS is how wss:// connects: the machine's certificates unless it says otherwise.
	TLS *tls.Config
	// Proxy is the proxy of a request (that of the environment; see http.ProxyFromEnvironment).
	Proxy func(*http.Request) (*url.URL, error)
	// Header is sent with each handshake, beside the token. Operators see its User-Agent (whisper-go and the version).
	Header http.Header
	// DialContext makes connections, to choose source addresses for example (a net.Dialer's).
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	// Logger (discards) gets no contents and no tokens.
	Logger *slog.Logger
}

// validate names everything that is wrong.
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
