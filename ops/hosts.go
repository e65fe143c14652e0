package ops

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// guarded refuses what a browser was tricked into asking: a page can point a name of its own at this machine (DNS
// rebinding) and then read what operators see, or post from another site. Such a name has dots. So addresses, names
// without dots (localhost, a service's within its namespace), a cluster's own and the configured ones are let pass, which
// is what Prometheus and people use. Probes ask /livez and /readyz under any name: those tell nothing and change nothing.
func guarded(h http.Handler, names []string) http.Handler {
	sameSite := http.NewCrossOriginProtection().Handler(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/livez" && r.URL.Path != "/readyz" && !expected(r.Host, names) {
			http.Error(w, "this host name is not expected: ask by address, or name it with --ops-hosts", http.StatusMisdirectedRequest)
			return
		}
		sameSite.ServeHTTP(w, r)
	})
}

func expected(host string, names []string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if _, err := netip.ParseAddr(host); err == nil || !strings.Contains(host, ".") {
		return true
	}
	return strings.HasSuffix(host, ".svc") || strings.HasSuffix(host, ".cluster.local") || strings.HasSuffix(host, ".localhost") ||
		slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, host) })
}
