package client_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/klivvr/whisper/gateway/client"
)

// A program that receives until it is done: each notification is acknowledged when Handle returns nil.
func Example() {
	address, done := serving("pay-8812", "pay-8813") // ws://127.0.0.1:8080/v1/socket of a whisper dev, for example
	defer done()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	got := make(chan string)
	c, err := client.Dial(ctx, address, client.StaticToken("a JWT"), client.Options{
		Handle: func(ctx context.Context, n client.Notification) error {
			select {
			case got <- n.ID: // kept
				return nil
			case <-ctx.Done():
				return ctx.Err() // not acknowledged: it comes again
			}
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(<-got)
	fmt.Println(<-got)
	_ = c.Close()
	<-c.Done()
	fmt.Println(c.Err())
	// Output:
	// pay-8812
	// pay-8813
	// the client was closed
}

// Without Handle, taking a notification from the channel acknowledges it.
func ExampleClient_Notifications() {
	address, done := serving("pay-8812")
	defer done()

	c, err := client.Dial(context.Background(), address, client.StaticToken("a JWT"), client.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for n := range c.Notifications() { // until the client has ended
		fmt.Println(n.Lane, n.ID)
		_ = c.ReadNotification(n) // when the person has seen it
		_ = c.Close()
	}
	// Output: high pay-8812
}

// A client that outlives its tokens is given a way to get another. An error is tried again later, but for one that wraps
// ErrUnauthorized.
func ExampleTokenFunc() {
	address, done := serving()
	defer done()

	login := func(context.Context) (token string, loggedOut bool, err error) { return "", true, nil } // your own
	token := client.TokenFunc(func(ctx context.Context) (string, error) {
		token, loggedOut, err := login(ctx)
		if loggedOut {
			return "", fmt.Errorf("logged out: %w", client.ErrUnauthorized)
		}
		return token, err
	})
	_, err := client.Dial(context.Background(), address, token, client.Options{})
	fmt.Println(errors.Is(err, client.ErrUnauthorized))
	// Output: true
}

// A ctx that is to end the client does so by Close: that of Dial bounds the dial alone.
func ExampleClient_Close() {
	address, done := serving()
	defer done()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c, err := client.Dial(ctx, address, client.StaticToken("a JWT"), client.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	context.AfterFunc(ctx, func() { _ = c.Close() })
	cancel()
	<-c.Done()
	fmt.Println(c.Err())
	// Output: the client was closed
}

// How it connects: certificates, a proxy, headers beside the token.
func ExampleOptions() {
	address, done := serving()
	defer done()

	c, err := client.Dial(context.Background(), address, client.StaticToken("a JWT"), client.Options{
		TLS:       &tls.Config{MinVersion: tls.VersionTLS13},
		Proxy:     http.ProxyFromEnvironment,
		Header:    http.Header{"User-Agent": {"my-app/1.0"}},
		Connected: func(session string) { fmt.Println("connected, session", session) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = c.Close()
	// Output: connected, session s
}
