package fcm

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/klivvr/whisper/consumers/push/fcm/simulator"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
)

const simulatorVar = "WHISPER_TEST_FCM_SIMULATOR"

// TestMain is also the simulator's process, for the benchmark: its CPU must not count.
func TestMain(m *testing.M) {
	if dir := os.Getenv(simulatorVar); dir != "" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		s, err := simulator.Start(ctx, simulator.Config{CAFile: filepath.Join(dir, "ca.pem"), CredentialsFile: filepath.Join(dir, "account.json")})
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

// BenchmarkPush reports pushes a CPU-second of this process, beside those of net/http alone with the same bodies, in turns.
//
//	go test -run '^$' -bench Push -benchtime 1x ./consumers/push/fcm
func BenchmarkPush(b *testing.B) {
	dir := b.TempDir()
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), simulatorVar+"="+dir)
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
	p, err := New(Config{
		CredentialsFile: filepath.Join(dir, "account.json"), BaseURL: strings.TrimSpace(url), RootCAFile: filepath.Join(dir, "ca.pem"),
		PerMinute: 100_000_000, Metrics: metrics.NewSet(),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	plain := &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{RootCAs: p.cfg.roots, MinVersion: tls.VersionTLS12}}
	defer plain.CloseIdleConnections()
	contestants := []struct {
		name string
		push func(context.Context, uint64) error
	}{
		{"net/http alone", raw(p, &http.Client{Transport: plain})},
		{"provider", func(ctx context.Context, n uint64) error {
			if r := p.Send(ctx, benchPush(n)); !r.Sent() {
				return fmt.Errorf("refused: %d %s", r.Status, r.Reason)
			}
			return nil
		}},
	}
	const pushes, inFlight, rounds = 10_000, 100, 5
	for b.Loop() {
		var rates [2][]float64
		var ratios []float64
		for range rounds {
			for i, c := range contestants {
				rate, err := perCPUSecond(b.Context(), pushes, inFlight, c.push)
				if err != nil {
					b.Fatalf("%s: %v", c.name, err)
				}
				rates[i] = append(rates[i], rate)
			}
			ratios = append(ratios, rates[1][len(rates[1])-1]/rates[0][len(rates[0])-1])
		}
		for i, c := range contestants {
			slices.Sort(rates[i])
			b.Logf("%-16s %6.0f pushes/CPU-s", c.name, rates[i][rounds/2])
		}
		slices.Sort(ratios)
		b.ReportMetric(rates[1][rounds/2], "pushes/CPU-s")
		b.ReportMetric(ratios[rounds/2], "of-raw")
	}
}

func perCPUSecond(ctx context.Context, pushes, inFlight int, push func(context.Context, uint64) error) (float64, error) {
	if err := push(ctx, 0); err != nil { // it warms the connection
		return 0, err
	}
	var next atomic.Int64
	var workers sync.WaitGroup
	errs := make([]error, inFlight)
	cpu := cpuTime()
	for w := range inFlight {
		workers.Go(func() {
			for {
				n := next.Add(1) - 1
				if n >= int64(pushes) || errs[w] != nil {
					return
				}
				errs[w] = push(ctx, uint64(n))
			}
		})
	}
	workers.Wait()
	return float64(pushes) / (cpuTime() - cpu).Seconds(), errors.Join(errs...)
}

func benchPush(n uint64) *whisperv1.Push {
	return &whisperv1.Push{
		DeliveryId: binary.BigEndian.AppendUint64(make([]byte, 8, 16), n), NotificationId: fmt.Sprintf("bench-%d", n), UserId: "u", Attempt: 1,
		Lane: whisperv1.Lane_LANE_HIGH, Token: fmt.Sprintf("dQw4w9WgXcQ:APA91b%0134x", n), Category: "transactions.card",
		ExpiresAtMs: time.Now().Add(time.Hour).UnixMilli(),
		Content:     &whisperv1.Content{Title: "Card payment", Body: "120.50 EGP at Café Riche, card ending in 4417", Url: "klivvr://cards/4417"},
	}
}

// raw sends bodies of the same size with the same headers, and does nothing else.
func raw(p *Provider, client *http.Client) func(context.Context, uint64) error {
	body, bodyErr := p.cfg.Format.Body(benchPush(0), time.Now())
	return func(ctx context.Context, _ uint64) error {
		token, err := p.tokens.Get(ctx)
		if err = errors.Join(err, bodyErr); err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.send.String(), bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header = http.Header{"Authorization": {"Bearer " + token.Value}, "Content-Type": {"application/json; charset=utf-8"}}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("refused: %d", resp.StatusCode)
		}
		return nil
	}
}

// cpuTime is what this process has used, user and system.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkTurn is what an attempt pays for its turn where the rate holds nobody up.
func BenchmarkTurn(b *testing.B) {
	p, err := New(Config{CredentialsJSON: accountText, PerMinute: 100_000_000, Metrics: metrics.NewSet()})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		p.line.turn(b.Context(), domain.High)
	}
}

// BenchmarkBody is what a message costs.
func BenchmarkBody(b *testing.B) {
	p := benchPush(1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := (Format{}).Body(p, noon); err != nil {
			b.Fatal(err)
		}
	}
}
