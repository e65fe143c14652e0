package consumers_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/klivvr/whisper/consumers"
)

// TestCredentials: right ones work; wrong ones, or another mechanism than the broker's, stop a role at
// once with one sentence that says what to look at, and not with the password.
func TestCredentials(t *testing.T) {
	t.Parallel()
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			t.Parallel()
			cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser(mechanism, "whisper", "right"),
				kfake.SeedTopics(1, "a"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(cluster.Close)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			t.Cleanup(cancel)
			c := consumers.ClientConfig{Brokers: cluster.ListenAddrs(), SASLMechanism: mechanism, SASLUser: "whisper", SASLPassword: "right"}
			if err := c.Await(ctx); err != nil {
				t.Fatal(err)
			}
			publish(t, c, records("a", 0, 1)...)

			// The fake broker hangs up on wrong ones; this is what Kafka answers.
			cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
				cluster.KeepControl()
				resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
				resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
				resp.ErrorMessage = kmsg.StringPtr("Authentication failed: Invalid username or password")
				return resp, nil, true
			})
			c.SASLPassword = "wr0ng-secret"
			refused(ctx, t, "password", c)
			c.SASLMechanism = map[string]string{"PLAIN": "SCRAM-SHA-256", "SCRAM-SHA-256": "PLAIN", "SCRAM-SHA-512": "PLAIN"}[mechanism]
			refused(ctx, t, "mechanism", c)
		})
	}
}

func refused(ctx context.Context, t *testing.T, wrong string, c consumers.ClientConfig) {
	t.Helper()
	err := c.Await(ctx)
	switch {
	case err == nil:
		t.Errorf("a wrong %s gets in", wrong)
	case ctx.Err() != nil:
		t.Fatalf("a wrong %s is waited with: %v", wrong, err)
	case !strings.Contains(err.Error(), "refuses") || !strings.Contains(err.Error(), "kafka-sasl-password"),
		strings.Contains(err.Error(), "\n"), strings.Contains(err.Error(), "wr0ng"):
		t.Errorf("a wrong %s: %v", wrong, err)
	}
}

// lockedBuffer is a log that a test reads while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), s)
}

// TestAwaitWaitsForKafkaToAppear, says so, and ends with its context.
func TestAwaitWaitsForKafkaToAppear(t *testing.T) {
	t.Parallel()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	if err := ln.Close(); err != nil { // nobody answers there now
		t.Fatal(err)
	}
	logs := &lockedBuffer{}
	c := consumers.ClientConfig{Brokers: []string{addr}, Logger: slog.New(slog.NewTextHandler(logs, nil))}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Await(ctx) }()
	eventually(t, "it says that it waits", func() bool { return logs.has("waiting for kafka") })
	cancel()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "did not answer") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("Await = %v after its context ended, want why its last whole try failed", err)
	}

	answered := make(chan error, 1)
	go func() { answered <- c.Await(t.Context()) }()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.ListenFn(func(network, _ string) (net.Listener, error) {
		return (&net.ListenConfig{}).Listen(t.Context(), network, addr)
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	select {
	case err := <-answered:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(3 * time.Minute):
		t.Fatal("Kafka is there and not noticed")
	}
}

func TestABrokerThatIsAwayMayComeBack(t *testing.T) {
	t.Parallel()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	if err := ln.Close(); err != nil { // nobody answers there now
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RequestRetries(0))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	_, err = kadm.NewClient(cl).FetchOffsetsForTopics(t.Context(), "g", "a")
	for name, tc := range map[string]struct {
		err error
		may bool
	}{
		"nobody answers":    {fmt.Errorf("fetch the offsets: %w", err), true},
		"asks for patience": {kerr.CoordinatorNotAvailable, true},
		"refused":           {kerr.GroupAuthorizationFailed, false},
		"none":              {nil, false},
		"something else":    {errors.New("no"), false},
	} {
		if got := consumers.MayPass(tc.err); got != tc.may {
			t.Errorf("%s: MayPass(%v) = %t", name, tc.err, got)
		}
	}
}
