package dev

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/cmd/whisper/operate"
	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/ops"
	"github.com/klivvr/whisper/projections/query"
)

// demoCrowd is how many users the demo's broadcast is for, beside the scene's own.
const demoCrowd = 1_000

// toEverybody is the scene's broadcast: each in the own language, and a bar that shows how far it is.
func (s *scene) toEverybody(ctx context.Context, reader *query.Reader) error {
	s.say("\nA broadcast to %d users, in English and Arabic; mona and omar are connected:\n\n", demoCrowd+2)
	if err := s.crowd(ctx); err != nil {
		return err
	}
	if err := s.pause(ctx); err != nil { // templates and profiles are other topics than requests
		return err
	}
	value, err := json.Marshal(map[string]any{
		"id": s.id("news"), "to": map[string]any{"segment": fmt.Sprintf("has(user.attributes.demo) && user.attributes.demo == %q", s.tag)},
		"template": s.id("template"), "channels": []string{domain.ChannelSocket}, "ttl": "10m",
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.produced[s.id("news")] = s.p.Now()
	s.mu.Unlock()
	if err := s.produce(ctx, &kgo.Record{Topic: consumers.TopicRequests(domain.Low), Value: value}); err != nil {
		return err
	}
	return operate.WatchBroadcast(ctx, reader, s.id("news"), true, s.p.Stdout, ops.IsTerminal(cli.Raw(s.p.Stdout)))
}

// crowd makes the audience and the text.
func (s *scene) crowd(ctx context.Context) error {
	template := `{"default_locale":"en","locales":{"en":{"title":"News","body":"We open in Alexandria today"},` +
		`"ar":{"title":"أخبار","body":"نفتتح اليوم في الإسكندرية"}}}`
	cl, err := kgo.NewClient(s.base.Client.Options()...)
	if err != nil {
		return err
	}
	defer cl.Close()
	recs := []*kgo.Record{{Topic: consumers.TopicTemplates, Key: []byte(s.id("template")), Value: []byte(template)}}
	profile := func(user, locale string) {
		value := fmt.Appendf(nil, `{"locale":%q,"attributes":{"demo":%q}}`, locale, s.tag)
		recs = append(recs, &kgo.Record{Topic: consumers.TopicProfiles, Key: []byte(user), Value: value})
	}
	profile("mona", "ar-EG")
	profile("omar", "en-EG")
	for i := range demoCrowd {
		profile(fmt.Sprintf("crowd-%d", i), []string{"ar-EG", "en-EG"}[i%2])
	}
	return cl.ProduceSync(ctx, recs...).FirstErr()
}
