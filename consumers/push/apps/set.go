// Package apps gives each attempt the credential of its endpoint's app. Many apps and teams share one push process: a file
// names each channel's credentials and the apps that each serves, with secrets in files of their own.
//
//	default: com.klivvr.app            # of endpoints that name no app
//	apns:
//	  - apps: [com.klivvr.app, com.klivvr.business]
//	    key_file: keys/klivvr.p8       # relative to this file
//	    key_id: ABC123DEFG
//	    team_id: DEF123GHIJ
//
// The file and the secrets are followed: a change takes effect without a restart, for the credentials that changed. A
// replacement with a problem is told, and all that was stays. What a channel's settings are is its folder's own
// ([Channel]); this package knows none.
package apps

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/klivvr/whisper/consumers/push"
)

// Config says where credentials come from.
type Config struct {
	// File is the apps file; "" for none.
	File string
	// Channels is the registry.
	Channels []Channel
	// Given are providers of flags: one for each channel at most, for every app that the file does not name. Whoever gave
	// them leaves their closing to the Set.
	Given []push.Provider
	// Every is how often the file is looked at (default 5 s).
	Every time.Duration

	Logger  *slog.Logger
	Metrics *metrics.Set
	Now     func() time.Time
}

// Defaulter is a provider of flags that has a default app of its own, such as APNs's topic. It holds where the file names no
// credential of the channel for its default app.
type Defaulter interface{ DefaultApp() string }

// Set is the providers of one process: one for each channel that has a credential.
type Set struct {
	cfg     Config
	routers map[string]*router
	reloads map[bool]*metrics.Counter // by whether it was taken
	refused string                    // the last complaint, which is told once
}

// New reads the file and makes all providers. The error names every problem of every credential.
func New(cfg Config) (*Set, error) {
	if cfg.Every <= 0 {
		cfg.Every = 5 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = metrics.GetDefaultSet()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Set{cfg: cfg, routers: map[string]*router{}}
	s.reloads = map[bool]*metrics.Counter{
		true:  cfg.Metrics.GetOrCreateCounter(`whisper_push_apps_reloads_total{outcome="taken"}`),
		false: cfg.Metrics.GetOrCreateCounter(`whisper_push_apps_reloads_total{outcome="refused"}`),
	}
	tables, _, err := s.load()
	if err != nil {
		return nil, err
	}
	for channel, t := range tables {
		r := &router{
			channel: channel, log: cfg.Logger, told: map[string]bool{},
			missing: cfg.Metrics.GetOrCreateCounter(fmt.Sprintf("whisper_push_no_credential_total{channel=%q}", channel)),
		}
		r.replace(t)
		s.routers[channel] = r
	}
	return s, nil
}

// Providers are one for each channel, in the order of their names.
func (s *Set) Providers() []push.Provider {
	var all []push.Provider
	for _, name := range slices.Sorted(maps.Keys(s.routers)) {
		all = append(all, s.routers[name])
	}
	return all
}

// Run follows the file until ctx ends.
func (s *Set) Run(ctx context.Context) error {
	if s.cfg.File == "" {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(s.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.follow()
		case <-ctx.Done():
			return nil
		}
	}
}

// Close closes all providers. Send must not be called after it.
func (s *Set) Close() {
	for _, r := range s.routers {
		r.Close()
	}
}

// follow looks at the file once. It is called by one goroutine.
func (s *Set) follow() {
	tables, changed, err := s.load()
	switch {
	case err != nil && err.Error() != s.refused:
		s.refused = err.Error()
		s.reloads[false].Inc()
		for _, problem := range leaves(err) {
			s.cfg.Logger.Error("the apps file has a problem: all credentials stay as they were", "problem", problem.Error())
		}
	case err != nil: // told
	case len(changed) > 0 || s.refused != "":
		s.refused = ""
		s.reloads[true].Inc()
		for channel, t := range tables {
			s.routers[channel].replace(t)
		}
		s.cfg.Logger.Info("the apps file was read again", "changed", strings.Join(changed, ", "))
	}
}

// load reads the file and makes what has changed of it. After an error nothing new is left open.
func (s *Set) load() (tables map[string]*table, changed []string, err error) {
	f := &file{path: s.cfg.File}
	if s.cfg.File != "" {
		var known []string
		for _, c := range s.cfg.Channels {
			known = append(known, c.Name)
		}
		if f, err = parse(s.cfg.File, known); f == nil {
			return nil, nil, fmt.Errorf("apps: %w", err)
		}
	}
	errs, opened, before := []error{err}, []*held(nil), s.held()
	tables = map[string]*table{}
	tableOf := func(channel string) *table {
		if tables[channel] == nil {
			tables[channel] = &table{byApp: map[string]*held{}}
		}
		return tables[channel]
	}
	for _, c := range f.credentials {
		h := before[c.key()]
		if h == nil || !c.same(h.credential) {
			if h, err = s.open(c); err != nil {
				errs = append(errs, err)
				continue
			}
			opened = append(opened, h)
			changed = append(changed, c.channel+" "+c.Name)
		}
		delete(before, c.key())
		for _, app := range c.Apps {
			if app == Any {
				tableOf(c.channel).others = h
			} else {
				tableOf(c.channel).byApp[app] = h
			}
		}
	}
	for _, gone := range before {
		changed = append(changed, gone.credential.channel+" "+gone.credential.Name)
	}
	errs = append(errs, s.include(tableOf), s.complete(tables, f.fallback))
	if err := errors.Join(errs...); err != nil {
		for _, h := range opened {
			h.Close()
		}
		return nil, nil, err
	}
	return tables, changed, nil
}

// held are the providers in use that the file made.
func (s *Set) held() map[string]*held {
	all := map[string]*held{}
	for _, r := range s.routers {
		for _, h := range r.table.Load().all() {
			if h.credential != nil {
				all[h.credential.key()] = h
			}
		}
	}
	return all
}

func (s *Set) open(c *Credential) (*held, error) {
	c.Logger, c.Metrics, c.Now = s.cfg.Logger, s.cfg.Metrics, s.cfg.Now
	i := slices.IndexFunc(s.cfg.Channels, func(known Channel) bool { return known.Name == c.channel })
	p, err := s.cfg.Channels[i].Open(c)
	if err == nil {
		return &held{Provider: p, credential: c}, nil
	}
	var errs []error
	for _, problem := range leaves(err) {
		errs = append(errs, fmt.Errorf("%s:%d: %s %s: %w", s.cfg.File, c.line, c.channel, c.Name, problem))
	}
	return nil, errors.Join(errs...)
}

// include adds the providers of flags.
func (s *Set) include(tableOf func(string) *table) error {
	var errs []error
	for _, p := range s.cfg.Given {
		t := tableOf(p.Channel())
		if t.others != nil {
			errs = append(errs, fmt.Errorf("%s: %s has a credential for all other apps, and so have the flags: give one of them",
				s.cfg.File, p.Channel()))
			continue
		}
		t.others = &held{Provider: p}
		if r := s.routers[p.Channel()]; r != nil {
			t.others = r.table.Load().others
		}
	}
	return errors.Join(errs...)
}

// complete chooses each channel's default app, and holds the channels to those of the start.
func (s *Set) complete(tables map[string]*table, fallback string) error {
	var errs []error
	for channel, t := range tables {
		t.fallback = fallback
		if h := t.of(fallback); h != nil && h.credential == nil {
			if own, has := h.Provider.(Defaulter); has && own.DefaultApp() != "" {
				t.fallback = own.DefaultApp()
			}
		}
		if fallback == "" && t.others == nil && len(t.byApp) == 1 {
			for only := range t.byApp {
				t.fallback = only
			}
		}
		if len(s.routers) > 0 && s.routers[channel] == nil {
			errs = append(errs, fmt.Errorf("%s: %s had no credential when the process started: restart it to serve the channel",
				s.cfg.File, channel))
		}
	}
	for channel := range s.routers {
		if tables[channel] == nil {
			errs = append(errs, fmt.Errorf("%s: %s has no credential any more: restart the process to leave the channel",
				s.cfg.File, channel))
		}
	}
	return errors.Join(errs...)
}
