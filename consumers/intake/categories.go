package intake

import (
	"context"

	"github.com/klivvr/whisper/domain/category"
)

// takeCategory dead-letters a bad category, once for all processes. Using good ones is dispatch's.
func (r *Role) takeCategory(ctx context.Context, rc *receipt) error {
	if len(rc.rec.Value) > 0 {
		if _, err := category.Parse(string(rc.rec.Key), rc.rec.Value); err != nil {
			rc.settled = r.metrics.categoriesRefused.Inc
			rc.refuse(ctx, err)
			return nil
		}
	}
	r.metrics.categoriesAccepted.Inc()
	rc.feed.mark.Done(rc.rec.Offset)
	return nil
}
