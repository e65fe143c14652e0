// Crowd is the clients of the tests of sockets, in a process of its own: thousands of them, without the race
// detector of the tests. It is told what to do by one JSON object, its first line of input, and ends with its input.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/klivvr/whisper/bench"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "crowd:", err)
		os.Exit(1)
	}
}

func run() error {
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read what to do: %w", err)
	}
	var cfg bench.CrowdConfig
	if err := json.Unmarshal(line, &cfg); err != nil {
		return fmt.Errorf("read what to do: %w", err)
	}
	return bench.RunCrowd(context.Background(), cfg, in, os.Stdout)
}
