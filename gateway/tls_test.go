package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// writePair puts a self-signed certificate of that name and its key into files, and trusts it.
func writePair(t *testing.T, certFile, keyFile, name string, trust *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	trust.AddCert(cert)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCertificatesAreReloaded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	trust := x509.NewCertPool()
	writePair(t, certFile, keyFile, "first", trust)
	n := setup(t, func(c *Config, _ *fakeBroker) { c.TLSCert, c.TLSKey = certFile, keyFile })
	// connect says whose certificate it was shown.
	connect := func() (*client, string) {
		t.Helper()
		dialer := websocket.Dialer{TLSClientConfig: &tls.Config{RootCAs: trust}}
		conn, _, err := dialer.Dial(n.url, bearer(n.token("mona", time.Hour)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetReadDeadline(time.Now().Add(3 * time.Minute))
		c := &client{Conn: conn, t: t}
		if f := c.frame(); f["type"] != "welcome" {
			t.Fatalf("got %v", f)
		}
		return c, conn.NetConn().(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	first, name := connect()
	if name != "first" {
		t.Errorf("the certificate is %q", name)
	}
	writePair(t, certFile, keyFile, "second", trust)
	n.clock.advance(certificateLook)
	second, name := connect()
	if name != "second" {
		t.Errorf("after the files changed the certificate is %q", name)
	}
	n.broker.put(0, route(n, "mona", "a"))
	first.wantNotification("a")
	second.wantNotification("a")
	first.ack("a")
	n.wantKinds("a", "delivery_sent", "delivery_delivered")

	// Files in the middle of a change, or gone, cost nothing.
	for _, broken := range []func() error{
		func() error { return os.WriteFile(keyFile, []byte("half a k"), 0o600) },
		func() error { return os.Remove(keyFile) },
	} {
		if err := broken(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			n.clock.advance(certificateLook)
			if _, name = connect(); name != "second" {
				t.Errorf("the certificate is %q", name)
			}
		}
	}
	if got := n.certificate.failed.Get(); got != 2 {
		t.Errorf("%d failures told, want each once", got)
	}
	writePair(t, certFile, keyFile, "third", trust)
	n.clock.advance(certificateLook)
	if _, name = connect(); name != "third" {
		t.Errorf("in the end the certificate is %q", name)
	}
	if got := n.certificate.reloaded.Get(); got != 2 {
		t.Errorf("%d reloads, want 2", got)
	}
	// Who does not speak TLS is not served.
	raw := dialRaw(t, n.Addr().String())
	raw.send([]byte("GET /v1/socket HTTP/1.1\r\nHost: x\r\n\r\n"))
	if got := raw.toEnd(); !strings.Contains(string(got), "400") {
		t.Errorf("plain HTTP got %q", got)
	}
}

func TestTLSSettings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ cert, key, want string }{
		{"tls.crt", "", "tls-cert: a certificate needs its key"},
		{"", "tls.key", "tls-cert: a certificate needs its key"},
		{"/nowhere/tls.crt", "/nowhere/tls.key", "tls-cert: open /nowhere/tls.crt"},
	} {
		cfg := config()
		cfg.TLSCert, cfg.TLSKey = c.cert, c.key
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

func TestOldCipherSuitesAreNotOffered(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	trust := x509.NewCertPool()
	writePair(t, certFile, keyFile, "first", trust)
	n := setup(t, func(c *Config, _ *fakeBroker) { c.TLSCert, c.TLSKey = certFile, keyFile })
	for suite, ok := range map[uint16]bool{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: true,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA:    false,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA:    false,
	} {
		dialer := tls.Dialer{Config: &tls.Config{RootCAs: trust, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}}}
		conn, err := dialer.DialContext(t.Context(), "tcp", n.Addr().String())
		if (err == nil) != ok {
			t.Errorf("%s: %v", tls.CipherSuiteName(suite), err)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
}
