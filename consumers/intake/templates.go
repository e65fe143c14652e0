package intake

import (
	"context"
	"fmt"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/consumers/requests"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/template"
)

// takeTemplate dead-letters a bad template, once for all processes. Using good ones is the catalogue's. A version's own
// key (card-payment@3) is as good as the template's: `whisper templates apply` writes both.
func (r *Role) takeTemplate(ctx context.Context, rc *requests.Receipt) error {
	err := checkKey("template", string(rc.Record.Key), domain.CheckID)
	if err == nil && len(rc.Record.Value) > 0 {
		_, err = template.Parse(rc.Record.Value)
	}
	if err != nil {
		rc.Settled = r.metrics.templatesRefused.Inc
		rc.Refuse(ctx, err)
		return nil
	}
	r.metrics.templatesAccepted.Inc()
	rc.Nothing()
	return nil
}

// followTemplates returns when everything is known that there was when it began, or ctx ended.
func (r *Role) followTemplates(ctx context.Context) error {
	caughtUp, err := r.reader.Follow(ctx, consumers.TopicTemplates, 0, consumers.FromStart, r.templates.Read)
	if err != nil {
		if ended(ctx) {
			return nil
		}
		return fmt.Errorf("follow the templates: %w", err)
	}
	select {
	case <-caughtUp:
		r.ready.Store(true)
	case <-ctx.Done():
	}
	return nil
}
