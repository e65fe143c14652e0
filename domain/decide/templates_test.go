package decide

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain/template"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// TestADigestSpeaksOfTheCurrentVersion, as intake has requests do.
func TestADigestSpeaksOfTheCurrentVersion(t *testing.T) {
	t.Parallel()
	templates := newTemplates()
	tmpl, err := template.Parse([]byte(`{"default_locale":"en","locales":{"en":{"body":"b"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for i, seen := range []TemplateChanged{
		{ID: "digest@1"},
		{ID: "digest", Current: 1},
		{ID: "digest@2"},
		{ID: "digest", Current: 2},
		{ID: "direct"},
		{ID: "odd", Current: 9},
	} {
		seen.Version, seen.Template = int64(i), tmpl
		templates.change(seen)
	}
	for id, want := range map[string]struct {
		name    string
		version int64
	}{"digest": {"digest@2", 2}, "direct": {"direct", 4}, "odd": {"odd", 5}, "never": {"never", 0}} {
		if name, version := templates.current(id); name != want.name || version != want.version {
			t.Errorf("%s: %s at %d", id, name, version)
		}
	}
}

// TestATemplateIsKnownAwaitedOrRemoved plays records of one key, compaction included, against the list of all of them.
func TestATemplateIsKnownAwaitedOrRemoved(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SampledFrom([]string{"pay", "pay@1"}).Draw(t, "key")
		templates := newTemplates()
		made := map[int64]*template.Template{} // since the last tombstone
		last := int64(-1)
		for version := range int64(rapid.IntRange(1, 8).Draw(t, "records")) {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0: // compaction removed it
				templates.read(version + 1)
			case 1:
				templates.change(TemplateChanged{ID: key, Version: version})
				clear(made)
			default:
				made[version] = &template.Template{}
				templates.change(TemplateChanged{ID: key, Version: version, Template: made[version]})
				last = version
			}
			for accepted := range version + 3 {
				tmpl, gone := templates.of(&whisperv1.DeliveryAccepted{Template: key, TemplateVersion: accepted})
				switch newest := made[last]; {
				case newest != nil && (accepted <= last || key == "pay@1"):
					if tmpl == nil || gone || tmpl == newest && made[accepted] != nil && made[accepted] != newest && len(made) <= olderTemplates {
						t.Fatalf("%d of %v: the newest instead of its own", accepted, made)
					}
					if own := made[accepted]; tmpl != newest && tmpl != own {
						t.Fatalf("%d of %v: neither its own nor the newest", accepted, made)
					}
				case tmpl != nil || gone != (accepted <= version):
					t.Fatalf("%d is %v, gone %v, and %d are read", accepted, tmpl, gone, version+1)
				}
			}
		}
	})
}
