package gateway

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"

	"github.com/VictoriaMetrics/metrics"
	"github.com/pires/go-proxyproto"
)

// proxies says where a connection really comes from. Only those that the settings trust are believed; what
// anybody else says of itself is passed over.
type proxies struct {
	trusted  []netip.Prefix
	protocol bool // trusted ones begin each connection with a header of the PROXY protocol, version 1 or 2
	broken   *metrics.Counter
}

// newProxies reads the networks: addresses or CIDRs.
func newProxies(networks []string, protocol bool) (*proxies, error) {
	p := &proxies{protocol: protocol, broken: &metrics.Counter{}}
	var errs []error
	for _, text := range networks {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			var single netip.Addr
			if single, err = netip.ParseAddr(text); err == nil {
				prefix = netip.PrefixFrom(single.Unmap().WithZone(""), single.Unmap().BitLen())
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("trusted-proxies: %q is neither an address nor a network like 10.0.0.0/8", text))
			continue
		}
		p.trusted = append(p.trusted, prefix.Masked())
	}
	if protocol && len(networks) == 0 {
		errs = append(errs, errors.New("proxy-protocol: any client could claim any address: give the proxies that may speak it (trusted-proxies)"))
	}
	return p, errors.Join(errs...)
}

func (p *proxies) trusts(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, prefix := range p.trusted {
		if prefix.Contains(a) {
			return true
		}
	}
	return false
}

// atAccept is what a connection counts for before anything of it is read: its peer. A proxy's own address counts
// for nobody.
func (p *proxies) atAccept(conn net.Conn) address {
	peer := hostOf(conn.RemoteAddr().String())
	if p.trusts(peer) {
		return address{}
	}
	return countedAs(peer)
}

// client is where a request comes from: the peer of its connection; if that is a trusted proxy, what its PROXY
// header said, and then the rightmost address of X-Forwarded-For that is not a trusted proxy's, since what is left
// of it anybody may have written. A trusted proxy that says nothing counts for nobody: all would share its address.
func (p *proxies) client(r *http.Request, conn net.Conn) address {
	at := hostOf(r.RemoteAddr)
	if source, ok := sourceOf(conn); ok {
		at = source
	}
	lines := r.Header.Values("X-Forwarded-For")
	for i := len(lines) - 1; i >= 0 && p.trusts(at); i-- {
		hops := strings.Split(lines[i], ",")
		for j := len(hops) - 1; j >= 0 && p.trusts(at); j-- {
			hop := hostOf(strings.TrimSpace(hops[j]))
			if !hop.IsValid() {
				return address{} // whoever wrote that, nobody vouches for what is left of it
			}
			at = hop
		}
	}
	if p.trusts(at) {
		return address{}
	}
	return countedAs(at)
}

// hostOf reads an address with or without a port, as both are used.
func hostOf(text string) netip.Addr {
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return ap.Addr()
	}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	if err != nil {
		return netip.Addr{} // not TCP
	}
	return a
}

// wrap has the connections of trusted proxies begin with a PROXY header.
func (p *proxies) wrap(l net.Listener) net.Listener {
	if l == nil || !p.protocol {
		return l
	}
	return &proxiedListener{l, p}
}

type proxiedListener struct {
	net.Listener
	p *proxies
}

func (l *proxiedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil || !l.p.trusts(hostOf(conn.RemoteAddr().String())) {
		return conn, err
	}
	// The header is read by the first who reads, under the deadline of the handshake: Accept must not wait.
	return &proxied{Conn: conn, p: l.p, buffered: bufio.NewReaderSize(conn, 256)}, nil
}

// proxied is a connection that begins with a PROXY header. One goroutine at a time reads it.
type proxied struct {
	net.Conn
	p        *proxies
	buffered *bufio.Reader
	once     sync.Once
	failed   error

	mu     sync.Mutex
	source netip.Addr // invalid: the header is not read, or names nobody
}

func (c *proxied) Read(b []byte) (int, error) {
	c.once.Do(c.readHeader)
	switch {
	case c.failed != nil:
		return 0, c.failed
	case c.buffered.Buffered() > 0:
		return c.buffered.Read(b)
	default:
		return c.Conn.Read(b)
	}
}

func (c *proxied) readHeader() {
	header, err := proxyproto.Read(c.buffered)
	if err != nil {
		c.p.broken.Inc()
		c.failed = fmt.Errorf("read the PROXY header: %w", err)
		return
	}
	if header.Command.IsLocal() {
		return // the proxy's own, to see whether we live
	}
	if source, _, ok := header.TCPAddrs(); ok {
		c.mu.Lock()
		c.source = source.AddrPort().Addr()
		c.mu.Unlock()
	}
}

// sourceOf is what the PROXY header of a connection said, if there was one.
func sourceOf(conn net.Conn) (netip.Addr, bool) {
	if secret, ok := conn.(*tls.Conn); ok {
		conn = secret.NetConn()
	}
	c, ok := conn.(*proxied)
	if !ok {
		return netip.Addr{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.source, c.source.IsValid()
}

// bare takes a connection out of what reads its PROXY header; left: the peer has sent more.
func bare(conn net.Conn) (_ net.Conn, left bool) {
	if c, ok := conn.(*proxied); ok {
		return c.Conn, c.buffered.Buffered() > 0
	}
	return conn, false
}
