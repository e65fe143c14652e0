package gateway

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pires/go-proxyproto"
)

func TestOnlyTrustedProxiesAreBelieved(t *testing.T) {
	t.Parallel()
	p, err := newProxies([]string{"10.0.0.0/8", "127.0.0.1", "2001:db8:f::/48"}, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		peer string
		said []string
		want string
	}{
		{"192.0.2.1:5", nil, "192.0.2.1"},
		{"192.0.2.1:5", []string{"198.51.100.7"}, "192.0.2.1"},
		{"10.1.2.3:5", nil, "invalid IP"},
		{"10.1.2.3:5", []string{"198.51.100.7"}, "198.51.100.7"},
		{"10.1.2.3:5", []string{"203.0.113.9, 198.51.100.7"}, "198.51.100.7"},            // what the client wrote itself
		{"10.1.2.3:5", []string{"203.0.113.9", "198.51.100.7"}, "198.51.100.7"},          // the same in two lines
		{"10.1.2.3:5", []string{"203.0.113.9, 198.51.100.7, 10.9.9.9"}, "198.51.100.7"},  // over two proxies
		{"10.1.2.3:5", []string{"203.0.113.9,198.51.100.7", "10.9.9.9"}, "198.51.100.7"}, //
		{"10.1.2.3:5", []string{"198.51.100.7:4711"}, "198.51.100.7"},                    // with a port
		{"10.1.2.3:5", []string{"[2001:db8:1:2:3::4]:4711"}, "2001:db8:1:2::"},           //
		{"10.1.2.3:5", []string{"2001:db8:1:2:3::4"}, "2001:db8:1:2::"},                  //
		{"10.1.2.3:5", []string{"10.7.7.7"}, "invalid IP"},                               // a client among the proxies
		{"10.1.2.3:5", []string{"203.0.113.9, unknown"}, "invalid IP"},                   // nobody vouches for the rest
		{"10.1.2.3:5", []string{""}, "invalid IP"},                                       //
		{"[::ffff:10.1.2.3]:5", []string{"198.51.100.7"}, "198.51.100.7"},                //
		{"[2001:db8:f:1::1]:5", []string{"::ffff:198.51.100.7"}, "198.51.100.7"},         //
		{"10.1.2.3:5", []string{strings.Repeat("10.0.0.1,", 500) + "10.0.0.1"}, "invalid IP"},
		{"@", []string{"198.51.100.7"}, "invalid IP"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/socket", nil)
		r.RemoteAddr = c.peer
		for _, line := range c.said {
			r.Header.Add("X-Forwarded-For", line)
		}
		if got := p.client(r, nil).String(); got != c.want {
			t.Errorf("%s said %q: counts as %s, want %s", c.peer, c.said, got, c.want)
		}
	}
}

func TestProxySettingsThatCantBeUsedAreNamed(t *testing.T) {
	t.Parallel()
	c := config()
	c.TrustedProxies, c.ProxyProtocol = []string{"10.0.0.0/8", "10.0.0.0/33", "proxy.example"}, false
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "10.0.0.0/33") || !strings.Contains(err.Error(), "proxy.example") {
		t.Errorf("got %v", err)
	}
	c.TrustedProxies, c.ProxyProtocol = nil, true
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "proxy-protocol") {
		t.Errorf("got %v", err)
	}
}

// Behind a proxy each client has its own limit; what a client says of itself changes nothing.
func TestLimitsBehindAProxyAreTheClients(t *testing.T) {
	t.Parallel()
	for _, trusted := range []bool{true, false} {
		n := setup(t, func(c *Config, _ *fakeBroker) {
			c.MaxPerAddress = 2
			if trusted {
				c.TrustedProxies = []string{"127.0.0.0/8"}
			}
		})
		in := 0
		for i := range 6 {
			header := bearer(n.token("mona", time.Hour))
			header.Set("X-Forwarded-For", fmt.Sprintf("203.0.113.%d, 198.51.100.%d", i, i/3))
			conn, resp, err := websocket.DefaultDialer.Dial(n.url, header)
			if err == nil {
				t.Cleanup(func() { conn.Close() })
				in++
				continue
			}
			if resp.StatusCode != http.StatusTooManyRequests {
				t.Fatalf("status %d", resp.StatusCode)
			}
			resp.Body.Close()
		}
		if want := map[bool]int{true: 4, false: 2}[trusted]; in != want {
			t.Errorf("trusted %t: %d let in, want %d", trusted, in, want)
		}
	}
}

func TestTheProxyProtocolSaysWhereClientsAre(t *testing.T) {
	eachLink(t, testTheProxyProtocolSaysWhereClientsAre)
}

func testTheProxyProtocolSaysWhereClientsAre(t *testing.T, link change) {
	n := setup(t, link, func(c *Config, _ *fakeBroker) {
		c.MaxPerAddress, c.TrustedProxies, c.ProxyProtocol = 2, []string{"127.0.0.1"}, true
	})
	header := func(version byte, from string) []byte {
		b, err := proxyproto.HeaderProxyFromAddrs(version, (&pretended{from: from}).RemoteAddr(),
			(&pretended{from: "127.0.0.1:80"}).RemoteAddr()).Format()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	request := "GET /v1/socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer " + n.token("mona", time.Hour) + "\r\n\r\n"
	behind := func(head []byte, pieces int) *rawConn {
		c := dialRaw(t, n.Addr().String())
		for size := max(1, len(head)/pieces); len(head) > 0; head = head[min(size, len(head)):] {
			c.send(head[:min(size, len(head))])
		}
		if n.certificate != nil {
			c = rawOver(t, tls.Client(c.halfConn, trusting.TLSClientConfig))
		}
		return c
	}
	status := func(head []byte, pieces int) int {
		c := behind(head, pieces)
		c.send([]byte(request))
		resp, err := http.ReadResponse(c.r, nil)
		if err != nil {
			return http.StatusBadRequest // TLS is not begun
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for i, c := range []struct {
		head   []byte
		pieces int
		want   int
	}{
		{header(1, "198.51.100.1:4711"), 1, http.StatusSwitchingProtocols},
		{header(2, "198.51.100.1:4712"), 40, http.StatusSwitchingProtocols},
		{header(2, "198.51.100.1:4713"), 1, http.StatusTooManyRequests},
		{header(1, "198.51.100.2:4713"), 1, http.StatusSwitchingProtocols},
		{[]byte("PROXY UNKNOWN\r\n"), 1, http.StatusSwitchingProtocols}, // the proxy's own
		{[]byte("PROXY UNKNOWN\r\n"), 1, http.StatusSwitchingProtocols}, // counts for nobody
		{[]byte("PROXY UNKNOWN\r\n"), 1, http.StatusSwitchingProtocols},
		{[]byte("PROXY TCP4 nonsense\r\n"), 1, http.StatusBadRequest},
		{nil, 1, http.StatusBadRequest}, // whoever is trusted must say it
	} {
		if got := status(c.head, c.pieces); got != c.want {
			t.Errorf("%d: %q: status %d, want %d", i, c.head, got, c.want)
		}
	}
	if n.metrics.proxy.Get() != 2 {
		t.Errorf("%d broken headers are counted", n.metrics.proxy.Get())
	}
	// It works on a socket like any other.
	c := behind(header(2, "198.51.100.9:1"), 1)
	c.send([]byte(request))
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v %v", resp, err)
	}
	resp.Body.Close()
	if f, err := c.frame(); err != nil || !strings.Contains(string(f.payload), `"welcome"`) {
		t.Fatalf("the first frame: %+v, %v", f, err)
	}
	c.send(clientFrameBytes(finBit|opPing, "late"))
	if f, err := c.frame(); err != nil || f.op != opPong || string(f.payload) != "late" {
		t.Fatalf("after a ping: %+v, %v", f, err)
	}
}

func TestAProxyHeaderOfAStrangerIsNotTaken(t *testing.T) {
	t.Parallel()
	n := setup(t, func(c *Config, _ *fakeBroker) { c.TrustedProxies, c.ProxyProtocol = []string{"192.0.2.1"}, true })
	c := dialRaw(t, n.Addr().String())
	c.send([]byte("PROXY TCP4 198.51.100.1 127.0.0.1 1 2\r\nGET /v1/socket HTTP/1.1\r\nHost: a\r\n\r\n"))
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("status %d", resp.StatusCode)
	}
	n.connect("mona") // and without one they come in
}
