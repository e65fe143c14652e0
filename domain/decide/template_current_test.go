package decide

import (
	"testing"

	"github.com/klivvr/whisper/domain/template"
)

// TestADigestSpeaksOfTheCurrentVersion, as intake has requests do.
func TestADigestSpeaksOfTheCurrentVersion(t *testing.T) {
	t.Parallel()
	s := NewState(0, DefaultPolicy())
	tmpl, err := template.Parse([]byte(`{"default_locale":"en","locales":{"en":{"body":"b"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for i, seen := range []TemplateSeen{{ID: "digest@1"}, {ID: "digest", Current: 1}, {ID: "digest@2"}, {ID: "digest", Current: 2}, {ID: "direct"}, {ID: "odd", Current: 9}} {
		seen.Version, seen.Template = int64(i), tmpl
		s.templateSeen(seen)
	}
	for id, want := range map[string]struct {
		name    string
		version int64
	}{"digest": {"digest@2", 2}, "direct": {"direct", 4}, "odd": {"odd", 5}, "never": {"never", 0}} {
		if name, version := s.currentTemplate(id); name != want.name || version != want.version {
			t.Errorf("%s: %s at %d", id, name, version)
		}
	}
}
