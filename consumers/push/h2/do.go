// Package h2 holds a provider's HTTP/2 connections: a bounded number, warmed up before they are filled, with what became of each
// request said exactly. Whether a request without an answer may have arrived decides whether it can be repeated.
//
// It repeats nothing by itself, follows no redirect, and knows no provider.
package h2

import (
	"errors"
	"io"
	"net/http"
	"strings"

	"golang.org/x/net/http2"
)

// Reply is one answer.
type Reply struct {
	Status int
	Header http.Header
	// Body has at most MaxBody bytes of the answer's; it may be cut.
	Body []byte
	// Cut says that the body ended before its end.
	Cut bool
	// Conn is the connection that answered.
	Conn *Conn
}

// NoAnswer is the error of a request without an answer.
type NoAnswer struct {
	// Conn is what it was tried on; nil: no connection was to be had.
	Conn *Conn
	// Arrived: the server may have taken it.
	Arrived bool
	Err     error
}

func (e *NoAnswer) Error() string { return e.Err.Error() }
func (e *NoAnswer) Unwrap() error { return e.Err }

// MaxBody bounds what is read of an answer; those of providers are far below it.
const MaxBody = 4 << 10

// Do makes a request, whose context bounds it with the wait for a connection. The error is a *[NoAnswer].
func (p *Pool) Do(req *http.Request) (*Reply, error) {
	c, err := p.acquire(req.Context())
	if err != nil {
		return nil, &NoAnswer{Err: err}
	}
	resp, err := c.cc.RoundTrip(req)
	if err != nil {
		p.release(c, false)
		return nil, &NoAnswer{Conn: c, Arrived: mayHaveArrived(err), Err: err}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxBody))
	_ = resp.Body.Close() // what is past the limit is reset, which is meant
	if err != nil && resp.StatusCode != http.StatusOK && len(body) == 0 {
		p.release(c, false)
		return nil, &NoAnswer{Conn: c, Arrived: true, Err: err}
	}
	// 401 and 403 are what a server says before it trusts the connection.
	p.release(c, resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusUnauthorized)
	return &Reply{Status: resp.StatusCode, Header: resp.Header, Body: body, Cut: err != nil, Conn: c}, nil
}

// mayHaveArrived is false only where HTTP/2 promises that the server did not look at the request: its
// stream was refused, or it is above the last stream of a GOAWAY. net/http has no type for the second.
func mayHaveArrived(err error) bool {
	var stream http2.StreamError
	if errors.As(err, &stream) && stream.Code == http2.ErrCodeRefusedStream {
		return false
	}
	text := err.Error()
	return !strings.Contains(text, "graceful shutdown GOAWAY") && !strings.Contains(text, "client conn not usable")
}
