package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/bench"
)

// socketsEnv says how many clients the tests of sockets connect: a number, or max for as many as the file limit allows.
// Without it there are as many as CI has time for.
const socketsEnv = "WHISPER_TEST_SOCKETS"

// measuring says that figures are wanted, so the machine is free for them.
func measuring() bool { return os.Getenv(socketsEnv) != "" }

// clientsFor returns how many clients a test gets, and logs what bounds them.
func clientsFor(t *testing.T, inCI int) int {
	t.Helper()
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	// A gateway reserves 256 files; some sockets count until both ends have closed them.
	room := int(min(files.Max, 1<<20)) - 256 - 128
	want := inCI
	switch asked := os.Getenv(socketsEnv); asked {
	case "":
	case "max":
		want = room
	default:
		var err error
		if want, err = strconv.Atoi(asked); err != nil {
			t.Fatalf("%s=%s: neither a number nor max", socketsEnv, asked)
		}
	}
	if want > room {
		t.Logf("%d clients, not %d: more do not fit under the limit of %d files a process (ulimit -n)", room, want, files.Max)
		return room
	}
	t.Logf("%d clients (%s sets another number, or max: %d on this machine)", want, socketsEnv, room)
	return want
}

// crowd is a process of integration/crowd.
type crowd struct {
	t   *testing.T
	in  io.WriteCloser
	mu  sync.Mutex
	enc *json.Encoder
	dec *json.Decoder
}

// buildCrowd builds it without the race detector, whose memory thousands of clients would multiply.
var buildCrowd = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(sys.dir, "crowd")
	out, err := exec.CommandContext(context.Background(), "go", "build", "-o", binary, "./crowd").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the crowd: %w\n%s", err, out)
	}
	return binary, nil
})

// gather connects a crowd of users prefix-0… and waits until all are connected. home is the node that they try first; 0
// gives each another one.
func gather(t *testing.T, prefix string, clients, home int) *crowd {
	t.Helper()
	binary, err := buildCrowd()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary) //nolint:noctx // it ends with its input
	var said bytes.Buffer
	cmd.Stderr = &said
	c := &crowd{t: t}
	if c.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.in.Close()
		kill := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the crowd: %v\n%s", err, tail(said.String()))
		}
	})
	c.enc, c.dec = json.NewEncoder(c.in), json.NewDecoder(out)
	began := time.Now()
	if err := c.enc.Encode(bench.CrowdConfig{
		Nodes: []string{sys.proc("gateway-1").addr, sys.proc("gateway-2").addr}, Home: home,
		Users: clients, Prefix: prefix, Secret: secret, Concurrency: 64,
		MinBackoff: 250 * time.Millisecond, MaxBackoff: 30 * time.Second, // the Go client's
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all are connected", func() bool { return c.counts().Connected == int64(clients) })
	t.Logf("%d clients connected in %v; %d were asked to wait", clients, took(began), c.counts().Refused)
	return c
}

func (c *crowd) counts() (n bench.CrowdCounts) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.enc.Encode(struct{}{}); err != nil {
		c.t.Fatalf("ask the crowd: %v", err)
	}
	if err := c.dec.Decode(&n); err != nil {
		c.t.Fatalf("ask the crowd: %v", err)
	}
	return n
}

// stream produces requests of one user each, for all of a crowd in turn, until stop is closed, and returns how many.
// Their ids end in their time, from which the crowd computes the latency.
func stream(t *testing.T, prefix, users string, clients, perSecond int, stop <-chan struct{}) (n int) {
	t.Helper()
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; {
		for ; n < int(time.Since(began).Seconds()*float64(perSecond)); n++ {
			user := fmt.Sprintf("%s-%d", users, n*7919%clients) // far from each other, and each as often
			rec := &kgo.Record{
				Topic: "whisper.requests." + []string{"high", "normal", "low"}[n%3], Key: []byte(user),
				Value: fmt.Appendf(nil, `{"id":"%s-%d-%d","to":{"users":[%q]},"content":{"body":"b"}}`, prefix, n, time.Now().UnixMicro(), user),
			}
			wg.Add(1)
			sys.kafka.Produce(context.Background(), rec, func(_ *kgo.Record, err error) {
				defer wg.Done()
				if err != nil {
					t.Errorf("produce: %v", err)
				}
			})
		}
		select {
		case <-stop:
			return n
		case <-tick.C:
		}
	}
}
