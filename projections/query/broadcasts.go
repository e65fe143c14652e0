package query

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Broadcast is a row of `broadcasts`. A null is an empty text, or a nil time.
type Broadcast struct {
	NotificationID  string         `json:"notification_id"`
	State           string         `json:"state"`
	Lane            string         `json:"lane"`
	Category        string         `json:"category,omitempty"`
	Template        string         `json:"template,omitempty"`
	Segment         string         `json:"segment,omitempty"`
	Rate            *float64       `json:"rate,omitempty"`
	Audience        int64          `json:"audience"`
	Walked          int64          `json:"walked"`
	Unwalked        int64          `json:"unwalked"`
	SegmentErrors   int64          `json:"segment_errors"`
	Total           int64          `json:"total"`
	Sent            int64          `json:"sent"`
	Delivered       int64          `json:"delivered"`
	Failed          int64          `json:"failed"`
	Skipped         int64          `json:"skipped"`
	SkippedBy       map[string]int `json:"skipped_by"`
	Pending         int64          `json:"pending"`
	WalkedPerSecond *float64       `json:"walked_per_second,omitempty"`
	EstimatedEnd    *time.Time     `json:"estimated_end,omitempty"`
	AcceptedAt      time.Time      `json:"accepted_at"`
	SendAt          *time.Time     `json:"send_at,omitempty"`
	SendAtLocal     string         `json:"send_at_local,omitempty"`
	ExpiresAt       time.Time      `json:"expires_at"`
	StartedAt       *time.Time     `json:"started_at,omitempty"`
	WalkedAt        *time.Time     `json:"walked_at,omitempty"`
	FinishedAt      *time.Time     `json:"finished_at,omitempty"`
}

// Ended says whether the broadcast has finished: nothing more of it changes.
func (b Broadcast) Ended() bool { return b.FinishedAt != nil }

const broadcastColumns = `notification_id, state, lane, category, template, segment, rate, audience, walked, unwalked, segment_errors,
	total, sent, delivered, failed, skipped, skipped_by::text, pending, walked_per_second, estimated_end, accepted_at, send_at, send_at_local,
	expires_at, started_at, walked_at, finished_at`

// Broadcasts returns the latest broadcasts, the latest first.
func (r *Reader) Broadcasts(ctx context.Context, limit int) ([]Broadcast, error) {
	// The newest ids first, so that the view adds up those only.
	rows, err := r.pool.Query(ctx, "SELECT "+broadcastColumns+` FROM whisper.broadcasts
		WHERE notification_id = ANY (ARRAY(
			SELECT notification_id FROM whisper.broadcast_shards GROUP BY notification_id
			ORDER BY max(accepted_at) DESC, notification_id LIMIT $1))
		ORDER BY accepted_at DESC, notification_id LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("read the broadcasts: %w", err)
	}
	all, err := pgx.CollectRows(rows, scanBroadcast)
	if err != nil {
		return nil, fmt.Errorf("read the broadcasts: %w", err)
	}
	return all, nil
}

// Broadcast returns the latest broadcast with an id: after the deduplication window an id may be used again. False: the
// tables know of none.
func (r *Reader) Broadcast(ctx context.Context, id string) (Broadcast, bool, error) {
	rows, err := r.pool.Query(ctx, "SELECT "+broadcastColumns+` FROM whisper.broadcasts
		WHERE notification_id = $1 ORDER BY accepted_at DESC LIMIT 1`, id)
	if err != nil {
		return Broadcast{}, false, fmt.Errorf("read the broadcast %s: %w", id, err)
	}
	all, err := pgx.CollectRows(rows, scanBroadcast)
	if err != nil || len(all) == 0 {
		if err != nil {
			err = fmt.Errorf("read the broadcast %s: %w", id, err)
		}
		return Broadcast{}, false, err
	}
	return all[0], true, nil
}

func scanBroadcast(row pgx.CollectableRow) (b Broadcast, err error) {
	var skippedBy string
	err = row.Scan(&b.NotificationID, &b.State, &b.Lane, &b.Category, &b.Template, &b.Segment, &b.Rate, &b.Audience, &b.Walked, &b.Unwalked,
		&b.SegmentErrors,
		&b.Total, &b.Sent, &b.Delivered, &b.Failed, &b.Skipped, &skippedBy, &b.Pending, &b.WalkedPerSecond,
		&b.EstimatedEnd, &b.AcceptedAt, &b.SendAt, &b.SendAtLocal,
		&b.ExpiresAt, &b.StartedAt, &b.WalkedAt, &b.FinishedAt)
	if err == nil {
		err = json.Unmarshal([]byte(skippedBy), &b.SkippedBy)
	}
	return b, err
}
