package consumers

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Distance says how far apart requests to Kafka are to be now ([Publisher.Distance]).
type Distance func() time.Duration

// Widest is the greatest of several distances.
func Widest(all ...Distance) Distance {
	return func() (widest time.Duration) {
		for _, d := range all {
			widest = max(widest, d())
		}
		return widest
	}
}

// Half is for fetches of what Whisper's own roles have gathered already: once is enough, and half the distance lets each of
// their requests pass at once.
func (d Distance) Half() Distance {
	return func() time.Duration { return d() / 2 }
}

// spacedConn keeps a distance between fetch requests, so that the broker gathers what comes meanwhile. The client asks
// again as soon as it has an answer, and its settings for that can't be changed while it runs; to wait before a poll
// instead would let records wait that have come already. A fetch that comes longer than the distance after the one
// before, because there was nothing to fetch, is sent at once.
type spacedConn struct {
	net.Conn
	distance Distance
	last     time.Time // of the latest fetch; the client writes from one goroutine
	ends     sync.Once
	ended    chan struct{}
}

// Write holds a fetch request back; the client hands each request over whole.
func (c *spacedConn) Write(b []byte) (int, error) {
	if isFetch(b) {
		now := time.Now()
		if wait := c.distance() - now.Sub(c.last); wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case now = <-timer.C:
			case <-c.ended:
				timer.Stop()
			}
		}
		c.last = now
	}
	return c.Conn.Write(b) //nolint:wrapcheck // the client knows net's errors
}

// Close lets a fetch that waits go on, which then fails.
func (c *spacedConn) Close() error {
	c.ends.Do(func() { close(c.ended) })
	return c.Conn.Close() //nolint:wrapcheck // as above
}

// isFetch reads a request's header: four bytes of length, and two that say what it is.
func isFetch(b []byte) bool {
	return len(b) > 6 && int64(binary.BigEndian.Uint32(b)) == int64(len(b)-4) && binary.BigEndian.Uint16(b[4:]) == uint16(kmsg.Fetch)
}

// spaced dials as the client would, and keeps a distance between fetches.
func spaced(c *tls.Config, distance Distance) func(context.Context, string, string) (net.Conn, error) {
	plain := &net.Dialer{Timeout: dialTimeout}
	dial := plain.DialContext
	if c != nil {
		dial = (&tls.Dialer{NetDialer: plain, Config: c}).DialContext
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err //nolint:wrapcheck // the client knows net's errors
		}
		return &spacedConn{Conn: conn, distance: distance, ended: make(chan struct{})}, nil
	}
}
