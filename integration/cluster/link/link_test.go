package link_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/klivvr/whisper/integration/cluster/link"
)

// echo says back what it hears.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func dial(t *testing.T, l *link.Link) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr()) //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, bufio.NewReader(c)
}

func say(t *testing.T, c net.Conn, r *bufio.Reader, line string) time.Duration {
	t.Helper()
	began := time.Now()
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		t.Fatal(err)
	}
	got, err := r.ReadString('\n')
	if err != nil || got != line+"\n" {
		t.Fatalf("got %q, %v", got, err)
	}
	return time.Since(began)
}

func TestLink(t *testing.T) {
	l, err := link.New(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, r := dial(t, l)
	say(t, c, r, "fine")

	l.Set(link.Weather{Delay: 100 * time.Millisecond})
	if took := say(t, c, r, "slow"); took < 200*time.Millisecond {
		t.Errorf("there and back over 100 ms took %s", took)
	}
	l.Set(link.Weather{Rate: 20})
	if took := say(t, c, r, "0123456789"); took < time.Second {
		t.Errorf("11 bytes there and back at 20 a second took %s", took)
	}
	l.Set(link.Weather{Silent: true})
	if _, err := io.WriteString(c, "held\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Read(make([]byte, 1)); got != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d bytes over a silent link, %v", got, err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	l.Set(link.Weather{})
	if got, err := r.ReadString('\n'); got != "held\n" || err != nil {
		t.Errorf("what was held arrived as %q, %v", got, err)
	}

	l.Cut()
	if _, err := r.ReadByte(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a cut is %v to who reads, want a reset", err)
	}
	again, r := dial(t, l)
	say(t, again, r, "again")
	l.Close()
	if _, err := r.ReadByte(); err == nil {
		t.Error("a connection outlives its link")
	}
}

// TestNobodyThere: a link to nobody resets who comes, as a port would without a listener.
func TestNobodyThere(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	l, err := link.New(gone.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr()) //nolint:noctx // loopback
	if err == nil {
		defer func() { _ = c.Close() }()
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("who comes is told %v, want a reset", err)
	}
}
