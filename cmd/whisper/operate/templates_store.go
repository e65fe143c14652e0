package operate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/cmd/whisper/cli"
	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/template"
)

// templateStore is what whisper.templates holds now: the last record of each key.
type templateStore struct{ records map[string]*kgo.Record }

func readTemplates(ctx context.Context, client consumers.ClientConfig) (*templateStore, error) {
	store := &templateStore{records: map[string]*kgo.Record{}}
	err := cli.Scan{Client: client, Topics: []string{consumers.TopicTemplates}}.Run(ctx, func(rec *kgo.Record) error {
		if len(rec.Value) == 0 {
			delete(store.records, string(rec.Key))
		} else {
			store.records[string(rec.Key)] = rec
		}
		return nil
	})
	if err == nil {
		err = ctx.Err()
	}
	return store, err
}

// versions of a template, ascending.
func (s *templateStore) versions(id string) []int64 {
	var all []int64
	for key := range s.records {
		if of, version := template.Split(key); version > 0 && of == id {
			all = append(all, version)
		}
	}
	slices.Sort(all)
	return all
}

func (s *templateStore) find(name string) (*kgo.Record, error) {
	rec := s.records[name]
	if rec == nil {
		id, version := template.Split(name)
		if known := s.versions(id); version > 0 && len(known) > 0 {
			return nil, fmt.Errorf("template %s has no version %d; it has %v", id, version, known)
		}
		return nil, fmt.Errorf("there is no template %q", name)
	}
	return rec, nil
}

func (s *templateStore) list() []listedTemplate {
	var all []listedTemplate
	for _, key := range slices.Sorted(maps.Keys(s.records)) {
		if _, version := template.Split(key); version > 0 {
			continue
		}
		rec := s.records[key]
		t := listedTemplate{ID: key, Version: consumers.TemplateVersionOf(rec), Versions: s.versions(key), At: rec.Timestamp}
		if parsed, err := template.Parse(rec.Value); err != nil {
			t.Problem = err.Error()
		} else {
			t.Locales = parsed.Locales()
		}
		all = append(all, t)
	}
	return all
}

// apply writes a new version, unless the template is as it was: the version's own record first, then the template's,
// so that who sees the second can find the first.
func (s *templateStore) apply(
	ctx context.Context, client consumers.ClientConfig, t templateFile, now time.Time, keep time.Duration,
) (applied, error) {
	done := applied{ID: t.id, Version: 1}
	versions := s.versions(t.id)
	if len(versions) > 0 {
		done.Version = versions[len(versions)-1] + 1
	}
	var records []*kgo.Record
	if current := s.records[t.id]; current != nil && sameJSON(current.Value, t.value) {
		version := consumers.TemplateVersionOf(current)
		if pinned := s.records[template.Pin(t.id, version)]; pinned != nil && bytes.Equal(pinned.Value, current.Value) {
			done.Version, done.Unchanged = version, true
		}
	}
	if !done.Unchanged {
		records = []*kgo.Record{
			{Topic: consumers.TopicTemplates, Key: []byte(template.Pin(t.id, done.Version)), Value: t.value},
			{
				Topic: consumers.TopicTemplates, Key: []byte(t.id), Value: t.value,
				Headers: []kgo.RecordHeader{{Key: consumers.HeaderVersion, Value: strconv.AppendInt(nil, done.Version, 10)}},
			},
		}
		if err := cli.Produce(ctx, client, records...); err != nil {
			return done, err
		}
		// Who applies at the same time may have taken the same number. The last one to write it stands.
		after, err := readTemplates(ctx, client)
		if err != nil {
			return done, err
		}
		if got := after.records[string(records[0].Key)]; got == nil || !bytes.Equal(got.Value, t.value) {
			return done, fmt.Errorf("template %s: somebody else wrote version %d at the same time: look at that version, and apply again", t.id,
				done.Version)
		}
	}
	var err error
	done.Removed, err = s.removeOld(ctx, client, t.id, done.Version, versions, now, keep)
	return done, err
}

// removeOld takes away what was replaced long ago. A version was replaced when the next one was made.
func (s *templateStore) removeOld(
	ctx context.Context, client consumers.ClientConfig, id string, current int64, versions []int64, now time.Time, keep time.Duration,
) (removed []int64, err error) {
	if keep == 0 {
		return nil, nil
	}
	var records []*kgo.Record
	for i, version := range versions[:max(0, len(versions)-1)] {
		next := s.records[template.Pin(id, versions[i+1])]
		if version == current || now.Sub(next.Timestamp) < keep {
			continue
		}
		removed = append(removed, version)
		records = append(records, &kgo.Record{Topic: consumers.TopicTemplates, Key: []byte(template.Pin(id, version))})
	}
	return removed, cli.Produce(ctx, client, records...)
}

// sameJSON compares by what is in it: upstream may have written it with other blanks.
func sameJSON(a, b []byte) bool {
	var x, y any
	return errors.Join(json.Unmarshal(a, &x), json.Unmarshal(b, &y)) == nil && bytes.Equal(mustJSON(x), mustJSON(y))
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil { // it was JSON
		return nil
	}
	return b
}
