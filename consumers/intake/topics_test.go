package intake

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/klivvr/whisper/consumers"
)

func TestProfilesAreRekeyedByUser(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const patch = `{"locale": "ar-EG",  "endpoints": {"iphone": {"channel": "apns", "token": "t"}}}`
	profile := func(key, value string) *kgo.Record {
		rec := &kgo.Record{Topic: consumers.TopicProfiles, Partition: 1, Value: []byte(value)}
		if key != "" {
			rec.Key = []byte(key)
		}
		return rec
	}
	old := profile("omar", `{"locale":null}`)
	old.Timestamp = started.AddDate(-1, 0, 0)
	b.publish(
		profile("mona", patch), profile("", patch), profile(strings.Repeat("k", 129), patch), profile("mona", `{"name":"Mona"}`),
		profile("mona", `[`), &kgo.Record{Topic: consumers.TopicProfiles, Partition: 1, Key: []byte("mona")}, old,
	)
	b.start(b.config())
	adm, err := b.client.Admin()
	if err != nil {
		t.Fatal(err)
	}
	defer adm.Close()
	topics, err := adm.ListTopics(t.Context(), consumers.TopicProfiles)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	var offsets []int64
	for _, rec := range b.read(consumers.TopicChanges, 3) {
		user := string(rec.Key)
		if rec.Partition != consumers.PartitionOf(user, partitions) {
			t.Errorf("%s is on partition %d", user, rec.Partition)
		}
		if !rec.Timestamp.Equal(started) {
			t.Errorf("%s: the time is %s", user, rec.Timestamp)
		}
		if len(rec.Headers) != 2 || rec.Headers[0].Key != "traceparent" {
			t.Errorf("%s: headers are %v", user, headersOf(rec))
		}
		if source, ok := consumers.SourceOf(rec); !ok || source.Partition != 1 || source.Topic != [16]byte(topics[consumers.TopicProfiles].ID) {
			t.Errorf("%s: it comes from %v", user, source)
		} else {
			offsets = append(offsets, source.Offset)
		}
		got[user] = append(got[user], fmt.Sprintf("%v %s", rec.Value == nil, rec.Value))
	}
	if fmt.Sprint(got["mona"]) != fmt.Sprintf("[false %s true ]", patch) || fmt.Sprint(got["omar"]) != `[false {"locale":null}]` {
		t.Errorf("changes are %v", got)
	}
	if slices.Sort(offsets); !slices.Equal(offsets, []int64{0, 5, 6}) {
		t.Errorf("they come from offsets %v", offsets)
	}
	for i, want := range []deadLetter{
		{"the key, which names the user, is empty", consumers.TopicProfiles, "1", "1", patch},
		{"the key, which names the user, has 129 bytes, at most 128 are allowed", consumers.TopicProfiles, "1", "2", patch},
		{`unknown field "name"; known are locale, timezone, attributes, endpoints, preferences, quiet_hours`, consumers.TopicProfiles, "1", "3", `{"name":"Mona"}`},
		{"the profile patch is cut off: its JSON ends after 1 bytes, in the middle of a value", consumers.TopicProfiles, "1", "4", "["},
	} {
		if got := b.deadLetters(4)[i]; got != want {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	}
}

// TestABadFieldLeavesTheRestOfItsPatch: the phone's token is handed on, the dead letter has the rest and only the rest.
// A crash before the commit changes nothing but that the letter is there twice.
func TestABadFieldLeavesTheRestOfItsPatch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.publish(&kgo.Record{Topic: consumers.TopicProfiles, Partition: 1, Key: []byte("mona"), Value: []byte(
		`{"locale":"pt_BR","timezone":"UTC+3","endpoints":{"phone":{"channel":"apns","token":"t"},"watch":{"channel":"pigeon","token":"secret"}}}`,
	)}, &kgo.Record{Topic: consumers.TopicProfiles, Partition: 1, Key: []byte("mona"), Value: []byte(`{"locale":"de"}`)})
	for round := 1; round <= 2; round++ {
		_, stop := b.start(b.config())
		var sources []int64
		for i, rec := range b.read(consumers.TopicChanges, 2*round) {
			if want := []string{`{"locale":"pt-BR","endpoints":{"phone":{"channel":"apns","token":"t"}}}`, `{"locale":"de"}`}[i%2]; string(rec.Value) != want {
				t.Errorf("handed on: %s, want %s", rec.Value, want)
			}
			source, _ := consumers.SourceOf(rec)
			sources = append(sources, source.Offset)
		}
		if want := []int64{0, 1, 0, 1}[:2*round]; !slices.Equal(sources, want) {
			t.Errorf("they come from %v, want %v", sources, want)
		}
		for _, rec := range b.read(consumers.TopicDeadLetters, round) {
			if want := `{"timezone":"UTC+3","endpoints":{"watch":{"channel":"pigeon","token":"secret"}}}`; string(rec.Value) != want || string(rec.Key) != "mona" {
				t.Errorf("the letter of %s holds %s, want %s", rec.Key, rec.Value, want)
			}
			headers := fmt.Sprint(headersOf(rec))
			for _, want := range []string{
				`error=timezone "UTC+3" is not a time zone of the IANA database such as "Africa/Cairo"; endpoints.watch: unknown channel "pigeon" for an endpoint`,
				"topic=whisper.profiles", "partition=1", "offset=0", "refused=timezone, endpoints.watch",
			} {
				if !strings.Contains(headers, want) {
					t.Errorf("headers %s do not say %s", headers, want)
				}
			}
			if strings.Contains(headers, "secret") {
				t.Errorf("a token is told: %s", headers)
			}
		}
		b.eventually("it is committed", func() bool { return b.committed(consumers.TopicProfiles) == 2 })
		stop()
		b.rewind()
	}
}

func templateRecord(key, value string) *kgo.Record {
	rec := &kgo.Record{Topic: consumers.TopicTemplates, Key: []byte(key)}
	if value != "" {
		rec.Value = []byte(value)
	}
	return rec
}

func templated(user, id, variables string) *kgo.Record {
	return requestRecord(fmt.Sprintf(`{"to":{"users":[%q]},"template":%q,"variables":%s}`, user, id, variables))
}

const greeting = `{"default_locale":"en","locales":{"en":{"body":"Hello {{ name }}"}}}`

func TestRequestsNameTemplatesThatExist(t *testing.T) {
	t.Parallel()
	b := setup(t)
	broken := `{"default_locale":"en","locales":{"en":{"body":"{% liquid %}"}}}`
	b.publish(templateRecord("greeting", greeting), templateRecord("broken", broken), templateRecord("gone", greeting),
		templateRecord("gone", ""))
	b.publish(
		templated("mona", "greeting", `{"name":"Mona"}`), templated("u", "greeting", `{}`), templated("u", "broken", `{"name":"x"}`),
		templated("u", "gone", `{"name":"x"}`), templated("u", "never", `{}`),
	)
	b.start(b.config())
	acc := b.events(toHigh, 1)["mona"].GetDeliveryAccepted()
	if acc.GetTemplate() != "greeting" || string(acc.GetVariables()) != `{"name":"Mona"}` || acc.GetTemplateVersion() != 0 {
		t.Errorf("accepted %v", acc)
	}
	why := "locales.en.body: {% liquid %}: unknown tag liquid; known are if, unless, case, for, assign, capture, comment, raw, break, continue"
	reasons := map[string]deadLetter{}
	for _, letter := range b.deadLetters(5) {
		reasons[letter.topic+"/"+letter.offset] = letter
	}
	for at, want := range map[string]string{
		"whisper.templates/1":     why,
		"whisper.requests.high/1": `template "greeting": variable name is missing`,
		"whisper.requests.high/2": `template "broken" can't be used: ` + why,
		"whisper.requests.high/3": `unknown template "gone": whisper.templates has none of that key`,
		"whisper.requests.high/4": `unknown template "never": whisper.templates has none of that key`,
	} {
		if got := reasons[at].reason; got != want {
			t.Errorf("%s\ngot  %s\nwant %s", at, got, want)
		}
	}
}

// version is what `whisper templates apply` writes: the version's own record, then the template's.
func version(id string, n int, value string) []*kgo.Record {
	current := templateRecord(id, value)
	current.Headers = []kgo.RecordHeader{{Key: consumers.HeaderVersion, Value: []byte(strconv.Itoa(n))}}
	return []*kgo.Record{templateRecord(fmt.Sprintf("%s@%d", id, n), value), current}
}

// TestDeliveriesSpeakOfOneVersion: the current one when the request was taken, or the one that it pins.
func TestDeliveriesSpeakOfOneVersion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	second := strings.Replace(greeting, "Hello", "Good day", 1)
	b.publish(append(version("greeting", 1, greeting), version("greeting", 2, second)...)...) // offsets 0 to 3
	unversioned := templateRecord("direct", greeting)
	odd := templateRecord("odd", greeting)
	odd.Headers = []kgo.RecordHeader{{Key: consumers.HeaderVersion, Value: []byte("7")}} // whose own record is not there
	b.publish(unversioned, odd)                                                          // 4, 5
	b.start(b.config())
	for _, id := range []string{"greeting", "greeting@1", "greeting@2", "direct", "odd"} {
		b.publish(templated(id, id, `{"name":"Mona"}`))
	}
	b.publish(templated("never", "greeting@3", `{"name":"Mona"}`))
	events := b.events(toHigh, 5)
	for user, want := range map[string]string{
		"greeting": "greeting@2 2", "greeting@1": "greeting@1 0", "greeting@2": "greeting@2 2",
		"direct": "direct 4", "odd": "odd 5",
	} {
		acc := events[user].GetDeliveryAccepted()
		if got := fmt.Sprint(acc.GetTemplate(), " ", acc.GetTemplateVersion()); got != want {
			t.Errorf("%s: %s, want %s", user, got, want)
		}
	}
	if got, want := b.deadLetters(1)[0].reason, `unknown template "greeting@3": whisper.templates has none of that key`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// The next one that is applied is for later requests.
	b.publish(version("greeting", 3, greeting)...)
	b.publish(templated("later", "greeting@3", `{"name":"Mona"}`), templated("now", "greeting", `{"name":"Mona"}`))
	if got := b.events(toHigh, 7)["now"].GetDeliveryAccepted().GetTemplate(); got != "greeting@3" {
		t.Errorf("now: %s", got)
	}
}

func TestTemplateWrittenJustBeforeItsRequestIsWaitedFor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.start(b.config())
	for i := range 20 {
		id := fmt.Sprintf("greeting-%d", i)
		b.publish(templateRecord(id, greeting))
		b.publish(templated(id, id, `{"name":"Mona"}`))
	}
	events := b.events(toHigh, 20)
	for i := range 20 {
		if got := events[fmt.Sprintf("greeting-%d", i)].GetDeliveryAccepted().GetTemplateVersion(); got != int64(i) {
			t.Errorf("request %d saw version %d", i, got)
		}
	}
}

func TestBadTemplateIsDeadLetteredOnceForAllProcessesAndRestarts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.publish(templateRecord("broken", `{}`), templateRecord("", greeting))
	_, stop := b.start(b.config())
	b.start(b.config())
	b.deadLetters(2)
	b.eventually("they are committed", func() bool { return b.committed(consumers.TopicTemplates) == 2 })
	stop()
	b.start(b.config())
	b.publish(requestRecord("bad"))
	letters := b.deadLetters(3)
	if len(letters) != 3 || letters[2].topic != high {
		t.Errorf("dead letters are %v", letters)
	}
	if want := "the key, which names the template, is empty"; letters[1].reason != want {
		t.Errorf("got %s", letters[1].reason)
	}
}

func TestConfigNamesEveryBadSetting(t *testing.T) {
	t.Parallel()
	_, err := New(Config{TemplateWait: time.Hour})
	want := "partitions: 0 is out of range: give at least 1\ntemplate-wait: 1h0m0s is out of range: give more than 0s, at most 1m\nkafka: give at least one broker address (host:port)"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}
