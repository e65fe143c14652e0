package projections

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/whisperv1"
	"github.com/klivvr/whisper/projections/query"
)

// fillDays are the days of most tests, up to today.
const fillDays = 10

// fill makes rows as so many days of deliveries leave them: one recipient a notification, three of a hundred failed, some
// pending, and a broadcast. Postgres makes them itself, from numbers.
func fill(t testing.TB, db string, deliveries, days int) {
	t.Helper()
	st, err := openStore(db, "whisper", 2)
	if err != nil {
		t.Fatal(err)
	}
	defer st.close()
	today := int32(time.Now().Unix() / 86_400)
	for day := today - int32(days); day <= today; day++ {
		if err := st.ensureDays(t.Context(), []int32{day}); err != nil {
			t.Fatal(err)
		}
	}
	rows := fmt.Sprintf(`CREATE UNLOGGED TABLE facts AS
		SELECT i, 'n-' || i AS n, 'user-' || (i::bigint * 7919 %% (%[1]d / 10 + 10)) AS u, at, (at AT TIME ZONE 'UTC')::date AS day,
			(substr(whisper.first_delivery_id(at)::text, 1, 14) || substr(md5(i::text)::uuid::text, 15))::uuid AS id,
			(CASE WHEN i %% 100 < 3 THEN 'failed' WHEN i %% 1000 = 5 AND i > 0.9 * %[1]d OR i %% 100000 = 5 THEN 'deferred' WHEN i %% 2 = 0 THEN 'sent' ELSE 'delivered' END)::whisper.delivery_status AS status
		FROM (SELECT i, date_trunc('milliseconds', now() - (%[1]d - i) * (interval '%[2]d days' / %[1]d)) AS at FROM generate_series(1, %[1]d) AS i) AS g`, deliveries, days)
	for _, sql := range []string{
		rows,
		`INSERT INTO whisper.deliveries (delivery_id, day, notification_id, user_id, lane, category, status, channel, attempts, accepted_at, sent_at, settled_at, ended_at, noted_status, noted_at, template, expires_at, broadcast)
			SELECT id, day, n, u, 'normal', 'c' || i % 5, status, 'apns', 1, at, CASE WHEN status >= 'sent' THEN at + interval '1 s' END,
				CASE WHEN status >= 'cancelled' THEN at + interval '1 s' END, CASE WHEN status = 'failed' THEN at + interval '1 s' END,
				CASE WHEN status < 'sent' THEN status ELSE 'accepted' END, at, 't' || i % 20, at + interval '1 hour', false FROM facts`,
		`INSERT INTO whisper.attempts SELECT id, day, 1, 'iphone', 'apns', 'apple', 'sent', NULL, NULL, 1.5, at FROM facts`,
		`INSERT INTO whisper.timeline SELECT id, day, at, 'delivery_sent', '{}', 'whisper.events', 0, i, NULL, NULL FROM facts`,
		`INSERT INTO whisper.notification_requests SELECT day, 'r', 0, i, n, 'normal', 'c' || i % 5, 't' || i % 20, 'direct', at, 1, NULL FROM facts`,
		`INSERT INTO whisper.notification_shards (notification_id, day, partition, deferred, failed, sent, delivered)
			SELECT n, day, 0, (status = 'deferred')::int, (status = 'failed')::int, (status = 'sent')::int, (status = 'delivered')::int FROM facts`,
		`INSERT INTO whisper.delivery_stat_shards SELECT min(day), date_trunc('minute', at), 'normal', 'c' || i % 5, 'apns', status, 0, count(*), '{0,0,0,1}' FROM facts GROUP BY 2, 4, 6`,
		`INSERT INTO whisper.broadcast_shards (notification_id, partition, day, lane, category, template, segment, partitions, accepted_at, send_at_local, expires_at,
			request_topic, request_partition, request_offset, state, settled, audience, walked, matched, segment_errors, unwalked, progressed_at)
			SELECT 'b-' || b, p, current_date, 'low', 'c', 't', '', 96, now() - b * interval '1 minute', '', now(), 'r', 0, b, 'walked', true, 9, 9, 0, 0, 0, now()
			FROM generate_series(1, 50) AS b, generate_series(0, 95) AS p`,
		`DROP TABLE facts`,
	} {
		execSQL(t, db, "SET whisper.balances = 'kept'; "+sql) // as a projector says; its days are counted below
	}
	if err := st.mergeBalances(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := st.mergeStats(t.Context(), time.Now().Add(-mergeAfter)); err != nil { // which also counts templates
		t.Fatal(err)
	}
	if err := st.analyze(t.Context()); err != nil {
		t.Fatal(err)
	}
	execSQL(t, db, "SELECT brin_summarize_new_values(c.oid) FROM pg_class c JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'brin' AND c.relkind = 'i'")
	execSQL(t, db, "VACUUM ANALYZE")
}

// A question, and which days its plan may read: all where 0; and how long it may take on five million deliveries: as
// long as it wants where 0.
type question struct {
	sql  string
	args []any
	days int
	most time.Duration
}

const (
	mostOfListings = 50 * time.Millisecond
	mostOfSums     = time.Second
)

// ofSums are questions over many rows: sums, and what does not add up.
var ofSums = regexp.MustCompile(`whisper\.((delivery|template)_stats|conservation)`)

// questions are those of the page for analysts and those of the command line.
func questions(t testing.TB) []question {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "docs", "contract.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(page), "```sql\n")
	block, _, closed := strings.Cut(block, "```")
	if !found || !closed {
		t.Fatal("the page's questions were not found")
	}
	var all []question
	for statement := range strings.SplitSeq(regexp.MustCompile(`(?m)^--.*$`).ReplaceAllString(block, ""), ";") {
		if statement = strings.TrimSpace(statement); statement == "" {
			continue
		}
		q := question{sql: statement, most: mostOfListings}
		if ofSums.MatchString(statement) {
			q.most = mostOfSums
		}
		switch {
		case strings.Contains(statement, "current_date - 7"):
			q.days = 8
		case strings.Contains(statement, "day = '"):
			q.sql = regexp.MustCompile(`day = '[^']*'`).ReplaceAllString(statement, "day = current_date - 1")
			q.days = 1
		}
		all = append(all, q)
	}
	for _, f := range []query.Filter{
		{},
		{UserID: "user-7"},
		{NotificationID: "n-77"},
		{Status: "failed"},
		{Status: "suppressed"},
		{Status: "delivered"},
		{UserID: "user-7", NotificationID: "n-77"},
		{Since: time.Now().Add(-time.Hour)},
		{Status: "failed", Since: time.Now().Add(-time.Hour)},
	} {
		f.Limit = 20
		sql, args, err := f.SQL()
		if err != nil {
			t.Fatal(err)
		}
		q := question{sql: sql, args: args, most: mostOfListings}
		if !f.Since.IsZero() {
			q.days = 2
		}
		all = append(all, q)
	}
	return all
}

// plan is what EXPLAIN says of one node.
type plan struct {
	Type     string `json:"Node Type"`
	Relation string `json:"Relation Name"`
	Index    string `json:"Index Name"`
	Plans    []plan `json:"Plans"`
}

func (p plan) walk(visit func(plan)) {
	visit(p)
	for _, child := range p.Plans {
		child.walk(visit)
	}
}

var dayOfTable = regexp.MustCompile(`^(deliveries|attempts|timeline|notification_requests|notification_shards|delivery_stat_shards)_(\d{8})$`)

// Every question finds its rows by an index, and reads no day that it need not. Whether the planner takes the index
// depends on how much there is, so it is told that reading a whole table is dear; where there is no other way it
// does so all the same.
func TestQuestionsHaveIndexesAndPruneDays(t *testing.T) {
	t.Parallel()
	db := database(t)
	fill(t, db, 2000, fillDays)
	conn, err := pgx.Connect(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), "SET enable_seqscan = off"); err != nil {
		t.Fatal(err)
	}
	all := questions(t)
	if len(all) < 19 {
		t.Fatalf("only %d questions", len(all))
	}
	for _, q := range all {
		planned := q.plan(t, conn)
		days := map[string]bool{}
		planned.walk(func(p plan) {
			if index := p.definition(t, conn); index != "" && !q.leads(index) {
				t.Errorf("%s\nlooks in %s", q.sql, index)
			}
			part := dayOfTable.FindStringSubmatch(p.Relation)
			if part == nil {
				return
			}
			days[part[2]] = true
			if p.Type == "Seq Scan" {
				t.Errorf("%s\nreads all of %s", q.sql, p.Relation)
			}
		})
		if q.days > 0 && len(days) > q.days {
			t.Errorf("%s\nreads %d days, %d would do", q.sql, len(days), q.days)
		}
	}
}

// definition is that of the daily table's index that a node of the plan reads; empty where it reads none.
func (p plan) definition(t testing.TB, conn *pgx.Conn) (def string) {
	t.Helper()
	if p.Index == "" {
		return ""
	}
	const sql = "SELECT CASE WHEN indrelid::regclass::text ~ '_[0-9]{8}$' THEN pg_get_indexdef(indexrelid) ELSE '' END FROM pg_index WHERE indexrelid = to_regclass('whisper.' || quote_ident($1))"
	if err := conn.QueryRow(t.Context(), sql, p.Index).Scan(&def); err != nil {
		t.Fatalf("the index %q: %v", p.Index, err)
	}
	return def
}

// leads says whether an index begins with a column of which the question gives the value. Of questions that give none, any index will do.
func (q question) leads(index string) bool {
	gives := false
	for _, column := range []string{"delivery_id", "notification_id", "user_id", "noted_status"} {
		if !strings.Contains(q.sql, column+" = ") {
			continue
		}
		gives = true
		if strings.Contains(index, "("+column+",") || strings.Contains(index, "("+column+")") {
			return true
		}
	}
	return !gives
}

// TestOverdueReadsOnlyWhatIsPending: one scan of a small index a day. The planner chooses it by its
// statistics alone: no setting of the test favours it.
func TestOverdueReadsOnlyWhatIsPending(t *testing.T) {
	t.Parallel()
	db := database(t)
	fill(t, db, 20_000, fillDays)
	conn, err := pgx.Connect(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	scans := 0
	question{sql: "SELECT * FROM whisper.overdue"}.plan(t, conn).walk(func(p plan) {
		if part := dayOfTable.FindStringSubmatch(p.Relation); part == nil || part[1] != "deliveries" {
			return
		}
		scans++
		if key := p.definition(t, conn); !strings.Contains(key, "(expires_at) WHERE ((sent_at IS NULL) AND (ended_at IS NULL))") {
			t.Errorf("%s of %s by %s", p.Type, p.Relation, key)
		}
	})
	if scans != fillDays+1 {
		t.Errorf("%d scans of deliveries, want %d: one a day", scans, fillDays+1)
	}
}

// plan asks Postgres how it answers a question.
func (q question) plan(t testing.TB, conn *pgx.Conn) plan {
	t.Helper()
	var text string
	if err := conn.QueryRow(t.Context(), "EXPLAIN (FORMAT JSON) "+q.sql,
		append([]any{pgx.QueryExecModeExec}, q.args...)...).Scan(&text); err != nil {
		t.Fatalf("%s: %v", q.sql, err)
	}
	var plans []struct{ Plan plan }
	if err := json.Unmarshal([]byte(text), &plans); err != nil {
		t.Fatal(err)
	}
	return plans[0].Plan
}

// String says by which scans of which tables, days together, it finds its rows.
func (p plan) String() string {
	scans := map[string]int{}
	p.walk(func(p plan) {
		if p.Relation == "" {
			return
		}
		table := p.Relation
		if part := dayOfTable.FindStringSubmatch(table); part != nil {
			table = part[1]
		}
		scans[p.Type+" "+table]++
	})
	var all []string
	for scan, n := range scans {
		all = append(all, fmt.Sprintf("%d %s", n, scan))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// What the listings answer is what is there, the latest first.
func TestDeliveriesAreListed(t *testing.T) {
	t.Parallel()
	db := database(t)
	fill(t, db, 2000, fillDays)
	r := openReader(t, db)
	for _, tt := range []struct {
		filter query.Filter
		want   string // a condition in SQL
	}{
		{query.Filter{}, "true"},
		{query.Filter{UserID: "user-7"}, "user_id = 'user-7'"},
		{query.Filter{NotificationID: "n-77"}, "notification_id = 'n-77'"},
		{query.Filter{Status: "failed"}, "status = 'failed'"},
		{query.Filter{Status: "deferred"}, "status = 'deferred'"},
		{query.Filter{Status: "delivered", UserID: "user-7"}, "status = 'delivered' AND user_id = 'user-7'"},
		{query.Filter{Since: time.Now().Add(-48 * time.Hour)}, "accepted_at >= now() - interval '48 hours'"},
	} {
		tt.filter.Limit = 7
		got, err := r.Deliveries(t.Context(), tt.filter)
		if err != nil {
			t.Fatal(err)
		}
		want := queryTexts(t, db, "SELECT delivery_id::text FROM whisper.deliveries WHERE "+tt.want+" ORDER BY accepted_at DESC, delivery_id DESC LIMIT 7")
		var ids []string
		for _, d := range got {
			ids = append(ids, d.DeliveryID)
			if d.Template == "" || d.ExpiresAt == nil || !d.ExpiresAt.Equal(d.AcceptedAt.Add(time.Hour)) || d.SendAt != nil || d.Broadcast {
				t.Errorf("%+v", d)
			}
		}
		if len(want) == 0 || !slices.Equal(ids, want) {
			t.Errorf("%+v: %q, want %q", tt.filter, ids, want)
		}
	}
	all, err := r.Broadcasts(t.Context(), 3)
	if err != nil || len(all) != 3 || all[0].NotificationID != "b-1" || all[2].NotificationID != "b-3" {
		t.Errorf("broadcasts %+v, %v", all, err)
	}
	// One waits, and its time was over days ago.
	if got := queryTexts(t, db, "SELECT notification_id FROM whisper.overdue ORDER BY 1"); !slices.Equal(got, []string{"n-5"}) {
		t.Errorf("overdue are %q", got)
	}
}

// A delivery carries what its request said, also one of a broadcast, whatever is read first.
func TestADeliveryCarriesWhatItsRequestSaid(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	s := tell("n-1", "mona", now, 1)
	ev := s.accepted()
	acc := ev.GetDeliveryAccepted()
	acc.Template, acc.SendAtMs, acc.ExpiresAtMs = "card-payment@3", now.Add(time.Minute).UnixMilli(), now.Add(time.Hour).UnixMilli()
	const row = "SELECT concat_ws(' ', coalesce(template, 'null'), template_version, expires_at AT TIME ZONE 'UTC', send_at AT TIME ZONE 'UTC', coalesce(broadcast::text, 'null')) FROM whisper.deliveries WHERE notification_id = 'n-1'"
	f.writeAll(s.sent(time.Second, 1, domain.ChannelAPNs))
	if got := queryTexts(t, f.db, row); got[0] != "null null" {
		t.Errorf("before the accepted record: %q", got)
	}
	f.writeAll(ev)
	want := "card-payment 3 2026-11-23 13:00:00 2026-11-23 12:01:00 false"
	if got := queryTexts(t, f.db, row); got[0] != want {
		t.Errorf("after it: %q, want %q", got, want)
	}
	// A row of a projector of the version before lacks it until the record is read again.
	execSQL(t, f.db, "UPDATE whisper.deliveries SET template = NULL, template_version = NULL, expires_at = NULL, send_at = NULL, broadcast = NULL")
	f.writeAll(s.read(time.Minute))
	if got := queryTexts(t, f.db, row); got[0] != "null null" {
		t.Errorf("what was not known is told: %q", got)
	}
	f.writeAll(ev)
	if got := queryTexts(t, f.db, row); got[0] != want {
		t.Errorf("read again: %q, want %q", got, want)
	}
}

// TestADeliveryTellsSinceWhenItWasDue, so that what it waited for by order of its sender or its user is not called Whisper's.
func TestADeliveryTellsSinceWhenItWasDue(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	const row = "SELECT coalesce(due_at - accepted_at, '-1 s')::text || ' ' || coalesce(sent_at - due_at, '-1 s')::text FROM whisper.deliveries WHERE notification_id = "
	says := func(n, when, want string) {
		t.Helper()
		if got := queryTexts(t, f.db, row+"'"+n+"'"); len(got) != 1 || got[0] != want {
			t.Errorf("%s, %s: %q, want %q", n, when, got, want)
		}
	}
	sent := func(s story, after, due time.Duration, attempt int32) *whisperv1.Event {
		ev := s.sent(after, attempt, domain.ChannelAPNs)
		if due > 0 {
			ev.GetDeliverySent().DueMs = now.Add(due).UnixMilli()
		}
		return ev
	}
	quiet, at := tell("quiet", "mona", now, 1), tell("at once", "mona", now, 2)
	f.writeAll(quiet.accepted(), at.accepted())
	says("quiet", "accepted", "-00:00:01 -00:00:01")
	f.writeAll(sent(quiet, 2*time.Hour+time.Second, 2*time.Hour, 2), sent(at, 3*time.Second, 0, 1))
	says("quiet", "sent", "02:00:00 00:00:01")
	says("at once", "sent", "00:00:00 00:00:03")
	f.writeAll(sent(quiet, 4*time.Hour, 3*time.Hour, 3), sent(at, 4*time.Hour, 3*time.Hour, 2))
	says("quiet", "sent once more", "02:00:00 00:00:01")
	says("at once", "sent once more", "00:00:00 00:00:03")
	f.writeAll(sent(quiet, time.Hour+2*time.Second, time.Hour, 1))
	says("quiet", "an earlier sending read late", "01:00:00 00:00:02")

	socket := tell("socket", "mona", now, 3)
	delivered := socket.delivered(time.Minute+2*time.Second, 1)
	delivered.GetDeliveryDelivered().SentAtUs, delivered.GetDeliveryDelivered().DueMs = now.Add(time.Minute+time.Second).UnixMicro(), now.Add(time.Minute).UnixMilli()
	f.writeAll(delivered)
	says("socket", "delivered", "00:01:00 00:00:01")

	// A row that a projector of the version before wrote gets it when the fact is read again.
	f.exec("UPDATE whisper.deliveries SET due_at = NULL WHERE notification_id = 'socket'")
	f.writeAll(delivered)
	says("socket", "read again", "00:01:00 00:00:01")
}

// BenchmarkQuestions asks each question on so many rows of so many days, five million of ten days unless WHISPER_QUESTION_ROWS
// and WHISPER_QUESTION_DAYS say otherwise. It fails where the best of three runs takes too long: more than 50 ms for a listing or one
// notification, more than a second for a sum of a week. It
// prints a table: question, time, plan.
//
//	make bench-questions
func BenchmarkQuestions(b *testing.B) {
	number := func(name string, otherwise int) int {
		text := os.Getenv(name)
		if text == "" {
			return otherwise
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
	rows, days := number("WHISPER_QUESTION_ROWS", 5_000_000), number("WHISPER_QUESTION_DAYS", fillDays)
	db := database(b)
	fill(b, db, rows, days)
	conn, err := pgx.Connect(b.Context(), db)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close(b.Context()) }()
	if _, err := conn.Exec(b.Context(), "SET jit = off"); err != nil {
		b.Fatal(err)
	}
	// Not by b.Log, which cuts after ten lines.
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(os.Stdout, format+"\n", args...) }
	say("%d deliveries in %d days, %s; best of three\n\n| question | time | plan |\n|---|---|---|", rows, days,
		queryTexts(b, db, "SELECT version()")[0])
	for _, q := range append(questions(b), question{sql: "SELECT * FROM whisper.conservation_full"}) {
		best := time.Duration(0)
		for range 3 {
			start := time.Now()
			if _, err := conn.Exec(b.Context(), q.sql, append([]any{pgx.QueryExecModeExec}, q.args...)...); err != nil {
				b.Fatal(err)
			}
			if took := time.Since(start); best == 0 || took < best {
				best = took
			}
		}
		say("| `%s` %v | %.1f ms | %s |", strings.Join(strings.Fields(q.sql), " "), q.args, float64(best.Microseconds())/1000, q.plan(b, conn))
		if q.most > 0 && best > q.most {
			b.Errorf("more than %s", q.most)
		}
	}
}
