package projections

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
	"github.com/klivvr/whisper/projections/query"
)

func TestFactsBecomeRows(t *testing.T) {
	t.Parallel()
	db, l := database(t), startLog(t)
	s := tell("pay-8812", "mona", now, 7)
	l.put(record(s.accepted()), record(s.deferred(5*time.Millisecond, "away")), record(s.sent(10*time.Millisecond, 1, "socket")),
		record(s.delivered(20*time.Millisecond, 1)), record(s.read(time.Second)))
	r := start(t, config(l, db))
	caughtUp(t, l, db)
	if err := r.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	if lag, err := r.Lag(t.Context()); err != nil || lag != 0 {
		t.Errorf("lag %d, %v", lag, err)
	}

	reader, err := query.Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	ds, err := reader.Deliveries(t.Context(), query.Filter{
		NotificationID: "pay-8812", UserID: "mona", Status: "read",
		Since: now.Add(-time.Hour),
	})
	if err != nil || len(ds) != 1 {
		t.Fatalf("%d deliveries, %v", len(ds), err)
	}
	d := ds[0]
	for what, ok := range map[string]bool{
		"id":        d.DeliveryID == s.id().String(),
		"category":  d.Category == "transactions.card" && d.Lane == "normal",
		"attempts":  d.Attempts == 1 && d.Channel == "socket" && d.Reason == "",
		"accepted":  d.AcceptedAt.Equal(now),
		"sent":      d.SentAt.Equal(now.Add(10 * time.Millisecond)),
		"delivered": d.DeliveredAt.Equal(now.Add(20 * time.Millisecond)),
		"settled":   d.SettledAt.Equal(now.Add(20 * time.Millisecond)),
		"read":      d.ReadAt.Equal(now.Add(time.Second)),
	} {
		if !ok {
			t.Errorf("%s is wrong in %+v", what, d)
		}
	}
	timeline, err := reader.Timeline(t.Context(), s.id())
	if err != nil || len(timeline) != 5 {
		t.Fatalf("%d facts, %v", len(timeline), err)
	}
	if f := timeline[0]; f.Kind != "delivery_accepted" || f.Topic != "whisper.deliveries.normal" ||
		f.Cause != "whisper.requests.normal/0/7" || !strings.HasPrefix(f.Traceparent, "00-0af7") {
		t.Errorf("the first fact is %+v", f)
	}
	if got := string(timeline[1].Detail); got != `{"reason": "away"}` {
		t.Errorf("detail %s", got)
	}
	attempts, err := reader.Attempts(t.Context(), s.id())
	if err != nil || len(attempts) != 1 || attempts[0].Outcome != "delivered" || *attempts[0].LatencyMS != 1.5 ||
		attempts[0].Target != "gateway-1" {
		t.Errorf("attempts %+v, %v", attempts, err)
	}
	counts, err := reader.StatusCounts(t.Context())
	if err != nil || len(counts) != 1 || counts[0] != (query.StatusCount{Status: "read", Count: 1}) {
		t.Errorf("counts %v, %v", counts, err)
	}
	if _, err := reader.Health(t.Context(), 5*time.Minute); err != nil {
		t.Error(err)
	}
	if rows, err := reader.Conservation(t.Context()); err != nil || len(rows) != 0 {
		t.Errorf("conservation %v, %v", rows, err)
	}
	if got := queryTexts(t, db, "SELECT concat_ws(' ', notification_id, lane, category, kind, recipients, accepted, sent, read) FROM whisper.notifications"); got[0] != "pay-8812 normal transactions.card direct 1 0 0 1" {
		t.Errorf("notification %v", got)
	}
	if got := queryTexts(t, db, "SELECT concat_ws(' ', minute AT TIME ZONE 'UTC', channel, status, count, latency_p50_ms BETWEEN 985 AND 1478) FROM whisper.delivery_stats"); len(got) != 1 || got[0] != "2026-11-23 12:00:00 socket read 1 t" {
		t.Errorf("stats %v", got)
	}
}

// TestTheVersionOfATemplateIsTold, apart from its id, so that versions of one template can be counted together.
func TestTheVersionOfATemplateIsTold(t *testing.T) {
	t.Parallel()
	db, l := database(t), startLog(t)
	for i, name := range []string{"card-payment@3", "direct", ""} {
		ev := tell(fmt.Sprint("n", i), "mona", now, int64(i)).accepted()
		ev.GetDeliveryAccepted().Template, ev.GetDeliveryAccepted().TemplateVersion = name, 17
		l.put(record(ev))
	}
	start(t, config(l, db))
	caughtUp(t, l, db)
	got := queryTexts(t, db, "SELECT concat_ws(' ', notification_id, template, template_version) FROM whisper.notifications ORDER BY notification_id")
	if want := []string{"n0 card-payment 3", "n1 direct", "n2 "}; !slices.Equal(got, want) {
		t.Errorf("notifications %q, want %q", got, want)
	}
	got = queryTexts(t, db, "SELECT concat_ws(' ', detail->>'template', detail->>'template_version', detail->>'template_offset') FROM whisper.timeline ORDER BY delivery_id, 1")
	slices.Sort(got)
	if want := []string{"", "card-payment 3", "direct 17"}; !slices.Equal(got, want) {
		t.Errorf("timeline %q, want %q", got, want)
	}
}

func TestContentsAreNotStored(t *testing.T) {
	t.Parallel()
	db, l := database(t), startLog(t)
	l.put(record(tell("n", "mona", now, 1).accepted()))
	start(t, config(l, db))
	caughtUp(t, l, db)
	for _, row := range dump(t, db, "whisper") {
		if strings.Contains(row, "secret") {
			t.Errorf("contents in %s", row)
		}
	}
}

func TestConservationHoldsWithDuplicatesInAnyOrder(t *testing.T) {
	t.Parallel()
	first := tell("n", "mona", now, 1)
	later := tell("n", "mona", now.Add(3*time.Minute), 2)
	sameMS := tell("n", "mona", now, 3)
	facts := []*whisperv1.Event{
		first.accepted(), first.sent(time.Millisecond, 1, "apns"),
		later.accepted(), later.duplicate(first, 4*time.Minute),
		sameMS.accepted(), sameMS.duplicate(first, 2*time.Millisecond),
		later.duplicate(first, 5*time.Minute),
	}
	orders := map[string][][]int{ // batches of: 0 accepted, 1 sent, 2 ghost accepted, 3 dup, 4 same ms accepted, 5 its dup, 6 dup again
		"one batch":       {{0, 1, 2, 3, 4, 5, 6}},
		"in order":        {{0}, {1}, {2}, {3}, {4}, {5}, {6}},
		"duplicate first": {{3}, {5}, {2}, {4}, {0}, {6}, {1}},
		"backwards":       {{6}, {5}, {4}, {3}, {2}, {1}, {0}},
	}
	for name, batches := range orders {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, l := database(t), startLog(t)
			start(t, config(l, db))
			for _, b := range batches {
				for _, i := range b {
					l.put(record(facts[i]))
				}
				caughtUp(t, l, db)
			}
			if got := queryTexts(t, db, "SELECT concat_ws(' ', recipients, sent, suppressed, duplicates, accepted) FROM whisper.notifications"); len(got) != 1 || got[0] != "3 1 2 2 0" {
				t.Errorf("recipients, sent, suppressed, duplicates, accepted: %v", got)
			}
			if got := queryTexts(t, db, "SELECT delivery_id::text FROM whisper.deliveries"); len(got) != 1 || got[0] != first.id().String() {
				t.Errorf("deliveries %v, want only the first", got)
			}
			if got := queryTexts(t, db, "SELECT notification_id FROM whisper.conservation"); len(got) != 0 {
				t.Errorf("conservation %v", got)
			}
		})
	}
}

func TestALateReadFindsItsDelivery(t *testing.T) {
	t.Parallel()
	s := tell("n", "mona", now, 1)
	accepted, sent := s.accepted(), s.sent(time.Millisecond, 1, "socket")
	reads := map[string]*whisperv1.Event{
		"without a receipt": timelessly(s.read(time.Minute)),
		"with its receipt":  claimed(s.read(time.Minute)),
	}
	for name, batches := range map[string][][]int{
		"one batch": {{0, 1, 2}}, "afterwards": {{0, 1}, {2}}, "before": {{2}, {0, 1}},
		"between": {{0}, {2}, {1}},
	} {
		for how, read := range reads {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				db, l := database(t), startLog(t)
				start(t, config(l, db))
				for _, b := range batches {
					for _, i := range b {
						switch i {
						case 0:
							l.put(record(accepted))
						case 1:
							l.put(record(sent))
						case 2:
							l.put(record(read))
						}
					}
					caughtUp(t, l, db)
				}
				if got := queryTexts(t, db, "SELECT status::text || ' ' || (read_at = '2026-11-23 12:01:00Z') FROM whisper.deliveries"); len(got) != 1 || got[0] != "read true" {
					t.Errorf("deliveries %v", got)
				}
				if got := queryTexts(t, db, "SELECT count(*)::text FROM whisper.timeline WHERE delivery_id = '"+s.id().String()+"'"); got[0] != "3" {
					t.Errorf("%s facts in the timeline", got[0])
				}
				if got := queryTexts(t, db, "SELECT notification_id FROM whisper.early_facts"); len(got) != 0 {
					t.Errorf("early facts stay: %v", got)
				}
			})
		}
	}
}

func TestTwoProjectorsChangeNothingTwice(t *testing.T) {
	t.Parallel()
	db, l := database(t), startLog(t)
	one := start(t, config(l, db))
	eventually(t, "the first is ready", func() bool { return one.Ready() == nil })
	const n = 2000
	put := func(from int) {
		for i := from; i < from+n/2; i++ {
			s := tell(fmt.Sprintf("n-%d", i), fmt.Sprintf("user-%d", i%97), now, int64(i))
			l.put(record(s.accepted()), record(s.sent(time.Millisecond, 1, domain.ChannelSocket)), record(s.delivered(2*time.Millisecond, 1)))
		}
	}
	put(0)
	two := start(t, config(l, db))
	put(n / 2)
	eventually(t, "the second is ready", func() bool { return two.Ready() == nil })
	one.stop()
	caughtUp(t, l, db)
	for sql, want := range map[string]string{
		"SELECT count(*)::text FROM whisper.deliveries WHERE status = 'delivered'": fmt.Sprint(n),
		"SELECT count(*)::text FROM whisper.timeline":                              fmt.Sprint(3 * n),
		"SELECT count(*)::text FROM whisper.attempts WHERE outcome = 'delivered'":  fmt.Sprint(n),
		"SELECT count(*)::text FROM whisper.conservation":                          "0",
		"SELECT sum(delivered)::text FROM whisper.notifications":                   fmt.Sprint(n),
	} {
		if got := queryTexts(t, db, sql); got[0] != want {
			t.Errorf("%s: %s, want %s", sql, got[0], want)
		}
	}
}
