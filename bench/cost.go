package bench

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// cost is what a measurement used: CPU time by process in microseconds, and requests to Kafka by role and kind. Times
// follow the machine's load; requests hardly do, so they are the figure to compare over days.
type cost struct {
	cpu      map[string]float64
	requests map[string]map[string]float64
}

// used is the cost since the start of each process.
func (s *spine) used(ctx context.Context) (cost, error) {
	c := cost{cpu: map[string]float64{}, requests: map[string]map[string]float64{}}
	cpu, err := s.cpu()
	if err != nil {
		return c, err
	}
	for name, d := range cpu {
		c.cpu[name] = float64(d.Microseconds())
	}
	for _, p := range s.roles {
		if c.requests[p.name], err = p.kafkaRequests(ctx); err != nil {
			return c, err
		}
	}
	return c, nil
}

// cpu is the CPU time of each process since its start, that of brokers by what it was for.
func (s *spine) cpu() (map[string]time.Duration, error) {
	pids := map[string]int{cpuLoad: os.Getpid()}
	for _, p := range s.roles {
		pids[p.name] = p.cmd.Process.Pid
	}
	used := map[string]time.Duration{}
	for name, pid := range pids {
		d, err := cpuOf(pid)
		if err != nil {
			return nil, err
		}
		used[name] = d
	}
	for _, b := range s.brokers {
		if err := addBroker(used, b.PID()); err != nil {
			return nil, err
		}
	}
	return used, nil
}

func (c cost) since(before cost) cost {
	for name := range c.cpu {
		c.cpu[name] -= before.cpu[name]
	}
	for name, kinds := range c.requests {
		for kind := range kinds {
			kinds[kind] -= before.requests[name][kind]
		}
	}
	return c
}

// each is the cost of one of n deliveries.
func (c cost) each(n int) cost {
	for name := range c.cpu {
		c.cpu[name] /= float64(max(n, 1))
	}
	for _, kinds := range c.requests {
		for kind := range kinds {
			kinds[kind] /= float64(max(n, 1))
		}
	}
	return c
}

// medianCosts are the medians over runs, number by number.
func medianCosts(all []cost) (cpu map[string]float64, requests map[string]map[string]float64) {
	cpu, requests = map[string]float64{}, map[string]map[string]float64{}
	for name := range all[0].cpu {
		cpu[name] = medianOf(all, func(c cost) float64 { return c.cpu[name] })
	}
	for role, kinds := range all[0].requests {
		requests[role] = map[string]float64{}
		for kind := range kinds {
			requests[role][kind] = medianOf(all, func(c cost) float64 { return c.requests[role][kind] })
		}
	}
	return cpu, requests
}

func medianOf(all []cost, of func(cost) float64) float64 {
	values := make([]float64, 0, len(all))
	for _, c := range all {
		values = append(values, of(c))
	}
	return median(values)
}

// kafkaRequests are the requests that the role's clients have made, by kind.
func (p *process) kafkaRequests(ctx context.Context) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	metrics, err := p.metrics(ctx)
	if err != nil {
		return nil, err
	}
	kinds := map[string]float64{}
	for name, value := range metrics {
		if rest, ok := strings.CutPrefix(name, `whisper_kafka_requests_by_kind_total{kind="`); ok {
			kinds[strings.TrimSuffix(rest, `"}`)] = value
		}
	}
	if len(kinds) == 0 {
		return nil, fmt.Errorf("metrics of %s: it counts no requests to Kafka", p.name)
	}
	return kinds, nil
}
