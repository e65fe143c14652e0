// Command testserver is the stage of the SDK's tests: the conformance scenarios' gateways, and over HTTP
// what plays on them. It serves the folder given to it beside that, for tests in a browser. It prints
// its address, and ends when its standard input does.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/klivvr/whisper/gateway/conformance"
)

func main() {
	conformance.RunIfNode()
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "testserver:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	stage, err := conformance.New()
	if err != nil {
		return err
	}
	defer stage.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	play := stage.Handler()
	mux.Handle("/scenarios", play)
	mux.Handle("/worlds", play)
	mux.Handle("/worlds/", play)
	if len(args) > 0 {
		mux.Handle("/", http.FileServer(http.Dir(args[0])))
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }() // ends with the process
	fmt.Println(listener.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	return server.Close()
}
