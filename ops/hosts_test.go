package ops_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/klivvr/whisper/ops"
)

func TestOnlyExpectedHostsAreAnswered(t *testing.T) {
	t.Parallel()
	s := serve(t, ops.Config{Hosts: []string{"ops.bank.example"}})
	ask := func(method, path, host string, header ...string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.Addr()+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	for host, status := range map[string]int{
		s.Addr(): 200, "10.1.2.3:8081": 200, "[::1]:8081": 200, "localhost:8081": 200, "project:8081": 200,
		"whisper-project.prod.svc.cluster.local:8081": 200, "whisper-project.prod.svc": 200, "OPS.bank.example:8081": 200,
		"rebind.evil.example:8081": 421, "127.0.0.1.evil.example": 421, "localhost.evil.example": 421,
	} {
		if got := ask(http.MethodGet, "/metrics", host); got != status {
			t.Errorf("%s: %d, want %d", host, got, status)
		}
		if got := ask(http.MethodGet, "/livez", host); got != 200 { // whatever a probe calls it
			t.Errorf("/livez as %s: %d", host, got)
		}
	}
	if got := ask(http.MethodPost, "/v1/partitions/retry", s.Addr(), "Sec-Fetch-Site", "cross-site"); got != http.StatusForbidden {
		t.Errorf("a page of another site posts: %d", got)
	}
}

// A connection that asks no more is closed: it must not hold one of the process's files for ever.
func TestIdleConnectionsEnd(t *testing.T) {
	t.Parallel()
	s := serve(t, ops.Config{IdleTimeout: 50 * time.Millisecond})
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
	if _, err := fmt.Fprintf(conn, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if _, err := in.ReadByte(); err != io.EOF { // ReadByte gives it as it is
		t.Errorf("the connection stayed open: %v", err)
	}
}
