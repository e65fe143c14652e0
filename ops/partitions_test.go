package ops_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/ops"
)

type stuck struct{ retried chan struct{} }

func (s stuck) Stopped() []consumers.Stopped {
	return []consumers.Stopped{{Group: "whisper-intake", Topic: "whisper.requests.high", Partition: 3, Reason: "no room", Help: "make room"}}
}

func (s stuck) Retry() int {
	s.retried <- struct{}{}
	return 1
}

func TestStoppedPartitionsAreListedAndTriedAgain(t *testing.T) {
	t.Parallel()
	s := serve(t, ops.Config{})
	if _, body := get(t, s, "/v1/partitions"); !strings.Contains(body, `"stopped": []`) {
		t.Errorf("with none: %s", body)
	}
	p := stuck{make(chan struct{}, 1)}
	s.Partitions("intake", p)
	if status, body := get(t, s, "/v1/partitions"); status != http.StatusOK || !strings.Contains(body, `"component": "intake"`) ||
		!strings.Contains(body, `"reason": "no room"`) || !strings.Contains(body, `"help": "make room"`) || !strings.Contains(body, `"partition": 3`) {
		t.Errorf("%d %s", status, body)
	}
	post := func(origin string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.Addr()+"/v1/partitions/retry", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	if status, _ := post("https://evil.example"); status != http.StatusForbidden || len(p.retried) != 0 {
		t.Errorf("a page's request: %d", status)
	}
	if status, body := post(""); status != http.StatusOK || !strings.Contains(body, `"tried": 1`) || len(p.retried) != 1 {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := get(t, s, "/v1/partitions/retry"); status != http.StatusMethodNotAllowed {
		t.Errorf("GET of the retry: %d", status)
	}
}

// failing stops at every record.
type failing struct{}

func (failing) Open(context.Context, *consumers.Partition) (consumers.Feed, error) {
	return failing{}, nil
}

func (failing) Handle(context.Context, []*kgo.Record) error {
	return errors.New("the disk is full")
}
func (failing) Close(context.Context) error { return nil }

// A partition that is stopped is seen from outside its process.
func TestHealthNamesStoppedPartitions(t *testing.T) {
	t.Parallel()
	f := setup(t)
	topic := consumers.TopicRequests(domain.High)
	if err := f.publisher.PublishSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("x"), Timestamp: noon}); err != nil {
		t.Fatal(err)
	}
	loop, err := consumers.NewLoop(consumers.LoopConfig{
		Client: f.client, Group: "whisper-intake", Topics: []string{topic}, Handler: failing{}, RetryFirst: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for s := loop.Stopped(); len(s) == 0 || s[0].NextTry.IsZero(); s = loop.Stopped() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it never stopped")
		}
	}
	doc := f.monitor(t).Health(t.Context())
	if doc.Status != ops.StatusDegraded || !strings.Contains(strings.Join(doc.Reasons, "; "),
		"partition whisper.requests.high/0 is stopped: handle whisper.requests.high/0: the disk is full") {
		t.Errorf("%s: %q", doc.Status, doc.Reasons)
	}
}
