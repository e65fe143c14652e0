package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// While strangers send every kind of token that is none, from the same address and as fast as they can, clients with a
// good one are let in at their first try, and no place is lost to the others.
func TestGoodClientsConnectThroughAFloodOfBadTokens(t *testing.T) {
	t.Parallel()
	n := setup(t, func(c *Config, _ *fakeBroker) { c.AdmitRate = 400 })
	good := n.token("mallory", time.Hour)
	bad := []string{
		"", "not.a.token", strings.Repeat("a", 8<<10), good[:len(good)-4] + "AAAA",
		"eyJhbGciOiJub25lIn0.eyJzdWIiOiJtYWxsb3J5In0.", "eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.e30.AAAA", "..", good + "." + good,
	}
	stop := make(chan struct{})
	var flood sync.WaitGroup
	for i := range 4 {
		flood.Go(func() {
			for k := i; ; k++ {
				select {
				case <-stop:
					return
				default:
				}
				conn, resp, err := websocket.DefaultDialer.Dial(n.url, bearer(bad[k%len(bad)]))
				if resp != nil {
					_ = resp.Body.Close()
				}
				if err != nil {
					continue
				}
				for err == nil { // until it is told
					_, _, err = conn.ReadMessage()
				}
				_ = conn.Close()
			}
		})
	}
	for user := range 60 { // fewer than come at once
		n.connect(fmt.Sprint("user-", user))
	}
	close(stop)
	flood.Wait()
	if n.metrics.paced.Get() != 0 || n.metrics.badTokens.Get() == 0 {
		t.Errorf("%d were told to wait, %d bad tokens were refused", n.metrics.paced.Get(), n.metrics.badTokens.Get())
	}
	eventually(t, "the strangers' connections to end", func() bool { return n.connections.Load() == 60 })
}

// Origins that name no host are nobody's, also where the request names none.
func TestAnOriginWithoutAHostMayNotConnect(t *testing.T) {
	t.Parallel()
	n := prepare(t)
	for _, host := range []string{"127.0.0.1:8080", "gateway.example.com", ""} {
		for origin, allowed := range map[string]bool{
			"null": false, "file://": false, "about:blank": false, "http://": false, "://": false, "%": false, "https:///v1": false,
			"http://evil.example": false, "http://" + host + ".evil.example": false, "http://evil.example#" + host: false,
			"http://" + host + "@evil.example": false, "http://" + host: host != "", "HTTP://" + strings.ToUpper(host): host != "",
		} {
			if got := n.originAllowed(&http.Request{Host: host, Header: http.Header{"Origin": {origin}}}); got != allowed {
				t.Errorf("host %q, origin %q: allowed %t", host, origin, got)
			}
		}
	}
}
