package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// RecoveryConfig says what to measure. A Kafka that is given is not killed.
type RecoveryConfig struct {
	Settings
	// Cases to measure: those whose names have one of these texts in them; all where it is empty.
	Cases []string
	// Users that are connected while it runs.
	Users int
	// Rate of requests a second while a process is killed.
	Rate int
	// SessionTimeout of the roles; 0 is their own default.
	SessionTimeout time.Duration
}

// Validate names every problem of the settings.
func (c RecoveryConfig) Validate() error {
	errs := []error{
		c.Settings.Validate(), atLeast(1, "users", c.Users), atLeast(1, "rate", c.Rate), atLeast(0, "session-timeout", c.SessionTimeout),
	}
	if len(c.cases(true))+len(c.cases(false)) == 0 {
		errs = append(errs, fmt.Errorf("cases: none has %s in its name", strings.Join(c.Cases, " or ")))
	}
	return errors.Join(errs...)
}

// cases are those to be measured: of brokers, or of Whisper's processes.
func (c RecoveryConfig) cases(brokers bool) (chosen []recoveryCase) {
	for _, of := range recoveryCases {
		asked := len(c.Cases) == 0 || slices.ContainsFunc(c.Cases, func(text string) bool { return strings.Contains(of.name, text) })
		if of.broker == brokers && asked && (!brokers || len(c.Kafka) == 0) {
			chosen = append(chosen, of)
		}
	}
	return chosen
}

// RecoveryReport is what was measured.
type RecoveryReport struct {
	Users int    `json:"users"`
	Kafka string `json:"kafka"`
	Rate  int    `json:"per_second"`
	// WarmUps before the cases with one broker, and before those with three.
	WarmUps []WarmUp         `json:"warm_ups"`
	Cases   []RecoveredAfter `json:"cases"`
}

// RecoveredAfter is one case, medians of its runs, in milliseconds.
type RecoveredAfter struct {
	Case string `json:"case"`
	// LongestWait is that of the notification that waited longest, from when it was due until it arrived.
	LongestWait float64 `json:"longest_wait_ms"`
	// LongestGap is the longest time in which no notification at all arrived.
	LongestGap float64 `json:"longest_gap_ms"`
	// Late is how many notifications waited for more than a second, as a part of all.
	Late float64 `json:"late"`
	// Lost are notifications that did not arrive, in all runs.
	Lost int `json:"lost"`
}

// recoveryCase kills a process by SIGKILL in the middle of a measurement.
type recoveryCase struct {
	name     string
	role     string
	back     bool // the same process starts again at once
	instance bool // its processes have instance names
	pair     bool // another process shares the work
	broker   bool // a broker of three, and no process of Whisper's
}

var recoveryCases = []recoveryCase{
	{name: "nothing is killed", role: ""},
	{name: "dispatch, back at once, --instance", role: "dispatch", back: true, instance: true},
	{name: "dispatch, back at once", role: "dispatch", back: true},
	{name: "one of two dispatch, for good", role: "dispatch", pair: true},
	{name: "intake, back at once, --instance", role: "intake", back: true, instance: true},
	{name: "intake, back at once", role: "intake", back: true},
	{name: "one of two intake, for good", role: "intake", pair: true},
	{name: "gateway, back at once", role: "gateway", back: true},
	{name: "three brokers, nothing is killed", broker: true},
	{name: "one of three brokers, back at once", role: "broker", broker: true, back: true},
	{name: "one of three brokers, for good", role: "broker", broker: true},
}

// recoveryTime is how long each run sends; the kill comes after a quarter of it.
const recoveryTime = 24 * time.Second

// RunRecovery measures how long notifications wait when a process is killed.
func RunRecovery(ctx context.Context, cfg RecoveryConfig) (*RecoveryReport, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	report := &RecoveryReport{Users: cfg.Users, Rate: cfg.Rate}
	for _, brokers := range []bool{false, true} {
		if err := report.measure(ctx, cfg, brokers); err != nil {
			return nil, err
		}
	}
	return report, nil
}

// measure adds the cases that run on one broker, or on three.
func (r *RecoveryReport) measure(ctx context.Context, cfg RecoveryConfig, three bool) error {
	cases := cfg.cases(three)
	if len(cases) == 0 {
		return nil
	}
	s := &spine{Settings: cfg.Settings, connected: cfg.Users, three: three}
	if cfg.SessionTimeout > 0 {
		s.more = []string{"WHISPER_SESSION_TIMEOUT=" + cfg.SessionTimeout.String()}
	}
	defer s.close()
	if err := s.start(ctx); err != nil {
		return err
	}
	r.Kafka = s.kafkaName()
	warmed, err := s.warmUp(ctx, s.unicast(cfg.Rate))
	if err != nil {
		return err
	}
	r.WarmUps = append(r.WarmUps, warmed)
	for _, c := range cases {
		var waits, gaps, late []float64
		of := RecoveredAfter{Case: c.name}
		for run := range cfg.Runs {
			lat, err := s.recover(ctx, cfg.Rate, c)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			r := lat.recovered(time.Second)
			s.say("%s, run %d of %d: longest wait %.0f ms, longest gap %.0f ms, %.1f%% later than 1 s, %d lost", c.name, run+1, cfg.Runs, r.LongestWait, r.LongestGap, 100*r.Late, r.Lost)
			waits, gaps, late = append(waits, r.LongestWait), append(gaps, r.LongestGap), append(late, r.Late)
			of.Lost += r.Lost
		}
		of.LongestWait, of.LongestGap, of.Late = median(waits), median(gaps), median(late)
		r.Cases = append(r.Cases, of)
	}
	return nil
}

// recover measures one case. All processes of the case's role start anew before it, as it wants them, and after it.
func (s *spine) recover(ctx context.Context, rate int, c recoveryCase) (*latencies, error) {
	if c.role == "" {
		return s.measure(ctx, rate, recoveryTime, nil)
	}
	if c.broker {
		return s.recoverBroker(ctx, rate, c)
	}
	at := slices.IndexFunc(s.roles, func(p *process) bool { return p.name == c.role })
	plain := s.roles[at].args
	args := plain
	if c.instance {
		args = append(slices.Clone(plain), "--instance", "bench-0")
	}
	if c.instance || c.pair { // a process as it is serves the other cases
		s.roles[at].stop()
		if err := s.startAgain(ctx, at, args); err != nil {
			return nil, err
		}
	}
	if c.pair {
		second, err := startRole(ctx, s.env, c.role, plain...)
		if err != nil {
			return nil, err
		}
		defer second.stop()
	}
	failed := make(chan error, 1)
	go func() {
		select {
		case <-time.After(recoveryTime / 4):
		case <-ctx.Done():
		}
		s.roles[at].kill()
		if c.back {
			failed <- s.startAgain(ctx, at, args)
			return
		}
		failed <- nil
	}()
	lat, err := s.measure(ctx, rate, recoveryTime, nil)
	if err = errors.Join(err, <-failed); err != nil {
		return nil, err
	}
	if c.instance || c.pair {
		s.roles[at].stop()
		err = s.startAgain(ctx, at, plain)
	}
	return lat, err
}

// startAgain puts a new process in the place of one that has ended.
func (s *spine) startAgain(ctx context.Context, at int, args []string) error {
	p, err := startRole(ctx, s.env, s.roles[at].name, args...)
	if err != nil {
		return err
	}
	s.roles[at] = p
	return nil
}

// recovered says how long notifications waited; late is how long is too long.
func (l *latencies) recovered(late time.Duration) RecoveredAfter {
	now := time.Now()
	waits, lost := l.waits(0, now)
	r := RecoveredAfter{LongestGap: milliseconds(l.longestGap(now)), Lost: len(lost)}
	waits = append(waits, lost...)
	for _, wait := range waits {
		r.LongestWait = max(r.LongestWait, milliseconds(wait))
		if wait > late {
			r.Late++
		}
	}
	r.Late /= float64(max(len(waits), 1))
	return r
}

// Row is a case as a line of a table.
func (r RecoveredAfter) Row() []string {
	whole := func(ms float64) string { return strconv.FormatFloat(ms, 'f', 0, 64) }
	return []string{r.Case, whole(r.LongestWait), whole(r.LongestGap), strconv.FormatFloat(100*r.Late, 'f', 1, 64) + "%", strconv.Itoa(r.Lost)}
}
