package bench

import (
	"context"
	"fmt"
	"time"
)

// floors measures what no server could do with less, in a process that holds as many connections.
func (s *sockets) floors(ctx context.Context) error {
	f, err := startHelper("sockets-floor")
	if err != nil {
		return err
	}
	defer f.end()
	hello, err := f.reply()
	if err != nil {
		return err
	}
	pid := f.cmd.Process.Pid
	before, cpu, err := usage(pid)
	if err != nil {
		return err
	}
	client, _, err := s.client(hello.Addr, "none")
	if err != nil {
		return err
	}
	defer client.end()
	if err := sleep(ctx, 500*time.Millisecond); err != nil {
		return err
	}
	after, connected, err := usage(pid)
	if err != nil {
		return err
	}
	s.report.ConnectFloorCPU = micros(connected-cpu) / float64(s.cfg.Users)
	s.report.RSSFloor = float64(after-before) / float64(s.cfg.Users)
	var one, eight []float64
	for range s.cfg.Runs {
		for _, gather := range []int{1, 8} {
			rate, err := s.floorWrites(ctx, f, client, gather)
			if err != nil {
				return err
			}
			if gather == 1 {
				one = append(one, rate)
			} else {
				eight = append(eight, rate)
			}
		}
	}
	s.report.FloorOne, s.report.FloorEight = median(one), median(eight)
	s.say("floor: %.0f frames a CPU-second, one a write; %.0f with eight", s.report.FloorOne, s.report.FloorEight)
	return nil
}

func (s *sockets) floorWrites(ctx context.Context, f, client *helper, gather int) (perCPUSecond float64, err error) {
	began, err := client.ask(helperRequest{Do: "count"})
	if err != nil {
		return 0, err
	}
	before, err := cpuOf(f.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	sent, err := f.ask(helperRequest{Do: "write", Frames: s.cfg.Frames, Gather: gather})
	if err != nil {
		return 0, err
	}
	if _, err := arrived(ctx, client, began.Frames+sent.Frames); err != nil {
		return 0, err
	}
	after, err := cpuOf(f.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	return float64(sent.Frames) / (after - before).Seconds(), nil
}

// acknowledged measures connecting, resting, and unicast with an acknowledgement each.
func (s *sockets) acknowledged(ctx context.Context) error {
	pid := s.gateway.cmd.Process.Pid
	memory, _, err := usage(pid) // as it was started: what connections leave behind once is charged to them
	if err != nil {
		return err
	}
	if err := s.warm(ctx); err != nil {
		return err
	}
	empty, err := s.rest(ctx, min(s.cfg.Idle/2, 20*time.Second))
	if err != nil {
		return err
	}
	s.report.IdleCPUEmpty = empty
	_, cpu, err := usage(pid)
	if err != nil {
		return err
	}
	profiled := s.profile(ctx, "connect", 2)
	client, took, err := s.client(s.addr, "one")
	if err != nil {
		return err
	}
	defer client.end()
	if err := sleep(ctx, time.Second); err != nil { // presence is published
		return err
	}
	_, connected, err := usage(pid)
	if err != nil {
		return err
	}
	profiled()
	s.report.ConnectCPU = micros(connected-cpu) / float64(s.cfg.Users)
	s.report.ConnectsPerSecond = float64(s.cfg.Users) / took.Seconds()
	s.say("connects: %.0f µs of CPU each", s.report.ConnectCPU)
	if err := sleep(ctx, s.cfg.Idle/2); err != nil {
		return err
	}
	if s.report.IdleCPU, err = s.rest(ctx, s.cfg.Idle/2); err != nil {
		return err
	}
	now, _, err := usage(pid)
	if err != nil {
		return err
	}
	s.report.RSS = float64(now-memory) / float64(s.cfg.Users)
	count, err := client.ask(helperRequest{Do: "count"})
	if err != nil {
		return err
	}
	s.report.Pings = count.Pings
	s.say("at rest: %.0f B of memory a connection, %.2f%% of a core, %d pings, %d lost",
		s.report.RSS, s.report.IdleCPU, count.Pings, count.Closed)
	return s.each(ctx, client, s.unicast("unicast, acknowledged", "unicast"), s.broadcast("broadcast, acknowledged", "broadcast", 1))
}

// automatic measures deliveries that count when the socket takes them.
func (s *sockets) automatic(ctx context.Context) error {
	client, _, err := s.client(s.addr, "auto")
	if err != nil {
		return err
	}
	defer client.end()
	return s.each(ctx, client, s.unicast("unicast, ack=auto", "unicast-auto"),
		s.broadcast("broadcast, ack=auto", "broadcast-auto", 1), s.broadcast("broadcast queued, ack=auto", "queued-auto", 8))
}

func (s *sockets) each(ctx context.Context, client *helper, ways ...way) error {
	for _, w := range ways {
		if err := s.deliver(ctx, client, w); err != nil {
			return err
		}
	}
	return nil
}

func (s *sockets) warm(ctx context.Context) error {
	all := s.cfg.Users
	s.cfg.Users = min(all, 500)
	defer func() { s.cfg.Users = all }()
	client, _, err := s.client(s.addr, "one")
	if err != nil {
		return err
	}
	client.end()
	return sleep(ctx, 2*time.Second)
}

// rest is the gateway's CPU over a time, in percent of a core.
func (s *sockets) rest(ctx context.Context, d time.Duration) (float64, error) {
	pid := s.gateway.cmd.Process.Pid
	before, err := cpuOf(pid)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := sleep(ctx, d); err != nil {
		return 0, err
	}
	after, err := cpuOf(pid)
	return 100 * (after - before).Seconds() / time.Since(began).Seconds(), err
}

// A way of delivering: put puts frames into the node's topic until it has put n in all.
type way struct {
	name, file string
	frames     int
	// At most window frames are under way; more are put when no more than rest of them are.
	window, rest int
	perSecond    int // deliveries at most; 0: as they come
	put          func() func(n int) error
}

// unicast puts a frame for each user in turn: enough that the gateway never waits, too little for it to be
// slow.
func (s *sockets) unicast(name, file string) way {
	return way{name: name, file: file, frames: s.cfg.Frames, window: 20_000, rest: 10_000, put: func() func(int) error {
		put := 0
		return func(n int) error {
			for now := time.Now(); put < n; put++ {
				s.routes.unicast(put, now)
			}
			return s.routes.err()
		}
	}}
}

// broadcast puts notifications for all users, several together; when all have them, the next ones.
func (s *sockets) broadcast(name, file string, together int) way {
	users := s.cfg.Users
	window := together * users
	return way{name: name, file: file, frames: max(1, s.cfg.Frames/window) * window, window: window, put: func() func(int) error {
		put := 0
		return func(n int) error {
			for now := time.Now(); put < n; put += users {
				s.routes.broadcast(put/users, now)
			}
			return s.routes.err()
		}
	}}
}

// deliver measures one way of delivering, Runs times.
func (s *sockets) deliver(ctx context.Context, client *helper, w way) error {
	var perCPU, perSecond, gathered, facts []float64
	rate := SocketsRate{Name: w.name}
	pid := s.gateway.cmd.Process.Pid
	if err := forgetPeak(pid); err != nil {
		return err
	}
	for run := range s.cfg.Runs + 1 { // the first warms up
		profiled := func() {}
		if run == 1 {
			profiled = s.profile(ctx, w.file, 3)
		}
		r, err := s.run(ctx, client, w)
		profiled()
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		rate.Lost += r.Lost
		if run > 0 {
			perCPU, perSecond = append(perCPU, r.PerCPUSecond), append(perSecond, r.PerSecond)
			gathered, facts = append(gathered, r.FramesAWrite), append(facts, r.Facts)
		}
	}
	rate.PerCPUSecond, rate.PerSecond, rate.FramesAWrite = median(perCPU), median(perSecond), median(gathered)
	rate.Facts = median(facts)
	rate.RatioToFloor = rate.PerCPUSecond / s.report.FloorOne
	var err error
	if rate.PeakRSS, err = peakOf(pid); err != nil {
		return err
	}
	if rate.Live, err = s.live(ctx); err != nil {
		return err
	}
	s.report.Deliveries = append(s.report.Deliveries, rate)
	s.say("%s: %.0f deliveries a CPU-second, %.0f a second, %.1f frames a write, %.2f facts each, peak %d MB, %d MB live after",
		w.name, rate.PerCPUSecond, rate.PerSecond, rate.FramesAWrite, rate.Facts, rate.PeakRSS>>20, rate.Live>>20)
	return nil
}

func (s *sockets) run(ctx context.Context, client *helper, w way) (r SocketsRate, err error) {
	s.routes.serial++
	put := w.put()
	start, err := client.ask(helperRequest{Do: "count"})
	if err != nil {
		return r, err
	}
	writes, err := s.counter(ctx, "whisper_gateway_writes_total")
	if err != nil {
		return r, err
	}
	facts, err := s.facts(ctx)
	if err != nil {
		return r, err
	}
	before, err := cpuOf(s.gateway.cmd.Process.Pid)
	if err != nil {
		return r, err
	}
	began := time.Now()
	end := start
	for under := 0; under < w.frames; {
		under = min(w.frames, int(end.Frames-start.Frames)+w.window)
		if w.perSecond > 0 {
			under = min(under, max(1, int(time.Since(began).Seconds()*float64(w.perSecond))))
			if err := sleep(ctx, paceStep); err != nil {
				return r, err
			}
		}
		if err := put(under); err != nil {
			return r, err
		}
		wait := under
		if under < w.frames {
			wait -= w.rest
		}
		if end, err = arrived(ctx, client, start.Frames+int64(wait)); err != nil {
			return r, err
		}
	}
	took := time.Since(began)
	if err := sleep(ctx, receiptsWait); err != nil {
		return r, err
	}
	after, err := cpuOf(s.gateway.cmd.Process.Pid)
	if err != nil {
		return r, err
	}
	written, err := s.counter(ctx, "whisper_gateway_writes_total")
	if err != nil {
		return r, err
	}
	told, err := s.facts(ctx)
	if err != nil {
		return r, err
	}
	got := end.Frames - start.Frames
	r.Facts = float64(told-facts) / float64(max(1, got))
	r.PerCPUSecond = float64(got) / (after - before).Seconds()
	r.PerSecond = float64(got) / took.Seconds()
	r.FramesAWrite = float64(got) / max(1, written-writes)
	r.Lost = int64(w.frames) - got
	return r, nil
}

// receiptsWait is longer than a sending may wait for its acknowledgement.
const receiptsWait = 1500 * time.Millisecond

// paceStep is how often a paced way puts.
const paceStep = 2 * time.Millisecond

// arrived waits until the client has so many frames, or gets no more.
func arrived(ctx context.Context, client *helper, want int64) (helperReply, error) {
	last, since := int64(-1), time.Now()
	for {
		count, err := client.ask(helperRequest{Do: "count"})
		if err != nil || count.Frames >= want {
			return count, err
		}
		if count.Frames != last {
			last, since = count.Frames, time.Now()
		}
		if time.Since(since) > 15*time.Second {
			return count, fmt.Errorf("%d frames are missing, %d connections were closed", want-count.Frames, count.Closed)
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return count, err
		}
	}
}

func usage(pid int) (rss int64, cpu time.Duration, err error) {
	if rss, err = rssOf(pid); err != nil {
		return 0, 0, err
	}
	cpu, err = cpuOf(pid)
	return rss, cpu, err
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// profile takes a CPU profile of the gateway; the returned function waits for it.
func (s *sockets) profile(ctx context.Context, name string, seconds int) (wait func()) {
	return s.cfg.profile(ctx, seconds, map[string]*process{name: s.gateway})
}

// counter reads one of the gateway's metrics.
func (s *sockets) counter(ctx context.Context, name string) (float64, error) {
	metrics, err := s.gateway.metrics(ctx)
	if err != nil {
		return 0, err
	}
	value, ok := metrics[name]
	if !ok {
		return 0, fmt.Errorf("the gateway has no metric %s", name)
	}
	return value, nil
}
