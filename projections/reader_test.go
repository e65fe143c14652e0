package projections

import (
	"fmt"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
	"github.com/klivvr/whisper/projections/query"
)

func openReader(t testing.TB, db string) *query.Reader {
	t.Helper()
	r, err := query.Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// What /v1/health says of answers: which count as taken, which as failed, which as neither, and of what time.
func TestHealthCountsTheAnswersOfTheLastMinutes(t *testing.T) {
	t.Parallel()
	db := database(t)
	for outcome, n := range map[string]int{
		"sent": 3, "delivered": 5, "unreachable": 100, "expired": 1000, "retry": 7, "drop": 11,
		"prune": 13, "stop": 17, "unknown": 19,
	} {
		execSQL(t, db, fmt.Sprintf(`INSERT INTO whisper.answer_shards SELECT date_trunc('minute', now() - ago), 'apns', '%s', shard, %d
			FROM (VALUES (interval '0', 0), ('1 minute', 1), ('30 minutes', 0), ('-10 minutes', 0)) AS v(ago, shard)`, outcome, n))
	}
	h, err := openReader(t, db).Health(t.Context(), 5*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if h.OK != 2*(3+5) || h.Failed != 2*(7+11+13+17+19) {
		t.Errorf("%d were taken and %d failed, want 16 and 134", h.OK, h.Failed)
	}
	if h.Window <= 4*time.Minute-time.Second || h.Window > 5*time.Minute {
		t.Errorf("they were counted over %s", h.Window)
	}
	if want := 16 / h.Window.Seconds(); h.DeliveriesPerSecond < 0.999*want || h.DeliveriesPerSecond > 1.001*want {
		t.Errorf("%f deliveries a second, want %f", h.DeliveriesPerSecond, want)
	}
	if rate := h.ErrorRate(); rate != 134./150 {
		t.Errorf("the error rate is %f", rate)
	}
}

// Each sending is one answer, whether its acknowledgement came with it or later.
func TestAnswersAreCountedByTheMinute(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	one, two, three := tell("n-1", "mona", now, 1), tell("n-2", "mona", now, 2), tell("n-3", "mona", now, 3)
	together := two.delivered(70*time.Second, 1)
	together.GetDeliveryDelivered().SentAtUs = now.Add(50 * time.Second).UnixMicro()
	f.writeAll(one.accepted(), one.sent(time.Second, 1, domain.ChannelSocket))
	f.writeAll(one.delivered(70*time.Second, 1), together, three.sent(2*time.Second, 1, domain.ChannelAPNs),
		three.attemptFailed(61*time.Second, 2, whisperv1.FailureClass_FAILURE_CLASS_RETRY, "ServiceUnavailable"), one.read(80*time.Second))
	got := queryTexts(t, f.db, "SELECT concat_ws(' ', minute AT TIME ZONE 'UTC', channel, outcome, count) FROM whisper.answer_shards ORDER BY 1")
	want := []string{"2026-11-23 12:00:00 apns sent 1", "2026-11-23 12:00:00 socket sent 2", "2026-11-23 12:01:00 apns retry 1"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("answers are %q, want %q", got, want)
	}
}
