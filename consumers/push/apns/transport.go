package apns

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http2"

	"github.com/klivvr/whisper/domain"
)

// answer is what one try got, beyond what apns2 gives on: it forgets the status of an answer that is
// not JSON, cuts timestamps to seconds and hides headers.
type answer struct {
	lane domain.Lane

	status    int // 0: no answer came
	reason    string
	apnsID    string
	timestamp time.Time
	after     time.Duration // Retry-After, which APNs does not document
	conn      *conn         // what it was tried on; nil: no connection was to be had
	arrived   bool          // APNs may have taken it
}

type answerContext struct{}

func withAnswer(ctx context.Context, a *answer) context.Context {
	return context.WithValue(ctx, answerContext{}, a)
}

// wire is the transport of the http.Client that apns2 is given: it chooses the connection by lane, and
// notes the answer before apns2 reads it.
type wire struct {
	pools [len(domain.Lanes)]*pool
}

// maxErrorBytes bounds what is read of an answer; APNs's are under 100.
const maxErrorBytes = 4 << 10

// RoundTrip implements http.RoundTripper. It never tries again by itself: an attempt that may have
// arrived must not be repeated unseen.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	a, _ := req.Context().Value(answerContext{}).(*answer)
	if a == nil {
		a = &answer{}
	}
	pool := w.pools[a.lane]
	c, err := pool.acquire(req.Context())
	if err != nil {
		return nil, err
	}
	a.conn = c
	resp, err := c.cc.RoundTrip(req)
	if err != nil {
		a.arrived = mayHaveArrived(err)
		pool.release(c, false)
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes))
	_ = resp.Body.Close() // what is past the limit is reset, which is meant
	if err != nil && resp.StatusCode != http.StatusOK && len(body) == 0 {
		a.arrived = true
		pool.release(c, false)
		return nil, err
	}
	a.read(resp, body)
	// 403 is what APNs says before it trusts the connection.
	pool.release(c, resp.StatusCode != http.StatusForbidden)
	resp.Body = http.NoBody
	return resp, nil
}

// read notes the answer. A body that is not APNs's JSON leaves the reason empty.
func (a *answer) read(resp *http.Response, body []byte) {
	a.status = resp.StatusCode
	a.apnsID = resp.Header.Get("apns-id")
	if s := resp.Header.Get("retry-after"); s != "" {
		if d, err := time.ParseDuration(s + "s"); err == nil && d > 0 {
			a.after = d
		}
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return
	}
	var refused struct {
		Reason    string `json:"reason"`
		Timestamp int64  `json:"timestamp"`
	}
	if json.Unmarshal(body, &refused) != nil {
		return
	}
	a.reason = refused.Reason
	if refused.Timestamp > 0 {
		a.timestamp = time.UnixMilli(refused.Timestamp)
	}
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
