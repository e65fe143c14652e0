package apns

import (
	"time"

	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/consumers/push/apps"
)

// InApps is the channel's entry in the registry.
var InApps = apps.Channel{Name: Channel, Open: openCredential}

// settings are one credential's in the apps file. A topic is the app that the endpoint names.
type settings struct {
	KeyFile        string        `yaml:"key_file"`
	KeyID          string        `yaml:"key_id"`
	TeamID         string        `yaml:"team_id"`
	Environment    string        `yaml:"environment"`
	URL            string        `yaml:"url"`
	CAFile         string        `yaml:"ca_file"`
	Connections    int           `yaml:"connections"`
	Streams        int           `yaml:"streams"`
	RequestTimeout time.Duration `yaml:"request_timeout"`
	Sound          string        `yaml:"sound"`
}

func openCredential(c *apps.Credential) (push.Provider, error) {
	var s settings
	if err := c.Decode(&s); err != nil {
		return nil, err
	}
	return New(Config{
		KeyFile: c.Note(s.KeyFile), KeyID: s.KeyID, TeamID: s.TeamID, Environment: s.Environment,
		BaseURL: s.URL, RootCAFile: c.Note(s.CAFile), Connections: s.Connections, Streams: s.Streams,
		RequestTimeout: s.RequestTimeout, Sound: s.Sound,
		Credential: c.Name, Logger: c.Logger, Metrics: c.Metrics, Now: c.Now,
	})
}
