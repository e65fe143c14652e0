package main

import (
	"os"
	"testing"

	"github.com/klivvr/whisper/embedded"
)

func TestMain(m *testing.M) {
	embedded.RunIfPostgresHost() // this binary is also the host of an embedded Postgres
	runIfProgram()
	// The secret of `whisper dev` stays out of the home of who runs the tests.
	config, err := os.MkdirTemp("", "whisper-config-")
	if err == nil {
		err = os.Setenv("XDG_CONFIG_HOME", config)
	}
	if err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(config)
	os.Exit(code)
}
