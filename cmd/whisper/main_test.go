package main

import (
	"os"
	"testing"

	"github.com/klivvr/whisper/embedded"
)

func TestMain(m *testing.M) {
	embedded.RunIfPostgresHost() // this binary is also the host of an embedded Postgres
	runIfProgram()
	os.Exit(m.Run())
}
