package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klivvr/whisper/consumers"
)

func TestCategoriesAreDeclaredFromAFile(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	file := filepath.Join(t.TempDir(), "categories.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("security: {mandatory: true}\nmarketing:\n  caps: [{n: 3, per: day}]\n  quiet_hours: drop\n")
	if got := b.whisper(t, "categories", "apply", "-f", file); got != "declared marketing\ndeclared security\n" {
		t.Errorf("printed %q", got)
	}
	write(`{"security": {"mandatory": true}, "marketing": {}, "news": null}`)
	if got := b.whisper(t, "categories", "apply", "-f", file); got != "changed marketing\ndeclared news\nunchanged security\n" {
		t.Errorf("printed %q", got)
	}
	if n := len(b.read(t, consumers.TopicCategories)); n != 4 {
		t.Errorf("%d records, want 4", n)
	}
	if got := b.whisper(t, "categories", "delete", "news"); got != "deleted news\n" {
		t.Errorf("printed %q", got)
	}
	if got := whisper(t, nil, "categories", "delete", "news", "--kafka="+b.addr); got.code != exitError ||
		!strings.Contains(got.stderr, "not declared: news") {
		t.Errorf("%d: %s", got.code, got.stderr)
	}
	if got := lines(b.whisper(t, "categories", "list")); len(got) != 2 || !strings.HasPrefix(got[1], "security ") || !strings.HasSuffix(got[1], `{"mandatory":true}`) {
		t.Errorf("listed %q", got)
	}
	if got := b.whisper(t, "categories", "show", "security.login"); !strings.HasPrefix(got,
		"security.login is not declared; it goes by the rules of security:\n") {
		t.Errorf("shown %q", got)
	}
	if got := decode[struct{ Category, Change string }](t, b.whisper(t, "categories", "show", "chat", "--json")); got.Category != "default" ||
		got.Change != "undeclared" {
		t.Errorf("shown %+v", got)
	}
	write("a: {caps: [{n: 0, per: day}]}\nB: {}\n")
	got := whisper(t, nil, "categories", "apply", "-f", file, "--kafka="+b.addr)
	if got.code != exitError || !strings.Contains(got.stderr, "a: caps[0].n is 0: it must be from 1 to 10000") || !strings.Contains(got.stderr, `B: category "B" has a character`) {
		t.Errorf("%d: %s", got.code, got.stderr)
	}
}

func TestProfilesArePatchedAndErased(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	b.whisper(t, "profile", "patch", "--user=mona", `{"timezone":"Africa/Cairo"}`)
	b.whisper(t, "profile", "erase", "--user=mona")
	recs := b.read(t, consumers.TopicProfiles)
	if len(recs) != 2 || string(recs[0].Value) != `{"timezone":"Africa/Cairo"}` || recs[1].Value != nil || string(recs[1].Key) != "mona" || recs[0].Partition != recs[1].Partition {
		t.Errorf("%d records: %v", len(recs), recs)
	}
	got := whisper(t, nil, "profile", "patch", "--user=mona", `{"timezone":"Mars/Olympus_Mons"}`, "--kafka="+b.addr)
	if got.code != exitUsage || !strings.Contains(got.stderr, "is not a time zone of the IANA database") {
		t.Errorf("%d: %s", got.code, got.stderr)
	}
}
