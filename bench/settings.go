package bench

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/klivvr/whisper/integration/cluster/kafka"
)

// Settings are those that every benchmark has.
type Settings struct {
	// Kafka to measure on; empty starts Apache Kafka from its jars.
	Kafka []string
	// JVM are further flags of brokers that are started, after BrokerJVM.
	JVM        []string
	Partitions int32
	// Runs, of which the medians are reported.
	Runs int
	// WarmUp is how long the load may go on before anything is measured, until the broker has settled; 0 leaves it out.
	WarmUp time.Duration
	// Profiles, where set, is a folder that gets CPU profiles of the roles; it is made where there is none.
	Profiles string
	// Out takes progress.
	Out io.Writer
}

// BrokerJVM are the flags of a benchmark's brokers. The number of compiler and collector threads is fixed, since what a thread
// used can't be read once it has ended.
//
// The optimising compiler stays, as in a broker of people's own. With -XX:TieredStopAtLevel=1 a broker settles after 20,000 records
// of the warm-up instead of 100,000 (22 s of the compiler's CPU), but then spends some 580 µs a record instead of 370 (each has
// four hops in the mean, 28 November 2026): that would make Kafka's part of every figure half as large again.
var BrokerJVM = []string{
	"-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:-UseDynamicNumberOfCompilerThreads", "-XX:-UseDynamicNumberOfGCThreads",
}

// Validate names every problem of the settings.
func (s Settings) Validate() error {
	errs := []error{atLeast(1, "partitions", s.Partitions), atLeast(1, "runs", s.Runs), atLeast(0, "warm-up", s.WarmUp)}
	if len(s.JVM) > 0 && len(s.Kafka) > 0 {
		errs = append(errs, errors.New("jvm: the flags of a broker that is started, not of one that is given"))
	}
	return errors.Join(errs...)
}

// atLeast is what is wrong with a setting, nil if it is at least so much.
func atLeast[N int | int32 | time.Duration](least N, name string, got N) error {
	if got >= least {
		return nil
	}
	return fmt.Errorf("%s: at least %v, not %v", name, least, got)
}

func (s Settings) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.Out, format+"\n", args...)
}

// prepare makes the folder of profiles, before anything is started that would run for nothing.
func (s Settings) prepare() error {
	if s.Profiles == "" {
		return nil
	}
	if err := os.MkdirAll(s.Profiles, 0o750); err != nil {
		return fmt.Errorf("profiles: %w", err)
	}
	return nil
}

// broker is how a benchmark's broker runs.
func (s Settings) broker() kafka.Config {
	return kafka.Config{JVM: append(slices.Clone(BrokerJVM), s.JVM...)}
}
