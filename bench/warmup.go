package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// WarmUp is the load that goes before the first measurement. It goes by work, not by time: on until what a record costs the
// brokers has stopped falling and their compilers have nothing more to do. A young JVM needs a minute for that on
// two cores, more beside other work, and everything that is measured meanwhile is the compiler's.
type WarmUp struct {
	// Settled is false where it was left out or took too long. What was measured then is of a cold broker.
	Settled bool    `json:"settled"`
	Records int     `json:"records"`
	Seconds float64 `json:"seconds"`
	// Figure is what had to stop falling, First and Last are those of its first and its last window.
	Figure string  `json:"figure"`
	First  float64 `json:"first"`
	Last   float64 `json:"last"`
	// Compiler is how many cores the brokers' compilers had in the last window.
	Compiler float64 `json:"compiler_cores"`
}

// String is one line for a person.
func (w WarmUp) String() string {
	if w.Records == 0 {
		return "not warmed up"
	}
	how := "settled"
	if !w.Settled {
		how = "NOT settled"
	}
	line := fmt.Sprintf("%s after %d records, %.0f s: %s %.2f at first, %.2f at last", how, w.Records, w.Seconds, w.Figure, w.First, w.Last)
	if strings.Contains(w.Figure, "broker") {
		line += fmt.Sprintf("; the compiler had %.2f cores", w.Compiler)
	}
	return line
}

// The load of a window: the bare chain, then the benchmark's own.
const (
	warmUpRate   = 1_000
	warmUpWindow = 3 * time.Second
)

// settling decides when a load has warmed up, by windows of it.
type settling struct {
	figures  []float64 // what a record costs
	compiler []float64 // cores
}

const (
	settledWindows = 3    // must agree
	settledWithin  = 0.10 // the least of them may be so much below the least of all before
	compilerAtRest = 0.10 // of a core
)

func (s *settling) add(figure, compiler float64) {
	s.figures, s.compiler = append(s.figures, figure), append(s.compiler, compiler)
}

// settled: the figure has stopped falling, and the compiler was at rest in all of the last windows. The figure alone does
// not do: as long as the compiler has work it takes about the same share of each window. A figure of 0 is of a window in which
// nothing arrived, and tells nothing.
func (s *settling) settled() bool {
	n := len(s.figures) - settledWindows
	return n > 0 && slices.Min(s.figures) > 0 && slices.Min(s.figures[n:]) >= (1-settledWithin)*slices.Min(s.figures[:n]) &&
		slices.Max(s.compiler[n:]) <= compilerAtRest
}

// warmUp sends the chain's records and the benchmark's own load in turn, until they have settled or time is over. own
// answers how many records it sent.
func (s *spine) warmUp(ctx context.Context, own func(context.Context) (records int, err error)) (WarmUp, error) {
	w := WarmUp{Figure: "the broker's CPU a record, µs"}
	if len(s.brokers) == 0 {
		w.Figure = "the chain's p50, ms"
	}
	if s.WarmUp == 0 {
		return w, nil
	}
	s.say("warming up until the broker has settled, at most %s", s.WarmUp)
	var windows settling
	for begin := time.Now(); !w.Settled && time.Since(begin) < s.WarmUp; {
		figure, compiler, records, err := s.window(ctx, own)
		if err != nil {
			return w, fmt.Errorf("warm up: %w", err)
		}
		windows.add(figure, compiler)
		w.Records += records
		w.Seconds, w.Settled = time.Since(begin).Seconds(), windows.settled()
		w.First, w.Last, w.Compiler = windows.figures[0], figure, compiler
		s.say("  %3.0f s, %d records: %s %.2f; compiler %.2f cores", w.Seconds, w.Records, w.Figure, figure, compiler)
	}
	s.say("  %s", w)
	return w, nil
}

// window is one of the warm-up.
func (s *spine) window(ctx context.Context, own func(context.Context) (int, error)) (figure, compiler float64, records int, err error) {
	begin := time.Now()
	before, err := s.cpu()
	if err != nil {
		return 0, 0, 0, err
	}
	n := int(warmUpRate * warmUpWindow.Seconds())
	chain, err := runChain(ctx, s.client, s.Partitions, n, warmUpRate)
	if err != nil {
		return 0, 0, 0, err
	}
	if records, err = own(ctx); err != nil {
		return 0, 0, 0, err
	}
	records += n
	after, err := s.cpu()
	if err != nil {
		return 0, 0, 0, err
	}
	used := func(name string) time.Duration { return after[name] - before[name] }
	compiler = used(cpuCompiler).Seconds() / time.Since(begin).Seconds()
	if len(s.brokers) == 0 {
		return chain.P50, 0, records, nil
	}
	all := used(cpuBroker) + used(cpuCompiler) + used(cpuCollector)
	return micros(all) / float64(records), compiler, records, nil
}

// unicast is a load of requests to one user each.
func (s *spine) unicast(rate int) func(context.Context) (int, error) {
	return func(ctx context.Context) (int, error) {
		lat, err := s.measure(ctx, rate, warmUpWindow, nil)
		if err != nil {
			return 0, err
		}
		return lat.total(), nil
	}
}
