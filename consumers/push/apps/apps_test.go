package apps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/VictoriaMetrics/metrics"

	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// fake is a provider that accepts everything, in the name of its key.
type fake struct {
	channel, key string
	block        chan struct{} // if not nil, Send waits for it
	refused      error
	closed       atomic.Bool
	apps         chan string
	app          string // the default
}

func (f *fake) Channel() string    { return f.channel }
func (f *fake) Name() string       { return f.channel }
func (f *fake) Ready() error       { return f.refused }
func (f *fake) DefaultApp() string { return f.app }
func (f *fake) Close()             { f.closed.Store(true) }

func (f *fake) Send(_ context.Context, p *whisperv1.Push) push.Result {
	f.apps <- p.GetApp()
	if f.block != nil {
		<-f.block
	}
	return push.Result{ProviderID: f.key}
}

type fixture struct {
	*Set
	t    *testing.T
	dir  string
	logs bytes.Buffer
	set  *metrics.Set

	mu   sync.Mutex
	made []*fake
}

func (f *fixture) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) provider(channel, key string) *fake {
	p := &fake{channel: channel, key: key, apps: make(chan string, 100)}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.made = append(f.made, p)
	return p
}

// channel has credentials with one field, the file of a key, which must begin with "key ".
func (f *fixture) channel(name string) Channel {
	return Channel{Name: name, Open: func(c *Credential) (push.Provider, error) {
		var s struct {
			KeyFile string `yaml:"key_file"`
			Size    int    `yaml:"size"`
		}
		if err := c.Decode(&s); err != nil {
			return nil, err
		}
		key, err := c.File(s.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("key_file: %w", err)
		}
		if !strings.HasPrefix(string(key), "key ") {
			return nil, errors.Join(errors.New("key_file: not a key"), errors.New("key_file: still not"))
		}
		return f.provider(name, string(key)), nil
	}}
}

func prepare(t *testing.T) *fixture {
	f := &fixture{t: t, dir: t.TempDir(), set: metrics.NewSet()}
	f.write("a.key", "key a")
	f.write("b.key", "key b")
	return f
}

func (f *fixture) open(given ...push.Provider) error {
	f.t.Helper()
	cfg := Config{
		File: filepath.Join(f.dir, "apps.yaml"), Channels: []Channel{f.channel("apns"), f.channel("fcm")}, Given: given,
		Logger: slog.New(slog.NewTextHandler(&f.logs, nil)), Metrics: f.set,
	}
	var err error
	if f.Set, err = New(cfg); err == nil {
		f.t.Cleanup(f.Close)
	}
	return err
}

const two = `
default: com.a
apns:
  - {apps: [com.a, com.a2], key_file: a.key}
  - {apps: [com.b], name: b-team, key_file: b.key}
fcm:
  - {apps: [com.b], key_file: b.key}
`

func setup(t *testing.T, text string) *fixture {
	t.Helper()
	f := prepare(t)
	f.write("apps.yaml", text)
	if err := f.open(); err != nil {
		t.Fatal(err)
	}
	return f
}

// sent returns which key an attempt went with, or why not.
func (f *fixture) sent(channel, app string) string {
	f.t.Helper()
	r := f.routers[channel].Send(f.t.Context(), &whisperv1.Push{App: app})
	if r.Sent() {
		return r.ProviderID
	}
	return r.Reason
}

func (f *fixture) want(channel string, keys map[string]string) {
	f.t.Helper()
	for app, want := range keys {
		if got := f.sent(channel, app); got != want {
			f.t.Errorf("%s, app %q: got %q, want %q", channel, app, got, want)
		}
	}
}

func TestEachAppHasItsCredential(t *testing.T) {
	t.Parallel()
	f := setup(t, two)
	if n := len(f.Providers()); n != 2 || f.Providers()[0].Channel() != "apns" {
		t.Fatalf("%d providers", n)
	}
	f.want("apns", map[string]string{"com.a": "key a", "com.a2": "key a", "com.b": "key b", "": "key a"})
	f.want("fcm", map[string]string{"com.b": "key b", "com.a": "no_credential", "": "no_credential"})
	if app := <-f.made[0].apps; !strings.HasPrefix(app, "com.a") {
		t.Errorf("the provider got the app %q", app)
	}
}

func TestAnAppWithoutCredentialIsToldOnce(t *testing.T) {
	t.Parallel()
	f := setup(t, two)
	for range 5 {
		f.want("apns", map[string]string{"com.none": "no_credential", "com.other": "no_credential"})
	}
	if n := strings.Count(f.logs.String(), "has no credential"); n != 2 {
		t.Errorf("told %d times: %s", n, f.logs.String())
	}
	if n := f.set.GetOrCreateCounter(`whisper_push_no_credential_total{channel="apns"}`).Get(); n != 10 {
		t.Errorf("counted %d", n)
	}
	r := f.routers["apns"].Send(t.Context(), &whisperv1.Push{App: "com.none"})
	if r.Class != whisperv1.FailureClass_FAILURE_CLASS_STOP || r.Bug {
		t.Errorf("got %+v", r)
	}
}

func TestFlagsServeTheOtherApps(t *testing.T) {
	t.Parallel()
	f := prepare(t)
	f.write("apps.yaml", "apns:\n  - {apps: [com.b], key_file: b.key}\n")
	flags := f.provider("apns", "flags")
	if err := f.open(flags); err != nil {
		t.Fatal(err)
	}
	f.want("apns", map[string]string{"com.b": "key b", "com.any": "flags", "": "flags"})
	f.write("b.key", "key b2")
	f.follow()
	f.want("apns", map[string]string{"com.b": "key b2", "com.any": "flags", "": "flags"})
	if flags.closed.Load() {
		t.Error("the flags' provider is closed")
	}
	f.write("apps.yaml", "apns:\n  - {apps: ['*'], key_file: b.key}\n")
	f.follow()
	if !strings.Contains(f.logs.String(), "so have the flags") {
		t.Errorf("told: %s", f.logs.String())
	}
	f.want("apns", map[string]string{"com.b": "key b2", "com.any": "flags"})
}

func TestOnlyFlags(t *testing.T) {
	t.Parallel()
	f := &fixture{t: t, set: metrics.NewSet()}
	var err error
	if f.Set, err = New(Config{Given: []push.Provider{f.provider("apns", "flags")}, Metrics: f.set}); err != nil {
		t.Fatal(err)
	}
	f.want("apns", map[string]string{"com.any": "flags", "": "flags"})
}

func TestTheOnlyAppIsTheDefault(t *testing.T) {
	t.Parallel()
	f := setup(t, "apns:\n  - {apps: [com.a], key_file: a.key}\n")
	f.want("apns", map[string]string{"": "key a", "com.b": "no_credential"})
}

// Each problem of a file, all at once.
func TestBadFiles(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"all at once": {
			"default: com.z\nsms:\n  - {}\napns:\n  - {apps: [com.a], key_file: none.key}\n  - {apps: [com.b], key_file: bad.key}\n" +
				"  - {apps: [com.c], key_fil: a.key, size: x}\n  - {key_file: a.key}\n",
			[]string{
				"apps.yaml:2: unknown channel \"sms\": there are apns, fcm", "no credential names the app com.z",
				"apps.yaml:5: apns com.a: key_file: stat ", "apps.yaml:6: apns com.b: key_file: not a key",
				"apps.yaml:6: apns com.b: key_file: still not", "apps.yaml:7: apns com.c: unknown field \"key_fil\" in line 7: there are apps, name, key_file, size",
				"cannot unmarshal !!str `x` into int", "apps.yaml:8: apns: apps: missing",
			},
		},
		"empty":           {"", []string{"it is empty"}},
		"not yaml":        {"apns: [", []string{"apps.yaml: yaml: "}},
		"another form":    {"- apns", []string{"not a table of channels"}},
		"no list":         {"apns: {}", []string{"give a list of credentials"}},
		"an empty list":   {"apns: []", []string{"give a list of credentials"}},
		"only a default":  {"default: com.a", []string{"names no credential"}},
		"default no text": {"default: [com.a]\napns:\n  - {apps: [com.a], key_file: a.key}", []string{"name the app of endpoints that name none"}},
		"no table":        {"apns: [a.key]", []string{"a credential is a table"}},
		"an app twice": {
			"apns:\n  - {apps: [com.a], key_file: a.key}\n  - {apps: [com.a], name: b, key_file: b.key}",
			[]string{"apps.yaml:3: apns: the app com.a has a credential in line 2 already"},
		},
		"a name twice": {
			"apns:\n  - {apps: [com.a], name: x, key_file: a.key}\n  - {apps: [com.b], name: x, key_file: b.key}",
			[]string{"the name x is that of line 2"},
		},
		"a channel twice": {"apns:\n  - {apps: [com.a], key_file: a.key}\napns:\n  - {apps: [com.b], key_file: b.key}", []string{"apns comes twice"}},
		"a bad name":      {"apns:\n  - {apps: [com.a], name: 'a b', key_file: a.key}", []string{"name: \"a b\" is not"}},
		"an empty app":    {"apns:\n  - {apps: [''], key_file: a.key}", []string{"is not 1 to 256 bytes"}},
		"apps no list":    {"apns:\n  - {apps: {a: b}, key_file: a.key}", []string{"apps: give a list"}},
		"a folder":        {"apns:\n  - {apps: [com.a], key_file: .}", []string{"is a folder"}},
		"a huge file":     {"apns:\n  - {apps: [com.a], key_file: huge}", []string{"at most 1048576 are read"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := prepare(t)
			f.write("bad.key", "hello")
			f.write("huge", strings.Repeat("x", 1<<21))
			f.write("apps.yaml", c.text)
			err := f.open()
			if err == nil {
				t.Fatal("it is taken")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in:\n%v", want, err)
				}
			}
			for _, made := range f.made {
				if !made.closed.Load() {
					t.Error("a provider is left open")
				}
			}
		})
	}
	f := prepare(t)
	if err := f.open(); err == nil || !strings.Contains(err.Error(), "apps.yaml") {
		t.Errorf("no file: %v", err)
	}
}

func TestAChangeIsTakenWhereItIs(t *testing.T) {
	t.Parallel()
	f := setup(t, two)
	f.follow()
	if len(f.made) != 3 || f.logs.Len() > 0 {
		t.Fatalf("without a change %d providers, told %s", len(f.made), f.logs.String())
	}
	f.write("a.key", "key a2")
	f.follow()
	f.want("apns", map[string]string{"com.a": "key a2", "com.b": "key b"})
	if len(f.made) != 4 || !f.made[0].closed.Load() || f.made[1].closed.Load() {
		t.Errorf("%d providers were made; closed: %v, %v", len(f.made), f.made[0].closed.Load(), f.made[1].closed.Load())
	}
	f.write("apps.yaml", strings.Replace(two, "[com.b], name", "[com.b, com.c], name", 1))
	f.want("apns", map[string]string{"com.c": "no_credential"})
	f.follow()
	f.want("apns", map[string]string{"com.a": "key a2", "com.c": "key b"})
	f.write("apps.yaml", "apns:\n  - {apps: [com.a, com.a2], key_file: a.key}\nfcm:\n  - {apps: [com.b], key_file: b.key}\n")
	f.follow()
	f.want("apns", map[string]string{"com.a": "key a2", "com.b": "no_credential", "com.c": "no_credential"})
	if n := strings.Count(f.logs.String(), "was read again"); n != 3 {
		t.Errorf("told %d times: %s", n, f.logs.String())
	}
}

func TestABadReplacementIsToldAndAllStays(t *testing.T) {
	t.Parallel()
	f := setup(t, two)
	same := map[string]string{"com.a": "key a", "com.b": "key b"}
	for i, spoil := range []func(){
		func() { f.write("a.key", "half a k") },
		func() { _ = os.Remove(filepath.Join(f.dir, "a.key")) },
		func() { f.write("apps.yaml", "apns: [") },
		func() { _ = os.Remove(filepath.Join(f.dir, "apps.yaml")) },
		func() { f.write("apps.yaml", "apns:\n  - {apps: [com.b], key_file: b.key}\n") }, // a channel is missing
	} {
		spoil()
		f.follow()
		f.follow()
		f.want("apns", same)
		f.want("fcm", map[string]string{"com.b": "key b"})
		if n := f.set.GetOrCreateCounter(`whisper_push_apps_reloads_total{outcome="refused"}`).Get(); n != uint64(i+1) {
			t.Errorf("replacement %d: told %d times", i, n)
		}
	}
	for _, made := range f.made[:3] {
		if made.closed.Load() {
			t.Error("a provider in use is closed")
		}
	}
	f.write("a.key", "key a3")
	f.write("apps.yaml", two)
	f.follow()
	f.want("apns", map[string]string{"com.a": "key a3", "com.b": "key b"})
	if strings.Contains(f.logs.String(), "half a k") {
		t.Error("the log has a secret")
	}
}

// A provider that is replaced ends its attempts before it is closed.
func TestAttemptsOutliveTheirCredential(t *testing.T) {
	t.Parallel()
	f := setup(t, two)
	old := f.made[0]
	old.block = make(chan struct{})
	results := make(chan string)
	go func() { results <- f.sent("apns", "com.a") }()
	<-old.apps
	f.write("a.key", "key a2")
	f.follow()
	f.want("apns", map[string]string{"com.a": "key a2"})
	if old.closed.Load() {
		t.Error("closed under an attempt")
	}
	close(old.block)
	if got := <-results; got != "key a" || !old.closed.Load() {
		t.Errorf("got %q, closed: %v", got, old.closed.Load())
	}
}

// TestReplacingUnderLoad is for the race detector, too.
func TestReplacingUnderLoad(t *testing.T) {
	t.Parallel()
	f := setup(t, two)
	var all sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if got := f.sent("apns", "com.a2"); !strings.HasPrefix(got, "key a") {
					t.Errorf("got %q", got)
					return
				}
				f.mu.Lock()
				for _, made := range f.made {
					for len(made.apps) > 0 {
						<-made.apps
					}
				}
				f.mu.Unlock()
			}
		})
	}
	for i := range 50 {
		f.write("a.key", fmt.Sprint("key a", i))
		f.follow()
	}
	close(stop)
	all.Wait()
}

func TestReadyIfOneCredentialIs(t *testing.T) {
	t.Parallel()
	f := setup(t, two)
	f.made[0].refused = errors.New("a is refused")
	if err := f.routers["apns"].Ready(); err != nil {
		t.Error(err)
	}
	f.made[1].refused = errors.New("b is refused")
	if err := f.routers["apns"].Ready(); err == nil || !strings.Contains(err.Error(), "a is refused") || !strings.Contains(err.Error(), "b is refused") {
		t.Errorf("got %v", err)
	}
}

func TestNoRetract(t *testing.T) {
	t.Parallel()
	f := setup(t, two)
	r := f.routers["apns"].Retract(t.Context(), &whisperv1.Push{App: "com.a", Retract: true})
	if r.Class != whisperv1.FailureClass_FAILURE_CLASS_DROP || r.Reason != "no_retract" {
		t.Errorf("got %+v", r)
	}
}

// The file's default app may be an app of another channel. Where only flags can serve it, an endpoint that names no app keeps
// to the flags' own default (APNs's topic): a token sent under another app's topic is called dead.
func TestTheDefaultOfAFileIsNotThatOfFlags(t *testing.T) {
	t.Parallel()
	for own, want := range map[string]string{"com.ios": "com.ios", "": "com.android"} {
		f := prepare(t)
		f.write("apps.yaml", "default: com.android\nfcm:\n  - {apps: [com.android], key_file: a.key}\napns:\n  - {apps: [com.b], key_file: b.key}\n")
		flags := f.provider("apns", "flags")
		flags.app = own
		if err := f.open(flags); err != nil {
			t.Fatal(err)
		}
		f.want("apns", map[string]string{"": "flags"})
		if app := <-flags.apps; app != want {
			t.Errorf("the flags' provider got the app %q", app)
		}
		f.want("fcm", map[string]string{"": "key a"})
	}
}
