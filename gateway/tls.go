package gateway

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// certificateLook is how often the files of the certificate are read at most: by a handshake, so that an
// idle gateway does nothing, and whatever way they are replaced (a write, a rename, a swapped link).
const certificateLook = time.Second

// certificate is what the listener shows, renewed from disk. What can't be used is logged once and the
// last good one goes on.
type certificate struct {
	certFile, keyFile string
	now               func() time.Time
	log               *slog.Logger
	good              atomic.Pointer[tls.Certificate]
	reloaded, failed  *metrics.Counter

	mu      sync.Mutex
	looked  time.Time
	content []byte // of both files, when they were last read, good or not
}

// newCertificate loads the pair; nil without one.
func newCertificate(certFile, keyFile string, now func() time.Time) (*certificate, error) {
	switch {
	case certFile == "" && keyFile == "":
		return nil, nil
	case certFile == "" || keyFile == "":
		return nil, errors.New("tls-cert: a certificate needs its key: give tls-cert and tls-key together")
	}
	c := &certificate{certFile: certFile, keyFile: keyFile, now: now}
	c.attach(slog.New(slog.DiscardHandler), metrics.NewSet())
	if _, err := c.load(); err != nil {
		return nil, fmt.Errorf("tls-cert: %w", err)
	}
	c.looked = now()
	return c, nil
}

func (c *certificate) attach(log *slog.Logger, set *metrics.Set) {
	if c == nil {
		return
	}
	c.log = log
	c.reloaded = set.GetOrCreateCounter(`whisper_gateway_certificate_reloads_total{outcome="ok"}`)
	c.failed = set.GetOrCreateCounter(`whisper_gateway_certificate_reloads_total{outcome="failed"}`)
	set.GetOrCreateGauge(`whisper_gateway_certificate_expires_timestamp_seconds`, func() float64 {
		if pair := c.good.Load(); pair != nil {
			return float64(pair.Leaf.NotAfter.Unix())
		}
		return 0
	})
}

// load reads the files and takes the pair if it is a new one.
func (c *certificate) load() (changed bool, err error) {
	certPEM, err := os.ReadFile(c.certFile)
	if err != nil {
		return true, err
	}
	keyPEM, err := os.ReadFile(c.keyFile)
	if err != nil {
		return true, err
	}
	content := bytes.Join([][]byte{certPEM, keyPEM}, []byte{0})
	if bytes.Equal(content, c.content) {
		return false, nil
	}
	c.content = content
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return true, err
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return true, err
		}
	}
	c.good.Store(&pair)
	return true, nil
}

// get is called by every full handshake; one of them a second looks at the files.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.mu.TryLock() {
		if now := c.now(); now.Sub(c.looked) >= certificateLook {
			c.looked = now
			c.look()
		}
		c.mu.Unlock()
	}
	return c.good.Load(), nil
}

func (c *certificate) look() {
	missing := c.content == nil
	changed, err := c.load()
	switch {
	case err != nil:
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
			if missing {
				return // said already
			}
			c.content = nil
		}
		c.failed.Inc()
		c.log.Warn("certificate can't be used; the last good one goes on", "expires", c.good.Load().Leaf.NotAfter, "error", err)
	case changed:
		c.reloaded.Inc()
		c.log.Info("certificate is reloaded", "expires", c.good.Load().Leaf.NotAfter)
	}
}

// cipherSuites are those of TLS 1.2, without CBC and SHA-1, which Go still offers; TLS 1.3 has its own.
var cipherSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// wrap has a listener speak TLS; the nil certificate leaves it as it is.
func (c *certificate) wrap(l net.Listener) net.Listener {
	if c == nil || l == nil {
		return l
	}
	return tls.NewListener(l, &tls.Config{
		MinVersion:     tls.VersionTLS12,
		CipherSuites:   cipherSuites,
		NextProtos:     []string{"http/1.1"}, // a WebSocket's upgrade is not HTTP/2's
		GetCertificate: c.get,
	})
}
