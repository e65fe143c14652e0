package apns

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/klivvr/whisper/domain/whisperv1"
)

// BenchConfig is one measurement of pushes a client CPU-second. The server
// must be another process, or its CPU is counted too.
type BenchConfig struct {
	// Provider points at a simulator.
	Provider Config
	// Pushes of one run (default 20,000), InFlight at once (default 200), and Rounds (default 5). Each
	// round runs every contestant once, so that they see the same machine.
	Pushes, InFlight, Rounds int
}

// BenchResult is one contestant's median round.
type BenchResult struct {
	Name         string
	PerCPUSecond float64
	PerSecond    float64
	P50, P99     time.Duration
	// Ratio of PerCPUSecond to the first contestant's, the median of the rounds' ratios.
	Ratio float64
}

// Bench measures the provider against two floors that do nothing but the request: net/http as it
// comes, with one warm connection, and the provider's own client and connections without apns2,
// payload, gates and classification.
func Bench(ctx context.Context, cfg BenchConfig) ([]BenchResult, error) {
	if cfg.Pushes == 0 {
		cfg.Pushes = 20_000
	}
	if cfg.InFlight == 0 {
		cfg.InFlight = 200
	}
	if cfg.Rounds == 0 {
		cfg.Rounds = 5
	}
	p, err := New(cfg.Provider)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	b := &bench{cfg: cfg, p: p}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	plain := &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{RootCAs: p.cfg.roots, MinVersion: tls.VersionTLS12}}
	defer plain.CloseIdleConnections()
	runs := []struct {
		name string
		push func(context.Context, uint64) error
	}{
		{"net/http alone", b.raw(&http.Client{Transport: plain})},
		{"our connections, bare requests", b.raw(p.http)},
		{"provider", b.provider},
	}
	rounds := make([][]BenchResult, len(runs))
	for range cfg.Rounds {
		for i, r := range runs {
			got, err := b.run(ctx, r.push)
			if err != nil {
				return nil, fmt.Errorf("bench %s: %w", r.name, err)
			}
			got.Name = r.name
			rounds[i] = append(rounds[i], got)
		}
	}
	return medians(rounds), nil
}

func medians(rounds [][]BenchResult) []BenchResult {
	out := make([]BenchResult, len(rounds))
	for i, rs := range rounds {
		var ratios []float64
		for n, r := range rs {
			ratios = append(ratios, r.PerCPUSecond/rounds[0][n].PerCPUSecond)
		}
		slices.Sort(ratios)
		slices.SortFunc(rs, func(a, b BenchResult) int { return int(a.PerCPUSecond - b.PerCPUSecond) })
		out[i] = rs[len(rs)/2]
		out[i].Ratio = ratios[len(ratios)/2]
	}
	return out
}

type bench struct {
	cfg BenchConfig
	p   *Provider
}

// run makes the pushes, after one that warms the connection.
func (b *bench) run(ctx context.Context, push func(context.Context, uint64) error) (BenchResult, error) {
	if err := push(ctx, 0); err != nil {
		return BenchResult{}, err
	}
	var next atomic.Int64
	var workers sync.WaitGroup
	took := make([]time.Duration, b.cfg.Pushes)
	errs := make([]error, b.cfg.InFlight)
	cpu, start := cpuTime(), time.Now()
	for w := range b.cfg.InFlight {
		workers.Go(func() {
			for {
				n := next.Add(1) - 1
				if n >= int64(b.cfg.Pushes) {
					return
				}
				began := time.Now()
				if errs[w] = push(ctx, uint64(n)); errs[w] != nil {
					return
				}
				took[n] = time.Since(began)
			}
		})
	}
	workers.Wait()
	cpu, wall := cpuTime()-cpu, time.Since(start)
	if err := errors.Join(errs...); err != nil {
		return BenchResult{}, err
	}
	slices.Sort(took)
	return BenchResult{
		PerCPUSecond: float64(b.cfg.Pushes) / cpu.Seconds(), PerSecond: float64(b.cfg.Pushes) / wall.Seconds(),
		P50: took[len(took)/2], P99: took[len(took)*99/100],
	}, nil
}

func benchPush(n uint64) *whisperv1.Push {
	id := binary.BigEndian.AppendUint64(make([]byte, 8, 16), n)
	return &whisperv1.Push{
		DeliveryId: id, NotificationId: fmt.Sprintf("bench-%d", n), UserId: "u", Attempt: 1, Lane: whisperv1.Lane_LANE_HIGH,
		Token: fmt.Sprintf("%064x", n), App: "com.klivvr.app", Category: "transactions.card",
		ExpiresAtMs: time.Now().Add(time.Hour).UnixMilli(),
		Content:     &whisperv1.Content{Title: "Card payment", Body: "120.50 EGP at Café Riche, card ending in 4417", Url: "klivvr://cards/4417"},
	}
}

func (b *bench) provider(ctx context.Context, n uint64) error {
	if r := b.p.Send(ctx, benchPush(n)); !r.Sent() {
		return fmt.Errorf("refused: %d %s", r.Status, r.Reason)
	}
	return nil
}

// raw sends the same body with the same headers; what differs from push to push differs here too,
// since HPACK's table is a good part of the cost.
func (b *bench) raw(client *http.Client) func(context.Context, uint64) error {
	sample := benchPush(0)
	body, err := encodePayload(sample, "default")
	return func(ctx context.Context, n uint64) error {
		if err != nil {
			return err
		}
		cred, err := b.p.authorize()
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("%s/3/device/%064x", cred.client.Host, n), bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header = http.Header{
			"Authorization": {"bearer " + cred.bearer.token}, "Apns-Topic": {sample.GetApp()}, "Apns-Push-Type": {"alert"},
			"Apns-Id": {apnsID(sample.GetDeliveryId(), int32(n))}, "Apns-Priority": {"10"}, "Apns-Expiration": {"1999999999"},
			"Apns-Collapse-Id": {fmt.Sprintf("bench-%d", n)}, "Content-Type": {"application/json; charset=utf-8"},
		}
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
