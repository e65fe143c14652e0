package bench

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestQuantilesCountFromWhenItWasDue(t *testing.T) {
	t.Parallel()
	l := newLatencies(102)
	begin := time.Now()
	for i := range 101 {
		l.send(i, begin)
		if i > 0 {
			l.arrive(i, begin.Add(time.Duration(i)*time.Millisecond))
			l.arrive(i, begin.Add(time.Hour)) // a second arrival does not count
		}
	}
	l.arrive(-1, begin)
	l.arrive(1000, begin)
	q := l.quantiles(0)
	if q.P50 != 51 || q.P99 != 100 || q.P999 != 100 || q.Lost != 1 || l.total() != 100 {
		t.Errorf("got %+v, %d arrived", q, l.total())
	}
	if q := l.quantiles(1); q.Lost != 0 {
		t.Errorf("the warm-up counts: %+v", q)
	}
	all := newLatencies(0)
	all.join(l)
	all.join(l)
	if q, n := all.quantiles(0), all.total(); q.P50 != 51 || q.Lost != 2 || n != 200 {
		t.Errorf("joined with itself: %+v, %d arrived", q, n)
	}
	if m := median([]float64{3, 1, 2}); m != 2 {
		t.Errorf("median %v", m)
	}
}

func TestPaceSendsEveryNumberInOrder(t *testing.T) {
	t.Parallel()
	var due []time.Time
	err := pace(t.Context(), 200, 10_000, func(i int, at time.Time) {
		if i != len(due) {
			t.Fatalf("number %d came as the %dth", i, len(due))
		}
		due = append(due, at)
	})
	if err != nil || len(due) != 200 {
		t.Fatalf("%d sent, %v", len(due), err)
	}
	if gap := due[199].Sub(due[0]); gap != 19_900*time.Microsecond {
		t.Errorf("the last is due %s after the first", gap)
	}
}

func TestSettingsAreToldTogether(t *testing.T) {
	t.Parallel()
	err := SpineConfig{Rates: []int{0}}.Validate()
	if err == nil {
		t.Fatal("nothing is wrong with nothing")
	}
	for _, want := range []string{"users", "partitions", "rates", "duration", "runs"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
}

func TestCPUTimeIsRead(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		if _, err := cpuOf(os.Getpid()); err == nil {
			t.Error("CPU time without /proc")
		}
		return
	}
	if _, err := cpuOf(os.Getpid()); err != nil {
		t.Error(err)
	}
	if _, err := cpuOf(-1); err == nil {
		t.Error("a process that does not exist has CPU time")
	}
}
