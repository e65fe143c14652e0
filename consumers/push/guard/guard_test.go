package guard

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/klivvr/whisper/consumers/push/gate"
	"github.com/klivvr/whisper/consumers/push/observe"
	"github.com/klivvr/whisper/domain/whisperv1"
)

type fixture struct {
	*Guard
	t    *testing.T
	at   time.Time
	logs bytes.Buffer
}

func setup(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, at: time.Unix(1_790_000_000, 0)}
	f.Guard = New(Config{
		Provider: "test", Scope: "topic", Key: "KEY1", Rest: 5 * time.Minute, BreakerRest: 30 * time.Second,
		Log: slog.New(slog.NewTextHandler(&f.logs, nil)), Watch: observe.New(metrics.NewSet(), "test", "k"),
		Now: func() time.Time { return f.at },
	})
	return f
}

func (f *fixture) enter(scope string) *gate.Passage {
	f.t.Helper()
	pass, refused := f.Enter(scope)
	if refused != nil {
		f.t.Fatalf("refused: %+v", refused)
	}
	return &pass
}

func (f *fixture) refused(scope, reason string, class whisperv1.FailureClass) {
	f.t.Helper()
	if _, refused := f.Enter(scope); refused == nil || refused.Reason != reason || refused.Class != class || refused.RetryAfter <= 0 {
		f.t.Fatalf("got %+v", refused)
	}
}

// trip opens the breaker and waits until it lets a probe pass.
func (f *fixture) trip() {
	f.t.Helper()
	for range gate.Streak {
		f.Failed(f.enter("a"), "no_answer")
	}
	f.refused("a", "breaker:no_answer", retry)
	f.at = f.at.Add(30 * time.Second)
}

func TestAStoppedCredentialIsToldOnce(t *testing.T) {
	t.Parallel()
	f := setup(t)
	first, second := f.enter("a"), f.enter("a")
	f.StopCredential(first, "BadKey")
	f.StopCredential(second, "BadKey")
	f.refused("b", "stopped:BadKey", stop)
	if f.Stopped() != "BadKey" || f.cfg.Watch.Stopped.Get() != 1 || strings.Count(f.logs.String(), "refuses the credential") != 1 {
		t.Errorf("told: %s", f.logs.String())
	}
	f.at = f.at.Add(5 * time.Minute)
	f.Answered(f.enter("a"))
	f.enter("b")
	if f.Stopped() != "" || f.cfg.Watch.Stopped.Get() != 0 || strings.Count(f.logs.String(), "takes the credential again") != 1 {
		t.Errorf("told: %s", f.logs.String())
	}
}

// The breaker's probe may be answered by a refusal of the credential or the scope. The provider works then, and no gate may
// wait for that probe for ever.
func TestAProbeThatIsRefusedIsAnswered(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.trip()
	f.StopCredential(f.enter("a"), "BadKey")
	if f.cfg.Watch.Breaker.Get() != 0 {
		t.Error("the breaker is still open")
	}
	f.at = f.at.Add(5 * time.Minute)
	f.Answered(f.enter("a"))

	f = setup(t)
	f.trip()
	f.StopScope(f.enter("a"), "a", "BadTopic")
	f.refused("a", "stopped:BadTopic", stop)
	f.Answered(f.enter("b"))
}

// A scope that is refused says nothing of a stopped credential, whose next probe is the next attempt.
func TestAProbeOfTheCredentialMayMeetARefusedScope(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.StopCredential(f.enter("a"), "BadKey")
	f.at = f.at.Add(5 * time.Minute)
	f.StopScope(f.enter("a"), "a", "BadTopic")
	if f.Stopped() != "BadKey" {
		t.Error("the credential counts as taken")
	}
	f.Answered(f.enter("b"))
	if f.Stopped() != "" {
		t.Error("the credential is still stopped")
	}
}

func TestASpikePrunesNothing(t *testing.T) {
	t.Parallel()
	f := setup(t)
	const prune = whisperv1.FailureClass_FAILURE_CLASS_PRUNE
	for i := range 20 {
		if class := f.Dead(f.enter("a"), prune, "Gone"); (class == prune) != (i < 9) {
			t.Fatalf("dead endpoint %d: %v", i, class)
		}
	}
	if strings.Count(f.logs.String(), "none is forgotten") != 1 || f.cfg.Watch.Suspects.Get() != 11 {
		t.Errorf("told: %s", f.logs.String())
	}
}

func TestWord(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]string{
		"BadTopic": "BadTopic", "": "malformed_reason", "two words": "malformed_reason", "é": "malformed_reason",
		strings.Repeat("x", 65): "malformed_reason",
	} {
		if got := Word(reason); got != want {
			t.Errorf("%q: %q", reason, got)
		}
	}
}

func TestStrangeAnswersAreToldOnceAMinute(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for range 100 {
		f.Unclassified(418, "TEAPOT")
	}
	f.at = f.at.Add(strangeRest)
	f.Unclassified(418, "TEAPOT")
	if told := strings.Count(f.logs.String(), "does not know"); told != 2 || f.cfg.Watch.Unclassified.Get() != 101 {
		t.Errorf("told %d times, counted %d", told, f.cfg.Watch.Unclassified.Get())
	}
}
