package intake

import (
	"context"

	"github.com/klivvr/whisper/consumers/requests"
	"github.com/klivvr/whisper/domain/category"
)

// takeCategory dead-letters a bad category, once for all processes. Using good ones is dispatch's.
func (r *Role) takeCategory(ctx context.Context, rc *requests.Receipt) error {
	if len(rc.Record.Value) > 0 {
		if _, err := category.Parse(string(rc.Record.Key), rc.Record.Value); err != nil {
			rc.Settled = r.metrics.categoriesRefused.Inc
			rc.Refuse(ctx, err)
			return nil
		}
	}
	r.metrics.categoriesAccepted.Inc()
	rc.Nothing()
	return nil
}
