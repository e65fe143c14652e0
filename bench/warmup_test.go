package bench

import (
	"strings"
	"testing"
)

func TestALoadHasSettledWhenItsCostStopsFallingAndTheCompilerRests(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		figures, compiler []float64
		want              bool
	}{
		"nothing yet":                  {nil, nil, false},
		"too few windows":              {[]float64{50, 50, 50}, []float64{0, 0, 0}, false},
		"it falls":                     {[]float64{400, 200, 120, 80}, []float64{0, 0, 0, 0}, false},
		"it fell, and falls no more":   {[]float64{400, 80, 79, 81, 78}, []float64{0.9, 0.4, 0.05, 0.02, 0.02}, true},
		"by a tenth and no more":       {[]float64{400, 100, 98, 95, 91}, []float64{0, 0, 0, 0, 0}, true},
		"other work made it dearer":    {[]float64{400, 80, 120, 200, 110}, []float64{0.9, 0.1, 0, 0, 0}, true},
		"the compiler takes its share": {[]float64{300, 290, 295, 300, 305}, []float64{0.7, 0.7, 0.7, 0.6, 0.7}, false},
		"the compiler has just ended":  {[]float64{300, 100, 90, 90, 90}, []float64{0.7, 0.7, 0.7, 0.05, 0.05}, false},
		"nothing arrives":              {[]float64{0, 0, 0, 0, 0}, []float64{0, 0, 0, 0, 0}, false},
		"a given broker, by the chain": {[]float64{45, 1.6, 1.6, 1.7, 1.6}, []float64{0, 0, 0, 0, 0}, true},
	} {
		s := settling{}
		for i := range c.figures {
			s.add(c.figures[i], c.compiler[i])
		}
		if s.settled() != c.want {
			t.Errorf("%s: settled is %v", name, !c.want)
		}
	}
}

func TestAWarmUpSaysHowItEnded(t *testing.T) {
	t.Parallel()
	of := WarmUp{Records: 40_000, Seconds: 80, Figure: "the broker's CPU a record, µs", First: 900, Last: 210, Compiler: 0.02}
	if got := of.String(); !strings.HasPrefix(got, "NOT settled after 40000 records, 80 s") || !strings.Contains(got, "compiler") {
		t.Error(got)
	}
	of.Settled, of.Figure = true, "the chain's p50, ms"
	if got := of.String(); !strings.HasPrefix(got, "settled") || strings.Contains(got, "compiler") {
		t.Error(got)
	}
	if got := (WarmUp{}).String(); got != "not warmed up" {
		t.Error(got)
	}
}

func TestThreadsOfABrokerAreToldApart(t *testing.T) {
	t.Parallel()
	for thread, want := range map[string]string{
		"C2 CompilerThre) S 1": cpuCompiler, "C1 CompilerThre) S 1": cpuCompiler, "GC Thread#0) S 1": cpuCollector,
		"G1 Conc#0) S 1": cpuCollector, "VM Thread) S 1": cpuCollector, "data-plane-kafk) S 1": cpuBroker, "java) S 1": cpuBroker,
	} {
		if got := brokerPart(thread); got != want {
			t.Errorf("%s works for %s", thread, got)
		}
	}
}
