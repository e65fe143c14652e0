package conformance

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/gateway"
)

// Secret signs the tokens of all scenarios.
const Secret = "the secret of the conformance scenarios"

const nodeVariable = "WHISPER_CONFORMANCE_NODE"

// nodeSettings is what a gateway's process is told.
type nodeSettings struct {
	Node  string        `json:"node"`
	Addr  string        `json:"addr"`
	Kafka []string      `json:"kafka"`
	Drain time.Duration `json:"drain"`
	Limits
}

// RunIfNode makes this process a gateway, and ends it, where a stage has started it for that. Call it
// first in main or TestMain.
func RunIfNode() {
	settings := os.Getenv(nodeVariable)
	if settings == "" {
		return
	}
	if err := runNode(settings); err != nil {
		fmt.Fprintln(os.Stderr, "conformance node:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// runNode serves until the stage closes standard input, which the end of the stage's process does too.
func runNode(text string) error {
	var s nodeSettings
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	g, err := gateway.New(gateway.Config{
		Node: s.Node, Addr: s.Addr, Partitions: 1, Origins: []string{"*"},
		Kafka:        consumers.ClientConfig{Brokers: s.Kafka, ClientID: "conformance-" + s.Node},
		Auth:         gateway.AuthConfig{HMACSecret: []byte(Secret), Leeway: -1},
		DrainTimeout: s.Drain, MaxConnections: s.MaxConnections, MaxUnacked: s.MaxUnacked,
		Metrics: metrics.NewSet(),
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for g.Ready() != nil {
			<-tick.C
		}
		fmt.Println(g.Addr())
	}()
	return g.Run(ctx)
}

// node is a gateway's process.
type node struct {
	settings nodeSettings

	mu    sync.Mutex
	proc  *exec.Cmd
	stdin io.Closer
	ended chan struct{}
	err   error // of the process, after ended
	open  bool  // takes new connections
}

// start returns when the gateway is ready. The first start chooses the port, later ones keep it.
func (n *node) start() error {
	settings, err := json.Marshal(n.settings)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	proc := exec.Command(self) //nolint:noctx // it ends with its standard input
	proc.Env = append(os.Environ(), nodeVariable+"="+string(settings))
	stdin, err := proc.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := proc.StdoutPipe()
	if err != nil {
		return err
	}
	var complaint strings.Builder
	proc.Stderr = &complaint
	if err := proc.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, stdout)
		n.setErr(proc.Wait())
	}()
	if err != nil {
		<-ended
		return fmt.Errorf("node %s did not start: %s", n.settings.Node, complaint.String())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.settings.Addr = strings.TrimSpace(line)
	n.proc, n.stdin, n.ended, n.open = proc, stdin, ended, true
	return nil
}

func (n *node) setErr(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.err = err
	n.open = false
}

// drain asks the process to stop and does not wait.
func (n *node) drain() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open = false
	_ = n.stdin.Close()
}

// kill is SIGKILL; it returns when the process is gone.
func (n *node) kill() {
	n.mu.Lock()
	n.open = false
	ended := n.ended
	_ = n.proc.Process.Signal(syscall.SIGKILL)
	n.mu.Unlock()
	<-ended
}

// stopped waits for the end of a drain, which must be clean.
func (n *node) stopped(ctx context.Context) error {
	select {
	case <-n.ended:
	case <-ctx.Done():
		return errors.New("the node does not stop")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

// dial reaches the node where it takes connections.
func (n *node) dial() (net.Conn, error) {
	n.mu.Lock()
	open, addr := n.open, n.settings.Addr
	n.mu.Unlock()
	if !open {
		return nil, errors.New("the node is not up")
	}
	return net.Dial("tcp", addr) //nolint:noctx // loopback
}
