package h2

import (
	"crypto/tls"
	"net/http"
	"testing"
)

// Whoever gives a pool its TLS settings may use them for other connections, which speak something else than HTTP/2.
func TestAPoolLeavesItsTLSSettingsAlone(t *testing.T) {
	t.Parallel()
	var given *tls.Config
	p, _ := serve(t, func(c *Config) { given = c.TLS }, func(http.ResponseWriter, *http.Request) {})
	if _, err := ask(t.Context(), t, p, "/"); err != nil {
		t.Fatal(err)
	}
	if len(given.NextProtos) != 0 {
		t.Errorf("the settings offer %q now", given.NextProtos)
	}
}
