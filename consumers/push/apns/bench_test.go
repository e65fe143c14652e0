package apns

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klivvr/whisper/consumers/push/apns/simulator"
)

const simulatorVar = "WHISPER_TEST_APNS_SIMULATOR_CA"

// TestMain is also the simulator's process, for the benchmark.
func TestMain(m *testing.M) {
	if file := os.Getenv(simulatorVar); file != "" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		s, err := simulator.Start(ctx, simulator.Config{CAFile: file})
		if err != nil {
			fmt.Println(err)
			return
		}
		defer s.Close()
		fmt.Println(s.URL())
		<-ctx.Done()
		return
	}
	os.Exit(m.Run())
}

// BenchmarkPush reports pushes a CPU-second of this process; the simulator runs in another.
//
//	go test -run '^$' -bench Push -benchtime 1x ./consumers/push/apns
func BenchmarkPush(b *testing.B) {
	file := filepath.Join(b.TempDir(), "ca.pem")
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), simulatorVar+"="+file)
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // it may be gone, and Wait says how it went
		_ = cmd.Wait()
	})
	url, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	_, p8 := newKey(b)
	for b.Loop() {
		results, err := Bench(b.Context(), BenchConfig{Provider: Config{
			KeyPEM: p8, KeyID: "K", TeamID: "T", BaseURL: strings.TrimSpace(url), RootCAFile: file,
		}})
		if err != nil {
			b.Fatal(err)
		}
		for _, r := range results {
			b.Logf("%-32s %6.0f pushes/CPU-s (%.2f) %6.0f/s p50 %s p99 %s", r.Name, r.PerCPUSecond, r.Ratio, r.PerSecond, r.P50, r.P99)
		}
		b.ReportMetric(results[2].PerCPUSecond, "pushes/CPU-s")
	}
}
