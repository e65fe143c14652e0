// Package stdlog keeps notes that libraries write while they are initialised off the terminal: that this machine's
// kernel has no pressure files is nobody's error, and came before every command's own output.
//
// It must import nothing but packages that package log stands on. Packages are initialised in the order of their
// paths as soon as what they import is, so this one comes right after log and before any library that logs. It owns
// where the standard logger writes, and nothing else.
package stdlog

import (
	"bytes"
	"log"
	"os"
)

func init() { log.SetOutput(filter{}) }

type filter struct{}

// Write drops the note; everything else goes where it always did.
func (filter) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("INFO: metrics: disable exposing PSI metrics")) {
		return len(line), nil
	}
	return os.Stderr.Write(line)
}
