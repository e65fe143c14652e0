package projections

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// BenchmarkMonths is what 401 days, or WHISPER_QUESTION_DAYS, cost the planner as daily tables, and as days and months: the least
// planning and execution time of five tries each, on the same rows.
func BenchmarkMonths(b *testing.B) {
	days := 401
	if text := os.Getenv("WHISPER_QUESTION_DAYS"); text != "" {
		var err error
		if days, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	db := database(b)
	fill(b, db, 200*days, days)
	conn, err := pgx.Connect(b.Context(), db)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close(b.Context()) }()
	if _, err := conn.Exec(b.Context(), "SET jit = off"); err != nil {
		b.Fatal(err)
	}
	questions := []string{
		"SELECT user_id, status FROM whisper.deliveries WHERE notification_id = 'n-77'",
		"SELECT * FROM whisper.deliveries WHERE user_id = 'user-7' AND day >= current_date - 7",
		"SELECT * FROM whisper.deliveries WHERE status = 'failed' ORDER BY accepted_at DESC LIMIT 20",
		"SELECT * FROM whisper.notifications WHERE notification_id = 'n-77'",
		"SELECT * FROM whisper.overdue",
	}
	type times struct{ planning, execution float64 }
	ask := func() (all []times) {
		for _, q := range questions {
			best := times{1e9, 1e9}
			for range 5 {
				var plan []struct {
					Planning  float64 `json:"Planning Time"`
					Execution float64 `json:"Execution Time"`
				}
				if err := conn.QueryRow(b.Context(), "EXPLAIN (ANALYZE, FORMAT json) "+q).Scan(&plan); err != nil {
					b.Fatal(err)
				}
				best = times{min(best.planning, plan[0].Planning), min(best.execution, plan[0].Execution)}
			}
			all = append(all, best)
		}
		return all
	}
	before := ask()
	st, err := openStore(db, "whisper", 3)
	if err != nil {
		b.Fatal(err)
	}
	defer st.close()
	start := time.Now()
	if _, err := st.mergeMonths(b.Context(), time.Now(), merging{keep: days + 1, daily: 60, blocks: monthBlocks}); err != nil {
		b.Fatal(err)
	}
	took := time.Since(start)
	after := ask()
	// Not by b.Log, which cuts after ten lines.
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(os.Stdout, format+"\n", args...) }
	tables := strings.Count(partitionsOf(b, db, "deliveries"), " ") + 1
	say("%d days; %d partitions of deliveries after merging them, which took %s\n", days, tables, took.Round(time.Millisecond))
	say("| question | planned, daily | months | run, daily | months |\n|---|---|---|---|---|")
	for i, q := range questions {
		say("| `%s` | %.1f ms | %.1f ms | %.1f ms | %.1f ms |", q, before[i].planning, after[i].planning, before[i].execution, after[i].execution)
	}
}
