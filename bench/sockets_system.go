package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/klivvr/whisper/consumers"
)

// A broadcast of the whole system reaches a gateway differently from those of [sockets.broadcast]: each record is for
// few users, since dispatch hands out those who are connected in small slices, and records come as dispatch makes
// them, not all at once.

// SocketsHeld is a gateway's memory under broadcasts that nobody acknowledges, in bytes.
type SocketsHeld struct {
	Broadcasts int   `json:"broadcasts"`
	RestRSS    int64 `json:"rest_rss_bytes"` // with all connections, before
	PeakRSS    int64 `json:"peak_rss_bytes"`
	RSS        int64 `json:"rss_bytes"` // when all is written
	RestLive   int64 `json:"rest_live_bytes"`
	Live       int64 `json:"live_bytes"` // of the heap, after a collection
	// PerDelivery is what of the heap a delivery keeps.
	PerDelivery float64 `json:"live_bytes_per_delivery"`
}

// heldBroadcasts is how many nobody acknowledges.
const heldBroadcasts = 8

// held measures memory. It comes first: a process keeps some of what it had once.
func (s *sockets) held(ctx context.Context) error {
	client, _, err := s.client(s.addr, "none")
	if err != nil {
		return err
	}
	defer client.end()
	if err := sleep(ctx, time.Second); err != nil { // presence is published
		return err
	}
	pid := s.gateway.cmd.Process.Pid
	h := SocketsHeld{Broadcasts: heldBroadcasts}
	if h.RestRSS, err = rssOf(pid); err != nil {
		return err
	}
	if h.RestLive, err = s.live(ctx); err != nil {
		return err
	}
	if err := forgetPeak(pid); err != nil {
		return err
	}
	w := s.slices("", "", 0)
	w.frames, w.window = heldBroadcasts*s.cfg.Users, heldBroadcasts*s.cfg.Users
	r, err := s.run(ctx, client, w)
	if err != nil {
		return fmt.Errorf("hold: %w", err)
	}
	if r.Lost != 0 {
		return fmt.Errorf("hold: %d deliveries are lost", r.Lost)
	}
	if h.PeakRSS, err = peakOf(pid); err != nil {
		return err
	}
	if h.RSS, err = rssOf(pid); err != nil {
		return err
	}
	if h.Live, err = s.live(ctx); err != nil {
		return err
	}
	h.PerDelivery = float64(h.Live-h.RestLive) / float64(w.frames)
	s.report.Held = h
	s.say("%d broadcasts that nobody acknowledges: %d MB at rest, peak %d MB, %d MB after, %d MB live, %.0f B a delivery",
		h.Broadcasts, h.RestRSS>>20, h.PeakRSS>>20, h.RSS>>20, h.Live>>20, h.PerDelivery)
	return nil
}

// pacedRate is about what a dispatch process on a core hands out.
const pacedRate = 20_000

// system measures broadcasts in the records and at the speeds of the whole system.
func (s *sockets) system(ctx context.Context) error {
	for _, ack := range []string{"one", "auto"} {
		name := map[string]string{"one": "acknowledged", "auto": "ack=auto"}[ack]
		client, _, err := s.client(s.addr, ack)
		if err != nil {
			return err
		}
		backlog := s.slices("system's broadcast, all at once, "+name, "backlog-"+ack, 0)
		backlog.window = backlog.frames
		err = s.each(ctx, client, s.slices("system's broadcast, "+name, "system-"+ack, 0),
			s.slices(fmt.Sprintf("system's broadcast, %d/s, %s", pacedRate, name), "paced-"+ack, pacedRate), backlog)
		client.end()
		if err != nil {
			return err
		}
	}
	return nil
}

// slices puts broadcasts, one after the other, in records of a slice each.
func (s *sockets) slices(name, file string, perSecond int) way {
	return way{
		name: name, file: file, frames: max(1, s.cfg.Frames/s.cfg.Users) * s.cfg.Users, window: s.cfg.Users, rest: s.cfg.Users / 2,
		perSecond: perSecond, put: func() func(int) error {
			put, next, broadcast := 0, 0, 0
			return func(n int) error {
				for now := time.Now(); put < n; next++ {
					if next == len(s.routes.slices) {
						next = 0
						broadcast++
					}
					s.routes.slice(broadcast, s.routes.slices[next], now)
					put += len(s.routes.slices[next])
				}
				return s.routes.err()
			}
		},
	}
}

// facts is how many records whisper.events has had.
func (s *sockets) facts(ctx context.Context) (n int64, err error) {
	ends, err := kadm.NewClient(s.routes.client).ListEndOffsets(ctx, consumers.TopicEvents)
	if err != nil {
		return 0, fmt.Errorf("count the facts: %w", err)
	}
	ends.Each(func(o kadm.ListedOffset) {
		n += o.Offset
		err = errors.Join(err, o.Err)
	})
	return n, err
}

// live is the gateway's heap after a collection.
func (s *sockets) live(ctx context.Context) (int64, error) {
	page, err := s.gateway.get(ctx, "/debug/pprof/heap?gc=1&debug=1")
	if err != nil {
		return 0, err
	}
	_, after, _ := bytes.Cut(page, []byte("# HeapAlloc = "))
	number, _, _ := bytes.Cut(after, []byte("\n"))
	return strconv.ParseInt(string(number), 10, 64)
}

// forgetPeak has peakOf begin anew.
func forgetPeak(pid int) error {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		return fmt.Errorf("forget the peak of process %d: %w", pid, err)
	}
	return nil
}

// peakOf is the most memory that a process had resident, in bytes.
func peakOf(pid int) (int64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read the peak of process %d: %w", pid, err)
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("read the peak of process %d: unknown format", pid)
}
