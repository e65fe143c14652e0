package apns

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/klivvr/whisper/consumers/push/h2"
	"github.com/klivvr/whisper/consumers/push/pace"
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
	conn      *h2.Conn      // what it was tried on; nil: no connection was to be had
	arrived   bool          // APNs may have taken it
}

type answerContext struct{}

func withAnswer(ctx context.Context, a *answer) context.Context {
	return context.WithValue(ctx, answerContext{}, a)
}

// wire is the transport of the http.Client that apns2 is given: it chooses the connection by lane, and
// notes the answer before apns2 reads it.
type wire struct {
	pools [len(domain.Lanes)]*h2.Pool
	now   func() time.Time
}

// RoundTrip implements http.RoundTripper. It never tries again by itself: an attempt that may have
// arrived must not be repeated unseen.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	a, _ := req.Context().Value(answerContext{}).(*answer)
	if a == nil {
		a = &answer{}
	}
	reply, err := w.pools[a.lane].Do(req)
	if err != nil {
		var none *h2.NoAnswer
		if errors.As(err, &none) {
			a.conn, a.arrived = none.Conn, none.Arrived
		}
		return nil, err
	}
	a.read(reply, w.now())
	return &http.Response{StatusCode: reply.Status, Header: reply.Header, Body: http.NoBody, Request: req}, nil
}

// read notes the answer. A body that is not APNs's JSON leaves the reason empty.
func (a *answer) read(reply *h2.Reply, now time.Time) {
	a.conn = reply.Conn
	a.status = reply.Status
	a.apnsID = reply.Header.Get("apns-id")
	a.after = pace.RetryAfter(reply.Header, now)
	if len(bytes.TrimSpace(reply.Body)) == 0 {
		return
	}
	var refused struct {
		Reason    string `json:"reason"`
		Timestamp int64  `json:"timestamp"`
	}
	err := json.Unmarshal(reply.Body, &refused)
	if reply.Status == http.StatusOK && a.apnsID == "" && refused.Reason == "" {
		a.reason = "unexpected_body" // APNs's 200 has its id and no body: this is something in between
	}
	if err != nil {
		return
	}
	if refused.Reason != "" {
		a.reason = refused.Reason
	}
	if refused.Timestamp > 0 {
		a.timestamp = time.UnixMilli(refused.Timestamp)
	}
}
