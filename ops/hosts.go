package ops

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// guarded refuses requests that a web page tricked a browser into sending. A page can point its own host name at this
// machine (DNS rebinding) and then read what operators see, or post from another site. Such a name has dots. So addresses,
// names without dots (localhost, a service within its namespace), names of the cluster and configured names are allowed:
// Prometheus and people use those. /livez and /readyz, which reveal and change nothing, are answered under any name.
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
