package fcm

import (
	"time"

	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/consumers/push/apps"
)

// InApps is the channel's entry in the registry.
var InApps = apps.Channel{Name: Channel, Open: openCredential}

// settings are one project's in the apps file.
type settings struct {
	CredentialsFile string        `yaml:"credentials_file"`
	Project         string        `yaml:"project"`
	Target          string        `yaml:"target"`
	DataCategories  []string      `yaml:"data_categories"`
	ChannelID       string        `yaml:"channel_id"`
	Sound           string        `yaml:"sound"`
	URL             string        `yaml:"url"`
	CAFile          string        `yaml:"ca_file"`
	PerMinute       int           `yaml:"per_minute"`
	Connections     int           `yaml:"connections"`
	Streams         int           `yaml:"streams"`
	RequestTimeout  time.Duration `yaml:"request_timeout"`
}

func openCredential(c *apps.Credential) (push.Provider, error) {
	var s settings
	if err := c.Decode(&s); err != nil {
		return nil, err
	}
	return New(Config{
		CredentialsFile: c.Note(s.CredentialsFile), Project: s.Project, BaseURL: s.URL, RootCAFile: c.Note(s.CAFile),
		Format:    Format{Target: s.Target, DataCategories: s.DataCategories, ChannelID: s.ChannelID, Sound: s.Sound},
		PerMinute: s.PerMinute, Connections: s.Connections, Streams: s.Streams, RequestTimeout: s.RequestTimeout,
		Credential: c.Name, Logger: c.Logger, Metrics: c.Metrics, Now: c.Now,
	})
}
