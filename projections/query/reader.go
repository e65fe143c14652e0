package query

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/migrations"
	"github.com/klivvr/whisper/projections/postgres"
)

// Reader reads the served tables. Its methods may be called from several goroutines at once. A Postgres user with the
// role whisper_analyst has every right that it needs.
type Reader struct{ pool *pgxpool.Pool }

// Open returns a reader, which the caller closes. It does not connect yet: if Postgres is away, the first question says so.
func Open(ctx context.Context, url string) (*Reader, error) {
	cfg, err := postgres.Config(url)
	if err != nil {
		return nil, err
	}
	cfg.ConnConfig.RuntimeParams["application_name"] = "whisper read"
	// Compiling a plan over a month of days takes seconds, more than any of these questions.
	cfg.ConnConfig.RuntimeParams["jit"] = "off"
	// A result may change its type identity when a rebuild is swapped in; plain statements don't care.
	cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	return &Reader{pool: pool}, nil
}

// Close closes its connections.
func (r *Reader) Close() { r.pool.Close() }

// Filter chooses deliveries. A field that is empty chooses all.
type Filter struct {
	NotificationID string
	UserID         string
	Status         string // a name of domain.Statuses
	Since          time.Time
	Limit          int // default 100; the latest first
}

// Delivery is a row of `deliveries`. A null is an empty text, or a nil time.
type Delivery struct {
	DeliveryID     string     `json:"delivery_id"`
	NotificationID string     `json:"notification_id"`
	UserID         string     `json:"user_id"`
	Lane           string     `json:"lane"`
	Category       string     `json:"category,omitempty"`
	Status         string     `json:"status"`
	Reason         string     `json:"reason,omitempty"`
	Channel        string     `json:"channel,omitempty"`
	Attempts       int        `json:"attempts"`
	AcceptedAt     time.Time  `json:"accepted_at"`
	SentAt         *time.Time `json:"sent_at,omitempty"`
	DeliveredAt    *time.Time `json:"delivered_at,omitempty"`
	ReadAt         *time.Time `json:"read_at,omitempty"`
	SettledAt      *time.Time `json:"settled_at,omitempty"`
	Template       string     `json:"template,omitempty"`
	// TemplateVersion is 0 where there is none.
	TemplateVersion int64      `json:"template_version,omitempty"`
	SendAt          *time.Time `json:"send_at,omitempty"`
	ExpiresAt       *time.Time `json:"expires_at,omitempty"`
	Broadcast       bool       `json:"broadcast"`
}

// Deliveries returns the deliveries that match, the latest first. With a notification and no user they are in the order
// of their users, since all of them have the same time. For each filter there is an index in the order of the answer,
// so the limit also bounds how much is read.
func (r *Reader) Deliveries(ctx context.Context, f Filter) ([]Delivery, error) {
	sql, args, err := f.SQL()
	if err != nil {
		return nil, err
	}
	return collect[Delivery](ctx, r, "deliveries", sql, args...)
}

// SQL returns the statement that [Reader.Deliveries] runs, and its arguments. It fails where Status is no status.
func (f Filter) SQL() (sql string, args []any, err error) {
	var where []string
	add := func(condition string, value any) {
		args = append(args, value)
		where = append(where, fmt.Sprintf(condition, len(args)))
	}
	if f.NotificationID != "" {
		add("notification_id = $%d", f.NotificationID)
	}
	if f.UserID != "" {
		add("user_id = $%d", f.UserID)
	}
	if f.Status != "" {
		status, err := domain.ParseStatus(f.Status)
		if err != nil {
			return "", nil, err
		}
		if !status.Pending() && status < domain.Sent && f.UserID == "" && f.NotificationID == "" {
			// What ended without being sent has an index, in which a status is the highest that was noted.
			add("noted_status = $%d::text::"+migrations.Schema+".delivery_status AND ended_at IS NOT NULL", f.Status)
		}
		add("status = $%d::text::"+migrations.Schema+".delivery_status", f.Status)
	}
	if !f.Since.IsZero() {
		add("accepted_at >= $%d", f.Since)
		add("day >= $%d::date", f.Since.UTC().Format(time.DateOnly))
	}
	if f.Limit <= 0 {
		f.Limit = 100
	}
	args = append(args, f.Limit)
	sql = `SELECT delivery_id::text, notification_id, user_id, lane, coalesce(category, ''), status::text, coalesce(reason, ''),
		coalesce(channel, ''), attempts, accepted_at, sent_at, delivered_at, read_at, settled_at,
		coalesce(template, ''), coalesce(template_version, 0), send_at, expires_at, coalesce(broadcast, false) FROM whisper.deliveries AS d`
	if len(where) > 0 {
		sql += " WHERE " + strings.Join(where, " AND ")
	}
	order := "d.delivery_id DESC" // the time of the request is in it; the column, not its text that is selected
	switch {
	case f.UserID != "":
		order = "accepted_at DESC, d.delivery_id DESC"
	case f.NotificationID != "":
		order = "user_id, d.delivery_id DESC"
	}
	return sql + fmt.Sprintf(" ORDER BY %s LIMIT $%d", order, len(args)), args, nil
}

// dayOf is the UTC day of a delivery, which names its partition.
func dayOf(id domain.DeliveryID) string { return id.Time().UTC().Format(time.DateOnly) }

// Attempt is a row of `attempts`.
type Attempt struct {
	DeliveryID string    `json:"delivery_id"`
	Attempt    int       `json:"attempt"`
	Target     string    `json:"target,omitempty"`
	Channel    string    `json:"channel"`
	Provider   string    `json:"provider,omitempty"`
	Outcome    string    `json:"outcome"`
	Reason     string    `json:"reason,omitempty"`
	Status     int       `json:"status,omitempty"`
	LatencyMS  *float64  `json:"latency_ms,omitempty"`
	At         time.Time `json:"at"`
}

// Attempts returns the attempts of one delivery, in order.
func (r *Reader) Attempts(ctx context.Context, id domain.DeliveryID) ([]Attempt, error) {
	return collect[Attempt](ctx, r, "attempts", `
		SELECT delivery_id::text, attempt, target, channel, provider, outcome, coalesce(reason, ''), coalesce(status, 0), latency_ms, at
		FROM whisper.attempts WHERE delivery_id = $1::text::uuid AND day = $2::text::date ORDER BY attempt, at, target`, id.String(), dayOf(id))
}

// Fact is a row of `timeline`.
type Fact struct {
	DeliveryID  string          `json:"delivery_id"`
	At          time.Time       `json:"at"`
	Kind        string          `json:"kind"`
	Detail      json.RawMessage `json:"detail"`
	Topic       string          `json:"topic"`
	Partition   int32           `json:"partition"`
	Offset      int64           `json:"offset"`
	Cause       string          `json:"cause,omitempty"`
	Traceparent string          `json:"traceparent,omitempty"`
}

// Timeline returns the facts of one delivery, in the order of the times that their writers gave them.
func (r *Reader) Timeline(ctx context.Context, id domain.DeliveryID) ([]Fact, error) {
	return collect[Fact](ctx, r, "timeline", `
		SELECT delivery_id::text, at, kind, detail, topic, partition, "offset", coalesce(cause, ''), coalesce(traceparent, '')
		FROM whisper.timeline WHERE delivery_id = $1::text::uuid AND day = $2::text::date
		ORDER BY at, topic, partition, "offset"`, id.String(), dayOf(id))
}

// AcceptedAt returns when the first request under a notification's id was accepted, of those that the tables hold. It
// is zero where they hold none.
func (r *Reader) AcceptedAt(ctx context.Context, notification string) (time.Time, error) {
	type row struct{ At *time.Time }
	rows, err := collect[row](ctx, r, "time of a notification",
		"SELECT accepted_at FROM whisper.notifications WHERE notification_id = $1::text", notification)
	if err != nil || len(rows) == 0 || rows[0].At == nil {
		return time.Time{}, err
	}
	return *rows[0].At, nil
}

// StatusCount says how many deliveries have a status.
type StatusCount struct {
	Status string `json:"status"`
	Count  int64  `json:"count"`
}

// StatusCounts counts the deliveries that the tables hold, by status. It adds up counts that the projector keeps and reads no delivery.
func (r *Reader) StatusCounts(ctx context.Context) ([]StatusCount, error) {
	return collect[StatusCount](ctx, r, "status counts", `
		SELECT status::text, sum(count)::bigint
		FROM (
			SELECT status, count FROM whisper.delivery_stat_days
			UNION ALL
			SELECT status, count FROM whisper.delivery_stat_shards WHERE partition >= 0
		) AS parts
		GROUP BY status HAVING sum(count) <> 0 ORDER BY status`)
}

// Health says how the attempts of the last minutes ended.
type Health struct {
	// Window is the time that was counted: whole minutes, and the current one so far.
	Window time.Duration `json:"window"`
	// OK is how many were sent or delivered.
	OK int64 `json:"ok"`
	// Failed is how many were refused, or never answered. Attempts at a session that had ended, and attempts that
	// expired, are in neither count: they show no fault.
	Failed int64 `json:"failed"`
	// DeliveriesPerSecond is OK over Window.
	DeliveriesPerSecond float64 `json:"deliveries_per_second"`
}

// ErrorRate returns Failed divided by OK and Failed together; 0 where there was no attempt.
func (h Health) ErrorRate() float64 {
	if h.OK+h.Failed == 0 {
		return 0
	}
	return float64(h.Failed) / float64(h.OK+h.Failed)
}

// Health counts the attempts of the minutes that began within the window before now, by Postgres's clock. It reads a
// few rows for each minute, whatever the traffic.
func (r *Reader) Health(ctx context.Context, window time.Duration) (Health, error) {
	var h Health
	var seconds float64
	err := r.pool.QueryRow(ctx, `
		SELECT coalesce(sum(count) FILTER (WHERE outcome IN ('sent', 'delivered')), 0)::bigint,
			coalesce(sum(count) FILTER (WHERE outcome NOT IN ('sent', 'delivered', 'unreachable', 'expired')), 0)::bigint,
			extract(epoch FROM now() - date_trunc('minute', now() - $1::float8 * interval '1 second') - interval '1 minute')::float8
		FROM whisper.answer_shards
		WHERE minute > now() - $1::float8 * interval '1 second' AND minute <= now()`, window.Seconds()).Scan(&h.OK, &h.Failed, &seconds)
	if err != nil {
		return h, fmt.Errorf("read answers: %w", postgres.Explain(err))
	}
	h.Window = time.Duration(seconds * float64(time.Second))
	if seconds > 0 {
		h.DeliveriesPerSecond = float64(h.OK) / seconds
	}
	return h, nil
}

// Checkpoints returns, for each topic and partition, the first offset whose record is not in the tables.
func (r *Reader) Checkpoints(ctx context.Context) (map[string]map[int32]int64, error) {
	return postgres.Checkpoints(ctx, r.pool, migrations.Schema)
}

// Unbalanced is a row of `conservation`: a notification that does not add up.
type Unbalanced struct {
	NotificationID string     `json:"notification_id"`
	Recipients     int64      `json:"recipients"`
	Counted        int64      `json:"counted"`
	Duplicates     int64      `json:"duplicates"`
	AcceptedAt     *time.Time `json:"accepted_at,omitempty"`
}

// Conservation returns the notifications that do not add up: none, once the projectors have caught up.
func (r *Reader) Conservation(ctx context.Context) ([]Unbalanced, error) {
	return collect[Unbalanced](ctx, r, "conservation", `
		SELECT notification_id, recipients::bigint, counted::bigint, duplicates::bigint, accepted_at FROM whisper.conservation ORDER BY notification_id`)
}

func collect[T any](ctx context.Context, r *Reader, what, sql string, args ...any) ([]T, error) {
	rows, err := r.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, postgres.Explain(err))
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[T])
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, postgres.Explain(err))
	}
	return all, nil
}
