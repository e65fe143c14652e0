package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// file is a template in a file of that name.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const greetingYAML = `default_locale: en
locales:
  en: {body: "Hello {{ user.attributes.name }}, {{ count }} of 2026-11-24", data: {at: 2026-11-24, n: 1.50, big: 12345678901234567890, yes: true, none: null, list: [a, 2]}}
  no: {body: "Hei"}
`

// templateLine is part of what `whisper templates list --json` prints.
type templateLine struct {
	ID       string
	Version  int64
	Versions []int64
	Locales  []string
}

// previewed is part of what `whisper templates preview --json` prints.
type previewed struct {
	Template, Locale, Body string
	PerUser                bool `json:"per_user"`
}

func TestTemplatesAreCheckedWithoutKafka(t *testing.T) {
	t.Parallel()
	got := whisper(t, nil, "templates", "check", file(t, "greeting.yaml", greetingYAML), file(t, "x.json", `{"id": "other", "default_locale": "en", "locales": {"en": {"body": "b"}}}`))
	for i, want := range []string{"greeting is fine: in en, nb; needs count", "other is fine: in en; needs no variables"} {
		if l := lines(got.stdout); len(l) != 2 || !strings.HasSuffix(l[i], want) {
			t.Errorf("printed %q, want %s", l, want)
		}
	}
	for name, tt := range map[string]struct{ text, want string }{
		"a.yaml":     {"default_locale: en\nlocales: {en: {body: '{{ a | shout }} {% if %}'}, ar: {title: '{{ user.token }}'}}", "locales.en.body: {{ a | shout }}: unknown filter shout"},
		"b.yaml":     {"- x", "is not a template: fields such as default_locale and locales are expected"},
		"c.yaml":     {"a: [", "is not YAML: yaml: line 1"},
		"d.yaml":     {"a: &x 1\nb: *x", "line 2: anchors and aliases are not supported"},
		"e.yaml":     {"a: 1\na: 2", "line 2: a is set twice"},
		"twice.json": {`{"default_locale":"en","default_locale":"ar","locales":{}}`, "twice"},
		"f.json":     {`[]`, "must be a JSON object"},
		"g.json":     {`{} {}`, "there is more behind it"},
		"h@1.yaml":   {greetingYAML, `id "h@1" has an @: behind one stands a version`},
		"i.yaml":     {"id: 7\n" + greetingYAML, "id must be a string"},
		"j.yaml":     {greetingYAML + "nothing: x\n", `unknown field "nothing"; known are default_locale, timezone, locales`},
	} {
		got := whisper(t, nil, "templates", "check", file(t, name, tt.text))
		if got.code != exitError || !strings.Contains(got.stdout, tt.want) {
			t.Errorf("%s: exit code %d, printed %s", name, got.code, got.stdout)
		}
	}
	out := decode[struct {
		ID       string
		Problems []string
	}](t, whisper(t, nil, "templates", "check", "--json", file(t, "a.yaml", "default_locale: en\nlocales: {en: {body: '{{ a; }}'}, ar: {title: '{% end %}'}}")).stdout)
	if out.ID != "a" || len(out.Problems) != 2 {
		t.Errorf("printed %+v", out)
	}
}

func TestApplyMakesVersionsThatNeverChange(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	path := file(t, "greeting.yaml", greetingYAML)
	apply := func(want string, args ...string) {
		t.Helper()
		if got := strings.TrimSpace(b.whisper(t, append([]string{"templates", "apply", path}, args...)...)); got != want {
			t.Errorf("printed %s, want %s", got, want)
		}
	}
	apply("greeting: version 1")
	apply("greeting: unchanged, stays version 1")
	change := func(old, by string) {
		t.Helper()
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(source), old, by)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	change("Hello", "Good day")
	apply("greeting: version 2")
	change("Good day", "Hello")
	apply("greeting: version 3")
	recs := b.read(t, consumers.TopicTemplates)
	var keys []string
	for _, rec := range recs {
		keys = append(keys, fmt.Sprintf("%s/%d", rec.Key, consumers.TemplateVersionOf(rec)))
	}
	if got, want := strings.Join(keys, " "), "greeting@1/0 greeting/1 greeting@2/0 greeting/2 greeting@3/0 greeting/3"; got != want {
		t.Errorf("wrote %s\nwant  %s", got, want)
	}
	want := `{"default_locale":"en","locales":{"en":{"body":"Hello {{ user.attributes.name }}, {{ count }} of 2026-11-24","data":{"at":"2026-11-24","big":12345678901234567890,"list":["a",2],"n":1.50,"none":null,"yes":true}},"no":{"body":"Hei"}}}`
	if got := strings.TrimSpace(b.whisper(t, "templates", "show", "greeting@1")); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	listed := decode[templateLine](t, b.whisper(t, "templates", "list", "--json"))
	if listed.ID != "greeting" || listed.Version != 3 || len(listed.Versions) != 3 || len(listed.Locales) != 2 {
		t.Errorf("listed %+v", listed)
	}
	// What upstream writes itself becomes a version with the next apply.
	b.write(t, &kgo.Record{Topic: consumers.TopicTemplates, Key: []byte("greeting"), Value: recs[5].Value})
	apply("greeting: version 4")
	got := whisper(t, nil, "templates", "show", "greeting@9", "--kafka="+b.addr)
	if got.code != exitError || !strings.Contains(got.stderr, "template greeting has no version 9; it has [1 2 3 4]") {
		t.Errorf("exit code %d, %s", got.code, got.stderr)
	}
	got = whisper(t, nil, "templates", "apply", path, file(t, "bad.yaml", "default_locale: en"), "--kafka="+b.addr)
	if got.code != exitError || !strings.Contains(got.stderr, "there are no locales") || len(b.read(t, consumers.TopicTemplates)) != 9 {
		t.Errorf("a bad file beside a good one: exit code %d, %s", got.code, got.stderr)
	}
}

// TestOldVersionsAreRemoved when they were replaced so long ago that no delivery can be waiting for them.
func TestOldVersionsAreRemoved(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	const value = `{"default_locale":"en","locales":{"en":{"body":"b"}}}`
	for version, days := range []int{0, 200, 100, 50, 1} {
		if version > 0 {
			at := time.Now().Add(-time.Duration(days) * 24 * time.Hour)
			b.write(t, &kgo.Record{Topic: consumers.TopicTemplates, Key: fmt.Appendf(nil, "x@%d", version), Value: []byte(value), Timestamp: at})
		}
	}
	if got := b.whisper(t, "templates", "apply", file(t, "x.json", value)); got != "x: version 5; removed 1 old versions\n" { // 1 was replaced 100 days ago
		t.Errorf("printed %s", got)
	}
	if got := decode[templateLine](t, b.whisper(t, "templates", "list", "--json")); fmt.Sprint(got.Versions) != "[2 3 4 5]" {
		t.Errorf("left %v", got.Versions)
	}
	got := whisper(t, nil, "templates", "apply", file(t, "x.json", value), "--keep=24h", "--kafka="+b.addr)
	if got.code != exitUsage || !strings.Contains(got.stderr, "keep: 24h0m0s is shorter than deliveries may wait") {
		t.Errorf("exit code %d, %s", got.code, got.stderr)
	}
}

func TestPreviewIsWhatAUserWouldGet(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	b.whisper(t, "templates", "apply", file(t, "greeting.yaml", greetingYAML))
	profile, err := proto.Marshal(&whisperv1.Profile{Locale: "en-GB", Attributes: []byte(`{"name":"Mona"}`)})
	if err != nil {
		t.Fatal(err)
	}
	b.write(t, &kgo.Record{Topic: consumers.TopicUsers, Partition: consumers.PartitionOf("mona", 3), Key: []byte("mona"), Value: profile})
	got := decode[previewed](t, b.whisper(t, "templates", "preview", "greeting", "--user=mona", `--variables={"count": 3}`, "--json"))
	if got.Template != "greeting@1" || got.Locale != "en" || !got.PerUser || got.Body != "Hello Mona, 3 of 2026-11-24" {
		t.Errorf("previewed %+v", got)
	}
	for _, tt := range []struct {
		want string
		args []string
	}{
		{"there is no template \"never\"", []string{"never"}},
		{"intake would refuse the request: variable count is missing", []string{"greeting", "--user=mona"}},
		{"in en: body: user.attributes.name is missing", []string{"greeting", "--var=count=3"}},
		{"user omar has no profile", []string{"greeting", "--user=omar"}},
		{"file: give either the id of a template or a file", []string{}},
		{`variables: "[]" is not a JSON object`, []string{"greeting", "--variables=[]"}},
		{`profile: unknown field "x"`, []string{"greeting", `--profile={"x":1}`}},
	} {
		got := whisper(t, nil, append([]string{"templates", "preview", "--kafka=" + b.addr}, tt.args...)...)
		if got.code == exitOK || !strings.Contains(got.stderr, tt.want) {
			t.Errorf("%v: exit code %d, %s", tt.args, got.code, got.stderr)
		}
	}
}

func TestSendTakesVariablesOfAnyKind(t *testing.T) {
	t.Parallel()
	got := whisper(t, nil, "send", "--user=mona", "--template=card@2", `--variables={"amount": 120.50, "name": "x"}`, "--var=name=Omar", "--dry-run")
	if want := `{"to":{"users":["mona"]},"template":"card@2","variables":{"amount":120.50,"name":"Omar"}}`; strings.TrimSpace(got.stdout) != want {
		t.Errorf("got  %s\nwant %s", got.stdout, want)
	}
	got = whisper(t, nil, "send", "--user=mona", "--body=x", "--variables={}", "--dry-run")
	if got.code != exitUsage || !strings.Contains(got.stderr, "variables: only templates have variables") {
		t.Errorf("exit code %d, %s", got.code, got.stderr)
	}
}

// TestATemplateReachesItsReaders: from a file, through intake, dispatch and a socket, in each one's language; and
// Postgres tells which version it was.
func TestATemplateReachesItsReaders(t *testing.T) {
	t.Parallel()
	dev := startDev(t, "--ephemeral", "--partitions=3")
	addr := dev.find(t, `Kafka +(\S+),`)
	kafka, socket := "--kafka="+addr, "--url="+dev.find(t, `sockets +(\S+)`)
	postgres := "--postgres=" + dev.find(t, `Postgres +(postgres://\S+)`)
	cl, err := consumers.NewPublisher(consumers.ClientConfig{Brokers: []string{addr}, ClientID: "test"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	for user, profile := range map[string]string{"mona": `{"locale":"ar-EG","attributes":{"name":"منى"}}`, "omar": `{"locale":"en-GB","attributes":{"name":"Omar"}}`} {
		if err := cl.PublishSync(t.Context(), &kgo.Record{
			Topic: consumers.TopicProfiles, Key: []byte(user),
			Value: []byte(profile),
		}); err != nil {
			t.Fatal(err)
		}
	}
	path := file(t, "card.yaml", `{default_locale: en, locales: {
  en: {body: "{{ user.attributes.name }}, you paid {{ amount | number: decimals: 2 }}"},
  ar: {body: "{{ user.attributes.name }}، دفعت {{ amount | number: decimals: 2 }}"}}}`)
	if got := whisper(t, nil, "templates", "apply", path, kafka); got.code != exitOK {
		t.Fatal(got.stderr)
	}
	eventually(t, "the profiles are known", func() bool {
		return whisper(t, nil, "templates", "preview", "card", "--user=mona", "--variables={\"amount\": 1}", kafka).code == exitOK &&
			whisper(t, nil, "templates", "preview", "card", "--user=omar", "--variables={\"amount\": 1}", kafka).code == exitOK
	})
	heard := map[string]*written{}
	for _, user := range []string{"mona", "omar"} {
		heard[user], _, _ = background(t, nil, "listen", "--user="+user, socket, "--json", "--count=1")
		eventually(t, user+" listens", func() bool { return strings.Contains(heard[user].String(), `"welcome"`) })
	}
	if got := whisper(t, nil, "send", "--user=mona", "--user=omar", "--user=lina", "--id=n-1", "--template=card", `--variables={"amount": 120.5}`, "--channels=socket", kafka); got.code != exitOK {
		t.Fatal(got.stderr)
	}
	for user, want := range map[string]string{"mona": "منى، دفعت ١٢٠٫٥٠", "omar": "Omar, you paid 120.50"} {
		eventually(t, user+" reads it", func() bool { return strings.Contains(heard[user].String(), want) })
	}
	eventually(t, "lina, who has no name, is told why", func() bool {
		return strings.Contains(whisper(t, nil, "deliveries", "list", postgres, "--user=lina").stdout, `reason="template card@1: body: user.attributes.name is missing"`)
	})
	listed := decode[struct {
		DeliveryID string `json:"delivery_id"`
	}](t, lines(whisper(t, nil, "deliveries", "list", postgres, "--user=omar", "--json").stdout)[0])
	if got := whisper(t, nil, "deliveries", "show", listed.DeliveryID, postgres); !strings.Contains(got.stdout,
		"template=card template_version=1\n") {
		t.Errorf("show: %s%s", got.stdout, got.stderr)
	}
}
