package gateway

import (
	"flag"
	"os"
	"testing"
)

// unpolled makes setup's gateways read with a goroutine a connection.
var unpolled bool

// TestMain runs everything on both ways of reading sockets; benchmarks only on the first.
func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if code == 0 && flag.Lookup("test.bench").Value.String() == "" && flag.Lookup("test.fuzz").Value.String() == "" {
		unpolled = true
		code = m.Run()
	}
	os.Exit(code)
}
